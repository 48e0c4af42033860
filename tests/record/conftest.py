"""Every construction of record protection, as pairs of fresh objects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tlspool_core.tls.protection import CIPHERS, MACS, Protection, protection12, protection13


def _makers() -> dict[str, Callable[[], Protection]]:
    makers: dict[str, Callable[[], Protection]] = {}
    for name, kind in CIPHERS.items():
        key = bytes(range(kind.key_length))
        if kind.aead is None:
            for mac, length in MACS.items():
                makers[f"1.2 {name} {mac}"] = lambda name=name, key=key, mac=mac, length=length: protection12(
                    name, key, b"", b"m" * length, mac
                )
        else:
            makers[f"1.3 {name}"] = lambda name=name, key=key: protection13(name, key, b"\xa5" * 12)
            makers[f"1.2 {name}"] = lambda name=name, key=key, kind=kind: protection12(name, key, b"\x5a" * kind.iv12)
    return makers


MAKERS = _makers()


@pytest.fixture(params=MAKERS, scope="module")
def make(request: pytest.FixtureRequest) -> Callable[[], Protection]:
    """Every construction."""
    return MAKERS[request.param]


@pytest.fixture(params=[name for name in MAKERS if "CBC" not in name], scope="module")
def make_aead(request: pytest.FixtureRequest) -> Callable[[], Protection]:
    """Those that are opened by the batch."""
    return MAKERS[request.param]


@pytest.fixture(params=[name for name in MAKERS if name.startswith("1.3")], scope="module")
def make13(request: pytest.FixtureRequest) -> Callable[[], Protection]:
    """Those of TLS 1.3."""
    return MAKERS[request.param]
