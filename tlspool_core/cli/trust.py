"""`tlspool trust`: anchors, pins, revocation, and rules for remotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.localid import name_of, read_file
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
from tlspool_core.interfaces import ConfigReader, TrustRecord
from tlspool_core.policy.demands import parse_key, remote_key, spell_key


@click.group()
def trust() -> None:
    """Whom to trust: anchors, pins, revocation lists, and rules for remotes."""


@trust.command(cls=TypedCommand)
@click.argument("files", nargs=-1, type=click.File("rb"), metavar="[FILE]...")
@type_option
@click.option("--pin", is_flag=True, help="FILE is the remote's own credential, not an authority's.")
@click.option(
    "--remote", metavar="SELECTOR", help="Instead of a FILE: a rule for remotes that SELECTOR covers; needs --expression."
)
@role_option("both")
@expression_option
@pass_context
def add(
    context: Context,
    files: tuple[BinaryIO, ...],
    type_name: str | None,
    pin: bool,
    remote: str | None,
    role: str,
    expression: str | None,
) -> None:
    """Trust what is in FILEs (- for standard input), for remotes in the given role.

    --TYPE is short for --type TYPE.

    \b
      tlspool trust add --type TYPE ca.pem                        an authority
      tlspool trust add --type TYPE --role server ca.pem          ... for servers only
      tlspool trust add --type TYPE --pin john.pem                one credential
      tlspool trust add --remote .example.com --expression TID&&  demand DNSSEC of these
    """
    if bool(files) == bool(remote):
        raise click.UsageError("give either FILEs or --remote")
    if remote:
        if not expression or pin or type_name:
            raise click.UsageError("--remote goes with --expression, and with neither --pin nor --type")
        records = [TrustRecord(remote_key(context.selector(remote)), "", ROLES[role], expression=expression)]
    else:
        records = _imported(context, files, type_name, pin)
        records = [replace(record, roles=ROLES[role], expression=expression or record.expression) for record in records]
    with context.backend().write() as writer:
        for record in records:
            if not record.type:
                writer.delete_trust(record.key, "")
            writer.put_trust(record)
    for record in records:
        click.echo(f"{spell_key(record.key)}: {_what(context, record)}", err=True)


def _imported(context: Context, files: Sequence[BinaryIO], type_name: str | None, pin: bool) -> list[TrustRecord]:
    kind = context.credential_type(type_name)
    records: list[TrustRecord] = []
    for file in files:
        try:
            records += kind.import_trust(read_file(file), pinned=pin)
        except ValueError as error:
            raise click.ClickException(f"{name_of(file)}: {error}") from None
    if not records:
        raise click.ClickException("there is nothing to trust in that")
    return records


def _what(context: Context, record: TrustRecord) -> str:
    if not record.type:
        return "rule"
    return printable(context.summary(record.type, record.blob)) if record.blob else ""


@trust.command("list")
@type_option
@json_option
@pass_context
def list_(context: Context, type_name: str | None) -> None:
    """List all trust records."""
    with context.backend(readonly=True).read() as reader:
        records = list(reader.trusts(type_name))
    if context.json:
        print_json([_described(context, record) for record in records])
        return
    rows = [
        [spell_key(record.key), record.type, role_name(record.roles), _flags(record), record.expression, _what(context, record)]
        for record in records
    ]
    print_table(("key", "type", "role", "flags", "expression", "what"), rows, "nothing is trusted yet; add it: tlspool trust add")


def _flags(record: TrustRecord) -> str:
    return ",".join(word for word, is_set in (("pinned", record.pinned), ("revoked", record.revoked)) if is_set)


def _described(context: Context, record: TrustRecord) -> dict[str, Any]:
    return {
        "key": spell_key(record.key),
        "type": record.type,
        "role": role_name(record.roles),
        "pinned": record.pinned,
        "revoked": record.revoked,
        "expression": record.expression,
        "what": _what(context, record),
    }


def _key(text: str) -> bytes:
    try:
        return parse_key(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _records(reader: ConfigReader, key: bytes, type_name: str | None) -> list[TrustRecord]:
    found = [record for record in reader.trust(key) if type_name is None or record.type == type_name]
    if not found:
        raise click.ClickException(f"there is no trust record {spell_key(key)}; `tlspool trust list` shows what is")
    return found


@trust.command()
@click.argument("key")
@type_option
@json_option
@pass_context
def show(context: Context, key: str, type_name: str | None) -> None:
    """Show all trust records of KEY (as `list` spells it)."""
    with context.backend(readonly=True).read() as reader:
        described = [_described(context, record) for record in _records(reader, _key(key), type_name)]
    if context.json:
        print_json(described)
        return
    for record in described:
        for field, value in record.items():
            text = value if isinstance(value, str) else "yes" if value else "no"
            click.echo(f"{field:<10}  {printable(text) or '-'}")
        click.echo()


@trust.command("set")
@click.argument("key")
@type_option
@role_option(None)
@expression_option
@click.option("--revoked/--not-revoked", default=None, help="Whether never to trust it again.")
@pass_context
def set_(context: Context, key: str, type_name: str | None, role: str | None, expression: str | None, revoked: bool | None) -> None:
    """Change trust records of KEY."""
    if role is None and expression is None and revoked is None:
        raise click.UsageError("say what to set: --role, --expression or --revoked")
    with context.backend().write() as writer:
        for record in _records(writer, _key(key), type_name):
            writer.put_trust(
                replace(
                    record,
                    roles=record.roles if role is None else ROLES[role],
                    expression=record.expression if expression is None else expression,
                    revoked=record.revoked if revoked is None else revoked,
                )
            )


@trust.command()
@click.argument("key")
@type_option
@pass_context
def remove(context: Context, key: str, type_name: str | None) -> None:
    """Remove the trust records of KEY."""
    with context.backend().write() as writer:
        _records(writer, _key(key), type_name)
        writer.delete_trust(_key(key), type_name)
