"""Keys of services, out of the keytabs that local identities name.

Theory of operation
-------------------
A keytab says which principals its keys belong to, and whoever can write the file can have it say anything.  It may be a user's own, as
that of `john@example.com`; so a key for a service counts only if it lies in a keytab that the service's own identity names in the databases.
Else John could make tickets for every service here, of every client.
"""

from __future__ import annotations

from tlspool_core.api import ConfigBackend, DoNAI, Role
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.mit import keytab_keys
from tlspool_kdh.tickets import Principal


class ServiceKeys:
    """One for the process, used by threads. `realms` and `config`, the databases, may be changed."""

    def __init__(self, kind: str) -> None:
        """`kind` is the type of the credentials that name keytabs."""
        self.realms = Realms({})
        self.config: ConfigBackend | None = None
        self._kind = kind

    def find(self, principal: Principal, enctype: int, kvno: int | None) -> KerberosKey:
        """The key of a service, see `FindKey`. May block. Raises LookupError, and ConfigError of the databases."""
        problem = LookupError(f"no keytab here is for {principal}")
        for keytab in self._keytabs(self.realms.identity(principal)):
            try:
                return keytab_keys(keytab)(principal, enctype, kvno)
            except LookupError as error:
                problem = error
        raise problem

    def _keytabs(self, identity: DoNAI | None) -> tuple[str, ...]:
        if identity is None or self.config is None:
            return ()
        with self.config.read() as databases:
            entry = databases.localid(identity)
        servers = [one for one in entry.credentials if one.type == self._kind and one.roles & Role.SERVER] if entry else ()
        return tuple(keytab for one in servers if (keytab := _keytab(one.public)))


def _keytab(public: bytes) -> str:
    try:
        return Account.decode(public).keytab
    except ValueError:  # one that cannot be read is reported when it is used, and is no reason to refuse others
        return ""
