"""`python -m demo`: plays all scenes, then cleans up; with KEEP=1 in the environment it stays until it is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from demo import setting
from demo.scenes import certificates, gpg, kerberos, passwords, peers, proxy, radius
from demo.stage import DemoFailed, Stage

SCENES = (certificates, peers, passwords, gpg, radius, kerberos, proxy)


def main() -> int:
    """Play; the exit status says whether everything went as announced."""
    keep = os.environ.get("KEEP", "") not in ("", "0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with Stage() as stage:
        if keep:
            stage.environment["KEEP"] = "1"
        try:
            stage.title("Setting the stage: a token, an authority, databases, and the pool")
            prepared = setting.prepare(stage)
            for scene in SCENES:
                stage.title(scene.TITLE)
                scene.play(prepared)
        except (DemoFailed, KeyboardInterrupt) as failure:
            print(f"\nThe demonstration stopped: {failure}\n\nThe pool's last words:\n{stage.tail('pool')}", file=sys.stderr)
            return 1
        print(f"\nAll of it worked, in {time.monotonic() - started:.0f} s.", flush=True)
        if keep:
            stay(stage)
    return 0


def stay(stage: Stage) -> None:
    """Leave everything running until Ctrl-C, and say how to use it."""
    print("\nIt keeps running until Ctrl-C. In another terminal:")
    for name in ("SOFTHSM2_CONF", "TLSPOOL_CONFIG", "TLSPOOL_SOCKET", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        print(f"  export {name}={stage.environment[name]}")
    print("  .venv/bin/tlspool localid list; .venv/bin/tlspool token list; .venv/bin/tlspool explain www.tlspool.example .")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
