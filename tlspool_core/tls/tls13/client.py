"""A TLS 1.3 client's handshake after ServerHello, in the order of RFC 8446 section 2.

Theory of operation
-------------------
    ServerHello            ->  [HelloRetryRequest: the offer amended, sent again, ServerHello]
    EncryptedExtensions    ->
    [CertificateRequest], Certificate, CertificateVerify   ->  unless a PSK was selected; the server is judged
    Finished               ->
    <-  [Certificate, [CertificateVerify]], Finished

The server may select only what was offered; every field is held against `Offer`.  Where a plugin's extension takes the place of a
PSK, the server may leave out its certificate: the extension has then to prove whom it speaks with.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from tlspool_core.tls import plugin_extensions
from tlspool_core.tls.alerts import (
    BadFinished,
    IllegalParameter,
    MissingExtension,
    NoPeerCertificate,
    SecondHelloRetryRequest,
    UnofferedChoice,
    UselessHelloRetryRequest,
)
from tlspool_core.tls.client_hello import Offer, OfferedKey, build_shares, send_client_hello
from tlspool_core.tls.enums import CertificateType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import build_cookie, parse_u16s
from tlspool_core.tls.extensions import ExtensionTable, Place, table_for
from tlspool_core.tls.groups import GROUPS, generate
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import Finished, Message, ServerHello
from tlspool_core.tls.negotiation import allowed_types
from tlspool_core.tls.record import CcsRule
from tlspool_core.tls.seams import CipherSuite, PeerCredential
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings
from tlspool_core.tls.signatures import accepted_schemes
from tlspool_core.tls.suites import suites_for
from tlspool_core.tls.tls13.authentication import (
    Expecting,
    Showing,
    as_certificate,
    build_proof,
    certificate_messages,
    check_certificate,
    read_proof,
)
from tlspool_core.tls.tls13.key_schedule import EarlySecret, MasterSecret, TrafficSecret
from tlspool_core.tls.tls13.messages import CertificateRequest, EncryptedExtensions
from tlspool_core.tls.tls13.post_handshake import ClientEstablished, Secrets
from tlspool_core.tls.tls13.requests import check_request, choose_showing
from tlspool_core.tls.tls13.resumption import TicketKeeper, stored_peer

Hs = Handshake[ClientSettings]


@dataclass(slots=True)
class Agreed:
    """What ServerHello and EncryptedExtensions settled."""

    offer: Offer
    table: ExtensionTable
    suite: CipherSuite
    group: int = 0
    key: OfferedKey | None = None
    plugin_key: bool = False
    server_certificate_type: int = CertificateType.X509
    client_certificate_type: int = CertificateType.X509
    request: dict[int, Any] | None = None


async def continue_client(hs: Hs, offer: Offer, hello: ServerHello) -> Established:
    """From a ServerHello (in `hs.raw`, not in the transcript) that selected TLS 1.3 to the established session."""
    table = table_for(hs.settings.extensions)
    agreed = Agreed(offer, table, _selected_suite(hs, offer, hello))
    retried = hello.is_hello_retry_request
    if retried:
        hello = await _retry(hs, agreed, hello)
    early, shared = await _server_hello(hs, agreed, hello)
    handshake = early.handshake(shared)
    digest = hs.transcript.digest()
    client, server = handshake.client(digest), handshake.server(digest)
    random = offer.hello.random
    hs.key_log(random, CLIENT_HANDSHAKE_TRAFFIC_SECRET=client.secret, SERVER_HANDSHAKE_TRAFFIC_SECRET=server.secret)
    hs.channel.set_read_protection(server.protection(agreed.suite.cipher))
    if not retried:
        _appease_middleboxes(hs, offer)
    hs.channel.set_write_protection(client.protection(agreed.suite.cipher))
    await _encrypted_extensions(hs, agreed)
    await _server_proof(hs, agreed)
    await _server_finished(hs, server)
    master = handshake.master()
    secrets = _application_secrets(hs, master, random)
    hs.channel.set_read_protection(secrets.read.protection(agreed.suite.cipher))
    hs.channel.records.change_cipher_spec = CcsRule.REFUSE
    await _judge(hs, agreed)
    await _send_flight(hs, agreed, client)
    hs.channel.set_write_protection(secrets.write.protection(agreed.suite.cipher))
    tickets = TicketKeeper(hs, agreed.suite, master.resumption(hs.transcript.digest()))
    return ClientEstablished(hs, agreed.suite, secrets, tickets, agreed.client_certificate_type)


# --- hellos ----------------------------------------------------------------------------------------------------------------------


def _selected_suite(hs: Hs, offer: Offer, hello: ServerHello) -> CipherSuite:
    """Checks of ServerHello and HelloRetryRequest alike, RFC 8446 section 4.1.3."""
    if hello.legacy_version != TLS12:
        raise IllegalParameter(f"legacy_version 0x{hello.legacy_version:04x} in TLS 1.3")
    if hello.legacy_session_id_echo != offer.hello.legacy_session_id:
        raise IllegalParameter("legacy_session_id_echo differs")
    if hello.compression_method != 0:
        raise IllegalParameter(f"compression method {hello.compression_method}")
    suite = suites_for(hs.settings).get(hello.cipher_suite)
    if suite is None or suite.version != TLS13 or suite.code not in offer.hello.cipher_suites:
        raise UnofferedChoice(f"cipher suite 0x{hello.cipher_suite:04x}")
    return suite


async def _retry(hs: Hs, agreed: Agreed, request: ServerHello) -> ServerHello:
    """Amend the offer as HelloRetryRequest asks, and read the ServerHello that follows (RFC 8446 section 4.1.4)."""
    hs.channel.check_boundary()
    offer = agreed.offer
    hs.know(retried=True)
    asked = agreed.table.parse(Place.HELLO_RETRY_REQUEST, request.extensions, offer.hello.extensions)
    group, cookie = asked.get(Ext.KEY_SHARE), asked.get(Ext.COOKIE)
    if group is None and cookie is None:
        raise UselessHelloRetryRequest("neither group nor cookie")
    if group is not None:
        if group not in parse_u16s(offer.hello.extensions[Ext.SUPPORTED_GROUPS]) or group not in GROUPS:
            raise UnofferedChoice(f"HelloRetryRequest for group 0x{group:04x}")
        if group in offer.shares:
            raise UselessHelloRetryRequest("the share that it asks for was sent")
        offer.shares = {group: generate(group)}
        offer.hello.extensions[Ext.KEY_SHARE] = build_shares(offer.shares)
    if cookie is not None:
        offer.hello.extensions[Ext.COOKIE] = build_cookie(cookie)
    offer.psks = [psk for psk in offer.psks if psk.hash_name == agreed.suite.hash_name]
    offer.hello.extensions |= await plugin_extensions.client_hello(hs, retry=True)
    hs.transcript.replace_by_message_hash(agreed.suite.hash_name)
    hs.transcript.add(hs.raw)
    _appease_middleboxes(hs, offer)
    send_client_hello(hs, offer)
    hello = await hs.read(ServerHello, add=False)
    _check_after_retry(agreed, hello, group)
    _selected_suite(hs, offer, hello)
    return hello


def _check_after_retry(agreed: Agreed, hello: ServerHello, group: int | None) -> None:
    if hello.is_hello_retry_request:
        raise SecondHelloRetryRequest("in one connection")
    if hello.cipher_suite != agreed.suite.code:
        raise IllegalParameter("ServerHello changes the cipher suite of HelloRetryRequest")
    if hello.extensions.get(Ext.SUPPORTED_VERSIONS) != TLS13.to_bytes(2, "big"):
        raise IllegalParameter("ServerHello changes the version of HelloRetryRequest")
    share = hello.extensions.get(Ext.KEY_SHARE)
    if group is not None and share is not None and share[:2] != group.to_bytes(2, "big"):
        raise IllegalParameter("ServerHello changes the group of HelloRetryRequest")


def _appease_middleboxes(hs: Hs, offer: Offer) -> None:
    """RFC 8446 appendix D.4."""
    if offer.hello.legacy_session_id and hs.settings.middlebox_compatibility:
        hs.send_change_cipher_spec()


async def _server_hello(hs: Hs, agreed: Agreed, hello: ServerHello) -> tuple[EarlySecret, bytes]:
    """What ServerHello selects; returns the first stage of the key schedule and the (EC)DHE secret."""
    offer, suite = agreed.offer, agreed.suite
    answers = agreed.table.parse(Place.SERVER_HELLO, hello.extensions, offer.hello.extensions)
    if Ext.KEY_SHARE not in answers:
        raise MissingExtension("ServerHello without key_share")
    group, public = answers[Ext.KEY_SHARE]
    share = offer.shares.get(group)
    if share is None:
        raise UnofferedChoice(f"key share of group 0x{group:04x}")
    agreed.group = group
    agreed.key = _selected_key(offer, suite, answers.get(Ext.PRE_SHARED_KEY))
    shared = share.finish(public)
    offer.shares = {}
    hs.transcript.start(suite.hash_name)
    hs.transcript.add(hs.raw)
    hs.know(
        cipher_suite=suite.code,
        cipher_suite_name=suite.name,
        group=group,
        key_exchange="ECDHE" if agreed.key is None else "PSK+ECDHE",
        quantum_safe_exchange=GROUPS[group].quantum_safe,
        resumed=agreed.key is not None and agreed.key.state is not None,
        server_name=hs.settings.server_name,
    )
    await plugin_extensions.received_server_hello(hs, TLS13, hello.extensions)
    value = await plugin_extensions.psk_input(hs, TLS13, hs.transcript.digest, group)
    if agreed.key is None:
        agreed.plugin_key = value is not None
        return EarlySecret(suite.hash_name, value), shared
    if value is not None:
        raise IllegalParameter("pre_shared_key together with an extension that takes its place")
    return agreed.key.early, shared


def _selected_key(offer: Offer, suite: CipherSuite, index: int | None) -> OfferedKey | None:
    if index is None:
        return None
    if index >= len(offer.psks):
        raise UnofferedChoice(f"PSK number {index}")
    key = offer.psks[index]
    if key.hash_name != suite.hash_name:
        raise IllegalParameter("the PSK selected goes with another hash")
    return key


# --- the server's flight -----------------------------------------------------------------------------------------------------------


async def _encrypted_extensions(hs: Hs, agreed: Agreed) -> None:
    """RFC 8446 section 4.3.1."""
    message = await hs.read(EncryptedExtensions)
    hello, settings = agreed.offer.hello, hs.settings
    answers = agreed.table.parse(Place.ENCRYPTED_EXTENSIONS, message.extensions, hello.extensions)
    await plugin_extensions.received_server_hello(hs, TLS13, message.extensions, encrypted=True)
    alpn = answers.get(Ext.ALPN)
    if alpn is not None and alpn not in settings.alpn:
        raise UnofferedChoice("an application protocol that was not offered")
    hs.know(alpn=alpn)
    limit = answers.get(Ext.RECORD_SIZE_LIMIT)
    if limit is not None:
        hs.channel.records.limit_sent(limit)
        hs.channel.records.limit_received(settings.record_size_limit)
    agreed.server_certificate_type = answers.get(Ext.SERVER_CERTIFICATE_TYPE, CertificateType.X509)
    agreed.client_certificate_type = answers.get(Ext.CLIENT_CERTIFICATE_TYPE, CertificateType.X509)
    for code, selected, offered in (
        (Ext.SERVER_CERTIFICATE_TYPE, agreed.server_certificate_type, settings.peer_certificate_types),
        (Ext.CLIENT_CERTIFICATE_TYPE, agreed.client_certificate_type, settings.own_certificate_types),
    ):
        if code in answers and selected not in allowed_types(settings, TLS13, offered):
            raise UnofferedChoice(f"certificate type {selected} in extension {code}")


async def _server_proof(hs: Hs, agreed: Agreed) -> None:
    """[CertificateRequest], Certificate, CertificateVerify, unless a PSK authenticates; then judge the server."""
    if agreed.key is not None:
        return
    expecting = Expecting(
        agreed.table,
        accepted_schemes(hs.settings, TLS13),
        agreed.server_certificate_type,
        extensions=agreed.offer.hello.extensions,
        compression=hs.settings.certificate_compression,
    )
    message = await _next_of_proof(hs, agreed, (CertificateRequest, *certificate_messages(expecting)))
    if isinstance(message, CertificateRequest):
        if message.certificate_request_context:
            raise IllegalParameter("CertificateRequest with a context in the handshake")
        agreed.request = check_request(message, agreed.table)
        message = await _next_of_proof(hs, agreed, certificate_messages(expecting))
    if message is None:
        return
    entries = check_certificate(hs, as_certificate(hs, message), expecting)
    if not entries:
        raise NoPeerCertificate("the server shows no certificate")
    await hs.judge(await read_proof(hs, entries, expecting))


async def _next_of_proof(hs: Hs, agreed: Agreed, kinds: tuple[type[Message], ...]) -> Message | None:
    """The next message; None if the server's Finished comes, which is only allowed where a plugin's extension proves it."""
    if agreed.plugin_key and await hs.next_type() == Finished.handshake_type:
        return None
    return await hs.read_any(*kinds)


async def _server_finished(hs: Hs, server: TrafficSecret) -> None:
    expected = server.verify_data(hs.transcript.digest())
    finished = await hs.read(Finished)
    if not hmac.compare_digest(finished.verify_data, expected):
        raise BadFinished("of the server")


def _application_secrets(hs: Hs, master: MasterSecret, random: bytes) -> Secrets:
    """Secrets over ClientHello...server Finished."""
    digest = hs.transcript.digest()
    secrets = Secrets(read=master.server(digest), write=master.client(digest), exporter=master.exporter(digest))
    hs.key_log(
        random,
        CLIENT_TRAFFIC_SECRET_0=secrets.write.secret,
        SERVER_TRAFFIC_SECRET_0=secrets.read.secret,
        EXPORTER_SECRET=secrets.exporter,
    )
    return secrets


async def _judge(hs: Hs, agreed: Agreed) -> None:
    """Unless CertificateVerify has proved the server already."""
    if hs.judged:
        return
    peer: PeerCredential | None = None
    context = b""
    if agreed.key is not None and agreed.key.state is not None:
        peer, context = await stored_peer(hs, agreed.key.state), agreed.key.state.context
    elif agreed.plugin_key:
        peer = await plugin_extensions.peer_credential(hs, TLS13)
    await hs.judge(peer, context)


# --- our flight ------------------------------------------------------------------------------------------------------------------


async def _send_flight(hs: Hs, agreed: Agreed, client: TrafficSecret) -> None:
    """[Certificate, [CertificateVerify]], Finished."""
    if agreed.request is not None:
        showing: Showing | None = await choose_showing(hs, agreed.request, agreed.client_certificate_type)
        for message in await build_proof(hs, showing):
            hs.channel.queue(message)
    hs.send(Finished(client.verify_data(hs.transcript.digest())))
