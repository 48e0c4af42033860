"""`tlspool x509 authority`: an authority of one's own, for certificates that are made on the fly.

Theory of operation
-------------------
The key is made in the token, by the token's own tool; this makes the self-signed certificate that goes with it.  Whoever has that
certificate among its authorities believes everything that the key signs.  So it is made for certain names only (name constraints, RFC
5280 section 4.2.1.10): should the key be misused, other names stay safe.  Addresses are excluded, since a constraint on names alone
would leave them free.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from tlspool_core.api import CliContext, Denied, DoNAI, InvalidIdentity, Key
from tlspool_x509.certificates import issued_by
from tlspool_x509.issuing import SKEW, IssuingPublicKey, way_of, with_signature

_DAYS = 730


class X509Commands:
    """Implements `CliCommand`: the group `tlspool x509`."""

    name = "x509"

    def command(self) -> click.Command:
        """The group."""
        return _group


@click.group()
def _group() -> None:
    """X.509 certificates."""


@_group.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", "uri", required=True, metavar="URI", help="The authority's private key.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    required=True,
    metavar="DOMAIN",
    help="Names at and below it may be certified; may be repeated.",
)
@click.option("--name", default="TLS Pool proxy", show_default=True, help="What browsers list it as.")
@click.option("--days", type=click.IntRange(1, 3650), default=_DAYS, show_default=True, help="How long it is valid.")
@click.pass_obj
def authority(context: CliContext, file: Path, uri: str, domains: Sequence[str], name: str, days: int) -> None:
    """Make the certificate of an authority for certificates on the fly, and write it to FILE (PEM).

    Name both in [credential.x509] as issuing_key and issuing_certificate, and import FILE into the browser that shall believe it.
    """
    try:
        permitted = [DoNAI.parse(domain) for domain in domains]
    except InvalidIdentity as error:
        raise click.UsageError(f"--domain: {error}") from None
    if any(one.user is not None for one in permitted):
        raise click.UsageError("--domain: a domain has no user")
    made = context.with_key(uri, lambda key: certify(key, name, [one.domain for one in permitted], datetime.now(UTC), days))
    try:
        with file.open("xb") as written:
            written.write(made.public_bytes(Encoding.PEM))
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    click.echo(f"{file}: {name}, for {', '.join(domains)}, until {made.not_valid_after_utc.date()}")


async def certify(key: Key, name: str, domains: Sequence[str], now: datetime, days: int) -> x509.Certificate:
    """The authority's certificate, signed by its own key. Raises Denied, KeyStoreError."""
    if key.public_key is None:
        raise Denied("the public key is not known: put it, or a certificate of it, into the token beside the private key")
    public = load_der_public_key(key.public_key)
    try:
        way = way_of(public)
    except ValueError as error:
        raise Denied(f"{key.uri}: {error}") from None
    assert isinstance(public, IssuingPublicKey)  # there is no way for others
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    lasts = (now - SKEW, now + timedelta(days=days))
    builder = x509.CertificateBuilder(subject, subject, public, x509.random_serial_number(), *lasts)
    for extension, critical in (
        (x509.BasicConstraints(True, 0), True),
        (x509.KeyUsage(False, False, False, False, False, True, False, False, False), True),
        (x509.NameConstraints([x509.DNSName(domain) for domain in domains], _EVERYWHERE), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
    ):
        builder = builder.add_extension(extension, critical)
    built = builder.sign(way.throwaway, way.algorithm)
    made = with_signature(built, await key.sign(way.scheme, built.tbs_certificate_bytes))
    if not issued_by(made, made):
        raise Denied(f"the signature of {key.uri} does not hold")
    return made


_EVERYWHERE = [x509.IPAddress(ipaddress.IPv4Network("0.0.0.0/0")), x509.IPAddress(ipaddress.IPv6Network("::/0"))]
