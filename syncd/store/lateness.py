"""How late rows come, as counts in the database: measured in the transaction that wrote them, read by the next plan.

``policy.lateness`` decides what the counts mean. Half a year is kept; what came late before that is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.lateness import EDGES_S, STEADY_S, Histogram
from syncd.store.engine import Connection

MOST_ROWS = 20_000  # so many new rows at once are a load, not life

# An invoice's time is a day: it was due when that day had ended.
_TIMES = {
    "Order": "SELECT purchased_at AS at FROM crm.orders WHERE id = ANY(CAST(:ids AS bigint[]))",
    "Invoice": """
        SELECT CAST(invoiced_on + 1 AS timestamp) AT TIME ZONE 'UTC' AS at
        FROM crm.invoices WHERE id = ANY(CAST(:ids AS bigint[]))
    """,
}
_MEASURE = """
    WITH ledger AS (
        SELECT proven, upper(proven) >= CAST(:now AS timestamptz) - make_interval(secs => :steady_s) AS is_steady
        FROM syncd.coverage WHERE account_id = :account_id AND stream = :stream
    ), measured AS (
        SELECT CASE WHEN proven @> at THEN greatest(0, extract(epoch FROM CAST(:now AS timestamptz) - at)) ELSE 0 END
               AS late_s
        FROM ({times}) AS appeared, ledger
        WHERE proven @> at OR is_steady AND at >= upper(proven)
    )
    INSERT INTO syncd.lateness AS l (account_id, stream, month, bucket, rows)
    SELECT :account_id, :stream, CAST(date_trunc('month', CAST(:now AS timestamptz) AT TIME ZONE 'UTC') AS date),
           width_bucket(CAST(late_s AS float8), CAST(:edges AS float8[])), count(*)
    FROM measured GROUP BY 4
    ON CONFLICT (account_id, stream, month, bucket) DO UPDATE SET rows = l.rows + excluded.rows
"""
_MEASURES = {records: text(_MEASURE.format(times=times)) for records, times in _TIMES.items()}
_READ = text("""
    SELECT bucket, CAST(sum(rows) AS bigint) AS rows FROM syncd.lateness
    WHERE account_id = :account_id AND stream = :stream
      AND month > CAST(:now AS timestamptz) - interval '6 months'
    GROUP BY bucket
""")
_READ_ALL = text("""
    SELECT account.name AS account, l.stream, l.bucket, CAST(sum(l.rows) AS bigint) AS rows
    FROM syncd.lateness l JOIN crm.accounts account ON account.id = l.account_id
    WHERE l.month > CAST(:now AS timestamptz) - interval '6 months'
    GROUP BY 1, 2, 3
""")


@dataclass(frozen=True, slots=True)
class Appeared:
    """Rows that an answer asked for at ``now`` (the CRM's time) showed for the first time; ``stream`` is the window
    that should have shown them, whichever did, ``records`` what they are."""

    stream: str
    records: str
    ids: Sequence[int]
    now: datetime


async def measure(connection: Connection, account_id: AccountId, rows: Appeared) -> None:
    """Count how late these rows were. Call before their time is proven, in the transaction that wrote them."""
    if not rows.ids or len(rows.ids) > MOST_ROWS:
        return
    values = {"account_id": account_id, "stream": rows.stream, "ids": list(rows.ids), "now": rows.now}
    await connection.execute(_MEASURES[rows.records], {**values, "edges": list(EDGES_S), "steady_s": STEADY_S})


async def learned(connection: Connection, account_id: AccountId, stream: str, now: datetime) -> Histogram:
    """Return what was measured of a stream lately."""
    rows = await connection.execute(_READ, {"account_id": account_id, "stream": stream, "now": now})
    return Histogram.of((row.bucket, row.rows) for row in rows)


async def learned_of_all(connection: Connection, now: datetime) -> dict[tuple[str, str], Histogram]:
    """Return what was measured lately, by account name and stream."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in await connection.execute(_READ_ALL, {"now": now}):
        found.setdefault((row.account, row.stream), []).append((row.bucket, row.rows))
    return {key: Histogram.of(buckets) for key, buckets in found.items()}
