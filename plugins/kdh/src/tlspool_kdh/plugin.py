"""The credential type `kerberos`: tickets that authenticate, with forward secrecy by Diffie-Hellman.

Theory of operation
-------------------
A *client* needs a ticket for each service or user, so what `load` makes is empty until a session asks: see `sessions`.  Tickets that are
at hand cost nothing; others are fetched before ClientHello by `Prefetch`, whose calls have worker threads of their own, so that a KDC
that is slow or down costs only the sessions that need it.

A *server* opens tickets with the keytabs of its local credentials, or, if it is a user, with the session key of its ticket-granting
ticket; a session takes tickets for its own identity and service only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlspool_core.api import (
    CertificateEntry,
    CliCommand,
    ConfigBackend,
    Credential,
    CredentialType,
    DoNAI,
    EngineParts,
    Finding,
    Key,
    LocalCredential,
    PeerContext,
    PeerCredential,
    Predicate,
    Role,
    SessionContext,
    SessionParts,
    UnsupportedCertificate,
    Verdict,
    hookimpl,
)
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.cli import KdhCommands
from tlspool_kdh.codes import FORM, QUANTUM_RELIEF, SCHEMES, SUITES, TICKET_TYPE
from tlspool_kdh.exchange import Kdh, ServicePeer, TicketCredential, TicketPeer
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.keytabs import ServiceKeys
from tlspool_kdh.mit import Source
from tlspool_kdh.relief import ClientRelief, Prefetch, ServerPrefetch, ServerRelief, UserRelief
from tlspool_kdh.replay import ReplayCache, default_path
from tlspool_kdh.sessions import ClientBox, ServerBox, SessionCredential, accepts_for, box
from tlspool_kdh.tickets import OpenedTicket, Service
from tlspool_kdh.wallet import Tickets

TYPE = "kerberos"
_SETTINGS = {
    "realms": {},
    "clock_skew": 300,
    "ticket_margin": 300,
    "extension": QUANTUM_RELIEF,
    "quantum_relief": "required",
    "replay_cache": "",
    "addresses": "check",
    "asks_per_peer": 30,
    "asks_in_all": 300,
}


class RealmPredicate(Predicate):
    """T, t: the KDC of a realm that the configuration knows vouches for the peer, whose ticket is good from where it comes, and if it
    is a client's, for our local identity and the service.
    """

    letter = "T"
    types = frozenset({TYPE})

    def __init__(self, kind: KerberosType) -> None:
        self._kind = kind

    def establish(self, context: PeerContext) -> Finding:
        """Look at realm and service."""
        peer = context.peer
        assert isinstance(peer, TicketPeer | ServicePeer)
        if not self._kind.identities(peer):
            return Finding(Verdict.FALSE, f"{peer.principal} is in no realm that is known here")
        if isinstance(peer, TicketPeer) and not self._is_for_us(peer.opened, context):
            return Finding(Verdict.FALSE, f"the ticket is for {peer.opened.service}")
        if peer.opened is not None and self._kind.checks_addresses and not peer.opened.good_from(context.peer_host):
            where = context.peer_host or "a connection without addresses"
            return Finding(
                Verdict.FALSE,
                f"the ticket is good from certain addresses only, and not from {where} ([credential.kerberos] addresses)",
            )
        return Finding(Verdict.STRICT)

    def _is_for_us(self, opened: OpenedTicket, context: PeerContext) -> bool:
        local = context.local_identity
        return local is not None and accepts_for(self._kind.realms, local, context.service)(opened.service)


class KerberosType(CredentialType):
    """Registered as `kerberos`."""

    name = TYPE
    certificate_types = (TICKET_TYPE,)
    engine_parts = EngineParts((FORM,), SUITES, SCHEMES)
    examine_may_block = True

    def __init__(self) -> None:
        self.realms = Realms({})
        self.checks_addresses = True
        self._keys = ServiceKeys(TYPE)
        self._service = Service(self._keys.find)
        self._tickets = Tickets()
        self._code, self._required = QUANTUM_RELIEF, True

    def configure(self, settings: Mapping[str, Any]) -> None:
        """[credential.kerberos]: realms (table of REALM = "domain"), clock_skew, ticket_margin (seconds), extension (code point),
        quantum_relief ("required" or "optional"), replay_cache (absolute path of a file), addresses ("check" or "ignore"), asks_per_peer
        and asks_in_all (requests in a minute).
        """
        if unknown := sorted(set(settings) - set(_SETTINGS)):
            raise ValueError(f"[credential.kerberos] has no {', '.join(unknown)}; it has {', '.join(_SETTINGS)}")
        values: dict[str, Any] = {**_SETTINGS, **settings}
        for key in ("clock_skew", "ticket_margin", "extension", "asks_per_peer", "asks_in_all"):
            if type(values[key]) is not int or values[key] <= 0:
                raise ValueError(f"[credential.kerberos] {key} is a positive whole number")
        if not 0xFF04 <= values["extension"] <= 0xFFFF:  # 0xff01 is renegotiation_info, and we have neighbours
            raise ValueError("[credential.kerberos] extension is a code point from 0xff04 to 0xffff")
        if values["quantum_relief"] not in ("required", "optional"):
            raise ValueError('[credential.kerberos] quantum_relief is "required" or "optional"')
        if values["addresses"] not in ("check", "ignore"):
            raise ValueError('[credential.kerberos] addresses is "check" or "ignore"')
        realms = Realms(_domains(values["realms"]))
        self._remember_in(values["replay_cache"])
        self.realms = self._keys.realms = realms
        self.checks_addresses = values["addresses"] == "check"
        self._service.skew = float(values["clock_skew"])
        self._tickets.margin = float(values["ticket_margin"])
        self._tickets.strangers.per_peer, self._tickets.strangers.in_all = values["asks_per_peer"], values["asks_in_all"]
        self._code, self._required = values["extension"], values["quantum_relief"] == "required"

    def extension_codes(self) -> Sequence[int]:
        """Quantum Relief, and the neighbours that fetch tickets."""
        return (self._code, self._code ^ 1, self._code ^ 2)

    def _remember_in(self, text: object) -> None:
        """The file is opened when the first authenticator comes; another path on reload means another table."""
        if not isinstance(text, str) or (text and not Path(text).is_absolute()):
            raise ValueError("[credential.kerberos] replay_cache is the absolute path of a file")
        path = Path(text) if text else default_path()
        if self._service.replays.path != path:
            before, self._service.replays = self._service.replays, ReplayCache(path)
            before.close()

    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        """What sessions fill with tickets; a server on a host shows nothing."""
        Account.decode(local.public)
        roles = local.roles if local.identity.user is not None else local.roles & Role.CLIENT
        return SessionCredential(roles) if roles else None

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        """An Authenticator."""
        assert isinstance(credential, SessionCredential) and credential.held is not None
        return TicketCredential(credential.held, credential.kdh_only).sign(scheme, content)

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> PeerCredential:
        """Open the client's ticket with the keys of our services, or by our own ticket-granting ticket."""
        if len(entries) != 1:
            raise UnsupportedCertificate("exactly one ticket is wanted")
        self._keys.config = config
        self._service.prepare()
        found, ticket = box.get(), entries[0].data
        opened = found.open(self._service, ticket) if isinstance(found, ServerBox) else self._service.open(ticket)
        return TicketPeer(tuple(entries), opened, self._service)

    def owns(self, peer: PeerCredential) -> bool:
        """Clients and services alike."""
        return isinstance(peer, TicketPeer | ServicePeer)

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        """The principal, in a realm that is known."""
        assert isinstance(peer, TicketPeer | ServicePeer)
        found = self.realms.identity(peer.principal)
        return () if found is None else (found,)

    def predicates(self) -> Iterable[Predicate]:
        """T."""
        return (RealmPredicate(self),)

    def describe(self, side: Credential | PeerCredential, field: str) -> str | None:
        """The principal as subject, the realm as issuer."""
        if not isinstance(side, TicketPeer | ServicePeer):
            return None
        return {"subject": str(side.principal), "issuer": side.principal.realm}.get(field)

    def import_local(self, data: bytes) -> bytes:
        """Check the JSON of an account."""
        return Account.decode(data).encode()

    def summarize(self, public: bytes) -> str:
        """For lists."""
        try:
            account = Account.decode(public)
        except ValueError as error:
            return str(error)
        return f"{account.principal or 'by its identity'} ({account.ccache or account.keytab or 'password'})"

    def begin(self, context: SessionContext) -> SessionParts:
        """Offer or serve Kerberos, where the local identity has it."""
        box.set(None)  # a client that becomes the server leaves nothing behind
        role = Role.CLIENT if context.role == "client" else Role.SERVER
        local = next((one for one in context.local_credentials if one.roles & role and one.type == TYPE), None)
        if local is None:
            return SessionParts()
        return self._begin_client(context, local) if role is Role.CLIENT else self._begin_server(context, local)

    def _begin_client(self, context: SessionContext, local: LocalCredential) -> SessionParts:
        remote = context.remote_identity
        if remote is None:
            return SessionParts()
        try:
            services, source = self.realms.services(context.service, remote), self._source(context, local)
        except LookupError as error:
            return self._hopeless(str(error))
        mine = ClientBox(
            self._tickets, self.realms, source, services, to_user=remote.user is not None, used=_resting_on(source, context)
        )
        box.set(mine)
        relief = ClientRelief(mine.fill, required=self._required, code=self._code)
        if mine.to_user:
            wanted = accepts_for(self.realms, remote, "")
            relief = UserRelief(mine.granting, self._service, wanted, required=self._required, code=self._code)
        extensions = (relief,) if mine.kept() else (self._prefetch(mine.begin), relief)
        return SessionParts((Kdh(prepare=mine.prepare),), extensions)

    def _prefetch(self, work: Callable[[], object]) -> Prefetch:
        return Prefetch(work, required=self._required, code=self._code ^ 1)

    def _hopeless(self, reason: str) -> SessionParts:
        """Nothing to offer: the session ends with the reason, unless it may do without."""

        def refuse() -> None:
            raise KerberosError(reason)

        return SessionParts(extensions=(self._prefetch(refuse),))

    def _begin_server(self, context: SessionContext, local: LocalCredential) -> SessionParts:
        self._keys.config = context.config
        identity = context.local_identity or local.identity
        accepts = accepts_for(self.realms, identity, context.service)
        alone = all(one.type == TYPE for one in context.local_credentials if one.roles & Role.SERVER)
        source = None
        if identity.user is not None:
            try:
                source = self._source(context, local)
            except LookupError:
                return SessionParts()  # its realm is not known, so nobody can have a ticket for it
        mine = ServerBox(
            self._tickets, self.realms, accepts, source, alone, used=_resting_on(source, context), peer_network=context.peer_network
        )
        box.set(mine)
        if source is None:
            return SessionParts((Kdh(accepts),), (ServerRelief(self._service, accepts, code=self._code),))
        prefetch = ServerPrefetch(mine.begin, code=self._code ^ 2)
        relief = ServerRelief(self._service, accepts, for_user=mine.for_user, code=self._code)
        return SessionParts((Kdh(accepts),), (prefetch, relief))

    def _source(self, context: SessionContext, local: LocalCredential) -> Source:
        """Where the tickets of a local identity come from. Raises LookupError if its realm is not known."""
        account = Account.decode(local.public)
        names = () if account.principal else self.realms.names(context.service, local.identity)
        return account.source(names, local.key_uri, lambda: context.read_secret(local.key_uri))


def _resting_on(source: Source | None, context: SessionContext) -> Callable[[], None]:
    """What a session calls that has a ticket: it rests on the password that the ticket was had by, whichever session asked for that."""
    uri = source.key_uri if source is not None else ""
    return (lambda: context.rests_on(uri)) if uri else (lambda: None)


def _domains(table: object) -> Mapping[str, str]:
    if not isinstance(table, dict) or not all(isinstance(domain, str) and domain for domain in table.values()):
        raise ValueError('[credential.kerberos] realms is a table of REALM = "domain"')
    domains = {realm: DoNAI.parse(domain).domain for realm, domain in table.items()}
    if len(set(domains.values())) != len(domains):
        raise ValueError("[credential.kerberos] realms gives one domain to two realms")
    return domains


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    """The credential type."""
    return [KerberosType()]


@hookimpl
def tlspool_register_cli_commands() -> Sequence[CliCommand]:
    """`tlspool kdh`."""
    return [KdhCommands()]
