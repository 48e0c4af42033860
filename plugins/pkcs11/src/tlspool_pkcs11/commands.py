"""`tlspool token list`, `tlspool token check` and `tlspool token certify`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from tlspool_core.api import CliContext, ConfigError, DoNAI, InvalidIdentity, KeyInfo, KeyStoreError, PinRequest, Secret
from tlspool_pkcs11.certify import certify as try_everything
from tlspool_pkcs11.check import KeyResult, Shown, check_key, shown_certificate, shown_chain, shown_record
from tlspool_pkcs11.key import Pkcs11Key
from tlspool_pkcs11.store import Pkcs11Store

T = TypeVar("T")


class TokenCommands:
    """Implements `CliCommand`: the group `tlspool token`."""

    name = "token"

    def command(self) -> click.Command:
        return token


@click.group()
def token() -> None:
    """Look at tokens, and test them, without changing anything in them.

    Tokens are reached through the modules of [keystore.pkcs11] in the configuration, or else through p11-kit or SoftHSM.
    """


_module = click.option(
    "--module", "modules", multiple=True, type=click.Path(dir_okay=False), help="Use this PKCS #11 module instead."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print for programs.")


@token.command("list")
@_module
@_json
@click.option("--login", is_flag=True, help="Ask for PINs that are not configured.")
@click.pass_context
def list_(context: click.Context, modules: tuple[str, ...], as_json: bool, login: bool) -> None:
    """Show what is usable: keys, certificates and secrets, each with the URI that names it."""
    infos = _run(context, modules, lambda store: store.inventory(human=login))
    if _wants_json(context, as_json):
        click.echo(json.dumps([asdict(info) for info in infos], indent=2))
        return
    if not infos:
        raise click.ClickException("no token is there; --module names a module, [keystore.pkcs11] configures one")
    for info in infos:
        _print_info(info)


def _print_info(info: KeyInfo) -> None:
    heading = " ".join(part for part in (info.kind, info.algorithm, repr(info.label) if info.label else "") if part)
    click.echo(heading)
    for name, value in (("uri", info.uri), ("signs", ", ".join(info.signature_schemes)), ("note", info.note)):
        if value:
            click.echo(f"    {name:<5} {value}")


@token.command("check")
@click.argument("uris", nargs=-1, metavar="[URI]...")
@_module
@_json
@click.option(
    "--chain", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Does the first certificate in this file match?"
)
@click.option("--localid", help="Check the keys of this local identity, and whether its records match.")
@click.pass_context
def check(
    context: click.Context, uris: tuple[str, ...], modules: tuple[str, ...], as_json: bool, chain: Path | None, localid: str | None
) -> None:
    """Make a test signature with every TLS scheme, verify it, and say which certificate belongs to the key.

    Without URI: all private keys. Exit status 1 if anything is wrong.
    """
    try:
        shown = list(shown_chain(chain.name, chain.read_bytes())) if chain else []
    except ValueError as error:
        raise click.ClickException(f"{chain}: holds no certificate: {error}") from None
    if localid:
        wanted, records = _records(context, localid)
        uris += tuple(wanted)
        shown += records
    results = _run(context, modules, lambda store: _check(store, uris, shown))
    if _wants_json(context, as_json):
        click.echo(json.dumps([{**asdict(result), "good": result.good} for result in results], indent=2))
    else:
        _print_results(results, expected=bool(shown))
    if not results or not all(result.good for result in results) or (shown and not any(result.matches for result in results)):
        context.exit(1)


@token.command("certify")
@_module
@_json
@click.option("--signatures", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many, of each key.")
@click.option("--pull", is_flag=True, help="Also have somebody pull the token and put it back.")
# opened at once: the trials take a while, and hands
@click.option("--report", type=click.File("w", lazy=False), metavar="FILE", help="Write the report, as JSON, to this file.")
@click.pass_context
def certify(
    context: click.Context, modules: tuple[str, ...], as_json: bool, signatures: int, pull: bool, report: IO[str] | None
) -> None:
    """Try all that the pool asks of a token library, with test keys of yours; for its vendor.

    Takes all private keys that can sign. Kills the process that has loaded the library, to see it come back; changes nothing in the
    token. Exit status 1 if a trial fails.
    """
    made = _run(
        context,
        modules,
        lambda store: try_everything(
            store, signatures=signatures, pull=pull, human=True, say=lambda text: click.echo(text, err=True)
        ),
    )
    text = json.dumps(made.as_object(), indent=2)
    if report is not None:
        report.write(text + "\n")
    if _wants_json(context, as_json):
        click.echo(text)
    elif made.passed:
        click.echo(f"all {len(made.trials)} trials passed")
    if not made.passed:
        context.exit(1)


def _records(context: click.Context, localid: str) -> tuple[Sequence[str], Sequence[Shown]]:
    """Key URIs and public parts of a local identity in the configured database."""
    try:
        identity = DoNAI.parse(localid)
        backend = _context(context).backend(readonly=True)
    except (InvalidIdentity, ConfigError) as error:
        raise click.ClickException(str(error)) from None
    try:
        with backend.read() as reader:
            entry = reader.localid(identity)
    finally:
        backend.close()
    credentials = [each for each in entry.credentials if each.key_uri.startswith("pkcs11:")] if entry else []
    if not credentials:
        raise click.ClickException(f"localid {identity} has no credential with a key in a token")
    return [each.key_uri for each in credentials], [
        shown_record(f"localid {identity}, {each.type}", each.public) for each in credentials
    ]


def _context(context: click.Context) -> CliContext:
    if context.obj is None:
        raise click.ClickException("this needs the configuration: run it as `tlspool token`")
    found: CliContext = context.obj
    return found


async def _check(store: Pkcs11Store, uris: Sequence[str], shown: Sequence[Shown]) -> Sequence[KeyResult]:
    infos = await store.inventory(human=not uris)
    wanted = uris or [info.uri for info in infos if info.kind == "private-key"]
    certificates = [shown_certificate(f"in the token, {label}", der) for label, der in await store.certificates()]
    results = []
    for uri in wanted:
        try:
            key = await store.find(uri)
            assert isinstance(key, Pkcs11Key)
            results.append(await check_key(key, [*certificates, *shown]))
        except KeyStoreError as error:
            results.append(KeyResult(uri, "", (), str(error)))
    return results


def _print_results(results: Sequence[KeyResult], *, expected: bool) -> None:
    if not results:
        click.echo("no private key is there; log in to a token by configuring its PIN", err=True)
    for result in results:
        click.echo(f"{'good' if result.good else 'BAD '}  {result.algorithm}  {result.uri}")
        if result.fault:
            click.echo(f"      {result.fault}")
        for scheme in result.schemes:
            click.echo(f"      {'ok  ' if not scheme.fault else 'FAIL'} {scheme.name}{': ' if scheme.fault else ''}{scheme.fault}")
        for name in result.not_offered:
            click.echo(f"      --   {name}: the token has no mechanism for it")
        for match in result.matches:
            click.echo(f"      certificate {match}")
        if not result.matches and not result.fault:
            click.echo(f"      no certificate {'that was given ' if expected else ''}holds this public key")


def _wants_json(context: click.Context, option: bool) -> bool:
    return option or (context.obj is not None and _context(context).json)


def _settings(context: click.Context, modules: Sequence[str]) -> Mapping[str, Any]:
    if modules:
        return {"modules": [{"path": str(Path(path).resolve())} for path in modules]}
    return _context(context).settings("keystore", "pkcs11") if context.obj is not None else {}


async def _nobody(request: PinRequest) -> Secret | None:
    """Without the surroundings of `tlspool` there is no one to ask."""
    return None


def _run(context: click.Context, modules: Sequence[str], work: Callable[[Pkcs11Store], Awaitable[T]]) -> T:
    """Do something with a store that lives as long as it takes."""

    async def main() -> T:
        store = Pkcs11Store()
        await store.start(_settings(context, modules), _context(context).ask_pin if context.obj is not None else _nobody)
        try:
            return await work(store)
        finally:
            await store.stop()

    try:
        return asyncio.run(main())
    except KeyStoreError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.ClickException(f"[keystore.pkcs11]: {error}") from None
