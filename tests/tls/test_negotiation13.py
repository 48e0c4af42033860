"""Does either side of TLS 1.3 notice each way in which a hello can be wrong, and say why with the alert of the RFC?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, Pair, answer_all
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.enums import FALLBACK_SCSV, HandshakeType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.messages import DOWNGRADE_TO_12, HELLO_RETRY_REQUEST_RANDOM, ClientHello, ServerHello, frame
from tlspool_core.tls.settings import TLS12, TLS13

HelloChange = Callable[[Any], None]


def record(message: bytes, version: bytes = b"\x03\x01") -> bytes:
    return b"\x16" + version + len(message).to_bytes(2, "big") + message


def changed_hello(make: Any, change: HelloChange, **settings: Any) -> bytes:
    """The record of a ClientHello of ours after a change."""
    data = TlsConnection(make.client(**settings)).data_to_send()
    hello = ClientHello.parse(data[9:])
    change(hello)
    return record(frame(1, hello.build()))


def server_refusal(make: Any, data: bytes, **settings: Any) -> alerts.TlsError:
    server = TlsConnection(make.server(**settings))
    server.receive(data)
    answer_all(server, make.answers())
    assert server.failed is not None, "accepted"
    return server.failed


def set_extension(code: int, content: bytes) -> HelloChange:
    def change(hello: Any) -> None:
        hello.extensions[code] = content

    return change


def drop(code: int) -> HelloChange:
    return lambda hello: hello.extensions.pop(code)


def set_field(**fields: Any) -> HelloChange:
    def change(hello: Any) -> None:
        for name, value in fields.items():
            setattr(hello, name, value)

    return change


def psk_first(hello: Any) -> None:
    hello.extensions = {Ext.PRE_SHARED_KEY: b"\0\x07\0\x01x\0\0\0\0\0\x21\x20" + bytes(32), **hello.extensions}


def psk_without_modes(hello: Any) -> None:
    hello.extensions.pop(Ext.PSK_KEY_EXCHANGE_MODES)
    hello.extensions[Ext.PRE_SHARED_KEY] = b"\0\x07\0\x01x\0\0\0\0\0\x21\x20" + bytes(32)


BAD_CLIENT_HELLOS: dict[str, tuple[HelloChange, type[alerts.TlsError]]] = {
    "no supported_groups": (drop(Ext.SUPPORTED_GROUPS), alerts.MissingExtension),
    "no key_share": (drop(Ext.KEY_SHARE), alerts.MissingExtension),
    "no signature_algorithms": (drop(Ext.SIGNATURE_ALGORITHMS), alerts.MissingExtension),
    "no suite of ours": (set_field(cipher_suites=(0x1304, 0x0A0A)), alerts.NoSuiteInCommon),
    "no group of ours": (set_extension(Ext.SUPPORTED_GROUPS, b"\0\2\x01\0"), alerts.IllegalParameter),
    "no scheme of ours": (set_extension(Ext.SIGNATURE_ALGORITHMS, b"\0\2\x02\x03"), alerts.NoSchemeInCommon),
    "empty groups": (set_extension(Ext.SUPPORTED_GROUPS, b"\0\0"), alerts.MalformedExtension),
    "odd groups": (set_extension(Ext.SUPPORTED_GROUPS, b"\0\3\0\x1d\0"), alerts.MalformedExtension),
    "compression": (set_field(compression_methods=b"\0\1"), alerts.CompressionOffered),
    "no null compression": (set_field(compression_methods=b"\1"), alerts.CompressionOffered),
    "share twice": (set_extension(Ext.KEY_SHARE, b"\0\x0a" + b"\0\x1d\0\1x" * 2), alerts.IllegalParameter),
    "share of an unlisted group": (set_extension(Ext.KEY_SHARE, b"\0\5\x33\x33\0\1x"), alerts.IllegalParameter),
    "share too short": (set_extension(Ext.KEY_SHARE, b"\0\x05\0\x1d\0\1x"), alerts.BadKeyShare),
    "share of small order": (set_extension(Ext.KEY_SHARE, b"\0\x24\0\x1d\0\x20" + bytes(32)), alerts.BadKeyShare),
    "empty share": (set_extension(Ext.KEY_SHARE, b"\0\4\0\x1d\0\0"), alerts.MalformedExtension),
    "PSK not last": (psk_first, alerts.IllegalParameter),
    "PSK without modes": (psk_without_modes, alerts.MissingExtension),
    "PSK with fewer binders": (
        set_extension(Ext.PRE_SHARED_KEY, b"\0\x0e" + b"\0\x01x\0\0\0\0" * 2 + b"\0\x21\x20" + bytes(32)),
        alerts.IllegalParameter,
    ),
    "two names of a kind": (set_extension(Ext.SERVER_NAME, b"\0\x08" + b"\0\0\1a" * 2), alerts.IllegalParameter),
    "empty name": (set_extension(Ext.SERVER_NAME, b"\0\3\0\0\0"), alerts.MalformedExtension),
    "empty name list": (set_extension(Ext.SERVER_NAME, b"\0\0"), alerts.MalformedExtension),
    "name with a zero": (set_extension(Ext.SERVER_NAME, b"\0\6\0\0\3a\0b"), alerts.IllegalParameter),
    "empty protocol": (set_extension(Ext.ALPN, b"\0\3\0\1a"), alerts.MalformedExtension),
    "protocols with a rest": (set_extension(Ext.ALPN, b"\0\2\1ax"), alerts.MalformedExtension),
    "record size limit of 63": (set_extension(Ext.RECORD_SIZE_LIMIT, b"\0\x3f"), alerts.IllegalParameter),
    "certificate compression twice": (set_extension(Ext.COMPRESS_CERTIFICATE, b"\4\0\1\0\1"), alerts.IllegalParameter),
    "oid_filters from a client": (set_extension(Ext.OID_FILTERS, b"\0\0"), alerts.MisplacedExtension),
    "only unknown versions": (set_extension(Ext.SUPPORTED_VERSIONS, b"\4\x03\x02\x7f\x1c"), alerts.NoVersionInCommon),
    "fallback": (
        lambda hello: (
            set_field(cipher_suites=(*hello.cipher_suites, FALLBACK_SCSV), legacy_version=0x0302)(hello)
            or drop(Ext.SUPPORTED_VERSIONS)(hello)
        ),
        alerts.InappropriateFallback,
    ),
}


@pytest.mark.parametrize("name", BAD_CLIENT_HELLOS)
def test_bad_client_hello(make: Any, name: str) -> None:
    change, reason = BAD_CLIENT_HELLOS[name]
    failed = server_refusal(make, changed_hello(make, change, groups=(0x1D,)), groups=(0x1D,))
    assert type(failed) is reason, failed


def test_no_group_in_common(make: Any) -> None:
    data = changed_hello(make, lambda hello: None, groups=(0x1D,))
    assert type(server_refusal(make, data, groups=(0x17,))) is alerts.NoGroupInCommon


def test_fallback_signal_is_right_where_the_client_speaks_our_best(make: Any) -> None:
    hello = changed_hello(make, lambda hello: set_field(cipher_suites=(*hello.cipher_suites, FALLBACK_SCSV))(hello))
    server = TlsConnection(make.server(versions=(TLS13, TLS12)))
    server.receive(hello)
    answer_all(server, make.answers())
    assert server.failed is None


@pytest.mark.parametrize("code", [0x0A0A, 0xFAFA, 0x4242])
def test_unknown_things_in_a_client_hello_are_passed_over(make: Any, code: int) -> None:
    def grease(hello: Any) -> None:
        hello.cipher_suites = (code, *hello.cipher_suites)
        hello.extensions = {code: b"", **hello.extensions}
        two = code.to_bytes(2, "big")
        for extension in (Ext.SUPPORTED_GROUPS, Ext.SIGNATURE_ALGORITHMS):
            content = two + hello.extensions[extension][2:]
            hello.extensions[extension] = len(content).to_bytes(2, "big") + content
        hello.extensions[Ext.SUPPORTED_VERSIONS] = b"\4" + two + b"\x03\x04"

    server = TlsConnection(make.server())
    server.receive(changed_hello(make, grease))
    answer_all(server, make.answers())
    assert server.failed is None and server.data_to_send()


# --- what a server may answer ------------------------------------------------------------------------------------------------------


def client_refusal(make: Any, tampering: Any, change: HelloChange, **settings: Any) -> alerts.TlsError:
    """What the client says to a ServerHello that was changed on its way."""

    def tamper(message: bytes) -> list[bytes]:
        if message[0] != HandshakeType.SERVER_HELLO:
            return [message]
        hello = ServerHello.parse(message[4:])
        change(hello)
        return [frame(2, hello.build())]

    server = tampering(make.server(), tamper)
    pair = Pair(TlsConnection(make.client(**settings)), server, Answers(), make.answers())
    pair.run()
    assert pair.client.failed is not None, "accepted"
    return pair.client.failed


def hrr(**extensions: bytes) -> HelloChange:
    def change(hello: Any) -> None:
        hello.random = HELLO_RETRY_REQUEST_RANDOM
        hello.extensions = {Ext.SUPPORTED_VERSIONS: b"\x03\x04"}
        for name, content in extensions.items():
            hello.extensions[int(getattr(Ext, name.upper()))] = content

    return change


BAD_SERVER_HELLOS: dict[str, tuple[HelloChange, type[alerts.TlsError]]] = {
    "another session id": (set_field(legacy_session_id_echo=b"x" * 32), alerts.IllegalParameter),
    "no session id": (set_field(legacy_session_id_echo=b""), alerts.IllegalParameter),
    "unknown suite": (set_field(cipher_suite=0x1304), alerts.UnofferedChoice),
    "suite that was not offered": (set_field(cipher_suite=0x1303), alerts.UnofferedChoice),
    "suite of TLS 1.2": (set_field(cipher_suite=0xC02B), alerts.UnofferedChoice),
    "compression": (set_field(compression_method=1), alerts.IllegalParameter),
    "legacy version": (set_field(legacy_version=0x0304), alerts.IllegalParameter),
    "TLS 1.2 in supported_versions": (set_extension(Ext.SUPPORTED_VERSIONS, b"\x03\x03"), alerts.IllegalParameter),
    "no supported_versions": (drop(Ext.SUPPORTED_VERSIONS), alerts.NoVersionInCommon),
    "no key_share": (drop(Ext.KEY_SHARE), alerts.MissingExtension),
    "share of another group": (set_extension(Ext.KEY_SHARE, b"\0\x18\0\1x"), alerts.UnofferedChoice),
    "short share": (set_extension(Ext.KEY_SHARE, b"\0\x1d\0\1x"), alerts.BadKeyShare),
    "share of small order": (set_extension(Ext.KEY_SHARE, b"\0\x1d\0\x20" + bytes(32)), alerts.BadKeyShare),
    "PSK that was not offered": (set_extension(Ext.PRE_SHARED_KEY, b"\0\0"), alerts.UnsolicitedExtension),
    "ALPN, which is for EncryptedExtensions": (set_extension(Ext.ALPN, b"\0\2\1a"), alerts.MisplacedExtension),
    "an extension of TLS 1.2": (set_extension(Ext.EXTENDED_MASTER_SECRET, b""), alerts.UnsolicitedExtension),
    "an unknown extension": (set_extension(0x4242, b""), alerts.UnsolicitedExtension),
    "retry for nothing": (hrr(), alerts.UselessHelloRetryRequest),
    "retry for the share that was sent": (hrr(key_share=b"\0\x1d"), alerts.UselessHelloRetryRequest),
    "retry for a group that was not offered": (hrr(key_share=b"\0\x19"), alerts.UnofferedChoice),
    "retry with an empty cookie": (hrr(cookie=b"\0\0"), alerts.MalformedExtension),
    "retry with PSK": (hrr(key_share=b"\0\x18", pre_shared_key=b"\0\0"), alerts.UnsolicitedExtension),
}


@pytest.mark.parametrize("name", BAD_SERVER_HELLOS)
def test_bad_server_hello(make: Any, tampering: Any, name: str) -> None:
    change, reason = BAD_SERVER_HELLOS[name]
    failed = client_refusal(make, tampering, change, groups=(0x1D, 0x18), cipher_suites=(0x1301, 0x1302), alpn=(b"a",))
    assert type(failed) is reason, failed


def test_downgrade_sentinel(make: Any, tampering: Any) -> None:
    """RFC 8446 section 4.1.3: a client that speaks TLS 1.3 refuses TLS 1.2 from a server that signals more."""
    versions = {"versions": (TLS13, TLS12)}
    pair = Pair(TlsConnection(make.client(**versions)), TlsConnection(make.server(versions=(TLS12,))), Answers(), make.answers())
    pair.run()
    assert pair.complete  # a server without TLS 1.3 sends no sentinel

    def tamper(message: bytes) -> list[bytes]:
        if message[0] != HandshakeType.SERVER_HELLO:
            return [message]
        return [message[:30] + DOWNGRADE_TO_12 + message[38:]]

    server = tampering(make.server(versions=(TLS12,)), tamper)
    pair = Pair(TlsConnection(make.client(**versions)), server, Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is alerts.DowngradeDetected


def test_a_removed_supported_versions_is_noticed(make: Any) -> None:
    """The attack that the sentinel is for: somebody takes TLS 1.3 out of the ClientHello."""
    pair = make.pair(client=make.client(versions=(TLS13, TLS12)), server=make.server(versions=(TLS13, TLS12)))

    def strip(data: bytes) -> bytes:
        if data[5:6] != b"\1":
            return data
        hello = ClientHello.parse(data[9:])
        hello.extensions.pop(Ext.SUPPORTED_VERSIONS)
        return record(frame(1, hello.build()))

    pair.to_server = strip
    pair.run()
    assert type(pair.client.failed) is alerts.DowngradeDetected


# --- HelloRetryRequest -------------------------------------------------------------------------------------------------------------


def test_retry_in_either_direction_of_preference(make: Any) -> None:
    pair = make.established(server=make.server(groups=(0x18, 0x1D)))
    assert pair.client.facts.group == pair.server.facts.group == 0x18
    assert pair.client.facts.retried and pair.server.facts.retried


def test_cookie_is_echoed(make: Any, tampering: Any) -> None:
    """A stateless server's HelloRetryRequest, with a cookie alone."""
    client = TlsConnection(make.client(groups=(0x1D,)))
    hello = ClientHello.parse(client.data_to_send()[9:])
    extensions = {Ext.SUPPORTED_VERSIONS: b"\x03\x04", Ext.COOKIE: b"\0\6cookie"}
    request = ServerHello(HELLO_RETRY_REQUEST_RANDOM, 0x1301, extensions, hello.legacy_session_id)
    client.receive(record(frame(2, request.build()), b"\x03\x03"))
    answer_all(client, Answers())
    assert client.failed is None
    second = ClientHello.parse(client.data_to_send().partition(b"\x16\x03\x03")[2][6:])
    assert second.extensions.pop(Ext.COOKIE) == b"\0\6cookie"
    assert second == hello
    client.receive(record(frame(2, request.build()), b"\x03\x03"))
    assert type(client.failed) is alerts.SecondHelloRetryRequest


SECOND_HELLOS: dict[str, HelloChange] = {
    "random": set_field(random=bytes(32)),
    "session id": set_field(legacy_session_id=b""),
    "suites": set_field(cipher_suites=(0x1301,)),
    "version": set_field(legacy_version=0x0302),
    "another extension": set_extension(0x4242, b""),
    "one extension fewer": drop(Ext.SERVER_NAME),
    "other schemes": set_extension(Ext.SIGNATURE_ALGORITHMS, b"\0\2\x04\x03"),
    "the first shares again": set_extension(Ext.KEY_SHARE, b"\0\x24\0\x1d\0\x20" + b"x" * 32),
    "no share": set_extension(Ext.KEY_SHARE, b"\0\0"),
    "cookie": set_extension(Ext.COOKIE, b"\0\1x"),
    "PSK out of nowhere": set_extension(Ext.PRE_SHARED_KEY, b"\0\x07\0\x01x\0\0\0\0\0\x21\x20" + bytes(32)),
}


@pytest.mark.parametrize("name", SECOND_HELLOS)
def test_second_hello_differs(make: Any, tampering: Any, name: str) -> None:
    count = 0

    def tamper(message: bytes) -> list[bytes]:
        nonlocal count
        count += 1
        if count != 2:
            return [message]
        hello = ClientHello.parse(message[4:])
        SECOND_HELLOS[name](hello)
        return [frame(1, hello.build())]

    client = tampering(make.client(), tamper)
    pair = Pair(client, TlsConnection(make.server(groups=(0x18,))), Answers(), make.answers())
    pair.run()
    assert type(pair.server.failed) is alerts.SecondHelloDiffers


@pytest.mark.parametrize("field", ["cipher_suite", "group", "version"])
def test_server_hello_after_retry_differs(make: Any, tampering: Any, field: str) -> None:
    def tamper(message: bytes) -> list[bytes]:
        hello = ServerHello.parse(message[4:]) if message[0] == HandshakeType.SERVER_HELLO else None
        if hello is None or hello.is_hello_retry_request:
            return [message]
        if field == "cipher_suite":
            hello.cipher_suite = 0x1302
        elif field == "group":
            hello.extensions[Ext.KEY_SHARE] = b"\0\x1d\0\x20" + b"x" * 32
        else:
            hello.extensions.pop(Ext.SUPPORTED_VERSIONS)
        return [frame(2, hello.build())]

    server = tampering(make.server(groups=(0x18,)), tamper)
    pair = Pair(TlsConnection(make.client()), server, Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is alerts.IllegalParameter


def test_no_credential_of_the_right_kind(make: Any) -> None:
    pair = make.pair(server_answers=make.answers(credentials=()))
    pair.run()
    assert type(pair.server.failed) is alerts.NoCredential
    pair = make.pair(client=make.client(signature_schemes=(0x0807,)))
    pair.run()
    assert type(pair.server.failed) is alerts.NoSchemeInCommon
