"""What one connection is allowed and asked to do; immutable, made by the session (or a test) before the first byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tlspool_core.tls.enums import SYMMETRY
from tlspool_core.tls.padding import Padding
from tlspool_core.tls.seams import CertificateForm, CipherSuite, HandshakeExtension, KeyExchange, SignatureScheme, Version
from tlspool_core.tls.tls13.external_psk import PskNames

TLS12: Version = 0x0303
TLS13: Version = 0x0304


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that a client may resume: the ticket as received and the state to go with it (secret)."""

    ticket: bytes = field(repr=False)
    state: bytes = field(repr=False)
    obtained: float  # seconds since the epoch, for obfuscated_ticket_age


@dataclass(frozen=True, slots=True)
class OfferedPsk:
    """An external pre-shared key (RFC 8446 section 4.2.11), imported for the two ends that `names` names (RFC 9258).

    Without names the key is used raw, with suites of `hash_name` only. Then whoever has it must never be a server with it, or it can be
    made to talk with itself.
    """

    identity: bytes
    key: bytes = field(repr=False)
    names: PskNames | None = None
    hash_name: str = "sha256"


@dataclass(frozen=True, slots=True)
class Settings:
    """Common to both roles. Empty sequences mean the engine's defaults, best first."""

    versions: Sequence[Version] = (TLS13, TLS12)
    cipher_suites: Sequence[int] = ()
    groups: Sequence[int] = ()
    signature_schemes: Sequence[int] = ()  # that we accept from the peer
    signature_schemes_cert: Sequence[int] = ()
    # certificate types we can show / that we accept from the peer, best first
    own_certificate_types: Sequence[int] = (0,)
    peer_certificate_types: Sequence[int] = (0,)
    # what plugins add
    extra_suites: Sequence[CipherSuite] = ()
    extra_schemes: Sequence[SignatureScheme] = ()
    extra_forms: Sequence[CertificateForm] = ()
    key_exchanges: Sequence[KeyExchange] = ()
    extensions: Sequence[HandshakeExtension] = ()
    # limits and options
    record_size_limit: int = 16385
    padding: Padding | None = None  # of what we send in TLS 1.3
    max_certificate_message: int = 100_000
    max_handshake_bytes: int = 250_000
    middlebox_compatibility: bool = True
    certificate_compression: bool = False
    require_extended_master_secret: bool = True  # TLS 1.2, RFC 7627; without it, sessions of such peers are not resumed
    now: Callable[[], float] | None = None  # seconds since the epoch; None: time.time
    random: Callable[[int], bytes] | None = None  # None: os.urandom; others only in tests with published traces
    key_log: Callable[[str], None] | None = field(default=None, repr=False)  # NSS key log lines


@dataclass(frozen=True, slots=True)
class ClientSettings(Settings):
    """A client's."""

    server_name: str | None = None  # sent as SNI if not None
    alpn: Sequence[bytes] = ()
    session: StoredSession | None = None
    psk: OfferedPsk | None = None
    want_ocsp: bool = True
    want_scts: bool = False
    post_handshake_auth: bool = True
    key_share_groups: Sequence[int] = ()  # groups to send a share for at once; empty: the first two kinds, hybrid and X25519


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Of an end that finds out its role in the handshake; the settings of that role are asked for then (see `peer`)."""

    extension: int = SYMMETRY  # code point, the same at both ends
    may_serve: bool = True  # False: we can only be the client, but the other end may take itself for one
    max_certificate_message: int = 100_000


@dataclass(frozen=True, slots=True)
class ServerSettings(Settings):
    """A server's."""

    tickets: int = 2  # NewSessionTicket messages after a full TLS 1.3 handshake; 0 with `ticket_lifetime` 0 disables resumption
    ticket_lifetime: int = 7200  # seconds
    ocsp_response: Callable[[object], bytes | None] | None = None  # stapled for the chosen credential; must not block
    prefer_own_suites: bool = True
    psk_name: bytes = b""  # the server that external keys were imported for, if any are taken
    takes_raw_psks: bool = False  # also such that are not imported: only if nobody who has one is ever a client with it, too
