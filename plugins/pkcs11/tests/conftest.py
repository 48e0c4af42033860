"""A SoftHSM token for each test, copied from one that is made once, and stores over it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11.discovery import default_rows
from tlspool_pkcs11.module import Module
from tlspool_pkcs11.store import Pkcs11Store

from tlspool_core.testing.keystore import nobody_asked

PIN = "123456"


def _softhsm() -> str:
    rows = [row for row in default_rows() if row["name"] == "softhsm"]
    places = [Path("/usr/lib/softhsm/libsofthsm2.so"), *(Path(row["path"]) for row in rows)]
    return next((str(path) for path in places if path.is_file()), "")


SOFTHSM = _softhsm()


class Hsm:
    """A SoftHSM directory of its own, and how to configure a module for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tokens = directory / "tokens"
        self.config = directory / "softhsm2.conf"
        self.pin_file = directory / "pin"
        self.tokens.mkdir(parents=True, exist_ok=True)
        self.config.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.set_pin(PIN)

    def set_pin(self, pin: str) -> None:
        self.pin_file.write_text(pin + "\n")
        self.pin_file.chmod(0o600)

    def run(self, *command: str) -> str:
        environment = {"SOFTHSM2_CONF": str(self.config), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def new_token(self, label: str, *, filled: bool = False) -> None:
        self.run("softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "87654321")
        if filled:
            self.run(sys.executable, str(Path(__file__).with_name("fill_token.py")), SOFTHSM, label, PIN)

    def module(self, **more: Any) -> dict[str, Any]:
        row = {"path": SOFTHSM, "name": "soft", "environment": {"SOFTHSM2_CONF": str(self.config)}, "pin_file": str(self.pin_file)}
        return {key: value for key, value in (row | more).items() if value is not None}

    @staticmethod
    def inner(store: Pkcs11Store, index: int = 0) -> Module:
        """The inner workings of a store, for tests that break them."""
        return store._modules[index]

    @contextlib.asynccontextmanager
    async def store(self, *rows: dict[str, Any], ask: Any = nobody_asked, **more: Any) -> AsyncIterator[Pkcs11Store]:
        store = Pkcs11Store()
        await store.start({"modules": list(rows) or [self.module(**more)]}, ask)
        try:
            yield store
        finally:
            await store.stop()

    def use(
        self, work: Callable[[Pkcs11Store], Awaitable[None]], *rows: dict[str, Any], ask: Any = nobody_asked, **more: Any
    ) -> None:
        """Run a coroutine with a store of these modules, or of one module for this token."""

        async def main() -> None:
            async with self.store(*rows, ask=ask, **more) as store:
                await work(store)

        asyncio.run(main())


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a token "Web" with all kinds of keys."""
    hsm = Hsm(tmp_path_factory.mktemp("filled"))
    hsm.new_token("Web", filled=True)
    return hsm.tokens


@pytest.fixture
def hsm(filled: Path, tmp_path: Path) -> Hsm:
    """A fresh copy of that token, for one test."""
    made = Hsm(tmp_path / "hsm")
    shutil.copytree(filled, made.tokens, dirs_exist_ok=True)
    return made
