"""Key exchange in TLS 1.2: our own (EC)DHE, written against the seam that plugins use, and how a run is driven.

Theory of operation
-------------------
A cipher suite names its key exchange, and `exchanges_for` finds the object of that name: ours or a plugin's.  From there on no code
knows which it has.  A plugin's methods may block, so each call is put to the session as a `Call` question; ours are called
directly, for they cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tlspool_core.tls.alerts import DecodeError, IllegalParameter, NoGroupInCommon, UnexpectedMessage, UnofferedChoice
from tlspool_core.tls.codec import Reader, u8, u16, vector8
from tlspool_core.tls.enums import ExtensionType, NamedGroup
from tlspool_core.tls.extension_contents import parse_u16s
from tlspool_core.tls.groups import KeyShare, generate, respond
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.negotiation import enabled_groups
from tlspool_core.tls.seams import KeyExchange, KeyExchangeContext, KeyExchangeRun, PeerCredential
from tlspool_core.tls.settings import TLS12, Settings
from tlspool_core.tls.suites import ECDHE
from tlspool_core.tls.tls12.authentication import Proof

T = TypeVar("T")

NAMED_CURVE = 3  # ECCurveType, RFC 8422 section 5.4
# what a client without supported_groups can be expected to have (RFC 8422 section 4 leaves it open)
GROUPS_UNSAID = (NamedGroup.SECP256R1,)


def offered_groups(client_extensions: Mapping[int, bytes]) -> Sequence[int]:
    """supported_groups of a ClientHello."""
    content = client_extensions.get(ExtensionType.SUPPORTED_GROUPS)
    return GROUPS_UNSAID if content is None else parse_u16s(content)


class Ecdhe:
    """ECDHE_RSA and ECDHE_ECDSA, RFC 8422; the signature is the handshake's business."""

    name = ECDHE

    def __init__(self, groups: Sequence[int]) -> None:
        """`groups` are those that we allow, best first."""
        self._groups = groups

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        return not frozenset(self._groups).isdisjoint(offered_groups(client_extensions))

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        if role == "client":
            return _EcdheClient(self._groups)
        for group in self._groups:
            if group in context.peer_groups:
                return _EcdheServer(group)
        raise NoGroupInCommon(f"none of {len(context.peer_groups)} groups")


def _parse_point(body: bytes) -> bytes:
    """ECPoint that fills a ClientKeyExchange, RFC 8422 section 5.7."""
    reader = Reader(body)
    point = reader.vector8(1)
    reader.finish()
    return point


class _EcdheServer(KeyExchangeRun):
    """The server speaks first."""

    __slots__ = ("_secret", "_share", "group")

    def __init__(self, group: int) -> None:
        self.group = group
        self._share: KeyShare = generate(group)
        self._secret = b""

    def own_parameters(self) -> bytes:
        """ServerECDHParams, RFC 8422 section 5.4."""
        return u8(NAMED_CURVE) + u16(self.group) + vector8(self._share.public)

    def parameters_length(self, message: bytes) -> int:
        raise NotImplementedError("a client's question")

    def peer_parameters(self, body: bytes) -> None:
        self._secret = self._share.finish(_parse_point(body))

    def premaster(self) -> bytes:
        return self._secret


class _EcdheClient(KeyExchangeRun):
    """The client answers."""

    __slots__ = ("_groups", "_public", "_secret", "group")

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = groups
        self.group = 0
        self._public = self._secret = b""

    def parameters_length(self, message: bytes) -> int:
        if len(message) < 4:
            raise DecodeError("ServerKeyExchange without parameters")
        return 4 + message[3]

    def peer_parameters(self, body: bytes) -> None:
        reader = Reader(body)
        if reader.u8() != NAMED_CURVE:
            raise IllegalParameter("explicit curves are not spoken")
        group, point = reader.u16(), reader.vector8(1)
        reader.finish()
        if group not in self._groups:
            raise UnofferedChoice(f"group 0x{group:04x}")
        self.group = group
        self._public, self._secret = respond(group, point)

    def own_parameters(self) -> bytes:
        if not self._public:
            raise UnexpectedMessage("the server left ServerKeyExchange out")
        return vector8(self._public)

    def premaster(self) -> bytes:
        return self._secret


def exchanges_for(settings: Settings) -> dict[str, KeyExchange]:
    """All key exchanges of a connection by name; a plugin cannot take the place of ours."""
    found: dict[str, KeyExchange] = {exchange.name: exchange for exchange in settings.key_exchanges}
    found[ECDHE] = Ecdhe(enabled_groups(settings, TLS12))
    return found


class Exchange:
    """One run of a key exchange, as the coroutines drive it."""

    __slots__ = ("_blocks", "_hs", "_name", "_run")

    def __init__(self, hs: Handshake[Any], name: str) -> None:
        self._hs = hs
        self._name = name
        self._blocks = name != ECDHE
        self._run: KeyExchangeRun

    async def _call(self, work: Callable[[], T]) -> T:
        if self._blocks:
            return await self._hs.call(f"key exchange {self._name}", work)
        return work()

    async def start(self, exchange: KeyExchange, context: KeyExchangeContext) -> None:
        """Begin; the other methods are for after this."""
        self._run = await self._call(lambda: exchange.start(self._hs.role, context))
        if self._run.quantum_safe:
            self._hs.know(quantum_safe_exchange=True, quantum_safe_authentication=True)

    @property
    def after_certificate_verify(self) -> bool:
        """The premaster secret needs what CertificateVerify carries."""
        return self._run.premaster_after_certificate_verify

    async def own_parameters(self) -> bytes | None:
        return await self._call(self._run.own_parameters)

    async def split(self, message: bytes) -> tuple[bytes, bytes]:
        """Client: ServerKeyExchange as (params, what follows them). Raises DecodeError."""
        length = await self._call(lambda: self._run.parameters_length(message))
        if length > len(message):
            raise DecodeError("parameters reach past the end of ServerKeyExchange")
        return message[:length], message[length:]

    async def peer_parameters(self, body: bytes) -> None:
        await self._call(lambda: self._run.peer_parameters(body))

    async def proof(self, proof: Proof) -> None:
        await self._call(lambda: self._run.proof(proof.credential, proof.scheme, proof.content, proof.signature))

    async def premaster(self) -> bytes:
        """The premaster secret; notes the group that was used."""
        secret = await self._call(self._run.premaster)
        self._hs.know(group=self._run.group)
        return secret

    async def peer_credential(self) -> PeerCredential | None:
        return await self._call(self._run.peer_credential) if self._blocks else None
