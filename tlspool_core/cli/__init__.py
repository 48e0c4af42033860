"""The `tlspool` command: `main` is its entry point; `root` has the group, and each command is a module of its own."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process."""
    from tlspool_core.cli.root import tlspool  # imports click, which programs that only import this package do not need

    tlspool(prog_name="tlspool")
