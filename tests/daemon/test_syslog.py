"""Does the log reach the system's logger with its severity and its session, and does a logger that is away or stuck stop nobody?"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import DaemonProcess, both, eventually
from toyplugin import SERVER

from tlspool_core.pool.config import ConfigurationError, parse_config
from tlspool_core.pool.logs import ConsoleFormatter
from tlspool_core.pool.syslog import SOCKET, SyslogHandler


class Logger:
    """Listens as a logger does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)

    def line(self) -> str:
        return self.socket.recv(65536).decode()

    def line_with(self, text: str) -> str:
        while text not in (line := self.line()):
            pass
        return line


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[Logger]:
    made = Logger(tmp_path / "log.socket")
    with made.socket:
        yield made


def test_a_pool_logs_to_it(logger: Logger, daemons: Callable[..., DaemonProcess]) -> None:
    pool = daemons(f'[log]\nto = "{logger.path}"\n')
    head = f"<30>tlspool[{pool.process.pid}]: "
    assert logger.line_with("serving").startswith(f"{head}serving sockets=")
    server, client = both(pool.pool, pool.pool, {"localid": SERVER}, {"remoteid": SERVER})
    with server, client:
        assert logger.line_with("established role=client").startswith(f"{head}[")
    both(pool.pool, pool.pool, {"localid": "ghost.example.com"}, {"remoteid": SERVER})
    assert logger.line_with("refused role=").startswith(f"<28>tlspool[{pool.process.pid}]: [")
    assert pool.text == ""


def test_without_a_logger_lines_go_to_standard_error(tmp_path: Path, daemons: Callable[..., DaemonProcess]) -> None:
    pool = daemons(f'[log]\nto = "{tmp_path}/nobody"\n')
    eventually(lambda: "info    serving sockets=" in pool.text)


class Kept(logging.Handler):
    """What went the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def record(text: str, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("tlspool", level, "", 0, text, (), None)


def test_a_logger_that_is_stuck_is_told_what_it_missed(logger: Logger) -> None:
    kept = Kept()
    handler = SyslogHandler(logger.path, kept)
    handler.setFormatter(ConsoleFormatter(bare=True))
    for number in range(5000):  # far more than the kernel keeps for it
        handler.handle(record(f"line {number}"))
    assert kept.lines == []
    taken = 0
    while not (line := _now(logger)).endswith("none"):
        taken += 1
        assert line.endswith(f": line {taken - 1}")
    handler.handle(record("afterwards", logging.DEBUG))
    assert logger.line().endswith(f": {5000 - taken} lines were dropped, as the logger did not take them")
    assert logger.line().startswith("<31>")
    handler.close()


def _now(logger: Logger) -> str:
    logger.socket.setblocking(False)
    try:
        return logger.line()
    except BlockingIOError:
        return "none"
    finally:
        logger.socket.settimeout(20)


def test_a_logger_that_comes_back_is_found(tmp_path: Path) -> None:
    kept, path = Kept(), tmp_path / "log.socket"
    handler = SyslogHandler(path, kept)
    handler.handle(record("nobody there"))
    logger = Logger(path)
    with logger.socket:
        handler.handle(record("two\nlines\ud800"))
        assert [logger.line().partition(": ")[2] for _ in range(2)] == ["two", "lines\\ud800"]
    handler.handle(record("gone again"))
    assert kept.lines == ["nobody there", "gone again"]
    handler.close()


def test_where_the_log_goes_is_configured() -> None:
    assert parse_config("").log.logger is None
    assert parse_config('[log]\nto = "syslog"\n').log.logger == SOCKET
    with pytest.raises(ConfigurationError, match='must be "stderr", "syslog", or the path'):
        parse_config('[log]\nto = "file"\n')
