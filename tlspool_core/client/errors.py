"""What can go wrong between an application and the pool, as exceptions.

All are `PoolError`, and so `OSError`: code that treats failures of sockets treats these.  Each carries the protocol's `code`, a
`text` that says what happened and names who refused, and `advice`, a sentence for the administrator.
"""

from __future__ import annotations

from tlspool_core.wire.errors import ErrorCode, advice, describe
from tlspool_core.wire.messages import Error


class PoolError(OSError):
    """Base of all failures. `code` is of the protocol's table (`tlspool_core.wire.errors.ErrorCode`) or an errno."""

    def __init__(self, code: int, text: str = "", remedy: str = "") -> None:
        self.code = code
        self.text = text or describe(code)
        self.advice = remedy or advice(code)
        super().__init__(self.text)

    def __str__(self) -> str:
        return f"{self.text}. {self.advice}" if self.advice else self.text

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.text, self.advice)


class PoolUnreachable(PoolError, ConnectionError):
    """No pool answers on the socket."""

    hopeless = False  # trying again will not help
    busy = False  # there is one, but its queue is full


class PoolVanished(PoolError, ConnectionError):
    """The pool went away, or broke the protocol. What was asked may have been done or not; without FORK, sessions have ended."""

    def __init__(self, code: int = ErrorCode.CLIENT_DISCONNECT, text: str = "", remedy: str = "") -> None:
        super().__init__(code, text, remedy)


class PoolTimeout(PoolError, TimeoutError):
    """The pool did not answer in time."""


class Refused(PoolError):
    """The pool refused, with its reason."""

    @classmethod
    def by(cls, error: Error) -> Refused:
        """The exception for an ERROR packet."""
        return cls(error.tlserrno, error.text)
