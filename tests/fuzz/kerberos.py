"""Targets for the parsers of the Kerberos plugin, where it is installed: what peers show, and what lies sealed in it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fuzz.target import Target
from tlspool_core.tls import alerts

try:
    from tlspool_kdh import asn1, codes, relief, tickets
    from tlspool_kdh.accounts import Account
    from tlspool_kdh.crypto import KerberosKey
except ImportError:  # it cannot be built without the headers of MIT Kerberos
    TARGETS: tuple[Target, ...] = ()
else:
    NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
    KEY = KerberosKey(18, bytes(32))
    KINDS = (asn1.Ticket, asn1.EncTicketPart, asn1.Authenticator, asn1.EncryptedData, asn1.KRB5PrincipalName)
    NAME = {"name-type": 2, "name-string": ["http", "web.example.com"]}
    SCHEME = 0x04E0

    def kerberos_messages(data: bytes) -> None:
        """First byte: which of them; a ticket has one encoding, so nobody can show one that was seen in other clothes."""
        kind = KINDS[data[0] % len(KINDS)]
        try:
            values = asn1.decode(kind, data[1:])
        except ValueError as error:
            assert str(error).isprintable()
            return
        if kind is asn1.Ticket:
            assert asn1.encode(kind, values) == data[1:]

    def part() -> dict[str, Any]:
        return {
            "flags": (0,) * 32, "key": {"keytype": 18, "keyvalue": bytes(32)}, "crealm": "EXAMPLE.COM", "cname": NAME,
            "transited": {"tr-type": 1, "contents": b""}, "authtime": NOW, "endtime": NOW + timedelta(hours=1),
            "caddr": [{"addr-type": 2, "address": bytes(4)}], "authorization-data": [{"type": 1, "data": b"0000"}],
        }  # fmt: skip

    def authenticator() -> bytes:
        principal = tickets.Principal(("john",), "EXAMPLE.COM")
        held = tickets.ClientTicket(principal, principal, b"", KEY)
        made = tickets.make_authenticator(held, SCHEME, b"messages", NOW.timestamp())
        return tickets.open_authenticator(KEY, made)[0]

    def messages() -> Iterable[bytes]:
        sealed = {"etype": 18, "kvno": 2, "cipher": bytes(60)}
        ticket = {"tkt-vno": 5, "realm": "EXAMPLE.COM", "sname": NAME, "enc-part": sealed}
        yield asn1.encode(asn1.Ticket, ticket)
        yield asn1.encode(asn1.EncTicketPart, part())
        yield authenticator()
        yield asn1.encode(asn1.EncryptedData, sealed)
        yield asn1.encode(asn1.KRB5PrincipalName, {"realm": "EXAMPLE.COM", "principalName": NAME})

    def kerberos_sealed(data: bytes) -> None:
        """First byte: a ticket or an Authenticator; the rest is what its sealed part holds, as one with the key can make it."""
        service = tickets.Service(lambda *_: KEY, now=NOW.timestamp)
        sealed = {"etype": 18, "cipher": KEY.encrypt(2 if data[0] & 1 else codes.KEY_USAGE, data[1:])}
        try:
            if data[0] & 1:
                outer = {"tkt-vno": 5, "realm": "EXAMPLE.COM", "sname": NAME, "enc-part": sealed}
                service.open(asn1.encode(asn1.Ticket, outer))
            else:
                principal = tickets.Principal(("john",), "EXAMPLE.COM")
                opened = tickets.OpenedTicket(principal, principal, KEY, NOW.timestamp())
                service.accept(opened, SCHEME, b"messages", asn1.encode(asn1.EncryptedData, sealed))
        except alerts.TlsError as error:
            assert not isinstance(error, alerts.InternalError) and str(error).isprintable()

    def kerberos_wire(data: bytes) -> None:
        """What stands around tickets in TLS, and the accounts of databases."""
        for parse in (relief.parse, codes.parse_ticket):
            try:
                parse(data)
            except alerts.TlsError:
                continue
        try:
            assert Account.decode(Account.decode(data).encode()) == Account.decode(data)
        except ValueError:
            return

    TARGETS = (
        Target("kerberos_messages", kerberos_messages, lambda: (bytes((kind,)) + one for kind, one in enumerate(messages())), cost=2),
        Target("kerberos_sealed", kerberos_sealed, lambda: (b"\1" + asn1.encode(asn1.EncTicketPart, part()), b"\0" + authenticator()), cost=5),
        Target("kerberos_wire", kerberos_wire, lambda: (
            relief.build(b"ticket"), relief.build(b"ticket", tickets.Principal(("john",), "EXAMPLE.COM")), b"\0\0\3abc", b"\0\0\0",
            Account("john@EXAMPLE.COM", keytab="FILE:/k").encode(), Account(ccache="FILE:/c").encode(),
        )),
    )  # fmt: skip
