"""A TLS 1.2 client's view of ServerHello: checked against what was offered, then asked (RFC 5246 section 7.4.1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlspool_core.tls.alerts import HandshakeFailure, IllegalParameter, UnofferedChoice
from tlspool_core.tls.certificate_types import cert_type_offer
from tlspool_core.tls.enums import CertificateType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extensions import Place, table_for
from tlspool_core.tls.messages import ClientHello, ServerHello
from tlspool_core.tls.seams import CipherSuite
from tlspool_core.tls.session_state import SessionState, parse_session_state
from tlspool_core.tls.settings import TLS12, ClientSettings
from tlspool_core.tls.suites import suites_for
from tlspool_core.tls.tls12.secure_renegotiation import check_server


class ServerAnswer:
    """A ServerHello that answers what we offered; `session` is what it resumes, None for a full handshake."""

    __slots__ = ("extended", "hello", "parsed", "session", "suite")

    def __init__(self, settings: ClientSettings, offered: ClientHello, hello: ServerHello) -> None:
        """Raises IllegalParameter, UnsupportedExtension, HandshakeFailure or a DecodeError."""
        self.hello = hello
        self.suite = _suite(settings, offered, hello)
        table = table_for(settings.extensions)
        self.parsed: dict[int, Any] = table.parse(Place.SERVER_HELLO_12, hello.extensions, offered.extensions)
        check_server(self.parsed.get(Ext.RENEGOTIATION_INFO))
        self.extended = Ext.EXTENDED_MASTER_SECRET in self.parsed
        self.session = _resumed(settings, offered, hello)
        if self.session is not None:
            self._check_resumed(self.session)
        elif settings.require_extended_master_secret and not self.extended:
            raise HandshakeFailure("the server has no extended master secret (RFC 7627)")
        if bool(self.suite.mac) != (Ext.ENCRYPT_THEN_MAC in self.parsed):
            raise HandshakeFailure(f"encrypt_then_mac does not go with {self.suite.name} (RFC 7366)")
        self._check_alpn(settings)

    def _check_resumed(self, session: SessionState) -> None:
        """RFC 5246 section 7.4.1.3 and RFC 7627 section 5.3."""
        if session.cipher_suite != self.suite.code:
            raise IllegalParameter("the session is resumed with another cipher suite")
        if session.extended_master_secret != self.extended:
            raise HandshakeFailure("extended master secret differs from that of the resumed session")

    def _check_alpn(self, settings: ClientSettings) -> None:
        alpn = self.parsed.get(Ext.ALPN)
        if alpn is not None and alpn not in settings.alpn:
            raise UnofferedChoice("an ALPN protocol that was not offered")

    def __contains__(self, code: int) -> bool:
        return code in self.parsed

    def get(self, code: int, default: Any = None) -> Any:
        """Parsed content of an extension."""
        return self.parsed.get(code, default)

    def server_type(self, settings: ClientSettings) -> int:
        """Type of the server's certificate, X.509 if the server says nothing. Raises UnofferedChoice."""
        return self._type(Ext.SERVER_CERTIFICATE_TYPE, settings.peer_certificate_types, settings)

    def client_type(self, settings: ClientSettings) -> int:
        """Type of the certificate that we are to show, likewise."""
        return self._type(Ext.CLIENT_CERTIFICATE_TYPE, (*settings.own_certificate_types, CertificateType.X509), settings)

    def _type(self, code: int, types: Sequence[int], settings: ClientSettings) -> int:
        """Extensions 19 and 20 (RFC 7250) go before cert_type, which speaks for both sides (RFC 6091 section 3.2)."""
        kind: int = CertificateType.X509
        if code in self.parsed:
            kind = self.parsed[code]
        elif Ext.CERT_TYPE in self.parsed:
            kind, types = self.parsed[Ext.CERT_TYPE], cert_type_offer(settings)
        if kind not in types:
            raise UnofferedChoice(f"certificate type {kind}")
        return kind


def _suite(settings: ClientSettings, offered: ClientHello, hello: ServerHello) -> CipherSuite:
    if hello.compression_method != 0:
        raise IllegalParameter("the server selects compression")
    suite = suites_for(settings).get(hello.cipher_suite)
    if suite is None or suite.version != TLS12 or suite.code not in offered.cipher_suites:
        raise UnofferedChoice(f"cipher suite 0x{hello.cipher_suite:04x}")
    return suite


def _resumed(settings: ClientSettings, offered: ClientHello, hello: ServerHello) -> SessionState | None:
    """An echo of our session_id resumes the session of that name, or of the ticket (RFC 5077 section 3.4)."""
    session_id = offered.legacy_session_id
    if not session_id or hello.legacy_session_id_echo != session_id:
        return None
    state = parse_session_state(settings.session.state) if settings.session is not None else None
    if state is None or not (offered.extensions.get(Ext.SESSION_TICKET) or session_id == state.session_id):
        raise IllegalParameter("the server resumes a session that was not offered")
    return state
