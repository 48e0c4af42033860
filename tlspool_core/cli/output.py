"""How commands print: tables for people, JSON for programs; and options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from tlspool_core.cli.context import Context
from tlspool_core.interfaces import Role
from tlspool_core.policy.expression import InvalidExpression, check_expression

F = TypeVar("F", bound=Callable[..., Any])

ROLES = {"client": Role.CLIENT, "server": Role.SERVER, "both": Role.BOTH}


def printable(text: str) -> str:
    """Without anything that a terminal would obey: what databases hold may come from elsewhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Columns as wide as their content; `empty` is said (on standard error) if there is no row."""
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [[head.upper() for head in heads], *([printable(cell) or "-" for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: Any) -> None:
    """For programs: stable order, readable by people too."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def role_name(role: Role) -> str:
    """`client`, `server` or `both`."""
    return next(name for name, value in ROLES.items() if value == role)


def _json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    context = ctx.find_object(Context)
    if value and context is not None:
        context.json = True


def _expression(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_expression(value)
    except InvalidExpression as error:
        raise click.BadParameter(str(error)) from None


json_option = click.option("--json", is_flag=True, expose_value=False, callback=_json, help="Print for programs.")
type_option = click.option("--type", "type_name", metavar="TYPE", help="Credential type, as listed by tlspool plugins.")
expression_option = click.option(
    "--expression", callback=_expression, metavar="EXPR", help='Validation expression, for example TI&; "" for none.'
)


def role_option(default: str | None) -> Callable[[F], F]:
    """`--role`, which is always one of three."""
    return click.option("--role", type=click.Choice([*ROLES]), default=default, show_default=True, help="In which role of TLS.")
