"""Is a configuration refused that would give two TLS extensions one code point, which no session could have?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlspool_core.interfaces import CredentialType
from tlspool_core.pool.config import ConfigurationError, PoolConfig, parse_config
from tlspool_core.pool.plugins import PluginSet


def kind(*codes: int) -> CredentialType:
    return cast("CredentialType", SimpleNamespace(configure=lambda _: None, extension_codes=lambda: codes))


def plugins(**kinds: CredentialType) -> PluginSet:
    made = PluginSet.__new__(PluginSet)
    made.registry = cast("Any", SimpleNamespace(credential_types=kinds))
    made._sections = {}
    return made


def config(extension: int = 0xFF50) -> PoolConfig:
    return parse_config(f"[symmetric]\nextension = {extension}\n")


def test_code_points_that_differ() -> None:
    plugins(one=kind(0xFF0D, 0xFF0C), other=kind(0xFF20), third=kind()).configure(config())


def test_the_code_point_of_symmetric_tls() -> None:
    with pytest.raises(ConfigurationError, match=r"credential.one\] has TLS extension 0xff0c, and so has \[symmetric\]"):
        plugins(one=kind(0xFF0D, 0xFF0C)).configure(config(0xFF0C))


def test_two_plugins() -> None:
    with pytest.raises(ConfigurationError, match=r"\[credential.other\] has TLS extension 0xff0d, and so has \[credential.one\]"):
        plugins(one=kind(0xFF0D), other=kind(0xFF0D)).configure(config())


def test_a_reload_that_is_refused_leaves_the_old_settings_in_force() -> None:
    seen: list[object] = []
    one = kind(0xFF0D)
    one.configure = seen.append  # type: ignore[method-assign, assignment]
    made = plugins(one=one)
    made.configure(config())
    with pytest.raises(ConfigurationError):
        made.configure(config(0xFF0D))
    assert seen == [{}, {}, {}]
