"""What an application may ask of a running session: facts (INFO) and keying material (PRNG).

Theory of operation
-------------------
An INFO packet without a value is a query, with one a check: the answer to a check repeats the value if it is right, so that an
application can compare what it must not see in full (a list of alternative names, say).  Certificate fields are the credential
type's to describe: in its own encoding if it has one, which is what existing applications compare, and as text under kinds of
our own.  Exporter labels are limited to those that IANA lists for the use by applications, plus EXPERIMENTAL ones:
labels that TLS itself or the pool uses would hand out secrets of the connection (RFC 5705 section 4).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tlspool_core.interfaces import CredentialType
from tlspool_core.tls.groups import GROUPS
from tlspool_core.tls.seams import Credential, PeerCredential
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import InfoKind
from tlspool_core.wire.messages import MAX_INFO, Info, Prng, PrngOutput

if TYPE_CHECKING:
    from tlspool_core.pool.session import Session

# IANA registry "TLS Exporter Labels" without the entries that TLS itself uses (client finished, master secret, key expansion...)
EXPORTER_LABELS = frozenset(
    {
        b"EXPORTER_DTLS_OVER_SCTP",
        b"EXPORTER-ETSI-TC-M2M-Bootstrap",
        b"EXPORTER-ETSI-TC-M2M-Connection",
        b"TLS_MK_Extr",
        b"EXPORTER_GBA_Digest",
        b"EXPORTER: teap session key seed",
        b"EXPORTER-oneM2M-Bootstrap",
        b"EXPORTER-oneM2M-Connection",
        b"EXPORTER-Token-Binding",
        b"EXPORTER-Channel-Binding",
        b"EXPORTER-ACE-MQTT-Sign-Challenge",
        b"EXPORTER-ACE-Sign-Challenge-Client-AS",
        b"EXPORTER-client authenticator handshake context",
        b"EXPORTER-server authenticator handshake context",
        b"EXPORTER-client authenticator finished key",
        b"EXPORTER-server authenticator finished key",
        b"EXPORTER-HTTP-Signature-Authentication",
        b"EXPORTER-network-time-security",
        b"EXPORTER_EAP_TLS_Key_Material",
        b"EXPORTER_EAP_TLS_Method-Id",
        b"EXPORTER_DTLS_SRTP",
        b"EXTRACTOR-dtls_srtp",
        b"client EAP encryption",
        b"ttls keying material",
        b"ttls challenge",
        b"EXPORTER-BBF-USP-Record",
        b"EXPORTER-BBF-USP-END-POINT-ID",
    }
)

_FIELDS = {0: "subject", 1: "issuer", 2: "subjectaltname"}
_OWN = 0x100
_MISSING = "This session has no such fact"
_VERSIONS = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


def _certificate_fact(session: Session, request: Info) -> Info:
    """Answer an INFO about one side's credential, in the credential's encoding or, where it has none, as text."""
    own = bool((request.kind - InfoKind.PEERCERT_SUBJECT) & _OWN)
    field = _FIELDS[(request.kind - InfoKind.PEERCERT_SUBJECT) & ~_OWN]
    if field == "subjectaltname" and request.value is None:
        raise WireError(ErrorCode.INFO_NOT_FOUND, "Alternative names can be checked, not listed: send the name to check")
    side, described_by = _credential(session, own)
    if side is None or described_by is None:
        raise WireError(ErrorCode.INFO_NOT_FOUND, _MISSING)
    encoded = described_by.encoded(side, field)
    text = (described_by.describe(side, field) or "").encode()
    if request.value is None:
        return _told(request, encoded[0] if encoded else text or None)
    texts = _alternatives(text) if field == "subjectaltname" else {text} - {b""}
    return _checked(request, request.value in encoded or request.value in texts)


def _credential(session: Session, own: bool) -> tuple[Credential | PeerCredential | None, CredentialType | None]:
    return (session.connection.own, session.own_type) if own else (session.connection.peer, session.peer_type)


def _description(own: bool, field: str) -> Callable[[Session], bytes | None]:
    def describe(session: Session) -> bytes | None:
        side, described_by = _credential(session, own)
        return None if side is None or described_by is None else _text(described_by.describe(side, field))

    return describe


def _text(text: str | None) -> bytes | None:
    return text.encode() if text else None


def _group(code: int) -> bytes | None:
    return GROUPS[code].name.encode() if code in GROUPS else None


_FACTS: Mapping[int, Callable[[Session], bytes | None]] = {
    InfoKind.PEERCERT_SUBJECT_TEXT: _description(False, "subject"),
    InfoKind.PEERCERT_ISSUER_TEXT: _description(False, "issuer"),
    InfoKind.MYCERT_SUBJECT_TEXT: _description(True, "subject"),
    InfoKind.MYCERT_ISSUER_TEXT: _description(True, "issuer"),
    InfoKind.TLS_UNIQUE: lambda session: session.connection.channel_binding("tls-unique"),
    InfoKind.TLS_SERVER_END_POINT: lambda session: session.end_point_binding(),
    InfoKind.TLS_EXPORTER: lambda session: session.connection.channel_binding("tls-exporter"),
    InfoKind.SERVER_NAME: lambda session: _text(session.facts.server_name),
    InfoKind.ALPN: lambda session: session.facts.alpn,
    InfoKind.VERSION: lambda session: _text(_VERSIONS.get(session.facts.version)),
    InfoKind.CIPHER_SUITE: lambda session: _text(session.facts.cipher_suite_name),
    InfoKind.GROUP: lambda session: _group(session.facts.group),
    InfoKind.PEER_CREDENTIAL_TYPE: lambda session: _text(session.peer_type.name if session.peer_type else None),
    InfoKind.LOCAL_CREDENTIAL_TYPE: lambda session: _text(session.own_type.name if session.own_type else None),
    InfoKind.SESSION_ID: lambda session: session.id.encode(),
}


def _alternatives(described: bytes) -> set[bytes]:
    """The names, which are separated by commas or lines, each with its kind and without."""
    names = {name.strip() for name in described.replace(b"\n", b",").split(b",")}
    return (names | {name.partition(b":")[2] for name in names}) - {b""}


def info(session: Session, request: Info) -> Info:
    """Answer one INFO. Raises WireError."""
    if (request.kind - InfoKind.PEERCERT_SUBJECT) & ~_OWN in _FIELDS:
        return _certificate_fact(session, request)
    if request.kind not in _FACTS:
        raise WireError(ErrorCode.INFO_KIND_UNKNOWN, f"The TLS Pool knows no fact of kind {request.kind:#x}")
    found = _FACTS[request.kind](session)
    if request.value is None or found is None:
        return _told(request, found)
    return _checked(request, hmac.compare_digest(found, request.value))


def _told(request: Info, found: bytes | None) -> Info:
    if found is None:
        raise WireError(ErrorCode.INFO_NOT_FOUND, _MISSING)
    if len(found) > MAX_INFO:
        raise WireError(ErrorCode.INFO_NOT_FOUND, f"The fact has {len(found)} bytes, more than fit; check it against a value")
    return Info(request.ctlkey, request.kind, found)


def _checked(request: Info, right: bool) -> Info:
    if not right:
        raise WireError(ErrorCode.INFO_NOT_FOUND, "This session has another value there")
    return Info(request.ctlkey, request.kind, request.value)


def prng(session: Session, request: Prng) -> PrngOutput:
    """Answer one PRNG. Raises WireError."""
    if request.label not in EXPORTER_LABELS and not request.label.startswith(b"EXPERIMENTAL"):
        raise WireError(ErrorCode.PRNG_LABEL_REFUSED)
    # RFC 8446 section 7.5 makes no difference between no context and an empty one; RFC 5705 does
    return PrngOutput(session.connection.export(request.label, request.context, request.length))
