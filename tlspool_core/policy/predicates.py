"""The predicates that the pool establishes itself, and who establishes the others.

Theory of operation
-------------------
Letters about the session (L I F A S C U Q) are answered here, out of what the handshake left; all others are a plugin's, found by
letter and type of the peer's credential.  None of those here does I/O or takes time, so they are asked first.

Upper implies lower for each letter, save Q and q, which the language defines as two different things: a key exchange, and an
authentication, that resist a quantum computer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import CredentialType, PeerContext, Predicate, Role, Verdict
from tlspool_core.policy.expression import values_of
from tlspool_core.policy.levels import LENIENT, STRICT, SecurityLevel, shortfall

__all__ = ["MEANINGS", "Established", "PredicateTable", "meaning", "proven_identity"]

_TLS13 = 0x0304
# key exchanges of the engine; whether a plugin's hides the identities is not known here
_HIDING_EXCHANGES = frozenset({"ECDHE", "PSK+ECDHE", ""})

# letter -> meaning of the strict and of the lenient form
MEANINGS: Mapping[str, tuple[str, str]] = {
    "L": (
        "the strict security level is reached (128 bits, authenticated encryption)",
        "the lenient security level is reached (112 bits)",
    ),
    "I": ("the identity is the one asked for", "the identity is the one asked for, or its domain speaks for it"),
    "F": ("forward secrecy, ephemeral on both sides", "forward secrecy, fixed on one side at most"),
    "A": ("identities were hidden from the network", "hiding identities was attempted"),
    "T": ("a chain to a trust anchor", "a correct self-signature is enough"),
    "D": ("a matching record under DNSSEC", "a matching record under DNSSEC, or proof that there is none"),
    "R": ("a revocation list was checked and is clean", "a clean revocation list, or proof that there is none"),
    "E": (
        "certificate extensions as the service demands, critical where it says so",
        "certificate extensions as the service demands",
    ),
    "O": ("OCSP says good", "OCSP says good or unknown"),
    "G": ("listed in the directory of the domain", "listed in the directory of the domain, or proof that it is not"),
    "P": ("equals the pinned credential", "equals the pinned credential, or is pinned now"),
    "U": ("the identity carries a user name", "the identity carries a user name"),
    "S": ("we are the server, with a credential for servers only", "we are the server"),
    "C": ("we are the client, with a credential for clients only", "we are the client"),
    "Q": ("the key exchange resists a quantum computer", "the authentication resists a quantum computer"),
}


def meaning(letter: str) -> str:
    """What one letter, as written in an expression, stands for."""
    strict, lenient = MEANINGS.get(letter.upper(), ("a predicate of a plugin", "a predicate of a plugin, lenient"))
    return strict if letter.isupper() else lenient


@dataclass(frozen=True, slots=True)
class Established:
    """What became known of both forms of a letter, and why."""

    values: Mapping[str, bool]
    reason: str = ""


def _verdict(letter: str, verdict: Verdict, reason: str = "") -> Established:
    return Established(values_of(letter, verdict), reason)


# --- identity -----------------------------------------------------------------------------------------------------------------


def proven_identity(context: PeerContext) -> tuple[DoNAI | None, Verdict]:
    """The identity that counts, and how well it matches the wanted one.

    STRICT: it is the wanted one (or none was wanted, or the application accepts that a domain represents its user); LENIENT: it is
    the domain of the wanted user; FALSE: the peer proves none, or none that is wanted.
    """
    wanted, proven = context.wanted, context.identities
    if wanted is None:
        return (proven[0], Verdict.STRICT) if proven else (None, Verdict.FALSE)
    if wanted in proven:
        return wanted, Verdict.STRICT
    if wanted.user is not None and wanted.of_domain in proven:
        return wanted.of_domain, Verdict.STRICT if context.domain_represents_user else Verdict.LENIENT
    return None, Verdict.FALSE


def _identity(context: PeerContext) -> Established:
    _, verdict = proven_identity(context)
    if verdict is Verdict.STRICT:
        return _verdict("I", verdict)
    if not context.identities:
        return _verdict("I", verdict, "the peer proves no identity")
    shown = ", ".join(map(str, context.identities[:3])) + ("..." if len(context.identities) > 3 else "")
    return _verdict("I", verdict, f"the peer is {shown}, not {context.wanted}")


def _user(context: PeerContext) -> Established:
    identity, _ = proven_identity(context)
    has_user = identity is not None and identity.user is not None
    return _verdict("U", Verdict.STRICT if has_user else Verdict.FALSE, "" if has_user else "the peer's identity has no user name")


# --- the session --------------------------------------------------------------------------------------------------------------


def _forward_secrecy(context: PeerContext) -> Established:
    if context.facts.forward_secret:
        return _verdict("F", Verdict.STRICT)
    return _verdict("F", Verdict.FALSE, f"the key exchange {context.facts.key_exchange} has no forward secrecy")


def _hidden(context: PeerContext) -> Established:
    """TLS 1.3 encrypts credentials; the name in SNI is in the clear."""
    facts = context.facts
    if facts.version < _TLS13:
        return _verdict("A", Verdict.FALSE, "before TLS 1.3 credentials are shown to the network")
    if facts.key_exchange not in _HIDING_EXCHANGES:
        return _verdict("A", Verdict.FALSE, f"it is not known what {facts.key_exchange} shows to the network")
    if facts.server_name is not None:
        return _verdict("A", Verdict.LENIENT, "the server's name was sent in the clear")
    return _verdict("A", Verdict.STRICT)


def _role(letter: str, role: str, own: Role) -> Callable[[PeerContext], Established]:
    def establish(context: PeerContext) -> Established:
        if context.facts.role != role:
            return _verdict(letter, Verdict.FALSE, f"we are the {context.facts.role}")
        if context.own_roles != own:
            return _verdict(letter, Verdict.LENIENT, f"our credential is not one for the {role} only")
        return _verdict(letter, Verdict.STRICT)

    return establish


def _quantum(context: PeerContext) -> Established:
    facts = context.facts
    values = {"Q": facts.quantum_safe_exchange, "q": facts.quantum_safe_authentication}
    weak = [what for what, safe in (("key exchange", values["Q"]), ("authentication", values["q"])) if not safe]
    return Established(values, f"{' and '.join(weak)} would yield to a quantum computer" if weak else "")


# --- who answers --------------------------------------------------------------------------------------------------------------

Own = Callable[[PeerContext], Established]


class PredicateTable:
    """Who establishes which letter for which type of credential."""

    def __init__(
        self,
        plugin_predicates: Mapping[tuple[str, str | None], tuple[str, Predicate]],
        types: Mapping[str, CredentialType],
        *,
        strict: SecurityLevel = STRICT,
        lenient: SecurityLevel = LENIENT,
    ) -> None:
        """`plugin_predicates` and `types` as the registry has them: by letter and type (None: any), with the plugin's name.

        `strict` and `lenient` are the local policy's security levels, for L and l.
        """
        self._levels = (strict, lenient)
        self._plugins = plugin_predicates
        self._types = types
        self._own: Mapping[str, Own] = {
            "L": self._level,
            "I": _identity,
            "U": _user,
            "F": _forward_secrecy,
            "A": _hidden,
            "S": _role("S", "server", Role.SERVER),
            "C": _role("C", "client", Role.CLIENT),
            "Q": _quantum,
        }

    def own(self, letter: str) -> Own | None:
        """What the pool establishes itself. `letter` in upper case."""
        return self._own.get(letter)

    def plugin(self, letter: str, credential_type: str) -> tuple[str, Predicate] | None:
        """The plugin, and its predicate, for a letter in upper case; one for the type comes before one for all types."""
        return self._plugins.get((letter, credential_type)) or self._plugins.get((letter, None))

    def types(self) -> list[str]:
        """Names of the credential types that peers may show."""
        return sorted(self._types)

    def _level(self, context: PeerContext) -> Established:
        kind = self._types.get(context.credential_type)
        bits = kind.strength(context.peer) if kind is not None and context.peer is not None else None
        shown = context.peer is not None
        strict, lenient = (shortfall(level, context.facts, shown, bits) for level in self._levels)
        if lenient:  # which strict implies, also where they are configured the wrong way round
            return _verdict("L", Verdict.FALSE, lenient)
        return _verdict("L", Verdict.LENIENT if strict else Verdict.STRICT, strict)
