"""What a TLS 1.2 server settles on: suite, key exchange, credential, certificate types (RFC 5246 section 7.4.1.3).

Theory of operation
-------------------
In TLS 1.2 the suite names the key exchange and the kind of signature, so all of them are chosen at once: the first suite, in order
of preference, for which everything else is there.  If there is none, the reason given is that of the best suite in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from tlspool_core.tls.alerts import HandshakeFailure, NoCertificateTypeInCommon, NoGroupInCommon, NoSuiteInCommon, TlsError
from tlspool_core.tls.enums import CertificateType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.negotiation import choose_credential, schemes_in
from tlspool_core.tls.questions import ClientAuth, ServerChoice
from tlspool_core.tls.seams import CertificateEntry, CipherSuite, KeyExchange
from tlspool_core.tls.settings import TLS12, ServerSettings
from tlspool_core.tls.signatures import CURVES, schemes_for
from tlspool_core.tls.suites import enabled_suites
from tlspool_core.tls.tls12.authentication import Showing
from tlspool_core.tls.tls12.client_offer import ClientOffer
from tlspool_core.tls.tls12.key_exchange import exchanges_for


@dataclass(frozen=True, slots=True)
class Terms:
    """One suite, with all that it needs.

    `showing` is None where the suite has no signature of the server's. `own_type` is the type of our Certificate message, None for no
    such message; `requested` is that of the client's, None for no CertificateRequest.
    """

    suite: CipherSuite
    exchange: KeyExchange
    showing: Showing | None = None
    own_type: int | None = None
    entries: Sequence[CertificateEntry] = ()
    requested: int | None = None


def suites_in_common(settings: ServerSettings, offer: ClientOffer) -> dict[int, CipherSuite]:
    """By code, in order of preference. CBC is only for clients that have encrypt_then_mac."""
    offered = frozenset(offer.hello.cipher_suites)
    encrypt_then_mac = Ext.ENCRYPT_THEN_MAC in offer
    common = {
        suite.code: suite
        for suite in enabled_suites(settings)
        if suite.version == TLS12 and suite.code in offered and (not suite.mac or encrypt_then_mac)
    }
    if settings.prefer_own_suites:
        return common
    return {code: common[code] for code in offer.hello.cipher_suites if code in common}


def choose_terms(settings: ServerSettings, offer: ClientOffer, choice: ServerChoice, suites: dict[int, CipherSuite]) -> Terms:
    """Raises NoSuiteInCommon, NoGroupInCommon, NoCredential, NoSchemeInCommon or NoCertificateTypeInCommon, whichever says why.

    Among certificate types the order of our credentials counts, and more than that of the suites.  A credential on a curve that the
    client did not list comes last: RFC 8422 section 5.1 forbids it, yet some clients take it.
    """
    refusal: TlsError | None = None
    for any_curve, one_type in product((False, True), _by_type(choice)):
        chooser = _Chooser(settings, offer, one_type)
        for suite in suites.values():
            try:
                return chooser.terms(suite, any_curve=any_curve)
            except (HandshakeFailure, NoCertificateTypeInCommon) as reason:
                refusal = refusal or reason
    raise refusal or NoSuiteInCommon(f"none of {len(offer.hello.cipher_suites)} cipher suites")


def _by_type(choice: ServerChoice) -> list[ServerChoice]:
    """The choice with credentials of one certificate type at a time, in the order in which the types come first."""
    types = dict.fromkeys([credential.certificate_type for credential in choice.credentials])
    if len(types) < 2:
        return [choice]
    return [replace(choice, credentials=[one for one in choice.credentials if one.certificate_type == kind]) for kind in types]


class _Chooser:
    """What is common to the tries of all suites."""

    def __init__(self, settings: ServerSettings, offer: ClientOffer, choice: ServerChoice) -> None:
        self._offer = offer
        self._choice = choice
        self._own_types = [kind for kind in settings.own_certificate_types if kind in offer.server_types]
        self._peer_types = [kind for kind in settings.peer_certificate_types if kind in offer.client_types]
        self._exchanges = exchanges_for(settings)
        self._table = schemes_for(settings)
        self._schemes = schemes_in(settings, TLS12, offer.get(Ext.SIGNATURE_ALGORITHMS, ()))

    def terms(self, suite: CipherSuite, *, any_curve: bool) -> Terms:
        """All that one suite needs, or the reason why it is not possible."""
        exchange = self._exchanges.get(suite.key_exchange)
        if exchange is None or not exchange.usable(self._offer.hello.extensions):
            raise NoGroupInCommon(f"key exchange {suite.key_exchange} is not possible with this client")
        if suite.authentication:
            showing = self._showing(suite.authentication, any_curve)
            own = showing.credential
            return Terms(suite, exchange, showing, own.certificate_type, own.entries, self._client_type(own.certificate_type))
        if suite.client_certificate_type is not None:
            return self._unsigned(suite, exchange, suite.client_certificate_type)
        return Terms(suite, exchange)

    def _showing(self, authentication: str, any_curve: bool) -> Showing:
        """A credential with a scheme that goes with the suite."""
        groups = self._offer.groups
        fitting = [code for code in self._schemes if self._table[code].authentication == authentication]
        if not any_curve:
            fitting = [code for code in fitting if code not in CURVES or CURVES[code] in groups]
        return Showing(*choose_credential(self._choice.credentials, self._own_types, frozenset(fitting)))

    def _unsigned(self, suite: CipherSuite, exchange: KeyExchange, kind: int) -> Terms:
        """A suite whose key exchange draws on a client certificate of one type; ours is of that type too, and may be empty."""
        if kind not in self._peer_types:
            raise NoCertificateTypeInCommon(f"{suite.name} needs a client certificate of type {kind}")
        if kind not in self._own_types:
            empty = CertificateType.X509 if CertificateType.X509 in self._offer.server_types else None
            return Terms(suite, exchange, None, empty, (), kind)
        shown = next((credential.entries for credential in self._choice.credentials if credential.certificate_type == kind), ())
        return Terms(suite, exchange, None, kind, shown, kind)

    def _client_type(self, own_type: int) -> int | None:
        """The certificate type to request of the client, None for no request (RFC 7250 section 4.2).

        With the older cert_type both sides use one type. Raises NoCertificateTypeInCommon where a certificate is demanded.
        """
        choice = self._choice
        if choice.client_auth is ClientAuth.NONE:
            return None
        types: Sequence[int] = (own_type,) if self._offer.cert_type else self._offer.client_types
        for kind in choice.client_certificate_types:
            if kind in types:
                return kind
        if choice.client_auth is ClientAuth.REQUIRE:
            raise NoCertificateTypeInCommon("no certificate type for the client in common")
        return None
