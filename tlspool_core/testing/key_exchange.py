"""What every key exchange of TLS 1.2 that a plugin brings has to do, as tests to inherit.

Theory of operation
-------------------
The tests of a plugin inherit `KeyExchangeConformance` and say how the two sides of one exchange come about:

    class TestMine(KeyExchangeConformance):
        def exchange(self) -> ExchangeUnderTest:
            return ExchangeUnderTest(MyType.engine_parts, client=SessionParts(...), server=SessionParts(...))

        def hostile(self) -> ExchangeUnderTest:
            return ...  # a client without the right password

Both run handshakes in memory, with every suite of the type.  The messages of the exchange are then cut, changed and blown up on their
way: each time one side has to end the handshake with a `TlsError` that is not its own fault, and nobody may come to an agreement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tlspool_core.interfaces import EngineParts, SessionParts
from tlspool_core.testing.flights import HANDSHAKE, Item, Tamper, edit, edit_message
from tlspool_core.testing.peers import Answers, Pair, TicketBox, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import BadFinished, BadRecordMac, DecryptError, InternalError, TlsError
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.seams import CipherSuite
from tlspool_core.tls.settings import TLS12, ClientSettings, ServerSettings


def _rsa_server() -> Answers:
    return Answers(credentials=(software_credential("rsa-2048"),))


@dataclass
class ExchangeUnderTest:
    """Both sides of one exchange: tables, objects of the session, and how questions are answered.

    The server has an RSA certificate to sign with, for suites that want one, unless `server_answers` says otherwise.
    """

    engine: EngineParts
    client: SessionParts
    server: SessionParts
    client_answers: Answers = field(default_factory=Answers)
    server_answers: Answers = field(default_factory=_rsa_server)
    certificate_types: Sequence[int] = (0,)

    def pair(self, suites: Sequence[CipherSuite] = ()) -> Pair:
        """A client and a server, not yet run, that have these suites alone, or all of the tables'."""
        engine = self.engine
        common = {
            "versions": (TLS12,),
            "cipher_suites": tuple(suite.code for suite in suites or engine.cipher_suites),
            "extra_suites": engine.cipher_suites,
            "extra_schemes": engine.signature_schemes,
            "extra_forms": engine.certificate_forms,
            "own_certificate_types": self.certificate_types,
            "peer_certificate_types": self.certificate_types,
        }
        client = ClientSettings(
            server_name="testserver",
            key_exchanges=self.client.key_exchanges,
            extensions=self.client.extensions,
            **common,  # type: ignore[arg-type]
        )
        server = ServerSettings(
            key_exchanges=self.server.key_exchanges,
            extensions=self.server.extensions,
            **common,  # type: ignore[arg-type]
        )
        return Pair(TlsConnection(client), TlsConnection(server), self.client_answers, self.server_answers)


def _spoilers() -> dict[str, Callable[[bytes], bytes]]:
    """Ways to spoil a message; those that depend on its length are no-ops where it is too short for them."""
    found: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda body: b"",
        "lengthened": lambda body: body + b"\0",
        "blown up": lambda body: body + bytes(16000),
        "zeros": lambda body: bytes(len(body)),
        "ones": lambda body: b"\xff" * len(body),
        "first byte": lambda body: bytes((body[0] ^ 1,)) + body[1:],
        "last byte": lambda body: body[:-1] + bytes((body[-1] ^ 1,)),
    }
    for share in (1, 2, 3, 5, 7):
        found[f"cut at {share}/8"] = lambda body, share=share: body[: len(body) * share // 8]  # type: ignore[misc]
        found[f"flipped at {share}/8"] = lambda body, share=share: _flipped(body, len(body) * share // 8)  # type: ignore[misc]
    return found


def _flipped(body: bytes, position: int) -> bytes:
    return body[:position] + bytes((body[position] ^ 0x55,)) + body[position + 1 :]


class KeyExchangeConformance(ABC):
    """Inherit, and define `exchange` and `hostile`."""

    # what a server may end the handshake of a client with that does not know the secret
    refusals: tuple[type[TlsError], ...] = (BadRecordMac, DecryptError)

    @abstractmethod
    def exchange(self) -> ExchangeUnderTest:
        """Called for every handshake: two sides that get on."""

    @abstractmethod
    def hostile(self) -> ExchangeUnderTest:
        """The same, but the client does not hold the secret."""

    def established(self, pair: Pair) -> Pair:
        """Run, and see that both sides have the same keys."""
        pair.run()
        assert pair.complete, (pair.client.failed, pair.server.failed)
        for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
            sender.send(b"ping" * 6000)
            pair.run()
            assert receiver.take_plaintext() == b"ping" * 6000
        assert pair.client.export(b"EXPORTER-test", None, 32) == pair.server.export(b"EXPORTER-test", None, 32)
        return pair

    def check_refused(self, pair: Pair) -> None:
        """Nobody agrees; who refuses blames the other."""
        pair.run()
        assert not (pair.client.handshake_complete and pair.server.handshake_complete)
        failures = [failed for failed in (pair.client.failed, pair.server.failed) if failed is not None]
        assert failures
        for failed in failures:
            assert not isinstance(failed, InternalError), (failed, failed.__cause__)

    # --- the tests -------------------------------------------------------------------------------------------------------------

    def test_every_suite(self) -> None:
        suites = self.exchange().engine.cipher_suites
        assert suites
        for suite in suites:
            pair = self.established(self.exchange().pair((suite,)))
            for facts in (pair.client.facts, pair.server.facts):
                assert (facts.cipher_suite, facts.key_exchange) == (suite.code, suite.key_exchange)

    def test_bytes_may_be_cut_anywhere(self) -> None:
        pair = self.exchange().pair()
        pair.step = 1
        self.established(pair)

    def test_the_secret_is_needed(self) -> None:
        for suite in self.hostile().engine.cipher_suites:
            pair = self.hostile().pair((suite,))
            self.check_refused(pair)
            assert isinstance(pair.server.failed, self.refusals), pair.server.failed

    def test_server_parameters_may_not_be_changed(self) -> None:
        self._spoil(HandshakeType.SERVER_KEY_EXCHANGE, "to_client")

    def test_client_parameters_may_not_be_changed(self) -> None:
        self._spoil(HandshakeType.CLIENT_KEY_EXCHANGE, "to_server")

    def _spoil(self, handshake_type: int, direction: str) -> None:
        for name, spoil in _spoilers().items():
            pair = self.exchange().pair(self.exchange().engine.cipher_suites[:1])
            seen: list[bool] = []

            def change(body: bytes, spoil: Callable[[bytes], bytes] = spoil, seen: list[bool] = seen) -> bytes:
                seen.append(True)
                return spoil(body)

            tamper: Tamper = edit_message(handshake_type, change)
            setattr(pair, direction, tamper)
            try:
                self.check_refused(pair)
            except AssertionError as unmet:
                if seen:
                    raise AssertionError(f"{name}: {unmet}") from unmet

    def test_server_parameters_may_not_be_left_out(self) -> None:
        """Unless the server never sends any, the client misses them; it does not go on with nothing."""
        for suite in self.exchange().engine.cipher_suites:
            pair = self.exchange().pair((suite,))
            seen: list[bool] = []

            def leave_out(items: list[Item], seen: list[bool] = seen) -> list[Item]:
                kept = [item for item in items if item[0] != HANDSHAKE or item[1][0] != HandshakeType.SERVER_KEY_EXCHANGE]
                seen += [True] * (len(items) - len(kept))
                return kept

            pair.to_client = edit(leave_out)
            pair.run()
            assert pair.complete is not bool(seen)
            assert not isinstance(pair.client.failed, InternalError), pair.client.failed.__cause__

    def test_a_finished_of_another_handshake_is_refused(self) -> None:
        """The transcript is bound in: an extension that is added on the way is found out."""
        pair = self.exchange().pair()
        pair.to_server = edit_message(HandshakeType.CLIENT_HELLO, _with_padding)
        self.check_refused(pair)
        assert isinstance(pair.server.failed, (*self.refusals, BadFinished)), pair.server.failed

    def test_is_not_resumed(self) -> None:
        """What the exchange proved could not be shown again, so there is no ticket."""
        under_test = self.exchange()
        under_test.server_answers = replace(under_test.server_answers, tickets=TicketBox())
        pair = self.established(under_test.pair())
        assert pair.client.take_sessions() == []

    def test_usable_never_fails(self) -> None:
        for parts in (self.exchange().client, self.exchange().server):
            for exchange in parts.key_exchanges:
                assert isinstance(exchange.usable({}), bool)


def _with_padding(body: bytes) -> bytes:
    """ClientHello with a padding extension (RFC 7685), which nobody minds."""
    start = 2 + 32
    start += 1 + body[start]
    start += 2 + int.from_bytes(body[start : start + 2], "big")
    start += 1 + body[start]
    extensions = body[start + 2 :] + bytes((0, 21, 0, 1, 0))
    return body[:start] + len(extensions).to_bytes(2, "big") + extensions
