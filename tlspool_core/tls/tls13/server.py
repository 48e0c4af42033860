"""A TLS 1.3 server's handshake, in the order of RFC 8446 section 2.

Theory of operation
-------------------
    ClientHello        ->  checked, credential chosen, suite and group negotiated     [HelloRetryRequest, ClientHello]
    <-  ServerHello, EncryptedExtensions, [CertificateRequest], [Certificate, CertificateVerify], Finished
    [Certificate, CertificateVerify], Finished  ->
    <-  NewSessionTicket...

What follows from the ClientHello alone is in `client_offer`, keys in `key_schedule`, proofs in `authentication`, pre-shared keys in
`resumption`.  A plugin's extension may take the place of a PSK in the key schedule; then a certificate is shown only if there is one.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from tlspool_core.tls import plugin_extensions
from tlspool_core.tls.alerts import (
    BadFinished,
    CertificateRequired,
    HandshakeFailure,
    MissingExtension,
    NoCertificateTypeInCommon,
    NoCredential,
    NoSchemeInCommon,
)
from tlspool_core.tls.codec import u8, u16
from tlspool_core.tls.enums import CertificateType, CompressionAlgorithm, PskMode
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import build_key_share, build_protocol_names
from tlspool_core.tls.extensions import ExtensionTable, table_for
from tlspool_core.tls.groups import GROUPS, respond
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import HELLO_RETRY_REQUEST_RANDOM, ClientHello, Finished, ServerHello
from tlspool_core.tls.negotiation import Usable, allowed_types, choose_alpn, choose_credential, choose_group, choose_suite
from tlspool_core.tls.questions import ChooseServerCredential, ClientAuth, ServerChoice
from tlspool_core.tls.record import CcsRule
from tlspool_core.tls.seams import CipherSuite, Credential, PeerCredential
from tlspool_core.tls.settings import TLS13, ServerSettings
from tlspool_core.tls.tls13.authentication import (
    Expecting,
    Showing,
    as_certificate,
    build_proof,
    certificate_messages,
    check_certificate,
    read_proof,
)
from tlspool_core.tls.tls13.client_offer import ClientOffer
from tlspool_core.tls.tls13.key_schedule import EarlySecret, MasterSecret, TrafficSecret
from tlspool_core.tls.tls13.messages import CertificateRequest, EncryptedExtensions
from tlspool_core.tls.tls13.post_handshake import Asking, Secrets, ServerEstablished
from tlspool_core.tls.tls13.requests import expecting_client, request_extensions
from tlspool_core.tls.tls13.resumption import SelectedKey, refuse_dropped_keys, select_key, send_tickets, stored_peer

Hs = Handshake[ServerSettings]

# what a client may have sent under keys of a session that we do not resume; more is not skipped
MAX_EARLY_DATA_SKIPPED: Final = 16384
_X509_ALONE: Final = bytes((CertificateType.X509,))


@dataclass(slots=True)
class Plan:
    """What is decided once both hellos are known."""

    offer: ClientOffer
    choice: ServerChoice
    suite: CipherSuite
    group: int
    table: ExtensionTable
    alpn: bytes | None
    key: SelectedKey | None = None
    plugin_key: bool = False


async def serve(hs: Hs, hello: ClientHello) -> Established:
    """From a ClientHello (in `hs.raw`, not in the transcript) that has selected TLS 1.3 to the established session."""
    plan = await _negotiate(hs, hello)
    early, shared = await _hellos(hs, plan)
    handshake = early.handshake(shared)
    digest = hs.transcript.digest()
    client, server = handshake.client(digest), handshake.server(digest)
    random = plan.offer.hello.random
    hs.key_log(random, CLIENT_HANDSHAKE_TRAFFIC_SECRET=client.secret, SERVER_HANDSHAKE_TRAFFIC_SECRET=server.secret)
    hs.channel.set_write_protection(server.protection(plan.suite.cipher))
    hs.channel.set_read_protection(client.protection(plan.suite.cipher))
    requested = await _send_flight(hs, plan)
    hs.send(Finished(server.verify_data(hs.transcript.digest())))
    master = handshake.master()
    secrets = _application_secrets(hs, master, random)
    hs.channel.set_write_protection(secrets.write.protection(plan.suite.cipher))
    await _read_client_flight(hs, plan, requested, client)
    hs.channel.set_read_protection(secrets.read.protection(plan.suite.cipher))
    hs.channel.records.change_cipher_spec = CcsRule.REFUSE
    await _judge(hs, plan)
    await _send_tickets(hs, plan, master)
    return ServerEstablished(hs, plan.suite, secrets, _asking(hs, plan, requested))


# --- hellos ----------------------------------------------------------------------------------------------------------------------


async def _negotiate(hs: Hs, hello: ClientHello) -> Plan:
    """Everything that ServerHello says, or a HelloRetryRequest first."""
    settings = hs.settings
    table = table_for(settings.extensions)
    offer = ClientOffer(hello, table)
    parsed = offer.parsed
    hs.know(server_name=parsed.get(Ext.SERVER_NAME))
    choice = await hs.ask(ChooseServerCredential(offer.peer_offer()))
    suite = choose_suite(settings, hello.cipher_suites, TLS13)
    group = choose_group(settings, offer.groups, TLS13)
    alpn = choose_alpn(choice.alpn, parsed.get(Ext.ALPN))
    if Ext.EARLY_DATA in parsed:
        hs.channel.records.skip_early_data(MAX_EARLY_DATA_SKIPPED + 1)
        hs.know(early_data_refused=True)
    if group not in offer.shares:
        offer = await _retry(hs, offer, table, suite, group)
    hs.know(
        cipher_suite=suite.code,
        cipher_suite_name=suite.name,
        group=group,
        alpn=alpn,
        key_exchange="ECDHE",
        quantum_safe_exchange=GROUPS[group].quantum_safe,
    )
    return Plan(offer, choice, suite, group, table, alpn)


async def _retry(hs: Hs, offer: ClientOffer, table: ExtensionTable, suite: CipherSuite, group: int) -> ClientOffer:
    """HelloRetryRequest and the second ClientHello, RFC 8446 section 4.1.4."""
    hs.channel.check_boundary()
    hs.transcript.add(hs.raw)
    hs.transcript.replace_by_message_hash(suite.hash_name)
    hello = offer.hello
    extensions = {Ext.SUPPORTED_VERSIONS: u16(TLS13), Ext.KEY_SHARE: u16(group)}
    hs.send(ServerHello(HELLO_RETRY_REQUEST_RANDOM, suite.code, extensions, hello.legacy_session_id))
    _appease_middleboxes(hs)
    hs.know(retried=True)
    second = ClientOffer(await hs.read(ClientHello, add=False), table)
    hs.channel.records.skip_early_data(0)
    offer.check_second(second, group, frozenset([extension.code for extension in hs.settings.extensions]))
    if Ext.PRE_SHARED_KEY in offer.parsed and Ext.PRE_SHARED_KEY not in second.parsed:
        await refuse_dropped_keys(hs, offer.parsed, suite)
    return second


def _appease_middleboxes(hs: Hs) -> None:
    """RFC 8446 appendix D.4: required if the client sent a session id, allowed always."""
    if hs.settings.middlebox_compatibility:
        hs.send_change_cipher_spec()


async def _hellos(hs: Hs, plan: Plan) -> tuple[EarlySecret, bytes]:
    """Select a PSK, send ServerHello; returns the first stage of the key schedule and the (EC)DHE secret."""
    offer, suite = plan.offer, plan.suite
    retried = bool(hs.transcript.messages)
    answers: dict[int, bytes] = {}
    if hs.settings.extensions:
        await plugin_extensions.received_client_hello(hs, TLS13, offer.hello.extensions)
        answers = await plugin_extensions.server_hello(hs, TLS13, offer.hello.extensions)
    if not answers:
        plan.key = await select_key(hs, offer.parsed, suite, plan.choice.client_auth)
    hs.transcript.start(suite.hash_name)
    hs.transcript.add(hs.raw)
    public, shared = respond(plan.group, offer.shares[plan.group])
    extensions = {Ext.SUPPORTED_VERSIONS: u16(TLS13), Ext.KEY_SHARE: build_key_share(plan.group, public)}
    if plan.key is not None:
        extensions[Ext.PRE_SHARED_KEY] = u16(plan.key.index)
        hs.know(key_exchange="PSK+ECDHE", resumed=plan.key.state is not None)
    hs.send(ServerHello(hs.random(32), suite.code, {**extensions, **answers}, offer.hello.legacy_session_id))
    if not retried:
        _appease_middleboxes(hs)
    if plan.key is not None:
        return plan.key.early, shared
    value = await plugin_extensions.psk_input(hs, TLS13, hs.transcript.digest, plan.group) if answers else None
    plan.plugin_key = value is not None
    return EarlySecret(suite.hash_name, value), shared


# --- our flight ------------------------------------------------------------------------------------------------------------------


async def _send_flight(hs: Hs, plan: Plan) -> Expecting | None:
    """EncryptedExtensions up to CertificateVerify; returns what the client was asked to show."""
    answers: dict[int, bytes] = {}
    if hs.settings.extensions:
        answers = await plugin_extensions.server_hello(hs, TLS13, plan.offer.hello.extensions, encrypted=True)
    if plan.key is not None:
        hs.send(EncryptedExtensions(_encrypted_extensions(hs, plan) | answers))
        _note_own_credential(hs, plan)
        return None
    showing = _showing(hs, plan)
    expecting = _expecting(hs, plan)
    extensions = _encrypted_extensions(hs, plan) | answers
    if Ext.SERVER_CERTIFICATE_TYPE in plan.offer.parsed and showing is not None:
        extensions[Ext.SERVER_CERTIFICATE_TYPE] = u8(showing.credential.certificate_type)
    if Ext.CLIENT_CERTIFICATE_TYPE in plan.offer.parsed and expecting is not None:
        extensions[Ext.CLIENT_CERTIFICATE_TYPE] = u8(expecting.certificate_type)
    hs.send(EncryptedExtensions(extensions))
    if expecting is not None:
        hs.send(CertificateRequest(b"", request_extensions(hs.settings, plan.choice.certificate_authorities)))
    if showing is not None:
        for message in await build_proof(hs, showing):
            hs.channel.queue(message)
    return expecting


def _encrypted_extensions(hs: Hs, plan: Plan) -> dict[int, bytes]:
    """RFC 8446 section 4.3.1: answers that do not depend on certificates."""
    parsed = plan.offer.parsed
    found: dict[int, bytes] = {}
    if parsed.get(Ext.SERVER_NAME) is not None and plan.key is None:
        found[Ext.SERVER_NAME] = b""
    if plan.alpn is not None:
        found[Ext.ALPN] = build_protocol_names((plan.alpn,))
    limit = parsed.get(Ext.RECORD_SIZE_LIMIT)
    if limit is not None:
        found[Ext.RECORD_SIZE_LIMIT] = u16(hs.settings.record_size_limit)
        hs.channel.records.limit_sent(limit)
        hs.channel.records.limit_received(hs.settings.record_size_limit)
    return found


def _choose_credential(hs: Hs, plan: Plan) -> tuple[Credential, int]:
    """The best of ours that the client takes; certificate types by RFC 7250 section 4.2."""
    parsed = plan.offer.parsed
    accepted = parsed.get(Ext.SERVER_CERTIFICATE_TYPE, _X509_ALONE)
    types = [kind for kind in allowed_types(hs.settings, TLS13, hs.settings.own_certificate_types) if kind in accepted]
    usable = Usable(hs.settings, TLS13, parsed.get(Ext.SIGNATURE_ALGORITHMS, ()))
    return choose_credential(plan.choice.credentials, types, usable, parsed.get(Ext.CERTIFICATE_AUTHORITIES, ()))


def _showing(hs: Hs, plan: Plan) -> Showing | None:
    """Our credential for this client; None only if a plugin's extension proves us instead."""
    settings, parsed = hs.settings, plan.offer.parsed
    if Ext.SIGNATURE_ALGORITHMS not in parsed and not plan.plugin_key:
        raise MissingExtension("no PSK was selected, and there is no signature_algorithms")
    try:
        credential, scheme = _choose_credential(hs, plan)
    except (NoCredential, NoCertificateTypeInCommon, NoSchemeInCommon):
        if plan.plugin_key:
            return None
        raise
    asked = parsed if parsed.get(Ext.STATUS_REQUEST, True) else {code for code in parsed if code != Ext.STATUS_REQUEST}
    ocsp = settings.ocsp_response(credential) if settings.ocsp_response and Ext.STATUS_REQUEST in asked else None
    compress = settings.certificate_compression and CompressionAlgorithm.ZLIB in parsed.get(Ext.COMPRESS_CERTIFICATE, ())
    return Showing(credential, scheme, asked, ocsp, compress)


def _note_own_credential(hs: Hs, plan: Plan) -> None:
    """In a resumed session: who we are to this client, though nothing is shown."""
    try:
        hs.own, _ = _choose_credential(hs, plan)
    except (HandshakeFailure, NoCertificateTypeInCommon):
        hs.own = None


def _expecting(hs: Hs, plan: Plan) -> Expecting | None:
    """What to ask the client for, None: nothing. The type is the first of ours that it can show (RFC 7250 section 4.2)."""
    choice = plan.choice
    if choice.client_auth is ClientAuth.NONE:
        return None
    accepted = plan.offer.parsed.get(Ext.CLIENT_CERTIFICATE_TYPE, _X509_ALONE)
    for kind in allowed_types(hs.settings, TLS13, choice.client_certificate_types):
        if kind in accepted:
            return expecting_client(hs.settings, kind)
    if choice.client_auth is ClientAuth.REQUIRE:
        raise NoCertificateTypeInCommon("no certificate type for the client in common")
    return None


def _application_secrets(hs: Hs, master: MasterSecret, random: bytes) -> Secrets:
    """Secrets over ClientHello...server Finished."""
    digest = hs.transcript.digest()
    secrets = Secrets(read=master.client(digest), write=master.server(digest), exporter=master.exporter(digest))
    hs.key_log(
        random,
        CLIENT_TRAFFIC_SECRET_0=secrets.read.secret,
        SERVER_TRAFFIC_SECRET_0=secrets.write.secret,
        EXPORTER_SECRET=secrets.exporter,
    )
    return secrets


# --- the client's flight -----------------------------------------------------------------------------------------------------------


async def _read_client_flight(hs: Hs, plan: Plan, requested: Expecting | None, client: TrafficSecret) -> None:
    """[Certificate, [CertificateVerify]], Finished."""
    if requested is not None:
        message = as_certificate(hs, await hs.read_any(*certificate_messages(requested)))
        entries = check_certificate(hs, message, requested)
        if entries:
            await hs.judge(await read_proof(hs, entries, requested))
        elif plan.choice.client_auth is ClientAuth.REQUIRE:
            raise CertificateRequired("the client shows no certificate")
    expected = client.verify_data(hs.transcript.digest())
    finished = await hs.read(Finished)
    if not hmac.compare_digest(finished.verify_data, expected):
        raise BadFinished("of the client")


async def _judge(hs: Hs, plan: Plan) -> None:
    """Unless CertificateVerify has proved the client already."""
    if hs.judged:
        return
    peer: PeerCredential | None = None
    context = b""
    if plan.key is not None and plan.key.state is not None:
        peer, context = await stored_peer(hs, plan.key.state), plan.key.state.context
    elif plan.plugin_key:
        peer = await plugin_extensions.peer_credential(hs, TLS13)
    await hs.judge(peer, context)


async def _send_tickets(hs: Hs, plan: Plan, master: MasterSecret) -> None:
    """Only to a client that can use them in our only mode, and not for what a plugin's extension proved."""
    modes = plan.offer.parsed.get(Ext.PSK_KEY_EXCHANGE_MODES, b"")
    if plan.plugin_key or PskMode.PSK_DHE_KE not in modes or hs.settings.tickets <= 0:
        return
    secret = master.resumption(hs.transcript.digest())
    # a resumed session uses up one ticket, so it gets one back
    await send_tickets(hs, plan.suite, secret, hs.settings.tickets if plan.key is None else 1)


def _asking(hs: Hs, plan: Plan, requested: Expecting | None) -> Asking | None:
    """Post-handshake authentication, if the client can do it; what type it would show is settled in EncryptedExtensions or X.509."""
    if Ext.POST_HANDSHAKE_AUTH not in plan.offer.parsed:
        return None
    kind = CertificateType.X509 if requested is None else requested.certificate_type
    if kind not in plan.choice.client_certificate_types:
        return None
    return Asking(hs.settings, hs.transcript, kind, plan.choice.certificate_authorities)
