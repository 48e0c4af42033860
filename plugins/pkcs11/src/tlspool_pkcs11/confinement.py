"""What a worker process gives up before it loads a token library.

Theory of operation
-------------------
A token library is foreign code with a PIN in reach.  The daemon starts the worker by exec with an environment of a few chosen
variables, no other descriptors, and a session of its own; the worker then refuses core dumps and tracing (they would show the
PIN), new privileges by exec, and ends together with the daemon.  Access to devices and files is left as the daemon has it:
libraries need USB nodes, the socket of pcscd, or the network, each in its own way; the service manager is the place to limit
that.
"""

from __future__ import annotations

import ctypes
import os
import signal

from tlspool_core.secret import forbid_dumps

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def confine(parent: int) -> None:
    """Give up what is not needed. `parent` is the daemon's process id; raises SystemExit if that has ended meanwhile."""
    forbid_dumps()
    os.umask(0o077)
    # a terminal, or a service manager that stops the whole group, means the daemon: it drains, and closes the socket when done
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        # not Linux: the end of the socket is the sign to stop
        return
    prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)
    # the daemon may have ended before the first of these took effect
    if os.getppid() != parent:
        raise SystemExit(1)
