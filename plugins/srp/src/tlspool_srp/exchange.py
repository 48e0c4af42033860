"""The key exchange SRP of TLS 1.2 (RFC 5054 section 2.2), on either side.

    Client                                            Server
    ClientHello (I)              -------->
                                                      ServerHello
                                                      Certificate*
                                                      ServerKeyExchange (N, g, s, B)
                                 <--------            ServerHelloDone
    ClientKeyExchange (A)
    [ChangeCipherSpec], Finished -------->
                                 <--------            [ChangeCipherSpec], Finished

Theory of operation
-------------------
The user name is in the ClientHello, so the server looks the verifier up before it answers; an unknown name gets a simulated one, and
fails where a wrong password fails: Finished does not decrypt, and the alert is bad_record_mac (section 2.9).  A and B that are
multiples of N would make the premaster secret known to anybody, and are refused (sections 2.5.3 and 2.5.4).

The computations are srptools'.  Each takes milliseconds, during which the interpreter does nothing else.  So one thread at a time
computes: a crowd of them would be no faster, and keep the event loop from its turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from srptools import SRPContext

from tlspool_core.api import (
    AccessDenied,
    CertificateEntry,
    ConfigBackend,
    DoNAI,
    HandshakeFailure,
    IllegalParameter,
    InsufficientSecurity,
    InvalidIdentity,
    KeyExchangeContext,
    KeyExchangeRun,
    KeyStoreError,
    PeerCredential,
    UnknownPskIdentity,
    UserCanceled,
)
from tlspool_srp.attempts import Attempts
from tlspool_srp.groups import find_group
from tlspool_srp.messages import (
    EXTENSION,
    build_client_public,
    build_user,
    number,
    parse_client_public,
    parse_server_parameters,
    parse_user,
    server_parameters,
)
from tlspool_srp.verifiers import Verifier, context_for, find_verifier, installation_seed, simulated_verifier

NAME = "SRP"
TLS12 = 0x0303
_TOO_MANY = "too many failed SRP attempts; try again later"
_computing = threading.Lock()


@dataclass(frozen=True, slots=True)
class SrpPeer:
    """Whom the exchange proved: the user towards a server, the keeper of the verifier towards a client."""

    identity: DoNAI
    credential_type: str = "srp"
    certificate_type: int = -1  # nothing of it travels in a Certificate message
    entries: Sequence[CertificateEntry] = ()

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        """Never asked: the proof is in Finished."""
        raise HandshakeFailure("SRP proves itself by Finished, not by a signature")


@dataclass
class UserExtension:
    """The extension `srp`: the client's user name on its way to the key exchange."""

    user: str | None = None
    code: int = EXTENSION
    versions: frozenset[int] = frozenset({TLS12})

    def client_hello(self, retry: bool) -> bytes | None:
        """Offer the user name that the client means to use."""
        return None if self.user is None else build_user(self.user)

    def received_client_hello(self, content: bytes | None) -> None:
        """Remember the user name that the client offers."""
        self.user = None if content is None else parse_user(content)

    def server_hello(self, version: int) -> bytes | None:
        """The server does not echo the extension."""
        return None

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        """A server has nothing to say here (RFC 5054 section 2.3)."""
        if content is not None:
            raise IllegalParameter("the server answered the extension srp, which has no answer")

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """SRP is not for TLS 1.3."""
        return None

    def peer_credential(self) -> PeerCredential | None:
        """The key exchange proves the peer, not the extension."""
        return None


# --- client ------------------------------------------------------------------------------------------------------------------


@dataclass
class ClientSrp:
    """Offers SRP to a server; `password` may block and is asked once, when the server's parameters have been accepted."""

    user: str
    server: DoNAI
    password: Callable[[], str | None] = field(repr=False)
    minimum_bits: int = 1536
    name: str = NAME

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        """Whenever there is a user to name."""
        return True

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        """Begin, once a suite of SRP was chosen."""
        return ClientRun(self)


class ClientRun(KeyExchangeRun):
    """One exchange on the client's side."""

    def __init__(self, srp: ClientSrp) -> None:
        self._srp = srp
        self._body = b""
        self._secret = b""

    def parameters_length(self, message: bytes) -> int:
        """Where the parameters end and a signature may begin."""
        return parse_server_parameters(message)[1]

    def peer_parameters(self, body: bytes) -> None:
        """Check what the server sends, then compute A and the premaster secret."""
        parameters, _ = parse_server_parameters(body)
        group = find_group(parameters.prime, parameters.generator)
        if group is None:
            raise InsufficientSecurity("the server's SRP group is none of RFC 5054 appendix A")
        if group.bits < self._srp.minimum_bits:
            raise InsufficientSecurity(f"the server's SRP group has {group.bits} bits, {self._srp.minimum_bits} are demanded")
        public = int.from_bytes(parameters.public)
        if public % group.prime == 0 or public >= group.prime:
            raise IllegalParameter("the server's SRP value B is not within the group")
        context = context_for(group, self._srp.user, self._password())
        with _computing:
            self._compute(context, parameters.salt, public)

    def _compute(self, context: SRPContext, salt: bytes, public: int) -> None:
        private = context.generate_client_private()
        own = context.get_client_public(client_private=private)
        scrambling = context.get_common_secret(public, own)
        if scrambling == 0:
            raise IllegalParameter("the SRP value u is zero")
        secret = context.get_client_premaster_secret(
            password_hash=context.get_common_password_hash(salt),
            server_public=public,
            client_private=private,
            common_secret=scrambling,
        )
        self._body, self._secret = build_client_public(own), number(secret)

    def _password(self) -> str:
        try:
            password, reason = self._srp.password(), "none was given"
        except UnicodeDecodeError:
            # its own text would show a part of the password
            password, reason = None, "it is no text in UTF-8"
        except (KeyStoreError, OSError) as error:
            password, reason = None, str(error)
        if password is None:
            raise UserCanceled(f"no SRP password: {reason}")
        return password

    def own_parameters(self) -> bytes | None:
        """Body of ClientKeyExchange."""
        return self._body

    def premaster(self) -> bytes:
        """The premaster secret, in its shortest form."""
        return self._secret

    def peer_credential(self) -> PeerCredential | None:
        """A server that knew the verifier."""
        return SrpPeer(self._srp.server)


# --- server ------------------------------------------------------------------------------------------------------------------


@dataclass
class ServerSrp:
    """Serves SRP to clients that name a user."""

    extension: UserExtension
    config: ConfigBackend
    attempts: Attempts
    default_domain: Callable[[], DoNAI | None]
    peer_network: str = ""
    minimum_bits: int = 1536
    simulated_bits: int = 2048
    name: str = NAME

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        """Only for a client that names a user: RFC 5054 section 2.5.1.2 would else demand an alert, though other suites may do."""
        return EXTENSION in client_extensions

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        """Look the user up; blocks on the database."""
        user = self.extension.user
        if user is None:
            raise UnknownPskIdentity("the client chose SRP but named no user")
        if not self.attempts.begin(self.counted(user), self.peer_network):
            raise AccessDenied(_TOO_MANY)
        return ServerRun(self, user)

    def counted(self, user: str) -> str:
        """Under which name attempts are counted: the same for all spellings of an identity, as each is a way to its verifier."""
        return str(self.identity_of(user) or user)

    def identity_of(self, user: str) -> DoNAI | None:
        """`user@domain`, with the local identity's domain for a name without one; None if it is no identity at all."""
        domain = self.default_domain()
        try:
            return DoNAI.parse(user if "@" in user or domain is None else f"{user}@{domain.domain}")
        except InvalidIdentity:
            return None


class ServerRun(KeyExchangeRun):
    """One exchange on the server's side."""

    def __init__(self, srp: ServerSrp, user: str) -> None:
        self._srp = srp
        self._user = user
        self._identity = srp.identity_of(user)
        self._verifier = self._look_up(user)
        self._context = context_for(self._verifier.group, user)
        self._private = self._context.generate_server_private()
        with _computing:
            self._public = self._context.get_server_public(password_verifier=self._verifier.value, server_private=self._private)
        self._secret = b""

    def _look_up(self, user: str) -> Verifier:
        seed = installation_seed(self._srp.config)
        with _computing:
            simulated = simulated_verifier(seed, user, self._srp.simulated_bits)
        if self._identity is None or self._identity.user is None:
            return simulated
        with self._srp.config.read() as databases:
            found = find_verifier(databases, self._identity)
        usable = found is not None and found.group.bits >= self._srp.minimum_bits
        return found if usable and found is not None else simulated

    def own_parameters(self) -> bytes | None:
        """Parameters of ServerKeyExchange."""
        return server_parameters(self._verifier.group, self._verifier.salt, self._public).build()

    def parameters_length(self, message: bytes) -> int:
        """Only asked of clients."""
        return len(message)

    def peer_parameters(self, body: bytes) -> None:
        """Check A, then compute the premaster secret."""
        group, public = self._verifier.group, parse_client_public(body)
        if public % group.prime == 0 or public >= group.prime:
            raise IllegalParameter("the client's SRP value A is not within the group")
        if not self._srp.attempts.guess(self._srp.counted(self._user), self._srp.peer_network):
            raise AccessDenied(_TOO_MANY)
        with _computing:
            secret = self._context.get_server_premaster_secret(
                password_verifier=self._verifier.value,
                server_private=self._private,
                client_public=public,
                common_secret=self._context.get_common_secret(self._public, public),
            )
        self._secret = number(secret)

    def premaster(self) -> bytes:
        """The premaster secret, in its shortest form."""
        return self._secret

    def peer_credential(self) -> PeerCredential | None:
        """The user, who knew the password; also ends the suspicion that this was a failed attempt."""
        self._srp.attempts.succeeded(self._srp.counted(self._user), self._srp.peer_network)
        assert self._identity is not None  # a name that is no identity has a simulated verifier, and never gets here
        return SrpPeer(self._identity)
