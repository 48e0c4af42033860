"""The command line of BoringSSL's test runner, as far as the engine's features reach.

Theory of operation
-------------------
The runner describes each test to the program under test (the shim) in flags.  A flag may begin with `-on-initial-`, `-on-resume-` or
`-on-retry-`, and then counts for that connection only.  A flag that is not in the tables is for a feature that the engine does not
have; the shim then ends with status 89, which the runner counts as "unimplemented".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

UNIMPLEMENTED = 89


class Unimplemented(Exception):
    """The test needs something that the engine does not offer."""


@dataclass
class Flags:
    """What one connection of a test should do and expect; names are those of the runner's flags."""

    port: int = 0
    shim_id: int = -1
    ipv6: bool = False
    resume_count: int = 0
    server: bool = False
    key_file: str = ""
    cert_file: str = ""
    min_version: int = 0
    max_version: int = 0
    no_tls13: bool = False
    no_tls12: bool = False
    no_tls11: bool = False
    no_tls1: bool = False
    curves: list[int] = field(default_factory=list)
    signing_prefs: list[int] = field(default_factory=list)
    verify_prefs: list[int] = field(default_factory=list)
    expect_peer_verify_pref: list[int] = field(default_factory=list)
    host_name: str = ""
    advertise_alpn: str = ""
    select_alpn: str = ""
    decline_alpn: bool = False
    reject_alpn: bool = False
    expect_alpn: str = ""
    expect_advertised_alpn: str = ""
    expect_server_name: str = ""
    expect_certificate_types: bytes = b""
    expect_client_ca_list: str = ""
    use_client_ca_list: str = ""
    require_any_client_certificate: bool = False
    verify_peer: bool = False
    verify_fail: bool = False
    expect_verify_result: bool = False
    use_custom_verify_callback: bool = False
    reverify_on_resume: bool = False
    expect_peer_cert_file: str = ""
    async_: bool = False
    shim_writes_first: bool = False
    shim_shuts_down: bool = False
    check_close_notify: bool = False
    implicit_handshake: bool = False
    read_size: int = 0
    peek_then_read: bool = False
    partial_write: bool = False
    write_different_record_sizes: bool = False
    no_ticket: bool = False
    ticket_key: bytes = b""
    expect_session_miss: bool = False
    expect_no_session: bool = False
    expect_ticket_renewal: bool = False
    expect_no_session_id: bool = False
    resumption_delay: int = 0
    expect_extended_master_secret: bool = False
    expect_secure_renegotiation: bool = False
    expect_no_secure_renegotiation: bool = False
    enable_ocsp_stapling: bool = False
    enable_signed_cert_timestamps: bool = False
    ocsp_response: bytes = b""
    expect_ocsp_response: bytes = b""
    signed_cert_timestamps: bytes = b""
    expect_signed_cert_timestamps: bytes = b""
    expect_version: int = 0
    expect_cipher: int = 0
    expect_cipher_aes: int = 0
    expect_cipher_no_aes: int = 0
    expect_curve_id: int = 0
    expect_peer_signature_algorithm: int = 0
    expect_hrr: bool = False
    expect_no_hrr: bool = False
    export_keying_material: int = 0
    export_label: str = ""
    export_context: str = ""
    use_export_context: bool = False
    use_exporter_between_reads: bool = False
    tls_unique: bool = False
    export_traffic_secrets: bool = False
    read_with_unfinished_write: bool = False
    key_update: bool = False
    send_alert: bool = False
    max_cert_list: int = 0
    expect_no_offer_early_data: bool = False
    fail_cert_callback: bool = False
    use_old_client_cert_callback: bool = False
    use_early_callback: bool = False
    fail_early_callback: bool = False
    install_ddos_callback: bool = False
    fail_ddos_callback: bool = False
    use_ticket_callback: bool = False
    use_ocsp_callback: bool = False
    set_ocsp_in_callback: bool = False
    decline_ocsp_callback: bool = False
    fail_ocsp_callback: bool = False
    no_op_extra_handshake: bool = False
    handshake_twice: bool = False
    server_preference: bool = False
    enforce_rsa_key_usage: bool = False
    permute_extensions: bool = False
    forbid_renegotiation_after_handshake: bool = False
    renegotiate_ignore: bool = False
    allow_unknown_alpn_protos: bool = False
    is_handshaker_supported: bool = False
    expect_total_renegotiations: int = 0
    handshake_never_done: bool = False


_KINDS = {f.name: f.type for f in fields(Flags)}


def parse_flags(arguments: Sequence[str]) -> tuple[Flags, Flags]:
    """Flags of the first connection and of the resumed ones. Raises Unimplemented for a flag that is not ours."""
    initial, resumed = Flags(), Flags()
    words = iter(arguments)
    for word in words:
        targets, name = _scope(word.removeprefix("-").removeprefix("-"), initial, resumed)
        name = name.replace("-", "_")
        name = "async_" if name == "async" else name
        if name not in _KINDS:
            raise Unimplemented(word)
        value = True if _KINDS[name] == "bool" else next(words)
        for target in targets:
            _set(target, name, value)
    return initial, resumed


def _scope(name: str, initial: Flags, resumed: Flags) -> tuple[list[Flags], str]:
    name = name.removeprefix("on-shim-")
    if name.startswith("on-initial-"):
        return [initial], name.removeprefix("on-initial-")
    if name.startswith("on-resume-"):
        return [resumed], name.removeprefix("on-resume-")
    if name.startswith("on-retry-"):
        raise Unimplemented(name)  # only for 0-RTT that was rejected
    return [initial, resumed], name


def _set(target: Flags, name: str, value: object) -> None:
    kind = _KINDS[name]
    if kind == "int":
        value = int(str(value))
    elif kind == "bytes":
        value = base64.b64decode(str(value))
    elif kind == "list[int]":
        value = [*getattr(target, name), int(str(value))]
    setattr(target, name, value)
