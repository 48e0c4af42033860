"""The program that BoringSSL's runner drives: one engine connection over a socket, per the runner's flags.

Theory of operation
-------------------
The runner listens; the shim connects to it, also when it plays the TLS server.  After the handshake the shim checks what the flags
expect, then echoes every byte it reads, inverted, until the runner closes.  With `-resume-count` it does so again, offering (or
accepting) the session of the connection before.  The exit status is 0 if everything went as the flags say, 1 if not, with the
reason on standard error, and 89 if the test needs what the engine does not have.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bogo.answers import Answers, Clock, client_settings, server_settings
from tests.bogo.flags import UNIMPLEMENTED, Flags, Unimplemented, parse_flags
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import AlertDescription, TlsError, Truncated
from tlspool_core.tls.settings import StoredSession


class Failed(Exception):
    """The connection did not do what the flags expect."""


class DecompressionFailure(TlsError):
    """An alert that the engine itself never sends."""

    alert = AlertDescription.DECOMPRESSION_FAILURE


@dataclass
class Shim:
    """State that outlives one connection: sessions of a client, tickets of a server, the clock."""

    clock: Clock = field(default_factory=Clock)
    tickets: dict[bytes, bytes] = field(default_factory=dict)
    session: StoredSession | None = None

    def run(self, initial: Flags, resumed: Flags) -> None:
        """All connections of one test."""
        for number in range(initial.resume_count + 1):
            flags = resumed if number else initial
            if number and not flags.server and self.session is None:
                raise Failed("No session to offer.")
            Exchange(self, flags, is_resume=number > 0).run()
            self.clock.offset += flags.resumption_delay


class Exchange:
    """One connection."""

    def __init__(self, shim: Shim, flags: Flags, *, is_resume: bool) -> None:
        self.shim = shim
        self.flags = flags
        self.is_resume = is_resume
        self.answers = Answers(flags, shim.tickets, is_resume=is_resume)
        self.socket = self._connect()
        session, shim.session = (shim.session, None) if is_resume else (None, None)
        settings = (
            server_settings(flags, shim.clock, self.answers)
            if flags.server
            else client_settings(flags, shim.clock, session, self.answers)
        )
        self.connection = TlsConnection(settings)
        self.got_new_session = False
        self.unfinished = b""  # rest of a record whose beginning is out

    def _connect(self) -> socket.socket:
        hosts = ["::1"] if self.flags.ipv6 else ["127.0.0.1", "::1"] if self.flags.shim_id >= 0 else ["::1", "127.0.0.1"]
        for host in hosts:
            with contextlib.suppress(OSError):
                connection = socket.create_connection((host, self.flags.port), timeout=30)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.flags.shim_id >= 0:
                    connection.sendall(struct.pack("<Q", self.flags.shim_id))
                return connection
        raise Failed("cannot connect to the runner")

    # --- moving bytes

    def flush(self) -> None:
        """Answer what is asked, and send what is due."""
        while self.connection.question is not None:
            self.answers.reply(self.connection)
        if data := self.unfinished + self.connection.data_to_send():
            self.unfinished = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.socket.sendall(data)

    def pump(self) -> bool:
        """Read once from the runner; False at the end. Raises the engine's error."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.connection.receive_eof()
            self.check()
            return False
        step = 1 if self.flags.async_ else len(data)
        for start in range(0, len(data), step):
            self.connection.receive(data[start : start + step])
            self.flush()
            self.check()
        return True

    def check(self) -> None:
        """Raise what made the connection fail, after the alert has gone out."""
        self.flush()
        if self.connection.failed is not None:
            raise self.connection.failed

    def run(self) -> None:
        """Handshake, checks, exchange of data, shutdown."""
        try:
            self.flush()
            self.check()
            while not self.connection.handshake_complete:
                if not self.pump() and not self.connection.handshake_complete:
                    raise Failed("the connection ended within the handshake")
            self.collect_sessions()
            self.check_handshake()
            self.exchange()
        finally:
            self.close()

    def close(self) -> None:
        """Let the runner read our last words before the socket goes."""
        self.flush()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(2)
            while self.socket.recv(4096):
                pass
        self.socket.close()

    # --- after the handshake

    def exchange(self) -> None:
        """What the flags want done with the connection."""
        self.write_exports()
        if self.flags.send_alert:
            self.connection._fail(DecompressionFailure("the flags say so"))
            self.flush()
            return
        if self.flags.write_different_record_sizes:
            for size in (0, 1, 255, 256, 257, 16383, 16384, 16385, 32767, 32768, 32769):
                self.connection.send(b"\x42" * size)
                self.flush()
        else:
            if self.flags.read_with_unfinished_write:
                self.connection.send(b"hello")
                record = self.connection.data_to_send()
                self.socket.sendall(record[:1])
                self.unfinished = record[1:]
            elif self.flags.shim_writes_first:
                self.connection.send(b"hello")
                self.flush()
            if not self.flags.shim_shuts_down:
                self.echo()
        self.check_sessions()
        self.shut_down()

    def echo(self) -> None:
        """Answer each byte with its complement until the runner closes."""
        size = self.flags.read_size or 512
        while True:
            data = self.connection.take_plaintext()
            for start in range(0, len(data), size):
                if self.flags.key_update:
                    self.connection.update_keys(request_peer=False)
                self.connection.send(bytes(byte ^ 0xFF for byte in data[start : start + size]))
                self.flush()
            self.collect_sessions()
            if data:
                continue
            if self.connection.peer_closed or not self.pump_or_end():
                return

    def pump_or_end(self) -> bool:
        """As `pump`; an end without close_notify counts as an end here, as in the reference shim."""
        try:
            return self.pump()
        except TlsError:
            if isinstance(self.connection.failed, Truncated) and not self.flags.check_close_notify:
                return False
            raise

    def shut_down(self) -> None:
        """Send close_notify; if we are first, wait for the runner's where it is to be checked."""
        self.connection.close()
        self.flush()
        if self.flags.shim_shuts_down and self.flags.check_close_notify:
            while not self.connection.peer_closed and self.pump():
                pass
            if not self.connection.peer_closed:
                raise Failed("no close_notify came back")
        if not self.flags.shim_shuts_down and self.flags.check_close_notify and not self.connection.peer_closed:
            raise Failed("the connection ended without close_notify")

    def write_exports(self) -> None:
        """Exporter output is sent for the runner to compare."""
        flags = self.flags
        if flags.export_keying_material:
            context = flags.export_context.encode() if flags.use_export_context else None
            self.connection.send(self.connection.export(flags.export_label.encode(), context, flags.export_keying_material))
        if flags.export_traffic_secrets:
            established = self.connection.established
            secrets = (established._read.secret, established._write.secret)  # type: ignore[attr-defined]
            self.connection.send(struct.pack("=H", len(secrets[0])) + secrets[0] + secrets[1])
        if flags.tls_unique:
            binding = self.connection.channel_binding("tls-unique")
            if binding is None:
                raise Failed("failed to get tls-unique")
            self.connection.send(binding)
        self.flush()

    # --- what the flags expect

    def collect_sessions(self) -> None:
        """Keep the newest session."""
        for session in self.connection.take_sessions() if not self.flags.server else ():
            self.got_new_session = True
            self.shim.session = session

    def check_handshake(self) -> None:
        """Everything that is known when the handshake is complete."""
        flags, facts, answers = self.flags, self.connection.facts, self.answers
        if facts.resumed is not (self.is_resume and not flags.expect_session_miss):
            raise Failed(f"session unexpectedly was{'' if facts.resumed else ' not'} reused")
        alpn = flags.select_alpn if flags.server else flags.expect_alpn
        expectations: list[tuple[str, object, object]] = [
            ("version", flags.expect_version, facts.version),
            ("cipher", flags.expect_cipher or flags.expect_cipher_aes, facts.cipher_suite),
            ("curve", flags.expect_curve_id, facts.group),
            ("signature algorithm", flags.expect_peer_signature_algorithm, facts.peer_signature_scheme),
            ("OCSP response", flags.expect_ocsp_response, facts.peer_ocsp),
            ("SCT list", flags.expect_signed_cert_timestamps, facts.peer_scts),
            ("server name", flags.expect_server_name, facts.server_name),
        ]
        for what, expected, actual in expectations:
            if expected and expected != actual:
                raise Failed(f"{what} was {actual!r}, wanted {expected!r}")
        if (facts.alpn or b"") != alpn.encode():
            raise Failed(f"negotiated alpn proto mismatch: {facts.alpn!r}")
        if (flags.expect_hrr and not facts.retried) or (flags.expect_no_hrr and facts.retried):
            raise Failed(f"HelloRetryRequest: {facts.retried}")
        if flags.expect_extended_master_secret and not (facts.extended_master_secret or facts.version > 0x0303):
            raise Failed("No EMS for connection when expected")
        if (not flags.server or flags.require_any_client_certificate) and self.connection.peer is None:
            raise Failed("Received no peer certificate but expected one.")
        if flags.expect_peer_cert_file:
            shown = [entry.data for entry in self.connection.peer.entries] if self.connection.peer else []
            if shown != answers.expected_peer_chain():
                raise Failed("Received a different chain than expected.")
        if not flags.server and facts.version < 0x0304:
            wanted = not flags.expect_no_session and (not facts.resumed or flags.expect_ticket_renewal)
            if wanted is not self.got_new_session:
                raise Failed(f"new session was{'' if self.got_new_session else ' not'} cached, but we expected the opposite")

    def check_sessions(self) -> None:
        """Tickets of TLS 1.3 come after the handshake."""
        if self.flags.server or self.connection.facts.version < 0x0304:
            return
        wanted = not self.flags.expect_no_session and not self.flags.shim_shuts_down
        if wanted is not self.got_new_session:
            raise Failed(f"new session was{'' if self.got_new_session else ' not'} cached, but we expected the opposite")


def main(arguments: Sequence[str]) -> int:
    """Run one test; returns the exit status."""
    try:
        initial, resumed = parse_flags(arguments)
        if initial.is_handshaker_supported:
            print("No")
            return 0
        Shim().run(initial, resumed)
    except Unimplemented as reason:
        print(f"unimplemented: {reason}", file=sys.stderr)
        return UNIMPLEMENTED
    except TlsError as error:
        print(f":{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        print("--- DONE ---", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    started = time.monotonic()
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)
