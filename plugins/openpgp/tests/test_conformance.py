"""Does the type do all that every credential type has to do, with each kind of key?"""

from __future__ import annotations

from typing import Any

import pytest
from tlspool_openpgp.credential_type import OpenPgpType
from tlspool_openpgp.reader import Reader

from tlspool_core.api import DoNAI, LocalCredential, Role, Verdict
from tlspool_core.testing.credential_type import CredentialTypeConformance, TypeUnderTest
from tlspool_core.testing.keys import SoftwareKeys


class OpenPgpConformance(CredentialTypeConformance):
    holder = ""
    identity = ""

    @pytest.fixture(autouse=True)
    def _make(self, request: pytest.FixtureRequest, reader: Reader) -> None:
        holder: Any = request.getfixturevalue(self.holder)
        kind, keys = OpenPgpType(reader=reader), SoftwareKeys()
        local = LocalCredential(
            DoNAI.parse(self.identity), "openpgp", Role.BOTH, keys.add("mine", holder.private), kind.import_local(holder.public)
        )
        self.made = TypeUnderTest(kind, local, keys.find, kind.import_trust(holder.public, pinned=False))

    def under_test(self) -> TypeUnderTest:
        return self.made

    def test_trust_comes_from_the_database(self) -> None:
        """Self-signatures alone are the lenient form."""
        tested = self.under_test()
        trust = next(predicate for predicate in tested.type.predicates() if predicate.letter == "T")
        assert self._establish(tested, trust) is Verdict.LENIENT
        with tested.config.write() as databases:
            for record in tested.trust:
                databases.put_trust(record)
        assert self._establish(tested, trust) is Verdict.STRICT


class TestAuthenticationSubkey(OpenPgpConformance):
    holder, identity = "john", "john@example.org"


class TestSigningSubkey(OpenPgpConformance):
    holder, identity = "mary", "mary@example.org"


class TestPrimaryRsa(OpenPgpConformance):
    holder, identity = "web", "www.example.org"
