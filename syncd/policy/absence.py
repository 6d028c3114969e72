"""Absence: a row that an answer lacks is not gone. It is gone when two answers, apart in time, both lacked it.

The gap keeps one bad hour of the CRM from deleting anything: two absences inside it count once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum


class Absence(StrEnum):
    NOTED = "noted"  # the first absence: remember when
    WAITING = "waiting"  # absent again, but too soon after the first to count
    CONFIRMED = "confirmed"  # absent twice, apart in time


def judge(absent_since: datetime | None, now: datetime, gap_s: float) -> Absence:
    """Judge an absence noticed at ``now`` of a row first found absent at ``absent_since`` (None: never before)."""
    if absent_since is None:
        return Absence.NOTED
    if now - absent_since < timedelta(seconds=gap_s):
        return Absence.WAITING
    return Absence.CONFIRMED
