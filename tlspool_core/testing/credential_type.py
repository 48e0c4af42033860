"""What every credential type that shows something has to do, as tests to inherit.

Theory of operation
-------------------
The tests of a plugin inherit `CredentialTypeConformance` and say what is under test:

    class TestMine(CredentialTypeConformance):
        def under_test(self) -> TypeUnderTest:
            keys = SoftwareKeys()
            uri = keys.add("mine", ec.generate_private_key(ec.SECP256R1()))
            local = LocalCredential(identity, "mine", Role.BOTH, uri, public_part)
            return TypeUnderTest(MyType(), local, keys.find, trust=[TrustRecord(...)])

Both ends of a connection in memory then show the credential in both versions of TLS, with the engine that the pool uses.  What is
signed goes through `CredentialType.sign`, what is shown through `examine`.  Wrong proofs have to be refused, and nonsense has
to end in a `TlsError` and nothing else.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tlspool_core.interfaces import CredentialType, Denied, Key, KeyStoreError, LocalCredential, TrustRecord, Verdict
from tlspool_core.testing.keys import SoftwareKey
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import Answers, Pair, TicketBox, software_credential
from tlspool_core.testing.policy import peer_context
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import AlertReceived, DecryptError, InternalError, TlsError
from tlspool_core.tls.questions import AnyQuestion, ClientAuth, ExaminePeer, Sign
from tlspool_core.tls.seams import Credential, PeerCredential
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings, StoredSession

X509 = 0  # of the registry "TLS Certificate Types": what a side shows that shows nothing else
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["TLS 1.2", "TLS 1.3"])
ROLES = pytest.mark.parametrize("role", ["client", "server"])


@dataclass
class TypeUnderTest:
    """A credential type, one credential of it that `find_key` has the key for, and the records that make it trusted."""

    type: CredentialType
    local: LocalCredential
    find_key: Callable[[str], Awaitable[Key]]
    trust: Sequence[TrustRecord]
    config: MemoryBackend = field(default_factory=MemoryBackend)

    def load(self) -> Credential:
        """The credential, as the pool loads it."""
        credential = asyncio.run(_load(self.type, self.local, self.find_key))
        assert credential is not None, "this type shows something"
        return credential


async def _load(kind: CredentialType, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
    return await kind.load(local, find_key)


@dataclass
class TypeAnswers(Answers):
    """As the session answers: signatures and parsing are the type's."""

    tested: TypeUnderTest | None = None
    spoil: bool = False  # the proof

    def answer(self, question: AnyQuestion) -> object:
        tested = self.tested
        assert tested is not None
        match question:
            case Sign(credential=credential) if credential.certificate_type in tested.type.certificate_types:
                signature = asyncio.run(_sign(tested.type, question))
                return signature[:-1] + bytes((signature[-1] ^ 1,)) if self.spoil else signature
            case ExaminePeer(certificate_type=code) if code in tested.type.certificate_types:
                return tested.type.examine(code, question.entries, tested.config)
        return Answers.answer(self, question)


async def _sign(kind: CredentialType, question: Sign) -> bytes:
    return await kind.sign(question.credential, question.scheme, question.content)


def variants(data: bytes) -> Iterator[bytes]:
    """Prefixes and flips of some bytes, spread over the whole."""
    step = max(1, len(data) // 60)
    for position in range(0, len(data), step):
        yield data[:position]
        yield data[:position] + bytes((data[position] ^ 0xFF,)) + data[position + 1 :]
    yield data + b"\0"
    yield bytes(100_000)


class CredentialTypeConformance(ABC):
    """Inherit, and define `under_test`."""

    @abstractmethod
    def under_test(self) -> TypeUnderTest:
        """Called for every test: a type and a credential of it."""

    # --- two ends that show it -------------------------------------------------------------------------------------------------

    def pair(
        self,
        tested: TypeUnderTest,
        version: int,
        *,
        spoiled: str = "",
        server_is_x509: bool = False,
        session: StoredSession | None = None,
        tickets: TicketBox | None = None,
    ) -> Pair:
        """A client and a server, not yet run; `spoiled` is the role whose proof is wrong."""
        kind, mine = tested.type, (tested.load(),)
        if version not in {version for form in kind.engine_parts.certificate_forms for version in form.versions} | _always(kind):
            pytest.skip(f"{kind.name} is not for this version of TLS")
        parts = kind.engine_parts
        common = {
            "versions": (version,),
            "extra_forms": parts.certificate_forms,
            "extra_schemes": parts.signature_schemes,
            "extra_suites": parts.cipher_suites,
        }
        server_is_x509 = server_is_x509 and X509 not in kind.certificate_types  # which signs for its own credentials only
        shown = (X509,) if server_is_x509 else kind.certificate_types
        client = ClientSettings(
            own_certificate_types=kind.certificate_types,
            peer_certificate_types=shown,
            server_name="testserver",
            session=session,
            **common,  # type: ignore[arg-type]
        )
        server = ServerSettings(
            own_certificate_types=shown,
            peer_certificate_types=kind.certificate_types,
            **common,  # type: ignore[arg-type]
        )
        server_answers = TypeAnswers(
            credentials=(software_credential(),) if server_is_x509 else mine,
            client_auth=ClientAuth.REQUIRE,
            client_certificate_types=kind.certificate_types,
            tickets=tickets,
            tested=tested,
            spoil=spoiled == "server",
        )
        client_answers = TypeAnswers(credentials=mine, tested=tested, spoil=spoiled == "client")
        return Pair(TlsConnection(client), TlsConnection(server), client_answers, server_answers)

    def established(self, pair: Pair) -> Pair:
        """Run, and see that it works."""
        pair.run()
        assert pair.complete, (pair.client.failed, pair.server.failed)
        pair.client.send(b"ping")
        pair.run()
        assert pair.server.take_plaintext() == b"ping"
        return pair

    def check_peer(self, tested: TypeUnderTest, peer: PeerCredential | None) -> None:
        """It is the one under test."""
        assert peer is not None and tested.type.owns(peer)
        assert [entry.data for entry in peer.entries] == [entry.data for entry in tested.load().entries]
        assert tested.type.names(peer, tested.local.identity)

    def examined(self, tested: TypeUnderTest) -> PeerCredential:
        """What a peer sees of the credential."""
        credential = tested.load()
        return tested.type.examine(credential.certificate_type, credential.entries, tested.config)

    # --- the tests -------------------------------------------------------------------------------------------------------------

    def test_is_declared_consistently(self) -> None:
        kind = self.under_test().type
        assert kind.name and kind.name == kind.name.lower()
        forms = {form.certificate_type for form in kind.engine_parts.certificate_forms}
        assert forms <= set(kind.certificate_types) <= forms | {X509}
        assert self.under_test().load().certificate_type in kind.certificate_types

    @VERSIONS
    def test_both_sides_show_it(self, version: int) -> None:
        tested = self.under_test()
        pair = self.established(self.pair(tested, version))
        self.check_peer(tested, pair.client.peer)
        self.check_peer(tested, pair.server.peer)

    @VERSIONS
    def test_only_the_client_shows_it(self, version: int) -> None:
        tested = self.under_test()
        pair = self.established(self.pair(tested, version, server_is_x509=True))
        assert pair.client.peer is not None and pair.client.peer.certificate_type == X509
        self.check_peer(tested, pair.server.peer)

    @VERSIONS
    def test_bytes_may_be_cut_anywhere(self, version: int) -> None:
        pair = self.pair(self.under_test(), version)
        pair.step = 1
        self.established(pair)

    @VERSIONS
    def test_a_resumed_session_knows_it_again(self, version: int) -> None:
        tested, tickets = self.under_test(), TicketBox()
        first = self.established(self.pair(tested, version, tickets=tickets))
        session = first.client.take_sessions()[0]
        pair = self.established(self.pair(tested, version, tickets=tickets, session=session))
        assert pair.server.facts.resumed
        self.check_peer(tested, pair.client.peer)
        self.check_peer(tested, pair.server.peer)

    @VERSIONS
    @ROLES
    def test_a_wrong_proof_is_refused(self, version: int, role: str) -> None:
        pair = self.pair(self.under_test(), version, spoiled=role)
        pair.run()
        liar, other = (pair.client, pair.server) if role == "client" else (pair.server, pair.client)
        assert isinstance(other.failed, DecryptError), other.failed
        assert isinstance(liar.failed, AlertReceived), liar.failed

    def test_names_its_identity(self) -> None:
        tested = self.under_test()
        peer, identity = self.examined(tested), tested.local.identity
        assert tested.type.names(peer, identity)
        assert not tested.type.names(peer, replace(identity, domain="other.example"))

    def test_examining_nonsense(self) -> None:
        """A peer credential or a TlsError, nothing else; and no InternalError, for it is the peer's fault."""
        tested = self.under_test()
        credential = tested.load()
        first, *others = credential.entries
        attempts = [(), (*credential.entries, *credential.entries)]
        attempts += [(replace(first, data=data), *others) for data in variants(first.data)]
        for entries in attempts:
            try:
                peer = tested.type.examine(credential.certificate_type, entries, tested.config)
            except TlsError as error:
                assert not isinstance(error, InternalError)
            else:
                tested.type.identities(peer)
                for field_name in ("subject", "issuer", "subjectaltname"):
                    assert isinstance(tested.type.describe(peer, field_name), str | None)
                    assert all(isinstance(value, bytes) for value in tested.type.encoded(peer, field_name))

    def test_certificate_message_of_tls12(self) -> None:
        """The form reads what it builds, refuses what is cut or lengthened, and fails by TlsError only."""
        tested = self.under_test()
        credential = tested.load()
        for form in tested.type.engine_parts.certificate_forms:
            if form.certificate_type != credential.certificate_type or TLS12 not in form.versions:
                continue
            body = form.build12(credential.entries)
            assert [entry.data for entry in form.parse12(body)] == [entry.data for entry in credential.entries]
            for cut in (body[:-1], body + b"\0", body[:1], b""):
                with pytest.raises(TlsError):
                    form.parse12(cut)
            for data in variants(body):
                try:
                    form.parse12(data)
                except TlsError as error:
                    assert not isinstance(error, InternalError)

    def test_trust_comes_from_the_database(self) -> None:
        """The predicate T is false with empty databases, and holds with the records."""
        tested = self.under_test()
        trust = next(predicate for predicate in tested.type.predicates() if predicate.letter == "T")
        assert self._establish(tested, trust) is Verdict.FALSE
        with tested.config.write() as databases:
            for record in tested.trust:
                databases.put_trust(record)
        assert self._establish(tested, trust) is not Verdict.FALSE

    def _establish(self, tested: TypeUnderTest, predicate: object) -> Verdict:
        identity = tested.local.identity
        context = peer_context(
            peer=self.examined(tested),
            identities=(identity,),
            wanted=identity,
            config=tested.config,
            credential_type=tested.type.name,
        )
        finding = predicate.establish(context)  # type: ignore[attr-defined]
        if isinstance(finding, Awaitable):
            finding = asyncio.run(_wait(finding))
        verdict: Verdict = finding.verdict
        return verdict

    def test_a_key_of_another_is_refused(self) -> None:
        tested = self.under_test()
        other = SoftwareKey("software:other", ec.generate_private_key(ec.SECP256R1()))

        async def find_other(uri: str) -> Key:
            return other

        with pytest.raises((Denied, KeyStoreError)):
            asyncio.run(_load(tested.type, tested.local, find_other))

    def test_the_command_line_meets_nonsense(self) -> None:
        """Importing fails by ValueError, which is shown to the operator; listing never fails."""
        kind = self.under_test().type
        for data in (b"", b"nonsense", bytes(1000), b"\x30\x82\xff\xff", b"-----BEGIN NONSENSE-----\n"):
            for importing in (kind.import_local, lambda text: kind.import_trust(text, pinned=True)):
                try:
                    importing(data)
                except ValueError as error:
                    assert str(error)
            assert isinstance(kind.summarize(data), str)


async def _wait(finding: Awaitable[object]) -> object:
    return await finding


def _always(kind: CredentialType) -> set[int]:
    """Versions in which the engine itself has the form."""
    return {TLS12, TLS13} if X509 in kind.certificate_types else set()
