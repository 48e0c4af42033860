"""What is kept of a session so that it can be resumed: inside the server's ticket, and beside the client's.

Theory of operation
-------------------
Both versions and both roles keep the same: the secret, what was negotiated, and what the peer showed, so that a resumed session
can be judged again by the policy of that day (`JudgePeer.context` is what the judge wanted to remember).  The encoding has a format
number in front; what does not parse is no session: the answer is a full handshake, never an alert.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from tlspool_core.tls.alerts import DecodeError
from tlspool_core.tls.codec import Reader, vector8, vector16, vector24
from tlspool_core.tls.messages import build_extensions, parse_extensions
from tlspool_core.tls.seams import CertificateEntry

_FORMAT: Final = 3
# format, age_add, length of the secret
_HEAD: Final = Struct(">BIB")
# version, cipher_suite, created, lifetime, certificate_type, peer_scheme, extended_master_secret, group
_FIXED: Final = Struct(">HHQIBHBH")
NO_CERTIFICATE: Final = 255  # stands for "the peer showed nothing"; 255 is for private use among certificate types


@dataclass(slots=True)
class SessionState:
    """State of one session, secret included.

    `created` in milliseconds since the epoch, `lifetime` in seconds. `secret` is the PSK of the ticket in TLS 1.3, the master
    secret in TLS 1.2. `age_add` is of TLS 1.3 only.
    """

    version: int
    cipher_suite: int
    created: int
    lifetime: int
    secret: bytes = field(repr=False)
    age_add: int = 0
    server_name: str | None = None
    alpn: bytes | None = None
    certificate_type: int = NO_CERTIFICATE  # of the peer
    entries: tuple[CertificateEntry, ...] = ()
    peer_scheme: int = 0
    context: bytes = b""
    # TLS 1.2
    extended_master_secret: bool = True
    group: int = 0  # of the handshake that made the secret
    session_id: bytes = b""  # client: by which the server remembers the session, where it gave no ticket

    def fresh(self, now: float) -> bool:
        """Whether it may still be resumed at `now` (seconds since the epoch); a second of clock difference is forgiven."""
        age = now * 1000 - self.created
        return -1000 <= age < self.lifetime * 1000

    def build(self, common: bytes = b"") -> bytes:
        """As bytes; what is inside must be encrypted wherever it is kept. `common`, if given, is what `common()` returned."""
        return b"".join((_HEAD.pack(_FORMAT, self.age_add, len(self.secret)), self.secret, common or self.common()))

    def common(self) -> bytes:
        """All that several tickets of one session have in common."""
        entries = [vector24(entry.data) + build_extensions(entry.extensions) for entry in self.entries]
        return b"".join(
            (
                _FIXED.pack(
                    self.version,
                    self.cipher_suite,
                    self.created,
                    self.lifetime,
                    self.certificate_type,
                    self.peer_scheme,
                    self.extended_master_secret,
                    self.group,
                ),
                vector16((self.server_name or "").encode("ascii")),
                vector8(self.alpn or b""),
                vector24(b"".join(entries)),
                vector16(self.context),
                vector8(self.session_id),
            )
        )


def parse_session_state(data: bytes) -> SessionState | None:
    """None for what is not in this format."""
    try:
        return _parse(Reader(data))
    except (DecodeError, UnicodeDecodeError):
        return None


def _parse(reader: Reader) -> SessionState | None:
    if reader.u8() != _FORMAT:
        return None
    age_add, secret = reader.u32(), reader.vector8(1)
    version, suite, created, lifetime, certificate_type, peer_scheme, extended, group = reader.fixed(_FIXED)
    name = reader.vector16().decode("ascii")
    alpn = reader.vector8()
    chain = reader.reader24()
    entries = []
    while chain:
        data = chain.vector24()
        entries.append(CertificateEntry(data, parse_extensions(chain)))
    context = reader.vector16()
    session_id = reader.vector8(0, 32)
    reader.finish()
    return SessionState(
        version=version,
        cipher_suite=suite,
        created=created,
        lifetime=lifetime,
        secret=secret,
        age_add=age_add,
        server_name=name or None,
        alpn=alpn or None,
        certificate_type=certificate_type,
        entries=tuple(entries),
        peer_scheme=peer_scheme,
        context=context,
        extended_master_secret=extended == 1,
        group=group,
        session_id=session_id,
    )
