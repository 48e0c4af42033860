"""The log to the system's logger, as syslog(3) of the C library writes to it.

Theory of operation
-------------------
Each line is one datagram to the logger's socket, `<priority>tlspool[pid]: text` (RFC 3164 section 4.1 without time and host, which the
logger adds).  Nothing here ever waits: what the logger does not take at once is dropped, and the next line that it takes is preceded by
how many were.  While there is no logger, lines go where they would without one, to standard error; each tries the logger anew.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/dev/log")
_DAEMON: Final = 3 << 3  # facility of system daemons
_SEVERITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7


class SyslogHandler(logging.Handler):
    """Sends lines to the logger at a socket; those that it cannot go to `otherwise`."""

    def __init__(self, path: Path, otherwise: logging.Handler) -> None:
        super().__init__()
        self._path = str(path)
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Called with this handler's lock held; never raises."""
        try:
            if self._dropped:
                self._send(logging.WARNING, f"{self._dropped} lines were dropped, as the logger did not take them")
                self._dropped = 0
            for line in self.format(record).splitlines():
                self._send(record.levelno, line)
        except BlockingIOError:
            self._dropped += 1
        except OSError:
            self._otherwise.handle(record)

    def _send(self, level: int, line: str) -> None:
        severity = next((number for least, number in _SEVERITIES if level >= least), _DEBUG)
        text = f"<{_DAEMON | severity}>tlspool[{os.getpid()}]: {line}"
        self._socket.sendto(text.encode(errors="backslashreplace"), self._path)

    def close(self) -> None:
        self._socket.close()
        super().close()
