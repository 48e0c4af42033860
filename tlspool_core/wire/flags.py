"""Code points of the socket protocol: commands, facilities, flags and kinds of facts.

Theory of operation
-------------------
The numbers up to LIDENTRY are those that the original TLS Pool defined and that applications are compiled with; they never
change.  Ours follow the same style: accounting commands take the next block of 0x100, and a kind of fact (`InfoKind`) carries the
number of the RFC that defines it in its upper half, the item in its lower half.  Facts that only the pool knows use 0x544c ("TL").
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, Self


class Command(IntEnum):
    """The `command` field of a packet."""

    SUCCESS = 0x00
    ERROR = 0x01
    PING = 0x10
    STARTTLS = 0x24
    STARTTLS_LOCALID = 0x28
    PINENTRY = 0x29
    PLAINTEXT_CONNECT = 0x2A
    PRNG = 0x2B
    INFO = 0x2C
    CONTROL_DETACH = 0x100
    CONTROL_REATTACH = 0x101
    LIDENTRY_REGISTER = 0x200
    LIDENTRY_CALLBACK = 0x201
    ACCOUNTING_START = 0x300
    ACCOUNTING_INTERIM = 0x301
    ACCOUNTING_STOP = 0x302


LOCAL_COMMAND: Final = 0x80000000  # bit of commands that a site defined for itself; the pool implements none
_ALL_BITS: Final = 0xFFFFFFFF


class Bits(IntFlag):
    """Flags that someone else chooses: any of 32 bits, and those without a name are echoed as they came.

    Python keeps a member for every combination that it has ever been asked for. So that nobody can make it keep all there are, one
    without a name of its own is made anew each time.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self:
        if not isinstance(value, int):
            raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")
        bits = value if value >= 0 else value & _ALL_BITS
        made = int.__new__(cls, bits)
        made._value_ = bits
        made._name_ = None
        return made

    def __repr__(self) -> str:
        name = self.name or "|".join(single.name or "" for single in self)
        return f"<{type(self).__name__}.{name}: {self.value:#x}>"


class Facility(Bits):
    """The `facilities` of PING."""

    NONE = 0
    STARTTLS = 1
    STARTGSS = 2
    STARTSSH = 4


ALL_FACILITIES: Final = 0xFFFFFFFF  # what a client sends that wants to know all


class StartTlsFlags(Bits):
    """The `flags` of STARTTLS and its callbacks."""

    NONE = 0
    LOCALROLE_CLIENT = 0x1
    LOCALROLE_SERVER = 0x2
    LOCALROLE_PEER = 0x3
    REMOTEROLE_CLIENT = 0x4
    REMOTEROLE_SERVER = 0x8
    REMOTEROLE_PEER = 0xC
    DTLS = 0x100
    WITHOUT_SNI = 0x200
    IGNORE_CACHES = 0x400
    REQUEST_REMOTEID = 0x800
    IGNORE_REMOTEID = 0x1000
    DETACH = 0x2000
    FORK = 0x4000
    DOMAIN_REPRESENTS_USER = 0x8000
    LOCALID_CHECK = 0x10000
    RENEGOTIATE = 0x20000
    LOCALID_ONTHEFLY = 0x40000
    KEY_BOUND = 0x80000  # ours: the session ends when the keys that it was authenticated with cannot be reached any more


class LidentryFlags(Bits):
    """The `flags` of LIDENTRY_REGISTER (lower twelve bits), of its callbacks and of their answers."""

    NONE = 0
    SKIP_DBENTRY = 0x80
    SKIP_USER = 0x81
    SKIP_DOMAIN_SAME = 0x82
    SKIP_DOMAIN_ONEUP = 0x84
    SKIP_DOMAIN_SUB = 0x86
    SKIP_NOTROOT = 0x88
    WANT_DBENTRY = 0x100
    REGISTRATION_MASK = 0xFFF
    DBENTRY = 0x1000
    DBINSERT = 0x2000
    DBAPPEND = 0x4000
    DBREORDER = 0x8000
    NEW = 0x100000
    ONTHEFLY = 0x200000


class InfoKind(IntEnum):
    """The `kind` of INFO. Text facts are UTF-8 without NUL; channel bindings are raw.

    Subject, issuer and alternative names are as the credential encodes them, if it does: DER, for a certificate.
    """

    PEERCERT_SUBJECT_TEXT = 0x45140000  # RFC 4514
    PEERCERT_ISSUER_TEXT = 0x45140001
    MYCERT_SUBJECT_TEXT = 0x45140100
    MYCERT_ISSUER_TEXT = 0x45140101
    PEERCERT_SUBJECT = 0x52800000
    PEERCERT_ISSUER = 0x52800001
    PEERCERT_SUBJECTALTNAME = 0x52800002
    MYCERT_SUBJECT = 0x52800100
    MYCERT_ISSUER = 0x52800101
    MYCERT_SUBJECTALTNAME = 0x52800102
    TLS_UNIQUE = 0x59290000
    TLS_SERVER_END_POINT = 0x59290001
    TLS_EXPORTER = 0x59290002  # RFC 9266
    SERVER_NAME = 0x60660000  # RFC 6066 section 3: the name that the client asked for
    ALPN = 0x73010000  # RFC 7301: the protocol that was agreed
    VERSION = 0x84460000  # "TLSv1.3"
    CIPHER_SUITE = 0x84460001  # "TLS_AES_128_GCM_SHA256"
    GROUP = 0x84460002  # "X25519MLKEM768"
    PEER_CREDENTIAL_TYPE = 0x544C0000  # name of the kind of credential, such as the plugins register
    LOCAL_CREDENTIAL_TYPE = 0x544C0001
    SESSION_ID = 0x544C0002  # as in the pool's log


class IpProtocol(IntEnum):
    """The `ipproto` of STARTTLS."""

    UNSAID = 0  # what the socket is will tell
    TCP = 6
    UDP = 17
    SCTP = 132


TIMEOUT_DEFAULT: Final = 0  # of STARTTLS: the pool's own limit
TIMEOUT_INFINITE: Final = 0xFFFFFFFF
