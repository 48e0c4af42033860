"""One function of libkrb5 that the package `krb5` does not wrap: asking the KDC for a ticket by a ticket-granting ticket.

Theory of operation
-------------------
`krb5_get_credentials` follows referrals and trust between realms, and does user-to-user.  It is called through ctypes, which lets go of
the interpreter's lock meanwhile.  What is asked for is laid out as krb5.h has it; what is found comes out in the format of credential
caches (version 4), which `krb5` understands as well; all else is opaque pointers.  Needs MIT Kerberos 1.20.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Final

USER_USER: Final = 1  # KRB5_GC_USER_USER
NO_STORE: Final = 8  # KRB5_GC_NO_STORE
_SONAME: Final = "libkrb5.so.3"  # the one that the package `krb5` has loaded, where it is built as on Linux


class LibraryError(Exception):
    """What libkrb5 says, with its code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.err_code = code


class _Data(ctypes.Structure):
    """krb5_data."""

    _fields_ = (("magic", ctypes.c_int32), ("length", ctypes.c_uint), ("data", ctypes.POINTER(ctypes.c_char)))


class _KeyBlock(ctypes.Structure):
    """krb5_keyblock."""

    _fields_ = (("magic", ctypes.c_int32), ("enctype", ctypes.c_int32), ("length", ctypes.c_uint), ("contents", ctypes.c_void_p))


class _Creds(ctypes.Structure):
    """krb5_creds."""

    _fields_ = (
        ("magic", ctypes.c_int32),
        ("client", ctypes.c_void_p),
        ("server", ctypes.c_void_p),
        ("keyblock", _KeyBlock),
        ("times", ctypes.c_int32 * 4),
        ("is_skey", ctypes.c_uint),
        ("ticket_flags", ctypes.c_int32),
        ("addresses", ctypes.c_void_p),
        ("ticket", _Data),
        ("second_ticket", _Data),
        ("authdata", ctypes.c_void_p),
    )


@cache
def _library() -> Any:
    """Raises LibraryError."""
    try:
        loaded = ctypes.CDLL(_SONAME)
    except OSError:
        loaded = ctypes.CDLL(ctypes.util.find_library("krb5"))
    if not hasattr(loaded, "krb5_marshal_credentials"):
        raise LibraryError(0, "there is no MIT Kerberos of version 1.20 or newer")
    pointer, place = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    calls: dict[str, tuple[Any, ...]] = {
        "krb5_init_context": (place,),
        "krb5_cc_resolve": (pointer, ctypes.c_char_p, place),
        "krb5_get_credentials": (pointer, ctypes.c_int32, pointer, ctypes.POINTER(_Creds), place),
        "krb5_marshal_credentials": (pointer, pointer, ctypes.POINTER(ctypes.POINTER(_Data))),
        "krb5_free_context": (pointer,),
        "krb5_cc_close": (pointer, pointer),
        "krb5_free_creds": (pointer, pointer),
        "krb5_free_data": (pointer, ctypes.POINTER(_Data)),
        "krb5_free_error_message": (pointer, pointer),
    }
    for name, arguments in calls.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None if "free" in name else ctypes.c_int32
    loaded.krb5_get_error_message.argtypes, loaded.krb5_get_error_message.restype = (pointer, ctypes.c_int32), pointer
    return loaded


class _Calls:
    """One context of libkrb5, and what was made in it; all is freed at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._library, self._stack = _library(), stack
        self._context = ctypes.c_void_p()
        if code := self._library.krb5_init_context(ctypes.byref(self._context)):
            raise LibraryError(code, f"Kerberos cannot be set up, error {code}: see krb5.conf")
        stack.callback(self._library.krb5_free_context, self._context)

    def make(self, name: str, *arguments: Any, free: str, place: Any = None) -> Any:
        """Call a function that returns an object through its last argument. Raises LibraryError."""
        made = ctypes.c_void_p() if place is None else place
        self._check(getattr(self._library, name)(self._context, *arguments, ctypes.byref(made)))
        self._stack.callback(getattr(self._library, free), self._context, made)
        return made

    def _check(self, code: int) -> None:
        if code:
            text = self._library.krb5_get_error_message(self._context, code)
            try:
                raise LibraryError(code, (ctypes.string_at(text) if text else b"").decode(errors="replace"))
            finally:
                self._library.krb5_free_error_message(self._context, text)


@contextmanager
def _calls() -> Iterator[_Calls]:
    with ExitStack() as stack:
        yield _Calls(stack)


def get_credentials(cache_name: str, client: int, server: int, second_ticket: bytes, options: int) -> bytes:
    """A ticket of `client` for `server`, which are addresses of principals, from the cache or from the KDC, in the format of caches.

    With `second_ticket`, and USER_USER among the options, it is encrypted in that ticket's session key. Blocks. Raises LibraryError.
    """
    with _calls() as calls:
        store = calls.make("krb5_cc_resolve", cache_name.encode(), free="krb5_cc_close")
        room = ctypes.create_string_buffer(second_ticket, len(second_ticket))
        wanted = _Creds(client=client, server=server, is_skey=bool(second_ticket))
        wanted.second_ticket = _Data(0, len(second_ticket), ctypes.cast(room, ctypes.POINTER(ctypes.c_char)))
        found = calls.make("krb5_get_credentials", options, store, ctypes.byref(wanted), free="krb5_free_creds")
        data = calls.make("krb5_marshal_credentials", found, free="krb5_free_data", place=ctypes.POINTER(_Data)())
        return ctypes.string_at(data.contents.data, data.contents.length)
