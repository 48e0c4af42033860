"""`tlspool kdh`: which keys and tickets are usable, asked of keytabs, caches and the KDC themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import click

from tlspool_core.api import CliContext, DoNAI, InvalidIdentity, LocalCredential, Role
from tlspool_kdh.accounts import Account, Realms
from tlspool_kdh.mit import KerberosError, fetch, keytab_principals

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
@click.option("--remote", help="Host that clients are to ask tickets for.")
@click.pass_obj
def check(context: CliContext, service: str, remote: str | None) -> None:
    """Show which service keys there are, and whether clients get a ticket for the service on a remote host."""
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
        if account.principal:
            if local.roles & Role.CLIENT:
                yield Finding(identity, *_ticket(account, realms, service, remote))
            return
        keys = [one for one in keytab_principals(account.keytab) if realms.identity(one.principal) == local.identity]
    except (KerberosError, ValueError) as error:
        yield Finding(identity, False, str(error))
        return
    for one in keys:
        yield Finding(identity, one.usable, f"key of {one.principal}, version {one.version}, {one.enctype}")
    if not keys:
        yield Finding(identity, False, f"{account.keytab} has no key for a service on this host in a realm that is known")


def _ticket(account: Account, realms: Realms, service: str, remote: str | None) -> tuple[bool, str]:
    if not (account.ccache or account.keytab):
        return True, f"{account.principal}, by a password in the key store, which is not asked for here"
    if remote is None:
        return True, f"{account.principal} by {account.ccache or account.keytab}; name a host with --remote to ask for a ticket"
    try:
        held = fetch(account.source(None), realms.service(service, DoNAI.parse(remote)))
    except (LookupError, InvalidIdentity) as error:
        return False, str(error)
    return True, f"ticket of {held.client} for {held.service} until {datetime.fromtimestamp(held.ends, UTC):%Y-%m-%d %H:%M:%S} UTC"


class KdhCommands:
    """Registered as `tlspool kdh`."""

    name = "kdh"

    def command(self) -> click.Command:
        """The group."""
        return kdh
