"""What systemd wants to know, and what it hands over: readiness, watchdog, reload, sockets (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(*assignments: str) -> bool:
    """Send `KEY=value` lines to the service manager; False if there is none. Never raises: a pool serves without a manager."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.connect("\0" + address[1:] if address[0] == "@" else address)
        sender.send("\n".join(assignments).encode())
        return True
    return False


def ready() -> None:
    notify("READY=1", f"MAINPID={os.getpid()}")


def reloading() -> None:
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    notify("STOPPING=1")


def watchdog_interval() -> float | None:
    """Seconds between signs of life, half of what the manager allows; None if it does not watch this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000 or None


def inherited_sockets() -> list[socket.socket]:
    """Listening UNIX sockets passed by socket activation, taken once: the variables are removed, children see nothing."""
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not count.isdigit() or pid != str(os.getpid()):
        return []
    taken = []
    for descriptor in range(3, 3 + int(count)):
        os.set_inheritable(descriptor, False)
        inherited = socket.socket(fileno=descriptor)
        if inherited.family != socket.AF_UNIX or inherited.type != socket.SOCK_STREAM:
            inherited.close()
            raise OSError(f"descriptor {descriptor} from socket activation is no UNIX stream socket: use ListenStream=/path")
        taken.append(inherited)
    return taken
