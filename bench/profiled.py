"""Runs `tlspool` under cProfile with CPU time as clock, so that what others do meanwhile does not count.

`python -m bench.profiled FILE ARGUMENTS...`; read the file with `python -m pstats FILE`.
"""

from __future__ import annotations

import cProfile
import sys
import time

from tlspool_core.cli import main

if __name__ == "__main__":
    _, file, *arguments = sys.argv
    sys.argv = ["tlspool", *arguments]
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(main)
    finally:
        profile.dump_stats(file)
