"""`tlspool kdh`: which keys and tickets are usable, asked of keytabs, caches and the KDC themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import click

from tlspool_core.api import CliContext, DoNAI, LocalCredential, Role
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.mit import Source, keytab_principals
from tlspool_kdh.tickets import ClientTicket
from tlspool_kdh.wallet import Tickets

TYPE = "kerberos"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    identity: str
    usable: bool
    text: str


@click.group("kdh")
def kdh() -> None:
    """Kerberos in TLS."""


@kdh.command("check")
@click.option("--service", default="host", show_default=True, help="Service to ask tickets for.")
@click.option("--remote", help="Host or user that clients are to ask tickets for.")
@click.pass_obj
def check(context: CliContext, service: str, remote: str | None) -> None:
    """Show which service keys there are, and whether clients, and servers that are users, get tickets."""
    realms = Realms(context.settings("credential", TYPE).get("realms", {}))
    with context.backend(readonly=True).read() as databases:
        locals_ = [one for entry in databases.localids() for one in entry.credentials if one.type == TYPE]
    findings = [finding for local in locals_ for finding in _check(local, realms, service, remote)]
    if context.json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            click.echo(f"{'ok ' if finding.usable else 'BAD'} {finding.identity}: {finding.text}")
        if not findings:
            click.echo("no local identity has a credential of type kerberos")
    if not all(finding.usable for finding in findings):
        raise SystemExit(1)


def _check(local: LocalCredential, realms: Realms, service: str, remote: str | None) -> Iterator[Finding]:
    identity = str(local.identity)
    try:
        account = Account.decode(local.public)
        if local.roles & Role.SERVER and account.keytab:
            yield from _keys(local, account, realms)
        elif local.roles & Role.SERVER and local.identity.user is None:
            yield Finding(identity, False, "a server on a host needs a keytab with the keys of its services")
        if local.roles & Role.CLIENT or local.identity.user is not None:
            names = () if account.principal else realms.names(service, local.identity)
            yield Finding(identity, *_ticket(account.source(names, local.key_uri, None), realms, service, remote))
    except (KerberosError, LookupError, ValueError) as error:
        yield Finding(identity, False, str(error))


def _keys(local: LocalCredential, account: Account, realms: Realms) -> Iterator[Finding]:
    """Keys by which a server opens tickets. One that is a user needs none, if it has tickets."""
    keys = [one for one in keytab_principals(account.keytab) if realms.identity(one.principal) == local.identity]
    for one in keys:
        yield Finding(str(local.identity), one.usable, f"key of {one.principal}, version {one.version}, {one.enctype}")
    if not keys and local.identity.user is None:
        text = f"{account.keytab} has no key for a service on this host in a realm that is known"
        yield Finding(str(local.identity), False, text)


def _ticket(source: Source, realms: Realms, service: str, remote: str | None) -> tuple[bool, str]:
    """Get a ticket-granting ticket, and one for the remote if there is any."""
    if not (source.ccache or source.keytab):
        if not source.key_uri:
            return False, f"{source}: there is neither ccache nor keytab, nor a key URI of a password"
        return True, f"{source}, by a password in the key store, which is not asked for here"
    tickets = Tickets()
    own = tickets.granting(source)
    if remote is None:
        return True, f"{_until(own)}; name a host or user with --remote to ask for a ticket"
    wanted = DoNAI.parse(remote)
    if wanted.user is not None:
        return True, f"{_until(own)}; between users the ticket for {wanted} is made when the two have met"
    return True, _until(tickets.get(source, realms.services(service, wanted)))


def _until(held: ClientTicket) -> str:
    return f"ticket of {held.client} for {held.service} until {datetime.fromtimestamp(held.ends, UTC):%Y-%m-%d %H:%M:%S} UTC"


class KdhCommands:
    """Registered as `tlspool kdh`."""

    name = "kdh"

    def command(self) -> click.Command:
        """The group."""
        return kdh
