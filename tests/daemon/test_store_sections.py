"""Do key stores get what has changed in their sections at a reload, and is it told which of them cannot take it?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tlspool_core.interfaces import KeyStoreError
from tlspool_core.pool.config import ConfigurationError, PoolConfig
from tlspool_core.pool.plugins import PluginSet
from tlspool_core.testing.keys import SoftwareKeys


def config(**sections: Mapping[str, Any]) -> PoolConfig:
    return PoolConfig("test", (), keystores=sections)


class Store(SoftwareKeys):
    """Takes sections, but for some."""

    def __init__(self, name: str, takes: bool = True) -> None:
        super().__init__()
        self.name = name
        self.takes = takes
        self.taken: list[Mapping[str, Any]] = []

    async def start(self, settings: Mapping[str, Any], ask_pin: Any) -> None:
        if settings.get("broken"):
            raise KeyStoreError("there is no such library")

    def configure(self, settings: Mapping[str, Any]) -> bool:
        if settings.get("wrong"):
            raise ValueError("wrong: no")
        self.taken.append(settings)
        return self.takes


def started(*stores: Store, **sections: Mapping[str, Any]) -> PluginSet:
    """Plugins whose key stores were started with these sections."""
    made = PluginSet.__new__(PluginSet)
    made.registry = SimpleNamespace(key_stores={store.name: store for store in stores})  # type: ignore[assignment]
    made._store_sections, made._started_stores = {}, []
    for store in stores:
        asyncio.run(made._start_store(store.name, config(**sections)))
    return made


def test_what_has_changed_is_handed_out_once() -> None:
    one, two = Store("one"), Store("two")
    plugins = started(one, two, one={"x": 1}, two={"x": 1})
    for _ in range(2):
        assert plugins.configure_stores(config(**{"one": {"x": 2}, "two": {"x": 1}})) == []
    assert (one.taken, two.taken) == ([{"x": 2}], [])
    assert plugins.configure_stores(config()) == []  # without a section it is empty
    assert (one.taken, two.taken) == ([{"x": 2}, {}], [{}])


def test_what_is_not_taken_needs_a_restart_for_as_long_as_it_differs() -> None:
    store = Store("one", takes=False)
    plugins = started(store, one={"x": 1})
    for _ in range(2):
        assert plugins.configure_stores(config(**{"one": {"x": 2}})) == ["keystore.one"]
    assert plugins.configure_stores(config(**{"one": {"x": 1}})) == []


def test_a_store_that_could_not_start_is_told_only_if_its_section_has_changed() -> None:
    store = Store("one")
    plugins = started(store, one={"broken": True})
    assert plugins.configure_stores(config(**{"one": {"broken": True}})) == []
    assert plugins.configure_stores(config(**{"one": {}})) == ["keystore.one"]
    assert not store.taken


def test_a_fault_is_told_with_its_section_and_the_old_one_can_be_handed_out_again() -> None:
    one, two = Store("one"), Store("two")
    plugins = started(one, two)
    with pytest.raises(ConfigurationError, match=r"\[keystore.two\]: wrong: no"):
        plugins.configure_stores(config(**{"one": {"x": 1}, "two": {"wrong": True}}))
    assert plugins.configure_stores(config()) == []
    assert (one.taken, two.taken) == ([{"x": 1}, {}], [])
