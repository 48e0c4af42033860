"""Does a real browser show pages by way of the proxy, trust it because it was told to, and see the page when the token is gone?"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import eventually

from tests.proxy.conftest import SITE, Outside, ProxyWorld, Token

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
pytestmark = pytest.mark.skipif(not (CHROMIUM and shutil.which("certutil")), reason="chromium or certutil is not installed")

URL = f"https://{SITE}/"
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage"),
    *("--no-default-browser-check", "--password-store=basic"),
)


class Browser:
    """Chromium with a home of its own, in which the proxy's authority is known or not."""

    def __init__(self, home: Path, authority: Path | None) -> None:
        self.home = home
        database = home / ".pki" / "nssdb"
        database.mkdir(parents=True)
        self._certutil("-N", "--empty-password")
        if authority is not None:
            self._certutil("-A", "-n", "proxy", "-t", "C,,", "-i", str(authority))

    def _certutil(self, *arguments: str) -> None:
        subprocess.run(["certutil", "-d", f"sql:{self.home}/.pki/nssdb", *arguments], check=True, capture_output=True, timeout=60)

    def show(self, url: str, *options: str) -> str:
        """The page's source as it stands once it is loaded."""
        environment = os.environ | {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home), "XDG_CACHE_HOME": str(self.home)}
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={self.home}/profile", *options, "--dump-dom", url]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=90, check=False)
        return done.stdout.decode(errors="replace")


def test_a_page_and_the_page_that_says_why_not(world: ProxyWorld, outside: Outside, token: Token, tmp_path: Path) -> None:
    browser = Browser(tmp_path, world.authority)
    proxy = f"--proxy-server=http://127.0.0.1:{outside.port}"
    assert "john@example.com" in browser.show(URL, proxy)
    token.pull()
    eventually(lambda: "Your key is not there." in outside.curl(URL)[1])
    shown = browser.show(URL, proxy)
    assert "<h1>Your key is not there.</h1>" in shown
    assert "token 'pool' is not there" in shown
    token.plug()
    eventually(lambda: "john@example.com" in outside.curl(URL)[1], 30)
    pac = f"--proxy-pac-url=http://127.0.0.1:{outside.port}/proxy.pac"
    assert "john@example.com" in browser.show(URL, pac), "the proxy's own file leads here"


def test_a_browser_that_does_not_know_the_authority_shows_nothing(outside: Outside, tmp_path: Path) -> None:
    shown = Browser(tmp_path, None).show(URL, f"--proxy-server=http://127.0.0.1:{outside.port}")
    assert "john@example.com" not in shown
    eventually(lambda: "certificate_unknown" in outside.log.read_text())
