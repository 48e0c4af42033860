"""Does what the quick start for applications says work as it stands there?"""

from __future__ import annotations

import ast
import re
import socket
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import tlspool_core.client as client
from tlspool_core.client import InfoKind, aio, blocking, ssl_shim, streams

PAGE = Path(__file__).parent.parent.parent / "docs/quickstart-application.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def block(number: int, **substitutes: str) -> str:
    """One piece of code of the page, with some words replaced."""
    text: str = BLOCKS[number]
    for word, substitute in substitutes.items():
        assert word in text
        text = text.replace(word, substitute)
    return text


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_code_is_python(number: int) -> None:
    ast.parse("async def main():\n" + textwrap.indent(BLOCKS[number], "    "))


def test_client_and_server(null_tls: Any) -> None:
    """The client's lines against the server's lines, over TLS that leaves bytes as they are."""
    null_tls.facts = {InfoKind.VERSION: b"TLSv1.3"}
    said: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        scope: dict[str, Any] = {"listening": listening}
        exec(block(1), scope)  # noqa: S102 - our own page
        scope["connection"].close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        source = block(0).replace('("www.example.com", 443)', repr(listening.getsockname()))
        scope: dict[str, Any] = {}
        exec(source, scope)  # noqa: S102
        with scope["session"] as session:
            assert session.remoteid == "www.example.com"
            assert session.version() == "TLSv1.3"
            said.append(session.plaintext.recv(100))
        thread.join(10)
    assert said == [b"Hello, stranger\r\n"]
    assert sorted(request.localid for request in null_tls.requests) == ["", "www.example.com"]


def test_names_on_the_page_exist() -> None:
    text = "\n".join(BLOCKS)
    for module, owner in [("aio", aio), ("streams", streams)]:
        for name in re.findall(rf"\b{module}\.(\w+)", text):
            assert hasattr(owner, name)
    for name in re.findall(r"\bsession\.(\w+)", text):
        assert hasattr(blocking.Session, name) or hasattr(aio.Session, name) or name == "ctlkey"
    for names in re.findall(r"from tlspool_core\.client import ([\w, ]+)", text):
        assert all(hasattr(client, name.strip()) for name in names.split(","))
    assert hasattr(ssl_shim, "PoolContext")
