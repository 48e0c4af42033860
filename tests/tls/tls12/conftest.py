"""What the tests of TLS 1.2 share: the engine's makers set to that version, and the editor of flights in the clear."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from tlspool_core.testing import flights
from tlspool_core.tls.settings import TLS12


@pytest.fixture
def make(make: Any) -> Any:
    class Maker12(type(make)):  # type: ignore[misc]
        def client(self, **changes: Any) -> Any:
            return super().client(**{"versions": (TLS12,), **changes})

        def server(self, **changes: Any) -> Any:
            return super().server(**{"versions": (TLS12,), **changes})

    return Maker12()


@pytest.fixture
def flight() -> ModuleType:
    return flights
