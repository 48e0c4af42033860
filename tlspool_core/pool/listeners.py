"""The sockets that the pool listens on: of the right owner and mode from the first moment, never taken from a living pool.

Theory of operation
-------------------
A lock file beside the socket, locked as long as the pool lives, tells a stale socket from one in use without a race: whoever holds
the lock may remove what lies at the path, provided that it is a socket.  The socket comes into being without any permission, gets
its owner and group, and then its mode.  Sockets handed over by socket activation are used as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path

from tlspool_core.pool import privileges
from tlspool_core.pool.config import SocketConfig, default_socket

_BACKLOG = 1024


class ListenError(Exception):
    """A socket cannot be listened on; the text says which, why, and what to do."""


class Listener:
    """One listening socket; owns it, the lock beside it, and the path."""

    def __init__(self, listening: socket.socket, path: Path, lock: int | None) -> None:
        self.socket = listening
        self.path = path
        self._lock = lock
        self._node = path.stat() if lock is not None else None

    def release(self) -> None:
        """Stop listening, leaving the path to whoever takes over (a process that shares the socket)."""
        self.socket.close()

    def close(self) -> None:
        """Stop listening; remove the path if it still is ours."""
        self.socket.close()
        if self._lock is None:
            return  # systemd's, or closed before
        with contextlib.suppress(OSError):
            now = self.path.stat()
            if self._node is not None and (now.st_dev, now.st_ino) == (self._node.st_dev, self._node.st_ino):
                self.path.unlink()
        with contextlib.suppress(OSError):
            _lock_path(self.path).unlink()
        os.close(self._lock)
        self._lock = None


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    lock = _lock_path(path)
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass  # its last owner removed it between our two steps
        except BlockingIOError:
            os.close(descriptor)
            raise ListenError(f"{path}: another pool serves this socket; stop it, or configure another [[socket]] path") from None
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        node = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(node.st_mode):
        raise ListenError(f"{path}: there is something that is no socket; remove it if it is not needed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass
        except OSError:
            path.unlink()
            return
    raise ListenError(f"{path}: another program serves this socket")


def _make_directory(path: Path) -> None:
    if not path.parent.exists():
        # a person's own directory is private; in another, the socket's mode decides
        path.parent.mkdir(mode=0o700 if path == default_socket() else 0o755, parents=True)


def _bind(config: SocketConfig) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    old = os.umask(0o777)
    try:
        made.bind(str(config.path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(old)
    owner = privileges.user_id(config.owner).pw_uid if config.owner else -1
    group = privileges.group_id(config.group) if config.group else -1
    if owner != -1 or group != -1:
        os.chown(config.path, owner, group)
    config.path.chmod(config.mode)
    return made


def listen(config: SocketConfig) -> Listener:
    """Listen on one configured path. Raises ListenError or PrivilegeError."""
    try:
        _make_directory(config.path)
        lock = _lock(config.path)
    except OSError as error:
        raise ListenError(f"{config.path}: {error.strerror}") from error
    try:
        _remove_stale(config.path)
        made = _bind(config)
        made.listen(_BACKLOG)
        return Listener(made, config.path, lock)
    except OSError as error:
        os.close(lock)
        raise ListenError(f"{config.path}: {error.strerror}") from error
    except (ListenError, privileges.PrivilegeError):
        os.close(lock)
        raise


def listen_at(host: str, port: int) -> Listener:
    """Listen on an address of this machine, for monitors. Raises ListenError."""
    made = socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    )
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise ListenError(f"{host} port {port}: {error.strerror}") from error
    return Listener(made, Path(f"{host}:{port}"), None)


def adopt(inherited: socket.socket) -> Listener:
    """Use a socket that systemd listens on."""
    inherited.setblocking(False)
    name = inherited.getsockname()
    return Listener(inherited, Path(os.fsdecode(name)), None)
