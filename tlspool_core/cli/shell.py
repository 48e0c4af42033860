"""`tlspool completion` and `tlspool man`: made from the commands themselves, so that they cannot lag behind."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_TLSPOOL_COMPLETE"
_HINTS = {
    "bash": "tlspool completion bash > ~/.local/share/bash-completion/completions/tlspool",
    "zsh": "tlspool completion zsh > a file named _tlspool in a directory of $fpath",
    "fish": "tlspool completion fish > ~/.config/fish/completions/tlspool.fish",
}


@click.command()
@click.argument("shell", type=click.Choice([*_HINTS]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
      tlspool completion bash > ~/.local/share/bash-completion/completions/tlspool
      tlspool completion zsh > _tlspool         in a directory of $fpath
      tlspool completion fish > ~/.config/fish/completions/tlspool.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    script = made(ctx.find_root().command, {}, "tlspool", _VARIABLE)
    # source() would start bash to learn its version; the script itself needs no more than this
    click.echo(script.source_template % script.source_vars())


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Write one page for each command into this directory."
)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def man(ctx: click.Context, output: Path | None, words: tuple[str, ...]) -> None:
    """Write manual pages: that of COMMAND to standard output, or all of them into a directory.

    Read one with: tlspool man localid add | man -l -
    """
    root = ctx.find_root()
    if output is None:
        click.echo(page(_found(root, words)), nl=False)
        return
    output.mkdir(parents=True, exist_ok=True)
    for each in _all(root):
        (output / f"{each.command_path.replace(' ', '-')}.1").write_text(page(each), encoding="utf-8")


def _child(ctx: click.Context, name: str) -> click.Context | None:
    assert isinstance(ctx.command, click.Group)
    command = ctx.command.get_command(ctx, name)
    return None if command is None else click.Context(command, info_name=name, parent=ctx)


def _found(root: click.Context, words: tuple[str, ...]) -> click.Context:
    at = root
    for word in words:
        below = _child(at, word) if isinstance(at.command, click.Group) else None
        if below is None:
            raise click.UsageError(f"there is no command {' '.join(words)!r}")
        at = below
    return at


def _all(ctx: click.Context) -> Iterator[click.Context]:
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            below = _child(ctx, name)
            if below is not None and not below.command.hidden:
                yield from _all(below)


# --- roff ---------------------------------------------------------------------------------------------------------------------


def _escape(text: str) -> str:
    """Text for roff: no line begins as a request, and a hyphen is one that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def _paragraphs(text: str) -> Iterator[str]:
    """A docstring's paragraphs; those after click's \\b keep their lines."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield f".nf\n{_escape(paragraph.removeprefix(chr(8)).strip(chr(10)))}\n.fi"
        else:
            yield _filled(paragraph)


def _filled(text: str) -> str:
    """Prose in lines that are not long, which roff fills anew."""
    return _escape(textwrap.fill(" ".join(text.split()), 76, break_long_words=False, break_on_hyphens=False))


def _today() -> str:
    """The date of the page; SOURCE_DATE_EPOCH makes builds alike (reproducible-builds.org)."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))


def _summary(command: click.Command) -> str:
    """The first sentence, without its full stop."""
    text = " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())
    return re.split(r"\.(?: |$)|: ", text)[0]


def page(ctx: click.Context) -> str:
    """The manual page of the command in its context."""
    command = ctx.command
    path = ctx.command_path
    title = path.replace(" ", "-")
    usage = " ".join([path, *command.collect_usage_pieces(ctx)])
    lines = [
        f'.TH "{_escape(title.upper())}" 1 "{_today()}" "tlspool {version("tlspool-core")}" "TLS Pool"',
        ".SH NAME",
        f"{_escape(title)} \\- {_escape(_summary(command))}",
        ".SH SYNOPSIS",
        f".B {_escape(usage)}",
        ".SH DESCRIPTION",
        "\n.PP\n".join(_paragraphs(command.help or "")),
        *_options(ctx),
        *_commands(ctx),
    ]
    return "\n".join(lines) + "\n"


def _options(ctx: click.Context) -> Iterator[str]:
    options = [parameter for parameter in ctx.command.get_params(ctx) if isinstance(parameter, click.Option)]
    rows = [row for option in options if (row := option.get_help_record(ctx)) is not None]
    if rows:
        yield ".SH OPTIONS"
    for names, text in rows:
        yield f".TP\n.B {_escape(names)}\n{_filled(text)}"


def _commands(ctx: click.Context) -> Iterator[str]:
    if not isinstance(ctx.command, click.Group):
        return
    yield ".SH COMMANDS"
    for name in ctx.command.list_commands(ctx):
        below = _child(ctx, name)
        if below is not None and not below.command.hidden:
            title = below.command_path.replace(" ", "-")
            yield f".TP\n.BR {_escape(title)} (1)\n{_filled(_summary(below.command))}."
