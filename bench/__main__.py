"""`python -m bench`: measures the contenders one after the other, prints a table, and says which goals are reached."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench import engine, load
from bench.contenders import LOAD_CORE, Contender, Site
from bench.load import Figure, middle
from bench.report import MEMORY_ROW, Report
from demo.stage import Stage

CONTENDERS = ("haproxy", "stunnel", "pool")
MIB = 1 << 20
PARTS = (", CPU", ", latency")
Rows = dict[str, dict[str, list[Figure]]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: shows that it runs, not how fast")
    parser.add_argument("--only", choices=CONTENDERS, action="append", help="measure only this one; may be repeated")
    parser.add_argument("--engine", action="store_true", help="only the engine by itself: no proxies, no pool, no token")
    parser.add_argument("--rows", default="", help="measure only rows with this text in their name")
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="measure each row so often, and take the median (default 3)"
    )
    parser.add_argument("--idle", type=int, default=1000, metavar="N", help="idle sessions to open (default 1000)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="run the pool under cProfile; read it with python -m pstats")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    return parser.parse_args()


def rows(options: argparse.Namespace) -> dict[str, Callable[[Contender], Figure | tuple[Figure, ...]]]:
    """What to measure, by the name of its row; a tuple has a row for each of PARTS."""
    size = (100 if options.quick else 1024) * MIB
    count = 50 if options.quick else 500
    idle = 100 if options.quick else options.idle
    work: dict[str, Callable[[Contender], Figure | tuple[Figure, ...]]] = {
        "full handshake, ECDSA P-256": lambda contender: load.handshakes(contender, "ecdsa", count),
        "full handshake, RSA-2048": lambda contender: load.handshakes(contender, "rsa", count),
        "resumed handshake": lambda contender: load.resumed(contender, "ecdsa", count),
        "bulk to backend": lambda contender: load.bulk_to_backend(contender, "ecdsa", size),
        "bulk from backend": lambda contender: load.bulk_from_backend(contender, "ecdsa", size),
        "64-byte round trip": lambda contender: load.round_trips(contender, "ecdsa", 10 * count),
        MEMORY_ROW: lambda contender: load.idle_memory(contender, "ecdsa", idle),
    }
    return {row: run for row, run in work.items() if options.rows in row}


def measure(row: str, run: Callable[[Contender], Figure | tuple[Figure, ...]], contenders: list[Contender], rounds: int) -> Rows:
    """Rounds of one row, the contenders taking turns, so that what disturbs one disturbs all."""
    found: dict[str, dict[str, list[Figure]]] = {}
    for number in range(rounds):
        for contender in contenders:
            print(f"{row}: {contender.name}, {number + 1} of {rounds}", file=sys.stderr, flush=True)
            figure = run(contender)
            parts = dict(zip(PARTS, figure, strict=True)) if isinstance(figure, tuple) else {"": figure}
            for part, value in parts.items():
                found.setdefault(row + part, {}).setdefault(contender.name, []).append(value)
    return found


def main() -> None:
    options = arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    if options.engine:
        print(engine.text(engine.measure(options.quick)))
        return
    names = [name for name in CONTENDERS if not options.only or name in options.only]
    report = Report(names)
    with Stage() as stage:
        stage.environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        site = Site(stage, options.profile and options.profile.absolute())
        contenders = [contender for name in names if (contender := site.start(name)) is not None]
        for row, run in rows(options).items():
            rounds = 1 if row == MEMORY_ROW else options.rounds
            for name, figures in measure(row, run, contenders, rounds).items():
                for who, values in figures.items():
                    report.add(name, who, middle(values))
    print(report.text())
    busy = os.getloadavg()[0]
    if busy > 2:
        print(f"The machine was busy with other work (load {busy:.1f}): figures are too high, interpreted code suffers most.")
    if not options.rows and not options.only:
        print("\nThe engine by itself\n" + engine.text(engine.measure(options.quick)))
    if options.json is not None:
        report.write_json(options.json)


if __name__ == "__main__":
    main()
