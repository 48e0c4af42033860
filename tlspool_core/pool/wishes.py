"""What an application wishes by the flags of STARTTLS, taken apart once for each combination of flags."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tlspool_core.policy.demands import RemoteIdentity
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import IpProtocol, StartTlsFlags
from tlspool_core.wire.messages import StartTls


@dataclass(frozen=True, slots=True)
class Wishes:
    """The flags that mean something beyond STARTTLS itself."""

    client: bool  # we can be the client, and the remote the server
    server: bool
    symmetric: bool  # we may be the client, and the remote may take either role: whose hello counts is found out
    without_sni: bool
    ignore_caches: bool
    remote: RemoteIdentity
    detach: bool
    fork: bool
    domain_represents_user: bool
    check_localid: bool
    onthefly: bool
    key_bound: bool


@lru_cache(maxsize=1024)
def _parse(value: int) -> Wishes:
    flags = StartTlsFlags(value)
    if flags & StartTlsFlags.IGNORE_REMOTEID:  # overrides REQUEST
        remote = RemoteIdentity.IGNORED
    else:
        remote = RemoteIdentity.REQUESTED if flags & StartTlsFlags.REQUEST_REMOTEID else RemoteIdentity.REQUIRED
    peer = StartTlsFlags.REMOTEROLE_PEER
    return Wishes(
        client=bool(flags & StartTlsFlags.LOCALROLE_CLIENT and flags & StartTlsFlags.REMOTEROLE_SERVER),
        server=bool(flags & StartTlsFlags.LOCALROLE_SERVER and flags & StartTlsFlags.REMOTEROLE_CLIENT),
        symmetric=bool(flags & StartTlsFlags.LOCALROLE_CLIENT) and flags & peer == peer,
        without_sni=bool(flags & StartTlsFlags.WITHOUT_SNI),
        ignore_caches=bool(flags & StartTlsFlags.IGNORE_CACHES),
        remote=remote,
        detach=bool(flags & StartTlsFlags.DETACH),
        fork=bool(flags & StartTlsFlags.FORK),
        domain_represents_user=bool(flags & StartTlsFlags.DOMAIN_REPRESENTS_USER),
        check_localid=bool(flags & StartTlsFlags.LOCALID_CHECK),
        onthefly=bool(flags & StartTlsFlags.LOCALID_ONTHEFLY),
        key_bound=bool(flags & StartTlsFlags.KEY_BOUND),
    )


def wishes_of(flags: StartTlsFlags) -> Wishes:
    """What these flags wish."""
    return _parse(int(flags))


def role_of(request: StartTls) -> str:
    """The role in TLS that an application gives us, "peer" for either. Raises WireError for what the pool does not do."""
    wishes = wishes_of(request.flags)
    # the original's tunnel leaves the protocol out and sets the DTLS flag for SCTP's sake: on a stream neither says anything
    if request.ipproto not in (IpProtocol.UNSAID, IpProtocol.TCP):
        raise WireError(ErrorCode.COMMAND_NOT_IMPLEMENTED, "The TLS Pool does TLS over TCP only")
    if wishes.client and wishes.server:
        return "peer"
    if not wishes.client and not wishes.server:
        raise WireError(ErrorCode.ROLES_UNSUITABLE)
    return "client" if wishes.client else "server"
