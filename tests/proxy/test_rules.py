"""Do rules mean the sites that they name and no others, are addresses that a relay must not reach known, and faults explained?"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from pathlib import Path

import h11
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.cli.proxy import proxy, read_settings
from tlspool_core.tools.http_proxy.pages import of_problem, pac
from tlspool_core.tools.http_proxy.problems import Problem
from tlspool_core.tools.http_proxy.rules import BadTarget, Destination, Pattern, Rules, Target, may_be_reached


@pytest.mark.parametrize(
    ("text", "port", "meant"),
    [
        ("example.com:443", 0, Target("example.com", 443)),
        ("EXAMPLE.com.:443", 0, Target("example.com", 443)),
        ("example.com", 80, Target("example.com", 80)),
        ("192.0.2.1:8080", 0, Target("192.0.2.1", 8080)),
        ("[2001:DB8::1]:443", 0, Target("2001:db8::1", 443)),
        ("[0:0:0:0:0:0:0:1]:443", 0, Target("::1", 443)),
    ],
)
def test_a_target(text: str, port: int, meant: Target) -> None:
    assert Target.parse(text, port) == meant
    assert Target.parse(str(meant)) == meant


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "a:", "a:0", "a:65536", "a:1:2", "a b:1", "a/b:1", "u@a:1", "[a]:1", "::1:443", "127.1:80", "0x7f000001:80"),
        *("2130706433:80", "1.2.3.4.5:80", "a.0x1:80", "-a.com:1", "a-.com:1", ".com:1", "a..b:1", "é.com:1", "a:１"),
        *(f"{'a' * 64}.com:1", f"{'a.' * 140}com:1"),
    ],
)
def test_no_target(text: str) -> None:
    with pytest.raises(BadTarget):
        Target.parse(text)


@given(st.text(max_size=40))
def test_a_target_or_a_reason(text: str) -> None:
    try:
        found = Target.parse(text, 443)
    except BadTarget:
        return
    assert Target.parse(found.authority(443), 443) == found


@pytest.mark.parametrize(
    ("pattern", "meant", "not_meant"),
    [
        ("www.example.com", ["www.example.com:443"], ["example.com:443", "www.example.com:8443", "a.www.example.com:443"]),
        ("*.Example.com", ["www.example.com:443", "a.b.example.com:443"], ["example.com:443", "evilexample.com:443"]),
        ("www.example.com:8443", ["www.example.com:8443"], ["www.example.com:443"]),
        ("www.example.com:*", ["www.example.com:1"], ["example.com:1"]),
        ("*", ["a.b:443"], ["a.b:444", "192.0.2.1:443", "[2001:db8::1]:443"]),
    ],
)
def test_a_pattern(pattern: str, meant: list[str], not_meant: list[str]) -> None:
    one = Pattern.parse(pattern)
    assert all(one.matches(Target.parse(text)) for text in meant)
    assert not any(one.matches(Target.parse(text)) for text in not_meant)


def test_the_first_that_matches_decides() -> None:
    first, second = (Destination((Pattern.parse(text),)) for text in ("www.example.com", "*.example.com"))
    rules = Rules((first, second))
    assert rules.destination(Target("www.example.com", 443)) is first
    assert rules.destination(Target("a.example.com", 443)) is second
    assert rules.destination(Target("example.com", 443)) is None


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255", "not an address", ""),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_not_for_relays(address: str) -> None:
    assert not may_be_reached(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "10.1.2.3", "192.168.1.1", "2001:db8::1", "fd00::1", "::ffff:192.0.2.1"])
def test_for_relays(address: str) -> None:
    assert may_be_reached(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_without_descriptors_nothing_is_for_relays(address: str) -> None:
    """Whose an address is cannot be found out then, and the next moment there is one to connect by."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        reached = may_be_reached(address)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not reached


@pytest.mark.skipif(not shutil.which("node"), reason="no JavaScript at hand: a browser reads it in test_browser")
def test_the_browser_is_told_the_same() -> None:
    patterns = [Pattern.parse(text) for text in ("*.example.com", "shop.example.org:8443", "any.example.net:*")]
    script = pac(patterns, Target("127.0.0.1", 8118)).body.decode()
    urls = {
        "https://www.example.com/a": "PROXY 127.0.0.1:8118",
        "http://www.example.com/a:8443/": "PROXY 127.0.0.1:8118",
        "wss://WWW.example.com./": "PROXY 127.0.0.1:8118",
        "https://www.example.com:8443/": "DIRECT",
        "https://example.com/": "DIRECT",
        "https://shop.example.org:8443/": "PROXY 127.0.0.1:8118",
        "http://shop.example.org:8443/?a": "PROXY 127.0.0.1:8118",
        "https://shop.example.org/": "DIRECT",
        "https://any.example.net:1/": "PROXY 127.0.0.1:8118",
        "https://192.0.2.1/": "DIRECT",
    }
    asked = f"const urls = {json.dumps([*urls])}; console.log(JSON.stringify(urls.map(u => FindProxyForURL(u, u.split('/')[2].split(':')[0]))))"
    done = subprocess.run(["node", "-e", script + asked], capture_output=True, check=True, timeout=20)
    assert dict(zip(urls, json.loads(done.stdout), strict=True)) == urls


def test_a_page_escapes_what_comes_from_elsewhere() -> None:
    request = h11.Request(method="GET", target="/", headers=[("Host", "x"), ("Accept", "text/html;q=0.9")])
    page = of_problem(Problem(502, "error", "<b>", '<script>"\r\n', "&amp;"), request)
    assert b"<b>" not in page.body and b"<script>" not in page.body and b"&amp;amp;" in page.body
    fields = dict(page.response().headers)
    assert b"default-src 'none'" in fields[b"content-security-policy"]
    assert fields[b"proxy-status"] == b"tlspool; error=error; details=\"<b> <script>'''\""


GOOD = '[[destination]]\nmatch = ["*.example.com"]\n'


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(f'other = "pass"\npass_ports = [443]\n{GOOD}localid = "john@example.com"\nconnect = "127.0.0.1:1"\n')
    settings = read_settings(file, None)
    assert (str(settings.listen), settings.rules.passes, settings.rules.ports) == ("127.0.0.1:8118", True, {443})
    assert settings.rules.destinations[0].localid == "john@example.com"
    done = CliRunner().invoke(proxy, ["--check", str(file)])
    assert (done.exit_code, done.output) == (0, "good: 1 destination\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no [[destination]]"),
        ("[[destination]]\n", "match: is needed"),
        ('[[destination]]\nmatch = ["*.*"]\n', "neither HOST"),
        ('[[destination]]\nmatch = ["192.0.2.1"]\n', "not for addresses"),
        ('[[destination]]\nmatch = ["a:b"]\n', "a port, or *"),
        (f'{GOOD}conect = "a:1"\n', "conect"),
        (f'other = "deny"\n{GOOD}', "is not possible"),
        (f"pass_ports = [0]\n{GOOD}", "between 1 and 65535"),
        (f'authority = "/nowhere"\n{GOOD}', "authority: /nowhere: No such file"),
        (f'authority = "/etc/passwd"\n{GOOD}', "no certificate in PEM"),
        (f'login_file = "/nowhere"\n{GOOD}', "login_file: /nowhere: No such file"),
        (f'listen = "0.0.0.0:8118"\n{GOOD}', "not on loopback"),
        (f'listen = ":8118"\n{GOOD}', "not on loopback"),
        (f'listen = "0.0.0.0:8118"\nopen_to_network = true\n{GOOD}', "login_file: is needed"),
    ],
)
def test_a_faulty_file_is_explained(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(text)
    done = CliRunner().invoke(proxy, ["--check", str(file)])
    assert done.exit_code == 1
    assert words in done.output and str(file) in done.output
