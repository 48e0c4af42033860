"""Are tickets had from caches, keytabs and by passwords, across realms and between users, and are the KDC's refusals told in words?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import krb5
import pytest
from kdh_helpers import WEB, fetch, source
from tlspool_kdh import mit
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.mit import Source, keytab_keys
from tlspool_kdh.plugin import KerberosType
from tlspool_kdh.tickets import Principal, Service
from tlspool_kdh.wallet import Tickets

from tlspool_core.api import BadCertificate, DoNAI, KeyStoreError

REALMS = Realms({"KDH.EXAMPLE": "kdh.example", "SUB.EXAMPLE": "sub.kdh.example", "OTHER.EXAMPLE": "other.example"})


def test_by_password(realm: Any) -> None:
    held = fetch(source("mary@KDH.EXAMPLE", password=lambda: b"sesame"), WEB)
    opened = Service(keytab_keys(realm.services)).open(held.ticket)
    assert str(opened.client) == "mary@KDH.EXAMPLE" and opened.session_key == held.session_key
    assert b"sesame" not in repr(source("mary@KDH.EXAMPLE", password=lambda: b"sesame")).encode()
    assert repr(held.session_key.value) not in repr(held)


def test_out_of_a_cache(realm: Any, tmp_path: Path) -> None:
    """The cache holds a ticket-granting ticket only, and stays as it is: what comes by it is kept in memory."""
    file = tmp_path / "cache"
    realm.kinit(f"FILE:{file}", "mary", "sesame")
    before, tickets, whose = file.read_bytes(), Tickets(), source("mary@KDH.EXAMPLE", ccache=f"FILE:{file}")
    held = tickets.get(whose, (Principal.parse(WEB),))
    assert str(held.client) == "mary@KDH.EXAMPLE" and str(held.service) == WEB
    assert tickets.get(whose, (Principal.parse(WEB),)) is held
    assert file.read_bytes() == before


def test_a_cache_of_somebody_else(realm: Any, tmp_path: Path) -> None:
    realm.kinit(f"FILE:{tmp_path}/cache", "mary", "sesame")
    with pytest.raises(KerberosError, match=r"it is of mary@KDH.EXAMPLE, and not of john@KDH.EXAMPLE"):
        fetch(source("john@KDH.EXAMPLE", ccache=f"FILE:{tmp_path}/cache"), WEB)


def test_what_the_owner_of_a_cache_does_to_it_counts(realm: Any, tmp_path: Path) -> None:
    clock, file = [0.0], tmp_path / "cache"
    tickets, whose = Tickets(now=lambda: clock[0]), Source(ccache=f"FILE:{file}")
    realm.kinit(f"FILE:{file}", "mary", "sesame")
    assert str(tickets.granting(whose).client) == "mary@KDH.EXAMPLE"
    realm.kinit(f"FILE:{file}", "john", "", "-k", "-t", realm.users)
    clock[0] += 6
    assert str(tickets.granting(whose).client) == "john@KDH.EXAMPLE"
    file.unlink()
    clock[0] += 6
    with pytest.raises(KerberosError, match="No such file"):
        tickets.granting(whose)


def unreadable() -> bytes:
    raise KeyStoreError("no token here has the label kerberos")


@pytest.mark.parametrize(
    ("whose", "service", "words"),
    [
        (source("mary@KDH.EXAMPLE", password=lambda: b"wrong"), WEB, "the password or key is wrong"),
        (source("nobody@KDH.EXAMPLE", password=lambda: b"wrong"), WEB, "not found in Kerberos database"),
        (source("mary@KDH.EXAMPLE", password=unreadable), WEB, "no token here has the label kerberos"),
        (
            source("mary@KDH.EXAMPLE", password=lambda: b"sesame"),
            "http/none.kdh.example@KDH.EXAMPLE",
            "no ticket for http/none.kdh.example@KDH.EXAMPLE: Server .* not found in Kerberos database",
        ),
        (source("locked@KDH.EXAMPLE", password=lambda: b"sesame"), WEB, "credentials have been revoked"),
        (source("stale@KDH.EXAMPLE", password=lambda: b"sesame"), WEB, "[Pp]assword has expired"),
        (source("gone@KDH.EXAMPLE", password=lambda: b"sesame"), WEB, "entry in database has expired"),
        (
            source("mary@KDH.EXAMPLE", password=lambda: b"sesame"),
            "http/shy.kdh.example@KDH.EXAMPLE",
            "valid for user2user only|not allowed as server|KDC policy",
        ),
        (source("mary@KDH.EXAMPLE"), WEB, "no cache, keytab or password"),
        (Source(ccache="FILE:/nonexistent/cache"), WEB, "No such file"),
        (source("john@KDH.EXAMPLE", keytab="FILE:/nonexistent/keytab"), WEB, "No such file|not found"),
        (source("john@NOWHERE.EXAMPLE", password=lambda: b"x"), WEB, "Cannot find KDC"),
    ],
)
def test_refusals_in_words(realm: Any, whose: Any, service: str, words: str) -> None:
    with pytest.raises(KerberosError, match=words):
        fetch(whose, service)


def test_a_password_that_was_refused_is_not_sent_again(realm: Any) -> None:
    asked: list[int] = []
    tickets, whose = Tickets(), source("mary@KDH.EXAMPLE", password=lambda: asked.append(1) or b"wrong")
    for _ in range(3):
        with pytest.raises(KerberosError, match="the password or key is wrong"):
            tickets.granting(whose)
    assert len(asked) == 1


def test_it_is_sent_again_ever_more_seldom_unless_it_has_been_changed(realm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be else whenever somebody calls at a server that is a user: ten times in ten minutes lock many an account."""
    clock, password, sent = [0.0], [b"wrong"], []
    ask = mit.initial
    monkeypatch.setattr(mit, "initial", lambda ready: sent.append(clock[0]) or ask(ready))
    tickets, whose = Tickets(now=lambda: clock[0]), source("mary@KDH.EXAMPLE", password=lambda: password[0])
    for minute in range(60):
        clock[0] = 60.0 * minute
        with pytest.raises(KerberosError, match="the password or key is wrong"):
            tickets.granting(whose)
    assert [when // 60 for when in sent] == [0, 1, 3, 7, 15, 31]
    password[0] = b"sesame"
    clock[0] += 60.0
    assert str(tickets.granting(whose).client) == "mary@KDH.EXAMPLE"


def test_a_keytab_that_has_been_changed_is_tried(realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent, ask, file = [0.0], [], mit.initial, tmp_path / "keytab"
    monkeypatch.setattr(mit, "initial", lambda ready: sent.append(clock[0]) or ask(ready))
    realm.add("ruth")
    context = krb5.init_context()
    table = krb5.kt_resolve(context, f"FILE:{file}".encode())
    made_up = krb5.init_keyblock(context, 18, bytes(32))
    krb5.kt_add_entry(context, table, krb5.parse_name_flags(context, b"ruth@KDH.EXAMPLE"), 1, 0, made_up)
    tickets, whose = Tickets(now=lambda: clock[0]), source("ruth@KDH.EXAMPLE", keytab=f"FILE:{file}")
    for clock[0] in (0.0, 61.0, 122.0):
        with pytest.raises(KerberosError, match="the password or key is wrong"):
            tickets.granting(whose)
    assert sent == [0.0, 61.0]
    file.unlink()
    realm.admin("KDH.EXAMPLE", f"ktadd -k {file} ruth")
    assert str(tickets.granting(whose).client) == "ruth@KDH.EXAMPLE"


# --- names that are tried -----------------------------------------------------------------------------------------------------


def test_names_for_local_identities() -> None:
    john = REALMS.names("http", DoNAI.parse("john@kdh.example"))
    assert [(str(one.principal), one.enterprise) for one in john] == [
        ("john\\@kdh.example@KDH.EXAMPLE", True),
        ("john@KDH.EXAMPLE", False),
    ]
    assert [str(one.principal) for one in REALMS.names("imap", DoNAI.parse("mail.kdh.example"))] == [
        "imap/mail.kdh.example@KDH.EXAMPLE"
    ]
    with pytest.raises(LookupError, match="domain of no realm"):
        REALMS.names("http", DoNAI.parse("john@elsewhere.example"))


def named(identity: str, **where: Any) -> Source:
    return Account(**where).source(REALMS.names("http", DoNAI.parse(identity)), "", None)


def test_the_enterprise_name_comes_first(realm: Any) -> None:
    held = Tickets().granting(named("anna@kdh.example", keytab=realm.users))
    assert str(held.client) == "anna\\@kdh.example@KDH.EXAMPLE"
    assert REALMS.identity(held.client) == DoNAI.parse("anna@kdh.example")


def test_then_the_principal_of_the_user(realm: Any, tmp_path: Path) -> None:
    assert str(Tickets().granting(named("john@kdh.example", keytab=realm.users)).client) == "john@KDH.EXAMPLE"
    realm.kinit(f"FILE:{tmp_path}/cache", "mary", "sesame")
    assert str(Tickets().granting(named("mary@kdh.example", ccache=f"FILE:{tmp_path}/cache")).client) == "mary@KDH.EXAMPLE"
    by_password = replace(named("mary@kdh.example"), key_uri="pkcs11:object=mary", password=lambda: b"sesame")
    assert str(Tickets().granting(by_password).client) == "mary@KDH.EXAMPLE"


def test_a_host_is_the_service_at_hand(realm: Any) -> None:
    assert str(Tickets().granting(named("web.kdh.example", keytab=realm.services)).client) == WEB


def test_all_names_that_failed_are_told(realm: Any) -> None:
    with pytest.raises(
        KerberosError, match=r"no ticket for nobody\\@kdh.example@KDH.EXAMPLE: .*; no ticket for nobody@KDH.EXAMPLE: "
    ):
        Tickets().granting(named("nobody@kdh.example", keytab=realm.users))


def test_http_in_capitals(realm: Any) -> None:
    services = REALMS.services("http", DoNAI.parse("old.kdh.example"))
    held = Tickets().get(source("john@KDH.EXAMPLE", keytab=realm.users), services)
    assert str(held.service) == "HTTP/old.kdh.example@KDH.EXAMPLE"


# --- other realms, and users --------------------------------------------------------------------------------------------------


def test_a_service_in_another_realm(realm: Any) -> None:
    held = fetch(source("john@KDH.EXAMPLE", keytab=realm.users), "http/web.other.example@OTHER.EXAMPLE")
    opened = Service(keytab_keys(realm.services)).open(held.ticket)
    assert (str(opened.client), str(opened.service)) == ("john@KDH.EXAMPLE", "http/web.other.example@OTHER.EXAMPLE")


def test_a_ticket_in_the_session_key_of_a_user(realm: Any) -> None:
    tickets = Tickets()
    marys = tickets.granting(source("mary@KDH.EXAMPLE", password=lambda: b"sesame"))
    john = source("john@KDH.EXAMPLE", keytab=realm.users)
    held = tickets.get(john, (Principal.parse("mary@KDH.EXAMPLE"),), marys.ticket)
    opened = Service(keytab_keys(realm.services)).open(held.ticket, marys.session_key)
    assert (str(opened.client), str(opened.service)) == ("john@KDH.EXAMPLE", "mary@KDH.EXAMPLE")
    assert opened.session_key == held.session_key
    with pytest.raises(BadCertificate, match="cannot be opened"):
        Service(keytab_keys(realm.services)).open(held.ticket, held.session_key)


def test_a_user_in_another_realm(realm: Any) -> None:
    tickets = Tickets()
    olgas = tickets.granting(source("olga@OTHER.EXAMPLE", keytab=realm.users))
    held = tickets.get(source("john@KDH.EXAMPLE", keytab=realm.users), (Principal.parse("olga@OTHER.EXAMPLE"),), olgas.ticket)
    opened = Service(keytab_keys(realm.services)).open(held.ticket, olgas.session_key)
    assert (str(opened.client), str(opened.service)) == ("john@KDH.EXAMPLE", "olga@OTHER.EXAMPLE")


def test_the_kdc_does_not_let_one_user_stand_for_another(realm: Any) -> None:
    tickets = Tickets()
    marys = tickets.granting(source("mary@KDH.EXAMPLE", password=lambda: b"sesame"))
    with pytest.raises(KerberosError, match="no ticket for anna"):
        tickets.get(
            source("john@KDH.EXAMPLE", keytab=realm.users), (Principal(("anna@kdh.example",), "KDH.EXAMPLE"),), marys.ticket
        )


# --- principals and identities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "realm", "identity"),
    [
        (("john",), "KDH.EXAMPLE", "john@kdh.example"),
        (("john@kdh.example",), "KDH.EXAMPLE", "john@kdh.example"),
        (("john@other.example",), "KDH.EXAMPLE", None),
        (("john@",), "KDH.EXAMPLE", None),
        (("@kdh.example",), "KDH.EXAMPLE", None),
        (("john@kdh.example@kdh.example",), "KDH.EXAMPLE", None),
        (("http", "web.kdh.example"), "KDH.EXAMPLE", "web.kdh.example"),
        (("http", "WEB.kdh.example"), "KDH.EXAMPLE", "web.kdh.example"),
        (("http", "web.elsewhere.example"), "KDH.EXAMPLE", None),
        (("http", "notkdh.example"), "KDH.EXAMPLE", None),
        (("http", "john@kdh.example"), "KDH.EXAMPLE", None),
        (("john",), "NOWHERE.EXAMPLE", None),
        (("john", "admin", "x"), "KDH.EXAMPLE", None),
    ],
)
def test_principals_as_identities(names: tuple[str, ...], realm: str, identity: str | None) -> None:
    found = REALMS.identity(Principal(names, realm))
    assert (None if found is None else str(found)) == identity


@pytest.mark.parametrize("text", ["john@KDH.EXAMPLE", "http/web@REALM", "anna\\@kdh.example@REALM", "a\\/b/c\\\\d@R\\@E"])
def test_principals_as_text(text: str) -> None:
    assert str(Principal.parse(text)) == text


@pytest.mark.parametrize("text", ["", "john", "@REALM", "john@", "a//b@REALM", "a@b@c", "a@b/c", "a\0@REALM"])
def test_no_principals(text: str) -> None:
    with pytest.raises(ValueError, match="principal"):
        Principal.parse(text)


def test_services_as_principals() -> None:
    def services(service: str, remote: str) -> list[str]:
        return list(map(str, REALMS.services(service, DoNAI.parse(remote))))

    assert services("http", "web.kdh.example") == [WEB, "HTTP/web.kdh.example@KDH.EXAMPLE"]
    assert services("imap", "a.sub.kdh.example") == ["imap/a.sub.kdh.example@SUB.EXAMPLE"]
    assert services("", "web.kdh.example") == ["host/web.kdh.example@KDH.EXAMPLE"]
    assert services("xmpp", "mary@other.example") == ["mary@OTHER.EXAMPLE", "mary\\@other.example@OTHER.EXAMPLE"]
    with pytest.raises(LookupError, match="no realm"):
        REALMS.services("http", DoNAI.parse("web.elsewhere.example"))


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b'{"principal": 1}',
        b'{"other": ""}',
        b'{"keytab": "a", "ccache": "b"}',
        b'{"principal": "john"}',
        b"\xff",
        b"[" * 99999,
    ],
)
def test_accounts_that_are_none(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r"Kerberos credential|principal"):
        Account.decode(wrong)


# --- the configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0xFEFF, 0xFF00, 0xFF01, 0xFF03, 0x10000])
def test_code_points_that_others_have(code: int) -> None:
    """Two neighbours of the code point are in use beside it, and 0xff01 is renegotiation_info."""
    with pytest.raises(ValueError, match="extension is a code point"):
        KerberosType().configure({"extension": code})
