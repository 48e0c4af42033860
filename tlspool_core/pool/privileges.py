"""Fewer rights: drop to an ordinary user, and keep the memory of a process that handles secrets out of others' sight."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource

from tlspool_core.secret import forbid_dumps

_PR_SET_NO_NEW_PRIVS = 38


class PrivilegeError(Exception):
    """Privileges cannot be set as configured; the pool then does not start."""


def user_id(name: str) -> pwd.struct_passwd:
    """Account by name or number. Raises PrivilegeError."""
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise PrivilegeError(f"there is no user {name!r}") from None


def group_id(name: str) -> int:
    """Group number by name or number. Raises PrivilegeError."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise PrivilegeError(f"there is no group {name!r}") from None


def drop(user: str, group: str) -> None:
    """Become `user` and `group` for good: group and supplementary groups first, then the user, and check that no way leads back."""
    if not user and not group:
        return
    account = user_id(user) if user else None
    gid = group_id(group) if group else account.pw_gid if account else os.getgid()
    if account is not None and account.pw_uid == os.getuid() and gid == os.getgid():
        return
    if os.geteuid() != 0:
        raise PrivilegeError(f"only root can change to user {user!r} and group {group!r}; remove them from the configuration")
    os.setgid(gid)
    if account is not None:
        os.initgroups(account.pw_name, gid)
        os.setuid(account.pw_uid)
        _check(account.pw_uid, gid)
        os.environ["HOME"] = account.pw_dir


def _check(uid: int, gid: int) -> None:
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PrivilegeError("the change of user and group did not take effect")
    if uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PrivilegeError("privileges could be regained after the change of user")


def harden() -> None:
    """No core dumps, no debugger of the same user, no privileges by exec. To be called after `drop`, which resets dumpable."""
    try:
        forbid_dumps()
    except OSError as error:
        raise PrivilegeError(str(error.strerror)) from None
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise PrivilegeError(f"PR_SET_NO_NEW_PRIVS: {os.strerror(ctypes.get_errno())}")


def raise_file_limit() -> int:
    """As many descriptors as this process may have; returns the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
