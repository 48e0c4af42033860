"""The mechanics under a handshake coroutine: where it waits, and how it is gone on with.

Theory of operation
-------------------
A handshake is one coroutine that waits for two things only: more input, or the answer to a question.  It suspends by yielding
either `NEED_INPUT` or a `Question`; a `Flow` holds the coroutine and what it waits for.  Nothing here knows TLS, sockets or
an event loop: a test drives a flow by hand.

    flow = Flow(serve(...))          # runs to its first wait
    flow.waits_for_input             # -> feed the records, then flow.go_on()
    flow.question                    # -> flow.go_on(answer) or flow.go_on(refusal=error)
    flow.done, flow.result           # the coroutine has returned

An exception in the coroutine comes out of the call that ran it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Final, Generic, TypeVar, cast

from tlspool_core.tls.alerts import TlsError
from tlspool_core.tls.questions import AnyQuestion, Question

A = TypeVar("A")
R = TypeVar("R")


class NeedInput:
    """What a coroutine yields when it can do nothing before more bytes have come."""

    __slots__ = ()


NEED_INPUT: Final = NeedInput()
Wait = NeedInput | AnyQuestion


@coroutine
def more_input() -> Generator[Wait, Any, None]:
    """Await this to wait for bytes from the peer."""
    yield NEED_INPUT


@coroutine
def ask(question: Question[A]) -> Generator[Wait, Any, A]:
    """Await this to put a question to the driver; raises the TlsError that it refuses with."""
    answer: A = yield question
    return answer


class Flow(Generic[R]):
    """A running handshake coroutine."""

    __slots__ = ("_coroutine", "_result", "done", "question", "waits_for_input")

    def __init__(self, coroutine: Coroutine[Wait, Any, R]) -> None:
        self._coroutine = coroutine
        self._result: R | None = None
        self.done = False
        self.question: AnyQuestion | None = None
        self.waits_for_input = False
        self.go_on()

    @property
    def result(self) -> R:
        """What the coroutine returned; only once it is done."""
        assert self.done
        return cast("R", self._result)

    def close(self) -> None:
        """Give up: the coroutine's frame and what it holds is released."""
        self.question = None
        self.waits_for_input = False
        self._coroutine.close()

    def go_on(self, answer: object = None, refusal: TlsError | None = None) -> None:
        """Up to the next wait: with more input, with the answer to `question`, or with what `question` raises."""
        self.question = None
        self.waits_for_input = False
        try:
            wait = self._coroutine.send(answer) if refusal is None else self._coroutine.throw(refusal)
        except StopIteration as stop:
            self.done = True
            self._result = stop.value
        else:
            if isinstance(wait, NeedInput):
                self.waits_for_input = True
            else:
                self.question = wait
