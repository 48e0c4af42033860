"""Can a user whose keytab or cache is named in the databases pass for others by it, or keep threads of the pool waiting?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import krb5
import pytest
from kdh_helpers import WEB, source
from tlspool_kdh.accounts import Realms
from tlspool_kdh.files import LARGEST
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.keytabs import ServiceKeys
from tlspool_kdh.mit import keytab_keys, keytab_principals
from tlspool_kdh.tickets import Principal
from tlspool_kdh.wallet import Tickets

from tlspool_core.api import DoNAI, LocalCredential, LocalIdentity, Role
from tlspool_core.testing.memory import MemoryBackend

SERVICE = Principal.parse(WEB)


def forged(path: Path, version: int) -> str:
    """A keytab with a key for the web service that its owner has made up."""
    context = krb5.init_context()
    table = krb5.kt_resolve(context, f"FILE:{path}".encode())
    key = krb5.init_keyblock(context, 18, bytes(32))
    krb5.kt_add_entry(context, table, krb5.parse_name_flags(context, WEB.encode()), version, 0, key)
    return f"FILE:{path}"


def databases(**keytabs: str) -> MemoryBackend:
    made = MemoryBackend()
    with made.write() as writer:
        for name, keytab in keytabs.items():
            identity = DoNAI.parse({"john": "john@kdh.example", "web": "web.kdh.example"}[name])
            account = f'{{"keytab": "{keytab}"}}'.encode()
            writer.put_localid(LocalIdentity(identity, (LocalCredential(identity, "kerberos", Role.BOTH, "", account),)))
    return made


@pytest.mark.parametrize("version", [1, 2, 99])
def test_a_key_counts_only_in_a_keytab_of_its_own_identity(realm: Any, tmp_path: Path, version: int) -> None:
    """Or John could make tickets of every client for the web service: by a version of the key that the service does not have, for one."""
    keys = ServiceKeys("kerberos")
    keys.realms = Realms({"KDH.EXAMPLE": "kdh.example"})
    keys.config = databases(john=forged(tmp_path / "john", version), web=realm.services)
    assert keytab_keys(f"FILE:{tmp_path}/john")(SERVICE, 18, version).value == bytes(32)
    assert keys.find(SERVICE, 18, None).value == keytab_keys(realm.services)(SERVICE, 18, None).value
    for kvno in {version, 99} - {2}:
        with pytest.raises(LookupError, match="no key for http/web"):
            keys.find(SERVICE, 18, kvno)
    for nobodys in ("http/old.kdh.example@KDH.EXAMPLE", "http/web.kdh.example@OTHER.EXAMPLE"):
        with pytest.raises(LookupError, match="no keytab here is for http"):
            keys.find(Principal.parse(nobodys), 18, None)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """As by a program of its owner, for as long as it likes."""
    program = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline()
        yield
        owner.communicate()


def test_nobody_waits_for_a_lock(realm: Any, tmp_path: Path) -> None:
    keytab, cache = tmp_path / "keytab", tmp_path / "cache"
    keytab.write_bytes(Path(realm.services.removeprefix("FILE:")).read_bytes())
    realm.kinit(f"FILE:{cache}", "mary", "sesame")
    with locked(keytab), locked(cache):
        assert keytab_keys(f"FILE:{keytab}")(SERVICE, 18, None)
        assert Tickets().granting(source("mary@KDH.EXAMPLE", ccache=f"FILE:{cache}"))


@pytest.mark.parametrize("kind", ["FILE:", "WRFILE:", ""])
@pytest.mark.parametrize("what", ["pipe", "device", "directory", "large", "nothing"])
def test_what_is_no_file_is_not_waited_for(realm: Any, tmp_path: Path, what: str, kind: str) -> None:
    path = tmp_path / "it"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "directory":
        path.mkdir()
    elif what == "large":
        with path.open("wb") as file:
            file.truncate(LARGEST + 1)
    words, name = r"is no file|Is a directory|more than|No such file", f"{kind}{path}"
    with pytest.raises(LookupError, match=words):
        keytab_keys(name)(SERVICE, 18, None)
    with pytest.raises(KerberosError, match=words):
        keytab_principals(name)
    for where in ({"keytab": name}, {"ccache": name}):
        with pytest.raises(KerberosError, match=words):
            Tickets().granting(source("john@KDH.EXAMPLE", **where))


def test_a_directory_of_caches(realm: Any, tmp_path: Path) -> None:
    """The one in use, and one that is named; neither waits for a pipe."""
    (tmp_path / "caches").mkdir(mode=0o700)
    name = f"DIR:{tmp_path}/caches"
    realm.kinit(name, "mary", "sesame")
    primary = (tmp_path / "caches" / "primary").read_text().strip()
    for where in (name, f"DIR::{tmp_path}/caches/{primary}"):
        assert str(Tickets().granting(source("mary@KDH.EXAMPLE", ccache=where)).client) == "mary@KDH.EXAMPLE"
    for wrong in ("../tkt", "tkt/../../x", "other"):
        (tmp_path / "caches" / "primary").write_text(wrong)
        with pytest.raises(KerberosError, match="names no cache in this directory"):
            Tickets().granting(source("mary@KDH.EXAMPLE", ccache=name))
    (tmp_path / "caches" / "primary").unlink()
    if primary == "tkt":  # which is meant then
        assert Tickets().granting(source("mary@KDH.EXAMPLE", ccache=name))
    os.mkfifo(tmp_path / "caches" / "primary")
    with pytest.raises(KerberosError, match="is no file"):
        Tickets().granting(source("mary@KDH.EXAMPLE", ccache=name))


def test_nothing_stays_open(realm: Any) -> None:
    find, open_files = keytab_keys(realm.services), Path("/proc/self/fd")
    find(SERVICE, 18, None)
    before = len([*open_files.iterdir()])
    for kvno in (None, 99):
        for _ in range(3):
            try:
                find(SERVICE, 18, kvno)
            except LookupError:
                continue
    assert len([*open_files.iterdir()]) == before
