"""Sessions of TLS 1.2 that are resumed by ticket (RFC 5077), on both sides.

Theory of operation
-------------------
The state of a session is its master secret and what was negotiated and shown (`SessionState`); the server seals it into the
ticket, the client keeps it beside the ticket.  A session without extended master secret is never kept: resuming it would open the
triple-handshake attack (RFC 7627 section 5.3).  Nor is one whose key exchange proved the peer: such a proof cannot be shown again.

Whatever does not fit leads to a full handshake, except what RFC 7627 section 5.3 forbids.
"""

from __future__ import annotations

from typing import Any, Final

from tlspool_core.tls.alerts import HandshakeFailure
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import parse_certificate_status
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.questions import ClientAuth, ExaminePeer, OpenTicket, SealTicket, ServerChoice
from tlspool_core.tls.seams import CipherSuite, PeerCredential
from tlspool_core.tls.session_state import NO_CERTIFICATE, SessionState, parse_session_state
from tlspool_core.tls.settings import TLS12, ServerSettings, StoredSession
from tlspool_core.tls.tls12.key_schedule import KeySchedule
from tlspool_core.tls.tls12.messages import NewSessionTicket

MAX_LIFETIME: Final = 604_800  # seconds
UNSAID_LIFETIME: Final = 7200  # where the server's hint is 0: for the client to decide (RFC 5077 section 5.6)


def _state(hs: Handshake[Any], suite: CipherSuite, keys: KeySchedule, lifetime: int) -> SessionState:
    facts, peer = hs.facts(), hs.peer
    return SessionState(
        version=TLS12,
        cipher_suite=suite.code,
        created=int(hs.now() * 1000),
        lifetime=lifetime,
        secret=keys.secret,
        server_name=facts.server_name,
        alpn=facts.alpn,
        certificate_type=NO_CERTIFICATE if peer is None else peer.certificate_type,
        entries=() if peer is None else tuple(peer.entries),
        peer_scheme=facts.peer_signature_scheme,
        context=hs.context,
        extended_master_secret=keys.extended,
        group=facts.group,
    )


def _can_be_kept(peer: PeerCredential | None) -> bool:
    """A peer that was proven without a certificate has no code point to be stored by."""
    return peer is None or 0 <= peer.certificate_type < NO_CERTIFICATE


async def stored_peer(hs: Handshake[Any], state: SessionState) -> PeerCredential | None:
    """Whom the first handshake proved, rebuilt from what was stored."""
    hs.know(group=state.group)
    if state.certificate_type == NO_CERTIFICATE:
        return None
    stapled = state.entries[0].extensions if state.entries else {}
    status = stapled.get(Ext.STATUS_REQUEST)
    hs.know(
        peer_signature_scheme=state.peer_scheme,
        peer_ocsp=None if status is None else parse_certificate_status(status),
        peer_scts=stapled.get(Ext.SIGNED_CERTIFICATE_TIMESTAMP),
    )
    return await hs.ask(ExaminePeer(state.certificate_type, state.entries, TLS12))


# --- server ----------------------------------------------------------------------------------------------------------------------


async def open_ticket(
    hs: Handshake[ServerSettings], ticket: bytes, suites: dict[int, CipherSuite], choice: ServerChoice, *, extended: bool
) -> SessionState | None:
    """The session to resume, None for a full handshake; `suites` are those in common, `extended` is what this client offers.

    Raises HandshakeFailure for a client that drops the extended master secret of its session.
    """
    sealed = await hs.ask(OpenTicket(ticket)) if ticket else None
    state = parse_session_state(sealed) if sealed is not None else None
    if state is None or not _fits(hs, state, suites, choice):
        return None
    if not extended:
        raise HandshakeFailure("the session had an extended master secret, and its resumption has none (RFC 7627 section 5.3)")
    return state


def _fits(hs: Handshake[ServerSettings], state: SessionState, suites: dict[int, CipherSuite], choice: ServerChoice) -> bool:
    """Whether the state fits this handshake; trust in the peer is judged later, by JudgePeer."""
    shown = state.certificate_type
    return (
        state.version == TLS12
        and state.extended_master_secret
        and state.cipher_suite in suites
        and state.fresh(hs.now())
        and state.server_name == hs.fact("server_name")
        and not (choice.client_auth is ClientAuth.REQUIRE and shown not in choice.client_certificate_types)
    )


async def send_ticket(hs: Handshake[ServerSettings], suite: CipherSuite, keys: KeySchedule) -> None:
    """NewSessionTicket, which ServerHello has announced; empty if there is nothing to resume by (RFC 5077 section 3.3)."""
    lifetime = min(hs.settings.ticket_lifetime, MAX_LIFETIME)
    ticket = await hs.ask(SealTicket(_state(hs, suite, keys, lifetime).build())) if _can_be_kept(hs.peer) else None
    ticket = ticket or b""
    hs.send(NewSessionTicket(lifetime if ticket else 0, ticket))


# --- client ----------------------------------------------------------------------------------------------------------------------


def keep_session(
    hs: Handshake[Any], suite: CipherSuite, keys: KeySchedule, message: NewSessionTicket | None, session_id: bytes = b""
) -> None:
    """Add the session to those that the application may resume: by its ticket, else by the server's `session_id`."""
    ticket = b"" if message is None else message.ticket
    if not keys.extended or not (ticket or session_id) or not _can_be_kept(hs.peer):
        return
    hint = UNSAID_LIFETIME if message is None else message.ticket_lifetime_hint or UNSAID_LIFETIME
    state = _state(hs, suite, keys, min(hint, MAX_LIFETIME))
    if not ticket:
        state.session_id = session_id
    hs.sessions.append(StoredSession(ticket, state.build(), hs.now()))
