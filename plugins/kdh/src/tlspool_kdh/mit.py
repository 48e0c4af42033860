"""Keys and tickets through MIT Kerberos: keytabs, credential caches, and the KDC.

Theory of operation
-------------------
`krb5` wraps libkrb5.  Initial credentials are asked of the KDC with a key of a keytab or with a password, for the first of several names
that the KDC knows, and put into a cache in memory; what lies in somebody's own cache is copied into one.  By the ticket-granting ticket
that lies there, `library` asks for tickets of services, in other realms too, and of users.  All of it blocks, up to the time that
libkrb5 gives a KDC; so it is called from worker threads only.  A context of libkrb5 is for one thread, and each call makes its own.
Every error becomes a `KerberosError` in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import krb5

from tlspool_core.api import KeyStoreError
from tlspool_kdh import library
from tlspool_kdh.crypto import ENCTYPES, KerberosKey
from tlspool_kdh.files import contents, steady
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.tickets import ClientTicket, FindKey, Principal

# codes of krb5.h
NAME_UNKNOWN: Final = frozenset({-1765328378, -1765328203, -1765328316})  # C_PRINCIPAL_UNKNOWN, KT_NOTFOUND, WRONG_REALM
SERVICE_UNKNOWN: Final = -1765328377  # KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN
BAD_PASSWORD: Final = frozenset({-1765328353, -1765328360})  # KRB5KRB_AP_ERR_BAD_INTEGRITY, KRB5KDC_ERR_PREAUTH_FAILED
_RENEWABLE_FOR: Final = 7 * 86_400  # seconds that we should like to be able to renew a ticket; the KDC has its own limit
_TGS: Final = "krbtgt"

# what libkrb5 says in words that help nobody
_WORDS: Final = dict.fromkeys(BAD_PASSWORD, "the password or key is wrong")


@contextmanager
def _in_words(doing: str) -> Iterator[None]:
    try:
        yield
    except (krb5.Krb5Error, library.LibraryError) as error:
        words = _WORDS.get(error.err_code) or str(error).removesuffix(f" {error.err_code}")
        raise KerberosError(f"{doing}: {words}", error.err_code) from None
    except (ValueError, KeyStoreError) as error:
        raise KerberosError(f"{doing}: {error}") from None
    except OSError as error:
        raise KerberosError(f"{doing}: {error.strerror}{f': {error.filename}' if error.filename else ''}") from None


# --- keytabs ------------------------------------------------------------------------------------------------------------------


def keytab_keys(keytab: str) -> FindKey:
    """Finds keys of services in a keytab; the file is read each time, so keys that are rolled over are seen."""

    def find(principal: Principal, enctype: int, kvno: int | None) -> KerberosKey:
        context = krb5.init_context()
        try:
            with steady(keytab) as name:
                table = krb5.kt_resolve(context, name.encode())
                entry = krb5.kt_get_entry(context, table, _native(context, principal), kvno or 0, enctype)
        except (krb5.Krb5Error, OSError, OverflowError) as error:  # numbers are the peer's
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
    with _in_words(f"cannot read {keytab}"), steady(keytab) as name:
        for entry in krb5.kt_resolve(context, name.encode()):
            kind = entry.key.enctype
            text = krb5.enctype_to_name(kind, False)
            found.append(KeyEntry(_principal(entry.principal), entry.kvno, text, kind in ENCTYPES))
    return found


# --- names --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sought:
    """A name to try for somebody: a principal, or what the KDC may know as an enterprise name (RFC 6806 section 5)."""

    principal: Principal
    enterprise: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Whose tickets, by which of several names, and from where: one of a cache, a keytab, or a password that is asked for when needed."""

    names: tuple[Sought, ...] = ()
    ccache: str = ""
    keytab: str = ""
    key_uri: str = ""  # where the password lies, to tell one source from another
    password: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return " or ".join(str(one.principal) for one in self.names)


def _native(context: krb5.Context, principal: Principal) -> krb5.Principal:
    return krb5.build_principal(context, principal.realm.encode(), [name.encode() for name in principal.names])


def _principal(name: krb5.Principal | None) -> Principal:
    """Raises ValueError for none, and for names that cannot be written."""
    if name is None:
        raise ValueError("there is no principal")
    return Principal.build(tuple(part.decode() for part in name.components), name.realm.decode())


# --- caches and tickets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Purse:
    """A cache in memory, and the ticket-granting ticket in it, None if there is only something else."""

    cache: str
    client: Principal
    granting: ClientTicket | None
    renewable: float = 0.0  # seconds since the epoch up to which it can be renewed
    clock_offset: float = 0.0  # seconds by which the KDC's clock is ahead of ours


def with_password(source: Source) -> Source:
    """The same, with the password at hand if there is one to be asked for. Blocks. Raises KerberosError."""
    if source.password is None:
        return source
    with _in_words(f"no password of {source}"):
        found = source.password()
    return replace(source, password=lambda: found)


def secret_of(source: Source) -> bytes:
    """The password that `with_password` has fetched, or what the keytab holds; empty if neither can be told. Never raises."""
    if source.password is not None:
        return source.password()
    try:
        return contents(source.keytab)
    except OSError:
        return b""


def initial(source: Source) -> Purse:
    """Ask the KDC of the first name that it knows. Blocks. Raises KerberosError."""
    problems = []
    for one in source.names:
        try:
            with _in_words(f"no ticket for {one.principal}"):
                context = krb5.init_context()
                return _fill(context, [_ask_initial(context, source, one)])
        except KerberosError as error:
            problems.append(error)
            if error.code not in NAME_UNKNOWN:
                break
    if not problems:
        raise KerberosError("no name to get a ticket for")
    raise KerberosError("; ".join(map(str, problems)), problems[-1].code)


def _ask_initial(context: krb5.Context, source: Source, one: Sought) -> krb5.Creds:
    client = _native(context, one.principal)
    options = krb5.get_init_creds_opt_alloc(context)
    krb5.get_init_creds_opt_set_renew_life(options, _RENEWABLE_FOR)
    krb5.get_init_creds_opt_set_etype_list(options, sorted(ENCTYPES, key=lambda kind: (kind != 18, -kind)))
    if one.enterprise:
        client.type = krb5.NameType.enterprise_principal
        krb5.get_init_creds_opt_set_canonicalize(options, True)
    if source.keytab:
        with steady(source.keytab) as name:
            return krb5.get_init_creds_keytab(context, client, options, krb5.kt_resolve(context, name.encode()))
    if source.password is None:
        raise ValueError("there is no cache, keytab or password to get one by")
    return krb5.get_init_creds_password(context, client, options, source.password())


def _fill(context: krb5.Context, made: Sequence[krb5.Creds]) -> Purse:
    """A cache in memory with these credentials, all of one client."""
    cache = krb5.cc_new_unique(context, b"MEMORY")
    try:
        krb5.cc_initialize(context, cache, made[0].client)
        for one in made:
            krb5.cc_store_cred(context, cache, one)
        return _purse(context, f"MEMORY:{(cache.name or b'').decode()}", made)
    except BaseException:
        krb5.cc_destroy(context, cache)  # what lies in memory stays there for as long as the process, whoever forgets it
        raise


def _purse(context: krb5.Context, name: str, made: Sequence[krb5.Creds]) -> Purse:
    client = _principal(made[0].client)
    wanted = Principal((_TGS, client.realm), client.realm)
    granting = max((one for one in made if _names(one.server, wanted)), key=_end, default=None)
    seconds, micro = krb5.get_time_offsets(context)  # libkrb5 takes them from answers of the KDC, and keeps them in caches
    offset = seconds + micro / 1_000_000
    if granting is None:
        return Purse(name, client, None, clock_offset=offset)
    return Purse(name, client, _ticket(granting, offset), float(granting.times.renew_till), offset)


def _names(name: krb5.Principal | None, wanted: Principal) -> bool:
    try:
        return _principal(name) == wanted
    except ValueError:
        return False


def _end(made: krb5.Creds) -> int:
    end: int = made.times.endtime
    return end


def renewed(purse: Purse) -> Purse:
    """The same with a ticket-granting ticket that lasts longer (RFC 4120 section 2.3). Blocks. Raises KerberosError."""
    with _in_words(f"the ticket of {purse.client} cannot be renewed"):
        context = krb5.init_context()
        cache = krb5.cc_resolve(context, purse.cache.encode())
        return _fill(context, [krb5.get_renewed_creds(context, _native(context, purse.client), cache)])


def copied(source: Source) -> Purse:
    """What lies in the source's own cache, if it belongs to one of its names. Raises KerberosError."""
    with _in_words(f"cannot use {source.ccache}"), steady(source.ccache) as name:
        context = krb5.init_context()
        cache = krb5.cc_resolve(context, name.encode())
        client = _principal(cache.principal)
        if source.names and client not in [one.principal for one in source.names]:
            raise ValueError(f"it is of {client}, and not of {source}")
        found = [one for one in cache if one.server.realm != b"X-CACHECONF:"]
        if not found:
            raise ValueError("it is empty")
        return _fill(context, found)


def forget(purse: Purse) -> None:
    """Let go of a cache in memory. Never raises."""
    context = krb5.init_context()
    try:
        krb5.cc_destroy(context, krb5.cc_resolve(context, purse.cache.encode()))
    except krb5.Krb5Error:
        return  # it is gone already


def service_ticket(purse: Purse, services: Iterable[Principal], second_ticket: bytes = b"") -> ClientTicket:
    """A ticket for the first of the services that the KDC knows, encrypted for its key, or in the session key of a ticket-granting
    ticket that it showed. Blocks. Raises KerberosError.
    """
    problems = []
    for service in services:
        try:
            with _in_words(f"no ticket for {service}"):
                return _ask_service(purse, service, second_ticket)
        except KerberosError as error:
            problems.append(error)
            if error.code != SERVICE_UNKNOWN:
                raise
    raise problems[0] if problems else KerberosError("no service to get a ticket for")


def _ask_service(purse: Purse, service: Principal, second_ticket: bytes) -> ClientTicket:
    options = library.NO_STORE | (library.USER_USER if second_ticket else 0)
    context = krb5.init_context()
    client, server = _native(context, purse.client), _native(context, service)
    packed = library.get_credentials(purse.cache, client.addr or 0, server.addr or 0, second_ticket, options)
    return _ticket(krb5.unmarshal_credentials(context, packed), purse.clock_offset)


def _ticket(made: krb5.Creds, clock_offset: float) -> ClientTicket:
    key = KerberosKey(made.keyblock.enctype, made.keyblock.data)
    return ClientTicket(_principal(made.client), _principal(made.server), made.ticket, key, float(made.times.endtime), clock_offset)
