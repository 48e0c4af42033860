"""Is nothing believed that the server did not sign, and does nothing that comes from the network hang or end a wait?"""

from __future__ import annotations

import asyncio
import hmac
import random
from pathlib import Path

import pytest
from forgeries import BAD, SECRET, VENDOR, answer, liar
from freeradius import write_private
from radius_helpers import plugin, request
from tlspool_radius.packets import ACCESS_ACCEPT, ACCESS_REQUEST, ACCOUNTING_REQUEST, BadReply, Request

from tlspool_core.api import Denied


def made(code: int = ACCESS_REQUEST) -> Request:
    return Request.make(code, [(1, b"john@example.com")], SECRET)


def test_a_signed_reply_is_believed() -> None:
    asked = made()
    reply = asked.read(answer(asked.raw, VENDOR + bytes([18, 4]) + b"ok") + b"padding")
    assert (reply.code, reply.all(18)) == (ACCESS_ACCEPT, [b"ok"])


def test_requests_are_signed_first_of_all() -> None:
    raw = made().raw
    assert raw[20:22] == bytes([80, 18])
    zeroed = raw[:22] + bytes(16) + raw[38:]
    assert raw[22:38] == hmac.digest(SECRET, zeroed, "md5")


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_believed(what: str) -> None:
    asked = made()
    with pytest.raises(BadReply):
        asked.read(BAD[what](asked.raw))


def test_no_byte_of_a_reply_can_be_changed() -> None:
    asked = made()
    good = answer(asked.raw, VENDOR + bytes([27, 6, 0, 0, 0, 60]))
    for place in range(len(good)):
        for bit in (1, 0x80):
            with pytest.raises(BadReply):
                asked.read(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])


@pytest.mark.parametrize("code", [ACCESS_REQUEST, ACCOUNTING_REQUEST])
def test_random_bytes_are_not_believed(code: int) -> None:
    asked, chance = made(code), random.Random(7)
    for _ in range(3000):
        noise = bytearray(chance.randbytes(chance.choice([0, 3, 19, 20, 21, 40, 200])))
        if len(noise) >= 20 and chance.random() < 0.9:
            noise[:4] = bytes([chance.choice([2, 3, 5, 11]), asked.identifier]) + len(noise).to_bytes(2, "big")
        with pytest.raises(BadReply):
            asked.read(bytes(noise))


def test_signed_but_senseless_attributes_do_no_harm() -> None:
    asked, chance = made(), random.Random(8)
    for _ in range(500):
        noise = answer(asked.raw, chance.randbytes(chance.randrange(40)))
        try:
            asked.read(noise)
        except BadReply:
            continue


def ask(port: int, tmp_path: Path) -> object:
    write_private(tmp_path / "secret", SECRET)
    section = {
        "server": {"liar": {"address": "127.0.0.1", "port": port, "secret_file": str(tmp_path / "secret")}},
        "authorization": {"servers": ["liar"], "timeout": 0.3, "tries": 1},
    }

    async def main() -> object:
        async with plugin(section) as started:
            return await started.authorize(request())

    return asyncio.run(main())


def test_a_server_that_only_lies_is_not_believed(tmp_path: Path) -> None:
    with liar(lambda raw: [make(raw) for make in BAD.values()]) as port, pytest.raises(Denied, match="no RADIUS server answers"):
        ask(port, tmp_path)


def test_forgeries_do_not_end_the_wait_for_the_truth(tmp_path: Path) -> None:
    with liar(lambda raw: [*(make(raw) for make in BAD.values()), answer(raw)]) as port:
        assert ask(port, tmp_path) is not None


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (bytes([27, 5, 0, 0, 9]), "Session-Timeout in the answer is no number"),
        (bytes([28, 6, 0, 0, 0, 0]), "Idle-Timeout in the answer is 0"),
        (bytes([6, 6, 0, 0, 0, 2]), "another Service-Type"),
    ],
)
def test_limits_that_cannot_be_kept_refuse(tmp_path: Path, attributes: bytes, reason: str) -> None:
    with liar(lambda raw: [answer(raw, attributes)]) as port, pytest.raises(Denied, match=reason):
        ask(port, tmp_path)


def test_words_of_the_server_cannot_forge_lines(tmp_path: Path) -> None:
    words = b"no\r\n\x1b[2Jadmitted\xff" + b"x" * 200
    reply = bytes([18, len(words) + 2]) + words
    with liar(lambda raw: [answer(raw, reply, code=3)]) as port, pytest.raises(Denied) as caught:
        ask(port, tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 230
