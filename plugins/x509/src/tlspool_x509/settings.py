"""The section [credential.x509] of the configuration."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from tlspool_core.api import Role

_ROLES = {"client": Role.CLIENT, "server": Role.SERVER}
_DEBIAN_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class ExtensionRule:
    """An extension that a service asks for, and whether it has to be critical."""

    oid: x509.ObjectIdentifier
    critical: bool


@dataclass(frozen=True, slots=True)
class X509Settings:
    """Defaults are what applies without the section."""

    system_store: Path | None = None
    system_store_roles: Role = Role.SERVER  # public CAs vouch for servers; that they know a client says nothing
    common_name_must_match: bool = True
    user_case_counts: bool = False
    pin: str = "key"
    ocsp_staples: Path | None = None
    extensions: Mapping[str, tuple[ExtensionRule, ...]] = field(default_factory=dict)
    issuing_key: str = ""  # URI; with the certificate below it, credentials can be made on the fly
    issuing_certificate: Path | None = None
    issued_lifetime: timedelta = timedelta(hours=1)


def parse_settings(section: Mapping[str, Any]) -> X509Settings:
    """From the section. Raises ValueError naming the key."""
    known = set(X509Settings.__dataclass_fields__)
    if unknown := sorted(set(section) - known):
        raise ValueError(f"{unknown[0]}: no such setting; there are {', '.join(sorted(known))}")
    values: dict[str, Any] = {key: _READERS[key](key, value) for key, value in section.items()}
    made = X509Settings(**values)
    if bool(made.issuing_key) != bool(made.issuing_certificate):
        raise ValueError("issuing_key: goes with issuing_certificate, and neither goes alone")
    return made


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key}: must be true or false")
    return value


def _path(key: str, value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError(f"{key}: must be a path that begins with /")
    return Path(value)


def _uri(key: str, value: object) -> str:
    if not isinstance(value, str) or ":" not in value:
        raise ValueError(f"{key}: must be the URI of a key")
    return value


def _lifetime(key: str, value: object) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int) or not 60 <= value <= 604800:
        raise ValueError(f"{key}: must be a number of seconds from 60 to 604800")
    return timedelta(seconds=value)


def _system_store(key: str, value: object) -> Path | None:
    """`true` stands for the file that OpenSSL would use, or Debian's."""
    if not isinstance(value, bool):
        return _path(key, value)
    if not value:
        return None
    paths = ssl.get_default_verify_paths()
    for candidate in (paths.cafile, paths.openssl_cafile, _DEBIAN_BUNDLE):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise ValueError(f"{key}: this system has no bundle of CA certificates where one is expected; give its path")


def _roles(key: str, value: object) -> Role:
    if not isinstance(value, list) or not value or any(name not in _ROLES for name in value):
        raise ValueError(f'{key}: must be a list of "client" and "server"')
    roles = Role(0)
    for name in value:
        roles |= _ROLES[name]
    return roles


def _pin(key: str, value: object) -> str:
    if value not in ("key", "certificate"):
        raise ValueError(f'{key}: must be "key" or "certificate"')
    return str(value)


def _extensions(key: str, value: object) -> dict[str, tuple[ExtensionRule, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must be a table of services")
    rules = {}
    for service, texts in value.items():
        if not isinstance(texts, list) or not texts:
            raise ValueError(f"{key}.{service}: must be a list of object identifiers")
        rules[str(service)] = tuple(_extension_rule(f"{key}.{service}", text) for text in texts)
    return rules


def _extension_rule(key: str, text: object) -> ExtensionRule:
    """`2.5.29.15`, or `critical:2.5.29.15`."""
    word, _, dotted = str(text).rpartition(":")
    try:
        if word not in ("", "critical"):
            raise ValueError(f"{word!r} is not 'critical'")
        return ExtensionRule(x509.ObjectIdentifier(dotted), word == "critical")
    except ValueError as error:
        raise ValueError(f"{key}: {text!r} is no object identifier, nor one after 'critical:' ({error})") from None


_READERS = {
    "system_store": _system_store,
    "system_store_roles": _roles,
    "common_name_must_match": _boolean,
    "user_case_counts": _boolean,
    "pin": _pin,
    "ocsp_staples": _path,
    "extensions": _extensions,
    "issuing_key": _uri,
    "issuing_certificate": _path,
    "issued_lifetime": _lifetime,
}
