"""What a plugin can be: the typed interfaces between the pool and its plugins.

Theory of operation
-------------------
A plugin registers objects through the hooks in `hookspecs`; from then on the pool calls these interfaces and no hook.  A security
decision asks exactly the object that configuration or the kind of credential selects; an exception or time-out there means denied.

Methods marked *may block* are called by the registry in a worker thread with a time limit, or awaited if they are `async def`.
All others must return at once: they run on the event loop.
"""

from tlspool_core.interfaces.aaa import Aaa, AaaDecision, AaaRequest, AccountingRecord
from tlspool_core.interfaces.commands import CliCommand, CliContext
from tlspool_core.interfaces.common import Denied, Measurement, Role
from tlspool_core.interfaces.config import (
    ConfigBackend,
    ConfigError,
    ConfigReader,
    ConfigWriter,
    LocalCredential,
    LocalIdentity,
    TrustRecord,
)
from tlspool_core.interfaces.credentials import (
    CredentialType,
    EngineParts,
    Finding,
    PeerContext,
    Predicate,
    SessionContext,
    SessionParts,
    Verdict,
)
from tlspool_core.interfaces.keys import AskPin, Key, KeyInfo, KeyStore, KeyStoreError, PinRequest

API_VERSION = 1

__all__ = [
    "API_VERSION",
    "Aaa",
    "AaaDecision",
    "AaaRequest",
    "AccountingRecord",
    "AskPin",
    "CliCommand",
    "CliContext",
    "ConfigBackend",
    "ConfigError",
    "ConfigReader",
    "ConfigWriter",
    "CredentialType",
    "Denied",
    "EngineParts",
    "Finding",
    "Key",
    "KeyInfo",
    "KeyStore",
    "KeyStoreError",
    "LocalCredential",
    "LocalIdentity",
    "Measurement",
    "PeerContext",
    "PinRequest",
    "Predicate",
    "Role",
    "SessionContext",
    "SessionParts",
    "TrustRecord",
    "Verdict",
]
