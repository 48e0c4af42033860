"""Makes keys inside a SoftHSM token: the work of the person who manages tokens, which is not the pool's.

Run as a program, so that the token library is loaded in a process of its own:
`python -m demo.token MODULE TOKEN PIN-FILE LABEL ID-HEX` makes an EC P-256 key pair and prints its public key as PEM.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pkcs11
from cryptography.hazmat.primitives import serialization
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters


def main(module: str, token: str, pin_file: str, label: str, identifier: str) -> None:
    """Make one key pair that cannot leave the token."""
    library = pkcs11.lib(module)
    pin = Path(pin_file).read_text().strip()
    with library.get_token(token_label=token).open(rw=True, user_pin=pin) as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        public, _ = parameters.generate_keypair(store=True, label=label, id=bytes.fromhex(identifier))
        key = serialization.load_der_public_key(encode_ec_public_key(public))
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    sys.stdout.write(pem.decode())


if __name__ == "__main__":
    main(*sys.argv[1:6])
