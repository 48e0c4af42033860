"""Does a password authenticate both sides of a TLS 1.2 handshake, and does everything else fail as it should?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tlspool_srp.attempts import Attempts
from tlspool_srp.exchange import ClientSrp, ServerSrp, SrpPeer, UserExtension
from tlspool_srp.plugin import SUITES
from tlspool_srp.verifiers import make_verifier, record_for

from tlspool_core.api import AlertDescription, DoNAI, KeyStoreError, TlsError
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import Answers, Pair, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.settings import ClientSettings, ServerSettings

JOHN = DoNAI.parse("john@example.com")
SERVER = DoNAI.parse("imap.example.com")


def backend(bits: int = 1536, user: str = "john@example.com") -> MemoryBackend:
    """Databases in which john's password is "secret"."""
    databases = MemoryBackend()
    with databases.write() as writer:
        writer.put_trust(record_for(JOHN, make_verifier(user, "secret", bits)))
    return databases


def pair(
    databases: MemoryBackend,
    *,
    user: str = "john@example.com",
    password: str | None = "secret",
    suite: int = 0xC01D,
    attempts: Attempts | None = None,
    tamper: Callable[[ClientSrp], None] = lambda _: None,
) -> Pair:
    """A client and a server with SRP between them."""
    client_srp = ClientSrp(user, SERVER, lambda: password)
    tamper(client_srp)
    extension = UserExtension()
    server_srp = ServerSrp(extension, databases, attempts or Attempts(), lambda: DoNAI.parse("example.com"), "192.0.2.1")
    common = {"versions": (0x0303,), "cipher_suites": (suite,), "extra_suites": SUITES}
    client = TlsConnection(ClientSettings(**common, key_exchanges=(client_srp,), extensions=(UserExtension(user),)))
    server = TlsConnection(ServerSettings(**common, key_exchanges=(server_srp,), extensions=(extension,)))
    credentials = (software_credential("rsa-2048"),)
    return Pair(client, server, Answers(), Answers(credentials=credentials))


@pytest.mark.parametrize("suite", [row.code for row in SUITES])
def test_both_sides_are_known(suite: int) -> None:
    both = pair(backend(), suite=suite)
    both.run()
    assert both.complete, (both.client.failed, both.server.failed)
    assert isinstance(both.server.peer, SrpPeer)
    assert both.server.peer.identity == JOHN
    assert both.client.facts.cipher_suite == suite
    assert both.client.facts.key_exchange == "SRP"
    both.client.send(b"hello")
    both.run()
    assert both.server.take_plaintext() == b"hello"


def test_a_wrong_password_is_bad_record_mac() -> None:
    both = pair(backend(), password="wrong")
    both.run()
    assert both.server.failed is not None
    assert both.server.failed.alert is AlertDescription.BAD_RECORD_MAC


def test_an_unknown_user_fails_as_a_wrong_password_does() -> None:
    both = pair(backend(bits=2048), user="nobody@example.com")
    both.run()
    assert both.server.failed is not None
    assert both.server.failed.alert is AlertDescription.BAD_RECORD_MAC


def test_too_many_failures_are_refused_and_success_is_no_failure() -> None:
    attempts = Attempts(limit_user=2)
    databases = backend()
    for _ in range(3):
        both = pair(databases, attempts=attempts)
        both.run()
        assert both.complete
    for expected in (AlertDescription.BAD_RECORD_MAC, AlertDescription.BAD_RECORD_MAC, AlertDescription.ACCESS_DENIED):
        both = pair(databases, password="wrong", attempts=attempts)
        both.run()
        assert both.server.failed is not None
        assert both.server.failed.alert is expected


def test_a_client_without_password_cancels() -> None:
    both = pair(backend(), password=None)
    both.run()
    assert isinstance(both.client.failed, TlsError)
    assert both.client.failed.alert is AlertDescription.USER_CANCELED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyStoreError("the token is gone"), "the token is gone"),
        (PermissionError("it can be read by others"), "it can be read by others"),
        (UnicodeDecodeError("utf-8", b"secret\xff", 6, 7, "invalid start byte"), "it is no text in UTF-8"),
    ],
)
def test_a_password_that_cannot_be_had_cancels_with_the_reason(error: Exception, reason: str) -> None:
    def fetch() -> str:
        raise error

    both = pair(backend(), tamper=lambda client: setattr(client, "password", fetch))
    both.run()
    assert isinstance(both.client.failed, TlsError)
    assert both.client.failed.alert is AlertDescription.USER_CANCELED
    assert str(both.client.failed).endswith(reason)
