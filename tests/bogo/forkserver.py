"""Starts shims quickly: a process that has imported everything forks one child for each test.

Theory of operation
-------------------
The runner starts a program for each of some thousands of tests; importing the engine's libraries would take most of the time.  So the
runner is given `launcher.py`, which needs no import beyond `socket`: it sends its arguments, with its standard streams as
descriptors, to this server, and ends with the status that comes back.
"""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import sys

from tests.bogo import shim


def serve(path: str) -> None:
    """Serve until killed; one forked child per connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            child(connection)
        connection.close()


def child(connection: socket.socket) -> None:
    """Run one shim with the launcher's arguments and streams; never returns."""
    descriptors = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_LEN(12))
    for _, _, payload in ancillary:
        descriptors.frombytes(payload)
    while not data.endswith(b"\0\0"):
        data += connection.recv(65536)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    status = 2
    try:
        status = shim.main([word.decode("utf-8", "surrogateescape") for word in data[:-2].split(b"\0")])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(struct.pack("B", status))
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
