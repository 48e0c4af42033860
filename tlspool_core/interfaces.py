"""What a plugin can be: the typed interfaces between the pool and its plugins.

Theory of operation
-------------------
A plugin registers objects through the hooks in `hookspecs`; from then on the pool calls these interfaces and no hook.  A security
decision asks exactly the object that configuration or the kind of credential selects; an exception or time-out there means denied.

Methods marked *may block* are called by the registry in a worker thread with a time limit, or awaited if they are `async def`.
All others must return at once: they run on the event loop.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tlspool_core.identity import DoNAI
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

if TYPE_CHECKING:
    import click

API_VERSION = 1

_T = TypeVar("_T")


class Denied(Exception):
    """A plugin refuses: the text goes to the application and the log, so it names who refused and why, without secrets."""


class Role(Flag):
    """The role in TLS in which a credential or trust record may be used."""

    CLIENT = auto()
    SERVER = auto()
    BOTH = CLIENT | SERVER


# --- configuration databases -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalCredential:
    """One credential of a local identity as the localid database holds it."""

    identity: DoNAI
    type: str  # name of the CredentialType
    roles: Role
    key_uri: str  # RFC 7512 URI of the private key; "" where the type has none
    public: bytes  # meaning is the credential type's: chain, public key, verifier...


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Everything stored for one DoNAI: its credentials in order of preference, and a validation expression ("" = none)."""

    identity: DoNAI
    credentials: tuple[LocalCredential, ...] = ()
    expression: str = ""
    # uids of applications that may use the identity; empty: any that reach the socket
    allowed_uids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustRecord:
    """One value of the trust database."""

    key: bytes  # authority key identifier, key id, fingerprint, pin, or a plugin's own key with a prefix "name:"
    type: str  # name of the CredentialType it is for
    roles: Role = Role.BOTH
    pinned: bool = False
    revoked: bool = False
    expression: str = ""
    blob: bytes = b""  # anchor, parameters, revocation list: the type's business


class ConfigReader(Protocol):
    """A consistent view of the three databases."""

    def localid(self, identity: DoNAI) -> LocalIdentity | None: ...
    def localids(self) -> Iterator[LocalIdentity]: ...
    def disclose(self, selector: str) -> tuple[DoNAI, ...] | None: ...
    def disclosures(self) -> Iterator[tuple[str, tuple[DoNAI, ...]]]: ...
    def trust(self, key: bytes) -> tuple[TrustRecord, ...]: ...
    def trusts(self, type: str | None = None) -> Iterator[TrustRecord]: ...


class ConfigWriter(ConfigReader, Protocol):
    """A write transaction: all or nothing, committed when its context ends without exception."""

    def put_localid(self, entry: LocalIdentity) -> None: ...
    def delete_localid(self, identity: DoNAI) -> bool: ...
    def put_disclose(self, selector: str, identities: Sequence[DoNAI]) -> None: ...
    def delete_disclose(self, selector: str) -> bool: ...
    def put_trust(self, record: TrustRecord) -> None: ...
    def delete_trust(self, key: bytes, type: str | None = None) -> int: ...


class ConfigError(Exception):
    """A database cannot be read or written; the text says which, why and what to do."""


class ConfigBackend(ABC):
    """Where localid, disclose and trust are kept. Reads are quick enough for the event loop; `write` may block."""

    name: str

    @abstractmethod
    def open(self, settings: Mapping[str, Any], *, readonly: bool = False) -> None:
        """Open with the plugin's configuration section. Raises ConfigError."""

    @abstractmethod
    def read(self) -> AbstractContextManager[ConfigReader]: ...

    @abstractmethod
    def write(self) -> AbstractContextManager[ConfigWriter]: ...

    @abstractmethod
    def generation(self) -> int:
        """Changes whenever any database was changed by any process; lets callers keep what they derived from a read."""

    @abstractmethod
    def close(self) -> None: ...


# --- key stores --------------------------------------------------------------------------------------------------------------


class KeyStoreError(Exception):
    """The key store cannot do what was asked; the text names token, object and remedy, never a PIN."""


class Key(Protocol):
    """A handle on a private key in a key store. Never the key."""

    @property
    def uri(self) -> str: ...

    @property
    def public_key(self) -> bytes | None:
        """DER SubjectPublicKeyInfo if the store knows it."""

    @property
    def signature_schemes(self) -> Sequence[int]:
        """TLS SignatureScheme code points this key can make with the mechanisms that its token has, best first."""

    async def sign(self, scheme: int, content: bytes) -> bytes:
        """Signature in TLS's encoding (ECDSA as DER). Raises KeyStoreError."""


@dataclass(frozen=True, slots=True)
class PinRequest:
    """A question for a PIN; answered with text, or None to give up."""

    manufacturer: str
    model: str
    serial: str
    label: str
    attempt: int
    prompt: str


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One usable object as `tlspool token list` shows it."""

    uri: str
    kind: str  # "private-key", "certificate", "secret"
    algorithm: str
    label: str
    signature_schemes: tuple[str, ...] = ()
    note: str = ""


class KeyStore(ABC):
    """Holds private keys: finds them by URI, signs with them. All methods are coroutines on the pool's event loop."""

    name: str
    uri_schemes: tuple[str, ...]

    @abstractmethod
    async def start(self, settings: Mapping[str, Any], ask_pin: Callable[[PinRequest], Awaitable[str | None]]) -> None: ...

    @abstractmethod
    async def find(self, uri: str) -> Key:
        """The one private key that the URI names, if it is there now. Raises KeyStoreError if there is none, more than one, or no login."""

    @abstractmethod
    async def read_secret(self, uri: str) -> bytes:
        """Value of a secret or data object (a password kept on the token). Raises KeyStoreError."""

    async def agree(self, uri: str, peer_public: bytes) -> bytes:
        """ECDH inside the store: the secret that the private key at `uri` shares with `peer_public`, DER SubjectPublicKeyInfo.

        Returns the x coordinate in full length (SEC 1 section 3.3.1), to be put through a key derivation. For credential types
        that bind a secret to a token. Raises KeyStoreError, as does every store that cannot do it.
        """
        raise KeyStoreError(f"the key store {self.name} agrees on no keys")

    async def departure(self, uris: Collection[str]) -> Collection[str]:
        """Wait until keys that these URIs name cannot be reached any more, as when a token was pulled; returns the URIs of those.

        The pool calls it while sessions depend on these keys (flag KEY_BOUND), and cancels it when that changes; sessions under what
        is returned end.  A key that is not there to begin with has departed.  From then on `find` must not return the key until it
        is back.  The default is for stores whose keys do not come and go: it never returns.  An exception counts as the loss of
        all these keys.
        """
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    @abstractmethod
    async def list(self) -> Sequence[KeyInfo]: ...

    @abstractmethod
    async def status(self) -> Mapping[str, Any]: ...

    @abstractmethod
    async def rescan(self) -> None:
        """Look for tokens anew (SIGHUP, or a token that was inserted)."""

    @abstractmethod
    async def stop(self) -> None: ...


# --- credentials -------------------------------------------------------------------------------------------------------------


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
    local_identity: DoNAI | None
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
    own_roles: Role | None = None  # those of the local credential that was used; None: none was


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


# --- authentication, authorisation, accounting ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AaaRequest:
    """Who wants what: asked once the peer's identity is known, before the application gets plaintext.

    With `proven` false the peer has only claimed `remote_identity`: policy still looks at it, and a session needs both answers. Anybody
    can claim anything, so nothing may follow from such a request but its answer (no locked account, no count).
    """

    session_id: str
    role: str
    service: str
    local_identity: DoNAI | None
    remote_identity: DoNAI | None
    credential_type: str
    peer_address: str
    local_address: str
    step: str = "authorization"  # or "authentication": which of the configured steps asks
    proven: bool = True


@dataclass(frozen=True, slots=True)
class AaaDecision:
    """Permission, with limits. A refusal is raised as Denied."""

    session_timeout: float | None = None  # seconds
    idle_timeout: float | None = None
    classes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountingRecord:
    """One accounting event, of an application or of the pool's own sessions.

    `record_id` is unique for each thing that is accounted, `sequence` for each event of it.  A record that may not have been taken
    (time-out, Denied) can be handed over again with the same two, and is still to be counted once.  The pool's own sessions have
    the kind "session", and an identity that was not established is None.

    `attributes` that the pool knows: "session", "service", "role", "credential_type", "peer_address" (texts),
    "classes" (tuple of bytes: `AaaDecision.classes`), and in a stop "cause" (Acct-Terminate-Cause, RFC 2866 section 5.10) and, of
    sessions, "octets_in" (from the peer) and "octets_out".
    """

    event: str  # "start", "interim", "stop"
    record_id: str
    kind: str
    instance: str
    local_identity: DoNAI | None
    remote_identity: DoNAI | None
    started: float  # seconds since the epoch
    ended: float | None = None
    count: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0


class Aaa(ABC):
    """Site rules on top of what the pool demands, and accounting."""

    name: str

    async def start(self, settings: Mapping[str, Any]) -> None:  # noqa: B027 - optional to override
        """Open sockets and queues."""

    @abstractmethod
    async def authorize(self, request: AaaRequest) -> AaaDecision:
        """Permit, or raise Denied. Any other exception, or a time-out, is a denial too."""

    async def account(self, record: AccountingRecord) -> None:
        """Take over responsibility for the record: once this returns, it must survive a restart. Raises Denied if not offered."""
        raise Denied(f"{self.name} does no accounting")

    async def stop(self) -> None:  # noqa: B027 - optional to override
        """Close."""


# --- command line --------------------------------------------------------------------------------------------------------------


class CliContext(Protocol):
    """What `tlspool` hands to every command as click's context object (`@click.pass_obj`)."""

    @property
    def json(self) -> bool:
        """Whether the output is for programs."""

    def backend(self, *, readonly: bool = False) -> ConfigBackend:
        """The configured databases, opened. Raises ConfigError."""

    def settings(self, kind: str, name: str) -> Mapping[str, Any]:
        """The configuration section [kind.name], for example ("keystore", "pkcs11"); empty if there is none."""

    def with_key(self, uri: str, use: Callable[[Key], Awaitable[_T]]) -> _T:
        """What `use` makes of the private key that a URI names, in the key store that is configured for it.

        PINs that are not configured are asked for at the terminal. Raises KeyStoreError, ConfigError, and what `use` raises.
        """


class CliCommand(Protocol):
    """A command, or group of commands, under `tlspool`; its click context object is a `CliContext`."""

    @property
    def name(self) -> str: ...

    def command(self) -> click.Command: ...
