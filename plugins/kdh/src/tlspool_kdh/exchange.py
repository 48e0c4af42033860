"""The key exchange ECDHE-KRB of TLS 1.2, and the two kinds of credential that Kerberos makes.

Theory of operation
-------------------
Diffie-Hellman on a curve is not signed by anybody.  The client shows a ticket and, in CertificateVerify, an Authenticator over all
messages.  Its plaintext holds a random subkey and goes into the premaster secret, so only who can open ticket and Authenticator comes
to the same keys: that is the server's proof, and Finished carries it.

    premaster = len16 | ECDH shared x | len16 | plaintext (DER) Authenticator

A server that is a user has no key that lasts: it shows its ticket-granting ticket in Certificate, and the client has the KDC encrypt a
ticket in the session key of that one (RFC 4120 section 3.7).  So the ticket is had once the server has spoken, by `prepare`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tlspool_core.api import (
    CertificateEntry,
    Credential,
    DecodeError,
    HandshakeFailure,
    IllegalParameter,
    KeyExchangeContext,
    KeyExchangeRun,
    PeerCredential,
)
from tlspool_kdh.asn1 import Authenticator, decode
from tlspool_kdh.codes import CHECKSUMS, KDH_NAME, TICKET_TYPE
from tlspool_kdh.crypto import AES256_TYPES
from tlspool_kdh.tickets import ClientTicket, OpenedTicket, Principal, Service, make_authenticator, open_authenticator

_X25519 = 29
_CURVES: Mapping[int, ec.EllipticCurve] = {23: ec.SECP256R1(), 24: ec.SECP384R1(), 25: ec.SECP521R1()}
_NAMED_CURVE = 3  # RFC 8422 section 5.4


@dataclass(frozen=True, slots=True)
class TicketCredential:
    """What a client shows: a ticket; it proves itself by Authenticators, with a subkey where KDH-only draws on them."""

    held: ClientTicket
    with_subkey: bool = True
    signature_schemes: Sequence[int] = tuple(CHECKSUMS)
    issuers: Sequence[bytes] = ()
    certificate_type: int = TICKET_TYPE

    @property
    def entries(self) -> Sequence[CertificateEntry]:
        """The ticket."""
        return (CertificateEntry(self.held.ticket),)

    def sign(self, scheme: int, content: bytes) -> bytes:
        """An Authenticator over `content`."""
        now = time.time() + self.held.clock_offset
        return make_authenticator(self.held, scheme, content, now, with_subkey=self.with_subkey)


@dataclass(slots=True)
class TicketPeer:
    """A client as a service sees it; `verify` keeps the plaintext of the Authenticator, from which keys come."""

    entries: Sequence[CertificateEntry]
    opened: OpenedTicket
    service: Service = field(repr=False)
    authenticator: bytes = field(default=b"", repr=False)
    certificate_type: int = TICKET_TYPE

    @property
    def principal(self) -> Principal:
        """The client."""
        return self.opened.client

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        """The Authenticator holds for this content, and is new."""
        self.authenticator = self.service.accept(self.opened, scheme, content, signature)


@dataclass(frozen=True, slots=True)
class ServicePeer:
    """A service that proved, by its Finished, to have opened our ticket; or a user, by a ticket of its own that we have `opened`."""

    principal: Principal
    opened: OpenedTicket | None = None
    entries: Sequence[CertificateEntry] = ()
    certificate_type: int = TICKET_TYPE

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        """Never asked: the proof is in Finished."""
        raise HandshakeFailure("a service proves itself by Finished, not by a signature")


class _Share:
    """One side's half of ECDH on X25519, P-256, P-384 or P-521."""

    def __init__(self, group: int) -> None:
        self.group = group
        self._private = X25519PrivateKey.generate() if group == _X25519 else ec.generate_private_key(_CURVES[group])

    @property
    def public(self) -> bytes:
        if isinstance(self._private, X25519PrivateKey):
            return self._private.public_key().public_bytes_raw()
        return self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, peer: bytes) -> bytes:
        """The shared x. Raises IllegalParameter."""
        try:
            if isinstance(self._private, X25519PrivateKey):
                return self._private.exchange(X25519PublicKey.from_public_bytes(peer))
            if peer[:1] != b"\x04":
                raise ValueError("compressed point")
            public = ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[self.group], peer)
            return self._private.exchange(ec.ECDH(), public)
        except ValueError:
            raise IllegalParameter("the peer's point is not on the curve") from None


def _point(data: bytes) -> bytes:
    if not data or data[0] != len(data) - 1:
        raise DecodeError("a point is shorter or longer than its length says")
    return data[1:]


class _Run(KeyExchangeRun):
    """What both sides have in common."""

    premaster_after_certificate_verify = True
    quantum_safe = True  # the subkey in the Authenticator is known to those only who have the session key

    def __init__(self) -> None:
        self._share: _Share | None = None
        self._shared = b""
        self._authenticator = b""

    def parameters_length(self, message: bytes) -> int:
        """Up to the end of the point."""
        return 4 + message[3] if len(message) > 3 else len(message) + 1

    def premaster(self) -> bytes:
        """Both inputs, each behind its length."""
        if not self._shared or not self._authenticator:
            raise HandshakeFailure("no authenticator, and so no premaster secret")
        parts = (self._shared, self._authenticator)
        return b"".join([len(part).to_bytes(2, "big") + part for part in parts])


class _ServerRun(_Run):
    def __init__(self, group: int, accepts: Callable[[Principal], bool]) -> None:
        super().__init__()
        self.group = group
        self._accepts = accepts

    def own_parameters(self) -> bytes | None:
        """A named curve and a point, unsigned."""
        self._share = _Share(self.group)
        public = self._share.public
        return bytes((_NAMED_CURVE,)) + self.group.to_bytes(2, "big") + bytes((len(public),)) + public

    def peer_parameters(self, body: bytes) -> None:
        """The client's point."""
        assert self._share is not None
        self._shared = self._share.finish(_point(body))

    def proof(self, credential: Credential | PeerCredential, scheme: int, content: bytes, signature: bytes) -> None:
        """The Authenticator that the ticket's owner made, if the ticket is for us."""
        assert isinstance(credential, TicketPeer)
        check_service(credential.opened, self._accepts)
        check_subkey(credential.authenticator)
        self._authenticator = credential.authenticator


class _ClientRun(_Run):
    def __init__(self, groups: Sequence[int]) -> None:
        super().__init__()
        self._groups = usable_groups(groups)
        self._service: Principal | None = None

    def peer_parameters(self, body: bytes) -> None:
        """The server's curve and point; our half is made at once."""
        if len(body) < 4 or body[0] != _NAMED_CURVE:
            raise IllegalParameter("ServerKeyExchange has no named curve")
        self.group = int.from_bytes(body[1:3], "big")
        if self.group not in self._groups:
            raise IllegalParameter(f"group {self.group} was not offered")
        self._share = _Share(self.group)
        self._shared = self._share.finish(_point(body[3:]))

    def own_parameters(self) -> bytes | None:
        """Our point."""
        assert self._share is not None
        return bytes((len(self._share.public),)) + self._share.public

    def proof(self, credential: Credential | PeerCredential, scheme: int, content: bytes, signature: bytes) -> None:
        """What we sent just now, opened again."""
        held = getattr(credential, "held", None)  # of TicketCredential, or of what stands for it in a session
        assert isinstance(held, ClientTicket)
        self._authenticator, _ = open_authenticator(held.session_key, signature)
        self._service = held.service

    def peer_credential(self) -> PeerCredential | None:
        """The service of the ticket."""
        return None if self._service is None else ServicePeer(self._service)


def check_service(opened: OpenedTicket, accepts: Callable[[Principal], bool]) -> None:
    """Refuse tickets for services other than the one that this session is for."""
    if not accepts(opened.service):
        raise HandshakeFailure(f"the ticket is for {opened.service}, which is not the service of this session")


def check_subkey(authenticator: bytes) -> None:
    """In KDH-only the Authenticator brings fresh entropy: without its subkey, who breaks the curve could guess the rest."""
    subkey = decode(Authenticator, authenticator)["subkey"]
    if subkey is None or subkey["keytype"] not in AES256_TYPES or len(subkey["keyvalue"]) != 32:
        raise IllegalParameter("the authenticator has no subkey of AES-256, which KDH-only draws on")


def usable_groups(groups: Sequence[int]) -> list[int]:
    """Of the client's groups, those that we have, in its order."""
    return [group for group in groups if group == _X25519 or group in _CURVES]


class Kdh:
    """The key exchange, for one session.

    `accepts` says at the server which services of the keytab the session is for. `prepare` is called at the client when it is settled
    that KDH-only is spoken, with the server's ticket-granting ticket (empty if it showed none): time to have a ticket. It may block, and
    raises a TlsError if there is none to be had.
    """

    name = KDH_NAME

    def __init__(
        self, accepts: Callable[[Principal], bool] = lambda _: True, prepare: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._accepts, self._prepare = accepts, prepare

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        """Whether there is a curve in common."""
        content = client_extensions.get(10, b"")
        return bool(usable_groups([int.from_bytes(content[at : at + 2], "big") for at in range(2, len(content) - 1, 2)]))

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        """A run with the client's favourite of the curves in common."""
        groups = usable_groups(context.peer_groups)
        if not groups:
            raise HandshakeFailure("no curve in common for Kerberos")
        if role == "server":
            return _ServerRun(groups[0], self._accepts)
        self._prepare(context.server_entries[0].data if context.server_entries else b"")
        return _ClientRun(groups)
