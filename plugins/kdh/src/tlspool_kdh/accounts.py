"""What the localid database and the configuration say about Kerberos: accounts, services, and realms as domains.

Theory of operation
-------------------
The public part of a local credential of type kerberos is JSON.  Of a service it names a keytab; of a client, or of a server that is a
user, where tickets come from: a credential cache, a keytab, or a password that lies in a key store under the credential's key URI.

    {"keytab": "FILE:/etc/tlspool/http.keytab"}              keys of services, or of whoever the identity says
    {"ccache": "FILE:/run/user/1000/krb5cc"}                 tickets of whoever the identity says
    {}                                                       likewise, by the password at the key URI
    {"principal": "jd@REALM", "keytab": ...}                 and likewise for the others: of this principal, whatever the identity says

Where no principal is given, the names to try follow from the identity: for `user@domain` the enterprise name `user@domain@REALM`, then
`user@REALM`; for a host `service/host@REALM`.

Realms are domains by the table of the configuration, and by nothing else: a client from a realm that is not in it has no identity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from tlspool_core.api import DoNAI, InvalidIdentity
from tlspool_kdh.mit import Sought, Source
from tlspool_kdh.tickets import Principal

_SPELLINGS = {"http": ("http", "HTTP")}


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
        except (ValueError, RecursionError):
            raise ValueError("a Kerberos credential is JSON with principal, ccache and keytab") from None
        known = {"principal", "ccache", "keytab"}
        if not isinstance(values, dict) or set(values) - known or not all(isinstance(value, str) for value in values.values()):
            raise ValueError("a Kerberos credential has principal, ccache and keytab, each a text")
        account = cls(**values)
        if account.ccache and account.keytab:
            raise ValueError("a Kerberos credential has either a ccache or a keytab")
        if account.principal:
            Principal.parse(account.principal)
        return account

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, sort_keys=True).encode()

    def source(self, names: tuple[Sought, ...], key_uri: str, password: Callable[[], bytes] | None) -> Source:
        """Where tickets come from, for the principal or else these names; the password only where nothing else is given."""
        if self.principal:
            names = (Sought(Principal.parse(self.principal)),)
        if self.ccache or self.keytab:
            return Source(names, self.ccache, self.keytab)
        return Source(names, key_uri=key_uri, password=password if key_uri else None)


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
                # an enterprise name that the KDC left as it was has its domain
                user = principal.names[0].removesuffix(f"@{domain}")
                return None if "@" in user else DoNAI(domain, user)
            host = DoNAI.parse(principal.names[1].lower())
        except InvalidIdentity:
            return None
        inside = host.user is None and (host.domain == domain or host.domain.endswith("." + domain))
        return host if inside else None

    def services(self, service: str, remote: DoNAI) -> tuple[Principal, ...]:
        """Principals by which the KDC may know a service on a host, or a user. Raises LookupError in words.

        HTTP is written so for historical reasons (RFC 4559 section 4), which some realms follow.
        """
        if remote.user is not None:
            realm = self._of_user(remote)
            return (Principal((remote.user,), realm), Principal((str(remote),), realm))
        realm = self._of_host(remote)
        return tuple(Principal((name, remote.domain), realm) for name in _SPELLINGS.get(service, (service or "host",)))

    def names(self, service: str, local: DoNAI) -> tuple[Sought, ...]:
        """Names to try for a local identity, in order. Raises LookupError in words."""
        plain = self.services(service, local)
        if local.user is None:
            return tuple(Sought(principal) for principal in plain)
        return (Sought(Principal((str(local),), self._of_user(local)), enterprise=True), Sought(plain[0]))

    def _of_user(self, identity: DoNAI) -> str:
        for realm, domain in self.domains.items():
            if identity.domain == domain:
                return realm
        raise LookupError(f"{identity.domain} is the domain of no realm that [credential.kerberos] realms knows")

    def _of_host(self, identity: DoNAI) -> str:
        for realm, domain in sorted(self.domains.items(), key=lambda item: -len(item[1])):
            if identity.domain == domain or identity.domain.endswith("." + domain):
                return realm
        raise LookupError(f"{identity.domain} lies in no realm that [credential.kerberos] realms knows")
