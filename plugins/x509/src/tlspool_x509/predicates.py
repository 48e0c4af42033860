"""Predicates of validation expressions that X.509 brings: T t, P p, R r, O o, E e."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus

from tlspool_core.api import Finding, PeerContext, Predicate, Role, Verdict
from tlspool_x509.anchors import TYPE
from tlspool_x509.names import title
from tlspool_x509.ocsp import BadResponse, certificate_status
from tlspool_x509.paths import Untrusted
from tlspool_x509.peer import X509Peer
from tlspool_x509.pins import keeper, kept_pins, matches, operator_pins
from tlspool_x509.revocation import Standing, distribution_points
from tlspool_x509.settings import X509Settings
from tlspool_x509.validation import Validator

_ROLES = {"client": Role.CLIENT, "server": Role.SERVER}


@dataclass(slots=True)
class State:
    """What configuration makes; replaced on reload, while predicates stay."""

    settings: X509Settings
    validator: Validator


class _X509Predicate(Predicate):
    """What they have in common: the peer showed a certificate, in a role."""

    types = frozenset({TYPE})

    def __init__(self, state: State) -> None:
        self._state = state

    def establish(self, context: PeerContext) -> Finding:
        peer = context.peer
        if not isinstance(peer, X509Peer):
            return Finding(Verdict.FALSE, "the peer showed no X.509 certificate")
        try:
            return self._find(peer, _ROLES[context.offered_role], context)
        except Untrusted as reason:
            return Finding(Verdict.FALSE, str(reason))

    def _find(self, peer: X509Peer, role: Role, context: PeerContext) -> Finding:
        """Raises Untrusted, whose reason then is that of a FALSE finding."""
        raise NotImplementedError


class ChainPredicate(_X509Predicate):
    """T: a path to a trust anchor. t: a correct self-signature is enough."""

    letter = "T"

    def _find(self, peer: X509Peer, role: Role, context: PeerContext) -> Finding:
        try:
            path = self._state.validator.path(peer, role, context.config, ignore_caches=context.ignore_caches)
            self._check_staple(peer, role, context)
        except Untrusted as reason:
            return self._self_signed(peer, role, context, reason)
        return Finding(Verdict.STRICT, f"path to {title(path.anchor.certificate)}")

    def _check_staple(self, peer: X509Peer, role: Role, context: PeerContext) -> None:
        """A stapled response that says "revoked" is never passed over, and a required one (RFC 7633) not missed."""
        if context.facts.peer_ocsp is None:
            if role is Role.SERVER and _must_staple(peer.leaf) and not context.facts.resumed:
                raise Untrusted(f"{title(peer.leaf)} requires a stapled OCSP response, and there is none")
            return
        path = self._state.validator.path(peer, role, context.config)
        for _certificate, issuer in path.links[:1]:
            try:
                status = certificate_status(context.facts.peer_ocsp, peer.leaf, issuer, self._state.validator.clock())
            except BadResponse as reason:
                if _must_staple(peer.leaf):
                    raise Untrusted(f"{title(peer.leaf)}: {reason}") from None
                return
            if status is OCSPCertStatus.REVOKED:
                raise Untrusted(f"{title(peer.leaf)} is revoked, says the stapled OCSP response")

    def _self_signed(self, peer: X509Peer, role: Role, context: PeerContext, reason: Untrusted) -> Finding:
        try:
            self._state.validator.check_self_signed(peer, role, context.config)
        except Untrusted:
            return Finding(Verdict.FALSE, str(reason))
        return Finding(Verdict.LENIENT, f"{reason}; the certificate is correctly self-signed")


def _must_staple(certificate: x509.Certificate) -> bool:
    try:
        features = certificate.extensions.get_extension_for_class(x509.TLSFeature).value
    except x509.ExtensionNotFound:
        return False
    return x509.TLSFeatureType.status_request in features


class PinPredicate(_X509Predicate):
    """P: equals the pinned credential. p: or nothing is pinned yet, and it becomes the pin when the peer is accepted."""

    letter = "P"

    def _find(self, peer: X509Peer, role: Role, context: PeerContext) -> Finding:
        if self._state.validator.trust.is_distrusted(peer.leaf, context.config):
            return Finding(Verdict.FALSE, f"{title(peer.leaf)} is marked as revoked in the trust database")
        identity = context.wanted or next(iter(context.identities), None)
        if operator_pins(peer, role, context.config) and (identity is None or identity in context.identities):
            return Finding(Verdict.STRICT, "the credential is pinned")
        if identity is None:
            return Finding(Verdict.FALSE, "the credential is not pinned, and names nobody for whom it could be")
        pins = kept_pins(identity, role, context.config)
        if not pins:
            keep = keeper(peer, identity, role, context.config, self._state.settings.pin)
            return Finding(Verdict.LENIENT, f"first credential seen for {identity}; it is pinned when accepted", keep)
        if matches(peer, pins):
            return Finding(Verdict.STRICT, f"the credential pinned for {identity}")
        return Finding(Verdict.FALSE, f"another credential is pinned for {identity}; if the change is right, remove that pin")


class RevocationPredicate(_X509Predicate):
    """R: current revocation lists name no certificate of the path. r: or the issuers have no lists."""

    letter = "R"

    def _find(self, peer: X509Peer, role: Role, context: PeerContext) -> Finding:
        path = self._state.validator.path(peer, role, context.config, ignore_caches=context.ignore_caches)
        verdict, reason = Verdict.STRICT, "no certificate of the path is on a revocation list"
        for certificate, issuer in path.links:
            listed = self._state.validator.standing(certificate, issuer, context.config)
            if listed.standing is Standing.CLEAN:
                continue
            reason = f"{title(certificate)}: {listed.reason}"
            if listed.standing is not Standing.UNLISTED or self._state.validator.trust.revocation_lists(issuer, context.config):
                return Finding(Verdict.FALSE, reason)
            if distribution_points(certificate):
                return Finding(Verdict.FALSE, f"{reason}, although there is one: the certificate says where")
            verdict = Verdict.LENIENT
        return Finding(verdict, reason)


class StaplePredicate(_X509Predicate):
    """O: the stapled OCSP response says that the certificate is good. o: or that the responder does not know it."""

    letter = "O"

    def _find(self, peer: X509Peer, role: Role, context: PeerContext) -> Finding:
        if context.facts.peer_ocsp is None:
            return Finding(Verdict.FALSE, "the peer stapled no OCSP response")
        path = self._state.validator.path(peer, role, context.config, ignore_caches=context.ignore_caches)
        if not path.links:
            return Finding(Verdict.FALSE, "the certificate is an anchor itself, so no issuer can speak for it")
        try:
            status = certificate_status(context.facts.peer_ocsp, peer.leaf, path.links[0][1], self._state.validator.clock())
        except BadResponse as reason:
            return Finding(Verdict.FALSE, str(reason))
        return Finding(_STATUS_VERDICTS[status], f"the stapled OCSP response says {status.name.lower()}")


_STATUS_VERDICTS = {
    OCSPCertStatus.GOOD: Verdict.STRICT,
    OCSPCertStatus.UNKNOWN: Verdict.LENIENT,
    OCSPCertStatus.REVOKED: Verdict.FALSE,
}


class ExtensionPredicate(_X509Predicate):
    """E: the extensions that the service's rule names are there, critical where it says so. e: criticality is not looked at."""

    letter = "E"

    def _find(self, peer: X509Peer, role: Role, context: PeerContext) -> Finding:
        rules = self._state.settings.extensions.get(context.service)
        if rules is None:
            return Finding(Verdict.FALSE, f"no rule names extensions for the service {context.service or '(none)'}")
        present = {extension.oid: extension.critical for extension in peer.leaf.extensions}
        for rule in rules:
            if rule.oid not in present:
                return Finding(Verdict.FALSE, f"the certificate has no extension {rule.oid.dotted_string}")
        lax = [rule.oid.dotted_string for rule in rules if rule.critical and not present[rule.oid]]
        if lax:
            return Finding(Verdict.LENIENT, f"the extension {lax[0]} is not critical")
        return Finding(Verdict.STRICT, "the certificate has all extensions that the service asks for")

    def cost(self) -> int:
        return 0


PREDICATES: tuple[Callable[[State], Predicate], ...] = (
    ChainPredicate,
    PinPredicate,
    RevocationPredicate,
    StaplePredicate,
    ExtensionPredicate,
)
