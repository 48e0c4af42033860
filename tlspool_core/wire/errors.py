"""Error codes of the socket protocol and what they mean to people.

Theory of operation
-------------------
Codes are those of the com_err table `tlsP`: its base is computed from the four letters, and codes count up from there in a fixed
order.  The original ends with INFO_NOT_FOUND; ours follow, and only ever grow at the end.  Values from 1 to 255 in an ERROR packet
are errno values; they are for client libraries, the pool does not send them.

`WireError` is what the pool sends and what a client receives: a code, and a text of at most 127 bytes that says what happened.
`advice()` adds what to do about it, for logs and people.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

BASE: Final = -1167372288


class ErrorCode(IntEnum):
    """The `tlserrno` of ERROR."""

    OUT_OF_MEMORY = BASE
    ENTANGLED_THREADS = BASE + 1
    CLIENT_DISCONNECT = BASE + 2
    CLIENT_REFUSES_CALLBACK = BASE + 3
    COMMAND_NEEDED = BASE + 4
    SUPERFLUOUS_SOCKET = BASE + 5
    CIPHER_SOCKET_NEEDED = BASE + 6
    PLAIN_SOCKET_NEEDED = BASE + 7
    COMMAND_UNKNOWN = BASE + 8
    COMMAND_NOT_IMPLEMENTED = BASE + 9
    BAD_CALLBACK_RESPONSE = BASE + 10
    FACILITY_STARTTLS = BASE + 11
    FACILITY_STARTGSS = BASE + 12
    FACILITY_STARTSSH = BASE + 13
    CTLKEY_REGISTRATION_FAILED = BASE + 14
    CTLKEY_NOT_FOUND = BASE + 15
    CTLKEY_NOT_YOURS = BASE + 16
    CTLKEY_ALREADY_DETACHED = BASE + 17
    CTLKEY_ALREADY_ATTACHED = BASE + 18
    RENEGOTIATE_NOT_FOUND = BASE + 19
    RENEGOTIATE_NOT_INTERRUPTABLE = BASE + 20
    RENEGOTIATE_INSECURE = BASE + 21
    CONNECTION_HANDLER = BASE + 22
    CONNECTION_DRIVER = BASE + 23
    HANDSHAKE_FAILED = BASE + 24
    PRNG_UNAVAILABLE = BASE + 25
    LIDENTRY_NOT_VACANT = BASE + 26
    PINENTRY_NOT_VACANT = BASE + 27
    INFO_KIND_UNKNOWN = BASE + 28
    INFO_NOT_FOUND = BASE + 29
    # ours
    MALFORMED_PACKET = BASE + 30
    CALLBACK_TIMEOUT = BASE + 31
    HANDSHAKE_TIMEOUT = BASE + 32
    LIMIT_REACHED = BASE + 33
    POOL_STOPPING = BASE + 34
    LOCALID_NOT_FOUND = BASE + 35
    LOCALID_NOT_YOURS = BASE + 36
    REMOTEID_REFUSED = BASE + 37
    REMOTEID_MISSING = BASE + 38
    SITE_REFUSED = BASE + 39
    CREDENTIAL_UNAVAILABLE = BASE + 40
    PEER_REFUSED = BASE + 41
    PEER_DISCONNECT = BASE + 42
    PRNG_LABEL_REFUSED = BASE + 43
    ACCOUNTING_UNAVAILABLE = BASE + 44
    ACCOUNTING_IDENTITY = BASE + 45
    ACCOUNTING_UNKNOWN = BASE + 46
    LIDENTRY_REFUSED = BASE + 47
    LIDENTRY_TIMEOUT = BASE + 48
    ROLES_UNSUITABLE = BASE + 49
    ONTHEFLY_NOT_YOURS = BASE + 50
    PINENTRY_NOT_YOURS = BASE + 51


_C = ErrorCode

# code -> (what happened, what to do about it)
_TEXTS: Final[dict[ErrorCode, tuple[str, str]]] = {
    _C.OUT_OF_MEMORY: ("The TLS Pool is out of memory", "Give the pool more memory, or lower its limits on sessions."),
    _C.ENTANGLED_THREADS: (
        "Answers for several threads got mixed up",
        "Use one connection to the pool per thread, or a client library that shares one safely.",
    ),
    _C.CLIENT_DISCONNECT: (
        "The connection between application and TLS Pool broke",
        "See whether the pool runs (tlspool ping) and look in its log why it stopped or dropped the client.",
    ),
    _C.CLIENT_REFUSES_CALLBACK: ("The application refused a callback", "The application's own rules decided; see its log."),
    _C.COMMAND_NEEDED: (
        "A request was needed, but an answer came",
        "The application sends SUCCESS, ERROR or a callback's answer that nobody waits for; report it to its makers.",
    ),
    _C.SUPERFLUOUS_SOCKET: (
        "A socket came where none belongs",
        "The application passes a descriptor with a command that takes none, or more than one; report it to its makers.",
    ),
    _C.CIPHER_SOCKET_NEEDED: (
        "STARTTLS needs the socket to run TLS over",
        "The application passes no descriptor; it may have closed it, or its sandbox may forbid passing it.",
    ),
    _C.PLAIN_SOCKET_NEEDED: (
        "The plaintext socket is missing in the answer",
        "The application answers the callback without a descriptor; report it to its makers.",
    ),
    _C.COMMAND_UNKNOWN: ("The TLS Pool does not know this command", "The application may be newer than the pool, or speak V1."),
    _C.COMMAND_NOT_IMPLEMENTED: ("The TLS Pool does not implement this command", "A newer pool, or a plugin, may offer it."),
    _C.BAD_CALLBACK_RESPONSE: (
        "No callback waits for this answer",
        "The answer came late, twice, or with another reqid or command than the callback's.",
    ),
    _C.FACILITY_STARTTLS: ("Configuration excludes STARTTLS", "Allow the facility in the pool's configuration."),
    _C.FACILITY_STARTGSS: ("Configuration excludes STARTGSS", "This pool has no STARTGSS."),
    _C.FACILITY_STARTSSH: ("Configuration excludes STARTSSH", "This pool has no STARTSSH."),
    _C.CTLKEY_REGISTRATION_FAILED: (
        "The control key is in use by another session",
        "Control keys are 16 random bytes, fresh for each session.",
    ),
    _C.CTLKEY_NOT_FOUND: ("No session has this control key", "The session has ended, or the key is wrong."),
    _C.CTLKEY_NOT_YOURS: ("Another client controls the session", "Its owner can detach it; then reattach it here."),
    _C.CTLKEY_ALREADY_DETACHED: ("The session is detached already", "Nothing to do; anyone with the key may reattach it."),
    _C.CTLKEY_ALREADY_ATTACHED: ("The session is attached already", "Its owner must detach it first."),
    _C.RENEGOTIATE_NOT_FOUND: ("There is no session to renegotiate", "The session has ended, or the control key is wrong."),
    _C.RENEGOTIATE_NOT_INTERRUPTABLE: ("The session cannot be interrupted now", "Try again when its handshake is complete."),
    _C.RENEGOTIATE_INSECURE: (
        "Renegotiation would be insecure with this peer",
        "The peer lacks RFC 5746 or post-handshake authentication; open a new connection.",
    ),
    _C.CONNECTION_HANDLER: ("The TLS Pool could not set up the session", "See the pool's log under the session id."),
    _C.CONNECTION_DRIVER: ("The TLS Pool could not take over the socket", "It must be a connected stream socket."),
    _C.HANDSHAKE_FAILED: (
        "The TLS handshake failed",
        "See the pool's log under the session id; `tlspool explain` shows the demands.",
    ),
    _C.PRNG_UNAVAILABLE: ("No keying material can be exported", "The handshake is not complete, or the session has no exporter."),
    _C.LIDENTRY_NOT_VACANT: ("Another program chooses local identities", "End it first, or let it do the choosing."),
    _C.PINENTRY_NOT_VACANT: ("Another program answers PIN requests", "End it first, or let it do the answering."),
    _C.INFO_KIND_UNKNOWN: ("The TLS Pool does not know this kind of fact", "A newer pool, or a plugin, may offer it."),
    _C.INFO_NOT_FOUND: (
        "The session has no such fact, or another value",
        "What is asked may not apply to this kind of credential.",
    ),
    _C.MALFORMED_PACKET: ("The packet is malformed", "The application's library builds wrong packets; report it to its makers."),
    _C.CALLBACK_TIMEOUT: (
        "The application did not answer a callback in time",
        "The application hangs, or refused without saying so.",
    ),
    _C.HANDSHAKE_TIMEOUT: (
        "The TLS handshake took too long",
        "The peer or a key store is slow or silent; a longer timeout may help.",
    ),
    _C.LIMIT_REACHED: ("The TLS Pool has reached a limit", "Raise the limit in the pool's configuration, or find who uses it up."),
    _C.POOL_STOPPING: ("The TLS Pool is stopping", "Connect again; a new pool may be up in a moment."),
    _C.LOCALID_NOT_FOUND: (
        "The local identity is not known here",
        "Add it with `tlspool localid add`, or have the application ask for another.",
    ),
    _C.LOCALID_NOT_YOURS: (
        "This application may not use the local identity",
        "Allow its user id in the localid database, or use an identity of its own.",
    ),
    _C.REMOTEID_REFUSED: (
        "The remote identity is not acceptable",
        "`tlspool explain` shows what is demanded of it; the pool's log shows which demand failed.",
    ),
    _C.REMOTEID_MISSING: (
        "The remote did not show an identity",
        "The peer has no credential to show; the application can ask for it without insisting (REQUEST_REMOTEID).",
    ),
    _C.SITE_REFUSED: ("Rules of this site refuse the connection", "Ask who runs its authorisation servers."),
    _C.CREDENTIAL_UNAVAILABLE: (
        "The local credential cannot be used now",
        "Is the token inserted and its PIN known? `tlspool token list` and `tlspool token check` show.",
    ),
    _C.PEER_REFUSED: ("The remote refused the handshake", "The alert in the text is the remote's reason; look in its log."),
    _C.PEER_DISCONNECT: ("The remote closed the connection", "The remote ended the connection in the midst of the handshake."),
    _C.PRNG_LABEL_REFUSED: (
        "This exporter label is not allowed",
        "Use one of IANA's TLS Exporter Labels, or one that begins with EXPERIMENTAL.",
    ),
    _C.ACCOUNTING_UNAVAILABLE: ("Accounting is not available", "Configure a plugin that does accounting, and see that it runs."),
    _C.ACCOUNTING_IDENTITY: (
        "The session does not prove these identities",
        "Account for the identities that STARTTLS returned, with the control key of that session.",
    ),
    _C.ACCOUNTING_UNKNOWN: ("Nothing by this kind and instance is being accounted", "Start it first; a stop ends it."),
    _C.LIDENTRY_REFUSED: ("No local identity was chosen", "The person or program that chooses local identities declined."),
    _C.LIDENTRY_TIMEOUT: ("No local identity was chosen in time", "Answer sooner, or give the chooser a longer timeout."),
    _C.ROLES_UNSUITABLE: ("The roles in the flags fit no handshake", "One side must be able to be client, the other server."),
    _C.ONTHEFLY_NOT_YOURS: (
        "No credential is made on the fly for this application",
        "Name its user, or a group of that user, under [onthefly] in the pool's configuration.",
    ),
    _C.PINENTRY_NOT_YOURS: (
        "This program may not answer PIN requests",
        "Name its user, or a group of that user, under [pin_desk] in the pool's configuration.",
    ),
}


def describe(code: int) -> str:
    """One line that says what a code means; for codes of neither table, the number."""
    return _TEXTS[ErrorCode(code)][0] if code in _TEXTS else f"Error {code}"


def advice(code: int) -> str:
    """What to tell the administrator about a code; empty if there is nothing to tell."""
    return _TEXTS[ErrorCode(code)][1] if code in _TEXTS else ""


class WireError(Exception):
    """A refusal with a code. The pool raises it to have an ERROR sent; `text` defaults to the code's own."""

    def __init__(self, code: int, text: str = "") -> None:
        self.code = code
        self.text = text or describe(code)
        super().__init__(self.text)


class MalformedPacket(WireError):
    """A packet that cannot be taken; carries what its header says, so that it can be answered."""

    def __init__(self, code: int, text: str, reqid: int = 0, cbid: int = 0, command: int = 0) -> None:
        super().__init__(code, text)
        self.reqid = reqid
        self.cbid = cbid
        self.command = command
