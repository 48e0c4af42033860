"""The same applications, where two handshakes at a time are all that there may be."""

from webapps import Open, OpenWorker

from tlspool_core.client import web

web.HANDSHAKES = 2  # type: ignore[misc] # a constant elsewhere

__all__ = ["Open", "OpenWorker"]
