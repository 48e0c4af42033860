"""What every ConfigBackend has to do, as tests: inherit `ConfigBackendConformance` and say how to make one.

class TestMine(ConfigBackendConformance):
    def settings(self, directory):
        return {"path": str(directory / "db")}

    def make(self):
        return MyBackend()
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigBackend, LocalCredential, LocalIdentity, Role, TrustRecord

JOHN, MARY, WWW = (DoNAI.parse(text) for text in ("john@example.com", "mary@example.com", "www.example.com"))


def local(identity: DoNAI = JOHN, *publics: bytes, expression: str = "", uids: tuple[int, ...] = ()) -> LocalIdentity:
    """A local identity with a credential for each public part, in that order."""
    credentials = tuple(LocalCredential(identity, "toy", Role.BOTH, f"software:{n}", part) for n, part in enumerate(publics))
    return LocalIdentity(identity, credentials, expression, uids)


class ConfigBackendConformance:
    """The contract of `ConfigBackend`; each test says in its name what must hold."""

    # whether the content outlives the object
    persistent = True

    def make(self) -> ConfigBackend:
        """A backend that was not opened yet."""
        raise NotImplementedError

    def settings(self, directory: Path) -> Mapping[str, Any]:
        """Settings for databases of a test's own."""
        return {}

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[ConfigBackend]:
        made = self.make()
        made.open(self.settings(tmp_path))
        yield made
        made.close()

    # --- what was put is found

    def test_new_databases_are_empty(self, backend: ConfigBackend) -> None:
        with backend.read() as reader:
            assert reader.localid(JOHN) is None
            assert reader.disclose(".") is None
            assert reader.trust(b"key") == ()
            assert [*reader.localids(), *reader.disclosures(), *reader.trusts()] == []

    @pytest.mark.parametrize(
        "entry",
        [
            local(),
            local(JOHN, b"one", b"", b"\0" * 100_000, expression="TI&", uids=(0, 1000, 2**32 - 1)),
            local(WWW, b"public"),
            LocalIdentity(
                WWW, (LocalCredential(WWW, "toy", Role.SERVER, "", b"x"), LocalCredential(WWW, "toy", Role.CLIENT, "", b"x"))
            ),
            local(DoNAI("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61, "u" * 128), b"public"),
            local(DoNAI("example.com", "jürgen"), b"public"),
        ],
        ids=["bare", "full", "domain", "roles", "long", "non-ascii"],
    )
    def test_a_local_identity_is_found_as_it_was_put(self, backend: ConfigBackend, entry: LocalIdentity) -> None:
        with backend.write() as writer:
            writer.put_localid(entry)
        with backend.read() as reader:
            assert reader.localid(entry.identity) == entry
            assert list(reader.localids()) == [entry]

    @pytest.mark.parametrize(
        "record",
        [
            TrustRecord(b"k", "toy"),
            TrustRecord(bytes(range(64)), "toy", Role.CLIENT, pinned=True, expression="T", blob=b"\0" * 100_000),
            TrustRecord(b"remote:@.example.com", "", Role.SERVER, revoked=True),
            TrustRecord(b"\0", "toy", Role.BOTH, pinned=True, revoked=True),
        ],
        ids=["bare", "full", "remote", "flags"],
    )
    def test_a_trust_record_is_found_as_it_was_put(self, backend: ConfigBackend, record: TrustRecord) -> None:
        with backend.write() as writer:
            writer.put_trust(record)
        with backend.read() as reader:
            assert reader.trust(record.key) == (record,)
            assert list(reader.trusts()) == list(reader.trusts(record.type)) == [record]
            assert list(reader.trusts("other")) == []

    @pytest.mark.parametrize("identities", [(), (JOHN,), (MARY, JOHN, WWW)], ids=len)
    def test_a_disclosure_is_found_as_it_was_put(self, backend: ConfigBackend, identities: tuple[DoNAI, ...]) -> None:
        with backend.write() as writer:
            writer.put_disclose("@.example.com", identities)
        with backend.read() as reader:
            assert reader.disclose("@.example.com") == identities
            assert reader.disclose("@.com") is None
            assert list(reader.disclosures()) == [("@.example.com", identities)]

    def test_what_was_put_is_there_after_opening_again(self, tmp_path: Path) -> None:
        for readonly in (False, True, True):
            made = self.make()
            made.open(self.settings(tmp_path), readonly=readonly)
            if not readonly:
                with made.write() as writer:
                    writer.put_localid(local(JOHN, b"public"))
                    writer.put_disclose(".", [JOHN])
                    writer.put_trust(TrustRecord(b"k", "toy"))
            with made.read() as reader:
                if self.persistent or not readonly:
                    assert reader.localid(JOHN) == local(JOHN, b"public")
                    assert reader.disclose(".") == (JOHN,)
                    assert reader.trust(b"k") == (TrustRecord(b"k", "toy"),)
            made.close()

    # --- replacing and deleting

    def test_putting_again_replaces(self, backend: ConfigBackend) -> None:
        with backend.write() as writer:
            writer.put_localid(local(JOHN, b"one", b"two"))
            writer.put_disclose(".", [JOHN, MARY])
        with backend.write() as writer:
            writer.put_localid(local(JOHN, b"three"))
            writer.put_disclose(".", [MARY])
        with backend.read() as reader:
            assert reader.localid(JOHN) == local(JOHN, b"three")
            assert reader.disclose(".") == (MARY,)

    def test_a_trust_key_has_a_record_for_each_type_and_blob(self, backend: ConfigBackend) -> None:
        anchor, crl, other = (
            TrustRecord(b"k", kind, blob=blob) for kind, blob in (("toy", b"anchor"), ("toy", b"crl"), ("other", b"crl"))
        )
        revoked = TrustRecord(b"k", "toy", revoked=True, blob=b"anchor")
        with backend.write() as writer:
            for record in (anchor, crl, other):
                writer.put_trust(record)
        with backend.read() as reader:
            assert reader.trust(b"k") == (anchor, crl, other)
        with backend.write() as writer:
            writer.put_trust(revoked)
        with backend.read() as reader:
            assert reader.trust(b"k") == (crl, other, revoked)
            assert list(reader.trusts("toy")) == [crl, revoked]

    def test_deleting_says_what_it_did(self, backend: ConfigBackend) -> None:
        with backend.write() as writer:
            writer.put_localid(local(JOHN, b"one", b"two"))
            writer.put_disclose(".", [])
            for kind, blob in (("toy", b"1"), ("toy", b"2"), ("other", b"1")):
                writer.put_trust(TrustRecord(b"k", kind, blob=blob))
        with backend.write() as writer:
            assert (writer.delete_localid(JOHN), writer.delete_localid(JOHN)) == (True, False)
            assert (writer.delete_disclose("."), writer.delete_disclose(".")) == (True, False)
            assert (writer.delete_trust(b"k", "toy"), writer.delete_trust(b"k", "toy"), writer.delete_trust(b"k")) == (2, 0, 1)
        with backend.read() as reader:
            assert [*reader.localids(), *reader.disclosures(), *reader.trusts()] == []

    def test_lists_are_sorted_by_key(self, backend: ConfigBackend) -> None:
        with backend.write() as writer:
            for identity in (WWW, MARY, JOHN):
                writer.put_localid(local(identity))
                writer.put_disclose(str(identity), [])
                writer.put_trust(TrustRecord(str(identity).encode(), "toy"))
        names = [str(JOHN), str(MARY), str(WWW)]
        with backend.read() as reader:
            assert [str(entry.identity) for entry in reader.localids()] == names
            assert [selector for selector, _ in reader.disclosures()] == names
            assert [record.key.decode() for record in reader.trusts()] == names

    # --- transactions

    def test_a_write_that_fails_leaves_no_trace(self, backend: ConfigBackend) -> None:
        with backend.write() as writer:
            writer.put_localid(local(JOHN, b"before"))
        generation = backend.generation()
        with pytest.raises(ZeroDivisionError), backend.write() as writer:
            writer.put_localid(local(JOHN, b"after"))
            writer.put_trust(TrustRecord(b"k", "toy"))
            raise ZeroDivisionError
        assert backend.generation() == generation
        with backend.read() as reader:
            assert reader.localid(JOHN) == local(JOHN, b"before")
            assert list(reader.trusts()) == []

    def test_a_writer_sees_what_it_wrote_and_others_do_not_yet(self, backend: ConfigBackend) -> None:
        with backend.write() as writer:
            writer.put_localid(local(JOHN, b"new"))
            assert writer.localid(JOHN) == local(JOHN, b"new")
            with backend.read() as reader:
                assert reader.localid(JOHN) is None

    def test_a_reader_keeps_the_state_that_it_began_with(self, backend: ConfigBackend) -> None:
        with backend.read() as reader:
            writing = threading.Thread(target=self._put_john, args=(backend,))
            writing.start()
            writing.join()
            assert reader.localid(JOHN) is None
        with backend.read() as reader:
            assert reader.localid(JOHN) is not None

    @staticmethod
    def _put_john(backend: ConfigBackend) -> None:
        with backend.write() as writer:
            writer.put_localid(local(JOHN))

    def test_the_generation_changes_with_each_write_only(self, backend: ConfigBackend) -> None:
        seen = [backend.generation()]
        for identity in (JOHN, MARY):
            with backend.write() as writer:
                writer.put_localid(local(identity))
            seen.append(backend.generation())
            with backend.read() as reader:
                reader.localid(identity)
            assert backend.generation() == seen[-1]
        assert len(set(seen)) == 3

    def test_threads_read_and_write_at_the_same_time(self, backend: ConfigBackend) -> None:
        problems: list[str] = []

        def write(number: int) -> None:
            for round_ in range(20):
                with backend.write() as writer:
                    writer.put_localid(local(DoNAI(f"h{number}.example"), bytes([round_])))
                    writer.put_disclose(f"h{number}.example", [DoNAI(f"r{round_}.example")])

        def read() -> None:
            while any(thread.is_alive() for thread in writers):
                with backend.read() as reader:
                    for entry in reader.localids():
                        shown = reader.disclose(str(entry.identity))
                        if shown != (DoNAI(f"r{entry.credentials[0].public[0]}.example"),):
                            problems.append(f"{entry} with {shown}")

        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in (*writers, *readers):
            thread.start()
        for thread in (*writers, *readers):
            thread.join()
        assert problems == []
        with backend.read() as reader:
            assert [entry.credentials[0].public for entry in reader.localids()] == [bytes([19])] * 3
