"""`tlspool openpgp`: helps to bring a private key that gpg made into a token.

Theory of operation
-------------------
The pool itself never sees a private key.  This is for the operator, on a terminal: what `gpg --export-secret-keys` writes comes in on
standard input, and PKCS #8 for the token's own tool goes out on standard output, never to a terminal or a file of ours.
"""

from __future__ import annotations

import sys
import warnings
from typing import TextIO

import click

from tlspool_openpgp.packets import Malformed, Unsupported, dearmored

_MAX_INPUT = 1_000_000  # bytes


class OpenPgpCommands:
    """Registered under `tlspool openpgp`."""

    name = "openpgp"

    def command(self) -> click.Command:
        """The group."""
        return _group


@click.group()
def _group() -> None:
    """OpenPGP keys and tokens."""


@_group.command()
@click.argument("key_id", metavar="FINGERPRINT")
@click.option("--passphrase-file", type=click.File("r"), help="File with the passphrase of the exported key, if it has one.")
def pkcs8(key_id: str, passphrase_file: TextIO | None) -> None:
    """Turn the private half of the key or subkey FINGERPRINT into PKCS #8, for the tool of a token.

    \\b
      gpg --export-secret-keys FINGERPRINT | tlspool openpgp pkcs8 FINGERPRINT | softhsm2-util --import /dev/stdin ...
    """
    if sys.stdout.isatty():
        raise click.UsageError("a private key is not shown on a terminal; pipe it into the tool of the token")
    try:
        wanted = bytes.fromhex(key_id.replace(" ", ""))
        if len(wanted) not in (8, 20):
            raise ValueError("length")
    except ValueError:
        raise click.BadParameter("a fingerprint has 40 hexadecimal digits, a key id 16", param_hint="FINGERPRINT") from None
    passphrase = passphrase_file.readline().rstrip("\n") if passphrase_file else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pgpy imports is none of the operator's business
        from tlspool_openpgp.pgp import private_key  # here, since the daemon loads this module too
    try:
        octets = dearmored(sys.stdin.buffer.read(_MAX_INPUT), b"PRIVATE KEY BLOCK")
        click.echo(private_key(octets, wanted, passphrase), nl=False)
    except (Malformed, Unsupported) as fault:
        raise click.ClickException(str(fault)) from None
