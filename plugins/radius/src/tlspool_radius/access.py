"""Authentication and authorisation: an Access-Request for a session, and what its answer means.

Theory of operation
-------------------
The pool has proved who the peer is, or is about to; the server is asked whether this identity may do this.  So there is no password in the
request: `User-Name` is the identity as a NAI (RFC 7542; a mere domain is `@domain`), and `Service-Type` tells which step asks:
Authenticate-Only or Authorize-Only.  An Access-Accept that is for another Service-Type counts as a refusal (RFC 2865 section 5.6), as does a
challenge, which nobody is here to answer, and a limit that cannot be read.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.api import AaaDecision, AaaRequest, Denied, DoNAI
from tlspool_radius import attributes as a
from tlspool_radius.attributes import Attributes, number, text
from tlspool_radius.packets import ACCESS_ACCEPT, ACCESS_CHALLENGE, Reply

SERVICE_TYPES: Final = {"authentication": 8, "authorization": 17}  # Authenticate-Only, Authorize-Only
_MAX_MESSAGE: Final = 200  # characters of Reply-Message that are passed on


def user_name(identity: DoNAI | None, anonymous: str) -> bytes:
    """The identity as a NAI. Raises Denied if there is none, or it is too long."""
    if identity is None:
        if not anonymous:
            raise Denied("the peer has no identity to ask about")
        return text(anonymous)
    nai = (str(identity) if identity.user is not None else f"@{identity.domain}").encode()
    if len(nai) > a.MAX_VALUE:
        raise Denied(f"the identity is too long for RADIUS: {len(nai)} bytes", final=True)
    return nai


def question(request: AaaRequest, nas_identifier: str, anonymous: str) -> Attributes:
    """What is said of the session. Raises Denied if it cannot be said."""
    return a.non_empty(
        [
            (a.USER_NAME, user_name(request.remote_identity, anonymous)),
            (a.SERVICE_TYPE, number(SERVICE_TYPES[request.step])),
            (a.NAS_IDENTIFIER, text(nas_identifier)),
            (a.NAS_PORT_TYPE, number(a.VIRTUAL)),
            (a.NAS_PORT_ID, text(request.service)),
            (a.CALLED_STATION_ID, text(str(request.local_identity or ""))),
            (a.CALLING_STATION_ID, text(request.peer_address)),
            (a.CONNECT_INFO, text(_connection(request))),
            (a.ACCT_MULTI_SESSION_ID, text(request.session_id)),
        ]
    )


def _connection(request: AaaRequest) -> str:
    """Credential type, our role, our address; and whether the identity is a claim that is still being looked at."""
    words = (request.credential_type or "none", request.role, request.local_address, "" if request.proven else "unproven")
    return " ".join(word for word in words if word)


def decision(reply: Reply, step: str) -> AaaDecision:
    """Permission with its limits. Raises Denied with the server's words."""
    said = message(reply)
    if reply.code == ACCESS_CHALLENGE:
        raise Denied(f"the RADIUS server wants more than the identity, which is all there is{said}")
    if reply.code != ACCESS_ACCEPT:
        raise Denied(f"rejected{said}")
    if any(value != number(SERVICE_TYPES[step]) for value in reply.all(a.SERVICE_TYPE)):
        raise Denied(f"accepted for another Service-Type only{said}")
    return AaaDecision(_seconds(reply, a.SESSION_TIMEOUT), _seconds(reply, a.IDLE_TIMEOUT), tuple(reply.all(a.CLASS)))


def message(reply: Reply) -> str:
    """Reply-Message in one line, with a colon before; "" if there is none."""
    words = " ".join(value.decode("utf-8", "replace") for value in reply.all(a.REPLY_MESSAGE))
    line = "".join(character if character.isprintable() else " " for character in words).strip()[:_MAX_MESSAGE]
    return f": {line}" if line else ""


def _seconds(reply: Reply, code: int) -> float | None:
    """A limit; the least, if there are several. Raises Denied if it cannot be kept."""
    values = reply.all(code)
    if any(len(value) != 4 for value in values):
        raise Denied(f"{a.NAMES[code]} in the answer is no number")
    seconds = min((int.from_bytes(value, "big") for value in values), default=None)
    if seconds == 0:
        raise Denied(f"{a.NAMES[code]} in the answer is 0: there is no time left")
    return seconds
