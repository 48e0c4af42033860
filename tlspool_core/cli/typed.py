"""Commands in which a credential type can be named by an option of its own: `--NAME` for `--type NAME`."""

from __future__ import annotations

import click

from tlspool_core.cli.context import Context


class TypedCommand(click.Command):
    """A command with `--type`; plugins are only looked up where an option is not the command's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Writes out what is short, up to a `--`."""
        own = {option for parameter in self.params for option in parameter.opts} | {*ctx.help_option_names, "--"}
        end = args.index("--") if "--" in args else len(args)
        written: list[str] = []
        for argument in args[:end]:
            named = argument.startswith("--") and argument.partition("=")[0] not in own and self._is_type(ctx, argument[2:])
            written += ["--type", argument[2:]] if named else [argument]
        return super().parse_args(ctx, written + args[end:])

    @staticmethod
    def _is_type(ctx: click.Context, name: str) -> bool:
        context = ctx.find_object(Context)
        return context is not None and name in context.registry.credential_types
