"""Our own side of a handshake: whom to be, whether that is allowed, and with what to prove it.

Theory of operation
-------------------
Which local identity a server shows: the name that the application gave, else the one that the client asks for by SNI; if there
are both they must agree, unless the application wants to be asked (LOCALID_CHECK).  A client shows what the application names,
else what a desk chooses, else what the disclosure database gives the remote to see.

An identity is settled once the application has approved it, where it wants to, and may use it.  Its credentials come from the databases, with
keys that stay in their stores; or they are made on the fly, for applications that may have that.  Whatever is refused here is a `Refusal`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import CredentialType, Denied, KeyStoreError, LocalIdentity, Role
from tlspool_core.pool import desks_identity
from tlspool_core.pool.credentials import OwnCredential
from tlspool_core.pool.desks import NobodyThere
from tlspool_core.pool.refusal import Refusal, too_long
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.alerts import TlsError
from tlspool_core.tls.questions import (
    Sign,
)
from tlspool_core.tls.seams import Credential
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import LidentryFlags

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.session import Session

log = logging.getLogger("tlspool.session")


class OwnSide:
    """Of one handshake, or of one exchange after it; `local` is the identity that was settled, `hint` what was missing or waited for."""

    def __init__(self, pool: Pool, session: Session) -> None:
        self._pool = pool
        self._session = session
        self._own: list[OwnCredential] = []
        self.local: DoNAI | None = None
        self.hint = ""
        self._choice: desks_identity.Choice | None = None
        self._approved: dict[DoNAI, DoNAI] = {}  # what the application said to identities that were proposed to it

    # --- whom to be -------------------------------------------------------------------------------------------------------

    def _server_identity(self, server_name: str | None) -> DoNAI:
        """Whom to be, as far as application and client say. Raises Refusal."""
        wanted = self._pool.identity(self._session.request.localid)
        asked = self._name_asked(server_name)
        if wanted is None and asked is None:
            raise Refusal(
                alerts.UnrecognizedName("no name"),
                WireError(ErrorCode.LOCALID_NOT_FOUND, "The client asked for no server name, and the application gave no localid"),
            )
        if wanted is None or asked is None:
            return wanted or asked  # type: ignore[return-value] # not both are None
        if wanted.domain == asked.domain:
            return wanted
        if self._session.wishes.check_localid:
            return asked
        raise Refusal(
            alerts.UnrecognizedName("another name"),
            WireError(ErrorCode.LOCALID_NOT_FOUND, f"The client asked for {asked}, the application serves {wanted}"),
        )

    def _name_asked(self, server_name: str | None) -> DoNAI | None:
        if server_name is None:
            return None
        try:
            return self._pool.identity(server_name)
        except WireError:
            raise alerts.UnrecognizedName("not a domain name") from None

    async def _chosen_identity(self) -> DoNAI | None:
        """Whom to be: what the application names, else what the desk chooses, else what may be disclosed. Raises WireError."""
        remote = self._pool.identity(self._session.request.remoteid)
        if remote is None or self._session.request.localid:
            return self._client_identity()
        try:
            choice = self._choice = await desks_identity.choose(self._pool, remote, self._session.uid)
        except NobodyThere:
            return self._client_identity()
        if choice is None:
            self.hint = "no local identity was chosen"
            return None
        if choice.flags & LidentryFlags.NEW:
            await desks_identity.wait_for(self._pool, choice.identity)
        return choice.identity

    def _client_identity(self) -> DoNAI | None:
        """Whom to be: what the application names, or the first of what may be disclosed to the remote."""
        wanted = self._pool.identity(self._session.request.localid)
        if wanted is not None:
            return wanted
        remote = self._pool.identity(self._session.request.remoteid)
        disclosed = self._pool.disclosed(remote) if remote is not None else ()
        return next((identity for identity in disclosed if self._allowed(identity)), None)

    @property
    def _desk_decides(self) -> bool:
        """A program may be asked whom to be, as far as this process knows."""
        return desks_identity.desk_for(self._pool, self._session.uid) is not None

    @property
    def remembers(self) -> bool:
        """The desk wants its choice remembered if the handshake succeeds."""
        return self._choice is not None and self._choice.selector is not None

    async def remember_choice(self) -> None:
        """The handshake has succeeded: do to the database what the desk wanted done then. Never raises."""
        choice = self._choice
        if choice is None or choice.selector is None:
            return
        try:
            await self._pool.call("disclosure database", lambda: desks_identity.remember(self._pool.backend, choice))
        except TlsError as error:
            log.error("the choice of %s for %s is not remembered: %s", choice.identity, choice.selector, error)

    # --- whether that is allowed ------------------------------------------------------------------------------------------

    def _allowed(self, identity: DoNAI) -> bool:
        entry = self._pool.credentials.identity(identity)
        return entry is not None and self._uid_allowed(entry)

    def _uid_allowed(self, entry: LocalIdentity) -> bool:
        return not entry.allowed_uids or self._session.uid in entry.allowed_uids

    def _may_settle(self) -> bool:
        """Whether the application can be asked, if it wants to be: after the handshake it waits for no callback."""
        beginning = self._session.beginning
        return not self._session.wishes.check_localid or (beginning is not None and beginning.exchange.open)

    async def _settle_local(self, proposed: DoNAI) -> LocalIdentity | None:
        """Have the application approve, and check that it may use the identity, which is returned as the database has it.

        Raises Refusal or WireError.
        """
        chosen = _tellable(proposed)
        if self._session.wishes.check_localid:
            chosen = _tellable(await self._approval(proposed))
        if self._onthefly:
            self._require_onthefly()
        entry = self._pool.credentials.identity(chosen)
        if entry is None and not self._onthefly:
            raise Refusal(
                alerts.UnrecognizedName("unknown here"),
                WireError(ErrorCode.LOCALID_NOT_FOUND, f"There is no local identity {chosen} in the databases"),
            )
        if entry is not None and not self._uid_allowed(entry):
            raise Refusal(
                alerts.UnrecognizedName("not for this application"),
                WireError(ErrorCode.LOCALID_NOT_YOURS, f"This application may not be {chosen}"),
            )
        self.local = chosen
        return entry

    async def _approval(self, proposed: DoNAI) -> DoNAI:
        """Whom the application wants to be, asked once for each identity: a client that becomes the server does not ask again."""
        if proposed not in self._approved:
            assert self._session.beginning is not None
            chosen = await self._session.beginning.check_localid(proposed)
            self._approved |= {proposed: chosen, chosen: chosen}
        return self._approved[proposed]

    # --- with what to prove it --------------------------------------------------------------------------------------------

    async def _credentials(self, role: Role, entry: LocalIdentity | None) -> list[Credential]:
        """Credentials of our identity, whose entry was looked up just now. Raises Refusal."""
        assert self.local is not None
        if self._onthefly:
            return await self._issued(self.local, role)
        if entry is None:
            return []
        self._own, problems = await self._pool.credentials.usable(entry, role)
        if self._session.key_bound:  # what is ready may have been made ready while its key was there
            reasons = [await self.out_of_reach(own.keys) for own in self._own]
            self._own = [own for own, reason in zip(self._own, reasons, strict=True) if not reason]
            problems += filter(None, reasons)
        if problems:
            self.hint = problems[0]
        if problems and not self._own:
            raise Refusal(alerts.InternalError("credential"), WireError(ErrorCode.CREDENTIAL_UNAVAILABLE, problems[0]))
        return [own.credential for own in self._own]

    @property
    def _onthefly(self) -> bool:
        return self._session.wishes.onthefly or (self._choice is not None and self._choice.onthefly)

    def _require_onthefly(self) -> None:
        """Raises WireError if the application may not have credentials made for it."""
        process = self._session.process
        if not self._pool.config.onthefly.permits(process.uid, process.groups):
            raise WireError(
                ErrorCode.ONTHEFLY_NOT_YOURS,
                f"No credential is made on the fly for user {process.uid}: its configuration does not permit that",
            )

    async def _issued(self, local: DoNAI, role: Role) -> list[Credential]:
        """Credentials made now. Raises Refusal."""
        try:
            self._own = await self._pool.credentials.issued(local, self._session.request.service, role)
        except (Denied, KeyStoreError) as error:
            raise Refusal(alerts.InternalError("credential"), WireError(ErrorCode.CREDENTIAL_UNAVAILABLE, str(error))) from None
        return [own.credential for own in self._own]

    async def out_of_reach(self, keys: Collection[str]) -> str:
        """Why one of these keys cannot be used now; empty if all can be."""
        try:
            for uri in keys:
                await self._pool.reach(uri)
        except KeyStoreError as error:
            return str(error)
        return ""

    async def _sign(self, question: Sign) -> bytes:
        """The session's own limit is the limit; if it passes, `hint` says what was waited for."""
        kind = self.type_of_own(question.credential)
        assert kind is not None
        hint, self.hint = self.hint, "the key store did not sign in time"
        try:
            signature = await kind.sign(question.credential, question.scheme, question.content)
        except (Denied, KeyStoreError) as error:
            raise Refusal(alerts.InternalError("signing"), WireError(ErrorCode.CREDENTIAL_UNAVAILABLE, str(error))) from None
        self.hint = hint
        return signature

    def keys_behind(self, connection: TlsConnection) -> frozenset[str]:
        """URIs of the keys that our proof in this handshake rests on; after a resumption as a server, that it may have rested on."""
        own = self.own_credential(connection.own)
        rests_on = [own] if own is not None else self._own if connection.facts.resumed else []
        return frozenset(uri for one in rests_on for uri in one.keys)

    def own_credential(self, credential: Credential | None) -> OwnCredential | None:
        """What we know of a credential that the engine uses for us."""
        for own in self._own:
            if own.credential is credential:
                return own
        return None

    def type_of_own(self, credential: Credential | None) -> CredentialType | None:
        """The plugin that made a credential of ours."""
        own = self.own_credential(credential)
        return own.type if own is not None else None


def _tellable(identity: DoNAI) -> DoNAI:
    """The same, if the application can be told it. Raises Refusal."""
    if reason := too_long("local", identity):
        raise Refusal(alerts.UnrecognizedName("too long"), WireError(ErrorCode.LOCALID_NOT_FOUND, reason))
    return identity
