"""Is the table of cipher suites what the RFCs say, and do settings and plugins get what they ask of it?"""

from __future__ import annotations

import pytest

from tlspool_core.tls.alerts import InternalError
from tlspool_core.tls.protection import CIPHERS
from tlspool_core.tls.seams import CipherSuite
from tlspool_core.tls.settings import TLS12, TLS13, Settings
from tlspool_core.tls.suites import CORE_SUITES, enabled_suites, suites_for

# IANA registry "TLS Cipher Suites"
REGISTRY = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0xC02B: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    0xC02C: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    0xC02F: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    0xC030: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    0xCCA8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCA9: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}
EXTRA = CipherSuite(0xC01D, "TLS_SRP_SHA_WITH_AES_128_CBC_SHA", TLS12, "SRP", "", "AES-128-CBC", "sha256", mac="sha1")


def test_names_and_parts() -> None:
    assert {code: suite.name for code, suite in CORE_SUITES.items()} == REGISTRY
    for suite in CORE_SUITES.values():
        assert suite.name.endswith(suite.hash_name.upper()) and suite.cipher in CIPHERS and not suite.mac
        assert suite.cipher.replace("-", "_") in suite.name and suite.verify_data_length == 12
        assert (suite.key_exchange, bool(suite.authentication)) == (("", False) if suite.version == TLS13 else ("ECDHE", True))


def test_what_settings_enable() -> None:
    assert [suite.code for suite in enabled_suites(Settings(versions=(TLS13,)))] == [0x1301, 0x1302, 0x1303]
    assert [suite.code for suite in enabled_suites(Settings(cipher_suites=(0xC030, 0x002F, 0x1302)))] == [0xC030, 0x1302]


def test_plugins_go_first_but_replace_nothing() -> None:
    settings = Settings(extra_suites=(EXTRA,), versions=(TLS12,))
    assert enabled_suites(settings)[0] is EXTRA and suites_for(settings)[0xC01D] is EXTRA
    assert enabled_suites(Settings(extra_suites=(EXTRA,), versions=(TLS13,)))[0].code == 0x1301
    clash = CipherSuite(0xC02B, "mine", TLS12, "SRP", "", "AES-128-CBC", "sha256", mac="sha1")
    with pytest.raises(InternalError):
        suites_for(Settings(extra_suites=(clash,)))
