"""From configuration and plugins to the engine's settings: what is the same for all sessions is made once.

Theory of operation
-------------------
Names in the configuration become code points here, so that a name that the engine does not know is refused at start, with its line.
Tables that credential types bring (certificate forms, suites, signature schemes) go into every session's settings.  Types that
overrule `begin` bring objects for one session too; only they are asked, so that a plain handshake costs nothing for them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import CredentialType, KeyStoreError, LocalIdentity, SessionContext, SessionParts
from tlspool_core.policy.demands import RemoteIdentity
from tlspool_core.pool.config import ConfigurationError, PoolConfig
from tlspool_core.pool.key_watch import noting
from tlspool_core.pool.logs import say
from tlspool_core.pool.tomlfile import suggestion
from tlspool_core.tls.groups import GROUPS
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.seams import CertificateForm, CipherSuite, SignatureScheme
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings, StoredSession
from tlspool_core.tls.signatures import CORE_SCHEMES
from tlspool_core.tls.suites import CORE_SUITES

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.session import Session

log = logging.getLogger("tlspool.engine")

_VERSIONS = {"1.2": TLS12, "1.3": TLS13}
_UNSAID = 0  # of the registry "TLS Certificate Types": what a peer means that says nothing


def _codes(config: PoolConfig, key: str, names: Sequence[str], known: Mapping[str, int]) -> tuple[int, ...]:
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{config.name}: tls.{key}: {name!r} is not known{suggestion(name, list(known))}")
    return tuple(known[name] for name in names)


class KeyLog:
    """Writes NSS key log lines for debugging; whoever reads the file reads the connections."""

    def __init__(self, path: str) -> None:
        """Raises ConfigurationError if the file cannot be written."""
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(f"tls.key_log: {path}: {error.strerror}") from error
        say(log, logging.WARNING, "audit: session secrets are written to a file (tls.key_log)", path=path)

    def write(self, line: str) -> None:
        os.write(self._descriptor, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def _narrow(configured: Sequence[int], wishes: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """What configuration (empty: anything) and every plugin's wish (empty: none) leave, in the order of the first that speaks."""
    left = tuple(configured)
    for wish in wishes:
        left = tuple(code for code in (left or wish) if not wish or code in wish)
    return left


def named_settings(config: PoolConfig, types: Iterable[CredentialType]) -> dict[str, Any]:
    """What [tls] names, of what the engine and the plugins have. Raises ConfigurationError for a name that nothing has."""
    tls, parts = config.tls, [kind.engine_parts for kind in types]
    suites: list[CipherSuite] = [suite for part in parts for suite in part.cipher_suites]
    schemes: list[SignatureScheme] = [scheme for part in parts for scheme in part.signature_schemes]
    suite_codes = {suite.name: suite.code for suite in (*CORE_SUITES.values(), *suites)}
    scheme_codes = {scheme.name: scheme.code for scheme in (*CORE_SCHEMES.values(), *schemes)}
    return {
        "cipher_suites": _codes(config, "cipher_suites", tls.cipher_suites, suite_codes),
        "groups": _codes(config, "groups", tls.groups, {group.name: group.code for group in GROUPS.values()}),
        "signature_schemes": _codes(config, "signature_schemes", tls.signature_schemes, scheme_codes),
        "extra_suites": tuple(suites),
        "extra_schemes": tuple(schemes),
    }


class Engine:
    """Makes settings; one for each configuration."""

    def __init__(self, pool: Pool, config: PoolConfig, types: Iterable[CredentialType]) -> None:
        """Raises ConfigurationError."""
        self._pool = pool
        self._config = config
        self._types = tuple(types)
        self._beginners = tuple(kind for kind in self._types if type(kind).begin is not CredentialType.begin)
        self._authorities: tuple[int, tuple[bytes, ...]] | None = None
        self._key_log = KeyLog(config.tls.key_log) if config.tls.key_log else None
        self.certificate_types = self._certificate_types()
        self._common = self._common_settings()
        self._shared = self._server(self._complete(()))  # for all servers to whose session no plugin adds anything

    def close(self) -> None:
        if self._key_log is not None:
            self._key_log.close()
            self._key_log = None

    def _certificate_types(self) -> tuple[int, ...]:
        """All that plugins know, the commonest first."""
        codes = [code for kind in self._types for code in kind.certificate_types]
        return tuple(sorted(set(codes), key=lambda code: (code != _UNSAID, codes.index(code))))

    def _common_settings(self) -> dict[str, Any]:
        tls = self._config.tls
        forms: list[CertificateForm] = [form for kind in self._types for form in kind.engine_parts.certificate_forms]
        return named_settings(self._config, self._types) | {
            "versions": tuple(_VERSIONS[version] for version in tls.versions),
            "extra_forms": tuple(forms),
            "certificate_compression": tls.certificate_compression,
            "padding": tls.padding,
            "key_log": self._key_log.write if self._key_log else None,
        }

    # --- one session ---------------------------------------------------------------------------------------------------------

    def settings(
        self, session: Session, local: DoNAI | None, remote: DoNAI | None, resumed: StoredSession | None, rests_on: set[str]
    ) -> ClientSettings | ServerSettings:
        """Settings for a session between these identities, as far as they are known. Raises ConfigError.

        URIs of keys that plugins ask for during the handshake are put into `rests_on`.
        """
        parts = self._begin(session, local, remote, rests_on)
        if session.role == "server" and not parts:
            return self._shared
        common = self._complete(parts)
        if session.role == "server":
            return self._server(common)
        return self._client(session, local, remote, resumed, common)

    def _complete(self, parts: Sequence[SessionParts]) -> dict[str, Any]:
        """The common settings with what plugins bring for one session."""
        narrowed = {
            "versions": _narrow(self._common["versions"], [part.versions for part in parts]),
            "cipher_suites": _narrow(self._common["cipher_suites"], [part.cipher_suites for part in parts]),
        }
        return (
            self._common
            | narrowed
            | {
                "key_exchanges": tuple(exchange for part in parts for exchange in part.key_exchanges),
                "extensions": tuple(extension for part in parts for extension in part.extensions),
                "own_certificate_types": self.certificate_types,
                "peer_certificate_types": self.certificate_types,
            }
        )

    def _server(self, common: dict[str, Any]) -> ServerSettings:
        tickets = self._config.tickets
        if not tickets.enabled:
            return ServerSettings(**common, tickets=0, ticket_lifetime=0, ocsp_response=self._staple)
        return ServerSettings(**common, tickets=tickets.per_handshake, ticket_lifetime=tickets.lifetime, ocsp_response=self._staple)

    def _staple(self, credential: Any) -> bytes | None:
        """What the plugin of a server credential has to staple to it; a fault there is no reason to fail."""
        kind = next((kind for kind in self._types if credential.certificate_type in kind.certificate_types), None)
        try:
            return kind.ocsp_response(credential) if kind is not None else None
        except Exception:
            log.exception("plugin %s failed to find an OCSP response", kind.name if kind else "")
            return None

    def _client(
        self, session: Session, local: DoNAI | None, remote: DoNAI | None, resumed: StoredSession | None, common: dict[str, Any]
    ) -> ClientSettings:
        without_sni = session.wishes.without_sni
        if local is not None:
            common["own_certificate_types"] = self._types_of(local) or self.certificate_types
        return ClientSettings(
            **common,
            server_name=remote.domain if remote is not None and not without_sni else None,
            alpn=self.alpn(session.request.service),
            session=resumed,
        )

    def _types_of(self, local: DoNAI) -> tuple[int, ...]:
        """Certificate types that a local identity has."""
        entry = self._pool.credentials.identity(local)
        names = {credential.type for credential in entry.credentials} if entry else set()
        codes = {code for kind in self._types if kind.name in names for code in kind.certificate_types}
        return tuple(code for code in self.certificate_types if code in codes)

    def _begin(self, session: Session, local: DoNAI | None, remote: DoNAI | None, rests_on: set[str]) -> list[SessionParts]:
        entry, kinds = self._beginning(local)
        if not kinds:
            return []
        context = SessionContext(
            role=session.role,
            service=session.request.service,
            local_identity=local,
            remote_identity=remote,
            local_credentials=entry.credentials if entry else (),
            config=self._pool.backend,
            read_secret=noting(rests_on, self._pool.read_secret_blocking),
            ask_password=self._pool.ask_password_blocking,
            peer_address=session.peer_address,
            agree=noting(rests_on, self._pool.agree_blocking),
            rests_on=rests_on.add,
        )
        return [self._begin_one(kind, context) for kind in kinds]

    def _beginning(self, local: DoNAI | None) -> tuple[LocalIdentity | None, list[CredentialType]]:
        """What is stored for a local identity, and the types of its credentials that take part from the first message on."""
        if not self._beginners or local is None:
            return None, []
        entry = self._pool.credentials.identity(local)
        names = {credential.type for credential in entry.credentials} if entry is not None else set()
        return entry, [kind for kind in self._beginners if kind.name in names]

    def _begin_one(self, kind: CredentialType, context: SessionContext) -> SessionParts:
        """A plugin that fails here takes no part in the session; others may do."""
        try:
            return kind.begin(context)
        except Exception:
            log.exception("plugin %s failed to begin a session", kind.name)
            return SessionParts()

    def begins_early(self, local: DoNAI | None) -> bool:
        """Whether a local identity has credentials that take part from the first message on."""
        return bool(self._beginning(local)[1])

    # --- choices of a server -------------------------------------------------------------------------------------------------

    def alpn(self, service: str) -> tuple[bytes, ...]:
        """Application protocols of a service, best first; empty if it has none."""
        return tuple(name.encode() for name in self._config.alpn(service))

    def client_auth(self, remote: RemoteIdentity, local: DoNAI | None) -> ClientAuth:
        """Whether to ask the client for a certificate, and to insist on it in the handshake.

        Where a client may prove itself in another way than by a certificate, to insist is left to the judge.
        """
        if remote is RemoteIdentity.IGNORED:
            return ClientAuth.NONE
        if remote is RemoteIdentity.REQUESTED or self.begins_early(local):
            return ClientAuth.REQUEST
        return ClientAuth.REQUIRE

    def certificate_authorities(self) -> tuple[bytes, ...]:
        """Names for CertificateRequest, from all credential types; kept as long as the databases do not change."""
        generation = self._pool.backend.generation()
        if self._authorities is None or self._authorities[0] != generation:
            names: dict[bytes, None] = {}
            for kind in self._types:
                names.update(dict.fromkeys(kind.certificate_authorities(self._pool.backend)))
            self._authorities = (generation, tuple(names))
        return self._authorities[1]


def blocking(loop: asyncio.AbstractEventLoop, make: Callable[..., Any], time_limit: float) -> Callable[..., Any]:
    """A function for worker threads that has a coroutine run on the loop, and waits for it."""

    def run(*arguments: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(make(*arguments), loop)
        try:
            return future.result(time_limit)
        except TimeoutError:
            future.cancel()
            raise KeyStoreError(f"no answer within {time_limit:g} s") from None

    return run
