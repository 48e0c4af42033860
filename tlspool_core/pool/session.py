"""One STARTTLS session, from the descriptor that an application hands over to the last byte relayed.

Theory of operation
-------------------
A session owns the cipher descriptor from the moment it exists, later the plaintext descriptor too, and hands both to the relay
when the handshake is complete; whoever owns a descriptor closes it, once.  `start` is the only coroutine: it runs as a task during
the handshake, in this order.

    engine and peer exchange flights; questions are answered by `answers` (identity, credential, signature, judgement, site rules)
    PLAINTEXT_CONNECT callback, unless the LOCALID callback brought the plaintext descriptor
    the relay starts, and the final STARTTLS answer goes to the application

Afterwards a session is a few references: connection, relay, identities; nothing waits.  It ends when the relay reports that both
directions are closed, when the connection of its maker ends (unless FORK), when a time limit of site rules is reached, or
with the pool.  Whatever ends it comes through `close`, which acts once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from tlspool_core.fdpass import Descriptor
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import AaaDecision, CredentialType
from tlspool_core.pool.accounting import SessionAccount
from tlspool_core.pool.answers import Answers
from tlspool_core.pool.cipher_port import CipherPort
from tlspool_core.pool.desks import pausing
from tlspool_core.pool.linger import linger
from tlspool_core.pool.logs import say, session_id
from tlspool_core.pool.peer_roles import with_role
from tlspool_core.pool.relay import Relay
from tlspool_core.pool.renegotiate import renegotiate
from tlspool_core.pool.wishes import wishes_of
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import AlertReceived, CertificateRequired, NoClientCertificate, TlsError, Truncated
from tlspool_core.tls.questions import AnyQuestion, HandshakeFacts, JudgePeer
from tlspool_core.wire.connection import Exchange
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import TIMEOUT_INFINITE
from tlspool_core.wire.messages import StartTls, StartTlsLocalid

if TYPE_CHECKING:
    from tlspool_core.pool.client import Client
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.session")

_GONE: Final = "application gone"

_TLS13 = 0x0304
_LOOK_AGAIN = 0.1  # seconds, while a server's consent is awaited


class Session:
    """See above; made by `Pool.admit`, which has checked roles and limits."""

    __slots__ = (
        "_account",
        "_answers",
        "_cipher",
        "_plain",
        "_port",
        "_task",
        "connection",
        "decision",
        "exchange",
        "id",
        "judged",
        "key_bound",
        "keys",
        "local",
        "maker",
        "own_type",
        "peer_address",
        "peer_type",
        "pool",
        "process",
        "relay",
        "remote",
        "request",
        "resumption",
        "role",
        "started",
        "symmetric",
        "wishes",
    )

    def __init__(self, pool: Pool, maker: Client, exchange: Exchange, request: StartTls, role: str, cipher: socket.socket) -> None:
        self.pool = pool
        self.maker: Client | None = maker
        self.process = maker.process
        self.exchange = exchange
        self.request = request
        self.wishes = wishes_of(request.flags)
        self.key_bound = self.wishes.key_bound or pool.config.policy.key_bound
        self.keys: frozenset[str] = frozenset()  # URIs of those that our proof rests on
        self.role = role  # "peer" until the remote and we have found out, see `peer_roles`
        self.symmetric = self.wishes.symmetric
        self.id: str = pool.new_session_id()
        self.local = ""
        self.remote = ""
        self.own_type: CredentialType | None = None
        self.peer_type: CredentialType | None = None
        self.decision = AaaDecision()
        self.resumption: Hashable = None  # key for sessions that a client may resume; None: it may not
        self.peer_address = address_of(cipher)
        self.started = time.monotonic()
        self.judged: asyncio.Future[None] | None = None  # a renegotiation waits for the judgement
        self.relay: Relay | None = None
        self.connection: TlsConnection
        self._cipher: socket.socket | None = cipher
        self._port: CipherPort | None = None  # while the handshake runs
        self._plain: Descriptor | None = None
        self._task: asyncio.Task[object] | None = None
        self._answers: Answers | None = None
        self._account: SessionAccount | None = None

    # --- the handshake -------------------------------------------------------------------------------------------------------

    async def start(self) -> StartTls:
        """Run the handshake and start the relay; returns the answer for the application. Raises WireError."""
        if self not in self.pool.sessions:
            raise self._gone()  # before this task had its first turn
        self._task = asyncio.current_task()
        asked = False
        try:
            async with asyncio.timeout(self.time_limit(self.request)) as limit:
                if not self.request.timeout:
                    pausing.set(limit)
                await self._handshake()
                if self._plain is None:
                    asked = True
                    limit.reschedule(self.pool.loop.time() + self.pool.config.limits.callback_timeout)
                    self._plain = await self._ask_plaintext()
                self._account = await self.pool.accounting.session_started(self)
            self._relay_to_plaintext()
        except TimeoutError:
            self._fail(self._too_late(asked))
        except asyncio.CancelledError:
            self.close("cancelled")
            raise self._gone() from None
        except WireError as error:
            self._fail(error)
        except BaseException:
            self.close("fault")
            raise
        finally:
            self._task = None
        return self.request

    def _gone(self) -> WireError:
        """Why a session was closed that had just begun."""
        return WireError(ErrorCode.POOL_STOPPING if self.pool.stopping else ErrorCode.CLIENT_DISCONNECT)

    def _too_late(self, asked: bool) -> WireError:
        """What was waited for in vain."""
        if asked:
            return WireError(ErrorCode.CALLBACK_TIMEOUT)
        hint = self._answers.hint if self._answers is not None else ""
        return WireError(ErrorCode.HANDSHAKE_TIMEOUT, f"The TLS handshake took too long: {hint}" if hint else "")

    def time_limit(self, request: StartTls) -> float:
        """Seconds that a handshake may take: what the application asks for, within what the configuration allows."""
        limits = self.pool.config.limits
        if not request.timeout:
            return limits.handshake_timeout
        if request.timeout == TIMEOUT_INFINITE:
            return limits.handshake_timeout_max
        return min(request.timeout / 1000, limits.handshake_timeout_max)

    async def _handshake(self) -> None:
        answers = self._answers = Answers(self.pool, self)
        self.connection = connection = TlsConnection(await answers.settings())
        assert self._cipher is not None
        port = self._port = CipherPort(self.pool.loop, self._cipher)
        try:
            await self._converse(connection, port, answers)
        except OSError as error:
            raise WireError(ErrorCode.PEER_DISCONNECT, f"The connection to the remote broke: {error.strerror}") from None
        finally:
            self._release_port()
        if connection.failed is not None:
            raise failure(connection.failed, answers)
        self.keys = answers.keys_behind(connection).union(answers.rests_on)
        if self.key_bound and (reason := await answers.out_of_reach(self.keys)):
            raise WireError(ErrorCode.CREDENTIAL_UNAVAILABLE, reason)
        self._note(answers)
        if answers.remembers:
            self.pool.keep(self.pool.loop.create_task(self._remember_if_accepted(answers)))

    def _release_port(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.release()

    async def _converse(self, connection: TlsConnection, port: CipherPort, answers: Answers) -> None:
        """Until the handshake is complete, or has failed."""
        while connection.failed is None:
            if connection.question is not None:
                await answers.settle(connection)
                continue
            if output := connection.data_to_send():
                await port.send(output)
            if connection.handshake_complete:
                return
            if data := await port.receive():
                connection.receive(data)
            else:
                connection.receive_eof()

    async def _remember_if_accepted(self, answers: Answers) -> None:
        """Have the desk's choice remembered once the server has accepted it; ends with the session."""
        # the relay is spared a question for every record, since persons at desks are few
        while (accepted := self._accepted()) is None:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)
        if accepted:
            await answers.remember_choice()

    def _accepted(self) -> bool | None:
        """Whether the server has taken our credential; None: not known yet.

        In TLS 1.3 it judges us when our side of the handshake is complete; whatever it sends then but an alert is its consent.
        """
        if self.facts.version < _TLS13 or self.connection.established.sessions or (self.relay is not None and self.relay.octets_in):
            return True
        return None if self in self.pool.sessions else self.connection.failed is None

    async def check_localid(self, proposed: DoNAI) -> DoNAI:
        """LOCALID callback: the identity that the application approves. Raises WireError if it refuses."""
        maker = self.maker
        assert maker is not None
        message = self.request.ask_localid(localid=str(proposed))
        answer, descriptor = await maker.call_back(self.exchange, message, self.pool.config.limits.callback_timeout)
        if descriptor is not None:
            self._plain = descriptor
        assert isinstance(answer, StartTlsLocalid)
        chosen = self.pool.identity(answer.localid)
        if chosen is None:
            raise WireError(ErrorCode.CLIENT_REFUSES_CALLBACK, f"The application refused the local identity {proposed}")
        return chosen

    async def _ask_plaintext(self) -> Descriptor:
        maker = self.maker
        assert maker is not None
        message = self.request.ask_plaintext()
        _, descriptor = await maker.call_back(self.exchange, message, None)
        assert descriptor is not None  # the protocol's books see to that
        return descriptor

    def _note(self, answers: Answers) -> None:
        """What of the handshake must outlive it."""
        connection = self.connection
        self.local = str(answers.local or "")
        self.remote = str(answers.remote or "")
        self.own_type = answers.type_of_own(connection.own)
        self.peer_type = answers.peer_type
        self.decision = answers.decision
        self.resumption = answers.resumption
        flags = with_role(self.request.flags, self.role)
        self.request = self.request.echo(flags=flags, localid=self.local, remoteid=self.remote)
        self._answers = None
        facts = connection.facts
        self.pool.counters.established[self.role] += 1
        self.pool.counters.resumed += facts.resumed
        say(
            log,
            logging.INFO,
            "established",
            role=self.role,
            local=self.local,
            remote=self.remote,
            peer=self.peer_address,
            service=self.request.service,
            version=f"{facts.version:#06x}",
            suite=facts.cipher_suite_name,
            resumed=facts.resumed,
            ms=round((time.monotonic() - self.started) * 1000, 1),
        )

    def _fail(self, error: WireError) -> None:
        """Tell the peer by alert and the log by a line, release everything, and let the application have the error."""
        self.pool.counters.refuse(error.code)
        say(
            log, logging.WARNING, "refused", role=self.role, peer=self.peer_address, service=self.request.service, reason=error.text
        )
        cipher, self._cipher = self._cipher, None
        if cipher is not None:
            connection = getattr(self, "connection", None)
            if connection is not None and connection.failed is None:
                connection.close()
            linger(self.pool.loop, cipher, connection.data_to_send() if connection is not None else b"")
        self.close("refused")
        raise error

    # --- the relay -----------------------------------------------------------------------------------------------------------

    def _relay_to_plaintext(self) -> None:
        assert self._plain is not None and self._cipher is not None
        self.pool.refuse_own(self._plain)
        cipher, plain = self._cipher, self._plain
        self._cipher = self._plain = None
        idle_timeout, session_timeout = self._limits()
        try:
            self.relay = Relay(
                self.pool.loop,
                self.connection,
                cipher,
                plain,
                on_closed=self._relay_closed,
                on_question=self._relay_asks,
                idle_timeout=idle_timeout,
                session_timeout=session_timeout,
                name=self.id,
            )
        except OSError as error:
            raise WireError(ErrorCode.PLAIN_SOCKET_NEEDED, f"The plaintext descriptor cannot be used: {error.strerror}") from None
        if self.wishes.detach:
            self.pool.control.detach(self.request.ctlkey, self.maker)
        self.relay.start()
        if self.relay is not None:
            self._bind_to_keys()

    def _limits(self) -> tuple[float | None, float | None]:
        """For how long a session may be idle, and last: in seconds, by configuration and site rules."""
        decision, idle = self.decision, self.pool.config.limits.idle_timeout or None
        if decision.idle_timeout is not None:
            idle = min(idle, decision.idle_timeout) if idle else decision.idle_timeout
        return idle, decision.session_timeout

    def _bind_to_keys(self) -> None:
        """End with the keys that our proof rests on, if that is wanted."""
        if self.key_bound:
            self.pool.key_watch.add(self, self.keys)

    def store_sessions(self) -> None:
        """Client: keep what may be resumed."""
        if self.resumption is not None and (sessions := self.connection.take_sessions()):
            self.pool.client_sessions.store(self.resumption, sessions, self.local, self.keys)

    def _relay_closed(self, cause: str, octets_in: int, octets_out: int) -> None:
        """The one end of a session that was established."""
        self.pool.counters.end(octets_in, octets_out)
        seconds = round(time.monotonic() - self.started, 3)
        token = session_id.set(self.id)
        say(log, logging.INFO, "ended", cause=cause, octets_in=octets_in, octets_out=octets_out, seconds=seconds)
        if (failed := self.connection.failed) is not None:
            log_fault(failed)
        session_id.reset(token)
        self.store_sessions()
        if self._account is not None:
            self._account.end(cause, octets_in, octets_out)
        self.relay = None
        self.close(cause)

    def _relay_asks(self, question: AnyQuestion) -> None:
        """A question after the handshake (tickets, client authentication)."""
        task = self.pool.loop.create_task(self._answer_later())
        self.pool.keep(task)

    async def _answer_later(self) -> None:
        session_id.set(self.id)
        answers = Answers(self.pool, self)
        while self.relay is not None and (question := self.connection.question) is not None:
            await answers.settle(self.connection)
            if isinstance(question, JudgePeer):
                self._judged_again(answers, question.peer is not None)
        if answers.local is not None:
            self.local = str(answers.local)
            self.own_type = answers.type_of_own(self.connection.own)
            self.keys |= answers.keys_behind(self.connection)
        if self.relay is not None:
            self._bind_to_keys()
            self.relay.resume()

    def _judged_again(self, answers: Answers, shown: bool) -> None:
        """The client was asked again who it is; one that declined, and may, stays who it was."""
        if shown and answers.failure is None:
            self.peer_type = answers.peer_type
            self.remote = str(answers.remote or "")
            self.decision = answers.decision
            if self.relay is not None:
                self.relay.limit(*self._limits())
            say(log, logging.INFO, "authenticated again", remote=self.remote)
        if self.judged is not None and not self.judged.done():
            if answers.failure is not None:
                self.judged.set_exception(answers.failure)
            else:
                self.judged.set_result(None)

    # --- commands ------------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> CipherPort:
        """The way to the peer, as long as the handshake runs."""
        assert self._port is not None
        return self._port

    def local_address(self) -> str:
        """Our end of the cipher connection as text; empty if it has none, or once the relay has it."""
        return "" if self._cipher is None else name_text(self._cipher.getsockname())

    @property
    def uid(self) -> int:
        """Of the application that made the session."""
        return self.process.uid

    def identity(self, text: str) -> DoNAI | None:
        """`local` or `remote` as an identity; None if it was not established."""
        return self.pool.identity(text)

    @property
    def facts(self) -> HandshakeFacts:
        return self.connection.facts

    def require_running(self, code: ErrorCode) -> None:
        """Raise WireError with `code` unless the handshake is complete."""
        if self.relay is None:
            raise WireError(code, "The handshake of this session is not complete")

    def end_point_binding(self) -> bytes | None:
        """tls-server-end-point (RFC 5929 section 4.1): of our credential as a server, else of the peer's."""
        own = self.role == "server"
        side = self.connection.own if own else self.connection.peer
        kind = self.own_type if own else self.peer_type
        return None if side is None or kind is None else kind.end_point_binding(side)

    async def renegotiate(self, request: StartTls) -> StartTls:
        """RENEGOTIATE. Raises WireError."""
        return await renegotiate(self, request)

    # --- the end -------------------------------------------------------------------------------------------------------------

    def maker_gone(self) -> None:
        """The connection that requested the session has ended, and with it the session, unless it was meant to go on.

        A program that writes its last words and exits has closed everything before they are on their way, so they are sent first.
        """
        self.maker = None
        if self.relay is None:
            self.close(_GONE)
        elif not self.wishes.fork:
            self.pool.control.remove(self.request.ctlkey, self)
            self.relay.leave(_GONE)

    def close(self, reason: str = "closed") -> None:
        """Release everything; harmless if done before."""
        task, self._task = self._task, None
        if task is not None and not _running(task):
            task.cancel()
        if self.judged is not None and not self.judged.done():
            self.judged.set_exception(WireError(ErrorCode.RENEGOTIATE_NOT_FOUND, f"The session has ended: {reason}"))
        relay = self.relay
        if relay is not None:
            relay.close(reason)
        self._release_port()
        if self._cipher is not None:
            self._cipher.close()
            self._cipher = None
        if self._plain is not None:
            self._plain.close()
            self._plain = None
        self._answers = None
        if self._account is not None:
            self._account.end(reason, 0, 0)
        self.pool.ended(self)


def _running(task: asyncio.Task[object]) -> bool:
    """Whether we are called from within the task; there may be no task at all."""
    return asyncio.current_task() is task


def name_text(name: object) -> str:
    """An address as text; empty for what has none."""
    if not isinstance(name, tuple):
        return ""
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def address_of(cipher: socket.socket) -> str:
    """Address of the peer as text; empty if it has none."""
    try:
        return name_text(cipher.getpeername())
    except OSError:
        return ""


def failure(error: TlsError, answers: Answers) -> WireError:
    """What to tell the application about a handshake that failed."""
    if answers.failure is not None:
        return answers.failure
    if isinstance(error, AlertReceived):
        return WireError(ErrorCode.PEER_REFUSED, f"The remote refused the handshake: {error}")
    if isinstance(error, CertificateRequired | NoClientCertificate):
        return WireError(ErrorCode.REMOTEID_MISSING)
    if isinstance(error, Truncated):
        return WireError(ErrorCode.PEER_DISCONNECT, "The remote closed the connection during the handshake")
    log_fault(error)
    return WireError(ErrorCode.HANDSHAKE_FAILED, f"{error}; {answers.hint}" if answers.hint else str(error))


def log_fault(error: TlsError) -> None:
    """What made a connection fail, if it is a fault of our own and nothing that the peer did."""
    if error.__cause__ is not None:
        log.error("fault in the engine", exc_info=error.__cause__)
