"""Is it negotiated as RFC 6091, RFC 7250 and old GnuTLS have it, beside X.509 on either side, and never in TLS 1.3?"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tlspool_openpgp.credential_type import OpenPgpType
from tlspool_openpgp.message import FORM, subkey_descriptor
from tlspool_openpgp.packets import framed

from tlspool_core.api import DoNAI, LocalCredential, Role, SessionContext
from tlspool_core.testing.credential_type import TypeAnswers, TypeUnderTest
from tlspool_core.testing.flights import HANDSHAKE, edit_hello, parse
from tlspool_core.testing.keys import SoftwareKeys
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import Pair, TicketBox, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import AlertDescription, AlertReceived, NoCertificateTypeInCommon, UnofferedChoice
from tlspool_core.tls.messages import ClientHello, ServerHello
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import ClientSettings, ServerSettings

TLS12, TLS13 = 0x0303, 0x0304
X509, OPENPGP = 0, 1
CERTIFICATE, CERTIFICATE_REQUEST = 11, 13
CERT_TYPE, CLIENT_TYPE, SERVER_TYPE = 9, 19, 20
EMPTY = bytes.fromhex("00000401000000")


class Sides:
    """A client and a server, each with X.509, OpenPGP or both; what went over the wire is kept."""

    def __init__(self, kind: OpenPgpType, web: Any, john: Any) -> None:
        self.kind, self.web, self.john = kind, web, john
        self.seen: list[tuple[int, bytes]] = []
        self.hellos: dict[int, Any] = {}

    def tested(self, holder: Any, identity: str) -> TypeUnderTest:
        keys = SoftwareKeys()
        local = LocalCredential(DoNAI.parse(identity), "openpgp", Role.BOTH, keys.add("k", holder.private), holder.public)
        return TypeUnderTest(self.kind, local, keys.find, ())

    def credentials(self, types: tuple[int, ...], tested: TypeUnderTest) -> tuple[Any, ...]:
        return tuple(software_credential() if code == X509 else tested.load() for code in types)

    def pair(
        self,
        server: tuple[int, ...],
        client: tuple[int, ...],
        *,
        auth: ClientAuth = ClientAuth.REQUIRE,
        versions: tuple[int, ...] = (TLS12,),
        change: Callable[[Any], object] | None = None,
        authorities: tuple[bytes, ...] = (),
        takes: tuple[int, ...] = (X509, OPENPGP),
    ) -> Pair:
        """`server` and `client` are the types that they have, best first; `takes` what they accept."""
        common: dict[str, Any] = {"versions": versions, "extra_forms": (FORM,)}
        ours, theirs = self.tested(self.web, "www.example.org"), self.tested(self.john, "john@example.org")
        pair = Pair(
            TlsConnection(ClientSettings(**common, own_certificate_types=client or (X509,), peer_certificate_types=takes)),
            TlsConnection(ServerSettings(**common, own_certificate_types=(X509, OPENPGP), peer_certificate_types=(X509, OPENPGP))),
            TypeAnswers(credentials=self.credentials(client, theirs), tested=theirs),
            TypeAnswers(
                credentials=self.credentials(server, ours),
                tested=ours,
                client_auth=auth,
                client_certificate_types=(X509, OPENPGP),
                certificate_authorities=authorities,
            ),
        )
        pair.to_server = self.keep(edit_hello(ClientHello, change) if change else lambda data: data)
        pair.to_client = self.keep(lambda data: data)
        return pair

    def keep(self, tamper: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def kept(data: bytes) -> bytes:
            data = tamper(data)
            for kind, content in parse(data):
                if kind == HANDSHAKE and len(content) >= 4:
                    self.seen.append((content[0], content[4:]))
                    for hello in (ClientHello, ServerHello):
                        if content[0] == hello.handshake_type:
                            self.hellos[content[0]] = hello.parse(content[4:])
            return data

        return kept

    def bodies(self, handshake_type: int) -> list[bytes]:
        return [body for kind, body in self.seen if kind == handshake_type]

    @property
    def offered(self) -> dict[int, bytes]:
        return dict(self.hellos[1].extensions)

    @property
    def answered(self) -> dict[int, bytes]:
        return dict(self.hellos[2].extensions)


@pytest.fixture
def sides(kind: OpenPgpType, web: Any, john: Any) -> Sides:
    return Sides(kind, web, john)


def certificate(holder: Any) -> bytes:
    """Body of the Certificate message by RFC 6091, put together by hand."""
    inner = b"\x02\x08" + holder.key_id + len(holder.public).to_bytes(3, "big") + holder.public
    return len(inner).to_bytes(3, "big") + inner


# --- combinations ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [(X509,), (OPENPGP,)], ids=["server X.509", "server OpenPGP"])
@pytest.mark.parametrize("client", [(X509,), (OPENPGP,)], ids=["client X.509", "client OpenPGP"])
def test_every_combination(sides: Sides, server: tuple[int, ...], client: tuple[int, ...]) -> None:
    pair = sides.pair(server, client)
    pair.run()
    assert pair.complete, (pair.client.failed, pair.server.failed)
    assert pair.client.peer is not None and pair.server.peer is not None
    assert (pair.client.peer.certificate_type, pair.server.peer.certificate_type) == (*server, *client)
    assert sides.answered.get(SERVER_TYPE, b"\0") == bytes(server) and sides.answered.get(CLIENT_TYPE, b"\0") == bytes(client)
    assert CERT_TYPE not in sides.answered
    shown = sides.bodies(CERTIFICATE)
    assert (shown[0] == certificate(sides.web)) == (server == (OPENPGP,))
    assert (shown[1] == certificate(sides.john)) == (client == (OPENPGP,))


def test_a_client_that_has_none(sides: Sides) -> None:
    """It may say so, where that is allowed, in the form of the type that was asked for."""
    pair = sides.pair((OPENPGP,), (OPENPGP,), auth=ClientAuth.REQUEST)
    pair.client_answers.credentials = ()
    pair.run()
    assert pair.complete and pair.server.peer is None
    assert sides.bodies(CERTIFICATE) == [certificate(sides.web), EMPTY]


@pytest.mark.parametrize(("order", "shown"), [((X509, OPENPGP), X509), ((OPENPGP, X509), OPENPGP)])
def test_a_server_with_both_prefers_its_first(sides: Sides, order: tuple[int, ...], shown: int) -> None:
    pair = sides.pair(order, (X509,))
    pair.run()
    assert pair.complete and pair.client.peer is not None and pair.client.peer.certificate_type == shown


@pytest.mark.parametrize("takes", [X509, OPENPGP])
def test_a_server_with_both_serves_what_the_client_takes(sides: Sides, takes: int) -> None:
    for order in ((X509, OPENPGP), (OPENPGP, X509)):
        pair = sides.pair(order, (X509,), takes=(takes,))
        pair.run()
        assert pair.complete and pair.client.peer is not None and pair.client.peer.certificate_type == takes


def test_we_offer_all_three_extensions(sides: Sides) -> None:
    sides.pair((OPENPGP,), (OPENPGP,)).run()
    assert sides.offered[CERT_TYPE] == bytes((2, OPENPGP, X509))  # one answer is for both sides: what we can show goes first
    assert sides.offered[CLIENT_TYPE] == bytes((1, OPENPGP)) and sides.offered[SERVER_TYPE] == bytes((2, X509, OPENPGP))


def test_a_client_with_x509_offers_that_first(sides: Sides) -> None:
    sides.pair((OPENPGP,), (X509,)).run()
    assert sides.offered[CERT_TYPE] == bytes((2, X509, OPENPGP))


@pytest.mark.parametrize("client", [(OPENPGP,), (X509,)])
def test_a_server_that_knows_the_older_extension_alone(sides: Sides, client: tuple[int, ...]) -> None:
    """As GnuTLS: our client takes the answer for both sides; where it has no such key, it shows none, in that form."""

    def older(hello: Any) -> None:
        for code in (CLIENT_TYPE, SERVER_TYPE):
            hello.extensions.pop(code, None)
        hello.extensions[CERT_TYPE] = b"\x01"

    pair = sides.pair((OPENPGP,), client, auth=ClientAuth.REQUEST)
    pair.to_server = sides.keep(edit_hello(ClientHello, gnutls(b"\x01\x01")))
    pair.to_client = sides.keep(edit_hello(ServerHello, older))
    pair.run()
    assert sides.bodies(CERTIFICATE) == [certificate(sides.web), certificate(sides.john) if client == (OPENPGP,) else EMPTY]


def test_the_engine_alone_offers_nothing(sides: Sides) -> None:
    pair = sides.pair((X509,), (X509,), takes=(X509,))
    pair.run()
    assert pair.complete and not {CERT_TYPE, CLIENT_TYPE, SERVER_TYPE} & sides.offered.keys()


# --- as GnuTLS before 3.6 -------------------------------------------------------------------------------------------------------------


def gnutls(types: bytes) -> Callable[[Any], None]:
    """Makes a ClientHello like theirs: extension 9 and not 19 or 20."""

    def change(hello: Any) -> None:
        for code in (CLIENT_TYPE, SERVER_TYPE):
            hello.extensions.pop(code, None)
        hello.extensions[CERT_TYPE] = types

    return change


@pytest.mark.parametrize("types", ["0101", "020001", "020100"])
def test_the_older_extension_is_answered(sides: Sides, types: str) -> None:
    """RFC 6091 section 3.2: one octet, for both sides; authorities are not named to a holder of an OpenPGP key."""
    pair = sides.pair((OPENPGP,), (OPENPGP,), change=gnutls(bytes.fromhex(types)), authorities=(b"0\0",))
    pair.run()
    assert sides.answered[CERT_TYPE] == b"\x01"
    assert not {CLIENT_TYPE, SERVER_TYPE} & sides.answered.keys()
    assert sides.bodies(CERTIFICATE)[0] == certificate(sides.web)
    (request,) = sides.bodies(CERTIFICATE_REQUEST)
    assert request[: 1 + request[0]] == b"\x02\x01\x40" and request[-2:] == bytes(2)


@pytest.mark.parametrize(
    ("types", "order", "answer"),
    [
        ("0101", (X509, OPENPGP), b"\x01"),
        ("020001", (OPENPGP, X509), b"\x01"),
        ("020001", (X509, OPENPGP), b"\x00"),
        ("0100", (OPENPGP, X509), b"\x00"),
    ],
)
def test_a_server_with_both_and_the_older_extension(sides: Sides, types: str, order: tuple[int, ...], answer: bytes) -> None:
    sides.pair(order, (X509,), change=gnutls(bytes.fromhex(types)), auth=ClientAuth.NONE).run()
    assert sides.answered[CERT_TYPE] == answer
    assert (sides.bodies(CERTIFICATE)[0] == certificate(sides.web)) == (answer == b"\x01")


def test_authorities_are_named_to_holders_of_certificates(sides: Sides) -> None:
    sides.pair((OPENPGP,), (X509,), authorities=(b"0\0",)).run()
    (request,) = sides.bodies(CERTIFICATE_REQUEST)
    assert request[-4:] == b"\0\2" + b"0\0"


def test_a_client_that_takes_x509_only(sides: Sides) -> None:
    pair = sides.pair((OPENPGP,), (X509,), takes=(X509,))
    pair.run()
    assert isinstance(pair.server.failed, NoCertificateTypeInCommon) and isinstance(pair.client.failed, AlertReceived)


# --- TLS 1.3 --------------------------------------------------------------------------------------------------------------------------


def test_a_client_that_wants_it_in_tls13_is_refused(sides: Sides) -> None:
    def only_openpgp(hello: Any) -> None:
        hello.extensions[SERVER_TYPE] = bytes((1, OPENPGP))

    pair = sides.pair((X509, OPENPGP), (X509,), versions=(TLS13,), auth=ClientAuth.NONE, change=only_openpgp)
    pair.run()
    assert isinstance(pair.server.failed, NoCertificateTypeInCommon), pair.server.failed
    assert pair.server.failed.alert is AlertDescription.UNSUPPORTED_CERTIFICATE


def test_it_is_not_offered_for_tls13_alone(sides: Sides) -> None:
    pair = sides.pair((X509,), (X509,), versions=(TLS13,), auth=ClientAuth.NONE)
    pair.run()
    assert pair.complete and pair.client.peer is not None
    assert OPENPGP not in sides.offered.get(SERVER_TYPE, b"")[1:] + sides.offered.get(CLIENT_TYPE, b"")[1:]
    assert CERT_TYPE not in sides.offered


def test_in_tls13_a_server_with_both_shows_x509(sides: Sides) -> None:
    pair = sides.pair((OPENPGP, X509), (X509,), versions=(TLS13, TLS12))
    pair.run()
    assert pair.complete and pair.client.peer is not None
    assert (pair.client.facts.version, pair.client.peer.certificate_type) == (TLS13, X509)


def test_a_server_that_selects_it_in_tls13_is_refused(sides: Sides) -> None:
    """Our client does not let itself be talked into what it may have offered for TLS 1.2."""
    from tlspool_core.testing.lies import lying
    from tlspool_core.tls.settings import ServerSettings

    def lie(message: bytes) -> list[bytes]:
        if message[0] != 8:
            return [message]
        body = bytes((0, 5, 0, SERVER_TYPE, 0, 1, OPENPGP))
        return [bytes((8,)) + len(body).to_bytes(3, "big") + body]

    pair = sides.pair((X509,), (X509,), versions=(TLS13, TLS12), auth=ClientAuth.NONE)
    pair.server = lying(ServerSettings(versions=(TLS13,), extra_forms=(FORM,)), lie)
    pair.to_client = lambda data: data
    pair.run()
    assert isinstance(pair.client.failed, UnofferedChoice), pair.client.failed
    assert pair.client.failed.alert is AlertDescription.ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    ("types", "role", "versions"),
    [
        (("openpgp",), "client", (TLS12,)),
        (("openpgp",), "server", (TLS12,)),
        (("openpgp", "x509"), "server", (TLS12,)),
        (("x509", "openpgp"), "server", ()),
        ((), "client", ()),
    ],
)
def test_who_prefers_it_negotiates_tls12(kind: OpenPgpType, types: tuple[str, ...], role: str, versions: tuple[int, ...]) -> None:
    john = DoNAI.parse("john@example.org")
    local = tuple(LocalCredential(john, name, Role.BOTH, "software:k", b"") for name in types)
    context = SessionContext(role, "", john, None, local, MemoryBackend(), lambda uri: b"", lambda prompt: None)
    assert kind.begin(context).versions == versions


def test_our_descriptor_is_that_of_the_signing_key(sides: Sides) -> None:
    credential = sides.tested(sides.john, "john@example.org").load()
    assert [entry.data for entry in credential.entries] == [subkey_descriptor(sides.john.key_id, sides.john.public)]


class WholeTickets(TicketBox):
    """Tickets that hold the state, as the pool's do; so they are as long."""

    def seal(self, state: bytes) -> bytes | None:
        return state if len(state) < 65536 else None

    def open(self, ticket: bytes) -> bytes | None:
        return ticket


@pytest.mark.parametrize("size", [15_000, 40_000, 64_000])
def test_keys_with_much_around_them(kind: OpenPgpType, web: Any, john: Any, size: int) -> None:
    """As keys are that many people certified: shown in several records, and kept in tickets as long as these can hold them."""
    extra = b"".join(framed(13, b"x" * 1000) for _ in range(size // 1006 - 1))
    crowded = SimpleNamespace(private=john.private, public=john.public + extra, key_id=john.key_id)
    pair = Sides(kind, web, crowded).pair((OPENPGP,), (OPENPGP,))
    pair.server_answers.tickets = WholeTickets()
    pair.to_client = pair.to_server = lambda data: data
    pair.run()
    assert pair.complete and pair.server.peer is not None, (pair.client.failed, pair.server.failed)
    assert len(pair.server.peer.entries[0].data) > size - 2500


def test_a_client_of_both_versions_meets_a_server_that_prefers_it(sides: Sides) -> None:
    """As between pools where only the server has narrowed the versions; the client does not take that for a downgrade."""
    pair = sides.pair((OPENPGP,), (X509,), versions=(TLS13, TLS12))
    pair.server = TlsConnection(
        ServerSettings(
            versions=(TLS12,), extra_forms=(FORM,), own_certificate_types=(X509, OPENPGP), peer_certificate_types=(X509, OPENPGP)
        )
    )
    pair.run()
    assert pair.complete, (pair.client.failed, pair.server.failed)
    assert pair.client.peer is not None and pair.client.peer.certificate_type == OPENPGP and pair.client.facts.version == TLS12
