"""A small ordinary HTTP program: it holds no key, and hands each socket that it accepts to the pool.

`python -m demo.web PORT LOCALID request|require` serves until it is ended.
"""

from __future__ import annotations

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from tlspool_core.client import PoolError, Session, StartTlsFlags, starttls_server


class Page(BaseHTTPRequestHandler):
    """Greets the client by the identity that the pool proved."""

    session: Session

    def do_GET(self) -> None:
        """Answer with the two identities."""
        visitor = self.session.remoteid or "(you showed none)"
        body = f"Hello, {visitor}.\nThis program is known as {self.session.localid}; it holds no key.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say who asked."""
        print(f"web: {self.session.remoteid or 'somebody'} asked {format % arguments}", flush=True)


def serve(server: HTTPServer, connection: socket.socket, address: tuple[str, int], localid: str, flags: StartTlsFlags) -> None:
    """One connection: TLS is the pool's, HTTP is ours."""
    try:
        session = starttls_server(connection, localid=localid, service="http", flags=flags)
    except PoolError as refusal:
        print(f"web: the pool refused a peer: {refusal}", flush=True)
        return
    handler = type("GreetingPage", (Page,), {"session": session})
    with session.plaintext as plain:
        handler(plain, address, server)


def main(port: str, localid: str, remote: str) -> None:
    """Accept for ever."""
    flags = StartTlsFlags.REQUEST_REMOTEID if remote == "request" else StartTlsFlags(0)
    server = HTTPServer(("127.0.0.1", int(port)), Page)
    while True:
        connection, address = server.socket.accept()
        threading.Thread(target=serve, args=(server, connection, address, localid, flags), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:4])
