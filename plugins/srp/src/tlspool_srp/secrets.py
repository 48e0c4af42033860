"""Where a client's password comes from: a file, a token, or a person.

Theory of operation
-------------------
A local identity's record says how its password is had, never the password: the path of a file that only its owner can read, the URI of
a secret object in a token, the URI of a private key in a token and the point that it agrees with (SRP#11, see `bound`), or nothing,
which means that a person is asked.  The password is had anew for each handshake, used for the computation, and not kept.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tlspool_core.api import DoNAI, InvalidIdentity, KeyStoreError, LocalCredential, SessionContext
from tlspool_srp.bound import decode_point, derive_password, encode_point

_KNOWN = {"user", "server", "password_file", "point"}


@dataclass(frozen=True, slots=True)
class ClientAccount:
    """What the localid database holds for a client: user name as the server knows it, the server's identity, source of the password.

    `point` is DER SubjectPublicKeyInfo, empty unless the password is bound to a key in a token.
    """

    user: str
    server: DoNAI
    password_file: str = ""
    point: bytes = b""

    def encode(self) -> bytes:
        """As `LocalCredential.public`."""
        fields = {"user": self.user, "server": str(self.server), "password_file": self.password_file}
        if self.point:
            fields["point"] = encode_point(self.point)
        return json.dumps({key: value for key, value in fields.items() if value}, sort_keys=True).encode()

    @classmethod
    def decode(cls, data: bytes, identity: DoNAI | None = None) -> ClientAccount:
        """Raises ValueError with a text that says what to mend. What is missing is taken from the identity."""
        fields = _fields(data)
        user = fields.get("user") or (identity.user if identity else None)
        server = fields.get("server") or (identity.domain if identity else None)
        if not user or not server:
            raise ValueError(
                'an SRP account is JSON like {"user": "john", "server": "imap.example.com"}; user or server is missing'
            )
        try:
            point = decode_point(fields["point"]) if "point" in fields else b""
            return cls(user, DoNAI.parse(server), fields.get("password_file", ""), point)
        except InvalidIdentity as error:
            raise ValueError(f"the server of an SRP account: {error}") from None


def _fields(data: bytes) -> Mapping[str, str]:
    try:
        fields = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise ValueError("an SRP account is a JSON object") from None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("an SRP account is a JSON object of texts")
    if unknown := sorted(set(fields) - _KNOWN):
        raise ValueError(f"an SRP account has no {', '.join(unknown)}; it has {', '.join(sorted(_KNOWN))}")
    return fields


def password_source(account: ClientAccount, local: LocalCredential, context: SessionContext) -> Callable[[], str | None]:
    """A function that fetches the password; it may block, and returns None if there is none to be had."""
    if account.point:
        return lambda: _agreed_password(account, local, context)
    if local.key_uri:
        return lambda: context.read_secret(local.key_uri).decode()
    if account.password_file:
        return lambda: read_password_file(Path(account.password_file))
    return lambda: context.ask_password(f"SRP password of {account.user} at {account.server}")


def _agreed_password(account: ClientAccount, local: LocalCredential, context: SessionContext) -> str:
    if context.agree is None or not local.key_uri:
        raise KeyStoreError(f"the password of {account.user} is bound to a key in a token, and no key is named (--key)")
    return derive_password(context.agree(local.key_uri, account.point), account.user, str(account.server))


def read_password_file(path: Path) -> str:
    """First line of a file that nobody else can read. Raises PermissionError or OSError.

    Who owns the directory can put something else there, as a pipe that would have us wait.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path} is no file")
        if status.st_mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path} can be read or written by others; chmod 600 it")
        return file.readline(4096).decode().rstrip("\r\n")
