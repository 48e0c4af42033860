"""Does D hold for exactly those certificates that a signed zone names, asked of a real resolver that validates?"""

from __future__ import annotations

import datetime
import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import dns.zone
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from tlspool_dane import resolver
from tlspool_dane.plugin import Dane, smimea_name, tlspool_register_predicates
from tlspool_dane.resolver import NoAnswer, Resolver

from tlspool_core.api import CertificateEntry, DoNAI, Finding, Verdict
from tlspool_core.testing.policy import Peer, peer_context

WWW, JOHN = DoNAI.parse("www.signed.example"), DoNAI.parse("john@signed.example")
NOW = datetime.datetime.now(datetime.UTC)


# --- certificates -----------------------------------------------------------------------------------------------------------------


@dataclass
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def issue(name: str, by: Issued | None = None, *, ca: bool = False, names: tuple[x509.GeneralName, ...] = ()) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = by.certificate.subject if by else subject
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), NOW - day, NOW + day)
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    builder = builder.add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    signer = by.key if by else key
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issued(builder.sign(signer, SHA256()), key)


@dataclass
class Site:
    """A server's chain, another server's under the same authority, and a user's certificate."""

    root: Issued
    server: Issued
    other: Issued
    user: Issued
    false_authority: Issued  # its issuer says that it is none


@pytest.fixture(scope="module")
def site() -> Site:
    root = issue("Root", ca=True)
    server = issue("server", root, names=(x509.DNSName(str(WWW)),))
    other = issue("other", root, names=(x509.DNSName("other.example"),))
    user = issue("john", root, names=(x509.RFC822Name(str(JOHN)),))
    return Site(root, server, other, user, issue("by the server", other, names=(x509.DNSName(str(WWW)),)))


# --- the DNS ----------------------------------------------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zone_text(site: Site) -> str:
    www = {
        443: f"3 1 1 {digest(site.server.spki)}",
        444: f"2 0 1 {digest(site.root.der)}",
        445: f"3 0 2 {hashlib.sha512(site.server.der).hexdigest()}",
        446: f"1 0 0 {site.server.der.hex()}",
        447: f"3 1 1 {digest(site.other.spki)}",
        448: f"9 1 1 {digest(site.server.spki)}",
        449: f"2 0 1 {digest(site.other.der)}",
        451: f"0 1 1 {digest(site.root.spki)}",
        452: f"3 7 1 {digest(site.server.spki)}",
        453: f"3 1 9 {digest(site.server.spki)}",
    }
    lines = [f"_{port}._tcp.www IN TLSA {record}" for port, record in www.items()]
    lines += [f"_450._tcp.www IN TLSA 3 1 1 {'00' * 32}", f"_450._tcp.www IN TLSA 3 1 1 {digest(site.server.spki)}"]
    # unbound as the zone's server proves absence only under names that have records of their own
    lines += ["_454._tcp.www IN CNAME _443._tcp.www", "www IN A 192.0.2.1", "_tcp.www IN TXT ports"]
    lines += [f"{smimea_name(JOHN).removesuffix('.signed.example.')} IN SMIMEA 3 0 1 {digest(site.user.der)}"]
    return "\n".join(["$ORIGIN signed.example.", "$TTL 60", "@ IN SOA ns hostmaster 1 60 60 60 60", "@ IN NS ns", *lines, ""])


class Unbound:
    """A validating resolver on loopback, with a signed zone, one whose signatures are spoilt, and one that is not signed."""

    def __init__(self, home: Path, site: Site) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        anchors, zones = [], []
        for name in ("signed.example", "spoilt.example", "plain.example"):
            text = zone_text(site).replace("signed.example", name)
            if name != "plain.example":
                text, anchor = _signed(name, text)
                anchors.append(f'  trust-anchor: "{anchor}"\n')
            if name == "spoilt.example":
                text = text.replace(digest(site.server.spki), digest(site.other.spki))
            (home / name).write_text(text)
            zones.append(
                f'auth-zone:\n  name: "{name}."\n  zonefile: "{home / name}"\n'
                "  for-downstream: no\n  for-upstream: yes\n  fallback-enabled: no\n"
            )
        config = home / "unbound.conf"
        config.write_text(
            f'server:\n  directory: "{home}"\n  chroot: ""\n  username: ""\n  pidfile: ""\n  use-syslog: no\n  do-daemonize: no\n'
            f"  interface: 127.0.0.1@{self.port}\n  port: {self.port}\n  do-ip6: no\n"
            '  module-config: "validator iterator"\n  num-threads: 1\n  trust-anchor-signaling: no\n'
            f"{''.join(anchors)}remote-control:\n  control-enable: no\n{''.join(zones)}"
        )
        program = shutil.which("unbound") or "/usr/sbin/unbound"
        self.log = home / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)

    def wait(self) -> None:
        end = time.monotonic() + 30
        while "start of service" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)


def _signed(name: str, text: str) -> tuple[str, str]:
    """The zone with its signatures, and the record of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), dns.dnssec.Algorithm.ECDSAP256SHA256, flags=257)
    zone = dns.zone.from_text(text, origin=f"{name}.", relativize=False)
    day = datetime.timedelta(days=1)
    dns.dnssec.sign_zone(zone, keys=[(key, public)], inception=NOW - day, expiration=NOW + day)
    return zone.to_text(relativize=False), f"{name}. DNSKEY {public.to_text()}"


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Unbound]:
    made = Unbound(tmp_path_factory.mktemp("unbound"), site)
    try:
        made.wait()
        yield made
    finally:
        made.process.terminate()
        made.process.wait(20)


@pytest.fixture
def dane(unbound: Unbound) -> Dane:
    return Dane(lambda: Resolver([("127.0.0.1", unbound.port)]))


def found(dane: Dane, port: int | str, chain: list[Issued], wanted: DoNAI | None = WWW, **more: Any) -> Finding:
    peer = Peer(entries=[CertificateEntry(each.der) for each in chain])
    address = f"192.0.2.1:{port}" if port else ""
    return dane.establish(peer_context(peer=peer, wanted=wanted, identities=(WWW,), peer_address=address, **more))


# --- servers ----------------------------------------------------------------------------------------------------------------------

Chain = Callable[[Site], list[Issued]]
WHOLE: Chain = lambda site: [site.server, site.root]  # noqa: E731 - a name for a table


@pytest.mark.parametrize(
    ("port", "chain", "verdict"),
    [
        (443, WHOLE, Verdict.STRICT),
        (443, lambda site: [site.server], Verdict.STRICT),
        (443, lambda site: [site.other, site.server], Verdict.FALSE),
        (444, WHOLE, Verdict.STRICT),
        (444, lambda site: [site.server], Verdict.FALSE),  # the authority is not shown
        (444, lambda site: [site.other, site.root], Verdict.FALSE),  # another's name
        (444, lambda site: [issue("stranger", names=(x509.DNSName(str(WWW)),)), site.root], Verdict.FALSE),
        (445, WHOLE, Verdict.STRICT),
        (446, WHOLE, Verdict.STRICT),
        (447, WHOLE, Verdict.FALSE),
        (448, WHOLE, Verdict.FALSE),  # a usage that nobody knows
        (449, lambda site: [site.false_authority, site.other, site.root], Verdict.FALSE),  # an end certificate is no authority
        (450, WHOLE, Verdict.STRICT),  # one of two
        (451, WHOLE, Verdict.STRICT),
        (452, WHOLE, Verdict.FALSE),
        (453, WHOLE, Verdict.FALSE),
        (454, WHOLE, Verdict.STRICT),  # by an alias
        (9999, WHOLE, Verdict.LENIENT),  # proven absent
    ],
)
def test_servers(dane: Dane, site: Site, port: int, chain: Chain, verdict: Verdict) -> None:
    finding = found(dane, port, chain(site))
    assert finding.verdict is verdict, finding
    assert (verdict is Verdict.STRICT) == (finding.reason == "")


def test_what_is_not_signed_shows_nothing(dane: Dane, site: Site) -> None:
    for port in (443, 9999):
        finding = found(dane, port, [site.server], DoNAI.parse("www.plain.example"))
        assert (finding.verdict, "is not signed" in finding.reason) == (Verdict.FALSE, True)


def test_signatures_that_do_not_hold_leave_it_unknown(dane: Dane, site: Site) -> None:
    with pytest.raises(NoAnswer, match="SERVFAIL"):
        found(dane, 443, [site.other], DoNAI.parse("www.spoilt.example"))


@pytest.mark.parametrize(("port", "wanted", "protocol"), [("", WWW, 6), (443, None, 6), (443, WWW, 99)])
def test_without_port_name_or_protocol_there_is_no_record(
    dane: Dane, site: Site, port: Any, wanted: DoNAI | None, protocol: int
) -> None:
    assert found(dane, port, [site.server], wanted, ip_protocol=protocol).verdict is Verdict.FALSE


# --- clients ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "verdict"),
    [("john@signed.example", Verdict.STRICT), ("mary@signed.example", Verdict.LENIENT), ("signed.example", Verdict.FALSE)],
)
def test_clients(dane: Dane, site: Site, who: str, verdict: Verdict) -> None:
    peer = Peer(entries=[CertificateEntry(site.user.der)])
    context = peer_context(peer=peer, wanted=None, identities=(DoNAI.parse(who),), offered_role="client")
    assert dane.establish(context).verdict is verdict


def test_another_certificate_of_a_user(dane: Dane, site: Site) -> None:
    peer = Peer(entries=[CertificateEntry(site.other.der)])
    assert dane.establish(peer_context(peer=peer, wanted=JOHN, identities=(JOHN,), offered_role="client")).verdict is Verdict.FALSE


@pytest.mark.parametrize("wanted", ["mary@other.example", "signed.example", "other.example"])
def test_a_record_of_one_identity_vouches_for_no_other(dane: Dane, site: Site, wanted: str) -> None:
    """A certificate with a record at one of its identities, and a wanted one whose domain it also claims."""
    peer, identities = Peer(entries=[CertificateEntry(site.user.der)]), (JOHN, DoNAI.parse("other.example"))
    context = peer_context(peer=peer, wanted=DoNAI.parse(wanted), identities=identities, offered_role="client")
    assert dane.establish(context).verdict is Verdict.FALSE


def test_the_name_of_a_users_record() -> None:
    """The example of RFC 8162 section 3 and RFC 7929 section 3."""
    hashed = "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6"
    assert smimea_name(DoNAI.parse("hugh@example.com")) == f"{hashed}._smimecert.example.com."


# --- resolvers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("nameserver 192.0.2.53\n", []),
        ("nameserver 192.0.2.53\nnameserver 127.0.0.53\noptions edns0\n", []),
        ("nameserver 127.0.0.11\noptions ndots:0\n", []),  # of a container: it passes on what it hears
        ("options trust-ad\nnameserver 192.0.2.53\nnameserver 127.0.0.53\n", ["192.0.2.53", "127.0.0.53"]),
        ("nameserver 192.0.2.53\noptions edns0 trust-ad\n", ["192.0.2.53"]),
        ("# options trust-ad\nnameserver 192.0.2.53\n", []),
        ("nameserver ::1\nnameserver nonsense\nnameserver\noptions trust-ad\n", ["::1"]),
        ("", []),
    ],
)
def test_whose_word_is_taken(tmp_path: Path, text: str, asked: list[str]) -> None:
    (tmp_path / "resolv.conf").write_text(text)
    assert Resolver.of_system(tmp_path / "resolv.conf")._servers == tuple((server, 53) for server in asked)


def test_without_a_resolver_nothing_is_known(tmp_path: Path, site: Site) -> None:
    with pytest.raises(NoAnswer, match="trust-ad"):
        found(Dane(lambda: Resolver.of_system(tmp_path / "nothing")), 443, [site.server])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.1 does not answer"):
        found(Dane(lambda: Resolver([("127.0.0.1", port)])), 443, [site.server])


@pytest.mark.parametrize("aliases", [20, 0])
def test_an_answer_that_contradicts_itself_shows_nothing(monkeypatch: pytest.MonkeyPatch, aliases: int) -> None:
    """Aliases without end, or a record of a name that is said not to exist."""
    query = dns.message.make_query("_443._tcp.www.signed.example.", "TLSA")
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AD
    names = [query.question[0].name, *(dns.name.from_text(f"{number}.signed.example.") for number in range(aliases))]
    response.answer = [dns.rrset.from_text(one, 60, "IN", "CNAME", str(other)) for one, other in pairwise(names)]
    if not aliases:
        response.set_rcode(dns.rcode.NXDOMAIN)
        response.answer = [dns.rrset.from_text(names[0], 60, "IN", "TLSA", f"3 1 1 {'00' * 32}")]
    monkeypatch.setattr(resolver, "_ask", lambda *question: dns.message.from_wire(response.to_wire()))
    with pytest.raises(NoAnswer, match="nothing that can be used"):
        Resolver([("127.0.0.1", 53)]).look_up(str(names[0]), "TLSA")


def test_it_is_registered() -> None:
    (predicate,) = tlspool_register_predicates()
    assert (predicate.letter, predicate.types, predicate.cost()) == ("D", frozenset({"x509"}), 2)
