"""Does `tlspool token certify` pass what works, find each thing that does not, and write a report without secrets?"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tlspool_pkcs11 import library as ck
from tlspool_pkcs11.certify import Report, certify
from tlspool_pkcs11.commands import token

from tlspool_core.api import PinRequest, Secret

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "123456"
P256 = bytes.fromhex("06082a8648ce3d030107")
NAMES = [
    "loads and shows its tokens",
    "signs with every scheme",
    "keeps its keys",
    "refuses in good order",
    "signs 40 at a time",
    "is looked through anew",
    "comes back after a crash",
]


@dataclass
class Context:
    """What `tlspool` hands to its commands."""

    section: dict[str, Any]
    json: bool = False
    asked: list[PinRequest] = field(default_factory=list)

    async def ask_pin(self, request: PinRequest) -> Secret | None:
        self.asked.append(request)
        return Secret.of(PIN.encode())

    def settings(self, kind: str, name: str) -> dict[str, Any]:
        return self.section


@pytest.fixture
def good(hsm: Any, tmp_path: Path) -> Any:
    """A token with keys as a vendor would make them for the kit."""
    made = type(hsm)(tmp_path / "good")
    made.new_token("Kit")
    for kind, label in (("EC:prime256v1", "ec"), ("rsa:2048", "rsa")):
        tool = ("pkcs11-tool", "--module", SOFTHSM, "--token-label", "Kit", "--login", "--pin", PIN)
        made.run(*tool, "--keypairgen", "--key-type", kind, "--label", label, "--id", "01" if label == "ec" else "02")
    return made


def failures(report: Report) -> dict[str, str]:
    return {trial.name: trial.found for trial in report.trials if not trial.passed}


def test_what_works_passes(good: Any, tmp_path: Path) -> None:
    context = Context({"modules": [good.module(pin_file=None)]})  # so the PIN is asked for
    file = tmp_path / "report.json"
    result = CliRunner().invoke(token, ["certify", "--signatures", "60", "--json", "--report", str(file)], obj=context)
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    assert json.loads(result.stdout) == report
    assert [trial["name"] for trial in report["trials"]] == NAMES
    assert (report["format"], report["passed"]) == (1, True)
    assert report["modules"] == [{"library": "SoftHSM Implementation of PKCS11 2.6", "tokens": ["SoftHSM project SoftHSM v2"]}]
    assert {key["algorithm"]: len(key["schemes"]) for key in report["keys"]} == {"EC secp256r1": 1, "RSA-2048": 9}
    assert all(rate["per_second"] > 0 and rate["slowest_ms"] >= rate["median_ms"] > 0 for rate in report["rates"])
    assert context.asked
    for private in (PIN, "Kit", "object="):
        assert private not in file.read_text()


def test_keys_that_can_leave_the_token_are_found(hsm: Any) -> None:
    result = CliRunner().invoke(token, ["certify", "--signatures", "5"], obj=Context({"modules": [hsm.module()]}))
    assert result.exit_code == 1
    assert "FAILED  keeps its keys: keys can leave the token (CKA_EXTRACTABLE): " in result.stderr
    assert result.stderr.count("FAILED") == 1
    assert "passed  comes back after a crash" in result.stderr
    assert result.stdout == ""


def test_a_person_pulls_the_token_and_puts_it_back(good: Any) -> None:
    def say(text: str) -> None:
        if "pull the token" in text:
            good.pull(True)
        elif "put it back" in text:
            good.pull(False)

    async def work(store: Any) -> None:
        report = await certify(store, signatures=5, pull=True, human=False, say=say)
        assert not failures(report)
        assert report.trials[-1].name == "is pulled and put back"

    good.use(work)


def test_signatures_that_do_not_verify_are_found(fake: Any, with_library: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    objects = {
        1: fake.key_object(ck.CKO_PRIVATE_KEY, 3, EC_PARAMS=P256),
        2: fake.key_object(ck.CKO_PUBLIC_KEY, 3, EC_PARAMS=P256, EC_POINT=point),
    }
    library = fake.FakeLibrary(objects, signer=lambda mechanism, parameters, data: bytes(63) + b"\1", flags=0x400)

    async def work(store: Any) -> None:
        report = await certify(store, signatures=5, pull=False, human=False, say=lambda text: None)
        assert list(failures(report)) == ["signs with every scheme"]
        assert not report.passed
        assert len(report.trials) == 2, "without a good key nothing else can be tried"

    with_library(library, work)


def test_a_library_that_cannot_be_loaded_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"no library")
    result = CliRunner().invoke(token, ["certify"], obj=Context({"modules": [{"path": str(tmp_path / "lib.so")}]}))
    assert result.exit_code == 1
    assert "FAILED  loads and shows its tokens: module " in result.stderr


def test_a_report_that_cannot_be_written_is_told_before_anything_is_tried(tmp_path: Path) -> None:
    result = CliRunner().invoke(token, ["certify", "--module", "/nonexistent.so", "--report", str(tmp_path / "no" / "report.json")])
    assert result.exit_code == 2
    assert "'--report'" in result.stderr and "No such file" in result.stderr
    assert "FAILED" not in result.stderr
