"""The daemon's configuration: one TOML file into frozen dataclasses, or the defaults for a person's own session.

Theory of operation
-------------------
Each section has a dataclass (see `settings`) and a function that fills it from a `Table`, key by key, with default and range in one
line.  Nothing is looked up later by name, and nothing that the file says is ignored: an unknown key is an error.  Only the sections of
plugins ([config], [keystore.x], [credential.x], [aaa.x]) go on as plain mappings; their meaning and their errors are the plugin's.

Without a file the pool serves the person who started it: socket under XDG_RUNTIME_DIR, databases under XDG_STATE_HOME.  All
paths can be overruled by environment variables of the XDG base directory specification only, so that there is one place to look.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

from tlspool_core.policy.demands import DEFAULT_EXPRESSION
from tlspool_core.policy.expression import InvalidExpression, check_expression
from tlspool_core.policy.levels import LENIENT, STRICT, SecurityLevel
from tlspool_core.pool.permissions import permitted
from tlspool_core.pool.settings import (
    AaaConfig,
    BackendConfig,
    Limits,
    LogConfig,
    MonitorConfig,
    PluginsConfig,
    PolicyConfig,
    PoolConfig,
    ServiceConfig,
    SocketConfig,
    SymmetricConfig,
    TicketConfig,
    TlsConfig,
)
from tlspool_core.pool.syslog import SOCKET as SYSLOG
from tlspool_core.pool.tomlfile import ConfigurationError, Table, TomlFile
from tlspool_core.tls.enums import ExtensionType
from tlspool_core.tls.padding import MAX_MULTIPLE, POWERS, Padding

__all__ = ["ConfigurationError", "PoolConfig", "SocketConfig", "default_path", "load_config", "parse_config"]

SYSTEM_CONFIG = Path("/etc/tlspool/tlspool.toml")


# --- where things are ---------------------------------------------------------------------------------------------------------


def _xdg(variable: str, fallback: Path) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else fallback


def config_home() -> Path:
    return _xdg("XDG_CONFIG_HOME", Path.home() / ".config") / "tlspool"


def state_home() -> Path:
    return _xdg("XDG_STATE_HOME", Path.home() / ".local" / "state") / "tlspool"


def runtime_dir() -> Path:
    """Directory of the socket in a person's session; without XDG_RUNTIME_DIR a directory in the state, which is private too."""
    return _xdg("XDG_RUNTIME_DIR", state_home().parent) / "tlspool"


def default_socket() -> Path:
    return runtime_dir() / "tlspool.sock"


def default_path() -> Path | None:
    """The configuration that applies when none is named: the person's own, else (for root) the system's, else none."""
    own = config_home() / "tlspool.toml"
    if own.exists():
        return own
    return SYSTEM_CONFIG if os.geteuid() == 0 and SYSTEM_CONFIG.exists() else None


# --- sections -----------------------------------------------------------------------------------------------------------------


def _socket(table: Table, mode: int = 0o660) -> SocketConfig:
    if "path" not in table:
        raise table.error("path", "is missing: which socket?")
    path = Path(table.text("path"))
    if not path.is_absolute():
        raise table.error("path", f"must begin with /, not {str(path)!r}")
    if not path.name:
        raise table.error("path", "is a directory: which socket in it?")
    if len(os.fsencode(path)) > 107:
        raise table.error("path", "is longer than the 107 bytes that a UNIX socket address holds")
    made = SocketConfig(path, table.text("owner"), table.text("group"), table.mode("mode", mode))
    table.finish()
    return made


def _limits(table: Table) -> Limits:
    base = Limits()
    made = Limits(
        clients=table.integer("clients", base.clients, 1),
        clients_per_uid=table.integer("clients_per_uid", base.clients_per_uid, 1),
        sessions=table.integer("sessions", base.sessions, 1),
        sessions_per_client=table.integer("sessions_per_client", base.sessions_per_client, 1),
        sessions_per_uid=table.integer("sessions_per_uid", base.sessions_per_uid, 0),
        handshakes_per_client=table.integer("handshakes_per_client", base.handshakes_per_client, 1),
        handshake_timeout=table.seconds("handshake_timeout", base.handshake_timeout, 0.1),
        handshake_timeout_max=table.seconds("handshake_timeout_max", base.handshake_timeout_max, 0.1),
        callback_timeout=table.seconds("callback_timeout", base.callback_timeout, 0.1),
        plugin_timeout=table.seconds("plugin_timeout", base.plugin_timeout, 0.1),
        drain_timeout=table.seconds("drain_timeout", base.drain_timeout),
        idle_timeout=table.seconds("idle_timeout", base.idle_timeout),
    )
    table.finish()
    if made.handshake_timeout > made.handshake_timeout_max:
        raise table.error("handshake_timeout", "is larger than handshake_timeout_max")
    return made


def _log(table: Table) -> LogConfig:
    made = LogConfig(
        format=table.text("format", "console", choices=("console", "json")),
        level=table.text("level", "info", choices=("debug", "info", "warning", "error")),
        logger=_logger(table),
    )
    table.finish()
    return made


def _logger(table: Table) -> Path | None:
    to = table.text("to", "stderr")
    if to in ("stderr", "syslog"):
        return SYSLOG if to == "syslog" else None
    if not to.startswith("/"):
        raise table.error("to", f'must be "stderr", "syslog", or the path of a logger\'s socket, not {to!r}')
    return Path(to)


def _plugins(table: Table) -> PluginsConfig:
    made = PluginsConfig(table.texts("required"), table.texts("disabled"), table.texts("load"))
    table.finish()
    if both := set(made.required) & set(made.disabled):
        raise table.error("disabled", f"{sorted(both)[0]!r} is required, too")
    return made


def _aaa(table: Table) -> AaaConfig:
    steps = (table.texts("authentication"), table.texts("authorization"), table.texts("accounting"))
    account_sessions = table.boolean("account_sessions", False)
    parallel = table.texts("parallel", choices=("authentication", "authorization"))
    settings = {name: inner.rest() for name, inner in table.named().items()}
    return AaaConfig(*steps, account_sessions, parallel, settings)


def _tls(table: Table) -> TlsConfig:
    base = TlsConfig()
    made = TlsConfig(
        versions=table.texts("versions", ("1.3", "1.2"), choices=("1.3", "1.2")),
        cipher_suites=table.texts("cipher_suites"),
        groups=table.texts("groups"),
        signature_schemes=table.texts("signature_schemes"),
        key_log=table.text("key_log"),
        certificate_compression=table.boolean("certificate_compression", False),
        padding=Padding(
            handshake=table.number_or_word("handshake_padding", base.padding.handshake, MAX_MULTIPLE, {"powers": POWERS}),
            data=table.number_or_word("record_padding", base.padding.data, MAX_MULTIPLE, {"powers": POWERS}),
        ),
    )
    table.finish()
    if not made.versions:
        raise table.error("versions", "must name at least one version")
    return made


def _expression(table: Table, key: str, default: str) -> str:
    text = table.text(key, default)
    try:
        return check_expression(text)
    except InvalidExpression as error:
        raise table.error(key, str(error)) from None


def _level(table: Table, base: SecurityLevel) -> SecurityLevel:
    made = SecurityLevel(table.integer("bits", base.bits, 80, 256), base.aead, frozenset(table.texts("cipher_suites")))
    table.finish()
    return made


def _policy(table: Table) -> PolicyConfig:
    made = PolicyConfig(
        default=_expression(table, "default", DEFAULT_EXPRESSION),
        user_case_counts=table.boolean("user_case_counts", False),
        key_bound=table.boolean("key_bound", False),
        strict=_level(table.table("strict"), STRICT),
        lenient=_level(table.table("lenient"), LENIENT),
    )
    table.finish()
    if not made.default:
        raise table.error("default", 'is empty; write "1" if nothing is to be demanded')
    if made.strict.bits < made.lenient.bits:
        raise table.error("strict", f"demands {made.strict.bits} bits, less than the {made.lenient.bits} of lenient")
    return made


def _service(table: Table) -> ServiceConfig:
    made = ServiceConfig(table.texts("alpn"), _expression(table, "expression", ""))
    table.finish()
    for name in made.alpn:
        if not 1 <= len(name.encode()) <= 255:
            raise table.error("alpn", f"{name!r} is no ALPN name: 1 to 255 bytes")
    return made


def _tickets(table: Table) -> TicketConfig:
    base = TicketConfig()
    made = TicketConfig(
        enabled=table.boolean("enabled", base.enabled),
        # RFC 8446 section 4.6.1: seven days at most
        lifetime=table.integer("lifetime", base.lifetime, 1, 604800),
        rotation=table.integer("rotation", base.rotation, 60, 604800),
        key_file=table.text("key_file"),
        single_use=table.boolean("single_use", base.single_use),
        per_handshake=table.integer("per_handshake", base.per_handshake, 1, 8),
        client_cache=table.integer("client_cache", base.client_cache, 0, 1_000_000),
    )
    table.finish()
    return made


def _symmetric(table: Table) -> SymmetricConfig:
    base = SymmetricConfig()
    made = SymmetricConfig(
        # the code points that IANA leaves to private use, but for the one that RFC 5746 had from among them before
        extension=table.integer("extension", base.extension, 0xFF00, 0xFFFF),
        wait=table.seconds("wait", base.wait, 0.0, 10.0),
    )
    table.finish()
    if made.extension == ExtensionType.RENEGOTIATION_INFO:
        raise table.error("extension", f"{made.extension:#06x} is renegotiation_info")
    return made


def _status(root: Table, first: SocketConfig) -> SocketConfig | None:
    """Beside the first socket unless the file says otherwise; an empty path is none."""
    table = root.table("status")
    if "path" in table:
        return _socket(table, 0o600) if table.text("path") else None
    table.finish()
    return SocketConfig(first.path.with_name(first.path.name + ".status"), mode=0o600)


def _metrics(table: Table) -> MonitorConfig:
    address = _address(table, "listen") if table.text("listen") else None
    if "path" in table:
        return MonitorConfig(_socket(table, 0o600), address)
    table.finish()
    return MonitorConfig(None, address)


def _address(table: Table, key: str) -> tuple[str, int]:
    """An IP address with a port: no names, which can come to mean more than was meant."""
    host, _, port = table.text(key).rpartition(":")
    try:
        found = str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        found = "", 0
    if not 1 <= found[1] <= 65535:
        raise table.error(key, "must be an address and a port, as 127.0.0.1:9464 or [::1]:9464")
    return found


def _build(root: Table, name: str) -> PoolConfig:
    backend = root.table("config")
    sockets = tuple(_socket(table) for table in root.tables("socket")) or (SocketConfig(default_socket(), mode=0o600),)
    made = PoolConfig(
        name=name,
        sockets=sockets,
        workers=root.integer("workers", 1, 1, 256),
        user=root.text("user"),
        group=root.text("group"),
        limits=_limits(root.table("limits")),
        log=_log(root.table("log")),
        plugins=_plugins(root.table("plugins")),
        config=BackendConfig(backend.text("backend"), backend.rest()),
        keystores={name: table.rest() for name, table in root.table("keystore").named().items()},
        credentials={name: table.rest() for name, table in root.table("credential").named().items()},
        aaa=_aaa(root.table("aaa")),
        tls=_tls(root.table("tls")),
        policy=_policy(root.table("policy")),
        services={name: _service(table) for name, table in root.table("service").named().items()},
        tickets=_tickets(root.table("tickets")),
        symmetric=_symmetric(root.table("symmetric")),
        onthefly=permitted(root.table("onthefly")),
        pin_desk=permitted(root.table("pin_desk")),
        status=_status(root, sockets[0]),
        metrics=_metrics(root.table("metrics")),
    )
    root.finish()
    if len({socket.path for socket in made.sockets}) != len(made.sockets):
        raise root.error("socket", "two sockets have the same path")
    return made


def parse_config(text: str, name: str = "configuration") -> PoolConfig:
    """From a text. Raises ConfigurationError."""
    return _build(TomlFile(text, name).root, name)


def load_config(path: Path | None) -> PoolConfig:
    """From the file at `path`; None: the embedded defaults for the person who runs this. Raises ConfigurationError."""
    if path is None:
        return parse_config("", "embedded defaults")
    return _build(TomlFile.read(path).root, str(path))
