"""`tlspool choose`: asks the person at the terminal whom to be towards a remote.

Theory of operation
-------------------
The program registers as the pool's identity desk.  For each question it shows what the disclosure database offers, and then reads one
line: a number, or an identity, perhaps followed by words that have the choice remembered.

    2                 be the second that is offered, this time
    mary@example.com always            remember it for this remote, before others
    mary@example.com last .example.com remember it for a selector, after others
    mary@example.com new               it is being created: wait for it
    mary@example.com onthefly          make a credential for this session
    (an empty line)   show nobody
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tlspool_core.cli.terminal import printable
from tlspool_core.client import PoolError
from tlspool_core.client.desks import IdentityDesk, IdentityRequest
from tlspool_core.identity import DoNAI, InvalidIdentity
from tlspool_core.wire.flags import LidentryFlags

_WORDS = {
    "always": LidentryFlags.DBINSERT | LidentryFlags.DBREORDER,
    "last": LidentryFlags.DBAPPEND | LidentryFlags.DBREORDER,
    "new": LidentryFlags.NEW,
    "onthefly": LidentryFlags.ONTHEFLY,
}
_SKIPS = {
    "known": LidentryFlags.SKIP_DBENTRY,
    "user": LidentryFlags.SKIP_USER,
    "domain": LidentryFlags.SKIP_DOMAIN_SAME,
    "above": LidentryFlags.SKIP_DOMAIN_ONEUP,
    "near": LidentryFlags.SKIP_DOMAIN_SUB,
    "notroot": LidentryFlags.SKIP_NOTROOT,
}


def selectors(request: IdentityRequest) -> tuple[str, ...]:
    """What a choice may be remembered for, the remote itself first."""
    return DoNAI.parse(request.remoteid, user_case_counts=True).selectors()[: request.maxlevels + 1]


def understood(line: str, request: IdentityRequest) -> tuple[str, str | None, LidentryFlags] | None:
    """Identity, selector and flags; None to show nobody. Raises ValueError saying what is wrong."""
    words = line.split()
    if not words:
        return None
    name, flags, selector = words[0], LidentryFlags.NONE, None
    if name.isdigit():
        if not 1 <= int(name) <= len(request.entries):
            raise ValueError(f"there is no number {name}")
        name = request.entries[int(name) - 1]
    else:
        name = str(DoNAI.parse(name, user_case_counts=True))
    for word in words[1:]:
        if word in _WORDS:
            flags |= _WORDS[word]
        elif word in selectors(request) and selector is None:
            selector = word
        else:
            raise ValueError(f"{word!r} is none of {', '.join([*_WORDS, *selectors(request)])}")
    if selector is not None and not flags & LidentryFlags.DBREORDER:
        raise ValueError("a selector goes with `always` or `last`")
    return name, selector, flags


def ask(request: IdentityRequest) -> str:
    """Have one question answered by the person; what was answered, in words."""
    click.echo(f"Whom to be towards {printable(request.remoteid)}?")
    for number, entry in enumerate(request.entries, 1):
        click.echo(f"  {number}  {printable(entry)}")
    while True:
        click.echo("> ", nl=False)
        line = sys.stdin.readline()
        try:
            answer = understood(line, request)
        except (ValueError, InvalidIdentity) as error:
            click.echo(str(error))
            continue
        if answer is None:
            request.decline()
            return "nobody"
        name, selector, flags = answer
        request.choose(name, selector=selector, flags=flags)
        return name


@click.command()
@click.option("--levels", default=8, show_default=True, type=click.IntRange(0, 255), help="How far up selectors may be.")
@click.option(
    "--skip", type=click.Choice([*_SKIPS]), multiple=True, help="Do not ask if the database has an entry; `known`: any entry."
)
@click.option("--timeout", default=300, show_default=True, type=click.IntRange(1, 600), help="Seconds for each answer.")
@click.option("--once", is_flag=True, help="End after the first question.")
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
def choose(levels: int, skip: tuple[str, ...], timeout: int, once: bool, path: Path | None) -> None:
    """Choose whom to be towards remotes, whenever an application leaves it open, until interrupted.

    Answer with a number or an identity; words after it: always, last (remember it, for the remote or for a selector that follows),
    new (wait until it is created), onthefly (make a credential now). An empty line shows nobody.

    \b
      mary@example.com always .example.com
    """
    flags = LidentryFlags.WANT_DBENTRY
    for each in skip:
        flags |= _SKIPS[each]
    try:
        with IdentityDesk(path, flags=flags, maxlevels=levels, timeout=timeout) as desk:
            desk.register()
            click.echo("waiting for questions of the TLS Pool", err=True)
            for request in desk:
                click.echo(f"{printable(request.remoteid)} sees {ask(request)}", err=True)
                if once:
                    return
    except PoolError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        return
