"""Do pins hold: those of an operator, and those that are kept on first use?"""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tlspool_x509.credential_type import X509Type

from tlspool_core.api import Denied, Role, Verdict


def _spki(holder: Any) -> Any:
    return holder.certificate.public_key()


@pytest.mark.parametrize("form", ["certificate", "public key", "hash"])
def test_an_operator_pins(pki: Any, kind: X509Type, form: str) -> None:
    holder, other = pki.self_signed("example.com"), pki.self_signed("example.com")
    der = _spki(holder).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    data = {
        "certificate": holder.pem,
        "public key": _spki(holder).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "hash": b"sha256//" + base64.b64encode(sha256(der).digest()) + b"\n",
    }[form]
    backend = pki.trusting(kind, data, pinned=True)
    context = pki.context(kind, backend, pki.peer(kind, holder), wanted="example.com")
    assert pki.establish(kind, "P", context).verdict is Verdict.STRICT
    assert (
        pki.establish(kind, "P", pki.context(kind, backend, pki.peer(kind, other), wanted="example.com")).verdict
        is not Verdict.STRICT
    )


def test_a_pin_serves_only_whom_the_certificate_names(pki: Any, kind: X509Type) -> None:
    holder = pki.self_signed("example.com")
    backend = pki.trusting(kind, holder.pem, pinned=True)
    finding = pki.establish(kind, "P", pki.context(kind, backend, pki.peer(kind, holder), wanted="example.org"))
    assert finding.verdict is Verdict.LENIENT
    # as a client nobody in particular is wanted
    assert pki.establish(kind, "P", pki.context(kind, backend, pki.peer(kind, holder), "client")).verdict is Verdict.STRICT


def test_a_pin_has_roles(pki: Any, kind: X509Type) -> None:
    holder = pki.self_signed("example.com")
    backend = pki.trusting(kind, holder.pem, pinned=True, roles=Role.CLIENT)
    context = pki.context(kind, backend, pki.peer(kind, holder), "server", wanted="example.com")
    assert pki.establish(kind, "P", context).verdict is not Verdict.STRICT


def test_a_pin_is_no_anchor(pki: Any, kind: X509Type) -> None:
    holder = pki.self_signed("example.com")
    backend = pki.trusting(kind, holder.pem, pinned=True)
    assert pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, holder))).verdict is Verdict.LENIENT


def test_first_use(pki: Any, kind: X509Type) -> None:
    backend = pki.trusting(kind)
    first, second = pki.self_signed("example.com"), pki.self_signed("example.com")
    context = pki.context(kind, backend, pki.peer(kind, first), wanted="example.com")
    finding = pki.establish(kind, "P", context)
    assert finding.verdict is Verdict.LENIENT
    assert not list(_trusts(backend)), "nothing is pinned before policy has accepted the peer"
    assert finding.on_accept is not None
    finding.on_accept()
    assert pki.establish(kind, "P", context).verdict is Verdict.STRICT
    changed = pki.establish(kind, "P", pki.context(kind, backend, pki.peer(kind, second), wanted="example.com"))
    assert changed.verdict is Verdict.FALSE
    assert "another credential is pinned for example.com" in changed.reason
    elsewhere = pki.context(kind, backend, pki.peer(kind, second), wanted="example.org")
    assert pki.establish(kind, "P", elsewhere).verdict is Verdict.LENIENT
    as_client = pki.context(kind, backend, pki.peer(kind, second), "client", wanted="example.com")
    assert pki.establish(kind, "P", as_client).verdict is Verdict.LENIENT


def _trusts(backend: Any) -> list[Any]:
    with backend.read() as databases:
        return list(databases.trusts())


def test_two_first_uses_at_a_time(pki: Any, kind: X509Type) -> None:
    backend = pki.trusting(kind)
    holders = [pki.self_signed("example.com") for _ in range(2)]
    findings = [
        pki.establish(kind, "P", pki.context(kind, backend, pki.peer(kind, holder), wanted="example.com")) for holder in holders
    ]
    findings[0].on_accept()
    findings[0].on_accept()
    assert len(_trusts(backend)) == 1
    with pytest.raises(Denied, match="another credential was pinned"):
        findings[1].on_accept()
    assert len(_trusts(backend)) == 1


@pytest.mark.parametrize(("what", "verdict"), [("key", Verdict.STRICT), ("certificate", Verdict.FALSE)])
def test_a_renewed_certificate_with_the_same_key(pki: Any, kind: X509Type, what: str, verdict: Verdict) -> None:
    kind.configure({"pin": what})
    backend, root, key = pki.trusting(kind), pki.root(), pki.key("p256")
    old, new = (pki.peer(kind, root.issue("example.com", key=key)) for _ in range(2))
    pki.establish(kind, "P", pki.context(kind, backend, old, wanted="example.com")).on_accept()
    assert pki.establish(kind, "P", pki.context(kind, backend, new, wanted="example.com")).verdict is verdict


def test_nobody_to_pin_for(pki: Any, kind: X509Type) -> None:
    peer = pki.peer(kind, pki.root().issue(name="somebody"))
    finding = pki.establish(kind, "P", pki.context(kind, pki.trusting(kind), peer, "client"))
    assert finding.verdict is Verdict.FALSE
    assert "names nobody" in finding.reason


def test_a_revoked_pin(pki: Any, kind: X509Type) -> None:
    holder = pki.self_signed("example.com")
    backend = pki.trusting(kind)
    pki.trust(backend, kind, holder.pem, pinned=True, revoked=True)
    context = pki.context(kind, backend, pki.peer(kind, holder), wanted="example.com")
    assert pki.establish(kind, "P", context).verdict is Verdict.FALSE
    assert pki.establish(kind, "T", context).verdict is Verdict.FALSE
