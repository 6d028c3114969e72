"""Contests: what a delivery found to have moved in the CRM.

What keeps an edit from being sent is written down in the transaction that settles it. What the edit overwrites is
written down before it is sent: after a lost answer or a death in between nobody could name it any more. If it is not
sent in the end, or refused, the row tells of a disagreement all the same; a pull would have noticed it, too.

An edit says what stood here before it. Where an earlier edit of the field was given up and no pull has put the mirror
right since, that is not what both sides last agreed on: the given-up edit's own "before" is. If the CRM still shows
that, nobody moved anything there; the entry is told so, and goes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import text

from syncd.domain.changes import read_change
from syncd.domain.ids import AccountId
from syncd.policy.merge import Conflict, Edit, Owner, is_same, trails
from syncd.store.engine import Connection
from syncd.store.mirror.conflicts import Noticed, write_down
from syncd.store.outbox_results import Contest, LaneSettlement

_GIVEN_UP = text("""
    SELECT e.operation, CAST(e.payload AS text) AS payload, e.captured_at
    FROM syncd.entries this
    JOIN crm.relations r ON r.id = this.relation_id
    JOIN syncd.entries e ON e.lane_id = this.lane_id AND e.facet = this.facet AND e.seq < this.seq
    WHERE this.id = :entry_id AND e.status = 'skipped' AND e.settled_at > r.changed_at
      AND NOT EXISTS (SELECT FROM syncd.entries later
                      WHERE later.lane_id = e.lane_id AND later.facet = e.facet AND later.seq > e.seq
                        AND later.seq < this.seq AND later.status IN ('verified', 'accepted'))
    ORDER BY e.seq
""")
# An address has its own before; a profile has one a column.
_AGREED = text("""
    UPDATE syncd.entries
    SET payload = CASE WHEN operation = 'change_email' THEN payload || jsonb_build_object('old', CAST(:base AS text))
                       ELSE jsonb_set(payload, ARRAY['old', CAST(:field AS text)], to_jsonb(CAST(:base AS text))) END
    WHERE id = :entry_id AND operation IN ('change_email', 'update_profile') AND CAST(:base AS text) IS NOT NULL
""")
_OURS = text("""
    SELECT account_id, relation_id FROM syncd.lanes
    WHERE id = :lane_id AND epoch = :epoch AND claimed_by = :worker
""")
TABLES = {"tag": "relation_tags", "group": "group_members", "field": "relation_fields"}


async def note(connection: Connection, account_id: AccountId, lanes: Sequence[LaneSettlement]) -> None:
    """Write down the contests of settled lanes."""
    await _write(connection, account_id, [(lane.relation_id, each) for lane in lanes for each in lane.contests])


async def write_contests(
    connection: Connection, worker: str, lane_id: int, epoch: int, contests: Sequence[Contest]
) -> bool:
    """Write down what a call is about to overwrite; False when the lane is not ours any more: then it must not."""
    binds = {"worker": worker, "lane_id": lane_id, "epoch": epoch}
    lane = (await connection.execute(_OURS, binds)).one_or_none()
    if lane is not None:
        await _write(connection, AccountId(lane.account_id), [(lane.relation_id, each) for each in contests])
    return lane is not None


async def _write(connection: Connection, account_id: AccountId, contests: Sequence[tuple[int | None, Contest]]) -> None:
    found: dict[str, list[Noticed]] = {}
    for relation_id, contest in contests:
        clash = await _true(connection, contest)
        if clash is not None and relation_id is not None:
            noticed = Noticed(relation_id, clash, contest.owner, contest.entry_id)
            found.setdefault(table_of(clash.field), []).append(noticed)
    for table, noticed_there in found.items():
        await write_down(connection, account_id, table, noticed_there, None)


def table_of(name: str) -> str:
    """Return the table that a field stands in: a facet's own, or the relation's columns."""
    return TABLES.get(name.partition(":")[0], "relations")


async def _true(connection: Connection, contest: Contest) -> Conflict | None:
    """Return the conflict with the value last agreed on; None when the CRM still shows that one."""
    clash = contest.conflict
    rows = (await connection.execute(_GIVEN_UP, {"entry_id": contest.entry_id})).all()
    changes = ((read_change(row.operation, row.payload)[0], row.captured_at) for row in rows)
    before = trails([Edit(change, at) for change, at in changes if change is not None])
    if clash.field not in before:
        return clash
    base = before[clash.field].base
    if not is_same(clash.field, base, clash.remote):
        return replace(clash, base=base)
    if contest.owner is not Owner.LOCAL:
        await connection.execute(_AGREED, {"entry_id": contest.entry_id, "field": clash.field, "base": base})
    return None
