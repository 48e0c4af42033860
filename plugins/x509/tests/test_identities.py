"""Whom does a certificate name: as identities, through wildcards, and never through its common name?"""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from tlspool_x509.credential_type import X509Type
from tlspool_x509.names import MAX_IDENTITIES, SMTP_UTF8_MAILBOX, Names, _utf8_mailboxes

from tlspool_core.api import DoNAI


def _names(pki: Any, kind: X509Type, holder: Any) -> list[str]:
    return [str(identity) for identity in kind.identities(pki.peer(kind, holder))]


def test_users_come_first_then_domains(pki: Any, kind: X509Type) -> None:
    holder = pki.root().issue("WWW.Example.COM", "John@Example.com", "example.org")
    assert _names(pki, kind, holder) == ["john@example.com", "www.example.com", "example.org"]


def test_the_common_name_names_nobody(pki: Any, kind: X509Type) -> None:
    holder = pki.root().issue("www.example.com", name="example.com")
    peer = pki.peer(kind, holder)
    assert [str(one) for one in kind.identities(peer)] == ["www.example.com"]
    assert not kind.names(peer, DoNAI.parse("example.com"))
    assert kind.identities(pki.peer(kind, pki.root().issue(name="john@example.com"))) == ()


def test_other_kinds_of_names_are_no_identities(pki: Any, kind: X509Type) -> None:
    names = [
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.UniformResourceIdentifier("https://example.com/"),
        x509.DirectoryName(x509.Name([])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x10john@example.com"),
    ]
    peer = pki.peer(kind, pki.root().issue(alternative_names=names))
    assert kind.identities(peer) == ()
    assert not kind.names(peer, DoNAI.parse("example.com"))


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1", "*", "*.example.com", "a*.example.com", "example.com.", ".example.com", "a_b.example.com", "exa mple.com", ""],
)
def test_what_is_no_domain_names_nobody(pki: Any, kind: X509Type, text: str) -> None:
    assert _names(pki, kind, pki.root().issue(alternative_names=[x509.DNSName(text)])) == []


@pytest.mark.parametrize(
    "text",
    ["@example.com", "*@example.com", '"john"@example.com', "john@192.0.2.1", "john@*.example.com", "a@b@c.org", "example.com"],
)
def test_what_is_no_mailbox_names_nobody(pki: Any, kind: X509Type, text: str) -> None:
    assert _names(pki, kind, pki.root().issue(alternative_names=[x509.RFC822Name._init_without_validation(text)])) == []


@pytest.mark.parametrize(
    ("pattern", "wanted", "outcome"),
    [
        ("*.example.com", "www.example.com", True),
        ("*.EXAMPLE.com", "www.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.com", "example.com", False),
        ("*", "example.com", False),
        ("w*.example.com", "www.example.com", False),
        ("*w.example.com", "www.example.com", False),
        ("www.*.com", "www.example.com", False),
        ("*.*.com", "www.example.com", False),
        ("*.example.com", "john@www.example.com", False),
        ("www.example.com", "john@www.example.com", False),
        ("*.xn--bcher-kva.example", "www.xn--bcher-kva.example", True),
    ],
)
def test_wildcards(pki: Any, kind: X509Type, pattern: str, wanted: str, outcome: bool) -> None:
    peer = pki.peer(kind, pki.root().issue(alternative_names=[x509.DNSName(pattern)]))
    assert kind.names(peer, DoNAI.parse(wanted)) is outcome


def _mailbox(content: bytes, header: bytes | None = None) -> x509.OtherName:
    return x509.OtherName(SMTP_UTF8_MAILBOX, (header or b"\x0c" + bytes([len(content)])) + content)


def test_utf8_mailboxes(pki: Any, kind: X509Type) -> None:
    jorg = "jörg@example.com".encode()
    long = ("ö" * 60 + "@" + "a" * 40 + ".example").encode()
    good = [_mailbox(jorg), _mailbox(long, b"\x0c\x81" + bytes([len(long)]))]
    bad = [
        _mailbox(b"john@example.com"),  # ASCII belongs into an rfc822Name (RFC 9598 section 3)
        _mailbox(jorg, b"\x16" + bytes([len(jorg)])),
        _mailbox("jörg@bücher.example".encode()),
        _mailbox("jörg@example.com".encode("latin-1")),
        _mailbox("j\u200brg@example.com".encode()),
    ]
    assert _names(pki, kind, pki.root().issue(alternative_names=[*good, *bad])) == [
        "jörg@example.com",
        "ö" * 60 + f"@{'a' * 40}.example",
    ]


def test_case_of_users_is_local_policy(pki: Any, kind: X509Type) -> None:
    peer = pki.peer(kind, pki.root().issue("John@Example.com"))
    assert kind.names(peer, DoNAI.parse("john@example.com"))
    kind.configure({"user_case_counts": True})
    assert [str(one) for one in kind.identities(peer)] == ["John@example.com"]
    assert not kind.names(peer, DoNAI.parse("john@example.com"))


def test_many_names_take_bounded_work(pki: Any, kind: X509Type) -> None:
    peer = pki.peer(kind, pki.root().issue(*[f"h{number}.example.com" for number in range(1500)]))
    assert len(kind.identities(peer)) == MAX_IDENTITIES
    assert kind.names(peer, DoNAI.parse("h1499.example.com"))


@given(st.lists(st.text(max_size=40), max_size=5), st.lists(st.text(max_size=40), max_size=5))
def test_any_names_give_identities_or_nothing(hosts: list[str], mailboxes: list[str]) -> None:
    names = Names(tuple(hosts), tuple(mailboxes))
    for identity in names.identities():
        assert names.name(identity)
        assert "*" not in str(identity)
    assert all(identity.user is None for identity in Names(tuple(hosts)).identities())
    assert all(identity.user is not None for identity in Names((), tuple(mailboxes)).identities())
    assert not names.name(DoNAI("not.among.them.example"))


@given(st.binary(max_size=200), st.booleans())
def test_any_content_of_an_utf8_mailbox(content: bytes, as_string: bool) -> None:
    header = b"\x0c" + (bytes([len(content)]) if len(content) < 128 else b"\x81" + bytes([len(content)]))
    other = x509.OtherName(SMTP_UTF8_MAILBOX, header + content if as_string else content)
    for text in _utf8_mailboxes(x509.SubjectAlternativeName([other])):
        assert as_string or content[:1] == b"\x0c"
        assert not text.isascii()


def test_descriptions(pki: Any, kind: X509Type) -> None:
    peer = pki.peer(kind, pki.root().issue("www.example.com", "john@example.com", name="example.com"))
    assert kind.describe(peer, "subject") == "CN=example.com"
    assert kind.describe(peer, "issuer") == "CN=Root"
    assert kind.describe(peer, "subjectaltname") == "dns:www.example.com, email:john@example.com"
    assert kind.describe(peer, "serial") is None
    assert kind.describe(pki.peer(kind, pki.root().issue("example.com")), "subject") is None
