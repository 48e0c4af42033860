"""Makes the objects of the test token, in a process of its own: `fill_token.py MODULE LABEL PIN`, with SOFTHSM2_CONF set.

The plugin under test cannot do this, by design; so it is done with python-pkcs11.
"""

from __future__ import annotations

import sys

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

CURVES = {"p256": "secp256r1", "p384": "secp384r1", "p521": "secp521r1"}
# DER of the curves' object identifiers, 1.3.101.112 and 1.3.101.113
EDWARDS = {"ed25519": bytes.fromhex("06032b6570"), "ed448": bytes.fromhex("06032b6571")}


def _pair(session: pkcs11.Session, key_type: KeyType, curve: bytes, name: str, number: int, **private: bool) -> None:
    parameters = session.create_domain_parameters(key_type, {Attribute.EC_PARAMS: curve}, local=True)
    template = {Attribute[attribute]: value for attribute, value in private.items()}
    mechanism = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if key_type is KeyType.EC_EDWARDS else Mechanism.EC_KEY_PAIR_GEN
    parameters.generate_keypair(mechanism=mechanism, store=True, label=name, id=bytes([number]), private_template=template)


def main(module: str, label: str, pin: str) -> None:
    token = pkcs11.lib(module).get_token(token_label=label)
    with token.open(rw=True, user_pin=pin) as session:
        for number, (name, curve) in enumerate(CURVES.items(), 1):
            _pair(session, KeyType.EC, encode_named_curve_parameters(curve), name, number)
        for number, (name, curve) in enumerate(EDWARDS.items(), 11):
            _pair(session, KeyType.EC_EDWARDS, curve, name, number)
        session.generate_keypair(KeyType.RSA, 2048, store=True, label="rsa", id=b"\x41")
        _pair(session, KeyType.EC, encode_named_curve_parameters("secp256r1"), "careful", 31, ALWAYS_AUTHENTICATE=True)
        _pair(session, KeyType.EC, encode_named_curve_parameters("secp256r1"), "loose", 32, EXTRACTABLE=True, SENSITIVE=False)
        _pair(session, KeyType.EC, encode_named_curve_parameters("secp256r1"), "mute", 33, SIGN=False)
        data = {Attribute.CLASS: ObjectClass.DATA, Attribute.TOKEN: True, Attribute.PRIVATE: True}
        session.create_object({**data, Attribute.LABEL: "password", Attribute.VALUE: b"Joshua"})


if __name__ == "__main__":
    main(*sys.argv[1:])
