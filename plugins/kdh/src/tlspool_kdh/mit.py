"""Keys and tickets through MIT Kerberos: keytabs, credential caches, and the KDC.

Theory of operation
-------------------
`krb5` wraps libkrb5.  A ticket is asked of the KDC with a key of a keytab or with a password, directly for the service; out of a
credential cache it is taken, or had through `gssapi`, which fetches tickets for services by the ticket-granting ticket.  All of it
blocks, up to the time that libkrb5 gives a KDC; so it is called from worker threads only.  A context of libkrb5 is for one thread, and
each call makes its own.  Every error becomes a `KerberosError` in words.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import gssapi
import krb5
from gssapi.raw.misc import GSSError

from tlspool_kdh.crypto import ENCTYPES, KerberosKey
from tlspool_kdh.tickets import ClientTicket, FindKey, Principal


class KerberosError(Exception):
    """What Kerberos could not do, in words for the operator; names files and principals, holds no secret."""


# what libkrb5 says in words that help nobody
_WORDS = {-1765328353: "the password or key is wrong"}  # KRB5KRB_AP_ERR_BAD_INTEGRITY


@contextmanager
def _in_words(doing: str) -> Iterator[None]:
    try:
        yield
    except krb5.Krb5Error as error:
        raise KerberosError(f"{doing}: {_WORDS.get(error.err_code, error)}") from None
    except GSSError as error:
        raise KerberosError(f"{doing}: {error}") from None
    except ValueError as error:
        raise KerberosError(f"{doing}: {error}") from None


def keytab_keys(keytab: str) -> FindKey:
    """Finds keys of services in a keytab; the file is read each time, so keys that are rolled over are seen."""

    def find(principal: Principal, enctype: int, kvno: int | None) -> KerberosKey:
        context = krb5.init_context()
        try:
            table = krb5.kt_resolve(context, keytab.encode())
            name = krb5.parse_name_flags(context, str(principal).encode())
            entry = krb5.kt_get_entry(context, table, name, kvno or 0, enctype)
        except krb5.Krb5Error as error:
            raise LookupError(f"no key for {principal}, encryption type {enctype}, in {keytab}: {error}") from None
        return KerberosKey(enctype, entry.key.data)

    return find


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One entry of a keytab, for lists; `usable` if the encryption type is one of ours."""

    principal: Principal
    version: int
    enctype: str
    usable: bool


def keytab_principals(keytab: str) -> list[KeyEntry]:
    """What a keytab holds. Raises KerberosError."""
    context = krb5.init_context()
    found = []
    with _in_words(f"cannot read {keytab}"):
        for entry in krb5.kt_resolve(context, keytab.encode()):
            kind = entry.key.enctype
            name = krb5.enctype_to_name(kind, False)
            found.append(KeyEntry(_principal(_text(context, entry.principal)), entry.kvno, name, kind in ENCTYPES))
    return found


@dataclass(frozen=True, slots=True)
class Source:
    """Where a client's tickets come from: one of a cache, a keytab, or a password, which is asked for when needed."""

    principal: str = ""
    ccache: str = ""
    keytab: str = ""
    password: Callable[[], bytes] | None = field(default=None, repr=False)


def fetch(source: Source, service: str) -> ClientTicket:
    """A ticket for `service`, written with its realm. Blocks. Raises KerberosError."""
    context = krb5.init_context()
    with _in_words(f"no ticket for {service}"):
        if source.ccache:
            return _from_cache(context, source, service)
        client = krb5.parse_name_flags(context, source.principal.encode())
        options = krb5.get_init_creds_opt_alloc(context)
        wanted = service.encode()
        if source.keytab:
            table = krb5.kt_resolve(context, source.keytab.encode())
            made = krb5.get_init_creds_keytab(context, client, options, table, in_tkt_service=wanted)
        elif source.password is not None:
            made = krb5.get_init_creds_password(context, client, options, source.password(), in_tkt_service=wanted)
        else:
            raise KerberosError(f"no cache, keytab or password to get tickets for {source.principal}")
        return _ticket(context, made)


def _from_cache(context: krb5.Context, source: Source, service: str) -> ClientTicket:
    cache = krb5.cc_resolve(context, source.ccache.encode())
    if (found := _held(context, cache, service)) is not None:
        return found
    name = gssapi.Name(service, gssapi.NameType.kerberos_principal)
    credentials = gssapi.Credentials(usage="initiate", store={"ccache": source.ccache})
    gssapi.SecurityContext(name=name, creds=credentials, usage="initiate").step()  # fetches the ticket, and keeps it in the cache
    if (found := _held(context, cache, service)) is None:
        raise KerberosError(f"no ticket for {service} in {source.ccache}")
    return found


def _held(context: krb5.Context, cache: krb5.CCache, service: str) -> ClientTicket | None:
    """A ticket of the cache that does not end within a minute."""
    for one in cache:
        if _text(context, one.server) == service and one.times.endtime > time.time() + 60:
            return _ticket(context, one)
    return None


def _ticket(context: krb5.Context, made: krb5.Creds) -> ClientTicket:
    key = KerberosKey(made.keyblock.enctype, made.keyblock.data)
    client, service = (_principal(_text(context, name)) for name in (made.client, made.server))
    return ClientTicket(client, service, made.ticket, key, float(made.times.endtime))


def _text(context: krb5.Context, name: krb5.Principal) -> str:
    text: str = krb5.unparse_name_flags(context, name).decode()
    return text


def _principal(text: str) -> Principal:
    name, _, realm = text.rpartition("@")
    return Principal.of({"name-string": name.split("/")}, realm)


class Tickets:
    """Tickets by source and service, fetched anew before they end; one for the process, called from worker threads."""

    def __init__(self, margin: float = 300.0, now: Callable[[], float] = time.time) -> None:
        self._margin = margin
        self._now = now
        self._held: dict[tuple[str, str, str, str], ClientTicket] = {}
        self._lock = threading.Lock()

    def get(self, source: Source, service: str) -> ClientTicket:
        """A ticket that is good for `margin` seconds at least, if the KDC gives any. Blocks. Raises KerberosError."""
        key = (source.principal, source.ccache, source.keytab, service)
        with self._lock:
            held = self._held.get(key)
        if held is not None and held.ends > self._now() + self._margin:
            return held
        fresh = fetch(source, service)
        with self._lock:
            self._held[key] = fresh
        return fresh
