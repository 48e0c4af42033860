"""What the localid database and the configuration say about Kerberos: accounts, services, and realms as domains.

Theory of operation
-------------------
The public part of a local credential of type kerberos is JSON.  Of a service it names a keytab; of a client where tickets come from:
a credential cache, a keytab, or a password that lies in a key store under the credential's key URI.

    {"keytab": "FILE:/etc/tlspool/http.keytab"}                              a service
    {"principal": "john@REALM", "keytab": "FILE:/home/john/john.keytab"}     a client
    {"principal": "john@REALM", "ccache": "FILE:/run/user/1000/krb5cc"}      likewise
    {"principal": "john@REALM"}                                              likewise, with the password at the key URI

Realms are domains by the table of the configuration, and by nothing else: a client from a realm that is not in it has no identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from tlspool_core.api import DoNAI, InvalidIdentity
from tlspool_kdh.mit import Source
from tlspool_kdh.tickets import Principal


@dataclass(frozen=True, slots=True)
class Account:
    """The public part of a local credential."""

    principal: str = ""
    ccache: str = ""
    keytab: str = ""

    @classmethod
    def decode(cls, public: bytes) -> Account:
        """Raises ValueError in words."""
        try:
            values = json.loads(public)
        except ValueError:
            raise ValueError("a Kerberos credential is JSON with principal, ccache and keytab") from None
        known = {"principal", "ccache", "keytab"}
        if not isinstance(values, dict) or set(values) - known or not all(isinstance(value, str) for value in values.values()):
            raise ValueError("a Kerberos credential has principal, ccache and keytab, each a text")
        account = cls(**values)
        if account.ccache and account.keytab:
            raise ValueError("a Kerberos credential has either a ccache or a keytab")
        if not (account.principal or account.keytab):
            raise ValueError("a Kerberos credential names the principal of a client, or the keytab of a service")
        return account

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True).encode()

    def source(self, password: Callable[[], bytes] | None) -> Source:
        """Where the client's tickets come from; the password only where nothing else is given."""
        return Source(self.principal, self.ccache, self.keytab, None if self.ccache or self.keytab else password)


@dataclass(frozen=True, slots=True)
class Realms:
    """Realms and their domains, one to one."""

    domains: Mapping[str, str]

    def identity(self, principal: Principal) -> DoNAI | None:
        """`user@REALM` is the user at the realm's domain, `service/host@REALM` the host if it lies in that domain."""
        domain = self.domains.get(principal.realm)
        if domain is None or len(principal.names) > 2:
            return None
        try:
            if len(principal.names) == 1:
                return DoNAI(domain, principal.names[0])
            host = DoNAI.parse(principal.names[1].lower())
        except InvalidIdentity:
            return None
        inside = host.user is None and (host.domain == domain or host.domain.endswith("." + domain))
        return host if inside else None

    def service(self, service: str, remote: DoNAI) -> str:
        """The principal of a service on a host. Raises LookupError for hosts in no known realm."""
        for realm, domain in sorted(self.domains.items(), key=lambda item: -len(item[1])):
            if remote.domain == domain or remote.domain.endswith("." + domain):
                return f"{service}/{remote.domain}@{realm}"
        raise LookupError(f"{remote.domain} lies in no realm that [credential.kerberos] realms knows")
