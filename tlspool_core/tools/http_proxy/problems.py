"""What can stand in the way of a request, as the person and the program at the other end are told.

The error types are those of RFC 9209 (the field Proxy-Status), for programs; the words are for persons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tlspool_core.client import ErrorCode, PoolError
from tlspool_core.client.errors import PoolTimeout, PoolUnreachable, PoolVanished
from tlspool_core.tools.http_proxy.rules import Target

PATIENCE: Final = 5  # seconds after which it is worth to try again


@dataclass(eq=False)
class Problem(Exception):
    """A request is not answered by the site. `retry`: seconds after which it may be, 0 if there is no telling."""

    status: int
    kind: str  # of RFC 9209 section 2.3
    title: str
    text: str
    advice: str = ""
    retry: int = 0

    def __str__(self) -> str:
        return f"{self.title} {self.text}"


def malformed(reason: str, status: int = 400) -> Problem:
    """The client does not keep to HTTP, or asks for what is not done."""
    return Problem(status, "http_request_error", "The request cannot be served.", f"It was refused: {reason}.")


def refused(target: Target, reason: str) -> Problem:
    """The rules do not allow it."""
    advice = "Add it as a [[destination]] to the proxy's configuration, or take it out of what the browser sends here."
    return Problem(403, "http_request_denied", f"This proxy does not go to {target}.", reason, advice)


def unproven(target: Target, reason: str) -> Problem:
    """A destination that the pool cannot name."""
    advice = "The pool proves domain names, and makes certificates for those: ask for the site by such a name."
    return Problem(501, "proxy_configuration_error", f"This proxy cannot go to {target}.", f"It is no identity: {reason}.", advice)


def stranger(reason: str) -> Problem:
    """Another user of this machine has connected."""
    advice = "Run a proxy of your own; or its owner may name you under users in its configuration, or give it a login_file."
    return Problem(403, "http_request_denied", "This proxy works for another user.", reason, advice)


def address_forbidden(target: Target) -> Problem:
    """The name of a site that is not configured leads to this machine, or to a device beside it."""
    return Problem(
        403,
        "destination_ip_prohibited",
        f"This proxy does not go to {target}.",
        "Its address is one of this machine, or of the link that it is on, and pages from elsewhere must not reach these through a proxy.",
        "If it is meant, add it as a [[destination]] to the proxy's configuration.",
    )


def loop(target: Target) -> Problem:
    """The proxy would talk to itself."""
    return Problem(508, "proxy_loop_detected", f"{target} is this proxy.", "The request was about to come back to where it is.")


def name_unknown(target: Target, reason: str) -> Problem:
    return Problem(502, "dns_error", f"{target.host} was not found.", f"Its name leads to no address ({reason}).")


def not_reached(target: Target, reason: str) -> Problem:
    return Problem(502, "destination_unavailable", f"{target} cannot be reached.", f"No connection came about: {reason}.")


def too_slow(target: Target) -> Problem:
    return Problem(504, "connection_timeout", f"{target} does not answer.", "No connection came about in time.")


def silent(target: Target) -> Problem:
    return Problem(
        504, "http_response_timeout", f"{target} does not answer.", "It took the request, and then said nothing for long."
    )


def no_answer(target: Target, reason: str) -> Problem:
    """The site ended the connection in place of an answer, or answered with what is no HTTP."""
    return Problem(
        502,
        "http_protocol_error",
        f"{target} gave no proper answer.",
        f"{reason}.",
        "A site that does not accept a credential ends connections like this.",
    )


_OF_POOL: Final[Mapping[ErrorCode, tuple[int, str, str, str]]] = {
    ErrorCode.CREDENTIAL_UNAVAILABLE: (
        503,
        "proxy_configuration_error",
        "Your key is not there.",
        "Plug your token in: this page comes back by itself as soon as the key can be used.",
    ),
    ErrorCode.REMOTEID_REFUSED: (502, "tls_certificate_error", "The site did not prove who it is.", ""),
    ErrorCode.REMOTEID_MISSING: (502, "tls_certificate_error", "The site did not say who it is.", ""),
    ErrorCode.PEER_REFUSED: (502, "tls_alert_received", "The site refused the connection.", "Does it know this identity of yours?"),
    ErrorCode.LOCALID_NOT_FOUND: (500, "proxy_configuration_error", "You are not known by this name.", ""),
    ErrorCode.LOCALID_NOT_YOURS: (500, "proxy_configuration_error", "This name is not yours.", ""),
    ErrorCode.HANDSHAKE_TIMEOUT: (504, "connection_timeout", "The secure connection did not come about in time.", ""),
}


def of_pool(target: Target, localid: str, error: PoolError) -> Problem:
    """The pool refuses, or is not there."""
    if isinstance(error, PoolTimeout | PoolUnreachable | PoolVanished):
        title = "The TLS Pool is not there."
        return Problem(503, "proxy_internal_error", title, str(error), "Start it: tlspool serve", PATIENCE)
    unexpected = (502, "tls_protocol_error", "The secure connection failed.", error.advice)
    code = ErrorCode(error.code) if error.code in set(ErrorCode) else None
    status, kind, title, advice = _OF_POOL.get(code, unexpected) if code is not None else unexpected
    who = f" as {localid}" if localid and localid not in error.text else ""
    retry = PATIENCE if code is ErrorCode.CREDENTIAL_UNAVAILABLE else 0
    return Problem(status, kind, title, f"On the way to {target}{who}: {error.text or error}", advice or error.advice, retry)
