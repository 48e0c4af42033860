"""Requests as bytes, and replies that are believed.

Theory of operation
-------------------
pyrad makes requests and takes replies apart, but a reply reaches it only after it was found to be well formed and signed, over its
very bytes:

1. The lengths of packet and attributes add up, down to the attributes of vendors: decoders have looped for ever on lengths of 0.
2. It answers this request: identifier, a code that belongs there, Response Authenticator (RFC 2865 section 3).
3. Replies to Access-Request have exactly one Message-Authenticator, and it is right (RFC 3579 section 3.2); without it, an attacker
   who sees the request can turn a Reject into an Accept (BlastRADIUS, CVE-2024-3596).  Our requests have one, too, and it comes first.
   A sign of health (Status-Server) permits nothing, and many servers do not sign it so; if it is signed, it must be right.
   A Proxy-State that we did not send is the mark of that attack, and refused by pyrad.

What fails is no reply: it is ignored, and the wait goes on, so that a forger cannot end it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pyrad import packet as pyrad

from tlspool_radius.attributes import MESSAGE_AUTHENTICATOR, VENDOR_SPECIFIC, Attributes

ACCESS_REQUEST: Final = 1
ACCESS_ACCEPT: Final = 2
ACCESS_REJECT: Final = 3
ACCOUNTING_REQUEST: Final = 4
ACCOUNTING_RESPONSE: Final = 5
ACCESS_CHALLENGE: Final = 11
STATUS_SERVER: Final = 12

_HEADER: Final = 20
_MAX_PACKET: Final = 4096  # RFC 2865 section 3
_ANSWERS: Final = {
    ACCESS_REQUEST: (ACCESS_ACCEPT, ACCESS_REJECT, ACCESS_CHALLENGE),
    ACCOUNTING_REQUEST: (ACCOUNTING_RESPONSE,),
    STATUS_SERVER: (ACCESS_ACCEPT, ACCOUNTING_RESPONSE),
}
_KINDS: Final = {ACCESS_REQUEST: pyrad.AuthPacket, ACCOUNTING_REQUEST: pyrad.AcctPacket, STATUS_SERVER: pyrad.AuthPacket}


class BadReply(Exception):
    """The packet is no reply to the request; says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A verified reply."""

    code: int
    attributes: Attributes

    def all(self, code: int) -> list[bytes]:
        """Values of one attribute, in order."""
        return [value for number, value in self.attributes if number == code]


@dataclass(frozen=True, slots=True)
class Request:
    """One request for one server: retransmitted as it is, or made anew."""

    code: int
    raw: bytes = field(repr=False)
    _secret: bytes = field(repr=False)
    _packet: pyrad.Packet = field(repr=False)

    @classmethod
    def make(cls, code: int, attributes: Attributes, secret: bytes, identifier: int | None = None) -> Request:
        """Encode and sign; the identifier is random unless it is given. Raises ValueError if it grows too long."""
        made = _KINDS[code](code, secrets.randbelow(256) if identifier is None else identifier, secret)
        if code != ACCOUNTING_REQUEST:
            made.add_message_authenticator()
        for number, value in attributes:
            made.setdefault(number, []).append(value)
        if code != ACCOUNTING_REQUEST:
            made.authenticator = secrets.token_bytes(16)
        raw: bytes = made.RequestPacket()
        if len(raw) > _MAX_PACKET:
            raise ValueError(f"a request of {len(raw)} bytes is too long for RADIUS")
        return cls(code, raw, secret, made)

    @property
    def identifier(self) -> int:
        return self.raw[1]

    def read(self, data: bytes) -> Reply:
        """The reply in a packet that came from the server. Raises BadReply."""
        data = well_formed(data)
        if data[1] != self.identifier:
            raise BadReply("another identifier")
        if data[0] not in _ANSWERS[self.code]:
            raise BadReply(f"code {data[0]} does not answer code {self.code}")
        self._verify(data)
        try:
            reply = self._packet.CreateReply(packet=data)
            believed = self._packet.VerifyReply(reply, data, enforce_ma=self.code == ACCESS_REQUEST)
        except Exception as error:  # whatever a decoder stumbles over is no reply
            raise BadReply(f"cannot be decoded: {type(error).__name__}") from error
        if not believed:
            raise BadReply("not signed with the shared secret")
        return Reply(data[0], [(number, value) for number, value, _ in _walk(data, _HEADER)])

    def _verify(self, data: bytes) -> None:
        """The signatures, over the bytes as they came. Raises BadReply."""
        vector = self.raw[4:_HEADER]
        body = data[:4] + vector + data[_HEADER:]
        digest = hashlib.md5(body + self._secret, usedforsecurity=False).digest()  # RFC 2865 section 3 knows no other
        if not hmac.compare_digest(digest, data[4:_HEADER]):
            raise BadReply("the Response Authenticator is wrong")
        if self.code != ACCESS_REQUEST:
            return  # RFC 2866 section 4.2: the Response Authenticator signs; pyrad looks at a Message-Authenticator if there is one
        places = [(place, value) for number, value, place in _walk(data, _HEADER) if number == MESSAGE_AUTHENTICATOR]
        if len(places) != 1:
            raise BadReply("no Message-Authenticator" if not places else "more than one Message-Authenticator")
        place, value = places[0]
        if not hmac.compare_digest(hmac.digest(self._secret, body[:place] + bytes(16) + body[place + 16 :], "md5"), value):
            raise BadReply("the Message-Authenticator is wrong")


def _walk(data: bytes, start: int) -> Iterator[tuple[int, bytes, int]]:
    """Attributes with the places of their values. Raises BadReply if the lengths do not add up."""
    place = start
    while place < len(data):
        if place + 2 > len(data) or data[place + 1] < 2 or place + data[place + 1] > len(data):
            raise BadReply("the lengths of attributes do not add up")
        end = place + data[place + 1]
        yield data[place], data[place + 2 : end], place + 2
        place = end


def well_formed(data: bytes) -> bytes:
    """The packet without padding, all of whose lengths add up. Raises BadReply."""
    length = int.from_bytes(data[2:4], "big")
    if not _HEADER <= length <= min(len(data), _MAX_PACKET):
        raise BadReply("the length of the packet is wrong")
    data = data[:length]
    for number, value, _ in _walk(data, _HEADER):
        if number == MESSAGE_AUTHENTICATOR and len(value) != 16:
            raise BadReply("a Message-Authenticator has 16 octets")
        if number == VENDOR_SPECIFIC:
            if len(value) < 5:
                raise BadReply("an attribute of a vendor is too short")
            for _ in _walk(value, 4):  # RFC 2865 section 5.26: the vendor's number, then attributes like ours
                pass
    return data
