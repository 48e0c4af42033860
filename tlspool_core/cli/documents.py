"""The databases as a JSON document: what `tlspool db export` writes and `import` reads.

Theory of operation
-------------------
The document has every field of every record, bytes as base64, keys of the trust database as `spell_key` writes them; so it is lossless,
and can be compared and edited.  It is read strictly: an unknown, missing or wrong field is an error that names its place, since a
misspelt "revoked" must not be without effect.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlspool_core.cli.output import ROLES, role_name
from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import ConfigReader, LocalCredential, LocalIdentity, Role, TrustRecord
from tlspool_core.policy.demands import parse_key, spell_key
from tlspool_core.policy.expression import check_expression

FORMAT = "tlspool databases"
VERSION = 1


class DocumentError(ValueError):
    """The document cannot be used; the text names the place."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Everything in the three databases."""

    localid: tuple[LocalIdentity, ...]
    disclose: tuple[tuple[str, tuple[DoNAI, ...]], ...]
    trust: tuple[TrustRecord, ...]

    def counted(self) -> str:
        """How many there are, in words."""
        return f"{len(self.localid)} local identities, {len(self.disclose)} disclosures, {len(self.trust)} trust records"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def build_document(reader: ConfigReader) -> dict[str, Any]:
    """All that the databases hold. Raises ConfigError."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "localid": [_build_local(entry) for entry in reader.localids()],
        "disclose": [{"selector": selector, "localids": list(map(str, shown))} for selector, shown in reader.disclosures()],
        "trust": [_build_trust(record) for record in reader.trusts()],
    }


def _build_local(entry: LocalIdentity) -> dict[str, Any]:
    return {
        "identity": str(entry.identity),
        "expression": entry.expression,
        "allowed_uids": list(entry.allowed_uids),
        "credentials": [
            {
                "type": credential.type,
                "role": role_name(credential.roles),
                "key": credential.key_uri,
                "public": _base64(credential.public),
            }
            for credential in entry.credentials
        ],
    }


def _build_trust(record: TrustRecord) -> dict[str, Any]:
    return {
        "key": spell_key(record.key),
        "type": record.type,
        "role": role_name(record.roles),
        "pinned": record.pinned,
        "revoked": record.revoked,
        "expression": record.expression,
        "blob": _base64(record.blob),
    }


# --- reading ------------------------------------------------------------------------------------------------------------------


class _Fields:
    """The fields of one JSON object, all of which must be asked for."""

    def __init__(self, value: Any, where: str, names: Sequence[str]) -> None:
        if not isinstance(value, Mapping):
            raise DocumentError(f"{where}: must be an object")
        if missing := sorted(set(names) - value.keys()):
            raise DocumentError(f"{where}: {missing[0]} is missing")
        if unknown := sorted(value.keys() - set(names)):
            raise DocumentError(f"{where}: unknown field {unknown[0]!r}")
        self._value = value
        self.where = where

    def _take(self, name: str, kind: type, word: str) -> Any:
        value = self._value[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise DocumentError(f"{self.where}.{name}: must be {word}")
        return value

    def text(self, name: str) -> str:
        return str(self._take(name, str, "a text"))

    def boolean(self, name: str) -> bool:
        return bool(self._take(name, bool, "true or false"))

    def list(self, name: str) -> list[Any]:
        return list(self._take(name, list, "a list"))

    def meant(self, name: str, parse: Callable[[str], Any]) -> Any:
        """A text by what it means; `parse` raises ValueError."""
        try:
            return parse(self.text(name))
        except ValueError as error:
            raise DocumentError(f"{self.where}.{name}: {error}") from None

    def data(self, name: str) -> bytes:
        try:
            return base64.b64decode(self.text(name), validate=True)
        except ValueError:  # binascii.Error, and what is not even ASCII
            raise DocumentError(f"{self.where}.{name}: must be base64") from None

    def role(self) -> Role:
        name = self.text("role")
        if name not in ROLES:
            raise DocumentError(f"{self.where}.role: must be one of {', '.join(ROLES)}, not {name!r}")
        return ROLES[name]


def parse_document(text: str) -> Entries:
    """What `build_document` built, as JSON. Raises DocumentError."""
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DocumentError(f"not JSON: {error}") from None
    top = _Fields(value, "document", ("format", "version", "localid", "disclose", "trust"))
    if top.text("format") != FORMAT or value["version"] != VERSION:
        raise DocumentError(f"is not of format {FORMAT!r} version {VERSION}")
    entries = Entries(
        tuple(_parse_local(each, f"localid[{n}]") for n, each in enumerate(top.list("localid"))),
        tuple(_parse_disclose(each, f"disclose[{n}]") for n, each in enumerate(top.list("disclose"))),
        tuple(_parse_trust(each, f"trust[{n}]") for n, each in enumerate(top.list("trust"))),
    )
    _once("localid", [str(entry.identity) for entry in entries.localid])
    _once("disclose", [selector for selector, _ in entries.disclose])
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DocumentError("an object has a field twice")
    return found


def _once(where: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise DocumentError(f"{where}: {next(name for name in names if names.count(name) > 1)} is there twice")


def _canonical(text: str) -> DoNAI:
    """Identities are exported in canonical form, case of users included, so they are taken as they are."""
    user, at, domain = text.rpartition("@")
    return DoNAI(domain, user if at else None)


def _selector(text: str) -> str:
    user, at, domain = text.rpartition("@")
    return str(Selector(domain, user if at else None))


def _parse_local(value: Any, where: str) -> LocalIdentity:
    fields = _Fields(value, where, ("identity", "expression", "allowed_uids", "credentials"))
    identity = fields.meant("identity", _canonical)
    uids = fields.list("allowed_uids")
    if not all(isinstance(uid, int) and not isinstance(uid, bool) and 0 <= uid < 2**32 for uid in uids):
        raise DocumentError(f"{where}.allowed_uids: must be a list of user numbers")
    credentials = [
        _parse_credential(identity, each, f"{where}.credentials[{n}]") for n, each in enumerate(fields.list("credentials"))
    ]
    return LocalIdentity(identity, tuple(credentials), fields.meant("expression", check_expression), tuple(uids))


def _parse_credential(identity: DoNAI, value: Any, where: str) -> LocalCredential:
    fields = _Fields(value, where, ("type", "role", "key", "public"))
    return LocalCredential(identity, fields.text("type"), fields.role(), fields.text("key"), fields.data("public"))


def _parse_disclose(value: Any, where: str) -> tuple[str, tuple[DoNAI, ...]]:
    fields = _Fields(value, where, ("selector", "localids"))
    names = fields.list("localids")
    if not all(isinstance(name, str) for name in names):
        raise DocumentError(f"{where}.localids: must be a list of texts")
    try:
        return fields.meant("selector", _selector), tuple(map(_canonical, names))
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"{where}.localids: {error}") from None


def _parse_trust(value: Any, where: str) -> TrustRecord:
    fields = _Fields(value, where, ("key", "type", "role", "pinned", "revoked", "expression", "blob"))
    return TrustRecord(
        fields.meant("key", parse_key),
        fields.text("type"),
        fields.role(),
        fields.boolean("pinned"),
        fields.boolean("revoked"),
        fields.meant("expression", check_expression),
        fields.data("blob"),
    )
