"""`tlspool db`: all three databases as one JSON document, out and in again, and whether they can be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.documents import DocumentError, Entries, build_document, parse_document
from tlspool_core.cli.output import printable
from tlspool_core.interfaces import ConfigWriter
from tlspool_core.policy.demands import spell_key
from tlspool_core.policy.expression import InvalidExpression, parse_expression

_MAX_DOCUMENT = 1 << 30


@click.group("db")
def database() -> None:
    """Copy the databases out and in, and check them. Private keys are in tokens, not in here."""


@database.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
@pass_context
def export(context: Context, file: Path) -> None:
    """Write all databases as JSON to FILE.

    Without FILE to standard output. It is one consistent state, also while the pool serves.
    """
    with context.backend(readonly=True).read() as reader:
        text = json.dumps(build_document(reader), indent=1, ensure_ascii=False) + "\n"
    if str(file) == "-":
        click.echo(text, nl=False)
        return
    try:
        with open(file, "w", encoding="utf-8", opener=_private) as output:
            output.write(text)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@database.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@click.option("--replace", is_flag=True, help="Remove everything that is there first.")
@pass_context
def import_(context: Context, file: TextIO, replace: bool) -> None:
    """Read from FILE what `export` wrote.

    Without FILE from standard input. All of it is taken or, if anything is wrong, nothing. Entries of the same name are replaced,
    others stay, unless --replace is given.
    """
    try:
        entries = parse_document(file.read(_MAX_DOCUMENT))
    except (DocumentError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{getattr(file, 'name', 'standard input')}: {error}") from None
    with context.backend().write() as writer:
        if replace:
            _empty(writer)
        for local in entries.localid:
            writer.put_localid(local)
        for selector, identities in entries.disclose:
            writer.put_disclose(selector, identities)
        for record in entries.trust:
            writer.put_trust(record)
    click.echo(entries.counted(), err=True)


def _empty(writer: ConfigWriter) -> None:
    for local in list(writer.localids()):
        writer.delete_localid(local.identity)
    for selector, _ in list(writer.disclosures()):
        writer.delete_disclose(selector)
    for record in list(writer.trusts()):
        writer.delete_trust(record.key)


@database.command()
@pass_context
def check(context: Context) -> None:
    """Report what cannot be used."""
    with context.backend(readonly=True).read() as reader:
        entries = Entries(tuple(reader.localids()), tuple(reader.disclosures()), tuple(reader.trusts()))
    problems = [*_expressions(entries), *_disclosures(entries), *_types(context, entries)]
    for problem in problems:
        click.echo(problem)
    if problems:
        raise click.ClickException(f"{len(problems)} entries cannot be used")
    click.echo(f"good: {entries.counted()}")


def _expressions(entries: Entries) -> Iterator[str]:
    texts = [(f"localid {local.identity}", local.expression) for local in entries.localid]
    texts += [(f"trust {spell_key(record.key)}", record.expression) for record in entries.trust]
    for where, text in texts:
        try:
            if text:
                parse_expression(text)
        except InvalidExpression as error:
            yield f"{where}: {error}"


def _disclosures(entries: Entries) -> Iterator[str]:
    known = {local.identity for local in entries.localid}
    for selector, identities in entries.disclose:
        for identity in identities:
            if identity not in known:
                yield f"disclose {selector}: there is no local identity {identity}"


def _types(context: Context, entries: Entries) -> Iterator[str]:
    known = {"", *context.registry.credential_types}
    for local in entries.localid:
        for credential in local.credentials:
            if credential.type not in known:
                yield f"localid {local.identity}: no plugin for credentials of type {credential.type} is installed"
            if credential.key_uri and (fault := context.key_fault(credential.key_uri)):
                yield f"localid {local.identity}: {printable(fault)}"
    for record in entries.trust:
        if record.type not in known:
            yield f"trust {spell_key(record.key)}: no plugin for type {record.type} is installed"
