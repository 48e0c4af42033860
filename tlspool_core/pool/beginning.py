"""How a session begins: from the descriptor that an application hands over to the start of the relay.

Theory of operation
-------------------
`run` is the only coroutine.  It runs as a task, under one time limit, in this order.

    engine and peer exchange flights; questions are answered by `answers` (identity, credential, signature, judgement, site rules)
    PLAINTEXT_CONNECT callback, unless the LOCALID callback brought the plaintext descriptor
    the session takes both descriptors and its relay starts; the final STARTTLS answer goes to the application

What only a handshake needs lives here, so that an established session does not keep it: the request's place in the books of its
application, the task, the answers, and the two descriptors until the relay owns them.  If the session is closed meanwhile, it calls
`release`, which lets go of all that and stops the task.  If it fails, the peer is told by an alert, the log by a line, and the application
by an ERROR, which `run` raises.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, NoReturn

from tlspool_core.fdpass import Descriptor
from tlspool_core.identity import DoNAI
from tlspool_core.pool.answers import Answers
from tlspool_core.pool.cipher_port import CipherPort
from tlspool_core.pool.desks import pausing
from tlspool_core.pool.linger import close_at_once, linger
from tlspool_core.pool.logs import say, say_cause
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import AlertReceived, CertificateRequired, NoClientCertificate, TlsError, Truncated
from tlspool_core.wire.connection import Exchange
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.messages import StartTls, StartTlsLocalid

if TYPE_CHECKING:
    from tlspool_core.pool.session import Session

log = logging.getLogger("tlspool.session")

_TLS13: Final = 0x0304
_LOOK_AGAIN: Final = 0.1  # seconds, while a server's consent is awaited


class Beginning:
    """Of one session. Owns the cipher descriptor, and the plaintext descriptor once it is there, until the session takes them."""

    __slots__ = ("_answers", "_cipher", "_connection", "_plain", "_port", "_task", "exchange", "session")

    def __init__(self, session: Session, exchange: Exchange, cipher: socket.socket) -> None:
        """`exchange` is the STARTTLS request, as far as its application is concerned."""
        self.session = session
        self.exchange = exchange
        self._cipher: socket.socket | None = cipher
        self._plain: Descriptor | None = None
        self._port: CipherPort | None = None
        self._connection: TlsConnection | None = None
        self._answers: Answers | None = None
        self._task: asyncio.Task[object] | None = None

    async def run(self) -> StartTls:
        """Run the handshake and start the relay; returns the answer for the application. Raises WireError."""
        session, pool = self.session, self.session.pool
        if session.beginning is not self:
            raise self._gone()  # before this task had its first turn
        self._task = asyncio.current_task()
        asked = False
        try:
            async with asyncio.timeout(session.time_limit(session.request)) as limit:
                if not session.request.timeout:
                    pausing.set(limit)
                await self._handshake()
                if self._plain is None:
                    asked = True
                    limit.reschedule(pool.loop.time() + pool.config.limits.callback_timeout)
                    self._plain = await self._ask_plaintext()
                session.account = await pool.accounting.session_started(session)
            self._hand_over()
        except TimeoutError:
            self._fail(self._too_late(asked))
        except asyncio.CancelledError:
            session.close("cancelled")
            raise self._gone() from None
        except WireError as error:
            self._fail(error)
        except BaseException:
            session.close("fault")
            raise
        finally:
            self._task = None
        return session.request

    # --- the handshake -------------------------------------------------------------------------------------------------------

    async def _handshake(self) -> None:
        session = self.session
        answers = self._answers = Answers(session.pool, session)
        connection = self._connection = session.connection = TlsConnection(await answers.settings())
        assert self._cipher is not None
        port = self._port = CipherPort(session.pool.loop, self._cipher)
        try:
            await self._converse(connection, port, answers)
        except OSError as error:
            raise WireError(ErrorCode.PEER_DISCONNECT, f"The connection to the remote broke: {error.strerror}") from None
        finally:
            self._release_port()
        if connection.failed is not None:
            raise failure(connection.failed, answers)
        session.keys = answers.keys_behind(connection).union(answers.rests_on)
        if session.key_bound and (reason := await answers.out_of_reach(session.keys)):
            raise WireError(ErrorCode.CREDENTIAL_UNAVAILABLE, reason)
        session.note(answers)
        self._answers = None
        if answers.remembers:
            session.pool.keep(session.pool.loop.create_task(_remember_if_accepted(session, answers)))

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

    @property
    def port(self) -> CipherPort:
        """The way to the peer, once the conversation with it has begun."""
        assert self._port is not None
        return self._port

    def local_name(self) -> object:
        """Our end of the cipher connection, as socket(7) has it."""
        return None if self._cipher is None else self._cipher.getsockname()

    # --- callbacks -----------------------------------------------------------------------------------------------------------

    async def check_localid(self, proposed: DoNAI) -> DoNAI:
        """LOCALID callback: the identity that the application approves. Raises WireError if it refuses."""
        session = self.session
        assert session.maker is not None
        message = session.request.ask_localid(localid=str(proposed))
        answer, descriptor = await session.maker.call_back(self.exchange, message, session.pool.config.limits.callback_timeout)
        if descriptor is not None:
            self._plain = descriptor
        assert isinstance(answer, StartTlsLocalid)
        chosen = session.pool.identity(answer.localid)
        if chosen is None:
            raise WireError(ErrorCode.CLIENT_REFUSES_CALLBACK, f"The application refused the local identity {proposed}")
        return chosen

    async def _ask_plaintext(self) -> Descriptor:
        session = self.session
        assert session.maker is not None
        _, descriptor = await session.maker.call_back(self.exchange, session.request.ask_plaintext(), None)
        assert descriptor is not None  # the protocol's books see to that
        return descriptor

    # --- the end of the beginning --------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Raises WireError for a plaintext descriptor that is of no use."""
        cipher, plain = self._cipher, self._plain
        assert cipher is not None and plain is not None
        self.session.pool.refuse_own(plain)
        self._cipher = self._plain = None
        self.session.relay_between(cipher, plain)

    def _fail(self, error: WireError) -> NoReturn:
        """Tell the peer by alert and the log by a line, release everything, and let the application have the error."""
        session = self.session
        session.pool.counters.refuse(error.code)
        where = {"role": session.role, "peer": session.peer_address, "service": session.request.service}
        say(log, logging.WARNING, "refused", **where, reason=error.text)
        cipher, self._cipher = self._cipher, None
        if cipher is not None:
            connection = self._connection
            if connection is not None and connection.failed is None:
                connection.close()
            linger(session.pool.loop, cipher, connection.data_to_send() if connection is not None else b"")
        session.close("refused")
        raise error

    def _too_late(self, asked: bool) -> WireError:
        """What was waited for in vain."""
        if asked:
            return WireError(ErrorCode.CALLBACK_TIMEOUT)
        hint = self._answers.hint if self._answers is not None else ""
        return WireError(ErrorCode.HANDSHAKE_TIMEOUT, f"The TLS handshake took too long: {hint}" if hint else "")

    def _gone(self) -> WireError:
        """Why a session was closed that had just begun."""
        return WireError(ErrorCode.POOL_STOPPING if self.session.pool.stopping else ErrorCode.CLIENT_DISCONNECT)

    def release(self) -> None:
        """Stop, and let go of everything: the session has ended, or takes over."""
        task, self._task = self._task, None
        if task is not None and asyncio.current_task() is not task:
            task.cancel()
        self._release_port()
        if self._cipher is not None:
            close_at_once(self._cipher)
            self._cipher = None
        if self._plain is not None:
            self._plain.close()
            self._plain = None
        self._answers = None

    def _release_port(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.release()


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
    say_cause(log, error)
    return WireError(ErrorCode.HANDSHAKE_FAILED, f"{error}; {answers.hint}" if answers.hint else str(error))


async def _remember_if_accepted(session: Session, answers: Answers) -> None:
    """Have the desk's choice remembered once the server has accepted it; ends with the session."""
    # the relay is spared a question for every record, since persons at desks are few
    while (accepted := _accepted(session)) is None:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_AGAIN)
    if accepted:
        await answers.remember_choice()


def _accepted(session: Session) -> bool | None:
    """Whether the server has taken our credential; None: not known yet.

    In TLS 1.3 it judges us when our side of the handshake is complete; whatever it sends then but an alert is its consent.
    """
    connection, relay = session.connection, session.relay
    if session.facts.version < _TLS13 or connection.established.sessions or (relay is not None and relay.octets_in):
        return True
    return None if session in session.pool.sessions else connection.failed is None


def name_text(name: object) -> str:
    """An address as text; empty for what has none."""
    match name:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ""


def address_of(cipher: socket.socket) -> str:
    """Address of the peer as text; empty if it has none."""
    try:
        return name_text(cipher.getpeername())
    except OSError:
        return ""
