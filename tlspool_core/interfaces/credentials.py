"""Ways to authenticate: credential types, what they find out about a peer, and what they bring into a session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces.common import Measurement, Role
from tlspool_core.interfaces.config import (
    ConfigBackend,
    LocalCredential,
    TrustRecord,
)
from tlspool_core.interfaces.keys import Key
from tlspool_core.tls.questions import HandshakeFacts
from tlspool_core.tls.seams import (
    CertificateEntry,
    CertificateForm,
    CipherSuite,
    Credential,
    HandshakeExtension,
    KeyExchange,
    PeerCredential,
    SignatureScheme,
)


class Verdict(Enum):
    """What became known of a predicate."""

    STRICT = "strict"  # the upper-case form holds, and so does the lower-case one
    LENIENT = "lenient"  # only the lower-case form holds
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class PeerContext:
    """All that a predicate may look at: the peer, what we want of it, and the state of the session."""

    peer: PeerCredential | None
    identities: tuple[DoNAI, ...]  # proven by the peer credential
    own: Credential | None
    local_identity: DoNAI | None  # a client's: whom it will be if the server asks
    wanted: DoNAI | None  # the remote identity that the application asked for
    domain_represents_user: bool
    service: str
    facts: HandshakeFacts
    config: ConfigBackend
    offered_role: str  # role of the peer: "client" or "server"
    ignore_caches: bool = False
    peer_address: str = ""
    ip_protocol: int = 6
    credential_type: str = ""  # name of the type of `peer`; "" if it showed nothing
    own_roles: Role | None = None  # of the local credential that is used, or of all that a client may show; None: no such

    @property
    def peer_host(self) -> IPv4Address | IPv6Address | None:
        """The address in `peer_address` without its port; None if the connection has none, as between processes of one host."""
        return _host(self.peer_address)


def _host(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a predicate, with a reason in words for the log and the application.

    `on_accept` is for what must not outlive a refusal, like a pin on first use: the session runs it (it *may block*) once the
    expression as a whole has accepted the peer, and before the application gets plaintext. An exception there means denied.
    """

    verdict: Verdict
    reason: str = ""
    on_accept: Callable[[], None] | None = field(default=None, compare=False)


class Predicate(ABC):
    """Establishes one letter of the validation expressions."""

    letter: str  # upper case
    types: frozenset[str] | None = None  # names of credential types that it is for; None: any

    @abstractmethod
    def establish(self, context: PeerContext) -> Finding | Awaitable[Finding]:
        """*May block*, or be `async def`. An exception counts as FALSE, and is logged as the plugin's."""

    def cost(self) -> int:
        """0: looks at what is here; 1: reads databases or computes; 2: asks the network. Cheap ones go first."""
        return 1


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What a credential type adds to the engine for all sessions (tables)."""

    certificate_forms: tuple[CertificateForm, ...] = ()
    cipher_suites: tuple[CipherSuite, ...] = ()
    signature_schemes: tuple[SignatureScheme, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a credential type adds to the engine for one session (objects that remember), and what it narrows it to.

    A type whose credential is preferred, but cannot be used in every version or with every suite, says so in `versions` and
    `cipher_suites`; empty means that it does not care. What several types and the configuration leave in common is used.
    """

    key_exchanges: tuple[KeyExchange, ...] = ()
    extensions: tuple[HandshakeExtension, ...] = ()
    versions: tuple[int, ...] = ()
    cipher_suites: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What a credential type may know when a session starts, before the first byte."""

    role: str
    service: str
    local_identity: DoNAI | None
    remote_identity: DoNAI | None
    local_credentials: tuple[LocalCredential, ...]
    config: ConfigBackend
    read_secret: Callable[[str], bytes]  # blocking; only to be called from code that may block
    ask_password: Callable[[str], str | None]  # blocking, likewise
    peer_address: str = ""
    agree: Callable[[str, bytes], bytes] | None = None  # blocking, likewise: KeyStore.agree of the store that has the URI
    # says that the session rests on what was had before by a key or secret, as a ticket by a password: the session may be bound to that
    rests_on: Callable[[str], None] = lambda uri: None

    @property
    def peer_network(self) -> str:
        """What limits take for one peer, whatever port it comes from: an address of IPv4, or the 64 bits of IPv6 that are not its own choice.

        Empty for a connection without addresses.
        """
        address = _host(self.peer_address)
        if isinstance(address, IPv6Address):
            return f"{IPv6Address(int(address) >> 64 << 64)}/64"
        return "" if address is None else str(address)


class CredentialType(ABC):
    """A way to authenticate: X.509, OpenPGP, SRP, Kerberos, raw keys..."""

    name: str
    certificate_types: tuple[int, ...] = ()
    engine_parts: EngineParts = EngineParts()
    examine_may_block: bool = False  # whether `examine` takes long enough to be called in a worker thread with a time limit

    def configure(self, settings: Mapping[str, Any]) -> None:  # noqa: B027 - optional to override
        """Take the plugin's configuration section; called at start and on reload. Raise ValueError naming the key."""

    def extension_codes(self) -> Sequence[int]:
        """Code points of all HandshakeExtensions that `begin` may bring; asked after `configure`, as no two extensions may share one."""
        return ()

    def owns(self, peer: PeerCredential) -> bool:
        """Whether a peer credential is of this type; types that prove peers without a certificate say so here."""
        return peer.certificate_type in self.certificate_types

    @abstractmethod
    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        """Make a credential ready for use, checking that key and public part belong together.

        None if this type shows nothing in a Certificate message. The result is kept until the database's generation changes.
        Raises Denied or KeyStoreError, naming what to mend.
        """

    async def issue(
        self, identity: DoNAI, service: str, role: Role, find_key: Callable[[str], Awaitable[Key]]
    ) -> Credential | None:
        """Make a credential for this session on the fly, under an issuing key of the plugin's configuration.

        `service` is an IANA service name or "", `role` CLIENT or SERVER. Called for each session that asks, so the plugin keeps what
        it made for a while. None if this type does not make any. Raises Denied or KeyStoreError.
        """
        return None

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        """Make the proof of possession with a credential that `load` made."""
        raise NotImplementedError

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> PeerCredential:
        """Parse what a peer showed; bounded in time. Raises a TlsError."""
        raise NotImplementedError

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        """Identities that the peer's credential names, most specific first; which one counts is for policy."""
        raise NotImplementedError

    def names(self, peer: PeerCredential, wanted: DoNAI) -> bool:
        """Whether the peer's credential names exactly `wanted`; for types whose credentials hold patterns (wildcards).

        The session adds what is so named to `PeerContext.identities`, asking about the wanted identity and about its domain.
        """
        return wanted in self.identities(peer)

    def predicates(self) -> Iterable[Predicate]:
        """Predicates for peers that show this type."""
        return ()

    def trust_keys(self, peer: PeerCredential) -> tuple[bytes, ...]:
        """Keys of the trust database whose expressions apply to this peer."""
        return ()

    def strength(self, peer: PeerCredential) -> int | None:
        """Security strength in bits (NIST SP 800-57 part 1, table 2) of the weakest key or exchange that proves the peer.

        Asked for the predicates L and l; None: not known, and then they do not hold. Must not block.
        """
        return None

    def certificate_authorities(self, config: ConfigBackend) -> Sequence[bytes]:
        """DER names to put into a server's CertificateRequest; empty to say nothing."""
        return ()

    def describe(self, side: Credential | PeerCredential, field: str) -> str | None:
        """Text for INFO queries: "subject", "issuer", "subjectaltname"; None: this type has no such thing."""
        return None

    def encoded(self, side: Credential | PeerCredential, field: str) -> Sequence[bytes]:
        """The same fields in the credential's own encoding, such as DER: one value, or each of the alternative names.

        What applications that know the encoding are told and compare with; empty: there is none beside the text.
        """
        return ()

    def end_point_binding(self, side: Credential | PeerCredential) -> bytes | None:
        """tls-server-end-point (RFC 5929 section 4.1) for the server's credential, None if undefined."""
        return None

    def ocsp_response(self, credential: Credential) -> bytes | None:
        """DER OCSPResponse (RFC 6960) to staple to a server credential that `load` made; None: none at hand. Must not block."""
        return None

    def begin(self, context: SessionContext) -> SessionParts:
        """Called before the handshake of each session whose local identity has a credential of this type; must not block."""
        return SessionParts()

    def measurements(self) -> Sequence[Measurement]:
        """Numbers for monitors, as they are now; must not block."""
        return ()

    # --- for the command line, never called by the daemon ---------------------------------------------------------------------

    def import_local(self, data: bytes) -> bytes:
        """Check the content of a file, and bring it into the form that is stored as `LocalCredential.public`.

        `tlspool localid add` calls it. Raises ValueError with a text that tells the operator what to mend.
        """
        raise ValueError(f"a credential of type {self.name} has no public part to import")

    def import_trust(self, data: bytes, *, pinned: bool) -> list[TrustRecord]:
        """Records of the trust database for the content of a file: anchors and what stands beside them, or a pin.

        `tlspool trust add` calls it; it sets roles and expression as its options say. Raises ValueError as above.
        """
        raise ValueError(f"nothing of type {self.name} can be put into the trust database")

    def summarize(self, public: bytes) -> str:
        """One line on a stored public part or trust blob, for lists. Never raises, whatever the bytes are."""
        return f"{len(public)} bytes" if public else ""
