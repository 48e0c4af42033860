"""The process that holds one token library: `python -m tlspool_pkcs11.worker PARENT`, its socket being standard input.

Theory of operation
-------------------
It reads requests, serves them one after the other, and answers in the same order, until the daemon closes the socket.  There is
one thread, so no library is ever entered twice at a time.  The first request names the library; what it contains comes from the
daemon's configuration and therefore not by the command line, which other users can read.

A fault of the library that arrives as a return value is answered with its number.  Anything worse - a crash, a hang - is for
the daemon to notice and to answer with a new process; nothing here tries to survive it.

Requests are read into locked memory; a PIN is in a `Secret` from there to C_Login, after which nothing is left of it but what the
library keeps.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext

from tlspool_core.secret import Secret, locking_fault
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.confinement import confine
from tlspool_pkcs11.cryptoki import Cryptoki
from tlspool_pkcs11.faults import CryptokiError, ckr_name
from tlspool_pkcs11.frames import Frames
from tlspool_pkcs11.library import Library, LibraryInfo
from tlspool_pkcs11.sessions import Sessions, UnknownReference

_RECEIVE = 16384  # in locked memory; a longer request, which is rare, takes more for a moment


class Refused(Exception):
    """The request makes no sense in the state that the worker is in."""


def load(request: wire.Configure) -> tuple[Library, LibraryInfo]:
    """Load the token library. Raises OSError and CryptokiError."""
    library = Cryptoki(request.path, request.init_string)
    return library, library.info()


class Worker:
    """Serves requests, given a way to load the library (which a test replaces)."""

    def __init__(self, loader: Callable[[wire.Configure], tuple[Library, LibraryInfo]] = load) -> None:
        self._loader = loader
        self._sessions: Sessions | None = None

    def answer(self, request: wire.Message) -> wire.Message:
        """The reply to one request; never raises for what the library does."""
        try:
            if type(request) is wire.Sign and request.pin is None:
                return wire.Value(self._loaded.sign(request))
            return self._answer_other(request)
        except CryptokiError as error:
            return wire.Failed(error.value, f"{error.function}: {ckr_name(error.value)}")
        except (UnknownReference, Refused, OSError) as error:
            return wire.Failed(0, str(error))

    @property
    def _loaded(self) -> Sessions:
        if self._sessions is None:
            raise Refused("no token library is loaded")
        return self._sessions

    def _answer_other(self, request: wire.Message) -> wire.Message:
        match request:
            case wire.Configure():
                return self._configure(request)
            case wire.ListTokens():
                return wire.Tokens(self._loaded.tokens())
            case wire.Login(slot, protected, pin):
                with pin or nullcontext():
                    self._loaded.login(slot, None if protected else pin)
                return wire.Done()
            case wire.Sign(pin=Secret() as pin):
                with pin:
                    return wire.Value(self._loaded.sign(request))
            case wire.ListObjects(slot):
                return wire.Objects(self._loaded.objects(slot))
            case wire.ReadValue(reference):
                return wire.Value(self._loaded.value(reference))
            case wire.Agree(reference, public, length):
                return wire.Value(self._loaded.agree(reference, public, length))
            case _:
                raise Refused(f"{type(request).__name__} is no request")

    def _configure(self, request: wire.Configure) -> wire.Message:
        if self._sessions is not None:
            raise Refused("a token library is loaded already")
        library, info = self._loader(request)
        self._sessions = Sessions(library)
        return wire.Loaded(info.manufacturer, info.description, *info.version, locking_fault())


def serve(channel: socket.socket, worker: Worker) -> None:
    """Answer requests until the other side closes. Raises ProtocolError and OSError."""
    frames = Frames(wire.REQUESTS)
    with Secret(_RECEIVE) as buffer:
        view = buffer.view
        while length := channel.recv_into(view):
            for number, request in frames.feed(view[:length]):
                channel.sendall(wire.build(number, worker.answer(request)))


def main() -> None:
    """Entry of the process."""
    if len(sys.argv) != 2 or not sys.argv[1].isascii() or not sys.argv[1].isdigit():
        raise SystemExit("this program is started by the TLS Pool")
    confine(int(sys.argv[1]))
    channel = socket.socket(fileno=os.dup(0))
    # a library that reads standard input must not find the socket there
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        serve(channel, Worker())
    except (wire.ProtocolError, OSError) as error:
        raise SystemExit(f"token worker: {error}") from None
    # libraries have been seen to hang or crash in their destructors: the kernel cleans up as well
    os._exit(0)


if __name__ == "__main__":
    main()
