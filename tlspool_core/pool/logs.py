"""The daemon's log: one line an event, for people or for machines, each with the session that it belongs to.

Theory of operation
-------------------
Everything, plugins included, logs through the standard library.  The session's identifier is a context variable: what runs on
behalf of a session (its task, the threads and callbacks started from it) inherits it, so that no call passes it along.  Values may
come from a peer: they are written so that none can forge a line (control characters are escaped), and are cut to a length.

`say` adds fields to a line; a field's name says what the value is.  No caller passes a secret: keys, PINs, tickets, plaintext.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, TextIO

from tlspool_core.pool.config import LogConfig

session_id: ContextVar[str] = ContextVar("tlspool_session", default="")

_MAX_VALUE = 512
_MAX_LINE = 8192
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+,*[]&|~?")


def say(logger: logging.Logger, level: int, event: str, /, **fields: Any) -> None:
    """Log an event with fields; cheap if the level is off."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"fields": fields}, stacklevel=2)


def _escape(text: str) -> str:
    """No line breaks, no terminal sequences: what is not printable is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _value(value: Any) -> str:
    text = _escape(str(value))[:_MAX_VALUE]
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 info  [session] event key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        session = session_id.get()
        fields = "".join(f" {key}={_value(value)}" for key, value in getattr(record, "fields", {}).items())
        line = f"{stamp} {record.levelname.lower():<7} {f'[{session}] ' if session else ''}{_escape(record.getMessage())}{fields}"
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


def set_up(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (standard error) in the configured form; may be called again after a reload."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("tlspool").setLevel(config.level.upper())
