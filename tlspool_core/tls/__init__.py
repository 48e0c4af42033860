"""The TLS engine: sans-IO, client and server, TLS 1.3 and TLS 1.2.

`TlsConnection` (module `connection`) is what others drive; `settings`, `questions` and `seams` are what they exchange with it,
`alerts` is how connections end.
"""

from tlspool_core.tls.connection import TlsConnection

__all__ = ["TlsConnection"]
