"""Conflicts: a field that both sides moved away from what they last agreed on is written down, never passed over.

What the owner decides for the application is resolved as it is written: the edit goes out over the CRM's value. What
must not go out is ``open`` until the edit has left the outbox (``store.outbox_withhold``) and, where a person is to
decide, until one has; one row is open for a field, and follows what both sides say meanwhile. Where the two come to say
the same, it is resolved by agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from syncd.domain.ids import AccountId, RunId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.policy.merge import Conflict, Owner
from syncd.store.engine import Connection
from syncd.store.incidents import close_incidents, open_incidents
from syncd.store.mirror.scope import Scope

_GIVEN = """
    unnest(CAST(:row_ids AS bigint[]), CAST(:fields AS text[]), CAST(:bases AS text[]), CAST(:locals AS text[]),
           CAST(:remotes AS text[]), CAST(:owners AS text[]), CAST(:made AS timestamptz[]),
           CAST(:entry_ids AS bigint[])) AS i (row_id, field, base, local, remote, owner, made_at, entry_id)
"""
# One edit and one value of the CRM are one conflict, however many pulls and tries meet them.
_RECORD = text(f"""
    INSERT INTO syncd.conflicts (account_id, table_name, row_id, field, base, local, remote, owner, run_id, entry_id,
                                 status, resolved_at, decided, decided_by)
    SELECT :account_id, :table_name, i.row_id, i.field, i.base, i.local, i.remote, i.owner, :run_id, i.entry_id,
           'resolved', now(), 'local', 'owner'
    FROM {_GIVEN}
    WHERE NOT EXISTS (SELECT FROM syncd.conflicts c
                      WHERE c.account_id = :account_id AND c.table_name = :table_name
                        AND c.row_id = i.row_id AND c.field = i.field AND c.last_seen_at >= i.made_at
                        AND (c.local, c.remote) IS NOT DISTINCT FROM (i.local, i.remote))
    RETURNING id
""")
_OPEN = text(f"""
    INSERT INTO syncd.conflicts AS c (account_id, table_name, row_id, field, base, local, remote, owner, run_id,
                                      entry_id)
    SELECT :account_id, :table_name, i.row_id, i.field, i.base, i.local, i.remote, i.owner, :run_id, i.entry_id
    FROM {_GIVEN}
    ORDER BY i.row_id, i.field
    ON CONFLICT (account_id, table_name, row_id, field) WHERE status = 'open' DO UPDATE
    SET remote = excluded.remote, local = excluded.local, last_seen_at = now(),
        withheld_at = CASE WHEN c.local IS DISTINCT FROM excluded.local OR :is_again THEN NULL ELSE c.withheld_at END
    WHERE (c.local, c.remote) IS DISTINCT FROM (excluded.local, excluded.remote) OR :is_again
    RETURNING id, owner, field, noticed_at = last_seen_at AS is_new
""")
_AGREE = text("""
    UPDATE syncd.conflicts SET status = 'resolved', resolved_at = now(), decided = 'agreed', decided_by = 'agreement'
    WHERE account_id = :account_id AND table_name = :table_name AND status = 'open'
      AND (row_id, field) IN (SELECT * FROM unnest(CAST(:row_ids AS bigint[]), CAST(:fields AS text[])))
    RETURNING id
""")

Row = tuple[int, Conflict]


@dataclass(frozen=True, slots=True)
class Noticed:
    """A conflict about one row, whose owner decides; the entry is the delivery that met it, None for a pull."""

    row_id: int
    conflict: Conflict
    owner: Owner
    entry_id: int | None = None


async def notice(connection: Connection, scope: Scope, table: str, found: Sequence[Noticed]) -> tuple[str, ...]:
    """Write down what a pull noticed; return a warning for each that is news, without values."""
    return await write_down(connection, scope.account_id, table, found, scope.run_id)


async def write_down(
    connection: Connection, account_id: AccountId, table: str, found: Sequence[Noticed], run_id: RunId | None
) -> tuple[str, ...]:
    """Write conflicts of one table down. What a delivery met (no run) must leave the outbox, even if it did before."""
    given = {"account_id": account_id, "table_name": table, "run_id": run_id}
    decided = [one for one in found if one.owner is Owner.LOCAL]
    undecided = [one for one in found if one.owner is not Owner.LOCAL]
    ids: list[int] = []
    if decided:
        ids.extend((await connection.execute(_RECORD, {**given, **_arrays(decided)})).scalars())
    if undecided:
        values = {**given, **_arrays(undecided), "is_again": run_id is None}
        rows = (await connection.execute(_OPEN, values)).all()
        ids.extend(row.id for row in rows if row.is_new)
        waiting = [incident_of(row.id, table, row.field) for row in rows if row.owner == Owner.HOLD.value]
        await open_incidents(connection, account_id, waiting)
    return tuple(f"both sides changed a field of {table}: syncd conflicts list --all says more of {one}" for one in ids)


async def agree(connection: Connection, scope: Scope, table: str, found: Sequence[Row]) -> None:
    """Resolve the open conflicts about fields of which both sides say the same by now."""
    if not found:
        return
    values = {"row_ids": [row_id for row_id, _ in found], "fields": [one.field for _, one in found]}
    rows = await connection.execute(_AGREE, {**values, "account_id": scope.account_id, "table_name": table})
    subjects = [subject_of(one) for one in rows.scalars()]
    if subjects:
        await close_incidents(connection, scope.account_id, IncidentKind.CONFLICT, subjects)


def subject_of(conflict_id: int) -> str:
    """Return what the incident of a conflict is about."""
    return f"conflict:{conflict_id}"


def incident_of(conflict_id: int, table: str, name: str) -> Incident:
    """Return the incident of a conflict that waits for a person."""
    told = (
        f"both sides changed {name}, and its owner is hold: syncd conflicts resolve {conflict_id} --take local|remote"
    )
    return Incident(
        IncidentKind.CONFLICT, subject_of(conflict_id), told, {"conflict": conflict_id, "table": table, "field": name}
    )


def _arrays(found: Sequence[Noticed]) -> dict[str, object]:
    return {
        "row_ids": [one.row_id for one in found],
        "fields": [one.conflict.field for one in found],
        "bases": [one.conflict.base for one in found],
        "locals": [one.conflict.local for one in found],
        "remotes": [one.conflict.remote for one in found],
        "owners": [one.owner.value for one in found],
        "made": [one.conflict.made_at for one in found],
        "entry_ids": [one.entry_id for one in found],
    }
