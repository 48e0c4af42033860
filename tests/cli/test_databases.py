"""Do the commands put into the databases what they are told to, show it safely, and refuse what is wrong with words that help?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import LocalCredential, LocalIdentity, Role, TrustRecord
from tlspool_core.testing.memory import MemoryBackend

Run = Callable[..., Result]
WWW, JOHN, MARY = (DoNAI.parse(text) for text in ("www.example.com", "john@example.com", "mary@example.com"))


def localid(databases: MemoryBackend, identity: DoNAI) -> LocalIdentity | None:
    with databases.read() as reader:
        return reader.localid(identity)


def credential(identity: DoNAI, key: str = "", public: bytes = b"", role: Role = Role.BOTH, kind: str = "paper") -> LocalCredential:
    return LocalCredential(identity, kind, role, key, public)


# --- localid ------------------------------------------------------------------------------------------------------------------


def test_a_credential_is_added_from_a_file(run: Run, databases: MemoryBackend, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"paper one\n")
    run("localid", "add", "WWW.Example.com", "--type", "paper", "--role", "server", "--key", "k:1", str(tmp_path / "file"))
    assert localid(databases, WWW) == LocalIdentity(WWW, (credential(WWW, "k:1", b"paper one", Role.SERVER),))


def test_a_credential_is_added_from_standard_input_with_rules(run: Run, databases: MemoryBackend) -> None:
    add = ("localid", "add", str(JOHN), "--type", "paper", "--expression", "TI&", "--uid", "1000", "--uid", "root", "-")
    run(*add, stdin=b"paper one")
    assert localid(databases, JOHN) == LocalIdentity(JOHN, (credential(JOHN, "", b"paper one"),), "TI&", (1000, 0))


def test_a_type_without_public_part_needs_no_file(run: Run, databases: MemoryBackend) -> None:
    run("localid", "add", str(JOHN), "--type", "wordless")
    assert localid(databases, JOHN) == LocalIdentity(JOHN, (credential(JOHN, kind="wordless"),))
    run("localid", "add", str(JOHN), "--type", "paper", fails="without a FILE: this is no paper")


def test_the_same_key_again_renews_and_another_is_added_in_order(run: Run, databases: MemoryBackend) -> None:
    add = ("localid", "add", str(WWW), "--type", "paper", "-")
    run(*add, "--key", "k:1", "--expression", "T", "--uid", "5", stdin=b"paper one")
    run(*add, "--key", "k:2", stdin=b"paper two")
    run(*add, "--key", "k:1", stdin=b"paper new")
    run(*add, "--key", "k:3", "--first", stdin=b"paper three")
    entry = localid(databases, WWW)
    assert entry is not None
    assert [(each.key_uri, each.public) for each in entry.credentials] == [
        ("k:3", b"paper three"),
        ("k:1", b"paper new"),
        ("k:2", b"paper two"),
    ]
    assert (entry.expression, entry.allowed_uids) == ("T", (5,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "*.example.com", "--type", "paper", "-"), "is no domain name"),
        (("add", "www.example.com", "-"), "say --type, one of: paper, wordless"),
        (("add", "www.example.com", "--type", "papr", "-"), "did you mean 'paper'?"),
        (("add", "www.example.com", "--type", "paper", "/no/such/file"), "No such file"),
        (("add", "www.example.com", "--type", "paper", "--expression", "T&", "-"), "'&' at 2 needs 2 operands"),
        (("add", "www.example.com", "--type", "paper", "--uid", "nobody-knows", "-"), "there is no user 'nobody-knows'"),
        (("add", "www.example.com", "--type", "paper", "--uid", "4294967295", "-"), "no user's number"),
        (("add", "www.example.com", "--type", "paper", "-"), "this is no paper"),
        (("show", "www.example.com"), "there is no local identity www.example.com"),
        (("remove", "www.example.com"), "there is no local identity www.example.com"),
        (("set", "www.example.com", "--expression", "1"), "there is no local identity www.example.com"),
        (("set", "www.example.com"), "--expression or --uid"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    run: Run, databases: MemoryBackend, arguments: tuple[str, ...], words: str
) -> None:
    run("localid", *arguments, fails=words, stdin=b"plastic")
    assert databases.generation() == 0 or localid(databases, WWW) is None


def test_a_key_is_no_file(run: Run) -> None:
    """Whoever names one is told, before the pool tells whoever connects."""
    result = run("localid", "add", str(WWW), "--type", "wordless", "--key", "server.key")
    assert "Note: no key store that is installed finds 'server.key'" in result.stderr


def test_rules_are_set_and_cleared(run: Run, databases: MemoryBackend) -> None:
    run("localid", "add", str(WWW), "--type", "wordless", "--uid", "5")
    run("localid", "set", str(WWW), "--expression", "TIF&&")
    assert localid(databases, WWW) == LocalIdentity(WWW, (credential(WWW, kind="wordless"),), "TIF&&", (5,))
    run("localid", "set", str(WWW), "--expression", "", "--uid", "any")
    assert localid(databases, WWW) == LocalIdentity(WWW, (credential(WWW, kind="wordless"),))


def test_credentials_and_identities_are_removed(run: Run, databases: MemoryBackend) -> None:
    for key in ("k:1", "k:2", "k:3"):
        run("localid", "add", str(WWW), "--type", "wordless", "--key", key)
    run("localid", "add", str(WWW), "--type", "paper", "-", stdin=b"paper one")
    run("localid", "remove", str(WWW), "--credential", "2")
    run("localid", "remove", str(WWW), "--credential", "9", fails="has no such credential")
    run("localid", "remove", str(WWW), "--type", "paper")
    entry = localid(databases, WWW)
    assert entry is not None
    assert [each.key_uri for each in entry.credentials] == ["k:1", "k:3"]
    run("localid", "remove", str(WWW))
    assert localid(databases, WWW) is None


def test_lists_show_everything_and_obey_no_terminal_sequences(run: Run) -> None:
    run("localid", "add", str(WWW), "--type", "paper", "--key", "k:1", "--role", "server", "-", stdin=b"paper one")
    run("localid", "add", str(WWW), "--type", "paper", "--key", "k:2", "-", stdin=b"paper bad")
    lines = run("localid", "list").stdout.splitlines()
    assert lines[0].split() == ["IDENTITY", "TYPE", "ROLE", "KEY", "PUBLIC", "PART"]
    assert lines[1].split() == ["www.example.com", "paper", "server", "k:1", "paper", "\\x1b[31mone"]
    assert lines[2].endswith("9 bytes (the plugin failed: RuntimeError)")
    shown = run("localid", "show", str(WWW)).stdout
    assert "\x1b" not in shown
    assert "(none: the default applies)" in shown


def test_lists_for_programs(run: Run) -> None:
    run("localid", "add", str(WWW), "--type", "wordless", "--expression", "T")
    expected = {
        "identity": "www.example.com",
        "expression": "T",
        "allowed_uids": [],
        "credentials": [{"type": "wordless", "role": "both", "key": "", "public": ""}],
    }
    assert json.loads(run("localid", "list", "--json").stdout) == [expected]
    assert json.loads(run("--json", "localid", "list").stdout) == [expected]
    assert json.loads(run("localid", "show", str(WWW), "--json").stdout) == expected
    assert "no local identities" not in run("disclose", "list").stdout


# --- disclose -----------------------------------------------------------------------------------------------------------------


def test_disclosure(run: Run, databases: MemoryBackend) -> None:
    assert "Note: there is no local identity john@example.com yet" in run("disclose", "add", "@.", str(JOHN)).stderr
    run("disclose", "add", "@.", str(MARY), str(JOHN))
    run("disclose", "add", "@.", str(WWW), "--first")
    run("disclose", "add", "@.Example.net")
    with databases.read() as reader:
        assert dict(reader.disclosures()) == {"@.": (WWW, JOHN, MARY), "@.example.net": ()}
    assert run("disclose", "show", "x@example.org").stdout == "by @.: www.example.com, john@example.com, mary@example.com\n"
    assert run("disclose", "show", "x@www.example.net").stdout == "by @.example.net: (nothing)\n"
    assert "no selector covers example.org" in run("disclose", "show", "example.org").stdout
    shown = json.loads(run("disclose", "show", "x@example.org", "--json").stdout)
    assert (shown["selector"], shown["localids"][0]) == ("@.", "www.example.com")
    assert json.loads(run("disclose", "list", "--json").stdout)[1] == {"selector": "@.example.net", "localids": []}
    run("disclose", "remove", "@.", str(JOHN))
    run("disclose", "remove", "@.", str(JOHN), fails="does not show john@example.com")
    run("disclose", "remove", "@.example.net")
    run("disclose", "remove", "@.example.net", fails="has no entry")
    run("disclose", "add", "*", str(JOHN), fails="is no domain name")
    with databases.read() as reader:
        assert dict(reader.disclosures()) == {"@.": (WWW, MARY)}


# --- trust --------------------------------------------------------------------------------------------------------------------


def test_trust_is_added_from_files(run: Run, databases: MemoryBackend, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"paper a b")
    (tmp_path / "two").write_bytes(b"paper c")
    files = (str(tmp_path / "one"), str(tmp_path / "two"))
    run("trust", "add", "--type", "paper", "--role", "server", "--expression", "R", "--pin", *files)
    with databases.read() as reader:
        records = list(reader.trusts())
    blobs = (b"paper a b", b"paper a b", b"paper c")
    expected = [
        TrustRecord(key, "paper", Role.SERVER, True, False, "R", blob) for key, blob in zip((b"a", b"b", b"c"), blobs, strict=True)
    ]
    assert records == expected
    (tmp_path / "two").write_bytes(b"plastic")
    run("trust", "add", "--type", "paper", *files, fails="two: this is no paper")
    run("trust", "add", "--type", "wordless", files[0], fails="nothing of type wordless can be put into the trust database")


def test_rules_for_remotes(run: Run, databases: MemoryBackend) -> None:
    run("trust", "add", "--remote", ".Example.com", "--expression", "TID&&")
    run("trust", "add", "--remote", ".example.com", "--expression", "TIG&&")
    with databases.read() as reader:
        assert list(reader.trusts()) == [TrustRecord(b"remote:.example.com", "", expression="TIG&&")]
    run("trust", "add", "--remote", ".example.com", fails="--remote goes with --expression")
    run("trust", "add", "--remote", ".example.com", "--expression", "T", "--pin", fails="--remote goes with")
    run("trust", "add", fails="either FILEs or --remote")


def test_trust_is_shown_changed_and_removed(run: Run, databases: MemoryBackend) -> None:
    run("trust", "add", "--type", "paper", "-", stdin=b"paper a")
    run("trust", "set", "61", "--revoked", "--role", "client", "--expression", "T")
    record = TrustRecord(b"a", "paper", Role.CLIENT, False, True, "T", b"paper a")
    with databases.read() as reader:
        assert list(reader.trusts()) == [record]
    assert run("trust", "list").stdout.splitlines()[1].split() == ["61", "paper", "client", "revoked", "T", "paper", "\\x1b[31ma"]
    assert "revoked     yes" in run("trust", "show", "61").stdout
    assert json.loads(run("trust", "show", "61", "--json").stdout)[0]["revoked"] is True
    assert json.loads(run("trust", "list", "--json", "--type", "other").stdout) == []
    run("trust", "set", "61", fails="--role, --expression or --revoked")
    run("trust", "show", "62", fails="there is no trust record 62")
    run("trust", "show", "xy", fails="is no key of the trust database")
    run("trust", "remove", "61", "--type", "other", fails="there is no trust record 61")
    run("trust", "remove", "61")
    with databases.read() as reader:
        assert list(reader.trusts()) == []


# --- db -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(databases: MemoryBackend) -> MemoryBackend:
    """Every field with a value of its own."""
    with databases.write() as writer:
        writer.put_localid(
            LocalIdentity(
                DoNAI("example.com", "Jürgen"),
                (
                    credential(DoNAI("example.com", "Jürgen"), "k:1", bytes(range(256)), Role.CLIENT),
                    credential(DoNAI("example.com", "Jürgen")),
                ),
                "TI&",
                (0, 2**32 - 2),
            )
        )
        writer.put_disclose("@.example.net", [JOHN, WWW])
        writer.put_disclose(".", [])
        writer.put_trust(TrustRecord(bytes(range(20)), "paper", Role.SERVER, True, True, "T", b"\0\xff"))
        writer.put_trust(TrustRecord(bytes(range(20)), "paper", blob=b"two"))
        writer.put_trust(TrustRecord(b"remote:@.", "", expression="1"))
    return databases


def test_export_and_import_lose_nothing(run: Run, filled: MemoryBackend, tmp_path: Path) -> None:
    with filled.read() as reader:
        before = reader
    file = tmp_path / "copy.json"
    run("db", "export", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("db", "export").stdout == file.read_text()
    with filled.write() as writer:
        writer.delete_localid(DoNAI("example.com", "Jürgen"))
        writer.delete_trust(b"remote:@.")
        writer.put_disclose(".com", [MARY])
    run("db", "import", str(file))
    with filled.read() as reader:
        assert reader.disclose(".com") == (MARY,)
    run("db", "import", "--replace", stdin=file.read_text())
    with filled.read() as reader:
        assert (reader.localid_, reader.disclose_, reader.trust_) == (before.localid_, before.disclose_, before.trust_)  # type: ignore[attr-defined]


def test_an_import_is_all_or_nothing(run: Run, filled: MemoryBackend) -> None:
    document = json.loads(run("db", "export").stdout)
    document["localid"].append({**document["localid"][0], "identity": "new.example"})
    document["trust"][-1]["expression"] = "T&"
    generation = filled.generation()
    run("db", "import", "--replace", fails="trust[2].expression: 'T&'", stdin=json.dumps(document))
    assert filled.generation() == generation


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), "other", "is not of format"),
        (("version",), 2, "is not of format"),
        (("extra",), 1, "unknown field 'extra'"),
        (("trust",), {}, "document.trust: must be a list"),
        (("localid", 0), 5, "localid[0]: must be an object"),
        (("localid", 0, "identity"), "Example.com", "localid[0].identity"),
        (("localid", 0, "allowed_uids"), [-1], "localid[0].allowed_uids"),
        (("localid", 0, "allowed_uids"), [True], "localid[0].allowed_uids"),
        (("localid", 0, "credentials", 0, "public"), "AA", "credentials[0].public: must be base64"),
        (("localid", 0, "credentials", 0, "role"), "peer", "credentials[0].role: must be one of"),
        (("localid", 0, "credentials", 0, "key"), None, "credentials[0].key: must be a text"),
        (("disclose", 0, "selector"), "*", "disclose[0].selector"),
        (("disclose", 0, "localids"), ["*"], "disclose[0].localids"),
        (("disclose", 0, "localids"), [1], "disclose[0].localids"),
        (("disclose", 0, "selector"), "@.example.net", "@.example.net is there twice"),
        (("trust", 0, "revoked"), 1, "trust[0].revoked: must be true or false"),
        (("trust", 0, "key"), "no key", "trust[0].key"),
        (("trust", 0, "Revoked"), True, "trust[0]: unknown field 'Revoked'"),
    ],
)
def test_a_document_that_is_wrong_is_refused(
    run: Run, filled: MemoryBackend, path: tuple[str | int, ...], value: object, words: str
) -> None:
    document = json.loads(run("db", "export").stdout)
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    run("db", "import", fails=words, stdin=json.dumps(document))


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"format": 1, "format": 1}', "\xff"])
def test_what_is_no_document_is_refused(run: Run, text: str) -> None:
    run("db", "import", fails="Error: ", stdin=text.encode("latin-1"))


def test_check_finds_what_cannot_be_used(run: Run, filled: MemoryBackend) -> None:
    result = run("db", "check", fails="3 entries cannot be used")
    assert "disclose @.example.net: there is no local identity john@example.com" in result.stdout
    assert "no key store that is installed finds 'k:1'" in result.stdout
    entry = localid(filled, DoNAI("example.com", "Jürgen"))
    assert entry is not None
    with filled.write() as writer:
        writer.delete_disclose("@.example.net")
        writer.put_localid(replace(entry, credentials=tuple(replace(each, key_uri="") for each in entry.credentials)))
    assert "good: 1 local identities" in run("db", "check").stdout
    with filled.write() as writer:
        writer.put_trust(TrustRecord(b"k", "unheard", expression="T&"))
    result = run("db", "check", fails="2 entries cannot be used")
    assert "no plugin for type unheard" in result.stdout


def test_export_to_a_place_that_cannot_be_written_says_so(run: Run, filled: MemoryBackend, tmp_path: Path) -> None:
    run("db", "export", str(tmp_path / "no" / "such" / "directory"), fails="No such file or directory")
