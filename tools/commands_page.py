"""Writes docs/reference/commands.md out of the commands themselves: `python -m tools.commands_page`.

A test compares the page with the commands, so that a new option without a page, or a page without its option, is noticed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tlspool_core.cli.root import COMMANDS, tlspool

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "commands.md"
HEAD = """# Commands

Made from the commands by `python -m tools.commands_page`. `tlspool man` writes the same as manual pages, `tlspool completion` completes
them in a shell. Commands that plugins bring are in their README.
"""


def _children(ctx: click.Context) -> Iterator[click.Context]:
    assert isinstance(ctx.command, click.Group)
    names = COMMANDS if ctx.parent is None else ctx.command.list_commands(ctx)
    for name in names:
        command = ctx.command.get_command(ctx, name)
        assert command is not None
        yield click.Context(command, info_name=name, parent=ctx)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield "```\n" + inspect.cleandoc(paragraph.removeprefix("\b").strip("\n")) + "\n```"
        else:
            yield " ".join(paragraph.split())


def _section(ctx: click.Context) -> Iterator[str]:
    depth = "##" if ctx.parent is None or ctx.parent.parent is None else "###"
    yield f"{depth} {ctx.command_path}"
    yield f"`{' '.join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])}`"
    yield from _paragraphs(ctx.command.help or "")
    options = [each for each in ctx.command.params if isinstance(each, click.Option)]  # params are without --help
    rows = [row for option in options if (row := option.get_help_record(ctx)) is not None]
    if rows:
        cells = [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in rows]
        yield "\n".join(["| option | meaning |", "|---|---|", *cells])
    if isinstance(ctx.command, click.Group):
        for child in _children(ctx):
            yield from _section(child)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    """The whole page."""
    root = click.Context(tlspool, info_name="tlspool", terminal_width=100)
    return "\n\n".join([HEAD.rstrip(), *_section(root)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
