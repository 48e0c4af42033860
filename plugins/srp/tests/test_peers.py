"""Do two ends that leave their roles to the pools prove themselves by SRP, whichever of them becomes the client?

Both ends of each connection are one pool with two users, each of whom has a password at the other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.client import Pool, PoolError, StartTlsFlags
from tlspool_core.testing.crossing import Crossing, meet

ANN, BEN = "ann@one.example", "ben@two.example"
AS_ANN, AS_BEN = {"localid": ANN, "remoteid": BEN}, {"localid": BEN, "remoteid": ANN}
_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"


class World:
    """Databases and a pool that speaks at once; or, with `listens`, one more that waits for the other end to speak."""

    def __init__(self, home: Path, base: Path, *, listens: bool = False) -> None:
        self.home, self.base = home, base
        self.config = home / "pool.toml"
        self.config.write_text(
            f'[[socket]]\npath = "{home}/s"\n[config]\nbackend = "lmdb"\npath = "{base}/db"\n[symmetric]\nwait = {10 * listens}\n'
        )
        self.environment = os.environ | {"TLSPOOL_CONFIG": str(self.config)}
        if not listens:
            self._local(ANN, BEN, "hers")
            self._local(BEN, ANN, "his")
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", _RUN, str(self.config)], stderr=log, env=self.environment)
        self.pool = Pool(home / "s", patience=15)
        self.pool.ping()

    def _local(self, name: str, server: str, password: str) -> None:
        """A user who is client and server; the password is known to the other one as a verifier."""
        file, account = self.home / f"{name}.password", self.home / f"{name}.json"
        file.write_text(password)
        file.chmod(0o600)
        account.write_text(json.dumps({"user": name, "server": server, "password_file": str(file)}))
        self.tlspool("localid", "add", name, "--type", "srp", "--role", "both", str(account))
        self.tlspool("srp", "add", name, stdin=password + "\n")

    def tlspool(self, *arguments: str, stdin: str = "") -> None:
        command = [sys.executable, "-c", "from tlspool_core.cli import main; main()", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        self.pool.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(15)
        print((self.home / "log").read_text())


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("eager")
    made = World(home, home)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, eager: World) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("patient"), eager.home, listens=True)
    yield made
    made.stop()


def check(ann: Any, ben: Any) -> tuple[str, str]:
    """Each knows the other, and data goes both ways; the roles."""
    assert not isinstance(ann, PoolError) and not isinstance(ben, PoolError), (ann, ben)
    with ann, ben:
        assert (ann.localid, ann.remoteid, ben.localid, ben.remoteid) == (ANN, BEN, BEN, ANN)
        assert ann.cipher().startswith("TLS_SRP_SHA_"), ann.cipher()
        ann.plaintext.sendall(b"ping")
        ben.plaintext.sendall(b"pong")
        assert (ann.plaintext.recv(10), ben.plaintext.recv(10)) == (b"pong", b"ping")
        return ann.role, ben.role


def test_whoever_speaks_first_is_the_client(eager: World, patient: World) -> None:
    assert check(*meet(eager.pool.starttls_peer, patient.pool.starttls_peer, AS_ANN, AS_BEN)) == ("client", "server")
    assert check(*meet(patient.pool.starttls_peer, eager.pool.starttls_peer, AS_ANN, AS_BEN)) == ("server", "client")


def crossed(pool: Pool, **more: dict[str, Any]) -> Iterator[list[Any]]:
    """Both speak at once, until the lot has decided either way."""
    roles = set()
    for _ in range(40):
        crossing = Crossing()
        outcomes = meet(
            pool.starttls_peer, pool.starttls_peer, AS_ANN | more.get("ann", {}), AS_BEN | more.get("ben", {}), crossing.ends
        )
        yield outcomes
        roles.add(check(*outcomes))
        crossing.close()
        assert crossing.crossed
        if len(roles) == 2:
            return
    pytest.fail(f"40 lots, all of them {roles}")


def test_both_speak_at_once(eager: World) -> None:
    for _ in crossed(eager.pool):
        pass


def hook(asked: list[str]) -> Callable[[Any], str]:
    def approve(proposal: Any) -> str:
        asked.append(proposal.localid)
        return str(proposal.localid)

    return approve


def test_the_application_approves_its_identity_once(eager: World) -> None:
    """The one that becomes the server had to know who it is before it spoke, as a client; it is not asked the same again."""
    asked: dict[str, list[str]] = {"ann": [], "ben": []}
    for _ in crossed(eager.pool, **{name: {"localid_hook": hook(seen)} for name, seen in asked.items()}):
        assert asked == {"ann": [ANN], "ben": [BEN]}
        for seen in asked.values():
            seen.clear()


def test_the_application_is_asked_again_if_another_identity_comes_into_question(eager: World) -> None:
    """Ben has spoken as himself, and is then asked for by another name."""
    asked: list[str] = []
    crossing, only_client = Crossing(), StartTlsFlags.LOCALROLE_CLIENT | StartTlsFlags.REMOTEROLE_PEER
    outcomes = meet(
        lambda sock, **wishes: eager.pool._starttls(only_client, sock, wishes),  # type: ignore[arg-type]
        eager.pool.starttls_peer,
        {"localid": ANN, "remoteid": "ben@other.example"},
        AS_BEN | {"localid_hook": hook(asked)},
        crossing.ends,
    )
    for end in crossing.ends:
        end.close()
    crossing.close()
    assert asked == [BEN, "other.example"]
    assert all(isinstance(outcome, PoolError) for outcome in outcomes), outcomes


def test_a_wrong_password_is_refused_in_either_role(eager: World, patient: World) -> None:
    file = eager.home / f"{ANN}.password"
    file.write_text("a guess")
    try:
        outcomes = meet(eager.pool.starttls_peer, patient.pool.starttls_peer, AS_ANN, AS_BEN)
    finally:
        file.write_text("hers")
    assert all(isinstance(outcome, PoolError) for outcome in outcomes), outcomes
