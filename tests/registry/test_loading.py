"""Does one bad plugin, bad in whichever way, leave all others at work, and does the list say what is wrong with it?"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tlspool_core.registry import PluginState, PluginStatus, Registry, RequiredPluginMissing

Install = Callable[..., None]

GOOD = """
    from tlspool_core.api import Aaa, AaaDecision, hookimpl

    class Permit(Aaa):
        name = "NAME"
        async def authorize(self, request):
            return AaaDecision()

    @hookimpl
    def tlspool_register_aaa():
        return [Permit()]
"""


def good(name: str) -> str:
    return GOOD.replace("NAME", name)


def status(registry: Registry, name: str) -> PluginStatus:
    (found,) = [plugin for plugin in registry.plugins if plugin.name == name]
    return found


@pytest.fixture
def with_good(install: Install) -> Install:
    """A good plugin before and one behind the bad one, in the order of loading."""
    install("aa-first", good("first"), version="2.5")
    install("zz-last", good("last"))
    return install


def assert_only_bad_is_out(registry: Registry, reason: str) -> PluginStatus:
    assert sorted(registry.aaa) == ["first", "last"]
    bad = status(registry, "bad")
    assert bad.state is PluginState.FAILED
    assert reason in bad.reason
    assert bad.offers == ()
    return bad


def test_a_good_plugin_is_listed_with_version_and_what_it_offers(install: Install) -> None:
    install("tlspool-permit", good("permit"), key="permit", version="2.5")
    registry = Registry.load()
    assert registry.plugins == (
        PluginStatus("permit", "tlspool_permit", "tlspool-permit", "2.5", PluginState.LOADED, ("aaa permit",)),
    )
    assert registry.owner(registry.aaa["permit"]) == "permit"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import module_that_is_not_there", "raised ModuleNotFoundError: No module named 'module_that_is_not_there'"),
        ("def broken(:", "raised SyntaxError"),
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("", "has no hook"),
        (
            """
            from tlspool_core.api import hookimpl
            @hookimpl
            def tlspool_register_credential_type():
                return []
            """,
            "unknown hook tlspool_register_credential_type; did you mean tlspool_register_credential_types?",
        ),
        (
            """
            def tlspool_register_aaa():
                return []
            """,
            "tlspool_register_aaa that is not marked with @hookimpl",
        ),
        (
            """
            from tlspool_core.api import hookimpl
            @hookimpl
            def tlspool_register_aaa(surplus):
                return []
            """,
            "surplus",
        ),
        (
            """
            from tlspool_core.api import hookimpl
            @hookimpl
            def tlspool_register_aaa():
                raise RuntimeError("no licence file")
            """,
            "raised RuntimeError: no licence file",
        ),
        (
            """
            from tlspool_core.api import hookimpl
            @hookimpl
            def tlspool_register_aaa():
                return ["permit"]
            """,
            "must return objects of Aaa, not str",
        ),
        (
            """
            from tlspool_core.api import hookimpl
            @hookimpl
            def tlspool_register_aaa():
                return object()
            """,
            "must return a list, not object",
        ),
        (good("Not A Name"), "needs a name"),
        ("TLSPOOL_API = 2\n" + "", "is written for version 2 of the plugin API; this pool speaks 1"),
        ("TLSPOOL_API = 'new'\n", "version 'new'"),
        (
            """
            from tlspool_core.api import Finding, Predicate, Verdict, hookimpl
            class Identity(Predicate):
                letter = "I"
                def establish(self, context):
                    return Finding(Verdict.STRICT)
            @hookimpl
            def tlspool_register_predicates():
                return [Identity()]
            """,
            "predicate I, which the pool answers itself",
        ),
        (
            """
            from tlspool_core.api import Finding, Predicate, Verdict, hookimpl
            class Small(Predicate):
                letter = "g"
                def establish(self, context):
                    return Finding(Verdict.STRICT)
            @hookimpl
            def tlspool_register_predicates():
                return [Small()]
            """,
            "needs a letter from A to Z, not 'g'",
        ),
        (
            """
            from tlspool_core.api import hookimpl
            class Command:
                name = "serve"
                def command(self):
                    return None
            @hookimpl
            def tlspool_register_cli_commands():
                return [Command()]
            """,
            "command serve, which is the program's own",
        ),
    ],
)
def test_a_bad_plugin_is_quarantined(with_good: Install, source: str, reason: str) -> None:
    with_good("bad", source)
    assert_only_bad_is_out(Registry.load(reserved_commands=("serve",)), reason)


def test_the_list_shows_where_it_went_wrong(with_good: Install) -> None:
    with_good("bad", "import module_that_is_not_there")
    bad = assert_only_bad_is_out(Registry.load(), "ModuleNotFoundError")
    assert 'bad.py", line 1' in bad.trace


@pytest.mark.parametrize(
    "source",
    [
        "import tests_hang; tests_hang.gate.wait()",
        """
        from tlspool_core.api import hookimpl
        @hookimpl
        def tlspool_register_aaa():
            import tests_hang
            tests_hang.gate.wait()
            return []
        """,
    ],
    ids=["import", "hook"],
)
def test_a_hanging_plugin_is_left_behind(with_good: Install, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    held = types.ModuleType("tests_hang")
    held.gate = threading.Event()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests_hang", held)
    with_good("bad", source)
    try:
        bad = assert_only_bad_is_out(Registry.load(load_timeout=0.5), "did not load within 0.5 s")
        assert "gate.wait" in bad.trace
    finally:
        held.gate.set()  # type: ignore[attr-defined]


def test_the_second_plugin_of_a_name_is_refused(install: Install) -> None:
    install("one", good("permit"), key="permit")
    install("two", good("other"), key="permit")
    registry = Registry.load()
    first, second = registry.plugins
    assert (first.distribution, first.state) == ("one", PluginState.LOADED)
    assert (second.distribution, second.state) == ("two", PluginState.FAILED)
    assert second.reason == "has the name of another plugin, one, which was first"
    assert list(registry.aaa) == ["permit"]


def test_the_second_offer_of_a_name_takes_nothing_of_its_plugin(install: Install) -> None:
    install("one", good("permit"))
    install(
        "two",
        good("permit")
        + """
    from tlspool_core.api import Finding, Predicate, Verdict
    class Directory(Predicate):
        letter = "G"
        def establish(self, context):
            return Finding(Verdict.STRICT)
    @hookimpl
    def tlspool_register_predicates():
        return [Directory()]
""",
    )
    registry = Registry.load()
    assert status(registry, "two").reason == "offers the aaa permit, which one offers already"
    assert registry.predicates == {}


PREDICATE = """
    from tlspool_core.api import Finding, Predicate, Verdict, hookimpl
    class Directory(Predicate):
        letter = "G"
        types = TYPES
        def establish(self, context):
            return Finding(Verdict.STRICT)
    @hookimpl
    def tlspool_register_predicates():
        return [Directory()]
"""


def test_a_letter_has_one_answer_for_each_type(install: Install) -> None:
    install("a", PREDICATE.replace("TYPES", "None"))
    install("b", PREDICATE.replace("TYPES", "frozenset({'x509', 'openpgp'})"))
    install("c", PREDICATE.replace("TYPES", "frozenset({'x509'})"))
    registry = Registry.load()
    assert status(registry, "b").offers == ("predicate G for openpgp", "predicate G for x509")
    assert status(registry, "c").reason == "would answer for the predicate G, which b does for x509"
    assert {key: who for key, (who, _) in registry.predicates.items()} == {
        ("G", None): "a",
        ("G", "x509"): "b",
        ("G", "openpgp"): "b",
    }


def test_disabled_plugins_are_not_imported(install: Install) -> None:
    install("bad", "raise AssertionError('imported')")
    registry = Registry.load(disabled=("bad",))
    assert status(registry, "bad").state is PluginState.DISABLED


def test_required_plugins_that_fail_stop_the_start(with_good: Install) -> None:
    with_good("bad", "1 / 0")
    Registry.load(required=("aa-first", "zz-last"))
    with pytest.raises(RequiredPluginMissing, match=r"bad raised ZeroDivisionError.*nowhere is not installed"):
        Registry.load(required=("aa-first", "bad", "nowhere"))


def test_modules_named_by_configuration_are_loaded_too(install: Install) -> None:
    registry = Registry.load(modules=("tlspool_core.testing.toy_plugin", "no.such.module"))
    toy, missing = registry.plugins
    assert (toy.state, toy.distribution) == (PluginState.LOADED, "")
    assert "credential type toy" in toy.offers
    assert registry.engine_parts.certificate_forms[0].name == "Toy"
    assert registry.predicates["T", "toy"][0] == "tlspool_core.testing.toy_plugin"
    assert missing.state is PluginState.FAILED
