"""Choosing among what both sides can do, for both roles.

Theory of operation
-------------------
The tables (`suites`, `groups`, `signatures`) say what exists and what the settings allow; the functions here find what two
sides have in common.  A server goes by its own order of preference unless the settings say otherwise.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from tlspool_core.tls.alerts import (
    NoApplicationProtocol,
    NoCertificateTypeInCommon,
    NoCredential,
    NoGroupInCommon,
    NoSchemeInCommon,
    NoSuiteInCommon,
)
from tlspool_core.tls.groups import DEFAULT_GROUPS, GROUPS
from tlspool_core.tls.seams import CipherSuite, Credential, Version
from tlspool_core.tls.settings import TLS13, ClientSettings, ServerSettings, Settings
from tlspool_core.tls.signatures import schemes_for
from tlspool_core.tls.suites import ECDHE, enabled_suites

MAX_CLIENT_SHARES = 2


def enabled_groups(settings: Settings, version: Version | None = None) -> Sequence[int]:
    """Groups that the settings allow in this version, or in any of theirs; best first."""
    codes = settings.groups or DEFAULT_GROUPS
    if version is not None:
        return [code for code in codes if code in GROUPS and version in GROUPS[code].versions]
    return [code for code in codes if code in GROUPS and not GROUPS[code].versions.isdisjoint(settings.versions)]


def client_share_groups(settings: ClientSettings) -> Sequence[int]:
    """Groups that the first ClientHello has a share for: as set, else the best, and the best of those without ML-KEM."""
    groups = enabled_groups(settings, TLS13)
    if settings.key_share_groups:
        return [group for group in groups if group in settings.key_share_groups]
    classic = [group for group in groups if not GROUPS[group].quantum_safe]
    return list(dict.fromkeys((*groups[:1], *classic[:1])))[:MAX_CLIENT_SHARES]


def client_suites(settings: ClientSettings, extensions: Mapping[int, bytes]) -> Sequence[CipherSuite]:
    """What a client offers: a TLS 1.2 suite only if its key exchange is there and usable with these extensions."""
    exchanges = {exchange.name: exchange for exchange in settings.key_exchanges}
    offered = []
    for suite in enabled_suites(settings):
        exchange = exchanges.get(suite.key_exchange)
        if suite.version == TLS13 or suite.key_exchange == ECDHE or (exchange is not None and exchange.usable(extensions)):
            offered.append(suite)
    return offered


def choose_suite(settings: ServerSettings, offered: Sequence[int], version: Version) -> CipherSuite:
    """The best suite of this version in common, of those that need no key exchange of a plugin's. Raises NoSuiteInCommon.

    A client that puts ChaCha20 first has no hardware for AES, and is followed in that.
    """
    common = [suite for suite in enabled_suites(settings) if suite.version == version and suite.code in offered]
    if not common:
        raise NoSuiteInCommon(f"none of {len(offered)} cipher suites")
    if len(common) > 1:
        codes = [suite.code for suite in common]
        theirs = common[codes.index(next(code for code in offered if code in codes))]
        if not settings.prefer_own_suites or theirs.cipher == "CHACHA20-POLY1305":
            return theirs
    return common[0]


def choose_group(settings: ServerSettings, offered: Sequence[int], version: Version) -> int:
    """The best group of ours that the client has, whether or not there is a share for it. Raises NoGroupInCommon.

    A client that guessed another one pays with a round trip, and the strength of the exchange never depends on its guess.
    """
    for group in settings.groups or DEFAULT_GROUPS:
        if group in offered and group in GROUPS and version in GROUPS[group].versions:
            return group
    raise NoGroupInCommon(f"none of {len(offered)} groups")


class Usable:
    """Of the schemes that the peer offered, those that may sign in this version; looked up one by one."""

    __slots__ = ("_offered", "_table", "_version")

    def __init__(self, settings: Settings, version: Version, offered: Sequence[int]) -> None:
        self._table = schemes_for(settings)
        self._version = version
        self._offered = offered

    def __contains__(self, code: object) -> bool:
        row = self._table.get(code) if isinstance(code, int) and code in self._offered else None
        return row is not None and self._version in row.versions


def schemes_in(settings: Settings, version: Version, offered: Sequence[int]) -> frozenset[int]:
    """Schemes that the peer offered and that may sign in this version."""
    table = schemes_for(settings)
    return frozenset([code for code in offered if code in table and version in table[code].versions])


def best_scheme(credential: Credential, usable: Container[int]) -> int | None:
    """The scheme that the credential likes best among the usable ones."""
    for code in credential.signature_schemes:
        if code in usable:
            return code
    return None


def allowed_types(settings: Settings, version: Version, types: Iterable[int]) -> Sequence[int]:
    """The certificate types among these that may be used in this version: a plugin's form may be for one only."""
    if not settings.extra_forms:
        return tuple(types)
    excluded = [form.certificate_type for form in settings.extra_forms if version not in form.versions]
    return [kind for kind in types if kind not in excluded]


def offered_types(settings: Settings, types: Sequence[int]) -> tuple[int, ...]:
    """The certificate types among these that may be used in any of the versions that are offered."""
    if not settings.extra_forms:
        return tuple(types)
    usable = {kind for version in settings.versions for kind in allowed_types(settings, version, types)}
    return tuple([kind for kind in types if kind in usable])


def choose_credential(
    credentials: Sequence[Credential],
    types: Container[int],
    usable: Container[int],
    authorities: Sequence[bytes] = (),
) -> tuple[Credential, int]:
    """The first credential that the peer can take, with the scheme to sign by.

    One whose issuer the peer named goes first; certificate_authorities is a hint, so others follow (RFC 8446 section 4.2.4).
    Raises NoCredential, NoCertificateTypeInCommon or NoSchemeInCommon, whichever says why.
    """
    if not credentials:
        raise NoCredential("there is no credential")
    of_type = [credential for credential in credentials if credential.certificate_type in types]
    if not of_type:
        raise NoCertificateTypeInCommon("no credential of a type that the peer accepts")
    first: tuple[Credential, int] | None = None
    for credential in of_type:
        scheme = best_scheme(credential, usable)
        if scheme is not None:
            if not authorities or not credential.issuers or not frozenset(authorities).isdisjoint(credential.issuers):
                return credential, scheme
            first = first or (credential, scheme)
    if first is None:
        raise NoSchemeInCommon("no credential can sign with a scheme that the peer accepts")
    return first


def choose_alpn(ours: Sequence[bytes], offered: Sequence[bytes] | None) -> bytes | None:
    """RFC 7301 section 3.2: the first of ours that the client has; None if either side does not care."""
    if not ours or offered is None:
        return None
    for name in ours:
        if name in offered:
            return name
    raise NoApplicationProtocol(f"none of {len(offered)} protocols")
