"""Import of verifiers that other programs keep: `tpasswd` files of GnuTLS's srptool and of `openssl srp`.

Theory of operation
-------------------
srptool writes two files: `tpasswd` with `user:verifier:salt:index`, and `tpasswd.conf` with `index:N:g`.  OpenSSL writes one file of
tab-separated records, `V user-record: V, verifier, salt, user, group, info`, and names groups by their size.  Both encode numbers in a
base64 of their own with the alphabet 0-9 A-Z a-z . / and, unlike base64, from the right: a number in base 64 with the leading zeros dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlspool_srp.groups import GROUPS, Group, find_group
from tlspool_srp.verifiers import Verifier

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz./"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}


def decode_number(text: str) -> int:
    """A number in the alphabet of tpasswd. Raises ValueError."""
    value = 0
    for character in text.strip():
        if character not in _VALUES:
            raise ValueError(f"{character!r} is not in the alphabet of tpasswd files")
        value = value << 6 | _VALUES[character]
    return value


def decode_octets(text: str) -> bytes:
    """Octets in that alphabet; the salt's leading zeros are lost in the format, so the shortest form is what was hashed."""
    value = decode_number(text)
    return value.to_bytes((value.bit_length() + 7) // 8 or 1)


def read_tpasswd(text: str, conf: str) -> Iterator[Verifier]:
    """Verifiers of a srptool file with its tpasswd.conf. Raises ValueError naming the line."""
    groups = dict(_read_conf(conf))
    for number, line in _lines(text):
        fields = line.split(":")
        if len(fields) < 4:
            raise ValueError(f"tpasswd line {number}: expected user:verifier:salt:index")
        group = groups.get(fields[3])
        if group is None:
            raise ValueError(f"tpasswd line {number}: group {fields[3]} is none of RFC 5054, or is not in the conf file")
        yield _verifier(f"tpasswd line {number}", fields[0], group, fields[1], fields[2])


def _read_conf(text: str) -> Iterator[tuple[str, Group]]:
    for number, line in _lines(text):
        fields = line.split(":")
        if len(fields) < 3:
            raise ValueError(f"tpasswd.conf line {number}: expected index:N:g")
        group = find_group(decode_octets(fields[1]), decode_octets(fields[2]))
        if group is not None:
            yield fields[0], group


def read_openssl(text: str) -> Iterator[Verifier]:
    """Verifiers of an `openssl srp` file. Raises ValueError naming the line."""
    for number, line in _lines(text):
        fields = line.split("\t")
        if fields[0] != "V":
            continue  # I: index of groups, R: revoked
        if len(fields) < 5 or not fields[4].isdigit() or int(fields[4]) not in GROUPS:
            raise ValueError(f"line {number}: expected V, verifier, salt, user and the bits of a group, separated by tabs")
        yield _verifier(f"line {number}", fields[3], GROUPS[int(fields[4])], fields[1], fields[2])


def _verifier(where: str, user: str, group: Group, verifier: str, salt: str) -> Verifier:
    value = decode_number(verifier)
    if not user or not 1 < value < group.prime:
        raise ValueError(f"{where}: the verifier of {user or '(nobody)'} is not within its group")
    return Verifier(user, group, decode_octets(salt), value)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line
