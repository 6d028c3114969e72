"""Runs: one row per pull, opened before the first request and closed exactly once.

A successful run is closed in the transaction that wrote its rows, so a row that says ``succeeded`` is proof. Closing
a run that is no longer ``running`` (a restarted daemon declared it abandoned) fails, and takes that transaction along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.domain.doubts import Doubt
from syncd.domain.errors import Fenced
from syncd.domain.ids import AccountId, RunId
from syncd.policy.states import RunStatus
from syncd.store.engine import Connection
from syncd.store.mirror.scope import NOTHING, Written

_START = text("""
    INSERT INTO syncd.runs (account_id, stream, trigger, asked_from)
    VALUES (:account_id, :stream, :trigger, :asked_from)
    RETURNING id, started_at,
        (SELECT lane_id FROM syncd.entries WHERE prove_until IS NOT NULL ORDER BY relation_id LIMIT 1) IS NOT NULL
            AS awaits_proof
""")
_FINISH = text("""
    UPDATE syncd.runs
    SET status = :status, finished_at = clock_timestamp(), asked_from = COALESCE(:asked_from, asked_from),
        asked_upto = :asked_upto, requests = :requests, received = :received, inserted = :inserted,
        updated = :updated, unchanged = :unchanged, missing = :missing, deferred = :deferred,
        warnings = CAST(CAST(:warnings AS text) AS jsonb), reason = :reason
    WHERE id = :id AND status = 'running'
""")
_ABANDON = text("""
    UPDATE syncd.runs SET status = 'abandoned', finished_at = clock_timestamp(), reason = 'its process ended'
    WHERE account_id = :account_id AND status = 'running'
      AND (trigger IN ('start', 'schedule') OR started_at < now() - interval '1 day')
""")
_NEWER = text("""
    SELECT EXISTS (SELECT FROM syncd.runs
                   WHERE account_id = :account_id AND stream = :stream AND status = 'succeeded'
                     AND started_at > :started_at)
""")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncd.pull.' || CAST(:stream AS text), :account_id))")
_NOW = text("SELECT clock_timestamp()")
_KEPT_WARNINGS = 50
# How the reason of a run begins whose host did not answer.
UNREACHED = "the CRM is out of reach"
_UNREACHED_SINCE = text("""
    SELECT count(*) AS runs, COALESCE(CAST(extract(epoch FROM clock_timestamp() - min(started_at)) AS double precision),
                                      0) AS for_s
    FROM syncd.runs
    WHERE account_id = :account_id AND status = 'failed' AND starts_with(reason, :unreached)
      AND started_at > now() - interval '1 day'
      AND id > COALESCE((SELECT id FROM syncd.runs
                         WHERE account_id = :account_id AND status IN ('succeeded', 'refused', 'held', 'failed')
                           AND NOT (status = 'failed' AND starts_with(reason, :unreached))
                         ORDER BY id DESC LIMIT 1), 0)
""")


@dataclass(frozen=True, slots=True)
class Run:
    """An open run. ``started_at`` is the database's time before the first request; ``awaits_proof`` tells whether there
    was any delivered change then that a read may prove."""

    id: RunId
    account_id: AccountId
    stream: str
    started_at: datetime
    awaits_proof: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run closes: its status, why, and what it counted. ``doubt`` is what a person is to be asked about;
    ``has_new_shape``: the answers have changed their form, and ``record`` shows it, for the database alone."""

    status: RunStatus
    written: Written = NOTHING
    requests: int = 0
    reason: str | None = None
    asked_from: datetime | None = None
    asked_upto: datetime | None = None
    doubt: Doubt | None = None
    has_new_shape: bool = False
    record: bytes = field(default=b"", repr=False)


async def start(
    connection: Connection, account_id: AccountId, stream: str, trigger: str, asked_from: datetime | None
) -> Run:
    """Open a run."""
    values = {"account_id": account_id, "stream": stream, "trigger": trigger, "asked_from": asked_from}
    row = (await connection.execute(_START, values)).one()
    return Run(RunId(row.id), account_id, stream, row.started_at, row.awaits_proof)


async def finish(connection: Connection, run: Run, ending: Ending) -> None:
    """Close a run. Raises Fenced when it was closed by somebody else: roll everything back."""
    written = ending.written
    values = {
        "id": run.id,
        "status": ending.status.value,
        "asked_from": ending.asked_from,
        "asked_upto": ending.asked_upto,
        "requests": ending.requests,
        "received": written.received,
        "inserted": written.inserted,
        "updated": written.updated,
        "unchanged": written.unchanged,
        "missing": written.missing,
        "deferred": written.deferred,
        "warnings": msgspec.json.encode(written.warnings[:_KEPT_WARNINGS]).decode(),
        "reason": ending.reason,
    }
    if (await connection.execute(_FINISH, values)).rowcount == 0:
        raise Fenced(f"run {run.id} of {run.stream} was declared abandoned meanwhile; its answer is dropped")


async def abandon(connection: Connection, account_id: AccountId) -> int:
    """Close the runs that a killed daemon left open; return how many. For whoever has just taken the account's lease.

    A pull or backfill by hand may be under way beside the daemon: it is written off after a day alone.
    """
    return (await connection.execute(_ABANDON, {"account_id": account_id})).rowcount


async def unreached(connection: Connection, account_id: AccountId) -> tuple[int, float]:
    """Return how many runs in a row, and for how many seconds by now, the host has answered nothing."""
    values = {"account_id": account_id, "unreached": UNREACHED}
    row = (await connection.execute(_UNREACHED_SINCE, values)).one()
    return row.runs, row.for_s


async def lock_stream(connection: Connection, account_id: AccountId, stream: str) -> None:
    """Let one transaction at a time write a stream of an account; held until the transaction ends."""
    await connection.execute(_LOCK, {"account_id": account_id, "stream": stream})


async def has_newer(connection: Connection, run: Run) -> bool:
    """Tell whether an answer that was asked for later has been written: ours is then stale. Lock the stream first."""
    values = {"account_id": run.account_id, "stream": run.stream, "started_at": run.started_at}
    return bool((await connection.execute(_NEWER, values)).scalar_one())


async def database_now(connection: Connection) -> datetime:
    """Return the database's time, with which the times of deliveries are comparable."""
    found = (await connection.execute(_NOW)).scalar_one()
    assert isinstance(found, datetime)
    return found
