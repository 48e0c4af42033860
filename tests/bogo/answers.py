"""What the shim answers to the engine's questions, and the settings it makes out of the runner's flags."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.bogo.flags import Flags, Unimplemented
from tlspool_core.testing.peers import SoftwareCredential, examine
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls import questions as ask
from tlspool_core.tls.seams import CertificateEntry, PeerCredential
from tlspool_core.tls.settings import ClientSettings, ServerSettings, StoredSession
from tlspool_core.tls.signatures import schemes_for_key

OUR_VERSIONS = (0x0304, 0x0303)
REVERSE = {"no_tls13": 0x0304, "no_tls12": 0x0303}


@dataclass
class Clock:
    """Stands still, and is moved on by what the runner calls resumption delay: it compares ages of tickets exactly."""

    offset: int = 0
    start: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.start + self.offset


@lru_cache(maxsize=4)
def pem_chain(path: str) -> tuple[bytes, ...]:
    """DER certificates of a PEM file, end entity first."""
    return tuple(
        certificate.public_bytes(serialization.Encoding.DER)
        for certificate in x509.load_pem_x509_certificates(Path(path).read_bytes())
    )


@lru_cache(maxsize=4)
def load_key(path: str) -> Any:
    """The private key of a PEM file; OpenSSL reads the ones whose encoding is a little short."""
    data = Path(path).read_bytes()
    try:
        return serialization.load_pem_private_key(data, None)
    except ValueError:
        return serialization.load_pem_private_key(
            subprocess.run(["openssl", "pkey"], input=data, capture_output=True, check=True).stdout, None
        )


def versions(flags: Flags) -> tuple[int, ...]:
    """The versions that the flags leave. Raises Unimplemented if none of them is ours."""
    chosen = tuple(
        version
        for version in OUR_VERSIONS
        if (flags.min_version or 0) <= version <= (flags.max_version or 0xFFFF)
        and not (version == 0x0304 and flags.no_tls13)
        and not (version == 0x0303 and flags.no_tls12)
    )
    if not chosen:
        raise Unimplemented("a version below TLS 1.2")
    return chosen


def common_settings(flags: Flags, clock: Clock) -> dict[str, Any]:
    """Settings that both roles share."""
    settings: dict[str, Any] = {
        "versions": versions(flags),
        "groups": tuple(flags.curves),
        "signature_schemes": tuple(flags.verify_prefs),
        "now": clock,
        "require_extended_master_secret": False,
        "certificate_compression": False,
    }
    if flags.max_cert_list:
        settings["max_certificate_message"] = flags.max_cert_list
    return settings


def alpn_list(text: str) -> tuple[bytes, ...]:
    """`-advertise-alpn` is a list of length-prefixed names."""
    data, names = text.encode("latin-1"), []
    while data:
        names.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return tuple(names)


def client_settings(flags: Flags, clock: Clock, session: StoredSession | None, answers: Answers) -> ClientSettings:
    """A client's settings."""
    return ClientSettings(
        **common_settings(flags, clock),
        server_name=flags.host_name or None,
        alpn=alpn_list(flags.advertise_alpn),
        session=session,
        want_ocsp=flags.enable_ocsp_stapling,
        want_scts=flags.enable_signed_cert_timestamps,
        post_handshake_auth=False,
    )


def server_settings(flags: Flags, clock: Clock, answers: Answers) -> ServerSettings:
    """A server's settings."""
    return ServerSettings(
        **common_settings(flags, clock),
        tickets=0 if flags.no_ticket else 2,
        ocsp_response=(lambda _: flags.ocsp_response) if flags.ocsp_response and not flags.decline_ocsp_callback else None,
    )


class Answers:
    """Answers the questions of one connection."""

    def __init__(self, flags: Flags, tickets: dict[bytes, bytes], *, is_resume: bool) -> None:
        self.flags = flags
        self.tickets = tickets
        self.is_resume = is_resume
        self.cached_session = False
        self.table: dict[type[Any], Callable[[Any], object]] = {
            ask.ChooseServerCredential: self.choose_server,
            ask.ChooseClientCredential: self.choose_client,
            ask.Sign: lambda q: q.credential.sign(q.scheme, q.content),
            ask.ExaminePeer: self.examine,
            ask.JudgePeer: self.judge,
            ask.OpenTicket: lambda q: None if flags.no_ticket else self.tickets.get(q.ticket),
            ask.SealTicket: self.seal_ticket,
            ask.ExternalPsk: lambda q: None,
            ask.Call: lambda q: q.work(),
        }

    def reply(self, connection: TlsConnection) -> None:
        """Answer the question that the connection waits for."""
        question = connection.question
        try:
            answer = self.table[type(question)](question)
        except alerts.TlsError as refusal:
            connection.refuse(refusal)
        else:
            connection.answer(answer)

    def credentials(self) -> tuple[SoftwareCredential, ...]:
        """Ours, out of the files that the flags name."""
        flags = self.flags
        if flags.fail_cert_callback:
            raise alerts.InternalError("the flags say so")
        if not flags.cert_file or not flags.key_file:
            return ()
        key = load_key(flags.key_file)
        extensions = {18: flags.signed_cert_timestamps} if flags.signed_cert_timestamps else {}
        chain = pem_chain(flags.cert_file)
        entries = [CertificateEntry(chain[0], extensions), *(CertificateEntry(data) for data in chain[1:])]
        schemes = tuple(flags.signing_prefs) or schemes_for_key(key.public_key())
        return (SoftwareCredential(key, entries, schemes),)

    def choose_server(self, question: ask.ChooseServerCredential) -> ask.ServerChoice:
        """Present ourselves as the flags say."""
        flags = self.flags
        if flags.fail_early_callback:
            raise alerts.HandshakeFailure("the flags say so")
        if flags.fail_ddos_callback or flags.fail_ocsp_callback:
            raise alerts.InternalError("the flags say so")
        if flags.reject_alpn:
            raise alerts.NoApplicationProtocol("the flags say so")
        self.check_offer(question.offer)
        if flags.require_any_client_certificate:
            client_auth = ask.ClientAuth.REQUIRE
        else:
            client_auth = ask.ClientAuth.REQUEST if flags.verify_peer else ask.ClientAuth.NONE
        return ask.ServerChoice(
            credentials=self.credentials(),
            alpn=(flags.select_alpn.encode(),) if flags.select_alpn and not flags.decline_alpn else (),
            client_auth=client_auth,
            certificate_authorities=ca_names(flags.use_client_ca_list),
        )

    def choose_client(self, question: ask.ChooseClientCredential) -> tuple[SoftwareCredential, ...]:
        """Show the certificate of the flags, if there is one."""
        self.check_offer(question.offer)
        expected = self.flags.expect_client_ca_list
        if expected and tuple(question.offer.certificate_authorities) != ca_names(expected):
            raise alerts.InternalError("other certificate_authorities than expected")
        return self.credentials()

    def check_offer(self, offer: ask.PeerOffer) -> None:
        """Compare what the peer offers with what the flags expect."""
        if self.flags.expect_peer_verify_pref and list(offer.signature_schemes) != self.flags.expect_peer_verify_pref:
            raise alerts.InternalError(f"peer offers {list(offer.signature_schemes)}")
        if self.flags.expect_advertised_alpn and tuple(offer.alpn) != alpn_list(self.flags.expect_advertised_alpn):
            raise alerts.InternalError(f"peer offers ALPN {offer.alpn!r}")

    def judge(self, question: ask.JudgePeer) -> bytes:
        """Accept anybody, unless the flags say that verification fails."""
        flags, facts = self.flags, question.facts
        if not flags.server and flags.fail_ocsp_callback and flags.use_ocsp_callback:
            raise alerts.BadCertificateStatusResponse("the flags say so")
        checks = flags.verify_peer or flags.use_custom_verify_callback
        if flags.verify_fail and checks and question.peer is not None and (not facts.resumed or flags.reverify_on_resume):
            kind = alerts.CertificateUnknown if flags.use_custom_verify_callback else alerts.HandshakeFailure
            raise kind("the flags say so")
        return b""

    def examine(self, question: ask.ExaminePeer) -> PeerCredential:
        """Parse the certificate, and demand of its key usage what a signature needs."""
        try:
            certificate = x509.load_der_x509_certificate(question.entries[0].data)
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            return examine(question.certificate_type, question.entries)
        except ValueError:
            raise alerts.DecodeError("no X.509 certificate") from None
        if not usage.digital_signature:
            raise alerts.IllegalParameter("the certificate's key is not for signatures")
        return examine(question.certificate_type, question.entries)

    def seal_ticket(self, question: ask.SealTicket) -> bytes | None:
        """Tickets are numbers of entries in our table."""
        if self.flags.no_ticket:
            return None
        self.cached_session = True
        ticket = os.urandom(32)
        self.tickets[ticket] = question.state
        return ticket

    def expected_peer_chain(self) -> list[bytes]:
        """The chain that the runner shows, by its file."""
        return list(pem_chain(self.flags.expect_peer_cert_file))


def ca_names(text: str) -> tuple[bytes, ...]:
    """`-use-client-ca-list`: hexadecimal DER names separated by commas; "<EMPTY>" and "<NULL>" stand for none."""
    if not text or text.startswith("<"):
        return ()
    return tuple(bytes.fromhex(name) for name in text.split(","))
