"""`tlspool explain`: what would be demanded of a remote, where that comes from, and who would establish it."""

from __future__ import annotations

from dataclasses import asdict

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.output import json_option, print_json, print_table, printable, role_name
from tlspool_core.interfaces import LocalIdentity, Role
from tlspool_core.policy.demands import RemoteIdentity
from tlspool_core.policy.explain import Explanation
from tlspool_core.policy.explain import explain as explained
from tlspool_core.policy.predicates import PredicateTable

ANYBODY = (".", "@.", "-")


@click.command()
@click.argument("localid")
@click.argument("remoteid")
@click.option("--service", default="", metavar="NAME", help="IANA service name, for example http.")
@click.option("--role", type=click.Choice(["client", "server"]), help="Ours. [default: server for a domain, client for a user]")
@click.option(
    "--remote-identity", "mode", type=click.Choice([mode.value for mode in RemoteIdentity]), default="required", show_default=True
)
@json_option
@pass_context
def explain(context: Context, localid: str, remoteid: str, service: str, role: str | None, mode: str) -> None:
    """Show what would be demanded of REMOTEID when we are LOCALID, and why. A dot for REMOTEID means: whoever it is.

    Each letter of an expression is a predicate; upper case is its strict form. `&` is and, `|` or, `~` not, and `eti?` is: if i
    then t else e.
    """
    local = context.identity(localid)
    remote = None if remoteid in ANYBODY else context.identity(remoteid)
    ours = role or ("client" if local.user else "server")
    registry = context.registry
    table = PredicateTable(registry.predicates, registry.credential_types)
    rule = context.config.services.get(service)
    with context.backend(readonly=True).read() as reader:
        found = explained(
            reader,
            table,
            local=local,
            remote=remote,
            role=ours,
            mode=RemoteIdentity(mode),
            service=service,
            service_expression=rule.expression if rule is not None else "",
            default=context.config.policy.default,
        )
        own = reader.localid(local)
    if context.json:
        print_json(asdict(found))
        return
    _print_sides(context, found, own, remoteid)
    _print_demands(found)


def _print_sides(context: Context, found: Explanation, own: LocalIdentity | None, remoteid: str) -> None:
    click.echo(f"we are      {found.local}, the {found.role}" + ("" if own else "  (not in the databases!)"))
    wanted = Role.CLIENT if found.role == "client" else Role.SERVER
    for credential in own.credentials if own else ():
        if credential.roles & wanted:
            what = context.summary(credential.type, credential.public) if credential.public else ""
            click.echo(
                f"            {credential.type} ({role_name(credential.roles)}) {printable(what)} {credential.key_uri}".rstrip()
            )
    click.echo(f"remote      {found.remote or 'whoever it is'}, whose identity is {found.mode}")
    if found.disclosed_by:
        shown = ", ".join(found.disclosed) or "nothing"
        click.echo(f"it may see  {shown}  (by the disclosure to {found.disclosed_by})")
    elif found.role == "client":
        click.echo("it may see  what the application names as localid; nothing is disclosed to it otherwise")


def _print_demands(found: Explanation) -> None:
    click.echo(f"\ndemanded    {found.expression}")
    rows = [[demand.expression, demand.origin] for demand in found.demands]
    rows += [[demand.expression, f"{demand.origin}, if its chain leads there"] for demand in found.possible]
    print_table(("expression", "comes from"), rows, "nothing is demanded of it")
    click.echo()
    rows = [
        [line.letter, line.meaning, ", ".join(f"{kind}: {who}" if kind else who for kind, who in line.answers)]
        for line in found.predicates
    ]
    if rows:
        print_table(("predicate", "means", "is established by"), rows, "")
    for letter in found.never:
        click.echo(f"Note: nothing that is installed establishes {letter}", err=True)
