"""Are certificate types negotiated for each side as RFC 7250 says, and by the older cert_type as RFC 6091 says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tlspool_core.testing.flights import edit_hello, edit_message
from tlspool_core.testing.peers import Answers, examine, software_credential
from tlspool_core.tls import alerts
from tlspool_core.tls.certificate_types import CHAIN
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.messages import ClientHello, ServerHello
from tlspool_core.tls.questions import ChooseServerCredential, ClientAuth, ExaminePeer
from tlspool_core.tls.seams import CertificateEntry, CertificateForm, PeerCredential
from tlspool_core.tls.settings import TLS12
from tlspool_core.tls.tls12.messages import CertificateRequest

OTHER, KEYRING = 230, 231  # two types that are X.509 in disguise; the second is known to cert_type
FORMS = (
    CertificateForm(OTHER, "other", frozenset((TLS12,)), CHAIN.parse12, CHAIN.build12),
    CertificateForm(KEYRING, "keyring", frozenset((TLS12,)), CHAIN.parse12, CHAIN.build12, cert_type=True),
)


def shown_as(kind: int, name: str) -> Any:
    return replace(software_credential("ecdsa-p256", name), certificate_type=kind)


def look(kind: int, entries: Sequence[CertificateEntry]) -> PeerCredential:
    return examine(kind, entries)


class Sides:
    """One handshake in which both sides authenticate, with types to choose from."""

    def __init__(self, make: Any) -> None:
        self.make = make
        self.offered: list[ClientHello] = []
        self.answered: list[ServerHello] = []

    def pair(
        self,
        client_own: Sequence[int],
        client_takes: Sequence[int],
        server_own: Sequence[int],
        server_takes: Sequence[int],
        auth: ClientAuth = ClientAuth.REQUIRE,
        **settings: Any,
    ) -> Any:
        client = self.make.client(
            own_certificate_types=client_own, peer_certificate_types=client_takes, extra_forms=FORMS, **settings
        )
        server = self.make.server(own_certificate_types=server_own, peer_certificate_types=server_takes, extra_forms=FORMS)
        self.client_answers = Answers(credentials=[shown_as(kind, "client") for kind in client_own], examine=look)
        self.server_answers = self.make.answers(
            credentials=[shown_as(kind, "server") for kind in server_own],
            client_auth=auth,
            client_certificate_types=server_takes,
            examine=look,
        )
        pair = self.make.pair(client, server, self.client_answers, self.server_answers)
        pair.to_server = self._note(ClientHello, self.offered)
        pair.to_client = self._note(ServerHello, self.answered)
        return pair

    @staticmethod
    def _note(kind: Any, notes: list[Any]) -> Any:
        """Without changing a byte: an extension block is built as it was parsed."""
        return edit_hello(kind, notes.append)

    def types(self, *args: Any, **settings: Any) -> tuple[int, int]:
        """Certificate types of client and server that were shown."""
        pair = self.pair(*args, **settings)
        pair.run()
        assert pair.complete, (pair.client.failed, pair.server.failed)
        return pair.server.peer.certificate_type, pair.client.peer.certificate_type


@pytest.fixture
def sides(make: Any) -> Sides:
    return Sides(make)


def test_nothing_is_said_where_there_is_only_x509(sides: Sides) -> None:
    assert sides.types((0,), (0,), (0,), (0,)) == (0, 0)
    for code in (Ext.CERT_TYPE, Ext.CLIENT_CERTIFICATE_TYPE, Ext.SERVER_CERTIFICATE_TYPE):
        assert code not in sides.offered[0].extensions and code not in sides.answered[0].extensions


def test_each_direction_has_its_own_type(sides: Sides) -> None:
    assert sides.types((OTHER, 0), (0,), (0,), (OTHER,)) == (OTHER, 0)
    assert sides.offered[0].extensions[Ext.CLIENT_CERTIFICATE_TYPE] == bytes((2, OTHER, 0))
    assert sides.answered[0].extensions[Ext.CLIENT_CERTIFICATE_TYPE] == bytes((OTHER,))
    assert Ext.SERVER_CERTIFICATE_TYPE not in sides.answered[0].extensions
    assert sides.types((0,), (OTHER, 0), (OTHER, 0), (0,)) == (0, OTHER)


def test_the_server_has_the_last_word(sides: Sides) -> None:
    """The order of its credentials, and of the types that it takes from clients."""
    assert sides.types((OTHER, 0), (OTHER, 0), (0, OTHER), (0, OTHER)) == (0, 0)
    offer = next(question.offer for question in sides.server_answers.asked if isinstance(question, ChooseServerCredential))
    assert (offer.certificate_types, offer.peer_certificate_types) == ((OTHER, 0), (OTHER, 0))


def test_no_type_in_common(sides: Sides) -> None:
    for pair in (
        sides.pair((0,), (OTHER,), (0,), (0,)),
        sides.pair((OTHER,), (0,), (0,), (0,)),
        sides.pair((0,), (0,), (0,), (OTHER,)),
    ):
        pair.run()
        assert isinstance(pair.server.failed, alerts.NoCertificateTypeInCommon)


def test_no_type_in_common_does_not_matter_where_none_is_asked(sides: Sides) -> None:
    """RFC 7250 section 4.2: without CertificateRequest there is no answer."""
    pair = sides.pair((OTHER,), (0,), (0,), (KEYRING,), auth=ClientAuth.REQUEST)
    pair.run()
    assert pair.complete and pair.server.peer is None
    assert Ext.CLIENT_CERTIFICATE_TYPE not in sides.answered[0].extensions


@pytest.mark.parametrize("code", [Ext.SERVER_CERTIFICATE_TYPE, Ext.CLIENT_CERTIFICATE_TYPE])
def test_a_type_that_was_not_offered(sides: Sides, code: int) -> None:
    pair = sides.pair((OTHER, 0), (OTHER, 0), (0,), (0,))
    pair.to_client = edit_hello(ServerHello, lambda hello: hello.extensions.__setitem__(code, bytes((KEYRING,))))
    pair.run()
    assert isinstance(pair.client.failed, alerts.UnofferedChoice)


def test_a_server_that_says_nothing_shows_x509(sides: Sides) -> None:
    pair = sides.pair((0,), (OTHER,), (OTHER,), (0,))
    pair.to_client = edit_hello(ServerHello, lambda hello: hello.extensions.pop(Ext.SERVER_CERTIFICATE_TYPE))
    pair.run()
    assert isinstance(pair.client.failed, alerts.UnofferedChoice)


def test_the_order_of_credentials_goes_before_that_of_suites(sides: Sides) -> None:
    """An RSA key of the first type is shown, although suites with ECDSA are preferred."""
    pair = sides.pair((0,), (0, OTHER), (OTHER, 0), (0,))
    rsa = replace(software_credential("rsa-2048", "server"), certificate_type=OTHER)
    sides.server_answers.credentials = [rsa, software_credential("ecdsa-p256", "server")]
    pair.run()
    assert pair.complete and pair.client.peer.certificate_type == OTHER
    sides.server_answers.credentials = sides.server_answers.credentials[::-1]
    assert sides.types((0,), (0, OTHER), (0, OTHER), (0,)) == (0, 0)


def test_authorities_are_named_for_chains_only(sides: Sides) -> None:
    for kind, named in ((0, (b"0\0",)), (OTHER, ())):
        pair = sides.pair((kind,), (0,), (0,), (kind,))
        sides.server_answers.certificate_authorities = [b"0\0"]
        requests: list[bytes] = []
        pair.to_client = edit_message(13, lambda body, requests=requests: requests.append(body) or body)
        pair.run()
        assert pair.complete
        assert [tuple(CertificateRequest.parse(body).certificate_authorities) for body in requests] == [named]


def test_cert_type_is_not_heard_beside_the_later_extensions(sides: Sides) -> None:
    """A client that takes the type KEYRING from the server, and has X.509 itself, which it need not say."""
    assert sides.types((0,), (KEYRING,), (KEYRING,), (KEYRING, 0)) == (0, KEYRING)
    assert sides.offered[0].extensions[Ext.CERT_TYPE] == bytes((1, KEYRING))


# --- cert_type -------------------------------------------------------------------------------------------------------------------


def only_cert_type(hello: Any) -> None:
    """A client as of RFC 6091, which knows nothing of RFC 7250."""
    for code in (Ext.CLIENT_CERTIFICATE_TYPE, Ext.SERVER_CERTIFICATE_TYPE):
        hello.extensions.pop(code, None)


def test_cert_type_is_offered_for_types_that_know_it(sides: Sides) -> None:
    sides.types((KEYRING, 0), (KEYRING, OTHER, 0), (KEYRING,), (KEYRING,))
    assert sides.offered[0].extensions[Ext.CERT_TYPE] == bytes((2, KEYRING, 0))
    assert Ext.CERT_TYPE not in sides.answered[0].extensions  # RFC 7250 was there as well, and goes before


def test_server_answers_cert_type_for_both_sides(sides: Sides) -> None:
    """What the client's engine makes of it shows up to its Finished, which finds the edited hello out."""
    pair = sides.pair((KEYRING, 0), (KEYRING, 0), (KEYRING, 0), (KEYRING, 0))
    pair.to_server = edit_hello(ClientHello, only_cert_type)
    pair.to_client = edit_hello(ServerHello, sides.answered.append)
    pair.run()
    assert sides.answered[0].extensions[Ext.CERT_TYPE] == bytes((KEYRING,))
    assert isinstance(pair.server.failed, alerts.DecryptError)
    for answers in (sides.client_answers, sides.server_answers):
        assert [question.certificate_type for question in answers.asked if isinstance(question, ExaminePeer)] == [KEYRING]


def test_cert_type_without_a_common_type(sides: Sides) -> None:
    pair = sides.pair((KEYRING,), (KEYRING,), (0,), (KEYRING,))
    pair.to_server = edit_hello(ClientHello, only_cert_type)
    pair.run()
    assert isinstance(pair.server.failed, alerts.UnsupportedCertificate)


def test_cert_type_answer_that_was_not_offered(sides: Sides) -> None:
    pair = sides.pair((KEYRING, 0), (KEYRING, 0), (0,), (0,))

    def answer(hello: Any) -> None:
        hello.extensions.pop(Ext.SERVER_CERTIFICATE_TYPE)
        hello.extensions[Ext.CERT_TYPE] = bytes((OTHER,))

    pair.to_client = edit_hello(ServerHello, answer)
    pair.run()
    assert isinstance(pair.client.failed, alerts.UnofferedChoice)
