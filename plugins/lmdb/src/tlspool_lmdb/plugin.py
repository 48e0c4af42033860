"""Registers the config backend "lmdb"."""

from __future__ import annotations

from collections.abc import Sequence

from tlspool_core.api import ConfigBackend, hookimpl
from tlspool_lmdb.backend import LmdbBackend

TLSPOOL_API = 1


@hookimpl
def tlspool_register_config_backends() -> Sequence[ConfigBackend]:
    """The one backend of this plugin."""
    return [LmdbBackend()]
