"""The daemon's log: one line an event, for people or for machines, each with the session that it belongs to.

Theory of operation
-------------------
Everything, plugins included, logs through the standard library.  The session's identifier is a context variable: what runs on
behalf of a session (its task, the threads and callbacks started from it) inherits it, so that no call passes it along.  Values may
come from a peer: they are written so that none can forge a line (control characters are escaped), and are cut to a length.

`say` adds fields to a line; a field's name says what the value is.  No caller passes a secret: keys, PINs, tickets, plaintext.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Any, TextIO

from tlspool_core.pool.settings import LogConfig
from tlspool_core.pool.syslog import SyslogHandler

session_id: ContextVar[str] = ContextVar("tlspool_session", default="")

_MAX_VALUE = 512
_MAX_LINE = 8192
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+,*\[\]&|~?-]+").fullmatch


def say(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """Log an event with fields; cheap if the level is off."""
    if logger.isEnabledFor(level):
        logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), None, extra={"fields": fields}))


def say_cause(logger: logging.Logger, error: BaseException) -> None:
    """Log, with where it happened, the fault of our own that has become this error; nothing if it is what a peer did."""
    if error.__cause__ is not None:
        logger.error("fault in the engine", exc_info=error.__cause__)


def _escape(text: str) -> str:
    """No line breaks, no terminal sequences: what is not printable is shown as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _value(value: Any) -> str:
    text = _escape(str(value))[:_MAX_VALUE]
    return text if _PLAIN(text) else json.dumps(text, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 info  [session] event key=value`; without time and level where the reader adds them."""

    def __init__(self, *, bare: bool = False) -> None:
        super().__init__()
        self._bare = bare

    def format(self, record: logging.LogRecord) -> str:
        session = session_id.get()
        fields = "".join(f" {key}={_value(value)}" for key, value in getattr(record, "fields", {}).items())
        line = f"{f'[{session}] ' if session else ''}{_escape(record.getMessage())}{fields}"
        if not self._bare:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            line = f"{stamp} {record.levelname.lower():<7} {line}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line[:_MAX_LINE]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, session, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:_MAX_LINE],
        }
        if session := session_id.get():
            content["session"] = session
        for key, value in getattr(record, "fields", {}).items():
            content[key] = value if isinstance(value, (int, float, bool)) or value is None else str(value)[:_MAX_VALUE]
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)[:_MAX_LINE]
        return json.dumps(content, ensure_ascii=False)


class BatchHandler(logging.Handler):
    """Writes lines to a stream; those of a busy loop together, a moment later, which costs a third of writing each at once.

    What is a warning or worse is written at once, with everything before it.  So is everything while no loop is attached, and at
    the end of the program.  A process that is killed outright may lose the last moment's lines.
    """

    _DELAY = 0.1  # seconds
    _MOST = 1000

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._kept: list[tuple[logging.LogRecord, str]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = False

    def attach(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Write from this loop's turns from now on; None: at once."""
        self.flush()
        self._loop = loop
        self._due = False

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append((record, session_id.get()))
        if record.levelno >= logging.WARNING or self._loop is None or len(self._kept) >= self._MOST:
            self.flush()
        elif not self._due:
            self._due = True
            self._loop.call_soon_threadsafe(self._loop.call_later, self._DELAY, self._flush_due)

    def _flush_due(self) -> None:
        self._due = False
        self.flush()

    def flush(self) -> None:
        """Write what is kept."""
        with self.lock or contextlib.nullcontext():
            kept, self._kept = self._kept, []
            if not kept:
                return
            lines = []
            for record, session in kept:
                token = session_id.set(session)
                lines.append(self.format(record))
                session_id.reset(token)
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except OSError:
                self.handleError(kept[0][0])


def _formatter(config: LogConfig, *, bare: bool = False) -> logging.Formatter:
    return JsonFormatter() if config.format == "json" else ConsoleFormatter(bare=bare)


_handler: BatchHandler | None = None


def attach(loop: asyncio.AbstractEventLoop | None) -> None:
    """Let this loop write the log; None before it ends."""
    if _handler is not None:
        _handler.attach(loop)


def set_up(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (standard error) or to the logger, in the configured form; may be called again after a reload."""
    global _handler
    # nothing of this is written, and finding it out costs more than the rest of a line
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    if _handler is None or stream is not None:
        _handler = BatchHandler(stream if stream is not None else sys.stderr)
    _handler.flush()
    _handler.setFormatter(_formatter(config))
    for old in root.handlers[:]:
        root.removeHandler(old)
        if isinstance(old, SyslogHandler):
            old.close()
    handler: logging.Handler = _handler
    if config.logger is not None:
        handler = SyslogHandler(config.logger, _handler)
        handler.setFormatter(_formatter(config, bare=True))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("tlspool").setLevel(config.level.upper())
