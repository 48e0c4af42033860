"""What the command line brings into the databases: files as `gpg --export` writes them, armored or not."""

from __future__ import annotations

import time

from tlspool_core.api import TlsError, TrustRecord
from tlspool_openpgp import standing
from tlspool_openpgp.database import TYPE
from tlspool_openpgp.facts import KeyFacts
from tlspool_openpgp.packets import Malformed, keys_of
from tlspool_openpgp.peer import read_key
from tlspool_openpgp.reader import Reader


def _checked(reader: Reader, key: bytes) -> KeyFacts:
    """Raises ValueError for a key that nobody would accept."""
    try:
        facts = read_key(reader, key)
    except TlsError as fault:
        raise ValueError(str(fault)) from None
    reason = standing.primary_fault(facts, time.time())
    if reason is not None:
        raise ValueError(str(reason))
    return facts


def import_local(reader: Reader, data: bytes) -> bytes:
    """The one public key of a file. Raises ValueError."""
    keys = keys_of(data)
    if len(keys) > 1:
        raise Malformed(f"{len(keys)} OpenPGP keys, where one is wanted; name it in `gpg --export`")
    _checked(reader, keys[0])
    return keys[0]


def import_trust(reader: Reader, data: bytes, *, pinned: bool) -> list[TrustRecord]:
    """Records for all keys of a file: trusted with what they certify, or pinned. Raises ValueError."""
    return [TrustRecord(_checked(reader, key).primary.fingerprint, TYPE, pinned=pinned, blob=key) for key in keys_of(data)]


def spelled(fingerprint: bytes) -> str:
    """As gpg prints it, without the blanks."""
    return fingerprint.hex().upper()


def summarize(reader: Reader, public: bytes) -> str:
    """Fingerprint and first user id of a stored key, or a kept pin. Never raises."""
    if not public:
        return ""
    if len(public) == 20:
        return f"pin {spelled(public)}"
    try:
        facts = read_key(reader, public)
    except TlsError as fault:
        return str(fault)
    user = next(iter(standing.users(facts, time.time())), None)
    return f"{spelled(facts.primary.fingerprint)} {user.text if user else '(no valid user id)'}"
