"""Are PKCS #11 URIs read as RFC 7512 writes them, and nothing else?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlspool_pkcs11.uri import TYPES, InvalidUri, Pkcs11Uri, build_uri, parse_uri, pin_file


def test_the_examples_of_rfc_7512_section_3() -> None:
    # an empty URI matches everything
    assert parse_uri("pkcs11:") == Pkcs11Uri()
    assert parse_uri("pkcs11:object=my-pubkey;type=public") == Pkcs11Uri(object="my-pubkey", type="public")
    uri = parse_uri(
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;"
        "object=my-certificate;type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial="
    )
    assert uri.token == "The Software PKCS#11 Softtoken"
    assert uri.manufacturer == "Snake Oil, Inc."
    assert uri.id == bytes.fromhex("69953e5cf4bdec91")
    assert uri.serial == ""
    uri = parse_uri("pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1")
    assert uri.module_path == "/mnt/libmypkcs11.so.1"
    assert parse_uri("pkcs11:slot-description=Sun%20Metaslot").slot_description == "Sun Metaslot"
    uri = parse_uri(
        "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23"
    )
    assert uri.library_version == "1.23"
    # section 3's example of sub-delimiters and UTF-8
    assert parse_uri("pkcs11:token=Software%20PKCS%2311%20softtoken%3B").token == "Software PKCS#11 softtoken;"
    assert parse_uri("PKCS11:object=%C3%A9t%C3%A9&more").object == "été&more"


REFUSED = {
    "object=x": "begins with pkcs11:",
    "pkcs11:object": "is not known",
    "pkcs11:colour=blue": "is not known",
    "pkcs11:x-vendor=1": "is not known",
    "pkcs11:object=a;object=b": "twice",
    "pkcs11:object=a;": "is not known",
    "pkcs11:;object=a": "is not known",
    "pkcs11:object=a b": "percent-encoded",
    "pkcs11:object=a/b": "percent-encoded",
    "pkcs11:object=%4": "percent-encoded",
    "pkcs11:object=%zz": "percent-encoded",
    "pkcs11:object=é": "percent-encoded",
    "pkcs11:object=%FF": "not UTF-8",
    "pkcs11:object=a%00b": "NUL",
    "pkcs11:type=key": "type is one of",
    "pkcs11:slot-id=1a": "decimal",
    "pkcs11:slot-id=": "decimal",
    "pkcs11:library-version=1.2.3": "library-version",
    "pkcs11:object=a?pin-value=1234": "pin-value is refused",
    "pkcs11:pin-value=1234": "pin-value is refused",
    "pkcs11:object=a?pin-source=|/usr/bin/echo%201234": "does not start programs",
    "pkcs11:object=a?pin-source=pin.txt": "absolute path",
    "pkcs11:object=a?pin-source=file:pin.txt": "absolute path",
    "pkcs11:object=a?pin-source=file://host/pin.txt": "absolute path",
    "pkcs11:object=a?pin-source=": "absolute path",
    "pkcs11:object=a?module-name=x;y": "percent-encoded",
    "pkcs11:object=a?": "",
    "pkcs11:" + "a" * 5000: "longer than",
}


@pytest.mark.parametrize("text", [text for text, reason in REFUSED.items() if reason])
def test_what_is_refused_and_why(text: str) -> None:
    with pytest.raises(InvalidUri, match=REFUSED[text].replace("|", r"\|")) as caught:
        parse_uri(text)
    assert "1234" not in str(caught.value)


def test_pin_source_is_a_file() -> None:
    for source in ("/etc/pin", "file:/etc/pin", "file:///etc/pin", "FILE:/etc/pin"):
        assert pin_file(parse_uri(f"pkcs11:object=a?pin-source={source}")) == "/etc/pin"
    assert pin_file(parse_uri("pkcs11:object=a")) is None
    assert "etc" not in repr(parse_uri("pkcs11:object=a?pin-source=/etc/pin"))


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_URIS = st.builds(
    Pkcs11Uri,
    token=st.none() | _TEXT,
    manufacturer=st.none() | _TEXT,
    serial=st.none() | _TEXT,
    object=st.none() | _TEXT,
    slot_description=st.none() | _TEXT,
    slot_id=st.none() | st.integers(0, 2**63),
    library_version=st.none() | st.sampled_from(["1", "2.40"]),
    type=st.none() | st.sampled_from(TYPES),
    id=st.none() | st.binary(max_size=20),
    pin_source=st.none() | _TEXT.map(lambda text: "/" + text.lstrip("/")),
    module_name=st.none() | _TEXT,
    module_path=st.none() | _TEXT,
)


@given(_URIS)
def test_what_is_built_is_parsed_to_the_same(uri: Pkcs11Uri) -> None:
    text = build_uri(uri)
    assert text.isascii()
    assert parse_uri(text) == uri


@given(st.text(max_size=100) | st.text("pkcs1:;=?&%oidtypen0aF-", max_size=100).map("pkcs11:".__add__))
def test_any_text_is_a_uri_or_invalid(text: str) -> None:
    try:
        uri = parse_uri(text)
    except InvalidUri:
        return
    assert parse_uri(build_uri(uri)) == uri


def test_matching_wants_every_given_attribute_equal_and_no_other() -> None:
    # RFC 7512 section 2.4
    found = {"token": "Web", "serial": "1", "model": "m"}
    assert Pkcs11Uri().matches(found)
    assert Pkcs11Uri(token="Web", object="whatever").matches(found)
    assert not Pkcs11Uri(token="web").matches(found)
    assert not Pkcs11Uri(token="Web", serial="").matches(found)
