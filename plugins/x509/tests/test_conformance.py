"""Does the type do all that every credential type has to do?"""

from __future__ import annotations

from typing import Any

import pytest
from tlspool_x509.credential_type import X509Type

from tlspool_core.api import DoNAI, LocalCredential, Role
from tlspool_core.testing.credential_type import CredentialTypeConformance, TypeUnderTest
from tlspool_core.testing.keys import SoftwareKeys

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a")


class TestX509(CredentialTypeConformance):
    """With a chain of two."""

    @pytest.fixture(autouse=True)
    def _make(self, pki: Any) -> None:
        kind, keys = X509Type(clock=lambda: pki.now), SoftwareKeys()
        root = pki.root()
        middle = root.authority("Middle")
        holder = middle.issue("example.com")
        uri = keys.add("mine", holder.key)
        local = LocalCredential(DoNAI("example.com"), "x509", Role.BOTH, uri, kind.import_local(middle.pem + holder.pem))
        self.made = TypeUnderTest(kind, local, keys.find, kind.import_trust(root.pem, pinned=False))

    def under_test(self) -> TypeUnderTest:
        return self.made
