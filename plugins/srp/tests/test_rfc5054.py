"""Are the computations, the groups and the bytes those of RFC 5054?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlslite.mathtls import goodGroupParameters
from tlspool_srp.groups import GROUPS, find_group
from tlspool_srp.messages import (
    ServerParameters,
    build_client_public,
    build_user,
    number,
    parse_client_public,
    parse_server_parameters,
    parse_user,
)
from tlspool_srp.verifiers import Verifier, context_for, make_verifier, simulated_verifier

from tlspool_core.api import TlsError

# RFC 5054 appendix B
SALT = bytes.fromhex("BEB25379D1A8581EB5A727673A2441EE")
K = 0x7556AA045AEF2CDD07ABAF0F665C3E818913186F
X = 0x94B7555AABE9127CC58CCF4993DB6CF84D16C124
V = int(
    "7E273DE8696FFC4F4E337D05B4B375BEB0DDE1569E8FA00A9886D8129BADA1F1822223CA1A605B530E379BA4729FDC59F105B4787E5186F5C671085A1447B52A"
    "48CF1970B4FB6F8400BBF4CEBFBB168152E08AB5EA53D15C1AFF87B2B9DA6E04E058AD51CC72BFC9033B564E26480D78E955A5E29E7AB245DB2BE315E2099AFB",
    16,
)
PRIVATE_A = 0x60975527035CF2AD1989806F0407210BC81EDC04E2762A56AFD529DDDA2D4393
PRIVATE_B = 0xE487CB59D31AC550471E81F00F6928E01DDA08E974A004F49E61F5D105284D20
PUBLIC_A = int(
    "61D5E490F6F1B79547B0704C436F523DD0E560F0C64115BB72557EC44352E8903211C04692272D8B2D1A5358A2CF1B6E0BFCF99F921530EC8E39356179EAE45E"
    "42BA92AEACED825171E1E8B9AF6D9C03E1327F44BE087EF06530E69F66615261EEF54073CA11CF5858F0EDFDFE15EFEAB349EF5D76988A3672FAC47B0769447B",
    16,
)
PUBLIC_B = int(
    "BD0C61512C692C0CB6D041FA01BB152D4916A1E77AF46AE105393011BAF38964DC46A0670DD125B95A981652236F99D9B681CBF87837EC996C6DA04453728610"
    "D0C6DDB58B318885D7D82C7F8DEB75CE7BD4FBAA37089E6F9C6059F388838E7A00030B331EB76840910440B1B27AAEAEEB4012B7D7665238A8E3FB004B117B58",
    16,
)
U = 0xCE38B9593487DA98554ED47D70A7AE5F462EF019
PREMASTER = int(
    "B0DC82BABCF30674AE450C0287745E7990A3381F63B387AAF271A10D233861E359B48220F7C4693C9AE12B0A6F67809F0876E2D013800D6C41BB59B6D5979B5C"
    "00A172B4A2A5903A0BDCAF8A709585EB2AFAFA8F3499B200210DCC1F10EB33943CD67FC88A2F39A4BE5BEC4EC0A3212DC346D7E474B29EDE8A469FFECA686E5A",
    16,
)


def test_appendix_b() -> None:
    context = context_for(GROUPS[1024], "alice", "password123")
    assert context._mult == K
    assert context.get_common_password_hash(SALT) == X
    assert context.get_common_password_verifier(X) == V
    assert context.get_client_public(client_private=PRIVATE_A) == PUBLIC_A
    assert context.get_server_public(password_verifier=V, server_private=PRIVATE_B) == PUBLIC_B
    assert context.get_common_secret(PUBLIC_B, PUBLIC_A) == U
    client = context.get_client_premaster_secret(password_hash=X, server_public=PUBLIC_B, client_private=PRIVATE_A, common_secret=U)
    server = context.get_server_premaster_secret(
        password_verifier=V, server_private=PRIVATE_B, client_public=PUBLIC_A, common_secret=U
    )
    assert client == server == PREMASTER


def test_the_groups_are_those_that_another_implementation_knows() -> None:
    assert {(group.generator, group.prime) for group in GROUPS.values()} <= set(goodGroupParameters)
    assert all(group.prime.bit_length() == bits for bits, group in GROUPS.items())


def test_no_other_group_is_found() -> None:
    group = GROUPS[2048]
    assert find_group(number(group.prime), number(group.generator)) is group
    assert find_group(b"\0" + number(group.prime), b"\0\x02") is group
    assert find_group(number(group.prime), b"\x05") is None
    assert find_group(number(group.prime + 2), b"\x02") is None


@given(
    st.binary(min_size=1, max_size=300),
    st.binary(min_size=1, max_size=3),
    st.binary(min_size=1, max_size=255),
    st.binary(min_size=1),
)
def test_server_parameters_survive_and_leave_the_signature(prime: bytes, generator: bytes, salt: bytes, public: bytes) -> None:
    parameters = ServerParameters(prime, generator, salt, public)
    built = parameters.build()
    assert parse_server_parameters(built + b"signature") == (parameters, len(built))
    for cut in range(len(built)):
        with pytest.raises(TlsError):
            parse_server_parameters(built[:cut])


@given(st.binary(max_size=600))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for parse in (parse_server_parameters, parse_client_public, parse_user):
        try:
            parse(data)
        except TlsError:
            continue


def test_user_and_client_public_are_exact() -> None:
    assert build_user("alice") == b"\x05alice"
    assert parse_user(b"\x05alice") == "alice"
    assert parse_client_public(build_client_public(PUBLIC_A)) == PUBLIC_A
    for bad in (b"", b"\0", b"\x06alice", b"\x05alice!", b"\x01\xff"):
        with pytest.raises(TlsError):
            parse_user(bad)
    with pytest.raises(ValueError, match="1 to 255"):
        build_user("")


def test_a_verifier_is_kept_whole_and_shows_no_secret() -> None:
    verifier = make_verifier("john@example.com", "correct horse", 1536)
    assert Verifier.decode(verifier.encode()) == verifier
    assert str(verifier.value) not in repr(verifier)
    assert verifier.salt.hex() not in repr(verifier)
    assert make_verifier("john@example.com", "correct horse", 1536) != verifier  # another salt
    for bad in (b"", verifier.encode()[:-1], verifier.encode() + b"x", b"\x02" + verifier.encode()[1:]):
        with pytest.raises(ValueError, match="SRP verifier"):
            Verifier.decode(bad)


def test_a_simulated_verifier_is_stable_and_its_own_for_each_user_and_installation() -> None:
    one = simulated_verifier(b"a" * 32, "nobody", 1536)
    assert one == simulated_verifier(b"a" * 32, "nobody", 1536)
    assert one.value != simulated_verifier(b"a" * 32, "anybody", 1536).value
    assert one.value != simulated_verifier(b"b" * 32, "nobody", 1536).value
    assert len(one.salt) == len(make_verifier("x", "y", 1536).salt)
