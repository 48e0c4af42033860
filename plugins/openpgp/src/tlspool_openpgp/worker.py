"""The process in which keys are read: one request after the other on standard input, one answer each on standard output.

Theory of operation
-------------------
It says `ready` first.  A request is one JSON line with a key in hexadecimal (`key`), and perhaps another whose certifications are asked
for (`by`).  An answer is one line too: `{"facts": ...}`, or `{"error": kind, "text": why}`.  The process has a limit on memory and
writes no file; whoever started it kills it when an answer does not come in time.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from typing import Any

from tlspool_openpgp import pgp
from tlspool_openpgp.packets import Malformed, Unsupported, Weak

MAX_REQUEST = 400_000  # bytes; two keys in hexadecimal
_MEMORY = 1 << 30


def answer(request: dict[str, str]) -> dict[str, Any]:
    """The answer to one request; nothing that pgpy may raise gets out."""
    try:
        key = bytes.fromhex(request["key"])
        by = request.get("by", "")
        return {"facts": pgp.certified(key, bytes.fromhex(by)) if by else pgp.read(key)}
    except Malformed as fault:
        return {"error": "malformed", "text": str(fault)}
    except Unsupported as fault:
        return {"error": "unsupported", "text": str(fault)}
    except Weak as fault:
        return {"error": "weak", "text": str(fault)}
    except Exception as fault:
        return {"error": "malformed", "text": f"it cannot be read ({type(fault).__name__})"}


def _confine() -> None:
    """No more memory than any key needs, no file to write, no core with what others' keys left."""
    for what, limit in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (limit, limit))


def main() -> None:
    """Serve until standard input ends."""
    _confine()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline(MAX_REQUEST):
        answers.write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
