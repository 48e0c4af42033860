"""Bugs that HTTP proxies, STARTTLS tunnels and PROXY headers have had, as they would look here; each with a quick test that must catch it."""

from __future__ import annotations

from typing import Final

from tests.mutants.apply import Mutant

PROXY = "tlspool_core.tools.http_proxy"
TOOLS = "tlspool_core.tools"
REQUESTS, HOSTILE = "tests/proxy/test_requests.py", "tests/proxy/test_hostile.py"
STRANGERS, RULES = "tests/proxy/test_strangers.py", "tests/proxy/test_rules.py"
FUZZ = "tests/fuzz/test_fuzz.py::test_a_value_or_the_declared_error"
DIALOGUES = "tests/tools/test_dialogues.py"
REFUSED = f"{REQUESTS}::test_what_makes_no_sense_is_refused"


def _proxy(name: str, module: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, f"{PROXY}.{module}", old, new, tests)


TOOL_MUTANTS: Final[tuple[Mutant, ...]] = (
    # --- smuggling and injection
    _proxy(
        "a request may say its length in two ways", "wire",
        "    if coded and length:", "    if coded and not length and coded == length:", REFUSED,
    ),
    _proxy(
        "chunks in HTTP/1.0", "wire",
        '        if event.http_version == b"1.0" and values', '        if event.http_version == b"0.9" and values',
        f"{HOSTILE}::test_refused",
    ),
    _proxy(
        "control characters go on", "wire",
        "            if any(_CONTROL.search(value) for _, value in event.headers) or",
        "            if any(_CONTROL.search(value) for _, value in event.headers[:0]) or", f"{HOSTILE}::test_refused",
    ),
    _proxy(
        "fields for the hop go on", "wire",
        "    return [(name, value) for name, value in fields if name.lower() not in dropped]",
        "    return [(name, value) for name, value in fields if name.lower() not in dropped or name.lower().startswith(b\"proxy-\")]",
        f"{REQUESTS}::test_fields_for_the_hop_stay_here", f"{FUZZ}[proxy_requests]",
    ),
    _proxy(
        "the client's Host goes on", "forward",
        '_NOT_FOR_SITES = frozenset((b"host", b"via"))', '_NOT_FOR_SITES = frozenset((b"via",))', f"{FUZZ}[proxy_requests]",
    ),
    _proxy(
        "what a site says unasked answers the next request", "upstream",
        "        return self.target == target and self.party.silent", "        return self.target == target",
        f"{HOSTILE}::test_what_comes_unasked_later_answers_nothing",
    ),
    _proxy(
        "a length where there is no body", "forward",
        "framing(head.headers) if head.status_code != 204 else []", "framing(head.headers)",
        f"{HOSTILE}::test_an_answer_that_has_no_body_has_no_length", f"{FUZZ}[proxy_response]",
    ),
    _proxy(
        "a page has a body for HEAD", "conversation",
        '        if self._client.method != b"HEAD":', '        if self._client.method != b"head":', f"{FUZZ}[proxy_requests]",
    ),
    _proxy(
        "faults quote what came", "wire",
        '    return str(fault).partition(":")[0]', "    return str(fault)",
        f"{HOSTILE}::test_a_secret_is_neither_said_back_nor_logged",
    ),
    _proxy(
        "pages do not escape", "pages",
        "paragraphs = \"\\n\".join(f\"<p>{html.escape(text)}</p>\" for text in texts)",
        "paragraphs = \"\\n\".join(f\"<p>{text}</p>\" for text in texts)", f"{RULES}::test_a_page_escapes_what_comes_from_elsewhere",
    ),
    # --- who may, and where to
    _proxy(
        "whoever connects is served", "conversation",
        "if office.users is not None and (why", "if office.users == () and (why", f"{STRANGERS}::test_a_kernel_that_does_not_tell",
    ),
    Mutant(
        "a socket that nobody has any more is root's", f"{TOOLS}.whose",
        "return int(uid) if inode and state in _CONNECTED else None", "return int(uid)", (f"{STRANGERS}::test_the_kernel_tells",),
    ),
    _proxy(
        "any login will do", "conversation",
        "not hmac.compare_digest(word.strip(), self._office.login)", "not word", f"{REQUESTS}::test_who_does_not_log_in_gets_nothing",
    ),
    _proxy(
        "other sites have any port", "conversation",
        "        if target.port not in self._office.rules.ports:", "        if not target.port:", REFUSED,
    ),
    _proxy("relays reach devices beside us", "rules", "        or found.is_link_local\n", "", f"{RULES}::test_not_for_relays"),
    _proxy(
        "relays reach this machine by its address", "rules",
        "        or _is_ours(found)\n", "", f"{HOSTILE}::test_an_address_of_this_machine_is_not_for_relays",
    ),
    _proxy(
        "relays reach what a translated address hides", "rules",
        "        found = inner or found\n", "        found = found\n", f"{RULES}::test_not_for_relays",
    ),
    _proxy(
        "an end of a name is enough", "rules",
        'target.host.endswith(f".{self.name}")', "target.host.endswith(self.name)", f"{RULES}::test_a_pattern",
    ),
    _proxy(
        "an address may be written in any way", "rules",
        '    if text.startswith("[") or _NUMBERS.fullmatch(text):', '    if text.startswith("["):', f"{RULES}::test_no_target",
    ),
    _proxy(
        "its own pages are shown to whoever calls it by another name", "conversation",
        "        if target.port != ours.port or not", "        if target.port != ours.port and not", f"{HOSTILE}::test_refused",
    ),
    _proxy(
        "inside of TLS there are other sites", "conversation",
        "        if named != target:", "        if named.port != target.port:", f"{FUZZ}[proxy_requests]",
    ),
    # --- limits
    # --- dialogues before TLS
    Mutant(
        "plaintext behind STARTTLS counts", f"{TOOLS}.conversation",
        "        if self._held:\n            raise DialogueError(f\"plaintext",
        "        if self._held == b\"eve\":\n            raise DialogueError(f\"plaintext",
        (DIALOGUES,),
    ),
    Mutant(
        "a server's greeting in plaintext reaches the application", f"{TOOLS}.starttls_client",
        '    await _smtp_reply(talk, b"220")\n    await talk.say(f"EHLO',
        '    name = str((await _smtp_reply(talk, b"220"))[-1])\n    await talk.say(f"EHLO',
        (f"{FUZZ}[starttls_servers]",),
    ),
    Mutant(
        "a server that has let somebody in already may begin TLS", f"{TOOLS}.starttls_client",
        '    if not greeting.upper().startswith(b"* OK"):', '    if not greeting.upper().startswith(b"* "):', (DIALOGUES,),
    ),
    Mutant(
        "a dialogue may be as long as it likes", f"{TOOLS}.conversation",
        "        if self._lines > LINES:", "        if self._lines < 0:", (DIALOGUES,),
    ),
    Mutant(
        "an identity counts that was not verified", "tlspool_core.client.proxy_header",
        "    if remoteid and not verified:", "    if remoteid and not secure:", ("tests/client/test_proxy_header.py",),
    ),
)  # fmt: skip

# without a bug the tests pass
TOOL_CONTROL: Final = _proxy(
    "no bug in tools", "rules", "The text names no host and port.", "No host and port.", RULES, DIALOGUES, f"{FUZZ}[proxy_requests]"
)
