"""`tlspool localid`: local identities, their credentials, and who may use them."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.output import (
    ROLES,
    expression_option,
    json_option,
    print_json,
    print_table,
    printable,
    role_name,
    role_option,
    type_option,
)
from tlspool_core.cli.typed import TypedCommand
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigReader, CredentialType, LocalCredential, LocalIdentity

MAX_FILE = 16 << 20


@click.group()
def localid() -> None:
    """Local identities and their credentials.

    An identity is a domain (www.example.com) or a user at a domain (john@example.com). Private keys stay where they are: a
    credential names its key by URI, and `tlspool token list` shows those URIs.
    """


def name_of(file: BinaryIO) -> str:
    """How to call a file in errors."""
    return str(getattr(file, "name", "standard input"))


def read_file(file: BinaryIO) -> bytes:
    """A file that an operator names. Raises click.ClickException."""
    data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise click.ClickException(f"{name_of(file)}: larger than {MAX_FILE} bytes")
    return data


def _uids(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[int, ...] | None:
    """Numbers out of numbers and names; None if the option was not given, nobody in particular for "any"."""
    if not values:
        return None
    found = []
    for value in values:
        if value == "any":
            return ()
        try:
            found.append(int(value) if value.isascii() and value.isdigit() else pwd.getpwnam(value).pw_uid)
        except KeyError:
            raise click.BadParameter(f"there is no user {value!r}") from None
        if found[-1] >= 2**32 - 1:
            raise click.BadParameter(f"{value} is no user's number")
    return tuple(dict.fromkeys(found))


uid_option = click.option(
    "--uid",
    "uids",
    multiple=True,
    callback=_uids,
    metavar="USER",
    help='Only these users\' applications may use it; "any" for all.',
)


def _entry(reader: ConfigReader, identity: DoNAI) -> LocalIdentity:
    entry = reader.localid(identity)
    if entry is None:
        raise click.ClickException(f"there is no local identity {identity}; `tlspool localid list` shows what is")
    return entry


@localid.command(cls=TypedCommand)
@click.argument("identity")
@click.argument("file", type=click.File("rb"), required=False)
@type_option
@role_option("both")
@click.option("--key", "key_uri", default="", metavar="URI", help="Where the private key is, by RFC 7512 for example.")
@click.option("--first", is_flag=True, help="Prefer this credential to those that are there.")
@expression_option
@uid_option
@pass_context
def add(
    context: Context,
    identity: str,
    file: BinaryIO | None,
    type_name: str | None,
    role: str,
    key_uri: str,
    first: bool,
    expression: str | None,
    uids: tuple[int, ...] | None,
) -> None:
    """Add a credential to IDENTITY, which is made if it is not there.

    FILE is the public part (a certificate with its chain, a public key; - for standard input), if the type has one. A credential of
    the same type, key and role is replaced: so a certificate is renewed.
    """
    kind = context.credential_type(type_name)
    name = context.identity(identity)
    public = _public(kind, file)
    made = LocalCredential(name, kind.name, ROLES[role], key_uri, public)
    with context.backend().write() as writer:
        entry = writer.localid(name) or LocalIdentity(name)
        credentials = _with(entry.credentials, made, first=first)
        writer.put_localid(_changed(replace(entry, credentials=credentials), expression, uids))
    if public:
        click.echo(f"{name}: {printable(context.summary(kind.name, public))}", err=True)
    if key_uri and (fault := context.key_fault(key_uri)):
        click.echo(f"Note: {printable(fault)}", err=True)


def _public(kind: CredentialType, file: BinaryIO | None) -> bytes:
    """What the type makes of the file; without one, the type says whether it can do without. Raises click.ClickException."""
    if file is None and type(kind).import_local is CredentialType.import_local:
        return b""
    try:
        return kind.import_local(b"" if file is None else read_file(file))
    except ValueError as error:
        raise click.ClickException(f"{'without a FILE' if file is None else name_of(file)}: {error}") from None


def _with(old: Sequence[LocalCredential], made: LocalCredential, *, first: bool) -> tuple[LocalCredential, ...]:
    """The credentials with one more, or with one replaced where it stood."""
    for position, credential in enumerate(old):
        if (credential.type, credential.roles, credential.key_uri) == (made.type, made.roles, made.key_uri) and not first:
            return (*old[:position], made, *old[position + 1 :])
    others = [each for each in old if (each.type, each.roles, each.key_uri) != (made.type, made.roles, made.key_uri)]
    return (made, *others) if first else (*others, made)


def _changed(entry: LocalIdentity, expression: str | None, uids: tuple[int, ...] | None) -> LocalIdentity:
    if expression is not None:
        entry = replace(entry, expression=expression)
    return entry if uids is None else replace(entry, allowed_uids=uids)


@localid.command("set")
@click.argument("identity")
@expression_option
@uid_option
@pass_context
def set_(context: Context, identity: str, expression: str | None, uids: tuple[int, ...] | None) -> None:
    """Change what is demanded of remotes that IDENTITY talks with, or who may use it."""
    if expression is None and uids is None:
        raise click.UsageError("say what to set: --expression or --uid")
    with context.backend().write() as writer:
        writer.put_localid(_changed(_entry(writer, context.identity(identity)), expression, uids))


@localid.command("list")
@json_option
@pass_context
def list_(context: Context) -> None:
    """List all local identities."""
    with context.backend(readonly=True).read() as reader:
        entries = list(reader.localids())
    if context.json:
        print_json([_described(context, entry) for entry in entries])
        return
    rows = []
    for entry in entries:
        for number, credential in enumerate(entry.credentials or (None,)):
            rows.append(_row(context, entry, credential, first=number == 0))
    print_table(("identity", "type", "role", "key", "public part"), rows, "no local identities yet; add one: tlspool localid add")


def _row(context: Context, entry: LocalIdentity, credential: LocalCredential | None, *, first: bool) -> list[str]:
    name = str(entry.identity) if first else ""
    if credential is None:
        return [name, "", "", "", ""]
    public = context.summary(credential.type, credential.public) if credential.public else ""
    return [name, credential.type, role_name(credential.roles), credential.key_uri, public]


def _described(context: Context, entry: LocalIdentity) -> dict[str, Any]:
    return {
        "identity": str(entry.identity),
        "expression": entry.expression,
        "allowed_uids": list(entry.allowed_uids),
        "credentials": [
            {
                "type": credential.type,
                "role": role_name(credential.roles),
                "key": credential.key_uri,
                "public": context.summary(credential.type, credential.public) if credential.public else "",
            }
            for credential in entry.credentials
        ],
    }


@localid.command()
@click.argument("identity")
@json_option
@pass_context
def show(context: Context, identity: str) -> None:
    """Show all that is stored for IDENTITY."""
    with context.backend(readonly=True).read() as reader:
        entry = _entry(reader, context.identity(identity))
    described = _described(context, entry)
    if context.json:
        print_json(described)
        return
    click.echo(f"identity    {entry.identity}")
    click.echo(f"expression  {entry.expression or '(none: the default applies)'}")
    click.echo(f"users       {', '.join(map(_user, entry.allowed_uids)) or 'any that reach the socket'}")
    for number, credential in enumerate(described["credentials"], 1):
        click.echo(f"credential {number}")
        for field, value in credential.items():
            click.echo(f"    {field:<7} {printable(value) or '-'}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@localid.command()
@click.argument("identity")
@click.option("--credential", type=click.IntRange(1), metavar="N", help="Only the credential with this number in `show`.")
@type_option
@pass_context
def remove(context: Context, identity: str, credential: int | None, type_name: str | None) -> None:
    """Remove IDENTITY, or some of its credentials. Keys are not touched."""
    with context.backend().write() as writer:
        entry = _entry(writer, context.identity(identity))
        if credential is None and type_name is None:
            writer.delete_localid(entry.identity)
            return
        kept = [
            each
            for number, each in enumerate(entry.credentials, 1)
            if number != (credential or number) or each.type != (type_name or each.type)
        ]
        if len(kept) == len(entry.credentials):
            raise click.ClickException(
                f"{entry.identity} has no such credential; `tlspool localid show {entry.identity}` lists them"
            )
        writer.put_localid(replace(entry, credentials=tuple(kept)))
