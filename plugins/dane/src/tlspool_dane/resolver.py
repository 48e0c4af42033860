"""Asks the DNS, and says what is certain of the answer.

Theory of operation
-------------------
Validation of DNSSEC is left to a resolver, which says by the bit AD (RFC 4035 section 3.2.3) that it has validated an answer.  That bit
is worth no more than the way to the resolver, and than its care: one on this host may be a forwarder that passes on what another server
says, as containers have it.  So it is believed if resolv.conf(5) says `options trust-ad`, which is what the C library does, too.  An
answer without it is "insecure": somebody on the way may have made it up, and nothing follows from it.

A resolver that finds signatures which do not hold answers SERVFAIL, as it does if it reaches nobody.  Then nothing is known, which is
another thing than knowing that there is no record: `NoAnswer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
from dns.rdtypes.tlsabase import TLSABase

from tlspool_core.api import Denied

SYSTEM = Path("/etc/resolv.conf")
_TIME_LIMIT = 3.0  # seconds for each server
_MOST = 64  # records that are looked at


class NoAnswer(Denied):
    """It is not known whether there are records; the text says why."""


class Security(Enum):
    """What is certain of an answer."""

    SECURE = "secure"
    INSECURE = "insecure"


@dataclass(frozen=True, slots=True)
class Association:
    """One TLSA or SMIMEA record (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Records, of which none means that there are none."""

    security: Security
    records: tuple[Association, ...] = ()


class Resolver:
    """Asks one server after the other, until one knows."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        """Addresses and ports of servers whose bit AD is believed."""
        self._servers = tuple(servers)

    @classmethod
    def of_system(cls, path: Path = SYSTEM) -> Resolver:
        """Those of resolv.conf(5) that may be believed; read anew for each question, as the file changes with the network."""
        try:
            lines = [line.split() for line in path.read_text(errors="replace").splitlines() if not line.startswith(("#", ";"))]
        except OSError:
            lines = []
        if not any("trust-ad" in words[1:] for words in lines if words[:1] == ["options"]):
            return cls([])
        servers = [words[1].partition("%")[0] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]
        return cls([(server, 53) for server in servers if _is_address(server)])

    def look_up(self, name: str, kind: str) -> Answer:
        """Records of a name, of kind TLSA or SMIMEA; may take seconds. Raises NoAnswer."""
        if not self._servers:
            raise NoAnswer(
                "no name server is trusted: run a validating one, best on this host, and say `options trust-ad` in resolv.conf"
            )
        problem = ""
        for server, port in self._servers:
            try:
                response = _ask(server, port, name, kind)
                if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return _answer(response)
            except (dns.exception.DNSException, OSError, ValueError) as error:
                problem = f"{server} does not answer, or nothing that can be used: {type(error).__name__}"
                continue
            problem = f"{server} answers {dns.rcode.to_text(response.rcode())}, as for signatures that do not hold"
        raise NoAnswer(problem)


def _is_address(server: str) -> bool:
    try:
        ip_address(server)
    except ValueError:
        return False
    return True


def _ask(server: str, port: int, name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind, want_dnssec=True)
    query.flags |= dns.flags.AD
    # what does not come from there, or answers something else, is passed over; what was truncated is asked again over TCP
    response, _ = dns.query.udp_with_fallback(
        query, server, timeout=_TIME_LIMIT, port=port, ignore_unexpected=True, ignore_errors=True
    )
    return response


def _answer(response: dns.message.Message) -> Answer:
    """Raises DNSException for what contradicts itself, as aliases that lead nowhere: their zone may be the peer's."""
    if not response.flags & dns.flags.AD:
        return Answer(Security.INSECURE)
    found = response.resolve_chaining().answer if isinstance(response, dns.message.QueryMessage) else None
    records = [each for each in found or () if isinstance(each, TLSABase)]
    return Answer(
        Security.SECURE, tuple(Association(each.usage, each.selector, each.mtype, bytes(each.cert)) for each in records[:_MOST])
    )
