"""Is the configuration read strictly, and completed by what vendors and the machine offer?"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11.discovery import configured_modules, default_rows, vendor_rows
from tlspool_pkcs11.mechanisms import MECHANISMS
from tlspool_pkcs11.pins import PinSource
from tlspool_pkcs11.settings import ModuleSettings, module_settings, module_stem


def row(**more: Any) -> ModuleSettings:
    return module_settings("modules[1]", {"path": "/usr/lib/libacme.so.2", **more})


def test_a_full_row() -> None:
    made = row(
        name="acme",
        pin_file="/etc/pin",
        tokens={"Web": {"pin_env": "WEB"}, "Mail": {"pin_credential": "mail"}},
        timeout=3,
        login_timeout=90.5,
        disable_mechanisms=["CKM_ECDSA", 0x80000001],
        extra_mechanisms=["CKM_EDDSA"],
        environment={"ACME_CONF": "/etc/acme"},
        init_string="configdir=x",
        login="always",
        remember_pin=False,
        exclusive=True,
        errors_to_log=True,
    )
    assert made.pin_source("Other") == PinSource("file", "/etc/pin")
    assert made.pin_source("Web") == PinSource("environment", "WEB")
    assert made.pin_source("Mail") == PinSource("credential", "mail")
    assert made.usable([MECHANISMS["CKM_ECDSA"], 0x80000001, 7]) == {7, MECHANISMS["CKM_EDDSA"]}
    assert (made.timeout, made.login_timeout) == (3.0, 90.5)


def test_the_name_is_that_of_the_library() -> None:
    assert row().name == "acme"
    assert module_stem("/usr/lib/p11-kit-proxy.so") == "p11-kit-proxy"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"path": "acme.so"}, r"modules\[1\].path: must be the absolute path"),
        ({"path": 3}, r"modules\[1\].path: must be of type str"),
        ({"pin": "123456"}, r"modules\[1\].pin: unknown key; did you mean 'pin_env'|unknown key"),
        ({"timeuot": 3}, "did you mean 'timeout'"),
        ({"timeout": 0}, r"modules\[1\].timeout: must be a number of seconds"),
        ({"timeout": True}, "must be a number of seconds"),
        ({"timeout": "3"}, "must be a number of seconds"),
        ({"pin_file": "pin"}, "pin_file: must be an absolute path"),
        ({"pin_env": ""}, "pin_env: must be the name"),
        ({"pin_credential": "../pin"}, "pin_credential: must be the name"),
        ({"pin_env": "A", "pin_file": "/pin"}, "only one of"),
        ({"login": "sometimes"}, "must be one of auto, always, never"),
        ({"disable_mechanisms": ["CKM_ECDSA_SHA265"]}, "did you mean CKM_ECDSA_SHA256"),
        ({"disable_mechanisms": "CKM_ECDSA"}, "must be a list"),
        ({"disable_mechanisms": [-1]}, "no signing mechanism"),
        ({"environment": "PATH"}, "must be a list of names"),
        ({"environment": {"PATH": 3}}, "must be a list of names"),
        ({"tokens": {"Web": {}}}, r"modules\[1\].tokens.Web: says nothing"),
        ({"tokens": {"Web": "1234"}}, "tokens.Web: must be a table"),
        ({"tokens": {"Web": {"pin": "1234"}}}, "tokens.Web.pin: unknown key"),
        ({"remember_pin": "yes"}, "must be of type bool"),
    ],
)
def test_what_is_refused_and_why(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        row(**more)


@pytest.mark.parametrize("settings", [{"module": []}, {"modules": {"path": "/a.so"}}, {"modules": ["/a.so"]}])
def test_a_section_of_another_shape_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="modul"):
        configured_modules(settings, [], [])


def test_two_modules_of_one_name_are_refused() -> None:
    rows = [{"path": "/a/libx.so"}, {"path": "/b/libx.so"}]
    with pytest.raises(ValueError, match="two modules are called 'x'"):
        configured_modules({"modules": rows}, [], [])


def test_without_modules_the_machines_own_are_used() -> None:
    default = [{"name": "soft", "path": "/usr/lib/soft.so"}]
    assert [module.name for module in configured_modules({}, [], default)] == ["soft"]
    assert configured_modules({"modules": []}, [], default) == []


def test_p11_kit_goes_before_softhsm(tmp_path: Path) -> None:
    (tmp_path / "softhsm").mkdir()
    (tmp_path / "softhsm/libsofthsm2.so").touch()
    assert default_rows([str(tmp_path)]) == [{"name": "softhsm", "path": str(tmp_path / "softhsm/libsofthsm2.so")}]
    (tmp_path / "p11-kit-proxy.so").touch()
    assert default_rows([str(tmp_path)]) == [{"name": "p11-kit", "path": str(tmp_path / "p11-kit-proxy.so")}]
    assert default_rows([str(tmp_path / "empty")]) == []


# --- packages of vendors -------------------------------------------------------------------------------------------------------

MODULE = {
    "name": "acme",
    "path": ["/nowhere/libacme.so", "/usr/lib/libacme.so"],
    "timeout": 30,
    "disable_mechanisms": ["CKM_ECDSA"],
}
MISSPELT = {"name": "acme", "path": "/usr/lib/libacme.so", "timeuot": 30}


def entry(attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    """An entry point as a vendor's package has it."""
    package = f"acme_vendor_{abs(hash(tmp_path))}"
    (tmp_path / f"{package}.py").write_text(f"MODULE = {MODULE}\nMISSPELT = {MISSPELT}\nNO_MAPPING = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return EntryPoint("acme", f"{package}:{attribute}", "tlspool.pkcs11.modules")


def test_a_vendors_description_completes_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendors, complaints = vendor_rows([entry("MODULE", tmp_path, monkeypatch)])
    assert complaints == []
    (module,) = configured_modules({"modules": [{"name": "acme", "pin_file": "/etc/pin", "timeout": 5}]}, vendors, [])
    # the operator's word is the last one
    assert (module.path, module.timeout) == ("/nowhere/libacme.so", 5.0)
    assert module.disable_mechanisms == {MECHANISMS["CKM_ECDSA"]}
    # and nothing of a library that is not on this machine is started by itself
    assert configured_modules({}, vendors, []) == []


def test_a_vendors_library_that_is_installed_is_used_without_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libacme.so"
    library.touch()
    monkeypatch.setitem(MODULE, "path", ["/nowhere/libacme.so", str(library)])
    vendors, _ = vendor_rows([entry("MODULE", tmp_path, monkeypatch)])
    (module,) = configured_modules({}, vendors, [{"name": "soft", "path": "/usr/lib/soft.so"}])
    assert module.path == str(library)


@pytest.mark.parametrize("attribute", ["MISSPELT", "NO_MAPPING", "MISSING"])
def test_a_description_that_cannot_be_read_stays_a_complaint(
    attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendors, complaints = vendor_rows([entry(attribute, tmp_path, monkeypatch)])
    assert vendors == []
    assert len(complaints) == 1
    assert "acme" in complaints[0]


def test_the_vendors_page_describes_what_works() -> None:
    page = (Path(__file__).parents[3] / "docs/quickstart-token-vendor.md").read_text()
    (block,) = (part for part in page.split("```") if part.startswith("python\n# tlspool_acme.py"))
    namespace: dict[str, Any] = {}
    exec(block.removeprefix("python\n"), namespace)  # noqa: S102 - our own page
    module = {**namespace["MODULE"], "path": namespace["MODULE"]["path"][0]}
    assert module_settings("page", module).exclusive
    spied = tomllib.loads(next(part for part in page.split("```toml") if "spied" in part).split("```")[0])
    (configured,) = configured_modules(spied["keystore"]["pkcs11"], [], [])
    assert configured.name == "spied"


def test_the_vendors_package_can_be_installed_with_its_test_beside_it(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/quickstart-token-vendor.md").read_text()
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("pyproject.toml", "tlspool_acme.py", "test_acme.py"):
        (block,) = (part for part in page.split("```") if part.partition("\n")[2].startswith(f"# {name}\n"))
        (source / name).write_text(block.partition("\n")[2])
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=100)
    assert (target / "tlspool_acme.py").exists()
    assert not (target / "test_acme.py").exists()
    (point,) = (point for found in distributions(path=[str(target)]) for point in found.entry_points)
    assert (point.group, point.name, point.value) == ("tlspool.pkcs11.modules", "acme", "tlspool_acme:MODULE")
