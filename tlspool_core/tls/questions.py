"""The questions that the engine asks of whoever drives it, each with the type of its answer.

Theory of operation
-------------------
A handshake is a coroutine.  Where it needs a decision, a signature or any code that is not its own, it awaits a question; the
connection then stands still (`TlsConnection.question` is set) until `answer()` or `refuse()` is called.  Bytes that arrive in
the meantime are kept.  The driver may answer at once, or after a person typed a PIN: the engine has no clock.

`refuse(error)` with a `TlsError` sends that error's alert; so does an answer that does not fit the peer's offer.

A question is made for one answer and not kept, so it is not frozen, which would make it three times as expensive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from tlspool_core.tls.seams import CertificateEntry, Credential, PeerCredential, Version
from tlspool_core.tls.settings import ClientSettings, ServerSettings
from tlspool_core.tls.tls13.external_psk import PskNames

A = TypeVar("A")
T = TypeVar("T")


class Question(Generic[A]):
    """Base of all questions; `A` is the type of the answer."""

    __slots__ = ()


class ClientAuth(Enum):
    """Whether a server asks the client to authenticate."""

    NONE = "none"
    REQUEST = "request"
    REQUIRE = "require"


@dataclass(slots=True)
class PeerOffer:
    """What the peer can take, out of its ClientHello or CertificateRequest. Code points as sent, unknown ones included."""

    versions: Sequence[Version] = ()
    cipher_suites: Sequence[int] = ()
    groups: Sequence[int] = ()
    signature_schemes: Sequence[int] = ()
    signature_schemes_cert: Sequence[int] = ()
    certificate_types: Sequence[int] = (0,)  # of ours, that the peer accepts
    peer_certificate_types: Sequence[int] = (0,)  # of its own, that the peer may show
    certificate_authorities: Sequence[bytes] = ()  # DER distinguished names
    alpn: Sequence[bytes] = ()
    server_name: str | None = None
    wants_ocsp: bool = False
    wants_scts: bool = False
    oid_filters: Sequence[tuple[bytes, bytes]] = ()


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """How the server means to present itself to this client.

    `credentials` in order of preference: the engine takes the first that fits the version, suites and schemes in common.
    `alpn` is our list in order of preference; no protocol in common is refused with no_application_protocol unless it is empty.
    """

    credentials: Sequence[Credential] = ()
    alpn: Sequence[bytes] = ()
    client_auth: ClientAuth = ClientAuth.NONE
    certificate_authorities: Sequence[bytes] = ()
    client_certificate_types: Sequence[int] = (0,)


@dataclass(slots=True)
class ChooseServerCredential(Question[ServerChoice]):
    """Server, after ClientHello (once, before any HelloRetryRequest)."""

    offer: PeerOffer


@dataclass(slots=True)
class ChooseClientCredential(Question[Sequence[Credential]]):
    """Client, after the server's CertificateRequest and after the server was judged. Empty: send no certificate."""

    offer: PeerOffer
    version: Version


@dataclass(slots=True)
class Sign(Question[bytes]):
    """Make a signature with the key of one of our credentials: `content` is the complete message to be signed, not a digest."""

    credential: Credential
    scheme: int
    content: bytes


@dataclass(slots=True)
class ExaminePeer(Question[PeerCredential]):
    """Parse what the peer showed, so that its proof can be verified. Nothing about trust is decided here."""

    certificate_type: int
    entries: Sequence[CertificateEntry]
    version: Version


@dataclass(frozen=True, slots=True)
class HandshakeFacts:
    """What is known of the session: input to policy, INFO queries and logs. Holds no secret."""

    role: str  # "client" or "server"
    version: Version
    cipher_suite: int
    cipher_suite_name: str
    group: int = 0  # 0: no group was used
    key_exchange: str = ""  # "ECDHE", "PSK+ECDHE", or a plugin's
    forward_secret: bool = True
    own_signature_scheme: int = 0
    peer_signature_scheme: int = 0
    server_name: str | None = None
    alpn: bytes | None = None
    resumed: bool = False
    retried: bool = False  # TLS 1.3: there was a HelloRetryRequest
    peer_ocsp: bytes | None = None
    peer_scts: bytes | None = None
    quantum_safe_exchange: bool = False
    quantum_safe_authentication: bool = False
    early_data_refused: bool = False
    extended_master_secret: bool = False  # TLS 1.2 only: the session is bound to its handshake (RFC 7627)


@dataclass(slots=True)
class JudgePeer(Question[bytes]):
    """Decide whether the session may go on with this peer; asked exactly once per handshake, resumed ones included.

    Asked as soon as the peer's proof is complete: after CertificateVerify, else after Finished. `peer` is None if the peer showed
    nothing. In a resumed session `peer` is rebuilt by ExaminePeer from the stored entries, and `context` is what the answer
    of the first handshake was. The answer is at most 8 KiB of context to store with the session for that purpose.
    Refuse with a `TlsError` to reject.
    """

    peer: PeerCredential | None
    own: Credential | None
    facts: HandshakeFacts
    context: bytes = b""


@dataclass(slots=True)
class OpenTicket(Question["bytes | None"]):
    """Server: a ticket (or session identifier) came back; answer with the stored state, None if it is unknown or too old."""

    ticket: bytes


@dataclass(slots=True)
class SealTicket(Question["bytes | None"]):
    """Server: protect session state as a ticket for the client, None for none. `state` holds secrets."""

    state: bytes = field(repr=False)


@dataclass(slots=True)
class ExternalPsk(Question["bytes | None"]):
    """Server: the client offers an external PSK identity; answer with the key, None if unknown.

    `names` are those that the client takes both ends for: answer only with a key that these two share. None: it is used raw.
    """

    identity: bytes
    names: PskNames | None


@dataclass(slots=True)
class SpeakFirst(Question[ClientSettings | None]):
    """An end that does not know its role, before anything else: shall it send a ClientHello now?

    The driver listens for as long as it sees fit, and answers with our settings as a client if nothing has come, or with None if bytes of
    the other end have come; these may be fed before or after the answer. None is only for an end that `may_serve`.
    """

    may_serve: bool


@dataclass(slots=True)
class BecomeServer(Question[ServerSettings]):
    """An end that did not know its role is the server, whether or not it has sent a ClientHello: with which settings?"""


@dataclass(slots=True)
class Call(Question[T]):
    """Run `work()`, which is a plugin's and may block, and answer with what it returns; refuse with what it raises.

    An exception other than TlsError is the plugin's fault: the driver refuses with InternalError and logs it under `who`.
    `quick` work computes for a millisecond at most and never waits, so that it may be run at once, on the event loop.
    """

    who: str
    work: Callable[[], T] = field(compare=False)
    quick: bool = False


AnyQuestion = Question[Any]
