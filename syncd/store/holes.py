"""The holes in what is proven, one by one, with their age: what ``syncd status`` shows of the ledger.

The youngest time is always unproven, so the last hole of a stream is ``is_young`` as long as it is no older than a few
rounds take; only then is it nothing to look at. A stream that was asked for and never proved anything is one hole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from syncd.policy.coverage import Interval, age_s, holes
from syncd.store.engine import Connection

YOUNG_S = 900.0

_LEDGER = text("""
    SELECT account.name AS account, named.stream, lower(span) AS lower, upper(span) AS upper,
           clock_timestamp() + make_interval(secs => coalesce(state.clock_skew_s, 0)) AS now
    FROM (SELECT account_id, stream FROM syncd.coverage
          UNION SELECT account_id, stream FROM syncd.runs WHERE asked_from IS NOT NULL) AS named
    JOIN crm.accounts AS account ON account.id = named.account_id
    LEFT JOIN syncd.account_states AS state ON state.account_id = named.account_id
    LEFT JOIN syncd.coverage AS c ON (c.account_id, c.stream) = (named.account_id, named.stream)
    LEFT JOIN LATERAL unnest(c.proven) AS span ON true
    ORDER BY 1, 2, 3
""")


@dataclass(frozen=True, slots=True)
class Hole:
    """Time of a stream that nobody has proven to have read. ``upto`` is the CRM's now for a hole that is still open at
    its young end (``is_open``)."""

    account: str
    stream: str
    since: datetime
    upto: datetime
    age_s: float
    span_s: float
    is_open: bool
    is_young: bool


async def read_holes(
    connection: Connection, horizon_days: int, by_account: Mapping[str, int] | None = None, now: datetime | None = None
) -> tuple[Hole, ...]:
    """Return every hole inside the horizon (some accounts may have one of their own), oldest first in each stream."""
    proven: dict[tuple[str, str], list[Interval]] = {}
    times: dict[str, datetime] = {}
    for row in await connection.execute(_LEDGER):
        spans = proven.setdefault((row.account, row.stream), [])
        times[row.account] = now or row.now
        if row.lower is not None or row.upper is not None:
            spans.append(Interval(row.lower, row.upper))
    days = {account: (by_account or {}).get(account, horizon_days) for account in times}
    return tuple(
        _hole(account, stream, hole, times[account])
        for (account, stream), spans in proven.items()
        for hole in holes(spans, Interval(times[account] - timedelta(days=days[account]), times[account]))
    )


def _hole(account: str, stream: str, hole: Interval, now: datetime) -> Hole:
    age, is_open = age_s(hole, now), hole.upper >= now
    return Hole(account, stream, hole.lower, hole.upper, age, hole.span_s, is_open, is_open and age <= YOUNG_S)
