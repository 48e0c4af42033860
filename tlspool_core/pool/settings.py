"""What can be configured, as frozen dataclasses: one for each section of the file, and `PoolConfig` for all of it.

Defaults stand here, and nowhere else; units are in the comments. How they are read, and what is refused, is in `config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlspool_core.policy.demands import DEFAULT_EXPRESSION
from tlspool_core.policy.levels import LENIENT, STRICT, SecurityLevel
from tlspool_core.pool.permissions import Permitted
from tlspool_core.tls.enums import SYMMETRY
from tlspool_core.tls.padding import Padding

Settings = Mapping[str, Any]  # of a plugin: their meaning is its own

_PADDING = Padding(handshake=512)

# Services whose application protocol has an ALPN name of its own (IANA registry "TLS ALPN Protocol IDs"). Naming it keeps a session
# from being diverted to a server of another protocol under the same certificate (the ALPACA attack).
SERVICE_ALPN: Mapping[str, tuple[str, ...]] = {
    "http": ("http/1.1",),
    "https": ("http/1.1",),
    "h2": ("h2",),
    "ftp": ("ftp",),
    "ftps": ("ftp",),
    "imap": ("imap",),
    "imaps": ("imap",),
    "pop3": ("pop3",),
    "pop3s": ("pop3",),
    "sieve": ("managesieve",),
    "xmpp-client": ("xmpp-client",),
    "xmpp-server": ("xmpp-server",),
    "irc": ("irc",),
    "ircs-u": ("irc",),
    "nntp": ("nntp",),
    "nntps": ("nntp",),
    "domain-s": ("dot",),
    "mqtt": ("mqtt",),
    "secure-mqtt": ("mqtt",),
}


@dataclass(frozen=True, slots=True)
class SocketConfig:
    """One UNIX socket to listen on. Empty owner or group: leave as created."""

    path: Path
    owner: str = ""
    group: str = ""
    mode: int = 0o660


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    """Where monitors are answered: a UNIX socket, an address with a port, both, or nowhere."""

    socket: SocketConfig | None = None
    address: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much, and (in seconds) how long."""

    clients: int = 1024
    clients_per_uid: int = 512
    sessions: int = 20000
    sessions_per_client: int = 20000
    sessions_per_uid: int = 0  # 0: half of what there is room for
    handshakes_per_client: int = 1024
    handshake_timeout: float = 30.0
    handshake_timeout_max: float = 600.0
    callback_timeout: float = 30.0
    plugin_timeout: float = 15.0
    drain_timeout: float = 30.0
    idle_timeout: float = 0.0  # of a session that moves no data; 0: none


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How the log is written, to standard error or to the logger that listens at a socket."""

    format: str = "console"
    level: str = "info"
    logger: Path | None = None


@dataclass(frozen=True, slots=True)
class PluginsConfig:
    """Which plugins must load, must not, and which to load from a module beside the installed ones."""

    required: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()
    load: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """The databases: name of the backend ("" takes the only one installed) and its settings."""

    backend: str = ""
    settings: Settings = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class AaaConfig:
    """Plugins asked for permission, in order; all of them must permit."""

    authentication: tuple[str, ...] = ()
    authorization: tuple[str, ...] = ()
    accounting: tuple[str, ...] = ()
    account_sessions: bool = False
    parallel: tuple[str, ...] = ()  # steps that are asked while the peer is still being validated
    settings: Mapping[str, Settings] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """System-wide TLS policy; empty lists mean the engine's own choice."""

    versions: tuple[str, ...] = ("1.3", "1.2")
    cipher_suites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    signature_schemes: tuple[str, ...] = ()
    key_log: str = ""
    certificate_compression: bool = False
    padding: Padding = _PADDING


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """What is demanded of a peer when no database says more, and how names compare."""

    default: str = DEFAULT_EXPRESSION
    user_case_counts: bool = False
    key_bound: bool = False  # every session ends with the keys behind it, not only those that ask for it
    strict: SecurityLevel = STRICT
    lenient: SecurityLevel = LENIENT


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Rules for one IANA service name."""

    alpn: tuple[str, ...] = ()
    expression: str = ""


@dataclass(frozen=True, slots=True)
class TicketConfig:
    """Resumption: `lifetime` of a ticket and `rotation` of the key in seconds; `key_file` shares keys between processes."""

    enabled: bool = True
    lifetime: int = 7200
    rotation: int = 3600
    key_file: str = ""
    single_use: bool = False
    per_handshake: int = 2
    client_cache: int = 1000


@dataclass(frozen=True, slots=True)
class SymmetricConfig:
    """Sessions that find out their role: code point of their extension, and seconds to listen before speaking, at the most."""

    extension: int = SYMMETRY
    wait: float = 0.25


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """All of it."""

    name: str
    sockets: tuple[SocketConfig, ...]
    workers: int = 1
    user: str = ""
    group: str = ""
    limits: Limits = Limits()
    log: LogConfig = LogConfig()
    plugins: PluginsConfig = PluginsConfig()
    config: BackendConfig = BackendConfig()
    keystores: Mapping[str, Settings] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, Settings] = field(default_factory=dict, repr=False)
    aaa: AaaConfig = AaaConfig()
    tls: TlsConfig = TlsConfig()
    policy: PolicyConfig = PolicyConfig()
    services: Mapping[str, ServiceConfig] = field(default_factory=dict)
    tickets: TicketConfig = TicketConfig()
    symmetric: SymmetricConfig = SymmetricConfig()
    onthefly: Permitted = field(default_factory=Permitted)
    pin_desk: Permitted = field(default_factory=Permitted)
    status: SocketConfig | None = None
    metrics: MonitorConfig = MonitorConfig()

    @property
    def status_path(self) -> Path | None:
        """Where the pool tells its status; None: nowhere."""
        return self.status.path if self.status is not None else None

    def alpn(self, service: str) -> tuple[str, ...]:
        """Application protocols for a service: as configured, else those that the service is known by."""
        configured = self.services.get(service)
        return configured.alpn if configured is not None else SERVICE_ALPN.get(service, ())
