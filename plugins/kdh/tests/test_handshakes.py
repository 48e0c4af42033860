"""Do two ends come to agree by tickets of a real KDC, in every form of TLS-KDH, and is everything else refused for the right reason?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from kdh_helpers import MAIL, PARTS, WEB, TicketAnswers, fetch, source
from tlspool_kdh.asn1 import EncryptedData, EncTicketPart, Ticket, decode, encode
from tlspool_kdh.codes import FORM, SCHEMES, SUITES, TICKET_TYPE
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.exchange import Kdh, ServicePeer, TicketCredential, TicketPeer
from tlspool_kdh.mit import keytab_keys
from tlspool_kdh.relief import ClientRelief, ServerRelief
from tlspool_kdh.tickets import ClientTicket, Principal, Service, make_authenticator, open_authenticator

from tlspool_core.api import (
    BadCertificate,
    BadRecordMac,
    CertificateExpired,
    CertificateUnknown,
    DecryptError,
    HandshakeFailure,
    SessionParts,
    TlsError,
)
from tlspool_core.testing.key_exchange import ExchangeUnderTest, KeyExchangeConformance
from tlspool_core.testing.peers import Pair, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings


@pytest.fixture(scope="module")
def held(realm: Any) -> ClientTicket:
    """John's ticket for the web service."""
    return fetch(source("john@KDH.EXAMPLE", keytab=realm.users), WEB)


@pytest.fixture
def service(realm: Any) -> Service:
    return Service(keytab_keys(realm.services))


def answers(held: ClientTicket, service: Service, **changes: Any) -> tuple[TicketAnswers, TicketAnswers]:
    client = TicketAnswers(credentials=(TicketCredential(held),))
    return client, replace(TicketAnswers(client_certificate_types=(TICKET_TYPE,), service=service), **changes)


def kdh_only(held: ClientTicket, service: Service, suite: int = 0xFFA1, accepts: Callable[[Any], bool] = lambda _: True) -> Pair:
    return ends(held, service, TLS12, (suite,), client={"key_exchanges": (Kdh(),)}, server={"key_exchanges": (Kdh(accepts),)})


def enhanced(held: ClientTicket, service: Service, version: int) -> Pair:
    answer = {"credentials": (software_credential(),), "client_auth": ClientAuth.REQUIRE}
    return ends(held, service, version, (), own_types=(0,), answer=answer)


def relief(
    held: ClientTicket,
    service: Service,
    *,
    certificates: bool = False,
    accepts: Callable[[Any], bool] = lambda _: True,
    server: bool = True,
) -> Pair:
    answer = {"credentials": (software_credential(),), "client_auth": ClientAuth.REQUIRE} if certificates else {}
    if not server:
        answer = {"credentials": (software_credential(),)}
    extensions = (ServerRelief(service, accepts),) if server else ()
    client = {"extensions": (ClientRelief(lambda: held),)}
    return ends(held, service, TLS13, (), client=client, server={"extensions": extensions}, own_types=(0,), answer=answer)


def ends(
    held: ClientTicket, service: Service, version: int, suites: tuple[int, ...], *, client: Any = None, server: Any = None,
    own_types: tuple[int, ...] = (TICKET_TYPE, 0), answer: Any = None,
) -> Pair:  # fmt: skip
    common: Any = {
        "versions": (version,), "cipher_suites": suites, "extra_suites": SUITES, "extra_schemes": SCHEMES, "extra_forms": (FORM,),
    }  # fmt: skip
    client_answers, server_answers = answers(held, service, **(answer or {}))
    first = ClientSettings(own_certificate_types=(TICKET_TYPE, 0), peer_certificate_types=own_types, **(client or {}), **common)
    second = ServerSettings(own_certificate_types=own_types, peer_certificate_types=(TICKET_TYPE, 0), **(server or {}), **common)
    return Pair(TlsConnection(first), TlsConnection(second), client_answers, server_answers)


def agreed(pair: Pair) -> Pair:
    pair.run()
    assert pair.complete, (pair.client.failed, pair.server.failed)
    pair.client.send(b"hello")
    pair.run()
    assert pair.server.take_plaintext() == b"hello"
    return pair


def refused(pair: Pair, kind: type[Exception], words: str) -> None:
    """The server refuses, for this reason."""
    pair.run()
    assert isinstance(pair.server.failed, kind), (pair.client.failed, pair.server.failed)
    assert words in str(pair.server.failed)


@pytest.mark.parametrize(("suite", "length"), [(0xFFA1, 32), (0xFFA2, 48)])
def test_kdh_only_proves_both_sides(held: ClientTicket, service: Service, suite: int, length: int) -> None:
    pair = agreed(kdh_only(held, service, suite))
    assert isinstance(pair.server.peer, TicketPeer) and str(pair.server.peer.principal) == "john@KDH.EXAMPLE"
    assert isinstance(pair.client.peer, ServicePeer) and str(pair.client.peer.principal) == WEB
    assert pair.server.facts.cipher_suite == suite
    assert len(pair.client.channel_binding("tls-unique") or b"") == length
    for side in (pair.client, pair.server):
        assert side.facts.quantum_safe_exchange and side.facts.quantum_safe_authentication


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_ticket_beside_a_certificate_of_the_server(held: ClientTicket, service: Service, version: int) -> None:
    pair = agreed(enhanced(held, service, version))
    assert isinstance(pair.server.peer, TicketPeer)
    assert pair.server.facts.peer_signature_scheme & 0xFF == 0xE0
    assert pair.server.facts.quantum_safe_authentication
    assert pair.server.facts.quantum_safe_exchange is (version == TLS13)  # that is the doing of ML-KEM
    assert not pair.client.facts.quantum_safe_authentication  # the server's certificate is of ECDSA


@pytest.mark.parametrize("certificates", [False, True])
def test_quantum_relief(held: ClientTicket, service: Service, certificates: bool) -> None:
    pair = agreed(relief(held, service, certificates=certificates))
    for side in (pair.client, pair.server):
        assert side.facts.quantum_safe_exchange
    assert pair.server.facts.quantum_safe_authentication
    assert pair.client.facts.quantum_safe_authentication is not certificates  # an ECDSA certificate takes it back
    assert isinstance(pair.server.peer, TicketPeer) and str(pair.server.peer.principal) == "john@KDH.EXAMPLE"


def test_quantum_relief_after_a_hello_retry_request(held: ClientTicket, service: Service) -> None:
    """The transcript then begins with a hash of the first ClientHello."""
    common: Any = {"versions": (TLS13,), "extra_schemes": SCHEMES, "extra_forms": (FORM,)}
    first = ClientSettings(extensions=(ClientRelief(lambda: held),), groups=(29, 24), **common)
    second = ServerSettings(extensions=(ServerRelief(service),), groups=(24,), **common)
    pair = agreed(Pair(TlsConnection(first), TlsConnection(second), TicketAnswers(), TicketAnswers(service=service)))
    assert pair.client.facts.retried and pair.client.facts.group == 24


def test_a_server_that_leaves_quantum_relief_out_is_refused(held: ClientTicket, service: Service) -> None:
    pair = relief(held, service, server=False)
    pair.run()
    assert isinstance(pair.client.failed, HandshakeFailure) and "Quantum Relief" in str(pair.client.failed)


def test_a_server_of_tls12_is_no_obstacle_to_a_client_of_both(held: ClientTicket, service: Service) -> None:
    common: Any = {"extra_suites": SUITES, "extra_schemes": SCHEMES, "extra_forms": (FORM,), "key_exchanges": (Kdh(),)}
    types = {"own_certificate_types": (TICKET_TYPE, 0), "peer_certificate_types": (TICKET_TYPE, 0)}
    first = ClientSettings(extensions=(ClientRelief(lambda: held),), **types, **common)
    second = ServerSettings(versions=(TLS12,), extensions=(ServerRelief(service),), **types, **common)
    pair = agreed(Pair(TlsConnection(first), TlsConnection(second), *answers(held, service)))
    assert pair.server.facts.cipher_suite == 0xFFA2


FORMS: list[Callable[[ClientTicket, Service], Pair]] = [kdh_only, lambda held, service: enhanced(held, service, TLS12), relief]


@pytest.mark.parametrize("form", FORMS, ids=["KDH-only", "KDH-enhanced", "Quantum Relief"])
class TestRefusals:
    def test_a_service_without_the_key(self, realm: Any, held: ClientTicket, form: Callable[..., Pair]) -> None:
        refused(form(held, Service(keytab_keys(realm.users))), CertificateUnknown, "no key for http/web.kdh.example")

    def test_an_expired_ticket(self, realm: Any, held: ClientTicket, form: Callable[..., Pair]) -> None:
        late = Service(keytab_keys(realm.services), now=lambda: held.ends + 301)
        refused(form(held, late), CertificateExpired, "the ticket ended at")

    def test_a_ticket_of_the_future(self, realm: Any, held: ClientTicket, form: Callable[..., Pair]) -> None:
        early = Service(keytab_keys(realm.services), now=lambda: held.ends - 100_000)
        refused(form(held, early), BadCertificate, "yet to come")

    def test_a_ticket_that_was_changed(self, held: ClientTicket, service: Service, form: Callable[..., Pair]) -> None:
        changed = held.ticket[:-1] + bytes((held.ticket[-1] ^ 1,))
        refused(form(replace(held, ticket=changed), service), BadCertificate, "cannot be opened")


def once(find: bytes, put: bytes) -> Callable[[bytes], bytes]:
    """Somebody in the middle who changes the first flight."""
    changes = [1]

    def tamper(data: bytes) -> bytes:
        return data.replace(find, put, changes.pop()) if changes else data

    return tamper


@pytest.mark.parametrize("required", [True, False])
def test_the_extension_is_stripped_on_the_way(held: ClientTicket, service: Service, required: bool) -> None:
    """The server then knows nothing of Quantum Relief; the client refuses, or does without and finds its ClientHello changed."""
    common: Any = {"versions": (TLS13,), "extra_schemes": SCHEMES, "extra_forms": (FORM,)}
    first = ClientSettings(extensions=(ClientRelief(lambda: held, required=required),), **common)
    second = ServerSettings(extensions=(ServerRelief(service),), **common)
    pair = Pair(TlsConnection(first), TlsConnection(second), TicketAnswers(), TicketAnswers(credentials=(software_credential(),)))
    content = b"\xff\x0d" + (len(held.ticket) + 6).to_bytes(2, "big")
    pair.to_server = once(content, b"\xff\x77" + content[2:])
    pair.run()
    assert not pair.client.handshake_complete
    assert isinstance(pair.client.failed, HandshakeFailure if required else TlsError)
    assert ("Quantum Relief" in str(pair.client.failed)) is required


@pytest.mark.parametrize("form", FORMS, ids=["KDH-only", "KDH-enhanced", "Quantum Relief"])
def test_messages_are_changed_on_the_way(held: ClientTicket, service: Service, form: Callable[..., Pair]) -> None:
    pair = form(held, service)

    def flip(data: bytes) -> bytes:
        return data[:20] + bytes((data[20] ^ 1,)) + data[21:] if data[5:6] == b"\1" else data  # a bit of ClientHello's random

    pair.to_server = flip
    pair.run()
    assert not (pair.client.handshake_complete and pair.server.handshake_complete)
    failures = [side.failed for side in (pair.client, pair.server)]
    if form is relief:
        assert any(isinstance(failed, BadRecordMac) for failed in failures), failures
    else:
        assert any(isinstance(failed, DecryptError) for failed in failures), failures


def test_a_ticket_for_another_service_of_the_keytab(realm: Any, service: Service) -> None:
    mail = fetch(source("john@KDH.EXAMPLE", keytab=realm.users), MAIL)
    for pair in (
        kdh_only(mail, service, accepts=lambda name: str(name) == WEB),
        relief(mail, service, accepts=lambda name: str(name) == WEB),
    ):
        refused(pair, HandshakeFailure, "not the service of this session")


def test_an_authenticator_is_taken_once_and_for_its_content(held: ClientTicket, service: Service) -> None:
    opened, credential = service.open(held.ticket), TicketCredential(held)
    proof = credential.sign(0x04E0, b"messages")
    with pytest.raises(DecryptError, match="another handshake"):
        service.accept(opened, 0x04E0, b"messages changed", proof)
    service.accept(opened, 0x04E0, b"messages", proof)
    with pytest.raises(DecryptError, match="used before"):
        service.accept(opened, 0x04E0, b"messages", proof)


def test_clocks_that_differ(realm: Any, held: ClientTicket) -> None:
    ahead = Service(keytab_keys(realm.services), now=lambda: held.ends - 1000)
    with pytest.raises(DecryptError, match="clocks differ"):
        ahead.accept(ahead.open(held.ticket), 0x05E0, b"messages", TicketCredential(held).sign(0x05E0, b"messages"))


class TestConformance(KeyExchangeConformance):
    """With what every key exchange has to do."""

    refusals = (DecryptError,)

    @pytest.fixture(autouse=True)
    def _ends(self, held: ClientTicket, service: Service) -> None:
        self._held, self._service = held, service

    def exchange(self) -> ExchangeUnderTest:
        client, server = answers(self._held, self._service)
        parts = SessionParts((Kdh(),))
        return ExchangeUnderTest(PARTS, parts, parts, client, server, certificate_types=(TICKET_TYPE, 0))

    def hostile(self) -> ExchangeUnderTest:
        """A ticket that was overheard, without its session key."""
        found = self.exchange()
        key = replace(self._held.session_key, value=bytes(len(self._held.session_key.value)))
        found.client_answers.credentials = (TicketCredential(replace(self._held, session_key=key)),)
        return found


def test_tickets_that_no_kdc_should_have_made(realm: Any, held: ClientTicket) -> None:
    """Sealed by the service's own key: postdated and not validated, or by way of realms that nobody has checked."""
    key, seal = keytab_keys(realm.services)(Principal.parse(WEB), 18, None), seal_ticket
    service = Service(lambda *_: key)
    assert str(service.open(seal(key)).client) == "john@KDH.EXAMPLE"
    with pytest.raises(BadCertificate, match="postdated"):
        service.open(seal(key, flags=(0,) * 7 + (1,) + (0,) * 24))
    through = {"tr-type": 1, "contents": b"EVIL.EXAMPLE"}
    with pytest.raises(BadCertificate, match="has not checked"):
        service.open(seal(key, crealm="OTHER.EXAMPLE", transited=through))
    checked = (0,) * 12 + (1,) + (0,) * 19
    assert service.open(seal(key, crealm="OTHER.EXAMPLE", transited=through, flags=checked)).client.realm == "OTHER.EXAMPLE"
    relevant = {"type": 1, "data": b"0000"}
    assert service.open(seal(key, **{"authorization-data": [relevant]})).client.names == ("john",)
    with pytest.raises(BadCertificate, match="restricted by authorization data of type 5"):
        service.open(seal(key, **{"authorization-data": [relevant, {"type": 5, "data": b""}]}))
    with pytest.raises(BadCertificate, match="encryption type 23"):
        service.open(seal(key, key={"keytype": 23, "keyvalue": bytes(16)}))
    with pytest.raises(BadCertificate, match="cannot be seen"):
        service.open(seal(key, cname={"name-type": 1, "name-string": ["john\0"]}))


ADDRESSES = [(2, "192.0.2.1"), (24, "2001:db8::1")]
NETBIOS = {"addr-type": 20, "address": b"HOST            "}


@pytest.mark.parametrize(
    ("caddr", "host", "good"),
    [
        (None, "198.51.100.1", True),
        (None, None, True),
        ([], "198.51.100.1", True),
        (ADDRESSES, "192.0.2.1", True),
        (ADDRESSES, "2001:db8::1", True),
        (ADDRESSES, "192.0.2.2", False),
        (ADDRESSES, "2001:db8::2", False),
        (ADDRESSES, None, False),
        ([(24, "::192.0.2.1")], "192.0.2.1", False),
        ([NETBIOS], "192.0.2.1", True),
        ([NETBIOS], None, True),
        ([NETBIOS, *ADDRESSES], "192.0.2.2", False),
    ],
)
def test_addresses_that_a_ticket_is_good_from(realm: Any, caddr: Any, host: str | None, good: bool) -> None:
    key = keytab_keys(realm.services)(Principal.parse(WEB), 18, None)
    made = caddr and [one if one is NETBIOS else {"addr-type": one[0], "address": ip_address(one[1]).packed} for one in caddr]
    opened = Service(lambda *_: key).open(seal_ticket(key, **({} if made is None else {"caddr": made})))
    assert opened.good_from(ip_address(host) if host else None) is good


def seal_ticket(sealing: KerberosKey, **changes: Any) -> bytes:
    now = datetime.now(UTC).replace(microsecond=0)
    inner = {
        "flags": (0,) * 32,
        "key": {"keytype": 18, "keyvalue": bytes(32)},
        "crealm": "KDH.EXAMPLE",
        "cname": {"name-type": 1, "name-string": ["john"]},
        "transited": {"tr-type": 1, "contents": b""},
        "authtime": now,
        "endtime": now + timedelta(hours=1),
    } | changes
    sealed = sealing.encrypt(2, encode(EncTicketPart, inner))
    sname = {"name-type": 2, "name-string": ["http", "web.kdh.example"]}
    part = {"etype": sealing.enctype, "cipher": sealed}
    return encode(Ticket, {"tkt-vno": 5, "realm": "KDH.EXAMPLE", "sname": sname, "enc-part": part})


@pytest.mark.parametrize(
    "numbers", [{"kvno": 2**40}, {"kvno": -1}, {"etype": 2**40}, {"etype": -(2**40)}, {"etype": 23}, {"kvno": 99}]
)
def test_numbers_of_tickets_that_no_keytab_has(realm: Any, numbers: dict[str, int]) -> None:
    sname = {"name-type": 2, "name-string": ["http", "web.kdh.example"]}
    part = {"etype": 18, "cipher": bytes(100)} | numbers
    ticket = encode(Ticket, {"tkt-vno": 5, "realm": "KDH.EXAMPLE", "sname": sname, "enc-part": part})
    large = any(abs(number) >= 2**32 for number in numbers.values())
    with pytest.raises(BadCertificate if large else CertificateUnknown, match="an integer" if large else "no key for http/web"):
        Service(keytab_keys(realm.services)).open(ticket)


@pytest.mark.parametrize(
    "moment",
    [
        b"00000101000000Z",
        b"20260101000000",
        b"20260101000000+0100",
        b"99991231235959-0100",
        b"00010101000000+0100",
        b"20261399000000Z",
        b"2026",
    ],
)
def test_times_that_are_none(realm: Any, held: ClientTicket, moment: bytes) -> None:
    """GeneralizedTime knows more than KerberosTime allows; what a client puts into an Authenticator is its own business."""
    made = make_authenticator(held, 0x04E0, b"messages", 1_800_000_000)
    plaintext, _ = open_authenticator(held.session_key, made)
    body = plaintext.replace(
        b"\xa5\x11\x18\x0f20270115080000Z", b"\xa5" + bytes((len(moment) + 2,)) + b"\x18" + bytes((len(moment),)) + moment
    )
    assert body != plaintext
    change = len(body) - len(plaintext)
    head = 2 if body[1] < 0x80 else 3
    body = (
        bytes((0x62, 0x81))
        + bytes((len(body) - head,))
        + bytes((0x30, 0x81))
        + bytes((body[head + 2] + change,))
        + body[head + 3 :]
    )
    wrong = encode(EncryptedData, {"etype": 18, "cipher": held.session_key.encrypt(11, body)})
    with pytest.raises(DecryptError):
        Service(keytab_keys(realm.services)).accept(
            Service(keytab_keys(realm.services)).open(held.ticket), 0x04E0, b"messages", wrong
        )


def test_damage_inside_of_what_is_sealed_is_a_refusal(realm: Any, held: ClientTicket) -> None:
    """A client can seal whatever it likes in an Authenticator, and a KDC that is not ours in a ticket; nothing but a TlsError comes of it."""
    lot, key = random.Random(5), keytab_keys(realm.services)(Principal.parse(WEB), 18, None)
    service = Service(lambda *_: key)
    opened, whole = service.open(held.ticket), seal_ticket(key)
    part = key.decrypt(2, decode(Ticket, whole)["enc-part"]["cipher"])
    refusals = 0
    for _ in range(400):
        plaintext, _ = open_authenticator(held.session_key, make_authenticator(held, 0x04E0, b"messages", time.time()))
        proof = encode(EncryptedData, {"etype": 18, "cipher": held.session_key.encrypt(11, damaged(plaintext, lot))})
        outer = decode(Ticket, whole) | {"enc-part": {"etype": 18, "cipher": key.encrypt(2, damaged(part, lot))}}
        for attempt in (partial(service.accept, opened, 0x04E0, b"messages", proof), partial(service.open, encode(Ticket, outer))):
            try:
                attempt()
            except TlsError:
                refusals += 1
    assert refusals > 400


def damaged(data: bytes, lot: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(lot.randint(1, 4)):
        changed[lot.randrange(len(changed))] = lot.randrange(256)
    return bytes(changed)
