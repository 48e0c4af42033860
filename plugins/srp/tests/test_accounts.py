"""Are accounts that are damaged told in words, wherever they are looked at?"""

from __future__ import annotations

import pytest
from tlspool_srp.plugin import SrpType
from tlspool_srp.secrets import ClientAccount

WRONG = [b"\xff", b"[]", b"[" * 99_999, b'{"user": 1}', b'{"user": "john"}', b'{"user": "john", "server": "*"}', b'{"more": "x"}']


@pytest.mark.parametrize("public", WRONG)
def test_they_are_refused_and_listed_all_the_same(public: bytes) -> None:
    with pytest.raises(ValueError, match="SRP account"):
        ClientAccount.decode(public)
    assert "SRP account" in SrpType().summarize(public)
    with pytest.raises(ValueError, match="SRP account"):
        SrpType().import_local(public)


def test_those_that_are_right() -> None:
    public = SrpType().import_local(b'{"user": "john", "server": "imap.example.com"}')
    assert SrpType().summarize(public) == "john at imap.example.com"
    assert SrpType().summarize(b"") == "serves the users of the trust database"
