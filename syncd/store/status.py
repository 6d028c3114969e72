"""What stands where, for status page, metrics and health check: reads only, ages by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """One account: is it paused, is its circuit broken, who pulls for it."""

    id: AccountId
    name: str
    provider: str
    title: str | None
    paused_at: datetime | None
    pause_reason: str | None
    breaker_state: str
    throttled_s: float
    lease_owner: str | None
    clock_skew_s: float | None
    is_paused_by_operator: bool = False
    open_holds: int = 0
    open_conflicts: int = 0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream: its last run, the age of its last success, and the holes in what is proven.

    ``lag_s`` is the age of the newest proven instant; ``holes`` counts gaps inside the horizon that are older than
    that, ``hole_s`` their total length, ``hole_age_s`` the age of the oldest. All four are None or 0 for streams that
    are not read by time.
    """

    account: str
    stream: str
    status: str | None
    trigger: str | None
    started_at: datetime | None
    age_s: float | None
    success_age_s: float | None
    received: int
    changed: int
    reason: str | None
    lag_s: float | None
    holes: int
    hole_s: float
    hole_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """One account's undelivered changes. ``pending`` includes changes that are captured and not staged yet;
    ``reasserting`` are delivered values that will be said once more."""

    account: str
    pending: int
    held: int
    dead: int
    parked: int
    diverged: int
    oldest_s: float | None
    reasserting: int = 0


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """How many rows of each kind one account's mirror holds; rows that went missing are not counted."""

    account: str
    relations: int
    tags: int
    groups: int
    orders: int
    invoices: int


_ACCOUNTS = text("""
    SELECT account.id, account.name, account.provider, account.title, state.paused_at, state.pause_reason,
           coalesce(state.breaker_state, 'closed') AS breaker_state,
           coalesce(greatest(extract(epoch FROM state.throttled_until - now()), 0), 0)::float8 AS throttled_s,
           CASE WHEN state.lease_until > now() THEN state.lease_owner END AS lease_owner, state.clock_skew_s,
           coalesce(state.is_paused_by_operator, false) AS is_paused_by_operator,
           (SELECT count(*) FROM syncd.holds AS hold WHERE hold.account_id = account.id AND hold.status = 'open')
               AS open_holds,
           (SELECT count(*) FROM syncd.conflicts AS conflict
            WHERE conflict.account_id = account.id AND conflict.status = 'open') AS open_conflicts
    FROM crm.accounts AS account
    LEFT JOIN syncd.account_states AS state ON state.account_id = account.id
    ORDER BY account.name
""")

_STREAMS = text("""
    WITH named AS (
        SELECT account_id, stream FROM syncd.coverage
        UNION SELECT DISTINCT account_id, stream FROM syncd.runs
    )
    SELECT account.name AS account, named.stream, last.status, last.trigger, last.started_at,
           extract(epoch FROM now() - last.started_at)::float8 AS age_s,
           extract(epoch FROM now() - success.finished_at)::float8 AS success_age_s,
           coalesce(last.received, 0) AS received,
           coalesce(last.inserted + last.updated + last.missing, 0) AS changed, last.reason,
           extract(epoch FROM now() - upper(coverage.proven))::float8 AS lag_s,
           coalesce(gap.holes, 0) AS holes, coalesce(gap.hole_s, 0)::float8 AS hole_s,
           coalesce(gap.hole_age_s, 0)::float8 AS hole_age_s
    FROM named
    JOIN crm.accounts AS account ON account.id = named.account_id
    LEFT JOIN syncd.coverage AS coverage ON (coverage.account_id, coverage.stream) = (named.account_id, named.stream)
    LEFT JOIN LATERAL (
        SELECT run.status, run.trigger, run.started_at, run.received, run.inserted, run.updated, run.missing, run.reason
        FROM syncd.runs AS run
        WHERE run.account_id = named.account_id AND run.stream = named.stream
        ORDER BY run.started_at DESC LIMIT 1
    ) AS last ON true
    LEFT JOIN LATERAL (
        SELECT run.finished_at FROM syncd.runs AS run
        WHERE run.account_id = named.account_id AND run.stream = named.stream AND run.status = 'succeeded'
        ORDER BY run.started_at DESC LIMIT 1
    ) AS success ON true
    LEFT JOIN LATERAL (
        SELECT count(*) AS holes, extract(epoch FROM sum(upper(hole) - lower(hole))) AS hole_s,
               extract(epoch FROM now() - min(lower(hole))) AS hole_age_s
        FROM unnest(
            tstzmultirange(tstzrange(now() - make_interval(days => :horizon_days), greatest(
                upper(coverage.proven), now() - make_interval(days => :horizon_days)))) - coverage.proven
        ) AS hole
    ) AS gap ON coverage.proven IS NOT NULL AND NOT isempty(coverage.proven)
    ORDER BY account.name, named.stream
""")

_OUTBOX = text("""
    WITH waiting AS (
        SELECT account_id, 'pending' AS status, count(*) AS number, min(captured_at) AS oldest
        FROM syncd.captures GROUP BY account_id
        UNION ALL
        SELECT account_id, waiting.status, count(*), min(captured_at)
        FROM syncd.entries, LATERAL (
            SELECT CASE WHEN status = 'pending' AND reasserts IS NOT NULL THEN 'reasserting' ELSE status END AS status
        ) AS waiting
        WHERE entries.status IN ('pending', 'held', 'dead', 'parked', 'diverged')
        GROUP BY account_id, waiting.status
    )
    SELECT account.name AS account,
           coalesce(sum(number) FILTER (WHERE status = 'pending'), 0)::bigint AS pending,
           coalesce(sum(number) FILTER (WHERE status = 'held'), 0)::bigint AS held,
           coalesce(sum(number) FILTER (WHERE status = 'dead'), 0)::bigint AS dead,
           coalesce(sum(number) FILTER (WHERE status = 'parked'), 0)::bigint AS parked,
           coalesce(sum(number) FILTER (WHERE status = 'diverged'), 0)::bigint AS diverged,
           coalesce(sum(number) FILTER (WHERE status = 'reasserting'), 0)::bigint AS reasserting,
           extract(epoch FROM clock_timestamp() - min(oldest) FILTER (WHERE status = 'pending'))::float8 AS oldest_s
    FROM crm.accounts AS account LEFT JOIN waiting ON waiting.account_id = account.id
    GROUP BY account.name ORDER BY account.name
""")

_MIRROR = text("""
    SELECT account.name AS account,
           (SELECT count(*) FROM crm.relations WHERE account_id = account.id AND missing_since IS NULL) AS relations,
           (SELECT count(*) FROM crm.tags WHERE account_id = account.id AND missing_since IS NULL) AS tags,
           (SELECT count(*) FROM crm.groups WHERE account_id = account.id AND missing_since IS NULL) AS groups,
           (SELECT count(*) FROM crm.orders WHERE account_id = account.id AND missing_since IS NULL) AS orders,
           (SELECT count(*) FROM crm.invoices WHERE account_id = account.id AND missing_since IS NULL) AS invoices
    FROM crm.accounts AS account ORDER BY account.name
""")

_ROLE = text("SELECT current_user, version(), extract(epoch FROM clock_timestamp())::float8")


async def read_accounts(connection: Connection) -> tuple[AccountStatus, ...]:
    """Return every account with its pause, breaker and lease, by name."""
    rows = (await connection.execute(_ACCOUNTS)).mappings()
    return tuple(AccountStatus(**row) for row in rows)


async def read_streams(connection: Connection, horizon_days: int) -> tuple[StreamStatus, ...]:
    """Return every stream that was ever pulled, with holes of the last ``horizon_days``."""
    rows = (await connection.execute(_STREAMS, {"horizon_days": horizon_days})).mappings()
    return tuple(StreamStatus(**row) for row in rows)


async def read_outbox(connection: Connection) -> tuple[OutboxStatus, ...]:
    """Return every account's undelivered changes."""
    rows = (await connection.execute(_OUTBOX)).mappings()
    return tuple(OutboxStatus(**row) for row in rows)


async def read_mirror(connection: Connection) -> tuple[MirrorStatus, ...]:
    """Return every account's row counts; exact, so a little slow on millions of rows."""
    rows = (await connection.execute(_MIRROR)).mappings()
    return tuple(MirrorStatus(**row) for row in rows)


async def read_server(connection: Connection) -> tuple[str, str, float]:
    """Return the role we are, the server's version text, and its clock as seconds since 1970."""
    user, version, now_s = (await connection.execute(_ROLE)).one()
    return str(user), str(version), float(now_s)
