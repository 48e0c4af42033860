"""Where PINs come from: files, environment variables, systemd credentials.

Theory of operation
-------------------
A file that holds a PIN is readable by the pool and its operator only; one that others can read is refused, so that the mistake
shows at once and not in an audit.  While a PIN out of a file is in use, its file is locked: several processes of the pool then
try a new PIN one after the other, and the second one sees in the token's flags that the first one failed (see `login`).

PINs are read from a file right into locked memory, and wiped after use; they are in no log, no exception, no repr.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlspool_core.api import KeyStoreError, Secret

MAX_PIN: Final = 255
_LOCK_PATIENCE: Final = 30.0


@dataclass(frozen=True, slots=True)
class PinSource:
    """Where a PIN is read: a "file", an "environment" variable, or a systemd "credential". Never the PIN."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class HeldPin:
    """A PIN that was read from a source, and the lock on its file; `close` wipes the one and releases the other."""

    def __init__(self, pin: Secret, descriptor: int = -1) -> None:
        self.pin = pin
        self._descriptor = descriptor

    def close(self) -> None:
        self.pin.wipe()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        # whoever waited for it in another thread may have gone meanwhile
        self.close()


def read_pin(source: PinSource) -> HeldPin:
    """The PIN of a source. Blocks, since it waits for the lock on a file; raises KeyStoreError."""
    if source.kind == "environment":
        return HeldPin(_from_environment(source))
    path = _credential_path(source) if source.kind == "credential" else source.name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise KeyStoreError(f"the PIN {source} cannot be read: {error.strerror}") from None
    try:
        _check_permissions(descriptor, source)
        _lock(descriptor, source)
        return HeldPin(_cleaned(_read(descriptor), source), descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _read(descriptor: int) -> Secret:
    # what fills all of it is too long
    pin = Secret(MAX_PIN + len(b"\r\n") + 1)
    try:
        pin.length = os.readv(descriptor, [pin.view])
    except BaseException:
        pin.wipe()
        raise
    return pin


def _from_environment(source: PinSource) -> Secret:
    value = os.environb.get(os.fsencode(source.name))
    if value is None:
        raise KeyStoreError(f"the PIN {source} is not set")
    return _cleaned(Secret.of(value), source)


def _credential_path(source: PinSource) -> str:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise KeyStoreError(f"the PIN {source} needs LoadCredential= in the systemd unit: CREDENTIALS_DIRECTORY is not set")
    return str(Path(directory, source.name))


def _check_permissions(descriptor: int, source: PinSource) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise KeyStoreError(f"the PIN {source} is no regular file")
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeyStoreError(f"the PIN {source} can be read or changed by others; remove that with: chmod o=,g-w {source.name}")
    if status.st_uid not in (0, os.geteuid()):
        raise KeyStoreError(f"the PIN {source} belongs to user {status.st_uid}, not to root or the pool's user")


def _lock(descriptor: int, source: PinSource) -> None:
    limit = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > limit:
                raise KeyStoreError(f"the PIN {source} is locked by another process for a long time") from None
            time.sleep(0.02)
        except OSError:
            # a file system without locks
            return


def _cleaned(pin: Secret, source: PinSource) -> Secret:
    """Without the end of the line. Raises KeyStoreError if that leaves no PIN."""
    for end in b"\n\r":
        if pin and pin.used[-1] == end:
            pin.length -= 1
    if not 0 < len(pin) <= MAX_PIN or any(octet in pin.used for octet in b"\n\0") or not pin.is_utf8:
        pin.wipe()
        raise KeyStoreError(f"the PIN {source} does not hold one line of 1 to {MAX_PIN} bytes of UTF-8")
    return pin
