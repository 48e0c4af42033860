"""Keys of services, out of the keytabs that local identities name.

Theory of operation
-------------------
A keytab says which principals its keys belong to, and whoever can write the file can have it say anything.  It may be a user's own, as
that of `john@example.com`; so a key for a service counts only if it lies in a keytab that the service's own identity names in the databases.
Else John could make tickets for every service here, of every client.
"""

from __future__ import annotations

from collections.abc import Mapping

from tlspool_core.api import ConfigBackend, DoNAI, Role
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.mit import keytab_keys
from tlspool_kdh.tickets import Principal


class ServiceKeys:
    """One for the process, used by threads. `realms` may be changed."""

    def __init__(self, kind: str) -> None:
        """`kind` is the type of the credentials that name keytabs."""
        self.realms = Realms({})
        self._kind = kind
        self._keytabs: Mapping[DoNAI, tuple[str, ...]] = {}
        self._generation: int | None = None

    def read(self, config: ConfigBackend) -> None:
        """See which keytabs servers have, if the databases have changed. May block. Raises ConfigError."""
        generation = config.generation()
        if generation == self._generation:
            return
        found: dict[DoNAI, dict[str, None]] = {}
        with config.read() as databases:
            servers = [one for entry in databases.localids() for one in entry.credentials if one.roles & Role.SERVER]
        for one in servers:
            if one.type == self._kind and (keytab := _keytab(one.public)):
                found.setdefault(one.identity, {})[keytab] = None
        self._keytabs = {identity: tuple(keytabs) for identity, keytabs in found.items()}
        self._generation = generation

    def find(self, principal: Principal, enctype: int, kvno: int | None) -> KerberosKey:
        """The key of a service, see `FindKey`. May block. Raises LookupError."""
        problem = LookupError(f"no keytab here is for {principal}")
        identity = self.realms.identity(principal)
        for keytab in self._keytabs.get(identity, ()) if identity is not None else ():
            try:
                return keytab_keys(keytab)(principal, enctype, kvno)
            except LookupError as error:
                problem = error
        raise problem


def _keytab(public: bytes) -> str:
    try:
        return Account.decode(public).keytab
    except ValueError:  # one that cannot be read is reported when it is used, and is no reason to refuse others
        return ""
