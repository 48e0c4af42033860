"""Who may send a PIN, and when: one that was refused is never sent again.

Theory of operation
-------------------
A token locks itself after a few wrong PINs, and a daemon that restarts and retries reaches that in a second.  Hence:

* a PIN that the token refused is remembered as a keyed digest for as long as the daemon runs, and is not sent to that token
again; * before each login the token's flags are read: if they say that a wrong PIN was entered since the last good login
(CKF_USER_PIN_COUNT_LOW), no PIN is sent without a human - also after a restart of the daemon, since the flag is in the token.
A human may answer `ask_pin`, or ask for a rescan, which permits one attempt with a PIN that is new; * if the next failure would
lock the token (CKF_USER_PIN_FINAL_TRY), nobody's PIN is sent: that is for the token's own tool.

A PIN that a human gave, and that worked, may be kept in locked memory, so that the pool can log in by itself when a worker was
replaced. Any other is wiped as soon as it was sent, before the token has answered. A token with a protected authentication path asks for
the PIN by itself; then there is none to send, and the same rules hold.

What the token answers counts even if whoever needed it has gone meanwhile, as a client that hangs up: no PIN is sent before that.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from tlspool_core.api import AskPin, KeyStoreError, PinRequest, Secret
from tlspool_pkcs11.client import TokenFault
from tlspool_pkcs11.faults import Cure
from tlspool_pkcs11.pins import MAX_PIN, PinSource, read_pin
from tlspool_pkcs11.protocol import TokenRecord

CKF_PROTECTED_AUTHENTICATION_PATH: Final = 0x100
CKF_USER_PIN_COUNT_LOW: Final = 0x10000
CKF_USER_PIN_FINAL_TRY: Final = 0x20000
CKF_USER_PIN_LOCKED: Final = 0x40000

_MAX_QUESTIONS: Final = 3

TokenKey = tuple[str, str, str, str]
T = TypeVar("T")


def token_key(token: TokenRecord) -> TokenKey:
    """What makes a token the same one in whichever slot and worker it shows."""
    return token.manufacturer, token.model, token.serial, token.label


@dataclass(slots=True)
class _TokenState:
    """What is remembered of one token's PIN."""

    refused: set[bytes] = field(default_factory=set)
    remembered: Secret | None = None
    failures: int = 0
    permitted: bool = False
    sent: asyncio.Task[Any] | None = None  # a PIN that the token has not answered, whether or not somebody waits for that
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def forget(self) -> None:
        if self.remembered is not None:
            self.remembered.wipe()
            self.remembered = None


@dataclass(frozen=True, slots=True)
class PinUse(Generic[T]):
    """What a PIN is wanted for, and how that is done.

    `attempt` sends the PIN, or None where the token asks for it itself; what it returns waits for the outcome, and needs no PIN.
    """

    attempt: Callable[[Secret | None], Awaitable[T]]
    refresh: Callable[[], Awaitable[TokenRecord]]  # the token with its present flags
    source: PinSource | None
    remember: bool
    human: bool = True  # may somebody be asked?

    @property
    def keeps(self) -> bool:
        """A PIN that somebody typed is to be remembered if it is right; one that has a source can be read again."""
        return self.remember and self.source is None


class PinKeeper:
    """Hands PINs out, one attempt at a time for each token."""

    def __init__(self, ask_pin: AskPin) -> None:
        self._ask_pin = ask_pin
        self._key = secrets.token_bytes(32)
        self._states: dict[TokenKey, _TokenState] = {}

    def lock(self, token: TokenRecord) -> asyncio.Lock:
        """Held by whoever is about to log in to a token, so that nobody is asked twice at a time."""
        return self._state(token).lock

    def automatic(self, token: TokenRecord, source: PinSource | None) -> bool:
        """True if a login needs nobody's attention."""
        at_token = token.flags & CKF_PROTECTED_AUTHENTICATION_PATH
        return not at_token and (source is not None or self._state(token).remembered is not None)

    def permit(self) -> None:
        """An operator looked after the tokens: one attempt for each, whatever their flags say of earlier ones."""
        for state in self._states.values():
            state.permitted = True

    def forget(self) -> None:
        """Wipe all PINs."""
        for state in self._states.values():
            state.forget()

    def stopped(self, token: TokenRecord) -> str:
        """For status: why no PIN is sent by itself, or ""."""
        state = self._state(token)
        if token.flags & CKF_USER_PIN_LOCKED:
            return "PIN locked"
        if token.flags & CKF_USER_PIN_FINAL_TRY:
            return "last try before the PIN locks"
        if token.flags & CKF_USER_PIN_COUNT_LOW and not state.permitted:
            return "a wrong PIN was entered before"
        return "PIN refused" if state.failures else ""

    def _state(self, token: TokenRecord) -> _TokenState:
        return self._states.setdefault(token_key(token), _TokenState())

    async def use(self, token: TokenRecord, use: PinUse[T]) -> T:
        """Do what needs a PIN. Raises KeyStoreError if there is none to send, TokenFault for other reasons than the PIN."""
        state = self._state(token)
        if state.sent is not None:
            await asyncio.wait([state.sent])
        held = await asyncio.to_thread(read_pin, use.source) if use.source else None
        try:
            # the flags are read with the lock on the PIN file held
            token = await use.refresh()
            _check_tries(token)
            why = self._objection(token, state)
            if not why and token.flags & CKF_PROTECTED_AUTHENTICATION_PATH:
                return await self._attempt(token, state, use, None)
            pin = held.pin if held else state.remembered
            if not why and pin is not None:
                if self._digest(token, pin) not in state.refused:
                    return await self._attempt(token, state, use, pin)
                why = "it refused this PIN before, and the pool sends no PIN twice"
        finally:
            if held and state.sent is not None:
                state.sent.add_done_callback(lambda _: held.close())
            elif held:
                held.close()
        if token.flags & CKF_PROTECTED_AUTHENTICATION_PATH or not use.human:
            raise KeyStoreError(_refusal(token, use.source, why))
        return await self._ask(token, state, use, why or "no PIN is configured for it")

    def _objection(self, token: TokenRecord, state: _TokenState) -> str:
        """Why no PIN may be sent without a human, or ""."""
        if token.flags & CKF_USER_PIN_COUNT_LOW and not state.permitted:
            return (
                "a wrong PIN was entered before; log in once with the token's own tool, or correct the PIN and let the pool rescan"
            )
        return ""

    async def _ask(self, token: TokenRecord, state: _TokenState, use: PinUse[T], why: str) -> T:
        for _ in range(_MAX_QUESTIONS):
            pin = await self._question(token, state, why)
            if pin is None:
                break
            try:
                if self._digest(token, pin) in state.refused:
                    why = "this PIN was refused before"
                    continue
                return await self._attempt(token, state, use, pin)
            except KeyStoreError as error:
                why = str(error)
                token = await use.refresh()
                _check_tries(token)
            finally:
                if pin is not state.remembered:
                    pin.wipe()
        raise KeyStoreError(_refusal(token, use.source, why))

    async def _question(self, token: TokenRecord, state: _TokenState, why: str) -> Secret | None:
        prompt = f"PIN of token {token.label} ({why})"
        request = PinRequest(token.manufacturer, token.model, token.serial, token.label, state.failures + 1, prompt)
        try:
            answer = await self._ask_pin(request)
        except Exception as error:  # whoever asks is not ours; without an answer there is no login
            raise KeyStoreError(f"token {token.label!r}: asking for its PIN failed: {type(error).__name__}: {error}") from error
        if answer is None or 0 < len(answer) <= MAX_PIN:
            return answer
        answer.wipe()
        return None

    async def _attempt(self, token: TokenRecord, state: _TokenState, use: PinUse[T], pin: Secret | None) -> T:
        digest = None if pin is None else self._digest(token, pin)
        outcome = use.attempt(pin)
        if pin is not None and pin is not state.remembered and not use.keeps:
            pin.wipe()
        state.sent = sent = asyncio.ensure_future(self._answered(token, state, use, pin, digest, outcome))
        sent.add_done_callback(_seen)
        return await asyncio.shield(sent)

    async def _answered(
        self,
        token: TokenRecord,
        state: _TokenState,
        use: PinUse[T],
        pin: Secret | None,
        digest: bytes | None,
        outcome: Awaitable[T],
    ) -> T:
        """What came of a PIN that was sent. Raises KeyStoreError if it was refused."""
        try:
            result = await outcome
        except TokenFault as fault:
            if fault.cure is not Cure.OTHER_PIN:
                raise
            self._refused(state, digest)
            raise KeyStoreError(_refusal(token, use.source, f"{fault}; {fault.remedy}")) from None
        finally:
            state.sent = None
        state.failures = 0
        state.permitted = False
        if use.keeps and pin and pin is not state.remembered:  # one that nobody waited for was wiped
            state.forget()
            state.remembered = pin
        return result

    def _refused(self, state: _TokenState, digest: bytes | None) -> None:
        state.failures += 1
        state.permitted = False
        if digest is not None:
            state.refused.add(digest)
        state.forget()

    def _digest(self, token: TokenRecord, pin: Secret) -> bytes:
        """Recognises a PIN without keeping it: under a key that lives as long as this process."""
        digest = hmac.new(self._key, repr(token_key(token)).encode() + b"\0", hashlib.sha256)
        digest.update(pin.used)
        return digest.digest()


def _seen(task: asyncio.Task[Any]) -> None:
    """A refusal is noted, even if nobody waits for it."""
    if not task.cancelled():
        task.exception()


def _check_tries(token: TokenRecord) -> None:
    """Raise KeyStoreError where the next mistake, even a human's, would do what only the token's own tool can undo."""
    if token.flags & CKF_USER_PIN_LOCKED:
        raise KeyStoreError(f"token {token.label!r}: its PIN is locked; unlock it with the token's own tool")
    if token.flags & CKF_USER_PIN_FINAL_TRY:
        raise KeyStoreError(
            f"token {token.label!r}: one more wrong PIN locks it, so none is sent; log in once with the token's own tool"
        )


def _refusal(token: TokenRecord, source: PinSource | None, why: str) -> str:
    return f"no login to token {token.label!r}" + (f" with the PIN of {source}" if source else "") + f": {why}"
