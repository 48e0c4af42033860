"""A TLS 1.2 server's handshake, in the order of RFC 5246 section 7.3.

Theory of operation
-------------------
    ClientHello  ->
    <-  ServerHello, [Certificate], [CertificateStatus], [ServerKeyExchange], [CertificateRequest], ServerHelloDone
    [Certificate], ClientKeyExchange, [CertificateVerify], ChangeCipherSpec, Finished  ->
    <-  [NewSessionTicket], ChangeCipherSpec, Finished

and where a session is resumed

    ClientHello  ->
    <-  ServerHello, ChangeCipherSpec, Finished
    ChangeCipherSpec, Finished  ->

What the suite settles is in `server_terms`, tickets are in `resumption`, signatures in `authentication`, and keys in `key_schedule`.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import dataclass

from tlspool_core.tls import plugin_extensions
from tlspool_core.tls.alerts import (
    BadFinished,
    HandshakeFailure,
    InternalError,
    NoCertificateTypeInCommon,
    NoClientCertificate,
)
from tlspool_core.tls.certificate_types import client_certificate_types, form_for
from tlspool_core.tls.codec import u8, u16
from tlspool_core.tls.enums import CertificateType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import build_protocol_names, parse_certificate_status
from tlspool_core.tls.extensions import table_for
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import DOWNGRADE_TO_12, ClientHello, Finished, ServerHello
from tlspool_core.tls.negotiation import choose_alpn
from tlspool_core.tls.protection import Protection
from tlspool_core.tls.questions import ChooseServerCredential, ClientAuth, ServerChoice
from tlspool_core.tls.seams import CipherSuite, Credential, KeyExchangeContext, PeerCredential
from tlspool_core.tls.session_state import SessionState
from tlspool_core.tls.settings import TLS12, TLS13, ServerSettings
from tlspool_core.tls.signatures import accepted_schemes
from tlspool_core.tls.suites import ECDHE
from tlspool_core.tls.tls12.authentication import examine, parse_entries, read_proof, send_certificate, sign_parameters
from tlspool_core.tls.tls12.client_offer import ClientOffer
from tlspool_core.tls.tls12.established import Established12
from tlspool_core.tls.tls12.key_exchange import Exchange
from tlspool_core.tls.tls12.key_schedule import KeySchedule, master_secret
from tlspool_core.tls.tls12.messages import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    ServerHelloDone,
    ServerKeyExchange,
)
from tlspool_core.tls.tls12.resumption import open_ticket, send_ticket, stored_peer
from tlspool_core.tls.tls12.secure_renegotiation import INITIAL, check_client
from tlspool_core.tls.tls12.server_terms import Terms, choose_terms, suites_in_common

Hs = Handshake[ServerSettings]
MAX_RECORD_SIZE_LIMIT = 16384  # in TLS 1.2, RFC 8449 section 4


@dataclass(slots=True)
class Plan:
    """What is known once the ClientHello was judged."""

    offer: ClientOffer
    choice: ServerChoice
    answers: dict[int, bytes]  # extensions of ServerHello
    extended: bool  # extended master secret
    random: bytes = b""

    @property
    def randoms(self) -> tuple[bytes, bytes]:
        return self.offer.hello.random, self.random


async def serve(hs: Hs, hello: ClientHello) -> Established:
    """From a ClientHello (in the transcript already) that has selected TLS 1.2 to the established session."""
    plan = await _plan(hs, hello)
    suites = suites_in_common(hs.settings, plan.offer)
    ticket = plan.offer.get(Ext.SESSION_TICKET, b"")
    session = await open_ticket(hs, ticket, suites, plan.choice, extended=plan.extended)
    if session is not None:
        return await _resume(hs, plan, session, suites[session.cipher_suite])
    return await _full(hs, plan, choose_terms(hs.settings, plan.offer, plan.choice, suites))


async def _plan(hs: Hs, hello: ClientHello) -> Plan:
    """Judge the ClientHello, have it answered by whoever decides, and begin the answer."""
    offer = ClientOffer(hello, table_for(hs.settings.extensions))
    answers: dict[int, bytes] = {}
    if check_client(hello, offer.get(Ext.RENEGOTIATION_INFO)):
        answers[Ext.RENEGOTIATION_INFO] = INITIAL
    extended = Ext.EXTENDED_MASTER_SECRET in offer
    if extended:
        answers[Ext.EXTENDED_MASTER_SECRET] = b""
    elif hs.settings.require_extended_master_secret:
        raise HandshakeFailure("the client has no extended master secret (RFC 7627)")
    hs.know(server_name=offer.get(Ext.SERVER_NAME), extended_master_secret=extended)
    await plugin_extensions.received_client_hello(hs, TLS12, hello.extensions)
    choice = await hs.ask(ChooseServerCredential(offer.peer_offer()))
    alpn = choose_alpn(choice.alpn, offer.get(Ext.ALPN))
    if alpn is not None:
        hs.know(alpn=alpn)
        answers[Ext.ALPN] = build_protocol_names((alpn,))
    return Plan(offer, choice, answers, extended)


# --- ServerHello -------------------------------------------------------------------------------------------------------------------


async def _server_hello(hs: Hs, plan: Plan, suite: CipherSuite, session_id: bytes) -> None:
    """Send it, with what both kinds of handshake answer; from here on the transcript is a hash."""
    offer, answers = plan.offer, plan.answers
    if suite.key_exchange == ECDHE and Ext.EC_POINT_FORMATS in offer:
        answers[Ext.EC_POINT_FORMATS] = b"\1\0"
    if suite.mac:
        answers[Ext.ENCRYPT_THEN_MAC] = b""
    limit = offer.get(Ext.RECORD_SIZE_LIMIT)
    if limit is not None:
        own_limit = min(hs.settings.record_size_limit, MAX_RECORD_SIZE_LIMIT)
        answers[Ext.RECORD_SIZE_LIMIT] = u16(own_limit)
        hs.channel.records.limit_sent(limit)
        hs.channel.records.limit_received(own_limit)
    answers |= await plugin_extensions.server_hello(hs, TLS12, offer.hello.extensions)
    plan.random = hs.random(32)
    if TLS13 in hs.settings.versions:  # RFC 8446 section 4.1.3
        plan.random = plan.random[:24] + DOWNGRADE_TO_12
    hs.know(cipher_suite=suite.code, cipher_suite_name=suite.name, key_exchange=suite.key_exchange)
    hs.send(ServerHello(plan.random, suite.code, answers, session_id))


def _answer_full(hs: Hs, plan: Plan, terms: Terms) -> bytes | None:
    """Extensions of ServerHello that belong to a full handshake; returns the OCSP response to staple."""
    offer, answers = plan.offer, plan.answers
    if offer.get(Ext.SERVER_NAME) is not None:
        answers[Ext.SERVER_NAME] = b""
    if Ext.SESSION_TICKET in offer and _resumable(hs, plan, terms.suite):
        answers[Ext.SESSION_TICKET] = b""
    if terms.own_type is not None and offer.cert_type:
        answers[Ext.CERT_TYPE] = u8(terms.own_type)
    elif terms.own_type is not None and Ext.SERVER_CERTIFICATE_TYPE in offer:
        answers[Ext.SERVER_CERTIFICATE_TYPE] = u8(terms.own_type)
    if terms.requested is not None and Ext.CLIENT_CERTIFICATE_TYPE in offer:
        answers[Ext.CLIENT_CERTIFICATE_TYPE] = u8(terms.requested)
    return None if terms.showing is None else _staple(hs, plan, terms.showing.credential)


def _resumable(hs: Hs, plan: Plan, suite: CipherSuite) -> bool:
    """Whether a ticket can be given: see `resumption`."""
    return plan.extended and hs.settings.ticket_lifetime > 0 and hs.settings.tickets > 0 and suite.key_exchange == ECDHE


def _staple(hs: Hs, plan: Plan, credential: Credential) -> bytes | None:
    """Signed certificate timestamps go into ServerHello (RFC 6962 section 3.3), the OCSP response into a message of its own."""
    stapled = credential.entries[0].extensions if credential.entries else {}
    if Ext.SIGNED_CERTIFICATE_TIMESTAMP in plan.offer and Ext.SIGNED_CERTIFICATE_TIMESTAMP in stapled:
        plan.answers[Ext.SIGNED_CERTIFICATE_TIMESTAMP] = stapled[Ext.SIGNED_CERTIFICATE_TIMESTAMP]
    if not plan.offer.get(Ext.STATUS_REQUEST):
        return None
    response = hs.settings.ocsp_response(credential) if hs.settings.ocsp_response else None
    if response is None and Ext.STATUS_REQUEST in stapled:
        response = parse_certificate_status(stapled[Ext.STATUS_REQUEST])
    if response is not None:
        plan.answers[Ext.STATUS_REQUEST] = b""
    return response


# --- the full handshake ------------------------------------------------------------------------------------------------------------


async def _full(hs: Hs, plan: Plan, terms: Terms) -> Established:
    """RFC 5246 figure 1."""
    staple = _answer_full(hs, plan, terms)
    await _server_hello(hs, plan, terms.suite, b"")
    hs.transcript.start(terms.suite.hash_name, keep=terms.requested is not None)
    if terms.own_type is not None:
        send_certificate(hs, terms.own_type, terms.entries)
    if staple is not None:
        hs.send(CertificateStatus(staple))
    exchange = await _server_key_exchange(hs, plan, terms)
    if terms.requested is not None:
        hs.send(_certificate_request(hs, plan, terms.requested))
    hs.send(ServerHelloDone())

    peer = await _read_certificate(hs, plan, terms) if terms.requested is not None else None
    keys = await _read_key_exchange(hs, plan, terms, exchange, peer)
    from_client, from_server = keys.protections()
    client_finished = await _read_finished(hs, keys, from_client)
    if not hs.judged:
        await hs.judge(await exchange.peer_credential() or await plugin_extensions.peer_credential(hs, TLS12))
    if Ext.SESSION_TICKET in plan.answers:
        await send_ticket(hs, terms.suite, keys)
    _send_finished(hs, keys, from_server)
    return Established12(hs, keys, client_finished)


async def _server_key_exchange(hs: Hs, plan: Plan, terms: Terms) -> Exchange:
    """Begin the key exchange, and send its parameters with our signature if the suite has one."""
    exchange = Exchange(hs, terms.suite.key_exchange)
    offer = plan.offer
    context = KeyExchangeContext(
        *plan.randoms, terms.suite, offer.groups, offer.hello.extensions, plan.answers, server_entries=terms.entries
    )
    await exchange.start(terms.exchange, context)
    params = await exchange.own_parameters()
    if terms.showing is not None:
        if params is None:
            raise InternalError(f"{terms.suite.name} has no parameters to sign")
        hs.own = terms.showing.credential
        params += await sign_parameters(hs, terms.showing, plan.randoms, params)
    if params is not None:
        hs.send(ServerKeyExchange(params))
    return exchange


def _certificate_request(hs: Hs, plan: Plan, certificate_type: int) -> CertificateRequest:
    """Names of authorities are for chains; with other types there are none (RFC 6091 section 3.4 demands it)."""
    return CertificateRequest(
        bytes(client_certificate_types(form_for(hs.settings, certificate_type))),
        tuple(accepted_schemes(hs.settings, TLS12)),
        tuple(plan.choice.certificate_authorities) if certificate_type == CertificateType.X509 else (),
    )


async def _read_certificate(hs: Hs, plan: Plan, terms: Terms) -> PeerCredential | None:
    """The client's Certificate, None for an empty one where that is allowed."""
    assert terms.requested is not None
    entries = parse_entries(hs, terms.requested, await hs.read(Certificate))
    if entries:
        return await examine(hs, terms.requested, entries)
    if plan.choice.client_auth is ClientAuth.REQUIRE or terms.suite.client_certificate_type is not None:
        raise NoClientCertificate("the client shows no certificate")
    return None


async def _read_key_exchange(hs: Hs, plan: Plan, terms: Terms, exchange: Exchange, peer: PeerCredential | None) -> KeySchedule:
    """ClientKeyExchange, the client's CertificateVerify if it showed a certificate, and what follows from them."""
    message = await hs.read(ClientKeyExchange)
    await exchange.peer_parameters(message.body)
    session_hash = hs.transcript.digest() if plan.extended else None  # RFC 7627 section 3: up to here
    if exchange.after_certificate_verify:
        if peer is None:
            raise InternalError(f"{terms.suite.name} needs a client certificate")
        await _read_proof(hs, peer, exchange)
        keys = master_secret(terms.suite, await exchange.premaster(), plan.randoms, session_hash)
    else:
        keys = master_secret(terms.suite, await exchange.premaster(), plan.randoms, session_hash)
        if peer is not None:
            await _read_proof(hs, peer, None)
    hs.transcript.forget_messages()
    hs.key_log(plan.offer.hello.random, CLIENT_RANDOM=keys.secret)
    return keys


async def _read_proof(hs: Hs, peer: PeerCredential, exchange: Exchange | None) -> None:
    """CertificateVerify; the client is then proven, and judged."""
    proof = await read_proof(hs, peer)
    if exchange is not None:
        await exchange.proof(proof)
    await hs.judge(peer)


# --- Finished ----------------------------------------------------------------------------------------------------------------------


async def _read_finished(hs: Hs, keys: KeySchedule, protection: Protection) -> bytes:
    """ChangeCipherSpec and Finished of the client; returns its verify_data."""
    await hs.read_change_cipher_spec()
    hs.channel.set_read_protection(protection)
    expected = keys.verify_data("client", hs.transcript.digest())
    finished = await hs.read(Finished)
    if not hmac.compare_digest(finished.verify_data, expected):
        raise BadFinished("of the client")
    return expected


def _send_finished(hs: Hs, keys: KeySchedule, protection: Protection) -> bytes:
    """ChangeCipherSpec and Finished of ours; returns its verify_data."""
    hs.send_change_cipher_spec()
    hs.channel.set_write_protection(protection)
    verify_data = keys.verify_data("server", hs.transcript.digest())
    hs.send(Finished(verify_data))
    return verify_data


# --- resumption --------------------------------------------------------------------------------------------------------------------


async def _resume(hs: Hs, plan: Plan, session: SessionState, suite: CipherSuite) -> Established:
    """RFC 5246 figure 2; the client's session_id is echoed to say so (RFC 5077 section 3.4)."""
    hs.know(resumed=True)
    with suppress(HandshakeFailure, NoCertificateTypeInCommon):  # who we are to this client, though nothing is shown
        showing = choose_terms(hs.settings, plan.offer, plan.choice, {suite.code: suite}).showing
        hs.own = showing.credential if showing is not None else None
    await _server_hello(hs, plan, suite, plan.offer.hello.legacy_session_id)
    hs.transcript.start(suite.hash_name)
    keys = KeySchedule(suite, session.secret, plan.randoms, extended=True)
    hs.key_log(plan.offer.hello.random, CLIENT_RANDOM=keys.secret)
    from_client, from_server = keys.protections()
    server_finished = _send_finished(hs, keys, from_server)
    await _read_finished(hs, keys, from_client)
    await hs.judge(await stored_peer(hs, session), session.context)
    return Established12(hs, keys, server_finished)
