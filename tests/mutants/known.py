"""Bugs that TLS stacks have had, as they would look here; each with a quick test that must catch it. Tools' are in `known_tools`."""

from __future__ import annotations

from typing import Final

from tests.mutants.apply import Mutant
from tests.mutants.known_tools import TOOL_CONTROL, TOOL_MUTANTS

TLS = "tlspool_core.tls"
T13, T12 = "tests/tls", "tests/tls/tls12"
ORDER = f"{T13}/test_message_order13.py"
STRICT = f"{T12}/test_strictness12.py"
LIARS = "tests/robustness/test_consistent_liars.py"
RECORD = f"{T13}/test_record.py"
SYMMETRIC = "tests/robustness/test_symmetric_hostile.py"
HANDSHAKES = "tests/robustness/test_mutated_handshakes.py"

FINISHED: Final = "    if not hmac.compare_digest(finished.verify_data, expected):"
UNCHECKED: Final = "    if len(finished.verify_data) != len(expected):"


def _tls(name: str, module: str, old: str, new: str, *tests: str) -> Mutant:
    return Mutant(name, f"{TLS}.{module}", old, new, tests)


MUTANTS: tuple[Mutant, ...] = (
    # --- proofs that are not looked at
    _tls("finished of a TLS 1.3 server unchecked", "tls13.client", FINISHED, UNCHECKED, f"{ORDER}::test_flipped_proof"),
    _tls("finished of a TLS 1.3 client unchecked", "tls13.server", FINISHED, UNCHECKED, f"{ORDER}::test_flipped_proof"),
    _tls("finished of a TLS 1.2 server unchecked", "tls12.client", FINISHED, UNCHECKED, f"{STRICT}::test_a_wrong_finished"),
    _tls("finished of a TLS 1.2 client unchecked", "tls12.server", FINISHED, UNCHECKED, f"{STRICT}::test_a_wrong_finished"),
    _tls(
        "signature of CertificateVerify unchecked in TLS 1.3", "tls13.authentication",
        "        lambda: peer.verify(verify.algorithm, content, verify.signature),", "        lambda: None,",
        f"{LIARS}::test_a_server_without_the_key_of_its_certificate",
    ),
    _tls(
        "signatures unchecked in TLS 1.2", "tls12.authentication",
        "lambda: peer.verify(scheme, content, signature)", "lambda: None",
        f"{STRICT}::test_server_parameters_are_signed", f"{STRICT}::test_client_proof_is_verified",
    ),
    _tls(
        "CertificateVerify may be left out in TLS 1.2", "tls12.server",
        "    proof = await read_proof(hs, peer)\n",
        "    if await hs.next_type() != 15:\n        return await hs.judge(peer)\n    proof = await read_proof(hs, peer)\n",
        f"{HANDSHAKES}::test_dropped",
    ),
    _tls(
        "CertificateVerify may be left out in TLS 1.3", "tls13.authentication",
        "    verify = await hs.read(CertificateVerify)\n",
        "    if await hs.next_type() == 20:\n        return peer\n    verify = await hs.read(CertificateVerify)\n",
        f"{HANDSHAKES}::test_dropped",
    ),
    _tls(
        "the scheme of a signature need not have been offered", "tls13.authentication",
        "    if verify.algorithm not in expecting.schemes:", "    if not verify.algorithm:",
        f"{LIARS}::test_a_valid_signature_by_a_scheme_that_was_not_offered",
    ),
    _tls(
        "binder unchecked", "tls13.resumption",
        "    if not hmac.compare_digest(psks.binders[selected.index], expected):", "    if not expected:",
        f"{T13}/test_resumption13.py::test_wrong_binder",
    ),
    _tls(
        "a hello by our own name is another's", "tls13.resumption",
        "    if imported.names.client == hs.settings.psk_name:", "    if not imported.external:",
        f"{T13}/test_external_psk.py::test_our_own_hello_sent_back",
    ),
    _tls(
        "raw keys are taken unasked", "tls13.resumption",
        "if hs.settings.takes_raw_psks else None", "if identity else None",
        f"{T13}/test_external_psk.py::test_raw_keys_only_where_they_are_allowed",
    ),
    _tls(
        "an imported key does not depend on the names", "tls13.external_psk",
        "context = vector8(self.names.client) + vector8(self.names.server)", "context = b\"\\1c\\1s\"",
        f"{T13}/test_external_psk.py::test_derivation_by_another_hand",
    ),
    _tls(
        "padding beyond what the peer takes", "padding",
        "return max(0, min(padded, limit) - length)", "return max(0, padded - length)",
        f"{T13}/test_padding13.py::test_padded_records_open_and_stay_within_the_limit",
    ),
    _tls(
        "the batch leaves padding out", "bulk",
        "    if records.padding is not None and records.padding.data:", "    if records.padding is not None and records.padding.data < -1:",
        f"{T13}/test_padding13.py::test_the_batch_pads_as_the_records_do",
    ),
    _tls(
        "a server may leave out its certificate", "tls13.client",
        "    if agreed.plugin_key and await hs.next_type()", "    if await hs.next_type()",
        f"{LIARS}::test_a_server_that_shows_nothing",
    ),
    _tls(
        "a client may show no certificate where one is required", "tls13.server",
        "        elif plan.choice.client_auth is ClientAuth.REQUIRE:\n            raise CertificateRequired(",
        "        elif plan.alpn == b\"never\":\n            raise CertificateRequired(",
        f"{T13}/test_extensions13.py::test_a_client_without_certificate",
    ),
    _tls(
        "the same in TLS 1.2", "tls12.server",
        "plan.choice.client_auth is ClientAuth.REQUIRE or terms.suite", "terms.suite",
        f"{STRICT}::test_client_without_the_certificate_that_is_required",
    ),
    _tls(
        "a resumed session is not judged again", "tls13.server",
        "    if hs.judged:\n        return\n", "    if hs.judged or plan.key is not None:\n        return\n",
        f"{T13}/test_resumption13.py::test_a_resumed_session_can_be_refused",
    ),
    # --- order
    _tls(
        "an early ChangeCipherSpec is passed over", "handshake",
        "        while (item := self._take()) is None:\n            await more_input()\n        message = ",
        "        while (item := self._take()) is None or item[0] == 20:\n            if item is None:\n                await more_input()\n"
        "        message = ",
        f"{STRICT}::test_change_cipher_spec_too_early",
    ),
    _tls(
        "handshake bytes may span a change of keys", "channel",
        "    def check_boundary(self) -> None:\n", "    def check_boundary(self) -> None:\n        return\n",
        f"{ORDER}::test_no_handshake_bytes_across_a_key_change",
    ),
    _tls(
        "a message of any type is taken for what is expected", "handshake",
        "            if kind.handshake_type == raw[0]:", "            if kind.handshake_type == raw[0] or raw[0] == 0:",
        f"{ORDER}::test_stray_message_before",
    ),
    _tls(
        "a second HelloRetryRequest is followed", "tls13.client",
        "    if hello.is_hello_retry_request:\n        raise", "    if hello.legacy_version == 0:\n        raise",
        f"{LIARS}::test_a_second_hello_retry_request",
    ),
    _tls(
        "alerts may stand inside of a handshake message", "channel",
        "            if self._partial:\n                raise InterleavedRecord",
        "            if len(self._partial) > 65535:\n                raise InterleavedRecord",
        RECORD,
    ),
    # --- what was not offered
    _tls(
        "the downgrade sentinel is not looked at", "client",
        "    if TLS13 in settings.versions and hello.random", "    if TLS13 not in settings.versions and hello.random",
        f"{T13}/test_negotiation13.py::test_downgrade_sentinel", f"{STRICT}::test_client_of_both_versions_refuses_either_sentinel",
    ),
    _tls(
        "the downgrade sentinel is not sent", "tls12.server",
        "plan.random[:24] + DOWNGRADE_TO_12", "plan.random",
        f"{STRICT}::test_client_sees_the_downgrade", f"{T13}/test_negotiation13.py::test_downgrade_sentinel",
    ),
    _tls(
        "TLS_FALLBACK_SCSV means nothing", "server",
        "    if highest < max(settings.versions):", "    if highest < 0:",
        f"{T13}/test_negotiation13.py::test_bad_client_hello", STRICT,
    ),
    _tls(
        "a cipher suite need not have been offered", "tls13.client",
        " or suite.code not in offer.hello.cipher_suites:", ":", f"{T13}/test_negotiation13.py::test_bad_server_hello",
    ),
    _tls(
        "the session identifier need not be echoed", "tls13.client",
        "    if hello.legacy_session_id_echo != offer.hello.legacy_session_id:", "    if not offer.hello.cipher_suites:",
        f"{T13}/test_negotiation13.py::test_bad_server_hello",
    ),
    _tls(
        "the selected protocol need not have been offered", "tls13.client",
        "    if alpn is not None and alpn not in settings.alpn:", "    if alpn == b\"\":", f"{T13}/test_extensions13.py",
    ),
    _tls(
        "the selected PSK need not have been offered", "tls13.client",
        "    if index >= len(offer.psks):\n        raise UnofferedChoice(f\"PSK number {index}\")\n",
        "    index = min(index, len(offer.psks) - 1)\n",
        f"{LIARS}::test_a_psk_that_was_not_offered",
    ),
    # --- parsing
    _tls(
        "duplicate extensions are taken", "messages",
        "        if code in found:",
        "        if code in found and code == 0xFFFF:", f"{T13}/test_extension_placement.py::test_duplicates",
    ),
    _tls(
        "extensions may come without having been offered", "extensions",
        "            if not is_open and code not in offered and (place, code) not in _UNSOLICITED:",
        "            if code == 0xFFFF:",
        f"{T13}/test_extension_placement.py::test_answers_without_an_offer",
    ),
    _tls(
        "bytes may follow a structure", "codec",
        "        if self._pos != self._end:", "        if self._pos > self._end:", f"{ORDER}::test_trailing_byte",
    ),
    _tls(
        "a length may reach beyond its message", "codec",
        "        if end > self._end:\n            raise TruncatedMessage(f\"{length}",
        "        if end > len(self._data):\n            raise TruncatedMessage(f\"{length}",
        f"{LIARS}::test_a_length_reaches_no_further_than_what_it_stands_in",
    ),
    # --- secrets
    _tls(
        "extended master secret may be missing", "tls12.server_answer",
        "        elif settings.require_extended_master_secret and not self.extended:", "        elif self.suite.code == 0:",
        f"{T12}/test_resumption12.py", f"{STRICT}::test_server_hello_refused",
    ),
    _tls(
        "a resumption may drop the extended master secret", "tls12.server_answer",
        "        if session.extended_master_secret != self.extended:", "        if self.suite.code == 0:",
        f"{T12}/test_resumption12.py::test_server_that_drops_the_extended_master_secret",
    ),
    _tls(
        "padding before MAC", "protection",
        "        if not hmac.compare_digest(self._tag(header[0], body), tag):", "        if not tag:", RECORD,
    ),
    # --- limits
    _tls(
        "KeyUpdates without end", "tls13.post_handshake",
        "        if self._key_updates > MAX_KEY_UPDATES:", "        if self._key_updates < 0:",
        f"{T13}/test_connection.py::test_flood_of_key_updates",
    ),
    _tls(
        "empty records without end", "record",
        "        if self._empty_run > MAX_EMPTY_RECORDS:", "        if self._empty_run < 0:", RECORD,
    ),
    _tls(
        "warnings without end", "channel",
        "                if self._warnings > MAX_WARNINGS:", "                if self._warnings < 0:",
        f"{T13}/test_connection.py::test_flood_of_warnings",
    ),
    _tls(
        "a certificate may unpack to any length", "tls13.authentication",
        "    if message.uncompressed_length > limit:", "    if message.uncompressed_length < 0:",
        f"{LIARS}::test_a_certificate_that_unpacks_beyond_the_limit",
    ),
    _tls(
        "the end of the transport is as good as close_notify", "connection",
        "            self._fail(Truncated(\"end of the transport without close_notify\"))",
        "            self._channel.peer_closed = True",
        f"{T13}/test_connection.py::test_truncation",
    ),
    _tls(
        "a ticket is good for any server name", "tls13.resumption",
        "        and state.server_name == hs.fact(\"server_name\")\n", "",
        f"{T13}/test_resumption13.py::test_another_server_name_is_another_session",
    ),
    _tls(
        "a ticket is good for ever", "tls13.resumption",
        "        and state.fresh(hs.now())\n",
        "", f"{T13}/test_resumption13.py::test_an_expired_ticket_is_neither_offered_nor_taken",
    ),
    # --- ends that find out their role
    _tls(
        "a hello that was dropped need not be the one that came", "symmetry",
        "        if not hmac.compare_digest(dropped, hash_of_hello(self.lost)):", "        if not dropped:",
        f"{SYMMETRIC}::test_any_bit_of_the_dropped_hello",
    ),
    _tls(
        "a server need not say what it dropped", "symmetry",
        "        if dropped is None and self.lost is None:", "        if dropped is None:",
        f"{SYMMETRIC}::test_a_dropped_hello_out_of_nothing",
    ),
    _tls(
        "a hello of our own is met like another's", "symmetry",
        "    if ours.tie_break == theirs.tie_break:", "    if not ours.tie_break:",
        f"{SYMMETRIC}::test_our_tie_break_comes_back_in_another_hello",
    ),
    # --- policy and plugins
    Mutant(
        "any certificate names any server", "tlspool_x509.names",
        "    def name(self, wanted: DoNAI, *, user_case_counts: bool = False) -> bool:\n",
        "    def name(self, wanted: DoNAI, *, user_case_counts: bool = False) -> bool:\n        return True\n",
        ("plugins/x509/tests/test_identities.py",),
    ),
    Mutant(
        "a plugin that fails establishes what it was asked", "tlspool_core.policy.judge",
        '            log.exception("plugin %s failed to establish predicate %s", asked.plugin, asked.letter)\n'
        "            return Established({},",
        '            log.exception("plugin %s failed to establish predicate %s", asked.plugin, asked.letter)\n'
        "            return Established(values_of(asked.letter, Verdict.TRUE),",
        ("tests/policy/test_judge.py",),
    ),
    Mutant(
        "what nobody could find out holds", "tlspool_core.policy.judge",
        "        finally:\n            self._call_off()\n        return self._expression.outcome(self._known) is True",
        "        finally:\n            self._call_off()\n        return self._expression.outcome(self._known) is not False",
        ("tests/policy/test_judge.py",),
    ),
    Mutant(
        "a record of the database is not held against its checksum", "tlspool_lmdb.records",
        "    if zlib.crc32(record[_HEAD.size :]) != checksum:", "    if checksum < 0:", ("plugins/lmdb/tests/test_records.py",),
    ),
    *TOOL_MUTANTS,
)  # fmt: skip

# what a mutant is without a bug: the tests pass
CONTROLS: Final = (
    TOOL_CONTROL,
    _tls("no bug at all", "codec", "A cursor over one slice of bytes.", "A cursor.", ORDER, LIARS, STRICT, RECORD),
)
