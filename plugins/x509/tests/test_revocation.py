"""Do revocation lists, stapled OCSP responses and required extensions count as they should?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tlspool_x509.credential_type import X509Type
from tlspool_x509.ocsp import BadResponse, certificate_status

from tlspool_core.api import TrustRecord, Verdict

DAY = timedelta(days=1)
POINT = x509.CRLDistributionPoints(
    [x509.DistributionPoint([x509.UniformResourceIdentifier("http://example.com/root.crl")], None, None, None)]
)


def _verdict(pki: Any, kind: X509Type, letter: str, backend: Any, peer: Any, **options: Any) -> Verdict:
    verdict: Verdict = pki.establish(kind, letter, pki.context(kind, backend, peer, **options)).verdict
    return verdict


# --- lists --------------------------------------------------------------------------------------------------------------------


def test_a_clean_list_for_every_issuer(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    middle = root.authority("Middle")
    peer = pki.peer(kind, middle.issue("example.com"), middle)
    backend = pki.trusting(kind, root.pem)
    assert _verdict(pki, kind, "R", backend, peer) is Verdict.LENIENT
    pki.trust(backend, kind, middle.revocation_list())
    assert _verdict(pki, kind, "R", backend, peer) is Verdict.LENIENT
    pki.trust(backend, kind, root.revocation_list())
    assert _verdict(pki, kind, "R", backend, peer) is Verdict.STRICT


def test_what_is_on_a_list_is_not_trusted_either(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    middle = root.authority("Middle")
    good, bad = middle.issue("example.com"), middle.issue("example.org")
    backend = pki.trusting(kind, root.pem, middle.revocation_list(bad))
    assert _verdict(pki, kind, "T", backend, pki.peer(kind, good, middle)) is Verdict.STRICT
    for letter in "TR":
        finding = pki.establish(kind, letter, pki.context(kind, backend, pki.peer(kind, bad, middle)))
        assert finding.verdict is Verdict.FALSE
        assert "revoked by CN=Middle" in finding.reason
    pki.trust(backend, kind, root.revocation_list(middle))
    assert _verdict(pki, kind, "T", backend, pki.peer(kind, good, middle)) is Verdict.FALSE


def test_an_announced_list_that_is_not_there(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    peer = pki.peer(kind, root.issue("example.com", extra=[(POINT, False)]))
    finding = pki.establish(kind, "R", pki.context(kind, pki.trusting(kind, root.pem), peer))
    assert finding.verdict is Verdict.FALSE
    assert "the certificate says where" in finding.reason


def _scope(root: Any, **options: Any) -> bytes:
    chosen = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
        **options,
    }
    made: bytes = root.revocation_list(extra=[(x509.IssuingDistributionPoint(**chosen), True)])
    return made


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda root, pki: root.revocation_list(), Verdict.STRICT),
        (lambda root, pki: root.revocation_list(last=pki.now - 9 * DAY, next=pki.now - DAY), Verdict.FALSE),
        (lambda root, pki: root.revocation_list(last=pki.now + DAY, next=pki.now + 2 * DAY), Verdict.FALSE),
        (lambda root, pki: root.revocation_list(signer=pki.key("p256")), Verdict.FALSE),
        (lambda root, pki: _scope(root, only_contains_user_certs=True), Verdict.STRICT),
        (lambda root, pki: _scope(root, only_contains_ca_certs=True), Verdict.FALSE),
        (lambda root, pki: _scope(root, indirect_crl=True), Verdict.FALSE),
        (lambda root, pki: _scope(root, only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])), Verdict.FALSE),
        (lambda root, pki: _scope(root, full_name=[x509.UniformResourceIdentifier("http://example.org/")]), Verdict.FALSE),
    ],
)
def test_only_lists_that_are_the_issuers_word_count(pki: Any, kind: X509Type, make: Any, verdict: Verdict) -> None:
    root = pki.root()
    backend = pki.trusting(kind, root.pem, make(root, pki))
    assert _verdict(pki, kind, "R", backend, pki.peer(kind, root.issue("example.com"))) is verdict


def test_lists_that_could_never_count_are_not_taken(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    delta = root.revocation_list(extra=[(x509.DeltaCRLIndicator(1), True)])
    with pytest.raises(ValueError, match="delta list"):
        kind.import_trust(delta, pinned=False)
    builder = x509.CertificateRevocationListBuilder(root.certificate.subject, pki.now - DAY, pki.now + DAY)
    with pytest.raises(ValueError, match="no cRLNumber"):
        kind.import_trust(builder.sign(root.key, SHA256()).public_bytes(Encoding.DER), pinned=False)
    # where it got into the database all the same, it counts for nothing
    backend = pki.trusting(kind, root.pem)
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    with backend.write() as databases:
        databases.put_trust(TrustRecord(key=identifier, type="x509", blob=delta))
    assert _verdict(pki, kind, "R", backend, pki.peer(kind, root.issue("example.com"))) is Verdict.FALSE


def test_a_list_without_key_identifier(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    builder = x509.CertificateRevocationListBuilder(root.certificate.subject, pki.now - DAY, pki.now + DAY)
    bare = builder.add_extension(x509.CRLNumber(1), critical=False).sign(root.key, SHA256()).public_bytes(Encoding.DER)
    backend = pki.trusting(kind, root.pem, bare)
    assert _verdict(pki, kind, "R", backend, pki.peer(kind, root.issue("example.com"))) is Verdict.STRICT


@pytest.mark.parametrize("kind_of_key", ["rsa2048", "ed25519", "mldsa65"])
def test_lists_of_other_keys(pki: Any, kind: X509Type, kind_of_key: str) -> None:
    root = pki.root(key=pki.key(kind_of_key))
    backend = pki.trusting(kind, root.pem, root.revocation_list())
    assert _verdict(pki, kind, "R", backend, pki.peer(kind, root.issue("example.com"))) is Verdict.STRICT


def test_the_newest_list_counts_and_an_outdated_one_still_condemns(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    holder = root.issue("example.com")
    peer = pki.peer(kind, holder)
    old = root.revocation_list(holder, number=1)
    backend = pki.trusting(kind, root.pem, root.revocation_list(number=2), old)
    assert _verdict(pki, kind, "R", backend, peer) is Verdict.STRICT
    outdated = root.revocation_list(holder, number=3, last=pki.now - 9 * DAY, next=pki.now - DAY)
    pki.trust(backend, kind, outdated)
    assert _verdict(pki, kind, "T", backend, peer) is Verdict.FALSE


# --- stapled responses --------------------------------------------------------------------------------------------------------


def staple(pki: Any, root: Any, holder: Any, status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD, **options: Any) -> bytes:
    """DER; options: `issuer`, `signer`, `this`, `next`, `hash`, `shown` certificates."""
    signer = options.get("signer", root)
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=holder.certificate,
        issuer=options.get("issuer", root).certificate,
        algorithm=options.get("hash", SHA256()),
        cert_status=status,
        this_update=options.get("this", pki.now - DAY),
        next_update=options.get("next", pki.now + DAY),
        revocation_time=pki.now - DAY if status is ocsp.OCSPCertStatus.REVOKED else None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if shown := options.get("shown"):
        builder = builder.certificates([one.certificate for one in shown])
    algorithm = SHA256() if type(signer.key).__name__[0] in "ER" and "Ed" not in type(signer.key).__name__ else None
    return builder.sign(signer.key, algorithm).public_bytes(Encoding.DER)


@pytest.mark.parametrize("key", ["p256", "rsa2048", "ed25519"])
@pytest.mark.parametrize("algorithm", [SHA1(), SHA256()])  # noqa: S303 - responders still identify certificates by it
def test_what_the_issuer_says(pki: Any, kind: X509Type, key: str, algorithm: Any) -> None:
    root = pki.root(key=pki.key(key))
    holder = root.issue("example.com")
    backend, peer = pki.trusting(kind, root.pem), pki.peer(kind, holder)
    for status, verdict in (
        (ocsp.OCSPCertStatus.GOOD, Verdict.STRICT),
        (ocsp.OCSPCertStatus.UNKNOWN, Verdict.LENIENT),
        (ocsp.OCSPCertStatus.REVOKED, Verdict.FALSE),
    ):
        response = staple(pki, root, holder, status, hash=algorithm)
        assert _verdict(pki, kind, "O", backend, peer, ocsp=response) is verdict
    assert _verdict(pki, kind, "T", backend, peer, ocsp=response) is Verdict.FALSE, "it says that the certificate is revoked"
    assert _verdict(pki, kind, "O", backend, peer) is Verdict.FALSE


def test_responders_by_delegation(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    holder = root.issue("example.com")
    backend, peer = pki.trusting(kind, root.pem), pki.peer(kind, holder)
    signing = [ExtendedKeyUsageOID.OCSP_SIGNING]
    good = root.issue(name="Responder", usages=signing)
    server = root.issue("responder.example.com")
    stranger = pki.root("Other").issue(name="Responder", usages=signing)
    expired = root.issue(name="Responder", usages=signing, lasts=(pki.now - 9 * DAY, pki.now - DAY))
    for signer, verdict in ((good, Verdict.STRICT), (server, Verdict.FALSE), (stranger, Verdict.FALSE), (expired, Verdict.FALSE)):
        response = staple(pki, root, holder, signer=signer, shown=[signer])
        assert _verdict(pki, kind, "O", backend, peer, ocsp=response) is verdict


def test_responses_that_prove_nothing(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    holder, other = root.issue("example.com"), root.issue("example.com")
    backend, peer = pki.trusting(kind, root.pem), pki.peer(kind, holder)
    refused = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER)
    for response in (
        refused,
        b"",
        b"\x30\x03\x0a\x01\x00",
        bytes(70_000),
        staple(pki, root, other),
        staple(pki, root, holder, signer=pki.root()),
        staple(pki, root, holder, issuer=pki.root("Other")),
        staple(pki, root, holder, this=pki.now - 9 * DAY, next=pki.now - DAY),
        staple(pki, root, holder, this=pki.now - 9 * DAY, next=None),
        staple(pki, root, holder, this=pki.now + DAY, next=pki.now + 2 * DAY),
    ):
        assert _verdict(pki, kind, "O", backend, peer, ocsp=response) is Verdict.FALSE
        assert _verdict(pki, kind, "T", backend, peer, ocsp=response) is Verdict.STRICT


def test_a_certificate_can_demand_a_staple(pki: Any, kind: X509Type) -> None:
    """RFC 7633 section 4.2.3.1."""
    root = pki.root()
    holder = root.issue("example.com", extra=[(x509.TLSFeature([x509.TLSFeatureType.status_request]), False)])
    backend, peer = pki.trusting(kind, root.pem), pki.peer(kind, holder)
    assert _verdict(pki, kind, "T", backend, peer) is Verdict.FALSE
    assert _verdict(pki, kind, "T", backend, peer, ocsp=b"\x30\x00") is Verdict.FALSE
    assert _verdict(pki, kind, "T", backend, peer, ocsp=staple(pki, root, holder)) is Verdict.STRICT
    assert _verdict(pki, kind, "T", backend, peer, resumed=True) is Verdict.STRICT
    assert _verdict(pki, kind, "T", backend, peer, role="client") is Verdict.STRICT


@settings(max_examples=300)
@given(st.data())
def test_changed_responses_are_never_good_news(pki: Any, data: st.DataObject) -> None:
    root, holder, response = _sample(pki)
    changed = bytearray(response)
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        status = certificate_status(bytes(changed), holder.certificate, root.certificate, pki.now)
    except BadResponse:
        return
    # what is signed is the same; elsewhere there is slack only in the certificates and in how the signature is written
    assert status is ocsp.OCSPCertStatus.GOOD
    parsed, original = ocsp.load_der_ocsp_response(bytes(changed)), ocsp.load_der_ocsp_response(response)
    assert parsed.tbs_response_bytes == original.tbs_response_bytes


_made: list[Any] = []


def _sample(pki: Any) -> Any:
    if not _made:
        root = pki.root()
        holder = root.issue("example.com")
        _made.extend((root, holder, staple(pki, root, holder)))
    return _made


# --- extensions that a service asks for ---------------------------------------------------------------------------------------


def test_extensions_that_a_service_asks_for(pki: Any, kind: X509Type) -> None:
    kind.configure({"extensions": {"imap": ["critical:2.5.29.15", "2.5.29.32"]}})
    root = pki.root()
    policies = (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)]), False)
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    backend = pki.trusting(kind, root.pem)
    for extra, verdict in (
        ([policies, (usage, True)], Verdict.STRICT),
        ([policies, (usage, False)], Verdict.LENIENT),
        ([policies], Verdict.FALSE),
    ):
        peer = pki.peer(kind, root.issue("example.com", extra=extra))
        assert _verdict(pki, kind, "E", backend, peer, service="imap") is verdict
        assert _verdict(pki, kind, "E", backend, peer, service="http") is Verdict.FALSE


def test_predicates_are_for_certificates_only(pki: Any, kind: X509Type) -> None:
    backend = pki.trusting(kind)
    for letter in "TPROE":
        assert pki.establish(kind, letter, pki.context(kind, backend, None)).verdict is Verdict.FALSE
    assert {predicate.letter for predicate in kind.predicates()} == set("TPROE")
    assert all(predicate.types == {"x509"} for predicate in kind.predicates())
