"""The seams of the TLS engine: what a plugin may bring into a handshake.

Theory of operation
-------------------
The engine knows the message flow of RFC 8446 (TLS 1.3) and RFC 5246 (TLS 1.2).  What differs between ways to
authenticate is put into five small kinds of object, which the session hands in with the settings of one connection:

* `Credential` - something of ours to show, and the signature schemes its key can make;
* `PeerCredential` - what the peer showed, able to verify the peer's proof of possession;
* `CertificateForm` - how a certificate type lies in the Certificate message;
* `KeyExchange` - a TLS 1.2 key exchange: what travels in ServerKeyExchange and ClientKeyExchange, and the premaster secret;
* `HandshakeExtension` - one hello extension of one session, which in TLS 1.3 may also feed the key schedule.

None of them does I/O as far as the engine knows.  Whatever could block is run by the session: the engine wraps each call into
plugin code in a `Call` question (see `questions`), and so never waits itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

Version = int  # 0x0303 or 0x0304


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """One element of a certificate chain: opaque bytes and, in TLS 1.3, its extensions (RFC 8446 section 4.4.2)."""

    data: bytes
    extensions: Mapping[int, bytes] = field(default_factory=dict)


@runtime_checkable
class Credential(Protocol):
    """Something of ours that authenticates us; made by a credential-type plugin, never holding a private key.

    The engine reads the attributes and asks the question `Sign`; the session answers that through the key store.
    """

    @property
    def certificate_type(self) -> int:
        """Code point of the IANA registry "TLS Certificate Types"; 0 is X.509."""

    @property
    def entries(self) -> Sequence[CertificateEntry]:
        """What to show, end entity first. Empty where the certificate type shows nothing."""

    @property
    def signature_schemes(self) -> Sequence[int]:
        """Code points of SignatureScheme that the key can make, best first."""

    @property
    def issuers(self) -> Sequence[bytes]:
        """DER names of the issuers in the chain, matched with certificate_authorities. Empty: matches any."""


class PeerCredential(Protocol):
    """What the peer showed, parsed by the plugin of its certificate type."""

    @property
    def certificate_type(self) -> int: ...

    @property
    def entries(self) -> Sequence[CertificateEntry]: ...

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        """Verify the peer's proof of possession; called once, with the scheme that the peer chose out of our offer. Never waits.

        `content` is what the RFC of the version says is signed: the 64-space construction in TLS 1.3 (RFC 8446 section 4.4.3),
        all handshake messages in TLS 1.2's CertificateVerify, randoms and parameters in its ServerKeyExchange.
        Raises a `tls.alerts.TlsError` (DecryptError, IllegalParameter...) if it does not hold.
        """


@dataclass(frozen=True, slots=True)
class CertificateForm:
    """How one certificate type lies in the body of the Certificate message.

    `parse12` / `build12` translate the whole TLS 1.2 body; TLS 1.3 has one frame for all types, so only
    `entries13_max` differs (a raw public key has exactly one). `versions` says where the type is allowed at all.
    `parse12` raises a `tls.alerts.TlsError`, normally DecodeError, on anything that is not well formed.

    `cert_type` says that in TLS 1.2 the type is also negotiated by the older extension cert_type (RFC 6091 section 3.1), which
    stands for both sides at once; extensions 19 and 20 (RFC 7250) go before it where a peer has them.
    """

    certificate_type: int
    name: str
    versions: frozenset[Version]
    parse12: Callable[[bytes], tuple[CertificateEntry, ...]]
    build12: Callable[[Sequence[CertificateEntry]], bytes]
    entries13_max: int = 10
    # TLS 1.2 CertificateRequest.certificate_types codes that stand for this type (RFC 5246 section 7.4.4); empty: rsa_sign, ecdsa_sign
    client_certificate_types: tuple[int, ...] = ()
    cert_type: bool = False


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """One row of the cipher suite table.

    `key_exchange` is "" in TLS 1.3, else the name of a KeyExchange ("ECDHE", "SRP"...). `authentication` is "" for a suite
    without signed ServerKeyExchange, else "rsa", "ecdsa" or a plugin's word matched with SignatureScheme.authentication.
    `cipher` names a row of `protection`; `mac` only with CBC (which requires encrypt_then_mac). `client_certificate_type` is for a
    suite without signed ServerKeyExchange in which certificate messages have a place all the same, as tickets do in TLS-KDH: the
    server demands a client certificate of this type, and its own Certificate, of the same type, may be empty or missing.
    """

    code: int
    name: str
    version: Version
    key_exchange: str
    authentication: str
    cipher: str
    hash_name: str
    mac: str = ""
    verify_data_length: int = 12
    client_certificate_type: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureScheme:
    """One row of the signature scheme table (RFC 8446 section 4.2.3; in TLS 1.2 the same two bytes are hash and signature).

    `quantum_safe` says that no quantum computer is known to help in forging it.
    """

    code: int
    name: str
    versions: frozenset[Version]
    authentication: str
    quantum_safe: bool = False


@dataclass(frozen=True, slots=True)
class KeyExchangeContext:
    """What a TLS 1.2 key exchange may know when it starts: at the server before ServerKeyExchange, at the client after it came.

    `peer_groups` are the supported_groups of the client, at the client its own. `server_entries` is what the server's Certificate
    message showed.
    """

    client_random: bytes
    server_random: bytes
    suite: CipherSuite
    peer_groups: Sequence[int]
    client_extensions: Mapping[int, bytes]
    server_extensions: Mapping[int, bytes]
    server_entries: Sequence[CertificateEntry] = ()


class KeyExchangeRun(Protocol):
    """One run of a TLS 1.2 key exchange, on one side. Methods are called in the order of the message flow.

    A class that derives from this protocol inherits what a plain exchange does: no group, nobody proven.

    Every method may block (the session runs it elsewhere) and may raise `tls.alerts.TlsError`, whose alert is sent.
    The server's run is used as: `own_parameters()` -> ServerKeyExchange params, `peer_parameters(body of ClientKeyExchange)`,
    `premaster()`. The client's: `peer_parameters(params)`, `own_parameters()` -> body of ClientKeyExchange, `premaster()`.
    """

    # True if `premaster` needs what CertificateVerify carries: `proof` and `premaster` are then called after that message, and a
    # client that shows no certificate is refused
    premaster_after_certificate_verify: bool = False
    # True if the premaster secret draws on symmetric secrets that the server must have as well, so that breaking (EC)DH does not
    # give it away; then key exchange and proof by Finished are facts of that kind
    quantum_safe: bool = False
    # code point of the named group that was used, 0 for none; read after `premaster`
    group: int = 0

    def own_parameters(self) -> bytes | None:
        """Bytes of our key exchange message without the signature; None for no such message (server only)."""

    def parameters_length(self, message: bytes) -> int:
        """Client: how many leading bytes of a ServerKeyExchange body are params; the rest is the signature."""

    def peer_parameters(self, body: bytes) -> None:
        """Take the peer's params (at the client) or ClientKeyExchange (at the server), which must be used up.

        Where a suite without signature has no ServerKeyExchange, `body` is empty.
        """

    def proof(self, credential: Credential | PeerCredential, scheme: int, content: bytes, signature: bytes) -> None:
        """Only with `premaster_after_certificate_verify`: the client's CertificateVerify, made or verified just now.

        `credential` is the client's own, or at the server what `ExaminePeer` made of it and has verified `signature` already.
        """
        return

    def premaster(self) -> bytes:
        """The premaster secret."""

    def peer_credential(self) -> PeerCredential | None:
        """Whom the exchange itself proved, once Finished has been verified; None if it proves nobody."""
        return None


class KeyExchange(Protocol):
    """A TLS 1.2 key exchange, offered to one session; makes a run when a suite that names it was chosen."""

    @property
    def name(self) -> str: ...

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        """Server: can it serve this ClientHello? Client: asked with its own extensions. Must not block."""

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        """`role` is "client" or "server"."""


class HandshakeExtension(Protocol):
    """One extension in the hellos of one session, with whatever it remembers between them.

    `versions` limits where it is sent or answered. A method that returns None sends nothing. Raising `TlsError` ends the handshake
    with that alert. Each is called at most once, except `client_hello`, called again after HelloRetryRequest with `retry=True`.

    An extension whose `psk_input` comes of symmetric secrets alone may have an attribute `quantum_safe` that is true: keys and the
    proof by Finished then are facts of that kind. A signature that is verified later says anew what holds of authentication.

    Two more attributes may be there and true. `encrypted`: in TLS 1.3 the answer stands in EncryptedExtensions, where whatever the
    keys do not depend on belongs; `psk_input` is None then. `quick`: no method waits for anything, so all may run on the event loop.
    """

    @property
    def code(self) -> int: ...

    @property
    def versions(self) -> frozenset[Version]: ...

    def client_hello(self, retry: bool) -> bytes | None:
        """Client: content to offer."""

    def received_client_hello(self, content: bytes | None) -> None:
        """Server: content that the client offered, None if it did not."""

    def server_hello(self, version: Version) -> bytes | None:
        """Server: content to answer with (ServerHello, unless it is `encrypted`). Only asked if the client offered it."""

    def received_server_hello(self, version: Version, content: bytes | None) -> None:
        """Client: the server's answer, None if it gave none."""

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """TLS 1.3, after both hellos: replaces the PSK input of the early secret (RFC 8446 section 7.1); None: it does not.

        Excludes resumption: with a value here, no pre_shared_key may have been selected. `transcript_hash()` covers
        ClientHello up to and including ServerHello.
        """

    def peer_credential(self) -> PeerCredential | None:
        """Whom the extension proved, once the peer's Finished has been verified."""


def is_encrypted(extension: HandshakeExtension, version: Version) -> bool:
    """Whether its answer stands in EncryptedExtensions, which TLS 1.2 does not have."""
    return version > 0x0303 and getattr(extension, "encrypted", False)
