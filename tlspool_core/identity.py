"""Identities as the pool knows them: `user@domain` or `domain`, and the selectors that stand for many of them.

Theory of operation
-------------------
A `DoNAI` is always in its canonical form: domains are lower-case LDH labels, internationalised ones as A-labels (RFC 5890), user
names are lower case unless local policy says that case counts.  So identities can be compared, hashed and used as keys of databases
byte by byte.  `DoNAI.parse` brings text into that form; the constructor takes canonical parts only, and refuses others.  Nothing
that looks like a pattern, an address or invisible characters can be an identity, wherever it comes from: a peer's credential, an
application or a database.

A `Selector` stands for many identities.  `DoNAI.selectors()` lists those that cover one identity from concrete to abstract; the
first that a database knows wins.  Selectors with and without `@` are two hierarchies that do not mix.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import idna

__all__ = ["DoNAI", "InvalidIdentity", "Selector"]

_MAX_DOMAIN = 253  # RFC 1035 section 2.3.4, as text without the root's dot
_MAX_TEXT = 1024  # characters of any text that is looked at; U-labels are never longer than their A-labels' bytes
_MAX_USER = 128  # bytes of UTF-8; RFC 7542 section 2.3 asks for at least 72
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# RFC 7542 section 2.2, `utf8-username`, without the asterisk, which some would take for a pattern
_USER = re.compile(r"[^\s\x00-\x20\x7f\"(),:;<>@\[\\\]*.]+(?:\.[^\s\x00-\x20\x7f\"(),:;<>@\[\\\]*.]+)*")


class InvalidIdentity(ValueError):
    """The text is no `user@domain` or `domain`, or no selector of such; says why."""


def _alabel_faults(domain: str) -> str:
    """What is wrong with the A-labels of a domain in lower case, "" if nothing."""
    for label in domain.split("."):
        if label.startswith("xn--"):
            try:
                if idna.alabel(idna.ulabel(label)) != label.encode():
                    return f"the label {label!r} is not in its canonical form"
            except UnicodeError:
                return f"{label!r} is no internationalised label (RFC 5890)"
    return ""


def _check_domain(domain: str) -> None:
    """Raises InvalidIdentity unless the domain is canonical."""
    if not _DOMAIN.fullmatch(domain):
        raise InvalidIdentity(f"{domain!r} is no domain name in its canonical form")
    if len(domain) > _MAX_DOMAIN:
        raise InvalidIdentity(f"a domain has up to {_MAX_DOMAIN} characters, not {len(domain)}")
    if domain.rpartition(".")[2].isdigit():
        raise InvalidIdentity(f"{domain!r} ends in a number, so it is no domain name; addresses are no identities")
    if "xn--" in domain and (fault := _alabel_faults(domain)):
        raise InvalidIdentity(fault)


def _check_user(user: str) -> None:
    """Raises InvalidIdentity unless the user name is well formed; its case is not looked at."""
    if not _USER.fullmatch(user):
        raise InvalidIdentity(f"{user!r} is no user name")
    if user.isascii():
        length = len(user)
    else:
        length = _checked_length(user)
    if length > _MAX_USER:
        raise InvalidIdentity(f"a user name has up to {_MAX_USER} bytes, not {length}")


def _checked_length(user: str) -> int:
    """Bytes of a user name with characters beyond ASCII; these must be visible, assigned, and in one form only (RFC 8265)."""
    if any(unicodedata.category(character)[0] in "CZ" for character in user):
        raise InvalidIdentity(f"{user!r} has characters that cannot be seen")
    if unicodedata.normalize("NFKC", user) != user:
        raise InvalidIdentity(f"{user!r} can be written in more than one way; write it in normal form (NFKC)")
    return len(user.encode())


def _split(text: str, case_counts: bool) -> tuple[str | None, str]:
    """User in canonical form (None without `@`) and domain as written. Raises InvalidIdentity."""
    if len(text) > _MAX_TEXT:
        raise InvalidIdentity(f"{len(text)} characters are no identity")
    user, at, domain = text.rpartition("@")
    return (_canonical_user(user, case_counts) if at else None), domain


def _canonical_domain(text: str) -> str:
    """The domain that a text means. Raises InvalidIdentity."""
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True, std3_rules=True, strict=True).decode()
    except UnicodeError as error:
        raise InvalidIdentity(f"{text!r} is no internationalised domain name: {error}") from None


def _canonical_user(text: str, case_counts: bool) -> str:
    return text if case_counts else unicodedata.normalize("NFC", text.lower())


@dataclass(frozen=True, slots=True, order=True)
class DoNAI:
    """A domain, or a user at a domain (Network Access Identifier of RFC 7542 whose realm is required).

    The constructor takes canonical parts and raises InvalidIdentity for others; `parse` makes text canonical.
    """

    domain: str
    user: str | None = None

    def __post_init__(self) -> None:
        _check_domain(self.domain)
        if self.user is not None:
            _check_user(self.user)

    def __str__(self) -> str:
        return self.domain if self.user is None else f"{self.user}@{self.domain}"

    @classmethod
    def parse(cls, text: str, *, user_case_counts: bool = False) -> DoNAI:
        """From `user@domain` or `domain` as people, applications and credentials write it. Raises InvalidIdentity.

        `user_case_counts` is the local policy's word on user names; domains never depend on case (RFC 4343).
        """
        return _parsed(text, user_case_counts)

    def selectors(self, *, for_users: bool = False) -> tuple[str, ...]:
        """Texts of all selectors that cover this identity, from concrete to abstract; the first is the identity itself.

        With `for_users` a domain is taken as one that speaks for its users, and is looked up among the selectors with `@`.
        """
        domains = _covering(self.domain)
        if self.user is None:
            return tuple(f"@{domain}" for domain in domains) if for_users else domains
        return (*(f"{self.user}@{domain}" for domain in domains), *(f"@{domain}" for domain in domains))

    @property
    def of_domain(self) -> DoNAI:
        """The domain on its own."""
        return self if self.user is None else DoNAI(self.domain)


@lru_cache(maxsize=1024)
def _parsed(text: str, case_counts: bool) -> DoNAI:
    """The identity that a text means: the same few are parsed several times in each session. Raises InvalidIdentity."""
    user, domain = _split(text, case_counts)
    return DoNAI(_canonical_domain(domain), user)


def _covering(domain: str) -> tuple[str, ...]:
    """`mail.example.com`, `.example.com`, `.com`, `.`"""
    labels = domain.split(".")
    return (domain, *("." + ".".join(labels[skip:]) for skip in range(1, len(labels) + 1)))


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """A pattern for identities. `user` is None for domains, "" for any user; `domain` begins with a dot if more labels may precede.

    The constructor takes canonical parts and raises InvalidIdentity for others; `parse` makes text canonical.
    """

    domain: str
    user: str | None = None

    def __post_init__(self) -> None:
        if self.domain != ".":
            _check_domain(self.domain.removeprefix("."))
        if self.user:
            _check_user(self.user)

    def __str__(self) -> str:
        return self.domain if self.user is None else f"{self.user}@{self.domain}"

    @classmethod
    def parse(cls, text: str, *, user_case_counts: bool = False) -> Selector:
        """From `john@mail.example.com`, `john@.example.com`, `@.com`, `.`, ... Raises InvalidIdentity."""
        user, domain = _split(text, user_case_counts)
        if domain == ".":
            return cls(domain, user)
        dot = "." if domain.startswith(".") else ""
        return cls(dot + _canonical_domain(domain.removeprefix(".")), user)

    def covers(self, identity: DoNAI, *, for_users: bool = False) -> bool:
        """Whether this selector stands for the identity; `for_users` as in `DoNAI.selectors`."""
        return str(self) in identity.selectors(for_users=for_users)
