"""Does the worker do what it is asked and no more, and is it as confined as it should be?"""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11 import library as ck
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11 import worker as worker_module
from tlspool_pkcs11.client import TokenFault
from tlspool_pkcs11.faults import Cure, ckr_name, cure, remedy
from tlspool_pkcs11.frames import Frames
from tlspool_pkcs11.sessions import Sessions
from tlspool_pkcs11.worker import Worker, serve

from tlspool_core.api import Secret

SLOT = 7


@pytest.fixture
def library(fake: Any) -> Any:
    return fake.FakeLibrary({1: private_key(fake)})


def private_key(fake: Any) -> dict[int, bytes]:
    curve = bytes.fromhex("06082a8648ce3d030107")
    made: dict[int, bytes] = fake.key_object(ck.CKO_PRIVATE_KEY, 3, EC_PARAMS=curve, VALUE=b"the private key itself")
    return made


@pytest.fixture
def worker(library: Any) -> Worker:
    made = Worker(lambda request: (library, ck.LibraryInfo("Maker", "Library", (1, 2))))
    assert made.answer(wire.Configure("/lib.so")) == wire.Loaded("Maker", "Library", 1, 2)
    return made


def reference(worker: Worker) -> int:
    reply = worker.answer(wire.ListObjects(SLOT))
    assert isinstance(reply, wire.Objects)
    return reply.objects[0].reference


def sign(number: int, authenticate: int = 0, pin: Secret | None = None) -> wire.Sign:
    return wire.Sign(number, 0x1041, authenticate, (), b"data", pin)


def test_a_signature_reuses_session_and_handle(worker: Worker, library: Any) -> None:
    number = reference(worker)
    library.calls.clear()
    for _ in range(3):
        assert worker.answer(sign(number)) == wire.Value(b"signed data")
    assert library.names() == ["C_SignInit", "C_Sign"] * 3


def test_before_a_library_is_loaded_and_twice_is_refused(fake: Any) -> None:
    worker = Worker(lambda request: (fake.FakeLibrary(), ck.LibraryInfo("", "", (0, 0))))
    assert worker.answer(wire.ListTokens()) == wire.Failed(0, "no token library is loaded")
    worker.answer(wire.Configure("/lib.so"))
    assert worker.answer(wire.Configure("/other.so")) == wire.Failed(0, "a token library is loaded already")


def test_a_library_that_cannot_be_loaded_is_an_answer() -> None:
    reply = Worker().answer(wire.Configure("/nowhere/lib.so"))
    assert isinstance(reply, wire.Failed)
    assert "/nowhere/lib.so" in reply.text


def test_an_unknown_reference_reaches_no_object(worker: Worker) -> None:
    for request in (sign(99), wire.ReadValue(99)):
        reply = worker.answer(request)
        assert isinstance(reply, wire.Failed)
        assert "unknown" in reply.text


def test_the_value_of_a_private_key_is_never_asked_for(worker: Worker, library: Any) -> None:
    number = reference(worker)
    asked = [call[2] for call in library.calls if call[0] == "C_GetAttributeValue"]
    assert all(ck.CKA_VALUE not in wanted for wanted in asked)
    reply = worker.answer(wire.ReadValue(number))
    assert isinstance(reply, wire.Failed)
    assert "private key itself" not in reply.text


def test_a_login_that_exists_already_is_as_good(worker: Worker, library: Any) -> None:
    library.faults["C_Login"] = [0x100]
    assert worker.answer(wire.Login(SLOT, 0, Secret.of(b"1234"))) == wire.Done()


def test_a_wrong_pin_is_reported_with_its_number(worker: Worker, library: Any) -> None:
    library.faults["C_Login"] = [0xA0]
    assert worker.answer(wire.Login(SLOT, 0, Secret.of(b"1234"))) == wire.Failed(0xA0, "C_Login: CKR_PIN_INCORRECT")


def test_a_protected_authentication_path_gets_no_pin(worker: Worker, library: Any) -> None:
    assert worker.answer(wire.Login(SLOT, 1)) == wire.Done()
    assert library.calls[-1] == ("C_Login", 1, ck.CKU_USER, None)


def test_a_key_that_wants_a_login_for_each_signature(worker: Worker, library: Any) -> None:
    number = reference(worker)
    library.calls.clear()
    worker.answer(sign(number, authenticate=1, pin=Secret.of(b"1234")))
    assert library.names() == ["C_SignInit", "C_Login", "C_Sign"]
    assert library.calls[1][2:] == (ck.CKU_CONTEXT_SPECIFIC, "1234")


def test_an_operation_left_open_costs_a_new_session_and_no_signature(worker: Worker, library: Any) -> None:
    number = reference(worker)
    library.faults["C_SignInit"] = [0x90]
    library.calls.clear()
    assert worker.answer(sign(number)) == wire.Value(b"signed data")
    # the new session is there before the old one closes, as the token would log out
    assert library.names() == ["C_SignInit", "C_OpenSession", "C_CloseSession", "C_SignInit", "C_Sign"]


def test_after_a_failed_signature_the_next_one_has_a_clean_session(worker: Worker, library: Any) -> None:
    number = reference(worker)
    library.faults["C_Sign"] = [0x30]
    assert worker.answer(sign(number)) == wire.Failed(0x30, "C_Sign: CKR_DEVICE_ERROR")
    library.calls.clear()
    assert worker.answer(sign(number)) == wire.Value(b"signed data")
    assert library.calls[0][1] == 2


def test_a_pin_that_fails_within_a_signature_is_sent_once(worker: Worker, library: Any) -> None:
    number = reference(worker)
    for value in (0xA0, 0x90):
        library.faults["C_Login"] = [value]
        library.calls.clear()
        worker.answer(sign(number, authenticate=1, pin=Secret.of(b"1234")))
        assert library.names().count("C_Login") == 1


def test_a_token_pulled_while_it_is_looked_at_is_left_out(library: Any) -> None:
    library.faults["C_GetTokenInfo"] = [0xE0]
    sessions = Sessions(library)
    assert sessions.tokens() == ()
    assert [token.label for token in sessions.tokens()] == ["Fake"]


def test_a_token_without_initialisation_is_left_out(library: Any) -> None:
    library.flags = 0
    assert Sessions(library).tokens() == ()


def test_a_reference_is_not_used_again(library: Any, fake: Any) -> None:
    sessions = Sessions(library)
    first = sessions.objects(SLOT)[0].reference
    library.objects = {2: private_key(fake)}
    second = sessions.objects(SLOT)[0].reference
    assert first != second
    assert sessions.objects(SLOT)[0].reference == second


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0x32, Cure.FRESH_WORKER),
        (0xE0, Cure.FRESH_WORKER),
        (0xB3, Cure.FRESH_WORKER),
        (0x101, Cure.FRESH_WORKER),
        (0x80000042, Cure.FRESH_WORKER),
        (0xA0, Cure.OTHER_PIN),
        (0xA4, Cure.OTHER_PIN),
        (0x70, Cure.OTHER_MECHANISM),
        (0x68, Cure.OTHER_MECHANISM),
        (0x11, Cure.NONE),
    ],
)
def test_each_fault_has_its_cure_and_a_remedy_in_words(value: int, expected: Cure) -> None:
    assert cure(value) is expected
    assert len(remedy(value)) > 15
    assert ckr_name(value).startswith("CKR")
    assert TokenFault(value, "x").cure is expected


def test_a_vendors_value_keeps_its_number() -> None:
    assert ckr_name(0x80000042) == "CKR 0x80000042"


# --- over a socket -------------------------------------------------------------------------------------------------------------


def test_requests_are_answered_in_order_however_they_arrive(worker: Worker) -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, worker))
    thread.start()
    stream = b"".join(wire.build(number, wire.ListTokens()) for number in (5, 3, 9))
    for at in range(0, len(stream), 7):
        ours.sendall(stream[at : at + 7])
    frames = Frames(wire.REPLIES)
    received: list[int] = []
    while len(received) < 3:
        received += [number for number, _ in frames.feed(ours.recv(65536))]
    assert received == [5, 3, 9]
    ours.close()
    thread.join(10)
    assert not thread.is_alive()
    theirs.close()


def test_nonsense_ends_the_process() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tlspool_pkcs11.worker", str(os.getpid())]
    with ours, subprocess.Popen(command, stdin=theirs.fileno(), stderr=subprocess.PIPE) as process:
        theirs.close()
        ours.sendall(b"\xff" * 20)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 1
        assert b"token worker: a frame of 4294967295 bytes" in errors


def test_started_by_hand_it_says_what_it_is() -> None:
    result = subprocess.run([sys.executable, "-m", "tlspool_pkcs11.worker"], capture_output=True, check=False)
    assert result.returncode == 1
    assert b"started by the TLS Pool" in result.stderr


def test_it_ends_if_the_daemon_is_gone_already() -> None:
    command = [sys.executable, "-m", "tlspool_pkcs11.worker", "1" if os.getppid() != 1 else "2"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 1


def test_the_process_has_given_up_what_it_does_not_need(hsm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSPOOL_TEST_SECRET", "must not be inherited")
    monkeypatch.setenv("TLSPOOL_TEST_WANTED", "inherited")
    inherited = os.open("/", os.O_RDONLY)
    os.set_inheritable(inherited, True)

    async def work(store: Any) -> None:
        pid = hsm.inner(store).present.pid
        proc = Path(f"/proc/{pid}")
        environment = (proc / "environ").read_bytes()
        assert b"TLSPOOL_TEST_SECRET" not in environment
        assert b"TLSPOOL_TEST_WANTED=inherited" in environment
        assert f"SOFTHSM2_CONF={hsm.config}".encode() in environment
        status = (proc / "status").read_text()
        assert "NoNewPrivs:\t1" in status
        limits = (proc / "limits").read_text()
        assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]
        targets = [str(each.readlink()) for each in (proc / "fd").iterdir()]
        assert "/" not in targets
        assert sum(target.startswith("socket:") for target in targets) == 1
        assert os.getsid(pid) == pid
        assert (proc / "cmdline").read_bytes().count(str(hsm.pin_file).encode()) == 0

    monkeypatch.setenv("SOFTHSM2_CONF", str(hsm.config))
    try:
        hsm.use(work, environment=["TLSPOOL_TEST_WANTED"])
    finally:
        os.close(inherited)


def test_it_ends_together_with_the_daemon(hsm: Any, tmp_path: Path) -> None:
    script = tmp_path / "daemon.py"
    script.write_text(
        "import asyncio, json, os, signal, sys\n"
        "from tlspool_pkcs11.store import Pkcs11Store\n"
        "async def main():\n"
        "    store = Pkcs11Store()\n"
        "    await store.start(json.loads(sys.argv[1]), None)\n"
        "    print((await store.status())['modules'][0]['pid'], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run(
        [sys.executable, str(script), json.dumps({"modules": [hsm.module()]})], capture_output=True, text=True, check=False
    )
    pid = int(result.stdout)

    # in a container nobody may collect the orphan: a zombie has ended too
    limit = time.monotonic() + 10
    while time.monotonic() < limit and running(pid):
        time.sleep(0.01)
    assert not running(pid)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_can_be_neither_dumped_nor_traced() -> None:
    source = (
        "import ctypes, os; from tlspool_pkcs11.confinement import confine; confine(os.getppid());"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert result.stdout == "0\n"


def test_the_worker_loads_nothing_of_the_daemon() -> None:
    # what it does not import cannot be used against it, and does not slow its start
    source = "import sys; import tlspool_pkcs11.worker; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = result.stdout.split()
    assert "tlspool_pkcs11.cryptoki" in loaded
    kept_out = [name for name in loaded if name.startswith(("tlspool_core.", "cryptography", "asyncio", "click", "pluggy"))]
    assert kept_out == ["tlspool_core.secret"]


def test_the_package_can_only_read() -> None:
    # calls of python-pkcs11 that change a token stand nowhere; what a key agreement makes is not stored, and is destroyed
    changing = {"create_object", "create_domain_parameters", "generate_keypair", "generate_key", "generate_domain_parameters"}
    changing |= {"set_pin", "init_pin", "copy", "unwrap_key", "seed_random", "so_pin", "rw", "store"}
    package = Path(worker_module.__file__).parent
    for path in package.glob("*.py"):
        tree = ast.parse(path.read_text())
        called = [node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        given = [node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)]
        assert not changing & {*called, *given}, path.name
        assert called.count("destroy") == (path.name == "cryptoki.py")
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        reaches = any(str(name).partition(".")[0] == "pkcs11" for name in imported)
        assert reaches == (path.name in ("cryptoki.py", "errors.py")), path.name


def test_the_daemon_loads_neither_a_token_library_nor_the_binding() -> None:
    source = "import sys; import tlspool_pkcs11.plugin; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert not [
        name for name in result.stdout.split() if name == "pkcs11" or name.startswith(("pkcs11.", "tlspool_pkcs11.cryptoki"))
    ]
