"""The messages of Kerberos that travel in TLS-KDH, in ASN.1 (RFC 4120 appendix A).

Theory of operation
-------------------
Definitions are asn1crypto's classes; only what the plugin reads or writes is here.  `decode` is strict: it takes DER alone (see `der`),
everything is parsed at once, nothing may follow, and whatever is wrong with the bytes is a ValueError, whose text is a line.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from asn1crypto import core

from tlspool_kdh import der

MAX_BYTES: Final = 64_000  # of one ticket or authenticator; tickets with authorization data are of some kilobytes


def _at(number: int, *, optional: bool = False) -> dict[str, Any]:
    return {"explicit": number, "optional": True} if optional else {"explicit": number}


class KerberosString(core.GeneralString):  # type: ignore[misc]
    """RFC 4120 section 5.2.1 allows ASCII; what is beyond that is UTF-8 in all realms that have it."""

    _encoding = "utf-8"


class _Strings(core.SequenceOf):  # type: ignore[misc]
    _child_spec = KerberosString


class PrincipalName(core.Sequence):  # type: ignore[misc]
    _fields = (("name-type", core.Integer, _at(0)), ("name-string", _Strings, _at(1)))


class EncryptionKey(core.Sequence):  # type: ignore[misc]
    _fields = (("keytype", core.Integer, _at(0)), ("keyvalue", core.OctetString, _at(1)))


class Checksum(core.Sequence):  # type: ignore[misc]
    _fields = (("cksumtype", core.Integer, _at(0)), ("checksum", core.OctetString, _at(1)))


class EncryptedData(core.Sequence):  # type: ignore[misc]
    _fields = (("etype", core.Integer, _at(0)), ("kvno", core.Integer, _at(1, optional=True)), ("cipher", core.OctetString, _at(2)))


class Ticket(core.Sequence):  # type: ignore[misc]
    """RFC 4120 section 5.3."""

    explicit = (1, 1)
    _fields = (
        ("tkt-vno", core.Integer, _at(0)),
        ("realm", KerberosString, _at(1)),
        ("sname", PrincipalName, _at(2)),
        ("enc-part", EncryptedData, _at(3)),
    )


class _Transited(core.Sequence):  # type: ignore[misc]
    _fields = (("tr-type", core.Integer, _at(0)), ("contents", core.OctetString, _at(1)))


class _Typed(core.Sequence):  # type: ignore[misc]
    _fields = (("type", core.Integer, _at(0)), ("data", core.OctetString, _at(1)))


class _AuthorizationData(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Typed


class _Address(core.Sequence):  # type: ignore[misc]
    _fields = (("addr-type", core.Integer, _at(0)), ("address", core.OctetString, _at(1)))


class _HostAddresses(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _Address


class EncTicketPart(core.Sequence):  # type: ignore[misc]
    """RFC 4120 section 5.3: what the service's key opens."""

    explicit = (1, 3)
    _fields = (
        ("flags", core.BitString, _at(0)),
        ("key", EncryptionKey, _at(1)),
        ("crealm", KerberosString, _at(2)),
        ("cname", PrincipalName, _at(3)),
        ("transited", _Transited, _at(4)),
        ("authtime", core.GeneralizedTime, _at(5)),
        ("starttime", core.GeneralizedTime, _at(6, optional=True)),
        ("endtime", core.GeneralizedTime, _at(7)),
        ("renew-till", core.GeneralizedTime, _at(8, optional=True)),
        ("caddr", _HostAddresses, _at(9, optional=True)),
        ("authorization-data", _AuthorizationData, _at(10, optional=True)),
    )


class Authenticator(core.Sequence):  # type: ignore[misc]
    """RFC 4120 section 5.5.1."""

    explicit = (1, 2)
    _fields = (
        ("authenticator-vno", core.Integer, _at(0)),
        ("crealm", KerberosString, _at(1)),
        ("cname", PrincipalName, _at(2)),
        ("cksum", Checksum, _at(3, optional=True)),
        ("cusec", core.Integer, _at(4)),
        ("ctime", core.GeneralizedTime, _at(5)),
        ("subkey", EncryptionKey, _at(6, optional=True)),
        ("seq-number", core.Integer, _at(7, optional=True)),
        ("authorization-data", _AuthorizationData, _at(8, optional=True)),
    )


class KRB5PrincipalName(core.Sequence):  # type: ignore[misc]
    """RFC 4556 section 3.2.2: a principal with its realm."""

    _fields = (("realm", KerberosString, _at(0)), ("principalName", PrincipalName, _at(1)))


def decode(kind: type[core.Sequence], data: bytes) -> dict[str, Any]:
    """The values of a message as plain Python objects. Raises ValueError on anything that is not exactly one such message."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes are too many")
    try:
        der.check(data)
        values: dict[str, Any] = kind.load(data, strict=True).native
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = "".join(character if character.isprintable() else " " for character in str(error)[:200])
        raise ValueError(f"no {kind.__name__}: {text}") from None
    return values


def seconds(moment: object) -> float:
    """A KerberosTime as seconds since the epoch. Raises ValueError for what GeneralizedTime allows beside it, such as other zones."""
    if not isinstance(moment, datetime) or moment.utcoffset() != timedelta(0):
        raise ValueError(f"{moment} is no time in UTC")
    return moment.timestamp()


def encode(kind: type[core.Sequence], values: dict[str, Any]) -> bytes:
    """DER of a message."""
    made: bytes = kind(values).dump()
    return made
