"""Account pace: what all replicas of an account know together about its breaker and about who is sending.

Kept in the account's own row: the state in its column, the rest in ``limits``, so that no replica has to ask the CRM
what another one knows already. Every verb is one statement that moves the row only from where its caller believes it
to be; the loser of a race is told so and follows. All times are the database's, in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.alike import kind_of
from syncd.store.engine import Connection

# A replica that has sent nothing for so long does not share the rate. While it sends it says so three times as often.
PRESENT_S = 3.0
# For so long a kind of refusal that was looked into stays known: then it is looked into anew.
SUSPICION_S = 3600.0
# How far back a streak of refusals is looked for.
_RECENT_ATTEMPTS = 2_000
_RECENT_IDS = 50_000


class Breaking(msgspec.Struct, frozen=True):
    """An incident from its opening until the first delivery after it; ``kind``: refusals that are alike."""

    openings: int = 1
    probe_at: float = 0.0
    trial: bool = False
    reason: str = ""
    kind: str | None = None


class AccountLimits(msgspec.Struct, frozen=True):
    """The ``limits`` of an account: the breaking, the kinds of refusal looked into, and who sent when."""

    breaking: Breaking | None = None
    refusals: dict[str, tuple[int, float]] = {}
    drainers: dict[str, float] = {}

    def suspicions(self, at: float) -> dict[str, int]:
        """Return how often the breaker was opened for each kind of refusal lately."""
        return {kind: rounds for kind, (rounds, last) in self.refusals.items() if at - last < SUSPICION_S}

    def present(self, at: float, but: str = "") -> int:
        """Return how many replicas have sent lately, ``but`` one not counted."""
        return sum(1 for worker, last in self.drainers.items() if worker != but and at - last < PRESENT_S)


_NOW = "CAST(extract(epoch FROM now()) AS double precision)"

_LEFT = text(
    """
    SELECT EXISTS (SELECT 1 FROM syncd.ready WHERE account_id = :account_id)
        OR EXISTS (SELECT 1 FROM syncd.captures WHERE account_id = :account_id)
    """
)

_OPEN = text(
    f"""
    INSERT INTO syncd.account_states AS s (account_id, breaker_state, breaker_opened_at, limits)
    VALUES (:account_id, 'open', now(), jsonb_build_object(
        'breaking', jsonb_build_object('openings', CAST(:openings AS integer), 'probe_at', {_NOW} + :pause_s,
                                       'reason', CAST(:reason AS text), 'kind', CAST(:kind AS text)),
        'refusals', CASE WHEN CAST(:kind AS text) IS NULL THEN '{{}}'
                         ELSE jsonb_build_object(CAST(:kind AS text),
                                                 jsonb_build_array(CAST(:rounds AS integer), {_NOW})) END))
    ON CONFLICT (account_id) DO UPDATE
        SET breaker_state = 'open', breaker_opened_at = now(), updated_at = now(),
            limits = s.limits || jsonb_build_object(
                'breaking', excluded.limits -> 'breaking',
                'refusals', coalesce((SELECT jsonb_object_agg(key, value)
                                      FROM jsonb_each(s.limits -> 'refusals')
                                      WHERE CAST(value ->> 1 AS double precision) > {_NOW} - :suspicion_s), '{{}}')
                            || (excluded.limits -> 'refusals'))
        WHERE s.breaker_state = 'closed'
    RETURNING account_id
    """
)


def _moving(sets: str, where: str) -> str:
    return f"""
    UPDATE syncd.account_states SET {sets}, updated_at = now()
    WHERE account_id = :account_id AND {where}
    RETURNING CAST(limits AS text)
    """


def _breaking(pairs: str) -> str:
    added = f"coalesce(limits -> 'breaking', '{{}}') || jsonb_build_object({pairs})"
    return f"limits = limits || jsonb_build_object('breaking', {added})"


_PROBE_AT = f"coalesce(CAST(limits #>> '{{breaking,probe_at}}' AS double precision), 0) <= {_NOW}"
_TAKE_PROBE = text(
    _moving(
        "breaker_state = 'half_open', " + _breaking(f"'probe_at', {_NOW} + :hold_s"),
        f"breaker_state <> 'closed' AND {_PROBE_AT}",
    )
)

_REOPEN = text(
    _moving(
        "breaker_state = 'open', "
        + _breaking(f"'probe_at', {_NOW} + :pause_s, 'openings', CAST(:openings AS integer)"),
        "breaker_state = 'half_open'",
    )
)

_CLOSE = text(
    _moving(
        "breaker_state = 'closed', breaker_opened_at = NULL, " + _breaking("'trial', true"),
        "breaker_state <> 'closed'",
    )
)

_PASS = text(_moving("limits = limits - 'breaking'", "breaker_state = 'closed' AND limits ? 'breaking'"))

_JOIN = text(
    f"""
    INSERT INTO syncd.account_states AS s (account_id, limits)
    VALUES (:account_id, jsonb_build_object('drainers', jsonb_build_object(CAST(:worker AS text), {_NOW})))
    ON CONFLICT (account_id) DO UPDATE
        SET limits = s.limits || jsonb_build_object(
                'drainers', coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(s.limits -> 'drainers')
                                      WHERE CAST(value #>> '{{}}' AS double precision) > {_NOW} - :present_s), '{{}}')
                            || (excluded.limits -> 'drainers'))
    """
)

_LEAVE = text(
    """
    UPDATE syncd.account_states SET limits = limits #- ARRAY['drainers', CAST(:worker AS text)]
    WHERE account_id = :account_id AND limits -> 'drainers' ? CAST(:worker AS text)
    """
)

_TAKE_CANARY = text(
    """
    UPDATE syncd.account_states SET next_probe_at = now() + make_interval(secs => :hold_s), updated_at = now()
    WHERE account_id = :account_id AND paused_at IS NOT NULL AND NOT is_paused_by_operator
      AND (:is_early OR next_probe_at IS NULL OR next_probe_at <= now())
    RETURNING account_id
    """
)

_RECENT = text(
    """
    SELECT a.entry_id, a.outcome, a.detail, a.status_code, e.status = 'dead' AS is_dead
    FROM (
        SELECT id, entry_id, outcome, detail, status_code FROM syncd.attempts
        WHERE account_id = :account_id AND id > (SELECT max(id) FROM syncd.attempts) - :ids
          AND started_at > now() - make_interval(secs => :recent_s)
        ORDER BY id DESC LIMIT :most
    ) AS a
    LEFT JOIN syncd.entries e ON e.id = a.entry_id
    ORDER BY a.id DESC
    """
)

# A lane that somebody holds is left alone: it comes back by itself, and the next call of this finds it. Edits that died
# with the one that carried them have its reason and its instant.
_REVIVE = text(
    """
    WITH killed AS (
        SELECT lane_id, settled_at, error FROM syncd.entries WHERE id = ANY (CAST(:ids AS bigint[])) AND status = 'dead'
    ), free AS MATERIALIZED (
        SELECT l.id FROM syncd.lanes l
        WHERE l.id IN (SELECT lane_id FROM killed) AND l.claimed_by IS NULL
        ORDER BY l.relation_id FOR UPDATE SKIP LOCKED
    ), revived AS (
        UPDATE syncd.entries e
        SET status = 'pending', attempts = GREATEST(e.attempts - 1, 0), next_attempt_at = NULL, settled_at = NULL
        FROM killed k JOIN free ON free.id = k.lane_id
        WHERE e.lane_id = k.lane_id AND e.status = 'dead' AND e.settled_at = k.settled_at AND e.error = k.error
        RETURNING e.id, e.lane_id
    ), woken AS (
        UPDATE syncd.lanes l SET ready_at = clock_timestamp(), block_reason = NULL
        WHERE l.id IN (SELECT lane_id FROM revived)
    )
    SELECT count(*) FROM revived
    """
)


def read_limits(limits: str) -> AccountLimits:
    """Decode the ``limits`` of an account's row; what an older or newer version left there counts as nothing."""
    try:
        return msgspec.json.decode(limits, type=AccountLimits)
    except msgspec.DecodeError:
        return AccountLimits()


async def is_anything_left(connection: Connection, account_id: AccountId) -> bool:
    """Tell whether anything of an account waits to be sent, now or later."""
    return bool((await connection.execute(_LEFT, {"account_id": account_id})).scalar_one())


async def open_breaker(
    connection: Connection, account_id: AccountId, breaking: Breaking, *, pause_s: float, rounds: int = 0
) -> bool:
    """Stop all replicas; return False when another one did already. ``rounds``: openings for this kind of refusal."""
    binds = {
        "account_id": account_id,
        "openings": breaking.openings,
        "reason": breaking.reason,
        "kind": breaking.kind,
        "pause_s": pause_s,
        "rounds": rounds,
        "suspicion_s": SUSPICION_S,
    }
    return (await connection.execute(_OPEN, binds)).scalar_one_or_none() is not None


async def take_probe(connection: Connection, account_id: AccountId, *, hold_s: float) -> Breaking | None:
    """Take the right to probe a broken account, if that is due, and return what broke it.

    Nobody else has that right for ``hold_s``.
    """
    taken = await connection.execute(_TAKE_PROBE, {"account_id": account_id, "hold_s": hold_s})
    limits = taken.scalar_one_or_none()
    return None if limits is None else read_limits(limits).breaking


async def reopen_breaker(connection: Connection, account_id: AccountId, *, openings: int, pause_s: float) -> bool:
    """Write down that the probe failed, and when the next one is due."""
    binds = {"account_id": account_id, "openings": openings, "pause_s": pause_s}
    return (await connection.execute(_REOPEN, binds)).scalar_one_or_none() is not None


async def close_breaker(connection: Connection, account_id: AccountId) -> bool:
    """Write down that the probe was answered: deliveries are sent again, on trial."""
    return (await connection.execute(_CLOSE, {"account_id": account_id})).scalar_one_or_none() is not None


async def pass_trial(connection: Connection, account_id: AccountId) -> bool:
    """Write down that the CRM takes changes again; return whether there was a trial to end."""
    return (await connection.execute(_PASS, {"account_id": account_id})).scalar_one_or_none() is not None


async def join(connection: Connection, account_id: AccountId, worker: str) -> None:
    """Say that this worker is sending; whoever has been silent for ``PRESENT_S`` is forgotten."""
    binds = {"account_id": account_id, "worker": worker, "present_s": PRESENT_S}
    await connection.execute(_JOIN, binds)


async def leave(connection: Connection, account_id: AccountId, worker: str) -> None:
    """Say that this worker sends no more, so that the others have its share at once."""
    await connection.execute(_LEAVE, {"account_id": account_id, "worker": worker})


async def take_canary(connection: Connection, account_id: AccountId, *, hold_s: float, is_early: bool = False) -> bool:
    """Take the right to probe a paused account, if that is due (or ``is_early``), for one replica alone."""
    binds = {"account_id": account_id, "hold_s": hold_s, "is_early": is_early}
    return (await connection.execute(_TAKE_CANARY, binds)).scalar_one_or_none() is not None


async def refused_lately(
    connection: Connection, account_id: AccountId, *, delivered: Collection[str]
) -> dict[str, frozenset[int]]:
    """Return the present streak of refusals: by kind, the entries that are dead of it.

    It is read from the attempts, back to the last one that ``delivered`` names, whichever process made them, so that a
    crash in the middle of it forgets nothing.
    """
    binds = {"account_id": account_id, "ids": _RECENT_IDS, "recent_s": SUSPICION_S, "most": _RECENT_ATTEMPTS}
    found: dict[str, set[int]] = {}
    for entry_id, outcome, detail, status, is_dead in (await connection.execute(_RECENT, binds)).all():
        if outcome in delivered:
            break
        if outcome == "rejected" and is_dead:
            found.setdefault(kind_of(detail or "", status), set()).add(entry_id)
    return {kind: frozenset(ids) for kind, ids in found.items()}


async def revive_refused(
    connection: Connection, account_id: AccountId, kind: str, *, delivered: Collection[str]
) -> int:
    """Bring back to pending what the present streak of one kind of refusal killed; return how many entries.

    No try is used up by what is taken back. Entries that were settled otherwise since are left as they are.
    """
    ids = (await refused_lately(connection, account_id, delivered=delivered)).get(kind)
    return int((await connection.execute(_REVIVE, {"ids": list(ids)})).scalar_one()) if ids else 0
