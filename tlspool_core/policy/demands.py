"""What a session demands of its peer: all expressions that apply, with their origins, joined by "and".

Theory of operation
-------------------
Expressions come from the local identity, from the service, from the most concrete selector that covers the remote identity, and
from the trust records that the peer's credential leads to.  Whatever is configured applies.  The default `TI&` applies unless one of
those that our side chooses is there, or the application does not care who the remote is.  What the peer chooses, by the issuer or the
name that it claims, can add demands but never take the default away: nothing of it is proven when demands are collected.

One demand is the application's own: the remote it asked for must be the remote it gets, whatever the databases say.  That is `I`;
where an expression speaks of `i`, the administrator has allowed a domain to speak for its users, and it is `i`.

Expressions for remote selectors stand in the trust database, under keys that begin with `remote:`, for no type in particular.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import ConfigReader, Role, TrustRecord
from tlspool_core.policy.expression import Expression, joined

__all__ = [
    "DEFAULT_EXPRESSION",
    "REMOTE_PREFIX",
    "Demand",
    "RemoteIdentity",
    "Setting",
    "collect",
    "combined",
    "parse_key",
    "remote_key",
    "spell_key",
]

DEFAULT_EXPRESSION = "TI&"
REMOTE_PREFIX = b"remote:"


class RemoteIdentity(Enum):
    """What the application says about the remote identity (flags of STARTTLS)."""

    REQUIRED = "required"
    REQUESTED = "requested"  # ask for it; a peer that shows nothing is accepted, one that shows something false is not
    IGNORED = "ignored"  # it is not even told


@dataclass(frozen=True, slots=True)
class Demand:
    """One expression that applies, and where it comes from, in words."""

    expression: str
    origin: str


@dataclass(frozen=True, slots=True)
class Setting:
    """The sides of a session, as far as demands depend on them."""

    local: DoNAI | None
    remote: DoNAI | None  # the wanted identity, else the proven one
    wanted: DoNAI | None
    mode: RemoteIdentity
    peer_role: Role
    credential_type: str = ""  # "" if the peer showed nothing
    trust_keys: Sequence[bytes] = ()
    service: str = ""
    service_expression: str = ""


def remote_key(selector: Selector) -> bytes:
    """Key in the trust database of the expression for the remotes that a selector covers."""
    return REMOTE_PREFIX + str(selector).encode()


def collect(reader: ConfigReader, setting: Setting, default: str = DEFAULT_EXPRESSION) -> tuple[Demand, ...]:
    """All demands on the peer of one session. Raises ConfigError."""
    ours = [*_local(reader, setting), *_service(setting)]
    remote = [*_remote(reader, setting)]
    if setting.wanted is not None:
        ours += remote
        remote = []
    shown = bool(setting.credential_type)
    cares = setting.mode is RemoteIdentity.REQUIRED or (setting.mode is RemoteIdentity.REQUESTED and shown)
    if not ours and cares and default:
        ours.append(Demand(default, "the default"))
    found = [*ours, *remote, *_trust(reader, setting)]
    if setting.wanted is not None and cares:
        lenient = any("i" in demand.expression for demand in found)
        found.append(Demand("i" if lenient else "I", f"the application, which asked for {setting.wanted}"))
    return tuple(found)


def combined(demands: Iterable[Demand]) -> Expression:
    """All demands as one expression, each once. Raises InvalidExpression if one of them is none."""
    return joined(dict.fromkeys(demand.expression for demand in demands))


def _local(reader: ConfigReader, setting: Setting) -> Iterable[Demand]:
    entry = reader.localid(setting.local) if setting.local is not None else None
    if entry is not None and entry.expression:
        yield Demand(entry.expression, f"local identity {setting.local}")


def _service(setting: Setting) -> Iterable[Demand]:
    if setting.service_expression:
        yield Demand(setting.service_expression, f"service {setting.service}")


def _remote(reader: ConfigReader, setting: Setting) -> Iterable[Demand]:
    """Of the selectors that cover the remote, the most concrete one that has an expression."""
    for selector in setting.remote.selectors() if setting.remote is not None else ():
        for record in reader.trust(REMOTE_PREFIX + selector.encode()):
            if record.expression and not record.revoked and record.roles & setting.peer_role:
                yield Demand(record.expression, f"remote selector {selector}")
                return


def _trust(reader: ConfigReader, setting: Setting) -> Iterable[Demand]:
    for key in dict.fromkeys(setting.trust_keys):
        for record in reader.trust(key):
            if _applies(record, setting):
                yield Demand(record.expression, f"trust record {spell_key(key)}")


def _applies(record: TrustRecord, setting: Setting) -> bool:
    return bool(record.expression and record.type == setting.credential_type and record.roles & setting.peer_role)


_HEX_PAIRS = re.compile(r"(?:[0-9A-Fa-f]{2}:?)*[0-9A-Fa-f]{2}")
_TEXT_KEY = re.compile(rb"[a-z][a-z0-9_-]*:[\x21-\x7e]+")


def spell_key(key: bytes) -> str:
    """A key of the trust database as people read and write it: text where it begins with a prefix, else hexadecimal."""
    text = key.decode("ascii") if _TEXT_KEY.fullmatch(key) else ""
    return text if text and not _HEX_PAIRS.fullmatch(text) else key.hex()


def parse_key(text: str) -> bytes:
    """The key that `spell_key` spells, or hexadecimal digits with colons as other programs print them. Raises ValueError."""
    if _HEX_PAIRS.fullmatch(text):
        return bytes.fromhex(text.replace(":", ""))
    if text.isascii() and _TEXT_KEY.fullmatch(text.encode()):
        return text.encode()
    raise ValueError(f"{text!r} is no key of the trust database: hexadecimal digits, or a name and a colon before a text")
