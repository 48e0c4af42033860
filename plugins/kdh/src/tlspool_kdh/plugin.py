"""The credential type `kerberos`: tickets that authenticate, with forward secrecy by Diffie-Hellman.

Theory of operation
-------------------
A *client* needs a ticket for each service, so what `load` makes is empty until a session asks.  When a session begins, it gets a box
for its ticket; the box is filled by the first thing that the engine runs in a worker thread, the hook of the hello extension, and the
credential shows what is in the box of the session at hand (a context variable, as asyncio keeps one per task).  A KDC that is slow
or down therefore costs this session alone.

A *server* opens tickets with the keytabs of its local credentials; a session takes tickets for its own identity only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
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
from tlspool_kdh.codes import CHECKSUMS, FORM, QUANTUM_RELIEF, SCHEMES, SUITES, TICKET_TYPE
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.exchange import Kdh, ServicePeer, TicketCredential, TicketPeer
from tlspool_kdh.mit import KerberosError, Tickets, keytab_keys
from tlspool_kdh.relief import ClientRelief, Prefetch, ServerRelief
from tlspool_kdh.tickets import ClientTicket, Principal, Service

TYPE = "kerberos"
_SETTINGS = {"realms": {}, "clock_skew": 300, "ticket_margin": 300, "extension": QUANTUM_RELIEF, "quantum_relief": "required"}


class Box:
    """The ticket of one session; filled in a worker thread."""

    def __init__(self, fetch: Callable[[], ClientTicket]) -> None:
        self._fetch = fetch
        self.held: ClientTicket | None = None

    def fill(self) -> ClientTicket:
        """Blocks. Raises KerberosError."""
        if self.held is None:
            self.held = self._fetch()
        return self.held


_box: ContextVar[Box | None] = ContextVar("tlspool_kdh_box", default=None)


class SessionCredential:
    """Shows the ticket of the session at hand."""

    certificate_type = TICKET_TYPE
    issuers: Sequence[bytes] = ()
    roles = Role.CLIENT

    @property
    def signature_schemes(self) -> Sequence[int]:
        """None before there is a ticket: then the credential does not fit, and another is taken."""
        return tuple(CHECKSUMS) if self.held is not None else ()

    @property
    def entries(self) -> Sequence[CertificateEntry]:
        """The ticket."""
        return (CertificateEntry(self.held.ticket),) if self.held is not None else ()

    @property
    def held(self) -> ClientTicket | None:
        """The session's ticket."""
        box = _box.get()
        return box.held if box is not None else None


class RealmPredicate(Predicate):
    """T, t: the KDC of a realm that the configuration knows vouches for the peer, and a client's ticket is for our local identity."""

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
        if isinstance(peer, TicketPeer) and self._kind.realms.identity(peer.opened.service) != context.local_identity:
            return Finding(Verdict.FALSE, f"the ticket is for {peer.opened.service}")
        return Finding(Verdict.STRICT)


class KerberosType(CredentialType):
    """Registered as `kerberos`."""

    name = TYPE
    certificate_types = (TICKET_TYPE,)
    engine_parts = EngineParts((FORM,), SUITES, SCHEMES)
    examine_may_block = True

    def __init__(self) -> None:
        self.realms = Realms({})
        self._keytabs: tuple[str, ...] = ()
        self._generation: int | None = None
        self._service = Service(self._find_key)
        self._tickets = Tickets()
        self._code, self._required = QUANTUM_RELIEF, True

    def configure(self, settings: Mapping[str, Any]) -> None:
        """[credential.kerberos]: realms (table of REALM = "domain"), clock_skew, ticket_margin (seconds), extension (code point),
        quantum_relief ("required" or "optional").
        """
        if unknown := sorted(set(settings) - set(_SETTINGS)):
            raise ValueError(f"[credential.kerberos] has no {', '.join(unknown)}; it has {', '.join(_SETTINGS)}")
        values: dict[str, Any] = {**_SETTINGS, **settings}
        for key in ("clock_skew", "ticket_margin", "extension"):
            if type(values[key]) is not int or values[key] <= 0:
                raise ValueError(f"[credential.kerberos] {key} is a positive whole number")
        if not 0xFF00 <= values["extension"] <= 0xFFFF:
            raise ValueError("[credential.kerberos] extension is a code point from 0xff00 to 0xffff")
        if values["quantum_relief"] not in ("required", "optional"):
            raise ValueError('[credential.kerberos] quantum_relief is "required" or "optional"')
        self.realms = Realms(_domains(values["realms"]))
        self._service.skew = float(values["clock_skew"])
        self._tickets = Tickets(float(values["ticket_margin"]))
        self._code, self._required = values["extension"], values["quantum_relief"] == "required"

    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        """A client's is filled by its sessions; a service shows nothing."""
        return SessionCredential() if Account.decode(local.public).principal else None

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        """An Authenticator."""
        assert isinstance(credential, SessionCredential) and credential.held is not None
        return TicketCredential(credential.held).sign(scheme, content)

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> PeerCredential:
        """Open the client's ticket with the keytabs of our services."""
        if len(entries) != 1:
            raise UnsupportedCertificate("exactly one ticket is wanted")
        self._read_keytabs(config)
        return TicketPeer(tuple(entries), self._service.open(entries[0].data), self._service)

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
        return f"{account.principal or 'service'} ({account.ccache or account.keytab or 'password'})"

    def begin(self, context: SessionContext) -> SessionParts:
        """Offer or serve Kerberos, where the local identity has it."""
        role = Role.CLIENT if context.role == "client" else Role.SERVER
        local = next((one for one in context.local_credentials if one.roles & role and one.type == TYPE), None)
        if local is None:
            return SessionParts()
        if role is Role.CLIENT:
            return self._begin_client(context, local)
        self._read_keytabs(context.config)

        def accepts(service: Principal) -> bool:
            return self.realms.identity(service) == (context.local_identity or local.identity)

        return SessionParts((Kdh(accepts),), (ServerRelief(self._service, accepts, code=self._code),))

    def _begin_client(self, context: SessionContext, local: LocalCredential) -> SessionParts:
        account, remote = Account.decode(local.public), context.remote_identity
        if not account.principal or remote is None:
            return SessionParts()

        def fetch() -> ClientTicket:
            try:
                service = self.realms.service(context.service or "host", remote)
            except LookupError as error:
                raise KerberosError(str(error)) from None
            return self._tickets.get(account.source(lambda: context.read_secret(local.key_uri)), service)

        box = Box(fetch)
        _box.set(box)
        prefetch = Prefetch(box.fill, required=self._required, code=self._code ^ 1)
        return SessionParts((Kdh(),), (prefetch, ClientRelief(box.fill, required=self._required, code=self._code)))

    def _read_keytabs(self, config: ConfigBackend) -> None:
        generation = config.generation()
        if generation == self._generation:
            return
        with config.read() as databases:
            services = [
                one for entry in databases.localids() for one in entry.credentials if one.type == TYPE and one.roles & Role.SERVER
            ]
        found = {Account.decode(one.public).keytab: None for one in services if not Account.decode(one.public).principal}
        self._keytabs, self._generation = tuple(found), generation

    def _find_key(self, principal: Principal, enctype: int, kvno: int | None) -> KerberosKey:
        """In the keytabs of our services. Raises LookupError."""
        problem = LookupError(f"no keytab here has a key for {principal}")
        for keytab in self._keytabs:
            try:
                return keytab_keys(keytab)(principal, enctype, kvno)
            except LookupError as error:
                problem = error
        raise problem


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
