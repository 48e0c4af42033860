"""Tickets and Authenticators: made by a client, opened and judged by a service.

Theory of operation
-------------------
A client has a ticket that only the service can open, and the session key that lies inside.  It proves that it has the key by an
Authenticator, whose checksum covers what TLS wants proven (draft-vanrein-tls-kdh).  The service opens the ticket with its long-term
key; from then on both have the session key, and nobody else.  Times are judged as in RFC 4120 section 3.2.3, with a configured skew;
an Authenticator is taken once (section 3.2.3 as well), although its checksum ties it to one handshake anyway.

Everything that is wrong with what a peer sent is a `TlsError` whose text says what it is.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from tlspool_core.api import BadCertificate, CertificateExpired, CertificateUnknown, DecryptError, IllegalParameter, InternalError
from tlspool_kdh.asn1 import Authenticator, EncryptedData, EncTicketPart, Ticket, decode, encode, seconds
from tlspool_kdh.codes import CHECKSUMS, KEY_USAGE
from tlspool_kdh.crypto import KerberosKey, WrongKey, new_key
from tlspool_kdh.replay import NoRoom, Repeated, ReplayCache

_TICKET_USAGE: Final = 2  # RFC 4120 section 7.5.1
_INVALID: Final = 7  # bits of TicketFlags, RFC 4120 section 5.3
_TRANSITED_CHECKED: Final = 12
_IF_RELEVANT: Final = 1  # AD-IF-RELEVANT, RFC 4120 section 5.2.6.1
_MOST_PARTS: Final = 8
_LONGEST_NAME: Final = 1024
_ADDRESS_TYPES: Final = {4: 2, 6: 24}  # RFC 4120 section 7.5.3, by version of IP
_NETBIOS: Final = 20
_ESCAPES: Final = str.maketrans({character: "\\" + character for character in "/@\\"})


@dataclass(frozen=True, slots=True)
class Principal:
    """A principal name with its realm; as text RFC 1964 section 2.1.1 writes it, with a backslash before special characters."""

    names: tuple[str, ...]
    realm: str

    def __str__(self) -> str:
        return "/".join(part.translate(_ESCAPES) for part in self.names) + "@" + self.realm.translate(_ESCAPES)

    @classmethod
    def of(cls, name: Any, realm: str) -> Principal:
        """From a PrincipalName. Raises ValueError for empty parts, and for characters that cannot be seen."""
        return cls.build(tuple(name["name-string"]), realm)

    @classmethod
    def build(cls, names: tuple[str, ...], realm: str) -> Principal:
        """From components. Raises ValueError likewise, and for names that are absurdly long: they are put into messages and logs."""
        if len(names) > _MOST_PARTS or sum(map(len, (*names, realm))) > _LONGEST_NAME:
            raise ValueError(f"a principal name of more than {_MOST_PARTS} parts or {_LONGEST_NAME} characters")
        if not names or not all((*names, realm)) or not all(part.isprintable() for part in (*names, realm)):
            raise ValueError("a principal name with empty parts, or characters that cannot be seen")
        return cls(names, realm)

    @classmethod
    def parse(cls, text: str) -> Principal:
        """From text with a realm. Raises ValueError."""
        parts, ends = [""], ""
        pieces = iter(text)
        for piece in pieces:
            if piece in "/@":
                parts.append("")
                ends += piece
            else:
                parts[-1] += next(pieces, "") if piece == "\\" else piece
        if ends[-1:] != "@" or ends.count("@") != 1:
            raise ValueError(f"{text!r} is no principal with a realm, like user@REALM or service/host@REALM")
        return cls.build(tuple(parts[:-1]), parts[-1])


# finds the key of a service by principal, encryption type and key version (None: any). Raises LookupError in words. May block.
FindKey = Callable[[Principal, int, int | None], KerberosKey]


@dataclass(frozen=True, slots=True)
class OpenedTicket:
    """What a service knows of a client once it has opened its ticket."""

    client: Principal
    service: Principal
    session_key: KerberosKey
    ends: float  # seconds since the epoch
    addresses: tuple[tuple[int, bytes], ...] = ()  # HostAddresses that it is good from; empty: from anywhere

    def good_from(self, host: IPv4Address | IPv6Address | None) -> bool:
        """Whether the ticket may be used from a host, None if the connection has no address (RFC 4120 section 3.2.3).

        Addresses of NetBIOS alone are as none: nobody can tell them of a peer.
        """
        if all(kind == _NETBIOS for kind, _ in self.addresses):
            return True
        return host is not None and (_ADDRESS_TYPES[host.version], host.packed) in self.addresses


class Service:
    """Opens tickets for the services whose keys it has; one for the process. Times in seconds."""

    def __init__(self, find_key: FindKey, skew: float = 300.0, now: Callable[[], float] = time.time) -> None:
        self._find_key = find_key
        self.skew = skew
        self.now = now
        self.replays = ReplayCache()

    def open(self, ticket: bytes, granted: KerberosKey | None = None) -> OpenedTicket:
        """The content of a ticket that is valid now, by the key of its service, or between users by the session key of a ticket-granting
        ticket. Raises BadCertificate, CertificateUnknown or CertificateExpired.
        """
        try:
            outer = decode(Ticket, ticket)
            service = Principal.of(outer["sname"], outer["realm"])
            sealed = outer["enc-part"]
            key = granted or self._find_key(service, sealed["etype"], sealed["kvno"])
            if key.enctype != sealed["etype"]:
                raise WrongKey("another encryption type")
            inner = decode(EncTicketPart, key.decrypt(_TICKET_USAGE, sealed["cipher"]))
            client = Principal.of(inner["cname"], inner["crealm"])
            session_key = KerberosKey(inner["key"]["keytype"], inner["key"]["keyvalue"])
            begins, ends = seconds(inner["starttime"] or inner["authtime"]), seconds(inner["endtime"])
        except LookupError as error:
            raise CertificateUnknown(str(error)) from None
        except WrongKey:
            raise BadCertificate("the ticket cannot be opened with the key of its service") from None
        except ValueError as error:
            raise BadCertificate(f"the ticket is malformed: {error}") from None
        if _flag(inner, _INVALID):
            raise BadCertificate("the ticket is postdated and was not validated")
        self._judge_times(begins, ends)
        _judge_path(inner, service)
        _judge_restrictions(inner, "ticket")
        addresses = tuple((one["addr-type"], one["address"]) for one in inner["caddr"] or ())
        return OpenedTicket(client, service, session_key, ends, addresses)

    def _judge_times(self, begins: float, ends: float) -> None:
        now = self.now()
        if begins > now + self.skew:
            raise BadCertificate(f"the ticket is valid from {_text(begins)}, which is yet to come")
        if ends < now - self.skew:
            raise CertificateExpired(f"the ticket ended at {_text(ends)}")

    def prepare(self) -> None:
        """Have at hand what `accept` will need, which may not wait. May block. Raises InternalError."""
        try:
            self.replays.open()
        except NoRoom as error:
            raise InternalError(str(error)) from None

    def accept(self, opened: OpenedTicket, scheme: int, content: bytes, signature: bytes) -> bytes:
        """Check an Authenticator over `content`; returns its plaintext. Raises DecryptError or IllegalParameter."""
        plaintext, values = open_authenticator(opened.session_key, signature)
        kind, name = CHECKSUMS[scheme]
        found = values["cksum"]
        if found is None or found["cksumtype"] != kind:
            raise IllegalParameter(f"the authenticator has no checksum of type {kind}")
        if not hmac.compare_digest(found["checksum"], hashlib.new(name, content).digest()):
            raise DecryptError("the authenticator is for another handshake")
        if values["crealm"] != opened.client.realm or tuple(values["cname"]["name-string"]) != opened.client.names:
            raise DecryptError("the authenticator is of another client than the ticket")
        _judge_restrictions(values, "authenticator")
        made = seconds(values["ctime"])
        if abs(made - self.now()) > self.skew:
            raise DecryptError(f"the clocks differ by more than {self.skew:g} s: the authenticator was made at {_text(made)}")
        self._once(plaintext, made)
        return plaintext

    def _once(self, plaintext: bytes, made: float) -> None:
        try:
            self.replays.once(plaintext, made + 2 * self.skew, self.now())
        except Repeated:
            raise DecryptError("the authenticator was used before") from None
        except NoRoom as error:
            raise InternalError(str(error)) from None


def _text(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _judge_path(inner: dict[str, Any], service: Principal) -> None:
    """RFC 4120 section 2.7: who comes through other realms must have been checked by the service's KDC."""
    unchecked = bool(inner["transited"]["contents"]) and not _flag(inner, _TRANSITED_CHECKED)
    if inner["crealm"] != service.realm and unchecked:
        raise BadCertificate("the ticket came through realms that the service's KDC has not checked")


def _judge_restrictions(values: dict[str, Any], what: str) -> None:
    """RFC 4120 section 5.2.6: authorization data that is not known restricts, unless it says that it may be passed over."""
    for one in values["authorization-data"] or ():
        if one["type"] != _IF_RELEVANT:
            raise BadCertificate(f"the {what} is restricted by authorization data of type {one['type']}, which is not known here")


def _flag(inner: dict[str, Any], bit: int) -> bool:
    flags: tuple[int, ...] = inner["flags"]
    return len(flags) > bit and flags[bit] == 1


@dataclass(frozen=True, slots=True)
class ClientTicket:
    """A ticket for one service as a client holds it."""

    client: Principal
    service: Principal
    ticket: bytes  # DER
    session_key: KerberosKey = field(repr=False)
    ends: float = 0.0  # seconds since the epoch
    clock_offset: float = 0.0  # seconds by which the KDC's clock is ahead of ours


def make_authenticator(held: ClientTicket, scheme: int, content: bytes, now: float, *, with_subkey: bool = True) -> bytes:
    """DER EncryptedData of an Authenticator over `content`, with a fresh AES-256 subkey if KDH-only asks for it."""
    kind, name = CHECKSUMS[scheme]
    seconds = int(now)
    values: dict[str, Any] = {
        "authenticator-vno": 5,
        "crealm": held.client.realm,
        "cname": {"name-type": 1, "name-string": list(held.client.names)},
        "cksum": {"cksumtype": kind, "checksum": hashlib.new(name, content).digest()},
        "cusec": int((now - seconds) * 1_000_000),
        "ctime": datetime.fromtimestamp(seconds, UTC),
    }
    if with_subkey:
        subkey = new_key()
        values["subkey"] = {"keytype": subkey.enctype, "keyvalue": subkey.value}
    cipher = held.session_key.encrypt(KEY_USAGE, encode(Authenticator, values))
    return encode(EncryptedData, {"etype": held.session_key.enctype, "cipher": cipher})


def open_authenticator(session_key: KerberosKey, signature: bytes) -> tuple[bytes, dict[str, Any]]:
    """Plaintext and values of an Authenticator in an EncryptedData without kvno. Raises DecryptError."""
    try:
        sealed = decode(EncryptedData, signature)
        if sealed["etype"] != session_key.enctype or sealed["kvno"] is not None:
            raise ValueError("not encrypted as the session key demands")
        plaintext = session_key.decrypt(KEY_USAGE, sealed["cipher"])
        values = decode(Authenticator, plaintext)
        seconds(values["ctime"])
        return plaintext, values
    except WrongKey:
        raise DecryptError("the authenticator is not encrypted with the session key of the ticket") from None
    except ValueError as error:
        raise DecryptError(f"the authenticator is malformed: {error}") from None
