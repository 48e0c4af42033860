"""What would be demanded of a remote, said before any handshake.

Theory of operation
-------------------
The same `collect` that judges real peers is asked about a peer that has not shown anything yet.  What depends on the credential that
it will show cannot be known: expressions of trust records are listed as possible, and predicates are answered for each type.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigReader, Role
from tlspool_core.policy.demands import (
    DEFAULT_EXPRESSION,
    REMOTE_PREFIX,
    Demand,
    RemoteIdentity,
    Setting,
    collect,
    combined,
    spell_key,
)
from tlspool_core.policy.disclosure import disclosed
from tlspool_core.policy.predicates import PredicateTable, meaning

__all__ = ["Explanation", "PredicateLine", "explain"]


@dataclass(frozen=True, slots=True)
class PredicateLine:
    """One letter, what it means, and who establishes it for which type of credential ("": for any)."""

    letter: str
    meaning: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All of it; texts only, so that it can be printed and made into JSON."""

    local: str
    remote: str  # "" for anybody
    role: str
    mode: str
    expression: str
    demands: tuple[Demand, ...]
    possible: tuple[Demand, ...]  # further ones, depending on the remote's credential
    predicates: tuple[PredicateLine, ...]
    never: tuple[str, ...]  # letters that nothing installed can establish
    disclosed_by: str  # selector, "" if there is none
    disclosed: tuple[str, ...]


def explain(
    reader: ConfigReader,
    table: PredicateTable,
    *,
    local: DoNAI,
    remote: DoNAI | None,
    role: str,
    mode: RemoteIdentity = RemoteIdentity.REQUIRED,
    service: str = "",
    service_expression: str = "",
    default: str = DEFAULT_EXPRESSION,
) -> Explanation:
    """For us as `local` in `role` ("client" or "server"). Raises ConfigError or InvalidExpression."""
    peer_role = Role.SERVER if role == "client" else Role.CLIENT
    setting = Setting(local, remote, remote, mode, peer_role, "any", (), service, service_expression)
    demands = collect(reader, setting, default)
    expression = combined(demands)
    possible = _possible(reader, peer_role)
    letters = sorted(combined((*demands, *possible)).letters, key=lambda letter: (letter.upper(), letter))
    lines = tuple(PredicateLine(letter, meaning(letter), _answers(table, letter.upper())) for letter in letters)
    shown = disclosed(reader, remote) if remote is not None and role == "client" else None
    return Explanation(
        local=str(local),
        remote=str(remote or ""),
        role=role,
        mode=mode.value,
        expression=expression.text,
        demands=demands,
        possible=possible,
        predicates=lines,
        never=tuple(line.letter for line in lines if not line.answers),
        disclosed_by=shown[0] if shown else "",
        disclosed=tuple(map(str, shown[1])) if shown else (),
    )


def _possible(reader: ConfigReader, peer_role: Role) -> tuple[Demand, ...]:
    """Expressions of trust records: of those, the ones that the remote's credential leads to will be demanded, too."""
    return tuple(
        Demand(record.expression, f"trust record {spell_key(record.key)} ({record.type})")
        for record in reader.trusts()
        if record.expression and record.roles & peer_role and not record.key.startswith(REMOTE_PREFIX)
    )


def _answers(table: PredicateTable, letter: str) -> tuple[tuple[str, str], ...]:
    if table.own(letter) is not None:
        return (("", "the pool"),)
    found = [(kind, answer[0]) for kind in table.types() if (answer := table.plugin(letter, kind)) is not None]
    return tuple((kind, f"plugin {plugin}") for kind, plugin in found)
