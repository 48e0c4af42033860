"""`tlspool status`: what a running pool tells of itself."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.output import json_option, print_json, print_table, printable

_MOST = 1 << 24
_NOTHING: tuple[object, ...] = (None, "", 0, False, [], {})


def ask(path: str) -> dict[str, Any]:
    """The status as the pool sends it. Raises click.ClickException."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            link.connect(path)
            text = b""
            while (data := link.recv(65536)) and len(text) < _MOST:
                text += data
    except OSError as error:
        raise click.ClickException(
            f"no pool tells its status at {path}: {error.strerror or error}. Start one with `tlspool serve`; if one runs, give this command"
            " the same --config, whose [status] says where."
        ) from None
    try:
        found = json.loads(text)
    except ValueError:
        raise click.ClickException(f"what answers at {path} is no pool") from None
    assert isinstance(found, dict)
    return found


def total(workers: list[dict[str, Any]], key: str) -> int:
    """One number of all workers together; the sum of its parts where it has parts."""
    values = [worker[key] for worker in workers]
    return sum(sum(value.values()) if isinstance(value, dict) else value for value in values)


def reasons(workers: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Why sessions were refused, the most frequent reason first."""
    counted: Counter[str] = Counter()
    for worker in workers:
        counted.update(worker["refused"])
    return counted.most_common()


def lines(told: Any) -> Iterator[str]:
    """What a plugin tells of itself, for a person: a line for each thing, without what is empty."""
    for word, value in told.items() if isinstance(told, dict) else ():
        parts = value if isinstance(value, list) else [value]
        yield from (f"{word.replace('_', ' ')}: {_one(part)}" for part in parts if part not in _NOTHING)


def _one(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    texts = {key: ", ".join(map(_inner, value)) if isinstance(value, list) else value for key, value in part.items()}
    return "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in texts.items() if value not in _NOTHING)


def _inner(part: Any) -> str:
    return f"({_one(part)})" if isinstance(part, dict) else str(part)


def problems(workers: list[dict[str, Any]]) -> Iterator[str]:
    """What an operator should mend, each thing once."""
    for fault in dict.fromkeys(worker["reload_fault"] for worker in workers):
        if fault:
            yield f"the configuration of before serves, as the newest was refused: {fault}"
    for name, reason in {name: reason for worker in workers for name, reason in worker["plugins_failed"].items()}.items():
        yield f"plugin {name} cannot be used: it {reason}"
    for worker in workers:
        if worker["locking_fault"]:
            yield f"process {worker['pid']}: PINs may be swapped to disk ({worker['locking_fault']}): raise RLIMIT_MEMLOCK"


@click.command()
@click.option(
    "--socket", "path", type=click.Path(path_type=Path), help="Socket on which the pool tells it. [default: as configured]"
)
@json_option
@pass_context
def status(context: Context, path: Path | None) -> None:
    """Show what a running pool tells of itself: sessions, refusals, key stores, and what is to be mended."""
    path = path or context.config.status_path
    if path is None:
        raise click.ClickException("the configuration has no [status] path")
    found = ask(str(path))
    if context.json:
        print_json(found)
        return
    workers = found["workers"]
    age = time.time() - min(worker["started"] for worker in workers)
    click.echo(f"TLS Pool {found['version']}, configuration: {found['configuration']}, serving for {age:.0f} s")
    rows = [(word, str(total(workers, word))) for word in ("sessions", "established", "resumed", "refused", "ended")]
    rows += [(word.replace("_", " "), str(total(workers, word))) for word in ("octets_in", "octets_out")]
    rows += [(f"refused: {name.replace('_', ' ')}", str(count)) for name, count in reasons(workers)]
    print_table(("what", "number"), rows, "")
    for problem in problems(workers):
        click.echo(printable(problem))
    for worker in workers:
        for name, store in worker["key_stores"].items():
            click.echo(f"key store {name} (process {worker['pid']})")
            for line in lines(store):
                click.echo(f"  {printable(line)}")
