"""Makes a key pair inside a SoftHSM token, in a process of its own, and prints the public key as PEM.

`python -m bench.token MODULE TOKEN PIN ec|rsa ID-HEX`
"""

from __future__ import annotations

import sys

import pkcs11
from cryptography.hazmat.primitives import serialization
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key


def main(module: str, token: str, pin: str, kind: str, identifier: str) -> None:
    """Make it, store it, show its public half."""
    with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=pin) as session:
        number = bytes.fromhex(identifier)
        if kind == "rsa":
            public, _ = session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label=kind, id=number)
            der = encode_rsa_public_key(public)
        else:
            curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            public, _ = parameters.generate_keypair(store=True, label=kind, id=number)
            der = encode_ec_public_key(public)
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    sys.stdout.write(serialization.load_der_public_key(der).public_bytes(*form).decode())


if __name__ == "__main__":
    main(*sys.argv[1:6])
