"""Pre-shared keys of TLS 1.3: tickets made, taken and offered again, and external keys (RFC 8446 sections 2.2, 4.2.11, 4.6.1).

Theory of operation
-------------------
Only psk_dhe_ke is spoken, so a stolen ticket key opens no recorded session.  The server looks at a few identities only: each may
cost a question.  An identity that has the form of an imported one is an external key; any other is first held to be a ticket, and if
nobody can open it a raw external key, where those are taken.  Whichever is usable must then have a correct binder: a wrong one ends
the handshake, as it shows that the client does not hold the key.

A ticket is only good for the server name it was made for, and carries what the peer had shown, so that a resumed session is judged again.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from typing import Any, Final

from tlspool_core.tls.alerts import BadBinder, ReflectedHello, SecondHelloDiffers
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.enums import PskMode
from tlspool_core.tls.extension_contents import OfferedPsks
from tlspool_core.tls.extensions import Place, table_for
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.questions import ClientAuth, ExaminePeer, ExternalPsk, OpenTicket, SealTicket
from tlspool_core.tls.seams import CipherSuite, PeerCredential
from tlspool_core.tls.session_state import NO_CERTIFICATE, SessionState, parse_session_state
from tlspool_core.tls.settings import TLS13, ServerSettings, StoredSession
from tlspool_core.tls.suites import enabled_suites
from tlspool_core.tls.tls13.external_psk import ImportedIdentity
from tlspool_core.tls.tls13.key_schedule import EarlySecret, ResumptionSecret
from tlspool_core.tls.tls13.messages import NewSessionTicket

MAX_IDENTITIES: Final = 4  # that a server looks at
MAX_LIFETIME: Final = 604_800  # seconds; RFC 8446 section 4.6.1
MAX_TICKET: Final = 0xFFFF  # bytes; RFC 8446 section 4.6.1
MAX_UNTAKEN: Final = 8  # sessions that a client keeps for `take_sessions`


# --- what either side stores -----------------------------------------------------------------------------------------------------


def session_template(hs: Handshake[Any], suite: CipherSuite, lifetime: int = 0) -> SessionState:
    """State of this session, but for the secret and what differs from ticket to ticket."""
    facts = hs.facts()
    peer = hs.peer
    return SessionState(
        version=TLS13,
        cipher_suite=suite.code,
        created=int(hs.now() * 1000),
        lifetime=lifetime,
        secret=b"",
        server_name=facts.server_name,
        alpn=facts.alpn,
        certificate_type=NO_CERTIFICATE if peer is None else peer.certificate_type,
        entries=() if peer is None else tuple(peer.entries),
        peer_scheme=facts.peer_signature_scheme,
        context=hs.context,
    )


async def stored_peer(hs: Handshake[Any], state: SessionState) -> PeerCredential | None:
    """Whom the first handshake proved, rebuilt from what was stored."""
    if state.certificate_type == NO_CERTIFICATE:
        return None
    table = table_for(())
    stapled = table.parse(Place.CERTIFICATE, state.entries[0].extensions, state.entries[0].extensions) if state.entries else {}
    hs.know(
        peer_signature_scheme=state.peer_scheme,
        peer_ocsp=stapled.get(Ext.STATUS_REQUEST),
        peer_scts=stapled.get(Ext.SIGNED_CERTIFICATE_TIMESTAMP),
    )
    return await hs.ask(ExaminePeer(state.certificate_type, state.entries, TLS13))


class TicketKeeper:
    """Client: turns NewSessionTicket into sessions; lives as long as the connection."""

    __slots__ = ("_now", "_secret", "_template")

    def __init__(self, hs: Handshake[Any], suite: CipherSuite, secret: ResumptionSecret) -> None:
        self._template = session_template(hs, suite)
        self._secret = secret
        self._now = hs.settings.now or time.time

    def take(self, message: NewSessionTicket, sessions: list[StoredSession]) -> None:
        """Add the session of this ticket; of many, the newest are kept."""
        table_for(()).parse(Place.NEW_SESSION_TICKET, message.extensions)
        lifetime = min(message.ticket_lifetime, MAX_LIFETIME)
        if lifetime == 0:
            return
        now = self._now()
        state = self._template
        state.created = int(now * 1000)
        state.lifetime = lifetime
        state.age_add = message.ticket_age_add
        state.secret = self._secret.psk(message.ticket_nonce)
        if len(sessions) >= MAX_UNTAKEN:
            del sessions[0]
        sessions.append(StoredSession(message.ticket, state.build(), now))
        state.secret = b""


# --- server ----------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SelectedKey:
    """The pre-shared key of this handshake; `state` is None for an external one, `origin` as binders have it."""

    index: int
    early: EarlySecret = field(repr=False)
    state: SessionState | None = None
    origin: bytes = b"res"


def _may_resume(hs: Handshake[ServerSettings], state: SessionState, suite_hash: str, client_auth: ClientAuth) -> bool:
    """Whether the state fits this handshake; trust in the peer is judged later, by JudgePeer."""
    known = {suite.code: suite.hash_name for suite in enabled_suites(hs.settings)}
    return (
        state.version == TLS13
        and known.get(state.cipher_suite) == suite_hash
        and state.fresh(hs.now())
        and state.server_name == hs.fact("server_name")
        and not (client_auth is ClientAuth.REQUIRE and state.certificate_type == NO_CERTIFICATE)
    )


async def select_key(
    hs: Handshake[ServerSettings], offered: dict[int, Any], suite: CipherSuite, client_auth: ClientAuth
) -> SelectedKey | None:
    """The first identity that we know and may use, its binder verified. The ClientHello is in `hs.raw`, not yet in the transcript.

    Raises BadBinder.
    """
    psks: OfferedPsks | None = offered.get(Ext.PRE_SHARED_KEY)
    if psks is None or PskMode.PSK_DHE_KE not in offered.get(Ext.PSK_KEY_EXCHANGE_MODES, b""):
        return None
    for index, (identity, _) in enumerate(psks.identities[:MAX_IDENTITIES]):
        selected = await _open_identity(hs, index, identity, suite, client_auth)
        if selected is not None:
            _check_binder(hs, psks, selected, suite)
            return selected
    return None


async def refuse_dropped_keys(hs: Handshake[ServerSettings], offered: dict[int, Any], suite: CipherSuite) -> None:
    """After HelloRetryRequest the client offers no PSK any more: allowed only if none went with the suite (section 4.1.2).

    Raises SecondHelloDiffers.
    """
    psks: OfferedPsks = offered[Ext.PRE_SHARED_KEY]
    for index, (identity, _) in enumerate(psks.identities[:MAX_IDENTITIES]):
        if await _open_identity(hs, index, identity, suite, ClientAuth.NONE) is not None:
            raise SecondHelloDiffers("pre_shared_key was left out")


async def _open_identity(
    hs: Handshake[ServerSettings], index: int, identity: bytes, suite: CipherSuite, client_auth: ClientAuth
) -> SelectedKey | None:
    imported = ImportedIdentity.parse(identity) if hs.settings.psk_name else None
    if imported is not None:
        return await _imported(hs, index, imported, suite)
    opened = await hs.ask(OpenTicket(identity))
    if opened is not None:
        state = parse_session_state(opened)
        if state is None or not _may_resume(hs, state, suite.hash_name, client_auth):
            return None
        return SelectedKey(index, EarlySecret(suite.hash_name, state.secret), state)
    key = await hs.ask(ExternalPsk(identity, None)) if hs.settings.takes_raw_psks else None
    return None if key is None else SelectedKey(index, EarlySecret(suite.hash_name, key), origin=b"ext")


async def _imported(
    hs: Handshake[ServerSettings], index: int, imported: ImportedIdentity, suite: CipherSuite
) -> SelectedKey | None:
    """An external key that is meant for us. Raises ReflectedHello."""
    if imported.names.client == hs.settings.psk_name:
        raise ReflectedHello("the client goes by our own name")
    if imported.names.server != hs.settings.psk_name or imported.hash_name != suite.hash_name:
        return None
    key = await hs.ask(ExternalPsk(imported.external, imported.names))
    return None if key is None else SelectedKey(index, EarlySecret(suite.hash_name, imported.key(key)), origin=b"imp")


def _check_binder(hs: Handshake[ServerSettings], psks: OfferedPsks, selected: SelectedKey, suite: CipherSuite) -> None:
    """RFC 8446 section 4.2.11.2: the binder covers the ClientHello up to the list of binders."""
    truncated = hs.raw[: -psks.binders_length]
    digest = hs.transcript.digest_with(truncated, suite.hash_name)
    expected = selected.early.binder(digest, selected.origin)
    if not hmac.compare_digest(psks.binders[selected.index], expected):
        raise BadBinder(f"PSK number {selected.index}")


async def send_tickets(hs: Handshake[ServerSettings], suite: CipherSuite, secret: ResumptionSecret, count: int) -> None:
    """NewSessionTicket messages, as many as can be sealed; queued, outside the transcript."""
    lifetime = min(hs.settings.ticket_lifetime, MAX_LIFETIME)
    if count <= 0 or lifetime <= 0:
        return
    template = session_template(hs, suite, lifetime)
    common = template.common()
    for number in range(count):
        nonce = bytes((number,))
        template.age_add = int.from_bytes(hs.random(4), "big")
        template.secret = secret.psk(nonce)
        ticket = await hs.ask(SealTicket(template.build(common)))
        if not ticket or len(ticket) > MAX_TICKET:
            return
        message = NewSessionTicket(lifetime, template.age_add, nonce, ticket, {})
        hs.send_untracked(message)
