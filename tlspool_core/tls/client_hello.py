"""The ClientHello of either version: what a client offers, and what it has to remember of it.

Theory of operation
-------------------
One ClientHello serves all the versions of the settings (RFC 8446 appendix D).  `Offer` keeps what the answer refers to: the
extensions, the private halves of the key shares, and the pre-shared keys.  After HelloRetryRequest the same offer is amended,
never built anew, so that everything else stays as it was (RFC 8446 section 4.1.2).

PSK binders cover the ClientHello up to themselves (section 4.2.11.2): `send` builds it with empty binders first, then fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tlspool_core.tls import extension_contents as contents
from tlspool_core.tls import plugin_extensions
from tlspool_core.tls.certificate_types import cert_type_offer
from tlspool_core.tls.codec import u16
from tlspool_core.tls.enums import CertificateType, CompressionAlgorithm, PskMode
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.groups import KeyShare, generate
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.messages import ClientHello, frame
from tlspool_core.tls.negotiation import client_share_groups, client_suites, enabled_groups, offered_types
from tlspool_core.tls.session_state import SessionState, parse_session_state
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, OfferedPsk
from tlspool_core.tls.signatures import accepted_schemes
from tlspool_core.tls.suites import enabled_suites
from tlspool_core.tls.tls13.external_psk import ImportedIdentity
from tlspool_core.tls.tls13.key_schedule import HASH_LENGTHS, EarlySecret

_X509_ALONE = (CertificateType.X509,)


@dataclass(slots=True)
class OfferedKey:
    """A pre-shared key that the ClientHello offers; `state` is None for an external one, `origin` as binders have it."""

    identity: bytes = field(repr=False)
    age: int
    hash_name: str
    early: EarlySecret
    state: SessionState | None = None
    origin: bytes = b"res"


@dataclass(slots=True)
class Offer:
    """What the client offered."""

    hello: ClientHello
    shares: dict[int, KeyShare]
    psks: list[OfferedKey]

    def offered(self, code: int) -> bool:
        return code in self.hello.extensions


async def make_offer(hs: Handshake[ClientSettings]) -> Offer:
    """Out of the settings, with what plugins' extensions add."""
    settings = hs.settings
    tls13 = TLS13 in settings.versions
    shares = {group: generate(group) for group in client_share_groups(settings)} if tls13 else {}
    psks = _offered_keys(hs) if tls13 else []
    session12 = offered_session(hs, TLS12)
    ticket12 = settings.session.ticket if settings.session is not None and session12 is not None else b""
    extensions = _extensions(settings, ticket12)
    if tls13:
        extensions |= _extensions13(settings, shares)
    extensions |= await plugin_extensions.client_hello(hs, retry=False)
    session_id = b"" if session12 is None else session12.session_id
    if not session_id and ((tls13 and settings.middlebox_compatibility) or ticket12):
        session_id = hs.random(32)
    suites = client_suites(settings, extensions)
    if any(suite.mac for suite in suites):
        extensions[Ext.ENCRYPT_THEN_MAC] = b""
    hello = ClientHello(hs.random(32), tuple([suite.code for suite in suites]), extensions, session_id)
    return Offer(hello, shares, psks)


def _extensions(settings: ClientSettings, session12: bytes) -> dict[int, bytes]:
    """What both versions have, and TLS 1.2 alone."""
    found: dict[int, bytes] = {}
    if settings.server_name is not None:
        found[Ext.SERVER_NAME] = contents.build_server_name(settings.server_name)
    if TLS12 in settings.versions:
        found[Ext.EXTENDED_MASTER_SECRET] = b""
        found[Ext.RENEGOTIATION_INFO] = b"\0"
        found[Ext.EC_POINT_FORMATS] = b"\1\0"
        found[Ext.SESSION_TICKET] = session12
        if cert_types := cert_type_offer(settings):
            found[Ext.CERT_TYPE] = contents.build_certificate_types(cert_types)
    found[Ext.SUPPORTED_GROUPS] = contents.build_u16s(enabled_groups(settings))
    found[Ext.SIGNATURE_ALGORITHMS] = contents.build_u16s(accepted_schemes(settings))
    if settings.signature_schemes_cert:
        found[Ext.SIGNATURE_ALGORITHMS_CERT] = contents.build_u16s(settings.signature_schemes_cert)
    if settings.alpn:
        found[Ext.ALPN] = contents.build_protocol_names(settings.alpn)
    if settings.want_ocsp:
        found[Ext.STATUS_REQUEST] = contents.STATUS_REQUEST
    if settings.want_scts:
        found[Ext.SIGNED_CERTIFICATE_TIMESTAMP] = b""
    for code, types in (
        (Ext.CLIENT_CERTIFICATE_TYPE, settings.own_certificate_types),
        (Ext.SERVER_CERTIFICATE_TYPE, settings.peer_certificate_types),
    ):
        offered = offered_types(settings, types)
        if offered not in ((), _X509_ALONE):
            found[code] = contents.build_certificate_types(offered)
    limit = settings.record_size_limit if TLS13 in settings.versions else min(settings.record_size_limit, 16384)
    found[Ext.RECORD_SIZE_LIMIT] = u16(limit)
    return found


def _extensions13(settings: ClientSettings, shares: dict[int, KeyShare]) -> dict[int, bytes]:
    """What TLS 1.3 brought."""
    found = {
        Ext.SUPPORTED_VERSIONS: contents.build_u16s8(settings.versions),
        Ext.PSK_KEY_EXCHANGE_MODES: bytes((1, PskMode.PSK_DHE_KE)),
        Ext.KEY_SHARE: build_shares(shares),
    }
    if settings.certificate_compression:
        found[Ext.COMPRESS_CERTIFICATE] = contents.build_u16s8((CompressionAlgorithm.ZLIB,))
    if settings.post_handshake_auth:
        found[Ext.POST_HANDSHAKE_AUTH] = b""
    return found


def build_shares(shares: dict[int, KeyShare]) -> bytes:
    """key_share in ClientHello."""
    return contents.build_key_shares([(group, share.public) for group, share in shares.items()])


# --- sessions and pre-shared keys ------------------------------------------------------------------------------------------------


def offered_session(hs: Handshake[ClientSettings], version: int) -> SessionState | None:
    """The session of the settings if it may be offered in this version, and to this server."""
    session = hs.settings.session
    state = parse_session_state(session.state) if session is not None else None
    if state is None or state.version != version or version not in hs.settings.versions:
        return None
    return state if state.server_name == hs.settings.server_name and state.fresh(hs.now()) else None


def _offered_keys(hs: Handshake[ClientSettings]) -> list[OfferedKey]:
    """The ticket first, then an external key; only such as have a hash in common with the suites."""
    settings = hs.settings
    hashes = {suite.code: suite.hash_name for suite in enabled_suites(settings) if suite.version == TLS13}
    found: list[OfferedKey] = []
    session, state = settings.session, offered_session(hs, TLS13)
    if session is not None and state is not None:
        age = int((hs.now() - session.obtained) * 1000) + state.age_add & 0xFFFFFFFF
        hash_name = hashes.get(state.cipher_suite)
        if hash_name is not None:
            found.append(OfferedKey(session.ticket, age, hash_name, EarlySecret(hash_name, state.secret), state))
    if settings.psk is not None:
        found += _external_keys(settings.psk, set(hashes.values()))
    return found


def _external_keys(psk: OfferedPsk, hashes: set[str]) -> list[OfferedKey]:
    """Imported once for each hash, or raw for its own."""
    if psk.names is None:
        return [OfferedKey(psk.identity, 0, psk.hash_name, EarlySecret(psk.hash_name, psk.key), origin=b"ext")] * (
            psk.hash_name in hashes
        )
    found = []
    for hash_name in sorted(hashes):
        imported = ImportedIdentity(psk.identity, psk.names, hash_name)
        found.append(OfferedKey(imported.build(), 0, hash_name, EarlySecret(hash_name, imported.key(psk.key)), origin=b"imp"))
    return found


def send_client_hello(hs: Handshake[ClientSettings], offer: Offer) -> None:
    """Build and send; pre_shared_key is last, with binders over the transcript so far and all that precedes them."""
    hello = offer.hello
    hello.extensions.pop(Ext.PRE_SHARED_KEY, None)
    if offer.psks:
        identities = [(psk.identity, psk.age) for psk in offer.psks]
        blank = [bytes(HASH_LENGTHS[psk.hash_name]) for psk in offer.psks]
        hello.extensions[Ext.PRE_SHARED_KEY] = contents.build_offered_psks(identities, blank)
        raw = frame(hello.handshake_type, hello.build())
        truncated = raw[: -(2 + sum(1 + len(binder) for binder in blank))]
        binders = [psk.early.binder(hs.transcript.digest_with(truncated, psk.hash_name), psk.origin) for psk in offer.psks]
        hello.extensions[Ext.PRE_SHARED_KEY] = contents.build_offered_psks(identities, binders)
    hs.send(hello)
