"""Are tickets had from caches, keytabs and by passwords, kept while they are good, and are the KDC's refusals told in words?"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.mit import KerberosError, Source, Tickets, fetch, keytab_keys
from tlspool_kdh.tickets import Principal, Service

from tlspool_core.api import DoNAI

WEB = "http/web.kdh.example@KDH.EXAMPLE"
REALMS = Realms({"KDH.EXAMPLE": "kdh.example", "SUB.EXAMPLE": "sub.kdh.example"})


def test_by_password(realm: Any) -> None:
    held = fetch(Source("mary@KDH.EXAMPLE", password=lambda: b"sesame"), WEB)
    opened = Service(keytab_keys(realm.services)).open(held.ticket)
    assert str(opened.client) == "mary@KDH.EXAMPLE" and opened.session_key == held.session_key
    assert b"sesame" not in repr(Source("mary", password=lambda: b"sesame")).encode()
    assert repr(held.session_key.value) not in repr(held)


def test_out_of_a_cache(realm: Any, tmp_path: Path) -> None:
    """The cache holds a ticket-granting ticket only; the ticket for the service is fetched, and kept in it."""
    cache = f"FILE:{tmp_path}/cache"
    subprocess.run(["kinit", "-c", cache, "mary"], input=b"sesame\n", env=realm.environment, check=True, capture_output=True)
    held = fetch(Source(ccache=cache), WEB)
    assert str(held.client) == "mary@KDH.EXAMPLE" and str(held.service) == WEB
    assert fetch(Source(ccache=cache), WEB) == held


@pytest.mark.parametrize(
    ("source", "service", "words"),
    [
        (Source("mary@KDH.EXAMPLE", password=lambda: b"wrong"), WEB, "the password or key is wrong"),
        (Source("nobody@KDH.EXAMPLE", password=lambda: b"wrong"), WEB, "not found in Kerberos database"),
        (
            Source("mary@KDH.EXAMPLE", password=lambda: b"sesame"),
            "http/none.kdh.example@KDH.EXAMPLE",
            "not found in Kerberos database",
        ),
        (Source("mary@KDH.EXAMPLE"), WEB, "no cache, keytab or password"),
        (Source(ccache="FILE:/nonexistent/cache"), WEB, "No credentials cache found"),
        (Source("john@KDH.EXAMPLE", keytab="FILE:/nonexistent/keytab"), WEB, "not found"),
        (Source("john@OTHER.EXAMPLE", password=lambda: b"x"), WEB, "Cannot find KDC"),
    ],
)
def test_refusals_in_words(realm: Any, source: Source, service: str, words: str) -> None:
    with pytest.raises(KerberosError, match=words):
        fetch(source, service)


def test_a_kdc_that_is_down(realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults]\n dns_lookup_kdc = false\n[realms]\n KDH.EXAMPLE = {\n kdc = 127.0.0.1:1\n }\n")
    monkeypatch.setenv("KRB5_CONFIG", str(config))
    with pytest.raises(KerberosError, match="Cannot contact any KDC"):
        fetch(Source("mary@KDH.EXAMPLE", password=lambda: b"sesame"), WEB)


def test_a_ticket_is_kept_until_it_is_about_to_end(realm: Any) -> None:
    clock = [time.time()]
    tickets = Tickets(margin=300, now=lambda: clock[0])
    source = Source("john@KDH.EXAMPLE", keytab=realm.users)
    first = tickets.get(source, WEB)
    assert tickets.get(source, WEB) is first
    clock[0] = first.ends - 299
    assert tickets.get(source, WEB) is not first


@pytest.mark.parametrize(
    ("names", "realm", "identity"),
    [
        (("john",), "KDH.EXAMPLE", "john@kdh.example"),
        (("http", "web.kdh.example"), "KDH.EXAMPLE", "web.kdh.example"),
        (("http", "WEB.kdh.example"), "KDH.EXAMPLE", "web.kdh.example"),
        (("http", "web.elsewhere.example"), "KDH.EXAMPLE", None),
        (("http", "notkdh.example"), "KDH.EXAMPLE", None),
        (("john",), "OTHER.EXAMPLE", None),
        (("john", "admin", "x"), "KDH.EXAMPLE", None),
    ],
)
def test_principals_as_identities(names: tuple[str, ...], realm: str, identity: str | None) -> None:
    found = REALMS.identity(Principal(names, realm))
    assert (None if found is None else str(found)) == identity


def test_services_as_principals() -> None:
    assert REALMS.service("http", DoNAI.parse("web.kdh.example")) == WEB
    assert REALMS.service("http", DoNAI.parse("a.sub.kdh.example")) == "http/a.sub.kdh.example@SUB.EXAMPLE"
    with pytest.raises(LookupError, match="no realm"):
        REALMS.service("http", DoNAI.parse("web.elsewhere.example"))


@pytest.mark.parametrize("wrong", [b"", b"[]", b"{}", b'{"principal": 1}', b'{"other": ""}', b'{"keytab": "a", "ccache": "b"}'])
def test_accounts_that_are_none(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="Kerberos credential"):
        Account.decode(wrong)
