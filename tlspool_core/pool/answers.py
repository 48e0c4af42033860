"""Answers to the engine's questions during one handshake, out of databases, plugins, policy, site rules, and the application.

Theory of operation
-------------------
Each question has one method.  An answer that is at hand costs no task switch; one that needs a token, a plugin's thread or the
application is awaited under a limit.  To refuse, a method raises `Refusal`: it carries the alert for the peer (which says little)
and the error for the application (which says why).  What is not a refusal but a fault becomes an internal error, and is logged.

Who we are, and how we prove it, is in `own_side`; here is what becomes of that, and of the peer.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import AaaDecision, AaaRequest, CredentialType, Denied, LocalIdentity, PeerContext, Role
from tlspool_core.policy.demands import RemoteIdentity
from tlspool_core.policy.judge import claimed_identity
from tlspool_core.pool import judge
from tlspool_core.pool.credentials import roles_to_show
from tlspool_core.pool.own_side import OwnSide
from tlspool_core.pool.peer_roles import refuse_ourselves, remote_speaks, undecided
from tlspool_core.pool.refusal import Refusal
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.alerts import TlsError
from tlspool_core.tls.connection import AnySettings
from tlspool_core.tls.questions import (
    AnyQuestion,
    BecomeServer,
    Call,
    ChooseClientCredential,
    ChooseServerCredential,
    ClientAuth,
    ExaminePeer,
    ExternalPsk,
    JudgePeer,
    OpenTicket,
    SealTicket,
    ServerChoice,
    Sign,
    SpeakFirst,
)
from tlspool_core.tls.seams import Credential, PeerCredential
from tlspool_core.tls.settings import ClientSettings, ServerSettings, StoredSession
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import StartTlsFlags

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.session import Session

log = logging.getLogger("tlspool.session")

_RESUMED_ALIKE: Final = ~int(StartTlsFlags.DETACH | StartTlsFlags.FORK)  # the flags that matter to a session that is resumed


class Answers(OwnSide):
    """For one handshake, or one exchange after it."""

    def __init__(self, pool: Pool, session: Session) -> None:
        super().__init__(pool, session)
        self.remote: DoNAI | None = None
        self.peer_type: CredentialType | None = None
        self.decision = AaaDecision()
        self.failure: WireError | None = None
        self.resumption: Hashable = None
        self.rests_on: set[str] = set()  # URIs of keys that plugins asked for, or that a resumed session rests on
        self._accepted: PeerContext | None = None  # of the peer, in this handshake
        self._shown_before: DoNAI | None = None  # in the session that a client resumes

    # --- before the first byte -----------------------------------------------------------------------------------------------

    async def settings(self) -> AnySettings:
        """The engine's settings for this session. Raises WireError."""
        return undecided(self._session) if self._session.symmetric else await self._settings_of_role()

    async def _settings_of_role(self) -> ClientSettings | ServerSettings:
        """The settings for the role that the session has now. Raises WireError, at once for a credential that may not be made for it."""
        session, pool = self._session, self._pool
        if session.wishes.onthefly:
            self._require_onthefly()
        remote = pool.identity(session.request.remoteid)
        local = await self._first_identity()
        self.resumption = self.resumption_key() if session.role == "client" else None
        resumed = await self._resume()
        return pool.engine.settings(session, local, remote, resumed, self.rests_on)

    async def _first_identity(self) -> DoNAI | None:
        """Whom we are from the first byte on, as far as it can be told. Raises WireError.

        Only a client that may prove itself before it is asked for a certificate must know it. A server need not, and nothing is done in the
        name of an identity that its application may not have: no password is read for it.
        """
        local = self._pool.identity(self._session.request.localid)
        if self._session.role == "server":
            return local if local is not None and self._allowed(local) else None
        if local is None and not self._desk_decides:
            local = self._client_identity()
        if local is None or not self._pool.engine.begins_early(local):
            return local
        try:
            await self._settle_local(local)
        except Refusal as refusal:
            raise refusal.error from None
        return self.local

    # --- the questions -------------------------------------------------------------------------------------------------------

    async def settle(self, connection: TlsConnection) -> None:
        """Answer or refuse the question that the connection waits with."""
        question = connection.question
        assert question is not None
        try:
            answer = await self._answer(question)
        except Refusal as refusal:
            self.failure = refusal.error
            connection.refuse(refusal.alert)
        except TlsError as error:
            connection.refuse(error)
        except WireError as error:
            self.failure = error
            connection.refuse(alerts.UserCanceled("given up"))
        except Exception as fault:
            log.exception("fault while answering %s", type(question).__name__)
            connection.refuse(alerts.InternalError(f"{type(fault).__name__} in the session"))
        else:
            connection.answer(answer)

    async def _answer(self, question: AnyQuestion) -> object:
        match question:
            case Sign():
                return await self._sign(question)
            case ExaminePeer():
                return await self._examine(question)
            case JudgePeer():
                return await self._judge(question)
            case ChooseServerCredential():
                return await self._choose_as_server(question)
            case ChooseClientCredential():
                return await self._choose_as_client(question)
            case Call():
                return question.work() if question.quick else await self._pool.call(question.who, question.work)
            case SealTicket():
                return self._pool.seal_ticket(question.state, self._scope())
            case OpenTicket():
                return None if self._ignores_caches else self._pool.open_ticket(question.ticket, self._scope())
            case ExternalPsk():
                return None
            case SpeakFirst():
                return await self._speak_first(question.may_serve)
            case BecomeServer():
                return await self._become_server()
        raise alerts.InternalError(f"no answer to {type(question).__name__}")

    # --- a role that has to be found out -------------------------------------------------------------------------------------

    async def _speak_first(self, may_serve: bool) -> AnySettings | None:
        """Our settings as a client; None if the remote has begun."""
        if may_serve and await remote_speaks(self._session):
            return None
        self._session.role = "client"
        return await self._settings_of_role()

    async def _become_server(self) -> AnySettings:
        """Whatever was settled for a client is not."""
        self._session.role = "server"
        self.local = self._shown_before = None
        self.rests_on = set()
        return await self._settings_of_role()

    # --- resumption ----------------------------------------------------------------------------------------------------------

    @property
    def _ignores_caches(self) -> bool:
        return self._session.wishes.ignore_caches

    def _scope(self) -> bytes:
        """A server's ticket is good for the same service, local identity, and wish to know the client only."""
        request = self._session.request
        among = ("symmetric",) if self._session.symmetric else ()
        return "\0".join((request.service, str(self.local), self._session.wishes.remote.value, *among)).encode()

    def resumption_key(self) -> Hashable:
        """What must be equal for a client to resume; None: it must not.

        The application (by its user), what it asks for, whom it may be by today's databases, and the destination.
        """
        session = self._session
        request = session.request
        if self._ignores_caches or session.wishes.check_localid or (not request.localid and self._desk_decides):
            return None
        flags = int(request.flags) & _RESUMED_ALIKE
        names = (str(self._client_identity()), request.remoteid, request.service, session.peer_address)
        return (session.uid, flags, self._pool.backend.generation(), *names)

    async def _resume(self) -> StoredSession | None:
        """A session to resume, if there is one and the identity that it showed may still be used."""
        found = self._pool.client_sessions.take(self.resumption) if self.resumption is not None else None
        if found is None:
            return None
        local = self._pool.identity(found.local)
        if local is not None and not self._allowed(local):
            return None
        if self._session.key_bound and await self.out_of_reach(found.keys):
            return None
        self._shown_before = local
        self.rests_on |= found.keys
        return found.session

    # --- our side ------------------------------------------------------------------------------------------------------------

    async def _choose_as_server(self, question: ChooseServerCredential) -> ServerChoice:
        session = self._session
        entry = await self._settle_local(self._server_identity(question.offer.server_name))
        engine = self._pool.engine
        asks = engine.client_auth(session.wishes.remote, self.local)
        return ServerChoice(
            credentials=await self._credentials(Role.SERVER, entry),
            alpn=engine.alpn(session.request.service),
            client_auth=asks,
            certificate_authorities=engine.certificate_authorities() if asks is not ClientAuth.NONE else (),
            client_certificate_types=engine.certificate_types,
        )

    async def _choose_as_client(self, question: ChooseClientCredential) -> Sequence[Credential]:
        if self.local is not None:
            return await self._credentials(Role.CLIENT, self._pool.credentials.identity(self.local))
        local = await self._chosen_identity()
        if local is None or not self._may_settle():
            return ()
        entry = await self._settle_local(local)
        await self._accept_for(entry)
        return await self._credentials(Role.CLIENT, entry)

    # --- the peer's side -----------------------------------------------------------------------------------------------------

    async def _examine(self, question: ExaminePeer) -> PeerCredential:
        kind = self._pool.type_of_certificate(question.certificate_type)
        if kind is None:
            raise alerts.UnsupportedCertificate(f"certificate type {question.certificate_type}")
        arguments = (question.certificate_type, question.entries, self._pool.backend)
        if not kind.examine_may_block:
            return kind.examine(*arguments)
        return await self._pool.call(kind.name, lambda: kind.examine(*arguments))

    async def _judge(self, question: JudgePeer) -> bytes:
        self.peer_type = self._pool.type_of_peer(question.peer)
        if question.facts.resumed and self.local is None:
            self.local = self._shown_before
        await self._accept(self._context(question))
        return b""

    def _context(self, question: JudgePeer) -> PeerContext:
        local = self._presumed_local()
        return judge.context_of(self._pool, self._session, self, question, local)

    def _presumed_local(self) -> DoNAI | None:
        """Who we are, or shall be if the server asks: a client chooses what to show once the server was judged.

        What is demanded in the name of that identity is demanded of a server that does not ask, too: it must not escape by not asking.
        What a desk will choose is not known yet.  Whoever is asked again after the handshake talks with whom we were in it.
        """
        session = self._session
        if self.local is not None or session.local:
            return self.local or session.identity(session.local)
        if session.role == "server" or (not session.request.localid and self._desk_decides):
            return None
        local = self._client_identity()
        return local if local is not None and self._allowed(local) else None

    async def _accept_for(self, entry: LocalIdentity | None) -> None:
        """Before the server sees whom a desk or an application has chosen: what is demanded in that name must hold as well.

        After the handshake it must hold of today. Raises Refusal.
        """
        connection = self._session.connection
        if self._accepted is not None:
            if self._accepted.local_identity != self.local:
                await self._accept(replace(self._accepted, local_identity=self.local, own_roles=roles_to_show(entry)))
        elif connection.handshake_complete:
            self.peer_type = self._pool.type_of_peer(connection.peer)
            await self._accept(self._context(JudgePeer(connection.peer, connection.own, connection.facts)))

    async def _accept(self, context: PeerContext) -> None:
        """Policy, and site rules: after it, or beside it where configuration says so. Raises Refusal."""
        pool, mode, local = self._pool, self._session.wishes.remote, context.local_identity
        if not pool.site_rules:
            self.remote = await self._believed(context, mode)
        else:
            with pool.site_rules.asking(self._site_request(local, claimed_identity(context, mode))) as early:
                self.remote = await self._believed(context, mode)
                try:
                    self.decision = await pool.site_rules.permit(self._site_request(local, self.remote), early)
                except Denied as denied:
                    raise Refusal(alerts.AccessDenied("site rules"), WireError(ErrorCode.SITE_REFUSED, str(denied))) from None
        self._accepted = context

    async def _believed(self, context: PeerContext, mode: RemoteIdentity) -> DoNAI | None:
        """The remote identity that policy believes; where either end might be the other, it must not be us. Raises Refusal."""
        remote = await judge.judge(self._pool, context, mode, self.peer_type)
        if self._session.symmetric:
            refuse_ourselves(context, context.local_identity or self._client_identity(), remote)
        return remote

    def _site_request(self, local: DoNAI | None, remote: DoNAI | None) -> AaaRequest:
        """What site rules are asked about a peer of this identity, and about us."""
        session = self._session
        return AaaRequest(
            session_id=session.id,
            role=session.role,
            service=session.request.service,
            local_identity=local,
            remote_identity=remote,
            credential_type=self.peer_type.name if self.peer_type else "",
            peer_address=session.peer_address,
            local_address=session.local_address(),
        )
