"""What `tlspool token list` shows: the usable objects of a token, each with the URI to write into a database."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from tlspool_core.api import KeyInfo, KeyStoreError
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import TokenFault, WorkerClient, WorkerGone
from tlspool_pkcs11.key import possible_schemes
from tlspool_pkcs11.library import CKO_CERTIFICATE, CKO_DATA, CKO_PRIVATE_KEY, CKO_SECRET_KEY
from tlspool_pkcs11.lookup import Found, Lookup, read_objects, token_uri
from tlspool_pkcs11.mechanisms import scheme_name
from tlspool_pkcs11.module import Module


async def token_inventory(
    lookup: Lookup, module: Module, worker: WorkerClient, token: wire.TokenRecord, *, human: bool
) -> Sequence[KeyInfo]:
    """All objects of a token that a URI may name; a line for the token itself if it cannot be logged in to."""
    uri = token_uri(token)
    listed: list[KeyInfo] = []
    try:
        if not await lookup.login(module, worker, token, uri, human):
            listed.append(_token_line(token, "its private keys show after login: configure a PIN, or ask with --login"))
        for record in await read_objects(worker, token, again=True):
            listed += _line(Found(module, worker, token, record))
    except (KeyStoreError, TokenFault, WorkerGone) as error:
        listed.append(_token_line(token, str(error)))
    return listed


def _token_line(token: wire.TokenRecord, note: str) -> KeyInfo:
    return KeyInfo(str(token_uri(token)), "token", "", token.label, note=note)


def _line(found: Found) -> Sequence[KeyInfo]:
    uri, label = str(found.uri), found.record.label
    match found.record.object_class:
        case int(kind) if kind == CKO_PRIVATE_KEY:
            return [_key_line(found, uri)]
        case int(kind) if kind == CKO_CERTIFICATE:
            return [KeyInfo(uri, "certificate", "X.509", label, note=_subject(found.record.material_first))]
        case int(kind) if kind in (CKO_SECRET_KEY, CKO_DATA):
            readable = found.record.flags & wire.OBJECT_READABLE
            return [KeyInfo(uri, "secret", "data" if kind == CKO_DATA else "key", label, note="" if readable else "not readable")]
    return []


def _key_line(found: Found, uri: str) -> KeyInfo:
    public = found.public()
    able = tuple(scheme_name(code) for code in possible_schemes(found, public))
    notes = []
    if public is None:
        notes.append("of a kind that TLS has no use for, or without a public key and certificate beside it")
    elif not able:
        notes.append("may not sign" if not found.record.flags & wire.OBJECT_SIGNS else "no mechanism of the token fits it")
    if found.record.flags & wire.OBJECT_EXTRACTABLE:
        notes.append("EXTRACTABLE: it can leave the token")
    if found.record.flags & wire.OBJECT_ALWAYS_AUTHENTICATE:
        notes.append("wants the PIN for each signature")
    return KeyInfo(uri, "private-key", public.algorithm if public else "", found.record.label, able, "; ".join(notes))


def _subject(der: bytes) -> str:
    try:
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()
    except ValueError as error:
        return f"cannot be read: {error}"
