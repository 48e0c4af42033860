"""Which chains lead to an anchor, which do not, and does the reason tell what to mend?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tlspool_x509.credential_type import X509Type
from tlspool_x509.names import SMTP_UTF8_MAILBOX

from tlspool_core.api import Role, Verdict

DAY = timedelta(days=1)


def test_an_end_certificate_of_a_trusted_root(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    backend = pki.trusting(kind, root.pem)
    finding = pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, root.issue("example.com"))))
    assert finding.verdict is Verdict.STRICT
    assert "CN=Root" in finding.reason


def test_intermediates_in_any_order_with_strangers_between(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    upper = root.authority("Upper")
    lower = upper.authority("Lower")
    backend = pki.trusting(kind, root.der)
    peer = pki.peer(kind, lower.issue("example.com"), upper, pki.root("Stranger"), lower)
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.STRICT


@pytest.mark.parametrize("issuer", ["p256", "p384", "p521", "rsa2048", "ed25519", "ed448", "mldsa65"])
@pytest.mark.parametrize("leaf", ["p256", "ed25519", "mldsa65"])
def test_keys_that_tls_signs_with(pki: Any, kind: X509Type, issuer: str, leaf: str) -> None:
    root = pki.root(key=pki.key(issuer))
    middle = root.authority("Middle", key=pki.key(issuer))
    backend = pki.trusting(kind, root.der)
    peer = pki.peer(kind, middle.issue("example.com", key=pki.key(leaf)), middle)
    finding = pki.establish(kind, "T", pki.context(kind, backend, peer))
    assert finding.verdict is Verdict.STRICT, finding.reason


def test_an_eddsa_root_with_a_false_child(pki: Any, kind: X509Type) -> None:
    root = pki.root(key=pki.key("ed25519"))
    impostor = pki.root(key=pki.key("ed25519"))
    false = impostor.issue("example.com")
    # claims the true root's key identifier, so that the root is found
    true_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key())
    builder = x509.CertificateBuilder(
        false.certificate.issuer, false.certificate.subject, false.key.public_key(), 7, pki.now - DAY, pki.now + DAY
    )
    builder = builder.add_extension(true_id, critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("example.com")]), critical=True)
    false.certificate = builder.sign(impostor.key, None)
    backend = pki.trusting(kind, root.der)
    finding = pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, false)))
    assert finding.verdict is Verdict.FALSE
    assert "signature" in finding.reason


def test_eddsa_issuers_obey_the_other_rules(pki: Any, kind: X509Type) -> None:
    root = pki.root(key=pki.key("ed25519"), pathlen=0)
    middle = root.authority("Middle", key=pki.key("ed25519"))
    backend = pki.trusting(kind, root.der)
    finding = pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, middle.issue("example.com"), middle)))
    assert finding.verdict is Verdict.FALSE
    assert "path length" in finding.reason


def _expired(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    return root, [root.issue("example.com", lasts=(pki.now - 9 * DAY, pki.now - DAY))]


def _not_yet(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    return root, [root.issue("example.com", lasts=(pki.now + DAY, pki.now + 9 * DAY))]


def _expired_issuer(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    middle = root.authority("Middle", lasts=(pki.now - 9 * DAY, pki.now - DAY))
    return root, [middle.issue("example.com"), middle]


def _client_only(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    return root, [root.issue("example.com", usages=[ExtendedKeyUsageOID.CLIENT_AUTH])]


def _mail_issuer(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
    middle = root.authority("Middle", extra=[(usage, False)])
    return root, [middle.issue("example.com"), middle]


def _untrusted(pki: Any) -> tuple[Any, list[Any]]:
    return pki.root("Known"), [pki.root("Unknown").issue("example.com")]


def _no_signer(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    middle = root.authority("Middle", digital_signature=True)
    return root, [middle.issue("example.com"), middle]


def _name_constrained(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    constraints = x509.NameConstraints([x509.DNSName("example.org")], None)
    middle = root.authority("Middle", extra=[(constraints, True)])
    return root, [middle.issue("example.com"), middle]


def _unknown_critical(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55738.1"), b"\x05\x00")
    return root, [root.issue("example.com", extra=[(strange, True)])]


def _missing_intermediate(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    return root, [root.authority("Middle").issue("example.com")]


def _false_common_name(pki: Any) -> tuple[Any, list[Any]]:
    root = pki.root()
    return root, [root.issue("example.com", name="victim.example.org")]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (_expired, "expired on 2026-05-31"),
        (_not_yet, "is not valid before 2026-06-02"),
        (_expired_issuer, "not valid at validation time"),
        (_client_only, "extendedKeyUsage does not allow use as a TLS server"),
        (_mail_issuer, "extendedKeyUsage of an issuer"),
        (_untrusted, "no trust anchor for its issuer CN=Unknown"),
        (_no_signer, "lacks keyCertSign"),
        (_name_constrained, "name constraint"),
        (_unknown_critical, "1.3.6.1.4.1.55738.1"),
        (_missing_intermediate, "no trust anchor for its issuer CN=Middle"),
        (_false_common_name, "the common name victim.example.org"),
    ],
)
def test_what_is_refused_says_why(pki: Any, kind: X509Type, case: Any, reason: str) -> None:
    root, shown = case(pki)
    backend = pki.trusting(kind, root.pem)
    finding = pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, *shown)))
    assert finding.verdict is Verdict.FALSE
    assert reason in finding.reason


def test_the_common_name_rule_can_be_switched_off(pki: Any, kind: X509Type) -> None:
    root, shown = _false_common_name(pki)
    kind.configure({"common_name_must_match": False})
    backend = pki.trusting(kind, root.pem)
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, *shown))).verdict is Verdict.STRICT


def test_self_signed_is_the_lenient_form_only(pki: Any, kind: X509Type) -> None:
    backend = pki.trusting(kind)
    peer = pki.peer(kind, pki.self_signed("example.com"))
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.LENIENT
    expired = pki.self_signed("example.com", lasts=(pki.now - 2 * DAY, pki.now - DAY))
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, expired))).verdict is Verdict.FALSE
    forged = pki.self_signed("example.com", signer=pki.key("p256"))
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, forged))).verdict is Verdict.FALSE
    client = pki.self_signed("example.com", usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, client))).verdict is Verdict.FALSE


def test_a_self_signed_certificate_that_is_an_anchor(pki: Any, kind: X509Type) -> None:
    holder = pki.self_signed("example.com", key=pki.key("ed25519"))
    backend = pki.trusting(kind, holder.pem)
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, holder))).verdict is Verdict.STRICT
    other = pki.self_signed("example.com", key=holder.key)
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, other))).verdict is Verdict.LENIENT


def test_an_intermediate_can_be_the_anchor(pki: Any, kind: X509Type) -> None:
    middle = pki.root().authority("Middle")
    backend = pki.trusting(kind, middle.pem)
    assert (
        pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, middle.issue("example.com")))).verdict is Verdict.STRICT
    )


def test_roles_of_anchors(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    backend = pki.trusting(kind, root.pem, roles=Role.CLIENT)
    peer = pki.peer(kind, root.issue("john@example.com"))
    assert pki.establish(kind, "T", pki.context(kind, backend, peer, "client")).verdict is Verdict.STRICT
    assert pki.establish(kind, "T", pki.context(kind, backend, peer, "server")).verdict is Verdict.FALSE


def test_distrust_wins(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    middle = root.authority("Middle")
    backend = pki.trusting(kind, root.pem)
    peer = pki.peer(kind, middle.issue("example.com"), middle)
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.STRICT
    pki.trust(backend, kind, middle.pem, revoked=True)
    finding = pki.establish(kind, "T", pki.context(kind, backend, peer))
    assert finding.verdict is Verdict.FALSE
    assert "CN=Middle is marked as revoked" in finding.reason


def test_a_change_of_the_database_counts_at_once(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    backend = pki.trusting(kind)
    peer = pki.peer(kind, root.issue("example.com"))
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.FALSE
    pki.trust(backend, kind, root.pem)
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.STRICT
    with backend.write() as databases:
        for record in list(databases.trusts("x509")):
            databases.delete_trust(record.key)
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.FALSE


def test_a_kept_outcome_does_not_outlive_the_certificate(pki: Any) -> None:
    now = [pki.now]
    kind = X509Type(clock=lambda: now[0])
    root = pki.root()
    backend = pki.trusting(kind, root.pem)
    peer = pki.peer(kind, root.issue("example.com", lasts=(pki.now - DAY, pki.now + DAY)))
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.STRICT
    now[0] += 2 * DAY
    assert pki.establish(kind, "T", pki.context(kind, backend, peer)).verdict is Verdict.FALSE


def test_the_system_store_vouches_for_servers_only(pki: Any, kind: X509Type, tmp_path: Any) -> None:
    root = pki.root()
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# comment\n" + pki.root("Other").pem + root.pem)
    kind.configure({"system_store": str(bundle)})
    backend = pki.trusting(kind)
    peer = pki.peer(kind, root.issue("example.com", "john@example.com"))
    assert pki.establish(kind, "T", pki.context(kind, backend, peer, "server")).verdict is Verdict.STRICT
    assert pki.establish(kind, "T", pki.context(kind, backend, peer, "client")).verdict is Verdict.FALSE
    kind.configure({"system_store": str(bundle), "system_store_roles": ["client", "server"]})
    assert pki.establish(kind, "T", pki.context(kind, backend, peer, "client")).verdict is Verdict.STRICT


def test_mailboxes_under_name_constraints(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    for subtree, mailbox, verdict in (
        (x509.RFC822Name("example.com"), "john@example.com", Verdict.STRICT),
        (x509.RFC822Name("example.com"), "john@mail.example.com", Verdict.FALSE),
        (x509.RFC822Name("mary@example.com"), "john@example.com", Verdict.FALSE),
        (x509.RFC822Name("john@example.com"), "john@example.com", Verdict.STRICT),
        (x509.RFC822Name(".example.com"), "john@mail.example.com", Verdict.STRICT),
        (x509.RFC822Name(".example.com"), "john@example.com", Verdict.FALSE),
        (x509.DNSName("example.com"), "john@example.com", Verdict.STRICT),
        (x509.DNSName("example.com"), "john@example.org", Verdict.FALSE),
    ):
        middle = root.authority("Middle", extra=[(x509.NameConstraints([subtree], None), True)])
        backend = pki.trusting(kind, root.pem)
        peer = pki.peer(kind, middle.issue(mailbox), middle)
        finding = pki.establish(kind, "T", pki.context(kind, backend, peer, "client"))
        assert finding.verdict is verdict, (subtree, mailbox, finding.reason)


def test_utf8_mailboxes_under_name_constraints(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    text = "jörg@mail.example.com".encode()
    other = x509.OtherName(SMTP_UTF8_MAILBOX, b"\x0c" + bytes([len(text)]) + text)
    for domain, verdict in (("mail.example.com", Verdict.STRICT), (".example.com", Verdict.STRICT), ("example.com", Verdict.FALSE)):
        middle = root.authority("Middle", extra=[(x509.NameConstraints([x509.RFC822Name(domain)], None), True)])
        peer = pki.peer(kind, middle.issue(alternative_names=[other]), middle)
        finding = pki.establish(kind, "T", pki.context(kind, pki.trusting(kind, root.pem), peer, "client"))
        assert finding.verdict is verdict, finding.reason


def _organisation(name: str, organisation: str = "Example") -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            *([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []),
        ]
    )


def test_directory_names_under_name_constraints(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    inside, outside = _organisation(""), x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Elsewhere")])
    folded = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "  EXAMPLE ")])
    for constraints, verdict in (
        (x509.NameConstraints([x509.DirectoryName(inside)], None), Verdict.STRICT),
        (x509.NameConstraints([x509.DirectoryName(folded)], None), Verdict.STRICT),
        (x509.NameConstraints([x509.DirectoryName(outside)], None), Verdict.FALSE),
        (x509.NameConstraints(None, [x509.DirectoryName(inside)]), Verdict.FALSE),
        (x509.NameConstraints([x509.DirectoryName(inside), x509.DNSName("example.com")], None), Verdict.STRICT),
        (x509.NameConstraints([x509.DirectoryName(inside), x509.DNSName("example.org")], None), Verdict.FALSE),
    ):
        middle = root.authority("Middle", extra=[(constraints, True)])
        alternatives = [x509.DNSName("www.example.com"), x509.DirectoryName(_organisation("www"))]
        peer = pki.peer(kind, middle.issue(alternative_names=alternatives), middle)
        finding = pki.establish(kind, "T", pki.context(kind, pki.trusting(kind, root.pem), peer))
        assert finding.verdict is verdict, (constraints, finding.reason)


def test_predicates_see_a_new_configuration(pki: Any, kind: X509Type) -> None:
    predicates = {one.letter: one for one in kind.predicates()}
    root, shown = _false_common_name(pki)
    backend = pki.trusting(kind, root.pem)
    context = pki.context(kind, backend, pki.peer(kind, *shown))
    assert predicates["T"].establish(context).verdict is Verdict.FALSE
    kind.configure({"common_name_must_match": False})
    assert predicates["T"].establish(context).verdict is Verdict.STRICT
