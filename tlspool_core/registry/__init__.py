"""Finds, isolates, lists and guards plugins.

`Registry.load()` is called once when a program starts; `Registry.guard` wraps each call into plugin code that may block.
"""

from tlspool_core.registry.catalogue import Registry, RequiredPluginMissing
from tlspool_core.registry.guard import Guard, PluginFault
from tlspool_core.registry.loading import PluginState, PluginStatus

__all__ = ["Guard", "PluginFault", "PluginState", "PluginStatus", "Registry", "RequiredPluginMissing"]
