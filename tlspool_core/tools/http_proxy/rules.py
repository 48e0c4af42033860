"""Who is meant by a request, which rule holds for it, and which addresses must not be reached on behalf of a browser.

Theory of operation
-------------------
A target is read as strictly as RFC 9112 section 3.2.3 writes it: `host:port`, nothing more.  Destinations are tried in the order of
the configuration; the first that matches decides.  For everything else the proxy is no more than a relay, and a relay on the person's
own machine reaches what a page from the network must not: services of this machine by any of its addresses, link-local devices,
addresses that mean nobody.  A name that was looked up is held against that by its addresses, and connected by the same addresses, so
that a name cannot change its mind in between (DNS rebinding).
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import Final

from tlspool_core.identity import DoNAI, InvalidIdentity
from tlspool_core.tools.endpoints import Endpoint

HTTPS: Final = 443
HTTP: Final = 80
_LONGEST_IDENTITY: Final = 127  # bytes that the socket protocol has for one

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,254})(?::([0-9]{1,5}))?")
_NUMBERS = re.compile(
    r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?"
)  # what resolvers take for an IPv4 address (WHATWG URL, "ends in a number")


class BadTarget(ValueError):
    """The text names no host and port."""


@dataclass(frozen=True, slots=True)
class Target:
    """A host, in lower case and without a dot at its end, or an address; and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, authority: str, port: int = 0) -> Target:
        """`HOST:PORT`, or `HOST` if there is a default `port`. Raises BadTarget."""
        match = _AUTHORITY.fullmatch(authority)
        if match is None:
            raise BadTarget("not a host and a port")
        number = int(match[2]) if match[2] else port
        if not 0 < number < 65536:
            raise BadTarget("the port is missing" if not match[2] else "no such port")
        return cls(_host(match[1]), number)

    @property
    def is_address(self) -> bool:
        return address_of(self.host) is not None

    @property
    def unproven(self) -> str:
        """Why the pool can neither prove this host nor be it; empty if it can."""
        try:
            DoNAI(self.host)
        except InvalidIdentity as fault:
            return str(fault)
        return "" if len(self.host) <= _LONGEST_IDENTITY else f"a name with more than {_LONGEST_IDENTITY} characters"

    def authority(self, port: int) -> str:
        """For a Host field; `port` is the one that goes without saying."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return self.authority(0)


def _host(text: str) -> str:
    if text.startswith("[") or _NUMBERS.fullmatch(text):
        address = address_of(text.strip("[]"))
        if address is None or (address.version == 6) is not text.startswith("["):
            raise BadTarget("not an address")
        return str(address)
    if not _NAME.fullmatch(text) or len(text) > 253:
        raise BadTarget("not a host name")
    return text.lower().removesuffix(".")


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address that is written as one."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def may_be_reached(address: str) -> bool:
    """Whether a relay may connect there on behalf of whatever page a browser shows."""
    found = address_of(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if _is_ours(found):
            return False
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and any(found in network for network in _NAT64):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found is not None and not (
        found.is_loopback
        or found.is_link_local
        or found.is_unspecified
        or found.is_multicast
        or found.is_reserved
        or found in _HERE
        or _is_ours(found)
    )


def _is_ours(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of this machine: no other can be bound to, unless it is told to take over for others.

    True, too, if that cannot be found out, as without descriptors.
    """
    try:
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as fault:
        return fault.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))  # RFC 6052, RFC 8215
_HERE: Final = ipaddress.IPv4Network("0.0.0.0/8")  # "this network": some systems take it for loopback


@dataclass(frozen=True, slots=True)
class Pattern:
    """`HOST`, `*.HOST` for all names below it, or `*`; with `:PORT` or `:*` behind it, else port 443."""

    name: str
    below: bool
    port: int  # 0: any

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises BadTarget."""
        host, colon, port = text.partition(":")
        if colon and port != "*" and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise BadTarget(f"{text!r}: behind the colon stands a port, or *")
        name = host.removeprefix("*.")
        if host != "*" and (not _NAME.fullmatch(name) or _NUMBERS.fullmatch(name)):
            raise BadTarget(f"{text!r} is neither HOST, nor *.HOST, nor * (certificates are made for names, not for addresses)")
        number = 0 if port == "*" else int(port or HTTPS)
        return cls("" if host == "*" else name.lower().removesuffix("."), host.startswith("*"), number)

    def matches(self, target: Target) -> bool:
        """Whether a target is meant; an address never is."""
        if target.is_address or self.port not in (0, target.port):
            return False
        if not self.below:
            return target.host == self.name
        return not self.name or target.host.endswith(f".{self.name}")


@dataclass(frozen=True, slots=True)
class Destination:
    """Sites that are reached with the person's credential. `connect`: where, instead of the addresses of the name."""

    patterns: tuple[Pattern, ...]
    localid: str = ""
    remoteid: str = ""
    service: str = "https"
    connect: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens with which request."""

    destinations: tuple[Destination, ...] = ()
    passes: bool = False  # whether other sites get their bytes passed on, or are refused
    ports: frozenset[int] = field(default=frozenset((HTTP, HTTPS)))  # of other sites

    def destination(self, target: Target) -> Destination | None:
        """The first that matches."""
        return next((each for each in self.destinations if any(one.matches(target) for one in each.patterns)), None)
