"""A private key in a token, as the pool holds it: a name, what it can do, and the way to the worker that reaches it.

Theory of operation
-------------------
The handle in the worker is found once and used for every signature.  When the worker was replaced, the key is looked for again
by the URI that it was found by; it must then have the same public half, since a token that was initialised anew under the same
label holds another key, and signatures by that one would fail at the peer with a riddle.

Which mechanism makes a scheme's signature is tried in the order of `mechanisms`; a token that lists a mechanism and then
refuses it gets the next one, and that is remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tlspool_core.api import KeyStoreError, Secret
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.agreement import agreement
from tlspool_pkcs11.client import TokenFault, WorkerGone
from tlspool_pkcs11.faults import Cure
from tlspool_pkcs11.library import CKO_PRIVATE_KEY
from tlspool_pkcs11.login import PinUse
from tlspool_pkcs11.lookup import Found, Lookup, present_token
from tlspool_pkcs11.mechanisms import BadSignature, Way, scheme_name, schemes
from tlspool_pkcs11.publickeys import PublicKey
from tlspool_pkcs11.uri import Pkcs11Uri, build_uri

# far above a TLS 1.2 handshake with the largest messages that the engine takes
_MAX_CONTENT: Final = 1024 * 1024


class Pkcs11Key:
    """Implements `Key` of the key store interface."""

    def __init__(self, lookup: Lookup, wanted: Pkcs11Uri, found: Found) -> None:
        """`wanted` is the URI that was asked for, whose query belongs to the key's name too."""
        self._lookup = lookup
        self._found = found
        self._public = found.public()
        self._wanted = _named(found, wanted)
        self._ways = self._possible()
        self._templates: dict[Way, wire.SignTemplate] = {}

    def __repr__(self) -> str:
        return f"<key {self.uri}>"

    @property
    def uri(self) -> str:
        """A URI that names this key and no other; `find` takes it."""
        return build_uri(self._wanted)

    @property
    def public_key(self) -> bytes | None:
        """DER SubjectPublicKeyInfo; None if the token holds neither the public key nor a certificate."""
        return self._public.spki if self._public else None

    @property
    def kind(self) -> PublicKey | None:
        """What sort of key it is."""
        return self._public

    @property
    def signature_schemes(self) -> Sequence[int]:
        """TLS SignatureScheme code points, best first."""
        return tuple(self._ways)

    def _possible(self) -> Mapping[int, list[Way]]:
        return {code: list(ways) for code, ways in possible_schemes(self._found, self._public).items()}

    async def sign(self, scheme: int, content: bytes) -> bytes:
        """Signature of `content` in TLS's encoding. Raises KeyStoreError."""
        if len(content) > _MAX_CONTENT:
            raise KeyStoreError(f"{self.uri}: {len(content)} bytes are more than any handshake has to sign")
        ways = self._ways.get(scheme)
        if ways and (pending := self._send(ways[0], content)):
            # the usual case, in which nothing is to be found, logged in to or mended
            with suppress(WorkerGone, BadSignature):
                reply = await pending
                if type(reply) is wire.Value:
                    return ways[0].finish(reply.value)
        return await self._sign_with_care(scheme, content)

    def _send(self, way: Way, content: bytes) -> asyncio.Future[wire.Message] | None:
        """Ask the worker that has the key at hand; None if that needs care."""
        worker = self._found.worker
        if self._found.module.present is not worker or self._found.record.flags & wire.OBJECT_ALWAYS_AUTHENTICATE:
            return None
        template = self._templates.get(way)
        if template is None:
            template = self._templates[way] = wire.SignTemplate(self._found.record.reference, way.mechanism, way.parameters)
        return worker.send_body(wire.Sign.KIND, template.body(way.prepare(content)), worker.settings.timeout)

    async def _sign_with_care(self, scheme: int, content: bytes) -> bytes:
        """In any state of worker and token, with every mechanism that might do it. Raises KeyStoreError."""
        ways = self._ways.get(scheme)
        if not ways:
            able = ", ".join(map(scheme_name, self._ways)) or "nothing that TLS knows"
            raise KeyStoreError(f"{self.uri} cannot make {scheme_name(scheme)}; it can make: {able}")
        reason = ""
        for way in tuple(ways):
            try:
                signature = way.finish(await self._sign(way, way.prepare(content)))
            except TokenFault as fault:
                reason = f"{fault}; {fault.remedy}"
                if fault.cure is not Cure.OTHER_MECHANISM:
                    break
            except (BadSignature, WorkerGone) as error:
                reason = str(error)
                break
            else:
                if way is not ways[0]:
                    # a token that promises and refuses does so each time: begin with what worked
                    ways.remove(way)
                    ways.insert(0, way)
                return signature
        raise KeyStoreError(f"{self.uri}: no {scheme_name(scheme)} signature: {reason}")

    async def _sign(self, way: Way, data: bytes) -> bytes:
        return await self._mended(lambda found: self._signed_by(found, way, data))

    async def agree(self, peer_public: bytes) -> bytes:
        """Shared secret with a public key (DER SubjectPublicKeyInfo), as long as the curve's field. Raises KeyStoreError."""
        wanted = agreement(peer_public)
        if self._public is None or self._public.kind != wanted.kind:
            raise KeyStoreError(f"{self.uri} is not on the curve {wanted.kind.removeprefix('ec-')}")
        flags = self._found.record.flags
        if not flags & wire.OBJECT_DERIVES or flags & wire.OBJECT_ALWAYS_AUTHENTICATE:
            raise KeyStoreError(f"{self.uri} may not agree on keys without further ado (CKA_DERIVE, CKA_ALWAYS_AUTHENTICATE)")

        async def attempt(found: Found) -> bytes:
            request = wire.Agree(found.record.reference, wanted.point, wanted.length)
            return (await found.worker.call(request, wire.Value)).value

        try:
            return wanted.secret(await self._mended(attempt))
        except TokenFault as fault:
            raise KeyStoreError(f"{self.uri}: no key agreement: {fault}; {fault.remedy}") from None
        except WorkerGone as gone:
            raise KeyStoreError(f"{self.uri}: no key agreement: {gone}") from None

    async def _mended(self, attempt: Callable[[Found], Awaitable[bytes]]) -> bytes:
        """Once, and a second time with a fresh worker if that may help: an answer that nobody received does no harm."""
        found = await self._placed()
        try:
            return await attempt(found)
        except WorkerGone:
            if found.record.flags & wire.OBJECT_ALWAYS_AUTHENTICATE:
                # a PIN was on its way, and nobody knows what became of it
                raise
        except TokenFault as fault:
            if fault.cure is not Cure.FRESH_WORKER:
                raise
            await found.module.replace(found.worker, str(fault))
        return await attempt(await self._placed())

    async def _signed_by(self, found: Found, way: Way, data: bytes) -> bytes:
        record, worker = found.record, found.worker
        if record.flags & wire.OBJECT_ALWAYS_AUTHENTICATE:
            return await self._signed_with_pin(found, way, data)
        return (await worker.call(wire.Sign(record.reference, way.mechanism, 0, way.parameters, data), wire.Value)).value

    async def _signed_with_pin(self, found: Found, way: Way, data: bytes) -> bytes:
        """For keys with CKA_ALWAYS_AUTHENTICATE: the PIN goes with each signature (PKCS #11 v3.1 section 4.9, CKU_CONTEXT_SPECIFIC)."""
        record, worker, token, settings = found.record, found.worker, found.token, found.module.settings

        def attempt(pin: Secret | None) -> Awaitable[wire.Value]:
            request = wire.Sign(record.reference, way.mechanism, 1, way.parameters, data, pin)
            return worker.begin(request, wire.Value, settings.login_timeout)

        source = self._lookup.pin_source(found.module, token, self._wanted)
        keeper = self._lookup.keeper
        async with keeper.lock(token):
            use = PinUse(attempt, lambda: present_token(worker, token), source, settings.remember_pin)
            return (await keeper.use(token, use)).value

    async def _placed(self) -> Found:
        """Where the key is now. Raises KeyStoreError if it cannot be reached."""
        worker = await self._found.module.worker()
        if worker is self._found.worker:
            return self._found
        found, problems = await self._lookup.search(self._wanted, [self._found.module], (CKO_PRIVATE_KEY,))
        if len(found) != 1:
            reason = "; ".join(problems) or f"{len(found)} keys have this name now"
            raise KeyStoreError(f"{self.uri} cannot be reached: {reason}")
        public = found[0].public()
        if self._public and public and self._public.spki != public.spki:
            raise KeyStoreError(f"{self.uri} is another key now than it was: renew the credential that uses it")
        self._found = found[0]
        self._templates.clear()
        return self._found


def _named(found: Found, wanted: Pkcs11Uri) -> Pkcs11Uri:
    return replace(found.uri, pin_source=wanted.pin_source, module_name=wanted.module_name, module_path=wanted.module_path)


def possible_schemes(found: Found, public: PublicKey | None) -> Mapping[int, Sequence[Way]]:
    """What a key can make, given its flags, its list of allowed mechanisms, and what the token offers and the operator leaves of it."""
    if public is None or not found.record.flags & wire.OBJECT_SIGNS:
        return {}
    usable = found.module.settings.usable(found.token.mechanisms)
    if found.record.allowed_mechanisms:
        usable &= frozenset(found.record.allowed_mechanisms)
    return schemes(public, usable)
