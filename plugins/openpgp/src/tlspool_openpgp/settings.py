"""The configuration section [credential.openpgp]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlspool_openpgp.reader import TIME_LIMIT


@dataclass(frozen=True, slots=True)
class OpenPgpSettings:
    """`time_limit`: seconds for reading one key. `user_case_counts`: whether user names differ by case."""

    time_limit: float = TIME_LIMIT
    user_case_counts: bool = False


def parse_settings(settings: Mapping[str, Any]) -> OpenPgpSettings:
    """Raises ValueError naming the key."""
    known = ("time_limit", "user_case_counts")
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"[credential.openpgp] has no {', '.join(unknown)}; it has {', '.join(known)}")
    limit, case = settings.get("time_limit", TIME_LIMIT), settings.get("user_case_counts", False)
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0.1 <= limit <= 10:
        raise ValueError("[credential.openpgp] time_limit is a number of seconds from 0.1 to 10")
    if not isinstance(case, bool):
        raise ValueError("[credential.openpgp] user_case_counts is true or false")
    return OpenPgpSettings(float(limit), case)
