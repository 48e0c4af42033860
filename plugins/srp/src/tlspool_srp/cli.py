"""`tlspool srp`: users and their verifiers. A password is asked on the terminal or read from standard input, never an argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import BinaryIO

import click

from tlspool_core.api import CliContext, DoNAI, InvalidIdentity
from tlspool_srp.bound import bind
from tlspool_srp.groups import GROUPS
from tlspool_srp.secrets import ClientAccount
from tlspool_srp.tpasswd import read_openssl, read_tpasswd
from tlspool_srp.verifiers import SEED_KEY, TYPE, Verifier, find_verifier, make_verifier, record_for, record_key


class Identity(click.ParamType[DoNAI]):
    """A `user@domain`."""

    name = "user@domain"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> DoNAI:
        """Parse, or complain in words."""
        if isinstance(value, DoNAI):
            return value
        try:
            identity = DoNAI.parse(str(value))
        except InvalidIdentity as error:
            self.fail(str(error), param, ctx)
        if identity.user is None:
            self.fail(f"{value} names no user; write user@domain", param, ctx)
        return identity


def ask_password() -> str:
    """From the terminal, twice; or one line of standard input where that is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


def store(context: CliContext, identity: DoNAI, verifier: Verifier, *, replace: bool) -> None:
    """Write one verifier; raises click.ClickException when it is there already, or not there yet."""
    with context.backend().write() as databases:
        there = bool(databases.trust(record_key(identity)))
        if there and not replace:
            raise click.ClickException(f"{identity} has a password already; change it with: tlspool srp passwd {identity}")
        if replace and not there:
            raise click.ClickException(f"{identity} is not known; add it with: tlspool srp add {identity}")
        databases.delete_trust(record_key(identity), TYPE)
        databases.put_trust(record_for(identity, verifier))


@click.group("srp")
def srp() -> None:
    """Users who authenticate by a password that never crosses the wire (SRP, RFC 5054)."""


group_option = click.option(
    "--bits", type=click.Choice([str(bits) for bits in GROUPS]), default="2048", show_default=True, help="Size of the group."
)


@srp.command("add")
@click.argument("identity", type=Identity())
@click.option("--user", help="Name that the client sends, if it is not the whole identity.")
@group_option
@click.pass_obj
def add(context: CliContext, identity: DoNAI, user: str | None, bits: str) -> None:
    """Add a user; the password is asked for."""
    store(context, identity, _make(user or str(identity), bits), replace=False)
    click.echo(f"added {identity}")


@srp.command("passwd")
@click.argument("identity", type=Identity())
@click.option("--user", help="Name that the client sends, if it changes.")
@group_option
@click.pass_obj
def passwd(context: CliContext, identity: DoNAI, user: str | None, bits: str) -> None:
    """Change a user's password."""
    with context.backend(readonly=True).read() as databases:
        known = find_verifier(databases, identity)
    store(context, identity, _make(user or (known.user if known else str(identity)), bits), replace=True)
    click.echo(f"changed the password of {identity}")


def _make(user: str, bits: str) -> Verifier:
    try:
        return make_verifier(user, ask_password(), int(bits))
    except ValueError as error:
        raise click.ClickException(str(error)) from None


@srp.command("list")
@click.pass_obj
def list_users(context: CliContext) -> None:
    """List users; verifiers are secrets and not shown."""
    rows = []
    with context.backend(readonly=True).read() as databases:
        for record in databases.trusts(TYPE):
            if record.key != SEED_KEY:
                verifier = Verifier.decode(record.blob)
                identity = record.key.partition(b":")[2].decode()
                rows.append({"identity": identity, "user": verifier.user, "bits": verifier.group.bits, "revoked": record.revoked})
    if context.json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['identity']}\t{row['user']}\t{row['bits']} bits{'  revoked' if row['revoked'] else ''}")


@srp.command("remove")
@click.argument("identity", type=Identity())
@click.pass_obj
def remove(context: CliContext, identity: DoNAI) -> None:
    """Remove a user."""
    with context.backend().write() as databases:
        if not databases.delete_trust(record_key(identity), TYPE):
            raise click.ClickException(f"{identity} is not known")
    click.echo(f"removed {identity}")


@srp.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--conf", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The tpasswd.conf beside a srptool file."
)
@click.option("--domain", help="Domain for user names that have none.")
@click.pass_obj
def import_file(context: CliContext, file: Path, conf: Path | None, domain: str | None) -> None:
    """Import a tpasswd file of srptool (with --conf), or a file of `openssl srp`. All of it, or nothing."""
    try:
        text = file.read_text()
        verifiers = list(read_tpasswd(text, conf.read_text()) if conf else read_openssl(text))
        users = [(DoNAI.parse(one.user if "@" in one.user else f"{one.user}@{domain or ''}"), one) for one in verifiers]
    except (ValueError, OSError) as error:
        raise click.ClickException(f"{file}: {error}; nothing was imported") from None
    with context.backend().write() as databases:
        for identity, verifier in users:
            databases.delete_trust(record_key(identity), TYPE)
            databases.put_trust(record_for(identity, verifier))
    click.echo(f"imported {len(users)} users")


@srp.command("bind")
@click.argument("identity", type=Identity())
@click.argument("account", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--server", required=True, help="The server's identity.")
@click.option("--user", help="Name that the server knows, if it is not the whole identity.")
@click.option("--public", required=True, type=click.File("rb"), help="Public half of the key in the token, PEM or DER.")
def bind_account(identity: DoNAI, account: Path, server: str, user: str | None, public: BinaryIO) -> None:
    """Bind a new password to a key in a token (SRP#11): writes the client's ACCOUNT, and the password to standard output.

    The password is for `tlspool srp add` on the server, once; nobody needs to keep it.
    """
    name = user or str(identity)
    try:
        at = DoNAI.parse(server)
        point, password = bind(public.read(), name, str(at))
        with account.open("xb") as file:
            file.write(ClientAccount(name, at, point=point).encode())
    except (InvalidIdentity, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(password)


class SrpCommands:
    """What the hook registers."""

    name = "srp"

    def command(self) -> click.Command:
        """The group."""
        return srp
