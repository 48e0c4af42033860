"""The judgement on a peer's chain as a whole: path, distrust, known revocations; kept for a short time.

Theory of operation
-------------------
A path is searched once for each chain and role, and the outcome kept for a minute, or until any database changes.  A revocation
that is known counts against a path even where policy does not ask for revocation lists: to have been told and not to act on it would
be worse than not to ask.  Whether lists are required is for predicate R.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from cryptography import x509

from tlspool_core.api import ConfigBackend, Role
from tlspool_x509.anchors import TrustStore
from tlspool_x509.certificates import issued_by, utc_now, validity_fault
from tlspool_x509.keys import signature_fault
from tlspool_x509.names import common_name_fault, title
from tlspool_x509.paths import Path, Untrusted, check_end, find_path
from tlspool_x509.peer import X509Peer
from tlspool_x509.revocation import Listed, Standing, standing
from tlspool_x509.settings import X509Settings

KEPT_SECONDS = 60.0
MAX_KEPT = 1024


_Key: TypeAlias = tuple[bytes, tuple[bytes, ...], Role]  # what was shown, where anchors were looked for, and for what


@dataclass(frozen=True, slots=True)
class _Kept:
    """The outcome for one chain: a path, or why there is none."""

    generation: int
    until: float
    outcome: Path | str


class Validator:
    """For all sessions, in any thread. `clock` gives the time that certificates are held against."""

    def __init__(self, settings: X509Settings, trust: TrustStore, clock: Callable[[], datetime] = utc_now) -> None:
        self._settings = settings
        self.trust = trust
        self.clock = clock
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, peer: X509Peer, role: Role, config: ConfigBackend, *, ignore_caches: bool = False) -> Path:
        """The path of a peer that acts in `role`. Raises Untrusted."""
        key = (peer.digest, peer.anchor_keys, role)
        generation = config.generation()
        kept = None if ignore_caches else self._lookup(key, generation)
        if kept is None or (isinstance(kept, Path) and validity_fault(peer.leaf, self.clock())):
            kept = self._judge(peer, role, config)
            self._keep(key, _Kept(generation, time.monotonic() + KEPT_SECONDS, kept))
        if isinstance(kept, str):
            raise Untrusted(kept)
        return kept

    def _lookup(self, key: _Key, generation: int) -> Path | str | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.generation != generation or kept.until < time.monotonic():
                return None
            self._kept.move_to_end(key)
            return kept.outcome

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)

    def _judge(self, peer: X509Peer, role: Role, config: ConfigBackend) -> Path | str:
        try:
            path = find_path(peer.chain, self.trust.anchors(peer.anchor_keys, role, config), role, self.clock())
            self._check_name(peer, role)
            self._check_known(path, config)
        except Untrusted as reason:
            return str(reason)
        return path

    def _check_name(self, peer: X509Peer, role: Role) -> None:
        if role is Role.SERVER and self._settings.common_name_must_match and (fault := common_name_fault(peer.leaf)):
            raise Untrusted(f"{title(peer.leaf)}: {fault}")

    def _check_known(self, path: Path, config: ConfigBackend) -> None:
        """Raises Untrusted for what the trust database speaks against."""
        for certificate in path.chain:
            if self.trust.is_distrusted(certificate, config):
                raise Untrusted(f"{title(certificate)} is marked as revoked in the trust database")
        for certificate, issuer in path.links:
            listed = self.standing(certificate, issuer, config)
            if listed.standing is Standing.REVOKED:
                raise Untrusted(f"{title(certificate)}: {listed.reason}")

    def standing(self, certificate: x509.Certificate, issuer: x509.Certificate, config: ConfigBackend) -> Listed:
        """What the revocation lists of the database say of a certificate of a path."""
        return standing(certificate, issuer, self.trust.revocation_lists(issuer, config), self.clock())

    def check_self_signed(self, peer: X509Peer, role: Role, config: ConfigBackend) -> None:
        """Whether the end certificate is signed by its own key, and fit for its role otherwise. Raises Untrusted."""
        check_end(peer.leaf, role, self.clock())
        if signature_fault(peer.leaf) or not issued_by(peer.leaf, peer.leaf):
            raise Untrusted(f"{title(peer.leaf)} is not signed by its own key")
        if self.trust.is_distrusted(peer.leaf, config):
            raise Untrusted(f"{title(peer.leaf)} is marked as revoked in the trust database")
