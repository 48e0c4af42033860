"""`tlspool disclose`: which local identities a client shows to which remotes."""

from __future__ import annotations

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.output import json_option, print_json, print_table
from tlspool_core.policy.disclosure import disclosed


@click.group()
def disclose() -> None:
    """Which local identities remotes may see.

    \b
    A selector stands for remote identities; the most concrete one that has an entry decides:
      www.example.com  .example.com  .com  .               for domains
      john@example.com  john@.com  @example.com  @.com  @. for users
    """


@disclose.command()
@click.argument("selector")
@click.argument("localids", nargs=-1, metavar="[LOCALID]...")
@click.option("--first", is_flag=True, help="Prefer these to those that are there.")
@pass_context
def add(context: Context, selector: str, localids: tuple[str, ...], first: bool) -> None:
    """Let remotes see local identities.

    Remotes that SELECTOR covers may see LOCALIDs, in order of preference; if none is named they are shown nothing.
    """
    remotes = str(context.selector(selector))
    names = [context.identity(text) for text in localids]
    with context.backend().write() as writer:
        old = writer.disclose(remotes) or ()
        joined = (*names, *old) if first else (*old, *names)
        writer.put_disclose(remotes, list(dict.fromkeys(joined)) if names else [])
        missing = [name for name in names if writer.localid(name) is None]
    for name in missing:
        click.echo(f"Note: there is no local identity {name} yet", err=True)


@disclose.command("list")
@json_option
@pass_context
def list_(context: Context) -> None:
    """List all selectors with what their remotes may see."""
    with context.backend(readonly=True).read() as reader:
        entries = list(reader.disclosures())
    if context.json:
        print_json([{"selector": selector, "localids": list(map(str, localids))} for selector, localids in entries])
        return
    rows = [[selector, ", ".join(map(str, localids)) or "(nothing)"] for selector, localids in entries]
    print_table(("remotes", "may see"), rows, "nothing is disclosed to anyone; allow it: tlspool disclose add")


@disclose.command()
@click.argument("remote")
@json_option
@pass_context
def show(context: Context, remote: str) -> None:
    """Show what the identity REMOTE may see, and which selector decides that."""
    with context.backend(readonly=True).read() as reader:
        found = disclosed(reader, context.identity(remote))
    selector, localids = found or ("", ())
    if context.json:
        print_json({"remote": remote, "selector": selector or None, "localids": list(map(str, localids))})
    elif found is None:
        click.echo(f"no selector covers {remote}: nothing is shown to it, unless a program that chooses identities says so")
    else:
        click.echo(f"by {selector}: {', '.join(map(str, localids)) or '(nothing)'}")


@disclose.command()
@click.argument("selector")
@click.argument("localids", nargs=-1, metavar="[LOCALID]...")
@pass_context
def remove(context: Context, selector: str, localids: tuple[str, ...]) -> None:
    """Remove the entry of SELECTOR, or some LOCALIDs from it."""
    remotes = str(context.selector(selector))
    names = [context.identity(text) for text in localids]
    with context.backend().write() as writer:
        old = writer.disclose(remotes)
        if old is None:
            raise click.ClickException(f"{remotes} has no entry; `tlspool disclose list` shows those that have")
        if absent := [str(name) for name in names if name not in old]:
            raise click.ClickException(f"{remotes} does not show {', '.join(absent)}")
        if kept := [each for each in old if each not in names] if names else []:
            writer.put_disclose(remotes, kept)
        else:
            writer.delete_disclose(remotes)
