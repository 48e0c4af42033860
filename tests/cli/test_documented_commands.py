"""Is the reference of commands that of the code, and can every command that a page shows be typed?"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

from tlspool_core.cli.root import COMMANDS, tlspool

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/README.md")])
# a line of a code block, with a prompt or without; what follows is the shell's
LINE = re.compile(r"^(?:\$ )?tlspool ([a-z].*?)(?:\s+[|>&].*|\s+#.*)?$", re.MULTILINE)


def shown(page: Path) -> list[str]:
    """Commands in the code blocks of a page."""
    blocks = re.findall(r"^```(?:sh|console|text|)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [found for block in blocks for found in LINE.findall(block.replace("\\\n", " "))]


def typed(line: str) -> None:
    """Parse a command as click does, without running it. Raises click.UsageError."""
    context = click.Context(tlspool, info_name="tlspool")
    words = shlex.split(line)
    while isinstance(context.command, click.Group) and words:
        name = words.pop(0)
        if context.parent is None and name not in COMMANDS:
            return  # a plugin's, which need not be installed
        command = context.command.get_command(context, name)
        if command is None:
            raise click.UsageError(f"no command {name}")
        context = click.Context(command, info_name=name, parent=context)
    context.command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_can_be_typed(page: Path) -> None:
    for line in shown(page):
        try:
            typed(line)
        except click.UsageError as error:
            pytest.fail(f"{page.relative_to(ROOT)}: tlspool {line}: {error.format_message()}")


def test_a_command_that_cannot_be_typed_is_noticed() -> None:
    for line in ("localid ad x", "localid add x --no-such-option"):
        with pytest.raises(click.UsageError):
            typed(line)
    assert len([line for page in PAGES for line in shown(page)]) > 5


def test_the_reference_of_commands_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from tools import commands_page

    assert commands_page.PAGE.read_text() == commands_page.page(), "run: python -m tools.commands_page"
