"""A TLS 1.2 client's handshake from ServerHello on, in the order of RFC 5246 section 7.3.

Theory of operation
-------------------
    ClientHello  ->
    <-  ServerHello, [Certificate], [CertificateStatus], [ServerKeyExchange], [CertificateRequest], ServerHelloDone
    [Certificate], ClientKeyExchange, [CertificateVerify], ChangeCipherSpec, Finished  ->
    <-  [NewSessionTicket], ChangeCipherSpec, Finished

and where a session is resumed

    ClientHello  ->
    <-  ServerHello, [NewSessionTicket], ChangeCipherSpec, Finished
    ChangeCipherSpec, Finished  ->

What ServerHello has to hold is in `server_answer`, tickets are in `resumption`, signatures in `authentication`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from tlspool_core.tls import plugin_extensions
from tlspool_core.tls.alerts import (
    BadFinished,
    HandshakeFailure,
    InternalError,
    NoCertificateTypeInCommon,
    NoCredential,
    NoPeerCertificate,
    NoSchemeInCommon,
    TrailingBytes,
    UnofferedChoice,
)
from tlspool_core.tls.certificate_types import ECDSA_SIGN, RSA_SIGN, client_certificate_types, form_for
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.extension_contents import build_certificate_status
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import ClientHello, Finished, ServerHello
from tlspool_core.tls.negotiation import choose_credential, schemes_in
from tlspool_core.tls.protection import Protection
from tlspool_core.tls.questions import ChooseClientCredential, PeerOffer
from tlspool_core.tls.seams import CertificateEntry, KeyExchangeContext, PeerCredential
from tlspool_core.tls.session_state import SessionState
from tlspool_core.tls.settings import TLS12, ClientSettings
from tlspool_core.tls.signatures import accepted_schemes, curve_of, schemes_for
from tlspool_core.tls.suites import ECDHE
from tlspool_core.tls.tls12.authentication import Showing, examine, parse_entries, prove, send_certificate, verify_parameters
from tlspool_core.tls.tls12.established import Established12
from tlspool_core.tls.tls12.key_exchange import Exchange, exchanges_for, offered_groups
from tlspool_core.tls.tls12.key_schedule import KeySchedule, master_secret
from tlspool_core.tls.tls12.messages import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    NewSessionTicket,
    ServerHelloDone,
    ServerKeyExchange,
)
from tlspool_core.tls.tls12.resumption import keep_session, stored_peer
from tlspool_core.tls.tls12.server_answer import ServerAnswer

Hs = Handshake[ClientSettings]


@dataclass(slots=True)
class Plan:
    """What is known once ServerHello was judged, and what the server's flight adds to it."""

    offered: ClientHello
    answer: ServerAnswer
    entries: tuple[CertificateEntry, ...] = ()
    peer: PeerCredential | None = None
    request: CertificateRequest | None = field(default=None)

    @property
    def randoms(self) -> tuple[bytes, bytes]:
        return self.offered.random, self.answer.hello.random


async def continue_client(hs: Hs, offered: ClientHello, hello: ServerHello) -> Established:
    """From a ServerHello (in the transcript already) that has selected TLS 1.2 to the established session."""
    answer = ServerAnswer(hs.settings, offered, hello)
    suite = answer.suite
    hs.know(
        server_name=hs.settings.server_name,
        alpn=answer.get(Ext.ALPN),
        cipher_suite=suite.code,
        cipher_suite_name=suite.name,
        key_exchange=suite.key_exchange,
        extended_master_secret=answer.extended,
    )
    limit = answer.get(Ext.RECORD_SIZE_LIMIT)
    if limit is not None:
        hs.channel.records.limit_sent(limit)
        hs.channel.records.limit_received(hs.settings.record_size_limit)
    await plugin_extensions.received_server_hello(hs, TLS12, hello.extensions)
    if answer.session is not None:
        return await _resume(hs, Plan(offered, answer), answer.session)
    return await _full(hs, Plan(offered, answer))


# --- the full handshake ------------------------------------------------------------------------------------------------------------


async def _full(hs: Hs, plan: Plan) -> Established:
    """RFC 5246 figure 1."""
    suite = plan.answer.suite
    hs.transcript.start(suite.hash_name, keep=True)
    if suite.authentication or suite.client_certificate_type is not None:
        await _read_certificate(hs, plan)
    exchange = await _read_key_exchange(hs, plan)
    await _read_request(hs, plan)
    await hs.read(ServerHelloDone)
    hs.channel.check_boundary()  # the server has to wait for our flight
    if plan.peer is not None:
        await hs.judge(plan.peer)

    showing = await _send_certificate(hs, plan) if plan.request is not None else None
    keys = await _send_key_exchange(hs, plan, exchange, showing)
    from_client, from_server = keys.protections()
    client_finished = _send_finished(hs, keys, from_client)
    ticket = await hs.read(NewSessionTicket) if Ext.SESSION_TICKET in plan.answer else None
    await _read_finished(hs, keys, from_server)
    if not hs.judged:
        await hs.judge(await exchange.peer_credential() or await plugin_extensions.peer_credential(hs, TLS12))
    if suite.key_exchange == ECDHE:
        keep_session(hs, suite, keys, ticket, b"" if ticket is not None else plan.answer.hello.legacy_session_id_echo)
    return Established12(hs, keys, client_finished)


# --- the server's flight -----------------------------------------------------------------------------------------------------------


async def _read_certificate(hs: Hs, plan: Plan) -> None:
    """Certificate and CertificateStatus; what signs nothing may be empty or missing."""
    answer = plan.answer
    if not answer.suite.authentication and await hs.next_type() != HandshakeType.CERTIFICATE:
        return
    kind = answer.server_type(hs.settings)
    plan.entries = parse_entries(hs, kind, await hs.read(Certificate))
    if not answer.suite.authentication:
        return
    if not plan.entries:
        raise NoPeerCertificate("of the server")
    plan.entries = (await _stapled(hs, answer, plan.entries[0]), *plan.entries[1:])
    plan.peer = await examine(hs, kind, plan.entries)
    curve = curve_of(plan.peer)
    if curve is not None and curve not in offered_groups(plan.offered.extensions):
        raise UnofferedChoice("the curve of the server's key is not among the groups offered (RFC 8422 section 5.1.1)")


async def _stapled(hs: Hs, answer: ServerAnswer, entry: CertificateEntry) -> CertificateEntry:
    """What the server tells about its certificate, put where TLS 1.3 has it: into the entry (RFC 8446 section 4.4.2)."""
    extensions = {}
    timestamps = answer.get(Ext.SIGNED_CERTIFICATE_TIMESTAMP)
    if timestamps is not None:
        hs.know(peer_scts=timestamps)
        extensions[Ext.SIGNED_CERTIFICATE_TIMESTAMP] = timestamps
    if Ext.STATUS_REQUEST in answer and await hs.next_type() == HandshakeType.CERTIFICATE_STATUS:
        status = await hs.read(CertificateStatus)
        hs.know(peer_ocsp=status.response)
        extensions[Ext.STATUS_REQUEST] = build_certificate_status(status.response)
    return CertificateEntry(entry.data, extensions)


async def _read_key_exchange(hs: Hs, plan: Plan) -> Exchange:
    """ServerKeyExchange, with the server's signature where the suite has one."""
    answer = plan.answer
    exchange = Exchange(hs, answer.suite.key_exchange)
    context = KeyExchangeContext(
        *plan.randoms,
        answer.suite,
        offered_groups(plan.offered.extensions),
        plan.offered.extensions,
        answer.hello.extensions,
        plan.entries,
    )
    await exchange.start(exchanges_for(hs.settings)[answer.suite.key_exchange], context)
    if not answer.suite.authentication and await hs.next_type() != HandshakeType.SERVER_KEY_EXCHANGE:
        await exchange.peer_parameters(b"")  # for the key exchange to say whether it can do without
        return exchange
    message = await hs.read(ServerKeyExchange)
    params, signed = await exchange.split(message.body)
    if plan.peer is not None:
        await verify_parameters(hs, plan.peer, _usable_schemes(hs, plan), plan.randoms, params, signed)
    elif signed:
        raise TrailingBytes(f"{len(signed)} bytes after unsigned parameters")
    await exchange.peer_parameters(params)
    return exchange


def _usable_schemes(hs: Hs, plan: Plan) -> frozenset[int]:
    """Schemes that we offered and that go with the suite."""
    table = schemes_for(hs.settings)
    wanted = plan.answer.suite.authentication
    return frozenset([code for code in accepted_schemes(hs.settings, TLS12) if table[code].authentication == wanted])


async def _read_request(hs: Hs, plan: Plan) -> None:
    """CertificateRequest, which only a server that is not anonymous may send (RFC 5246 section 7.4.4)."""
    suite = plan.answer.suite
    may_request = suite.authentication or suite.client_certificate_type is not None
    if may_request and await hs.next_type() == HandshakeType.CERTIFICATE_REQUEST:
        plan.request = await hs.read(CertificateRequest)


# --- our flight --------------------------------------------------------------------------------------------------------------------


async def _send_certificate(hs: Hs, plan: Plan) -> Showing | None:
    """Our Certificate, an empty one where nothing fits: that is for the server to judge."""
    assert plan.request is not None
    kind = plan.answer.client_type(hs.settings)
    offer = PeerOffer(
        versions=(TLS12,),
        signature_schemes=plan.request.supported_signature_algorithms,
        signature_schemes_cert=plan.request.supported_signature_algorithms,
        certificate_types=(kind,),
        certificate_authorities=plan.request.certificate_authorities,
    )
    credentials = await hs.ask(ChooseClientCredential(offer, TLS12))
    usable = _requested_schemes(hs, plan.request, kind)
    try:
        showing = Showing(*choose_credential(credentials, (kind,), usable, offer.certificate_authorities))
    except (NoCredential, NoCertificateTypeInCommon, NoSchemeInCommon):
        send_certificate(hs, kind, ())
        return None
    hs.own = showing.credential
    send_certificate(hs, kind, showing.credential.entries)
    return showing


def _requested_schemes(hs: Hs, request: CertificateRequest, certificate_type: int) -> frozenset[int]:
    """Schemes that the server takes and whose kind of key is among its certificate_types (RFC 5246 section 7.4.4)."""
    asked = frozenset(request.certificate_types)
    if asked.isdisjoint(client_certificate_types(form_for(hs.settings, certificate_type))):
        return frozenset()
    table = schemes_for(hs.settings)
    unasked = {kind for kind, code in (("rsa", RSA_SIGN), ("ecdsa", ECDSA_SIGN)) if code not in asked}
    usable = schemes_in(hs.settings, TLS12, request.supported_signature_algorithms)
    return frozenset([code for code in usable if table[code].authentication not in unasked])


async def _send_key_exchange(hs: Hs, plan: Plan, exchange: Exchange, showing: Showing | None) -> KeySchedule:
    """ClientKeyExchange, CertificateVerify if we showed a certificate, and what follows from them."""
    suite = plan.answer.suite
    body = await exchange.own_parameters()
    if body is None:
        raise InternalError(f"key exchange {suite.key_exchange} has nothing for ClientKeyExchange")
    hs.send(ClientKeyExchange(body))
    session_hash = hs.transcript.digest() if plan.answer.extended else None  # RFC 7627 section 3: up to here
    if exchange.after_certificate_verify:
        if showing is None:
            raise HandshakeFailure(f"{suite.name} needs a client certificate, and there is none to show")
        await exchange.proof(await prove(hs, showing))
        keys = master_secret(suite, await exchange.premaster(), plan.randoms, session_hash)
    else:
        keys = master_secret(suite, await exchange.premaster(), plan.randoms, session_hash)
        if showing is not None:
            await prove(hs, showing)
    hs.transcript.forget_messages()
    hs.key_log(plan.offered.random, CLIENT_RANDOM=keys.secret)
    return keys


# --- Finished ----------------------------------------------------------------------------------------------------------------------


def _send_finished(hs: Hs, keys: KeySchedule, protection: Protection) -> bytes:
    """ChangeCipherSpec and Finished of ours; returns its verify_data."""
    hs.send_change_cipher_spec()
    hs.channel.set_write_protection(protection)
    verify_data = keys.verify_data("client", hs.transcript.digest())
    hs.send(Finished(verify_data))
    return verify_data


async def _read_finished(hs: Hs, keys: KeySchedule, protection: Protection) -> bytes:
    """ChangeCipherSpec and Finished of the server; returns its verify_data."""
    await hs.read_change_cipher_spec()
    hs.channel.set_read_protection(protection)
    expected = keys.verify_data("server", hs.transcript.digest())
    finished = await hs.read(Finished)
    if not hmac.compare_digest(finished.verify_data, expected):
        raise BadFinished("of the server")
    return expected


# --- resumption --------------------------------------------------------------------------------------------------------------------


async def _resume(hs: Hs, plan: Plan, session: SessionState) -> Established:
    """RFC 5246 figure 2; a new ticket may take the place of the old one (RFC 5077 section 3.3)."""
    hs.know(resumed=True)
    suite = plan.answer.suite
    hs.transcript.start(suite.hash_name)
    keys = KeySchedule(suite, session.secret, plan.randoms, extended=plan.answer.extended)
    hs.key_log(plan.offered.random, CLIENT_RANDOM=keys.secret)
    from_client, from_server = keys.protections()
    ticket = await hs.read(NewSessionTicket) if Ext.SESSION_TICKET in plan.answer else None
    server_finished = await _read_finished(hs, keys, from_server)
    await hs.judge(await stored_peer(hs, session), session.context)
    _send_finished(hs, keys, from_client)
    keep_session(hs, suite, keys, ticket)
    return Established12(hs, keys, server_finished)
