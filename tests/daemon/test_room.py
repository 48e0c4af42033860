"""Is there always room for the sessions of others, whatever one user's applications do and however few files may be open?"""

from __future__ import annotations

import os

import pytest

from tlspool_core.pool.config import parse_config
from tlspool_core.pool.room import Room
from tlspool_core.pool.settings import Limits
from tlspool_core.wire.errors import ErrorCode, WireError

MANY = 100_000  # open files
SOMEBODY, ANOTHER = 54321, 54322


def room(files: int = MANY, **limits: int) -> Room:
    made = Room()
    made.configure(Limits(**limits), files)
    return made


def taken(made: Room, uid: int) -> int:
    """How many sessions this user gets."""
    count = 0
    while True:
        try:
            made.take(uid)
        except WireError as refusal:
            assert refusal.code == ErrorCode.LIMIT_REACHED
            return count
        count += 1


def test_one_user_leaves_room_for_others() -> None:
    made = room(sessions=10)
    assert taken(made, SOMEBODY) == 5
    assert taken(made, ANOTHER) == 5
    assert taken(made, 0) == 0
    made.give_back(SOMEBODY)
    assert taken(made, SOMEBODY) == 1


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_who_could_stop_the_pool_anyway_may_have_it_all(uid: int) -> None:
    assert taken(room(sessions=10), uid) == 10


def test_what_is_configured_for_one_user_holds() -> None:
    assert taken(room(sessions=10, sessions_per_uid=9), SOMEBODY) == 9
    assert parse_config("[limits]\nsessions_per_uid = 9\n").limits.sessions_per_uid == 9


def test_nothing_is_kept_of_users_without_sessions() -> None:
    made = room(sessions=10)
    for uid in range(1000):
        made.take(uid)
        made.give_back(uid)
    assert made.users == {}


@pytest.mark.parametrize(("files", "sessions"), [(MANY, 20000), (1024, 352), (60, 1)])
def test_sessions_leave_descriptors_for_everything_else(files: int, sessions: int) -> None:
    assert taken(room(files), 0) == sessions
