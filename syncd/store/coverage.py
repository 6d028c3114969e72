"""The coverage ledger: which time has been proven to be read, per account and stream.

It grows only in the transaction that wrote the rows it speaks for, and shrinks only where it claims what cannot be:
time that has not come yet, claimed by a clock that ran ahead and was set right.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId, RunId
from syncd.policy.coverage import Interval
from syncd.store.engine import Connection

_READ = text("""
    SELECT lower(span) AS lower, upper(span) AS upper
    FROM syncd.coverage, unnest(proven) AS span
    WHERE account_id = :account_id AND stream = :stream
    ORDER BY 1
""")
_PROVE = text("""
    INSERT INTO syncd.coverage AS c (account_id, stream, proven, run_id)
    VALUES (:account_id, :stream, tstzmultirange(tstzrange(:lower, :upper)), :run_id)
    ON CONFLICT (account_id, stream)
    DO UPDATE SET proven = c.proven * tstzmultirange(tstzrange(NULL, CAST(:latest AS timestamptz))) + excluded.proven,
                  updated_at = now(), run_id = excluded.run_id
""")


async def proven(connection: Connection, account_id: AccountId, stream: str) -> tuple[Interval, ...]:
    """Return the proven intervals of a stream, oldest first."""
    rows = await connection.execute(_READ, {"account_id": account_id, "stream": stream})
    return tuple(Interval(row.lower, row.upper) for row in rows)


async def prove(
    connection: Connection,
    account_id: AccountId,
    stream: str,
    interval: Interval,
    run_id: RunId,
    latest: datetime | None = None,
) -> None:
    """Add an interval to what is proven. Call in the transaction that wrote the interval's rows.

    ``latest`` is the end of all time that can have come: what was claimed beyond it is taken back.
    """
    await connection.execute(
        _PROVE,
        {
            "account_id": account_id,
            "stream": stream,
            "lower": interval.lower,
            "upper": interval.upper,
            "run_id": run_id,
            "latest": latest,
        },
    )
