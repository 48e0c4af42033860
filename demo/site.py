"""A site of somebody else's, which does not know of the pool: it wants a client certificate, and keeps its own key in a file.

`python -m demo.site PORT CERTIFICATE KEY AUTHORITY` serves until it is ended.
"""

from __future__ import annotations

import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Page(BaseHTTPRequestHandler):
    """Greets the visitor, or tells the time until he has had enough."""

    protocol_version = "HTTP/1.1"
    connection: ssl.SSLSocket

    def do_GET(self) -> None:
        """Answer by path."""
        if self.path == "/clock":
            self._tell_the_time()
            return
        certificate = self.connection.getpeercert() or {}
        names = [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind == "email"]  # type: ignore[misc, str-unpack]
        body = f"Hello, {' and '.join(names)}. Your certificate is good.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _tell_the_time(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            line = time.strftime("It is %H:%M:%S.\n").encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            time.sleep(0.3)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Site(ThreadingHTTPServer):
    """TLS begins in the thread of each connection; one that fails is its visitor's problem."""

    daemon_threads = True

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", port), Page)
        self._context = context

    def process_request_thread(self, request: object, client_address: object) -> None:
        """One connection."""
        try:
            secured = self._context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
        except OSError:
            request.close()  # type: ignore[attr-defined]
            return
        super().process_request_thread(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor has left in the middle."""


def main(port: str, certificate: str, key: str, authority: str) -> None:
    """Serve for ever."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    Site(int(port), context).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:5])
