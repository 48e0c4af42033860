"""Identities as the pool knows them: `user@domain` or `domain`, and the selectors that stand for many of them."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidIdentity(ValueError):
    """The text is no `user@domain` or `domain`."""


@dataclass(frozen=True, slots=True, order=True)
class DoNAI:
    """A domain, or a user at a domain (Network Access Identifier of RFC 7542 whose realm is required)."""

    domain: str
    user: str | None = None

    def __str__(self) -> str:
        return self.domain if self.user is None else f"{self.user}@{self.domain}"
