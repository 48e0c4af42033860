"""Is a peer accepted exactly if the demands hold, with no predicate asked in vain, and does a refusal say who decided?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import ConfigError, Finding, LocalIdentity, PeerContext, Predicate, Role, TrustRecord, Verdict
from tlspool_core.policy.demands import RemoteIdentity, remote_key
from tlspool_core.policy.judge import MAX_REASON, Judge, Judgement, PeerRefused
from tlspool_core.policy.predicates import PredicateTable
from tlspool_core.registry import Guard
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.policy import Fake, Kind, by_letter

REQUIRED, REQUESTED, IGNORED = RemoteIdentity.REQUIRED, RemoteIdentity.REQUESTED, RemoteIdentity.IGNORED
JOHN = DoNAI.parse("john@example.org")


def judge(
    context: PeerContext,
    predicates: Sequence[Predicate],
    mode: RemoteIdentity = REQUIRED,
    *,
    expression: str = "",
    kind: Kind | None = None,
    time_limit: float = 5.0,
    services: dict[str, str] | None = None,
) -> Judgement:
    """Judge with the expression as the local identity's."""
    kind = kind or Kind()
    if expression:
        with context.config.write() as writer:
            writer.put_localid(LocalIdentity(JOHN, expression=expression))
    table = PredicateTable(by_letter(predicates), {"toy": kind})

    async def run() -> Judgement:
        asked = Judge(table, Guard(time_limit), time_limit=time_limit, services=services)
        return await asked.judge(context, mode, kind if context.peer is not None else None)

    return asyncio.run(run())


def refused(*arguments: Any, **options: Any) -> PeerRefused:
    with pytest.raises(PeerRefused) as caught:
        judge(*arguments, **options)
    return caught.value


# --- the default --------------------------------------------------------------------------------------------------------------


def test_by_default_chain_and_identity_are_demanded(context: PeerContext) -> None:
    judgement = judge(context, [Fake("T")])
    assert judgement.identity == DoNAI.parse("www.example.com")
    assert "TI& of the default" in judgement.explanation


def test_without_a_chain_the_default_refuses_and_says_so(context: PeerContext) -> None:
    refusal = refused(context, [Fake("T", Verdict.FALSE, reason="the issuer is not known here")])
    assert str(refusal) == "policy demands T: the issuer is not known here"


def test_a_wrong_name_is_refused_before_anything_costly_is_asked(context: PeerContext) -> None:
    chain = Fake("T")
    refusal = refused(replace(context, identities=(DoNAI.parse("evil.example"),)), [chain])
    assert str(refusal) == "policy demands I: the peer is evil.example, not www.example.com"
    assert chain.asked == []


def test_a_self_signed_peer_does_not_pass_the_default(context: PeerContext) -> None:
    refused(context, [Fake("T", Verdict.LENIENT, reason="self-signed")])


def test_a_predicate_that_no_plugin_establishes_is_not_fulfilled(context: PeerContext) -> None:
    assert str(refused(context, [])) == "policy demands T: no installed plugin establishes it for type toy"


# --- required, requested, ignored ---------------------------------------------------------------------------------------------


def test_a_required_identity_must_be_shown(context: PeerContext) -> None:
    nobody = replace(context, peer=None, identities=(), wanted=None, credential_type="")
    assert "required" in str(refused(nobody, [Fake("T")], REQUIRED))
    assert judge(nobody, [], REQUESTED).identity is None
    assert judge(nobody, [], IGNORED).identity is None


def test_a_required_identity_must_be_proven_even_if_the_policy_demands_nothing(context: PeerContext) -> None:
    nameless = replace(context, identities=(), wanted=None)
    assert str(refused(nameless, [], REQUIRED, expression="1")) == "the remote proves no identity, and one is required"


def test_a_requested_identity_that_is_shown_must_hold(context: PeerContext) -> None:
    refused(context, [Fake("T", Verdict.FALSE)], REQUESTED)
    assert judge(context, [Fake("T")], REQUESTED).identity == context.wanted


def test_an_ignored_identity_is_not_told_and_not_asked_for(context: PeerContext) -> None:
    chain = Fake("T", Verdict.FALSE)
    assert judge(replace(context, identities=(DoNAI.parse("evil.example"),)), [chain], IGNORED).identity is None
    assert chain.asked == []


def test_what_the_administrator_configured_holds_for_ignored_identities_too(context: PeerContext) -> None:
    refused(context, [Fake("T", Verdict.FALSE)], IGNORED, expression="T")


@pytest.mark.parametrize("expression", ["1", "T", "TF&", "P"])
def test_the_wanted_remote_must_be_proven_whatever_the_databases_say(context: PeerContext, expression: str) -> None:
    other = replace(context, identities=(DoNAI.parse("evil.example"),))
    assert "not www.example.com" in str(refused(other, [Fake("T"), Fake("P")], expression=expression))
    refused(other, [Fake("T"), Fake("P")], REQUESTED, expression=expression)


# --- domains that speak for users ---------------------------------------------------------------------------------------------


@pytest.fixture
def for_mary(context: PeerContext) -> PeerContext:
    """mary@example.com is wanted, and her domain answers."""
    return replace(context, wanted=DoNAI.parse("mary@example.com"), identities=(DoNAI.parse("example.com"),))


def test_a_domain_does_not_speak_for_its_users_by_default(for_mary: PeerContext) -> None:
    assert "not mary@example.com" in str(refused(for_mary, [Fake("T")]))
    refused(for_mary, [Fake("T")], expression="T")


def test_a_domain_speaks_for_its_users_if_the_application_or_the_policy_says_so(for_mary: PeerContext) -> None:
    example = DoNAI.parse("example.com")
    assert judge(replace(for_mary, domain_represents_user=True), [Fake("T")]).identity == example
    assert judge(for_mary, [Fake("T")], expression="Ti&").identity == example


def test_a_user_never_speaks_for_the_domain(context: PeerContext) -> None:
    user = replace(
        context, wanted=DoNAI.parse("example.com"), identities=(DoNAI.parse("mary@example.com"),), domain_represents_user=True
    )
    refused(user, [Fake("T")], expression="Ti&")


def test_a_parent_domain_speaks_for_nobody(for_mary: PeerContext) -> None:
    refused(replace(for_mary, wanted=DoNAI.parse("mary@mail.example.com"), domain_represents_user=True), [Fake("T")])


def test_without_a_wish_the_most_specific_identity_is_returned(context: PeerContext) -> None:
    several = replace(context, wanted=None, identities=(DoNAI.parse("mary@example.com"), DoNAI.parse("example.com")))
    assert judge(several, [Fake("T")]).identity == DoNAI.parse("mary@example.com")


# --- where demands come from --------------------------------------------------------------------------------------------------


def test_all_origins_are_joined(context: PeerContext, databases: MemoryBackend) -> None:
    with databases.write() as writer:
        writer.put_trust(TrustRecord(remote_key(Selector.parse(".example.com")), "", expression="D"))
        writer.put_trust(TrustRecord(remote_key(Selector.parse(".com")), "", expression="0"))
        writer.put_trust(TrustRecord(b"anchor", "toy", expression="R"))
        writer.put_trust(TrustRecord(b"anchor", "other", expression="0"))
        writer.put_trust(TrustRecord(b"clients", "toy", Role.CLIENT, expression="0"))
    predicates = [Fake("T"), Fake("D"), Fake("R"), Fake("O")]
    judgement = judge(
        context, predicates, expression="T", kind=Kind(keys=(b"anchor", b"clients")), services={"http": "O", "smtp": "0"}
    )
    assert judgement.explanation.startswith(
        "demanded: T of local identity john@example.org, O of service http, D of remote selector .example.com, "
        f"R of trust record {b'anchor'.hex()}, I of the application, which asked for www.example.com; found: "
    )
    for predicate in predicates:
        predicates_left = [Fake(other.letter, Verdict.FALSE if other is predicate else Verdict.STRICT) for other in predicates]
        refusal = refused(context, predicates_left, kind=Kind(keys=(b"anchor",)), services={"http": "O"})
        assert str(refusal).startswith(f"policy demands {predicate.letter}:")


def test_a_configured_expression_replaces_the_default(context: PeerContext) -> None:
    chain = Fake("T")
    judge(context, [chain, Fake("P")], expression="P")
    assert chain.asked == []


def test_a_broken_expression_in_a_database_refuses(context: PeerContext) -> None:
    assert str(refused(context, [Fake("T")], expression="T&")) == "the policy for this session cannot be read"


def test_a_database_that_cannot_be_read_refuses(context: PeerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ConfigError("gone")

    monkeypatch.setattr(context.config, "read", fail)
    assert "cannot be read" in str(refused(context, [Fake("T")]))


def test_a_credential_type_that_fails_refuses(context: PeerContext) -> None:
    kind = Kind()
    kind.trust_keys = lambda peer: 1 / 0  # type: ignore[assignment]
    assert "cannot be found" in str(refused(context, [Fake("T")], kind=kind))


# --- how predicates are asked -------------------------------------------------------------------------------------------------


def test_only_what_can_matter_is_asked_cheapest_first(context: PeerContext) -> None:
    order: list[str] = []

    def fake(letter: str, price: int, verdict: Verdict = Verdict.STRICT) -> Fake:
        def say() -> Finding:
            order.append(letter)
            return Finding(verdict)

        return Fake(letter, say, price)

    predicates = [fake("T", 1), fake("D", 2), fake("P", 0, Verdict.FALSE), fake("G", 2), fake("R", 1)]
    judge(context, predicates, expression="TPRDG|&|&")
    assert order[0] == "P"
    assert set(order[1:3]) == {"T", "R"}
    assert set(order[3:]) <= {"D", "G"}


def test_an_alternative_that_holds_spares_the_costly_one(context: PeerContext) -> None:
    costly = Fake("D", price=2)
    judge(context, [Fake("P", price=0), costly], expression="PD|")
    assert costly.asked == []


def test_lenient_and_strict_form_are_one_question(context: PeerContext) -> None:
    chain = Fake("T", Verdict.LENIENT)
    judge(context, [chain, Fake("P")], expression="TP|t&")
    assert len(chain.asked) == 1


def test_those_of_equal_cost_run_side_by_side(context: PeerContext) -> None:
    both = threading.Barrier(2, timeout=5)

    def meet() -> Finding:
        both.wait()
        return Finding(Verdict.STRICT)

    judge(context, [Fake("D", meet, 2), Fake("G", meet, 2)], expression="DG&")


def test_the_rest_is_called_off_once_the_outcome_is_known(context: PeerContext) -> None:
    cancelled: list[str] = []

    class Slow(Predicate):
        letter = "D"

        async def establish(self, context: PeerContext) -> Finding:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append("D")
                raise
            return Finding(Verdict.STRICT)

    judge(context, [Slow(), Fake("G", Verdict.STRICT, 1)], expression="DG|", time_limit=30)
    assert cancelled == ["D"]


@pytest.mark.parametrize("price", [0, 1, 2])
@pytest.mark.parametrize(
    "answer", [lambda: 1 / 0, lambda: None, lambda: True, lambda: Verdict.STRICT], ids=["raises", "none", "true", "verdict"]
)
def test_a_plugin_that_fails_establishes_nothing(context: PeerContext, price: int, answer: Any) -> None:
    assert str(refused(context, [Fake("T", answer, price)])) == "policy demands T: the plugin plugin-T failed"
    refused(context, [Fake("T", answer, price)], expression="T~")  # nor does its failure prove the contrary


def test_a_plugin_that_hangs_is_not_waited_for(context: PeerContext) -> None:
    gate = threading.Event()
    try:
        refusal = refused(context, [Fake("T", gate.wait)], time_limit=0.1)
    finally:
        gate.set()
    assert "in time" in str(refusal)


def test_an_alternative_makes_up_for_a_plugin_that_fails(context: PeerContext) -> None:
    judge(context, [Fake("D", lambda: 1 / 0, 1), Fake("G", Verdict.STRICT, 2)], expression="DG|")


def test_no_plugin_is_asked_about_a_peer_that_showed_nothing(context: PeerContext) -> None:
    chain = Fake("T")
    nobody = replace(context, peer=None, identities=(), wanted=None, credential_type="")
    assert str(refused(nobody, [chain], REQUESTED, expression="T")) == "policy demands T: the remote showed no credential"
    judge(nobody, [chain], REQUESTED, expression="T~F&")
    assert chain.asked == []


# --- effects of acceptance ----------------------------------------------------------------------------------------------------


def pinning(effect: Any) -> Fake:
    return Fake("P", lambda: Finding(Verdict.LENIENT, on_accept=effect), 0)


def test_an_effect_takes_place_only_if_the_peer_is_accepted(context: PeerContext) -> None:
    pins: list[str] = []
    refused(context, [pinning(lambda: pins.append("refused")), Fake("T", Verdict.FALSE)], expression="pT&")
    refused(replace(context, wanted=None, identities=()), [pinning(lambda: pins.append("nameless"))], expression="p")
    assert pins == []
    judge(context, [pinning(lambda: pins.append("accepted")), Fake("T")], expression="pT&")
    assert pins == ["accepted"]


def test_an_effect_that_fails_refuses(context: PeerContext) -> None:
    refusal = refused(context, [pinning(lambda: 1 / 0)], expression="p")
    assert str(refusal) == "the plugin plugin-P could not take note of the peer"


# --- words --------------------------------------------------------------------------------------------------------------------


def test_what_the_policy_forbids_is_named(context: PeerContext) -> None:
    assert str(refused(context, [Fake("P")], expression="P~")) == "policy demands not P: holds, which the policy forbids"


def test_a_policy_that_nobody_can_fulfil_is_named(context: PeerContext) -> None:
    assert str(refused(context, [], expression="0")) == "no peer can fulfil the policy 0I&"


def test_the_reason_fits_into_the_socket_protocol(context: PeerContext) -> None:
    refusal = refused(context, [Fake("T", Verdict.FALSE, reason="x" * 500)])
    assert len(str(refusal)) == MAX_REASON
    assert "x" * 500 in refusal.explanation


def test_the_explanation_names_all_findings(context: PeerContext) -> None:
    refusal = refused(context, [Fake("T"), Fake("R", Verdict.FALSE, reason="revoked"), Fake("D", price=2)], expression="TR&D&")
    assert refusal.explanation == (
        "demanded: TR&D& of local identity john@example.org, I of the application, which asked for www.example.com; "
        "found: D is unknown (not asked), I holds, R does not hold (revoked), T holds"
    )


# --- what is kept -------------------------------------------------------------------------------------------------------------


def test_a_change_of_the_databases_counts_for_the_next_peer(context: PeerContext) -> None:
    """One judge for many peers keeps what is demanded, and must not keep it a moment too long."""
    outcomes = []
    databases = context.config
    selector = TrustRecord(remote_key(Selector.parse(".example.com")), "", Role.BOTH, expression="P")

    async def run() -> None:
        table = PredicateTable(by_letter([Fake("T"), Fake("P", Verdict.FALSE)]), {"toy": Kind()})
        asked = Judge(table, Guard(), time_limit=5.0)

        async def once() -> None:
            try:
                await asked.judge(context, REQUIRED, Kind())
            except PeerRefused as refusal:
                outcomes.append(str(refusal).partition(":")[0])
            else:
                outcomes.append("accepted")

        await once()
        await once()
        with databases.write() as writer:
            writer.put_trust(selector)
        await once()
        with databases.write() as writer:
            writer.delete_trust(selector.key)
            writer.put_localid(LocalIdentity(JOHN, expression="0"))
        await once()
        with databases.write() as writer:
            writer.delete_localid(JOHN)
        await once()

    asyncio.run(run())
    assert outcomes == ["accepted", "accepted", "policy demands P", "no peer can fulfil the policy 0I&", "accepted"]


def test_what_is_kept_has_a_limit(context: PeerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers choose part of what it is kept under: with more of them than are kept, each still gets its own policy."""
    monkeypatch.setattr("tlspool_core.policy.judge._MAX_KEPT", 3)
    with context.config.write() as writer:
        writer.put_trust(TrustRecord(remote_key(Selector.parse("p5.example")), "", Role.BOTH, expression="0"))
    asked = Judge(PredicateTable(by_letter([Fake("T")]), {"toy": Kind()}), Guard(), time_limit=5.0)
    outcomes = []

    async def run() -> None:
        for number in [*range(8), *range(8)]:
            peer = DoNAI(f"p{number}.example")
            try:
                await asked.judge(replace(context, wanted=peer, identities=(peer,)), REQUIRED, Kind())
            except PeerRefused:
                outcomes.append(number)

    asyncio.run(run())
    assert outcomes == [5, 5]
    assert len(asked._kept) <= 3
