"""The credential type `srp`: passwords that authenticate both sides and never cross the wire.

Theory of operation
-------------------
A *client* has a local identity of type srp, whose record names an account (see `secrets`); it then offers the suites of SRP beside all
others.  A *server* serves SRP to clients that name a user, if a local credential of type srp switches it on for the local identity; users'
verifiers are records of the trust database (see `verifiers`).  Nothing of SRP travels in a Certificate message, so there is no
certificate form; the suites with RSA use the certificate of another credential type for the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tlspool_core.api import (
    CipherSuite,
    CliCommand,
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
    Verdict,
    hookimpl,
)
from tlspool_srp.attempts import Attempts
from tlspool_srp.cli import SrpCommands
from tlspool_srp.exchange import NAME, TLS12, ClientSrp, ServerSrp, SrpPeer, UserExtension
from tlspool_srp.groups import GROUPS
from tlspool_srp.secrets import ClientAccount, password_source
from tlspool_srp.verifiers import TYPE, find_verifier, record_key


def _suite(code: int, authentication: str, bits: int) -> CipherSuite:
    middle = {"": "", "rsa": "_RSA"}[authentication]
    name = f"TLS_SRP_SHA{middle}_WITH_AES_{bits}_CBC_SHA"
    return CipherSuite(code, name, TLS12, NAME, authentication, f"AES-{bits}-CBC", "sha256", mac="sha1")


# RFC 5054 section 2.7; the RFC defines no suite with ECDSA, and those with DSS and 3DES are not wanted
SUITES = (
    _suite(0xC021, "rsa", 256),
    _suite(0xC01E, "rsa", 128),
    _suite(0xC020, "", 256),
    _suite(0xC01D, "", 128),
)


class VerifierPredicate(Predicate):
    """T, t: a verifier for this identity is in our database; towards a server: it proved to hold the verifier of our account."""

    letter = "T"
    types = frozenset({TYPE})

    def establish(self, context: PeerContext) -> Finding:
        """Look once more: the record may have been removed since, or the session resumed."""
        assert isinstance(context.peer, SrpPeer)
        if context.offered_role == "server":
            return Finding(Verdict.STRICT)
        with context.config.read() as databases:
            if find_verifier(databases, context.peer.identity) is None:
                return Finding(Verdict.FALSE, f"no SRP verifier for {context.peer.identity}")
        return Finding(Verdict.STRICT)


class SrpType(CredentialType):
    """Registered as `srp`."""

    name = TYPE
    certificate_types: tuple[int, ...] = ()
    engine_parts = EngineParts(cipher_suites=SUITES)

    def __init__(self) -> None:
        self._minimum_bits = 1536
        self._simulated_bits = 2048
        self._attempts = Attempts()

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Section [credential.srp]: minimum_bits, simulated_bits, attempts_per_user, attempts_per_address, attempts_window (seconds)."""
        known = {
            "minimum_bits": 1536, "simulated_bits": 2048, "attempts_per_user": 10, "attempts_per_address": 50, "attempts_window": 600,
        }  # fmt: skip
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"[credential.srp] has no {', '.join(unknown)}; it has {', '.join(known)}")
        values = {**known, **settings}
        for key, value in values.items():
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"[credential.srp] {key} is a positive whole number")
        for key in ("minimum_bits", "simulated_bits"):
            if values[key] not in GROUPS:
                raise ValueError(f"[credential.srp] {key} is one of {', '.join(map(str, GROUPS))}")
        self._minimum_bits, self._simulated_bits = values["minimum_bits"], values["simulated_bits"]
        attempts = self._attempts  # a reload forgets no failures
        attempts.limit_user, attempts.limit_address = values["attempts_per_user"], values["attempts_per_address"]
        attempts.window = float(values["attempts_window"])

    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        """SRP shows nothing in a Certificate message."""
        return None

    def owns(self, peer: PeerCredential) -> bool:
        """The peers that our exchange proved."""
        return isinstance(peer, SrpPeer)

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        """The one that was proven."""
        assert isinstance(peer, SrpPeer)
        return (peer.identity,)

    def predicates(self) -> Iterable[Predicate]:
        """T."""
        return (VerifierPredicate(),)

    def trust_keys(self, peer: PeerCredential) -> tuple[bytes, ...]:
        """The user's record, whose expression applies."""
        assert isinstance(peer, SrpPeer)
        return (record_key(peer.identity),)

    def import_local(self, data: bytes) -> bytes:
        """Check the JSON of a client's account; a server's has no content."""
        return ClientAccount.decode(data).encode() if data.strip() else b""

    def summarize(self, public: bytes) -> str:
        """For lists."""
        if not public:
            return "serves the users of the trust database"
        try:
            account = ClientAccount.decode(public)
        except ValueError as error:
            return str(error)
        return f"{account.user} at {account.server}"

    def begin(self, context: SessionContext) -> SessionParts:
        """Offer or serve SRP, where the local identity has it."""
        role = Role.CLIENT if context.role == "client" else Role.SERVER
        usable = [one for one in context.local_credentials if one.roles & role]
        local = next((one for one in usable if one.type == TYPE), None)
        if local is None:
            return SessionParts()
        preferred = usable[0] is local  # TLS 1.3 and other suites would leave the password out
        if role is Role.CLIENT:
            account = ClientAccount.decode(local.public, local.identity)
            client = ClientSrp(account.user, account.server, password_source(account, local, context), self._minimum_bits)
            parts = SessionParts((client,), (UserExtension(account.user),))
            return replace(parts, versions=(TLS12,), cipher_suites=tuple(row.code for row in SUITES)) if preferred else parts
        extension = UserExtension()
        server = ServerSrp(
            extension,
            context.config,
            self._attempts,
            lambda: context.local_identity or local.identity,
            context.peer_network,
            self._minimum_bits,
            self._simulated_bits,
        )
        return SessionParts((server,), (extension,))


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    """The credential type."""
    return [SrpType()]


@hookimpl
def tlspool_register_cli_commands() -> Sequence[CliCommand]:
    """`tlspool srp`."""
    return [SrpCommands()]
