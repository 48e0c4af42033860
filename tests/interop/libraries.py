"""Peers that are Python libraries: the newest OpenSSL (in `cryptography`, through pyOpenSSL), tlslite-ng, and Mbed TLS."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from mbedtls import pk, tls, x509
from OpenSSL import SSL
from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey

from tests.interop.peer import FEATURES, GROUPS, HELLO, TLS12, TLS13, Spec, ThreadPeer

SSL_VERSIONS = {TLS12: SSL.TLS1_2_VERSION, TLS13: SSL.TLS1_3_VERSION}


class PyOpenSsl(ThreadPeer):
    """The OpenSSL inside of `cryptography`'s wheels, which follows the newest release."""

    name = "OpenSSL (newest)"

    def _context(self, spec: Spec) -> SSL.Context:
        server, client = self.files.paths(spec.key), self.files.paths("ecdsa-p256", "client")
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL_VERSIONS[spec.version])
        context.set_max_proto_version(SSL_VERSIONS[spec.version])
        auth = spec.feature == "client certificate"
        own, other = (server, client) if spec.role == "client" else (client, server)
        if spec.role == "client" or auth:
            context.use_certificate_file(own[0])
            context.use_privatekey_file(own[1])
        context.load_verify_locations(other[0])
        if spec.role == "server" or auth:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *arguments: bool(arguments[-1]))
        if spec.feature == "ALPN" and spec.role == "client":
            context.set_alpn_select_callback(lambda connection, offered: b"wanted")
        elif spec.feature == "ALPN":
            context.set_alpn_protos([b"other", b"wanted"])
        context.set_session_id(b"interop")
        return context

    def play(self, spec: Spec, sock: socket.socket, state: dict[str, Any]) -> None:
        sock.settimeout(None)
        context = state.setdefault("context", self._context(spec))
        connection = SSL.Connection(context, sock)
        if spec.role == "client":
            connection.set_accept_state()
            try:
                while line := connection.recv(65536):
                    connection.sendall(line)
            except (SSL.ZeroReturnError, SSL.SysCallError):
                return
        connection.set_connect_state()
        connection.set_tlsext_host_name(b"testserver")
        if "session" in state:
            connection.set_session(state["session"])
        connection.sendall(HELLO)
        connection.recv(100)
        state["session"] = connection.get_session()
        connection.shutdown()


class TlsLite(ThreadPeer):
    """tlslite-ng: written in Python from end to end, so nothing is shared with the libraries in C."""

    name = "tlslite-ng"
    groups = frozenset(GROUPS) - {"X25519MLKEM768"}

    def _settings(self, spec: Spec) -> HandshakeSettings:
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, spec.version & 0xFF)
        settings.versions = [(3, spec.version & 0xFF)]
        settings.eccCurves = ["x25519", "secp256r1", "secp384r1", "secp521r1"]
        settings.keyShares = ["secp256r1"]
        settings.certificate_compression_send = []  # it compresses a client's certificate by its own offer, not by our request
        if spec.feature == "resumption":
            settings.ticketKeys = [bytes(32)]
        return settings

    def _credential(self, paths: tuple[str, str]) -> tuple[X509CertChain, Any]:
        chain = X509CertChain()
        chain.parsePemList(Path(paths[0]).read_text())
        return chain, parsePEMKey(Path(paths[1]).read_text(), private=True, implementations=["python"])

    def play(self, spec: Spec, sock: socket.socket, state: dict[str, Any]) -> None:
        connection, settings = TLSConnection(sock), self._settings(spec)
        alpn = [b"other", b"wanted"] if spec.feature == "ALPN" else None
        auth = spec.feature == "client certificate"
        if spec.role == "client":
            chain, key = self._credential(self.files.paths(spec.key))
            wanted = [bytearray(name) for name in alpn] if alpn else None
            connection.handshakeServer(certChain=chain, privateKey=key, reqCert=auth, settings=settings, alpn=wanted)
            if spec.feature == "KeyUpdate":
                for _ in connection.send_keyupdate_request(1):
                    pass
            while line := connection.recv(1000):
                connection.sendall(line)
            return
        chain, key = self._credential(self.files.paths("ecdsa-p256", "client")) if auth else (None, None)
        wanted = [bytearray(name) for name in alpn] if alpn else None
        connection.handshakeClientCert(
            certChain=chain, privateKey=key, session=state.get("session"), settings=settings, serverName="testserver", alpn=wanted
        )
        if spec.feature == "KeyUpdate":
            for _ in connection.send_keyupdate_request(1):
                pass
        connection.sendall(HELLO)
        connection.recv(100)
        state["session"] = connection.session
        connection.close()


class MbedTls(ThreadPeer):
    """Mbed TLS 2.28 through python-mbedtls: TLS 1.2 only."""

    name = "Mbed TLS"
    versions = frozenset((TLS12,))
    keys = frozenset(("ecdsa-p256", "ecdsa-p384", "rsa-2048"))
    groups = frozenset(("X25519", "P-256", "P-384", "P-521"))
    features = FEATURES - {"resumption"}  # the binding keeps no tickets

    def _configuration(self, spec: Spec) -> tls.TLSConfiguration:
        server, client = self.files.paths(spec.key), self.files.paths("ecdsa-p256", "client")
        auth = spec.feature == "client certificate"
        own, other = (server, client) if spec.role == "client" else (client, server)
        chain = None
        if spec.role == "client" or auth:
            kind = pk.RSA if spec.role == "client" and spec.key.startswith("rsa") else pk.ECC
            key = kind.from_PEM(Path(own[1]).read_text())
            chain = ((x509.CRT.from_PEM(Path(own[0]).read_text()),), key)
        store = tls.TrustStore()
        store.add(x509.CRT.from_PEM(Path(other[0]).read_text()))
        return tls.TLSConfiguration(
            trust_store=store,
            certificate_chain=chain,
            validate_certificates=auth or spec.role == "server",
            lowest_supported_version=tls.TLSVersion.TLSv1_2,
            highest_supported_version=tls.TLSVersion.TLSv1_2,
            inner_protocols=[b"other", b"wanted"] if spec.feature == "ALPN" else None,
        )

    def play(self, spec: Spec, sock: socket.socket, state: dict[str, Any]) -> None:
        sock.settimeout(None)
        if spec.role == "client":
            wrapped = tls.ServerContext(self._configuration(spec)).wrap_socket(sock)
        else:
            wrapped = tls.ClientContext(self._configuration(spec)).wrap_socket(sock, server_hostname="testserver")
        wrapped.do_handshake()
        if spec.role == "client":
            while line := wrapped.recv(1000):
                wrapped.send(line)
            return
        wrapped.send(HELLO)
        wrapped.recv(100)
