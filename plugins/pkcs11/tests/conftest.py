"""A SoftHSM token for each test, copied from one that is made once, and stores over it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11 import client
from tlspool_pkcs11.discovery import default_rows
from tlspool_pkcs11.library import LibraryInfo
from tlspool_pkcs11.module import Module
from tlspool_pkcs11.store import Pkcs11Store
from tlspool_pkcs11.worker import Worker, serve

from tlspool_core.testing.keystore import nobody_asked

PIN = "123456"


def _load_fake_library() -> Any:
    spec = importlib.util.spec_from_file_location("fake_library", Path(__file__).with_name("fake_library.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_library"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake() -> Any:
    """The module `fake_library`."""
    return _load_fake_library()


class _ThreadInPlaceOfProcess:
    """Serves the worker's end of the socket with a library in Python, until that end closes."""

    pid = 0

    def __init__(self, library: Any, channel: socket.socket) -> None:
        self._channel = channel
        self._worker = Worker(lambda request: (library, LibraryInfo("Maker", "Fake library", (1, 0))))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._channel, contextlib.suppress(OSError):
            serve(self._channel, self._worker)

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def wait(self) -> int:
        self._thread.join(10)
        return 0


@pytest.fixture
def with_library(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a coroutine with a store whose workers have a library in Python."""

    def use(library: Any, work: Callable[[Pkcs11Store], Awaitable[None]], ask: Any = nobody_asked, **more: Any) -> None:
        def spawn(settings: Any, channel: socket.socket) -> Any:
            return _ThreadInPlaceOfProcess(library, channel.dup())

        monkeypatch.setattr(client, "_spawn", spawn)

        async def main() -> None:
            store = Pkcs11Store()
            await store.start({"modules": [{"path": "/fake.so", **more}]}, ask)
            try:
                await work(store)
            finally:
                await store.stop()

        asyncio.run(main())

    return use


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

    def pull(self, out: bool) -> None:
        """Take the tokens out of reach of libraries that are loaded, or put them back."""
        away = self.directory / "away"
        away.mkdir(exist_ok=True)
        source, target = (self.tokens, away) if out else (away, self.tokens)
        for token in [*source.iterdir()]:
            token.rename(target / token.name)

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
