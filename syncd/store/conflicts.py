"""Conflicts, for people: what there is, and what one of them decides.

**Resolve** goes the way of every edit, so that it can break no order: what the CRM is to be told is captured here and
now, with who said so and why, and is sent behind everything that the relation's lane holds. What the mirror is to show
is written at once. A conflict that its owner decided may be overruled in the same way, for as long as nobody has edited
the field since.

Edits that have not left the outbox yet leave it first, those made since the conflict was noticed, too: what a person
decides is about the newest. If a worker is sending one at this moment, or it is not staged yet, that comes first.
Runs in ``Store.begin_remote``: what is captured is written here, not by the triggers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    JoinGroup,
    LeaveGroup,
    LocalChange,
    RemoveTag,
    UpdateProfile,
    encode_change,
    facet_of,
    operation_of,
)
from syncd.domain.errors import UserError
from syncd.domain.facets import NO, YES
from syncd.domain.ids import AccountId
from syncd.domain.incidents import IncidentKind
from syncd.policy.merge import is_same
from syncd.store.decisions import Decision, record
from syncd.store.engine import Connection
from syncd.store.incidents import close_incidents
from syncd.store.mirror.conflicts import subject_of
from syncd.store.outbox_operate import SETTLE_WINDOW_S
from syncd.store.outbox_withhold import set_here, value_here, withhold_one

_LIST = text("""
    SELECT c.id, a.name AS account, c.table_name, c.row_id AS relation_id, r.email, c.field,
           coalesce(t.name, g.title, c.field) AS name, c.base, c.local, c.remote, c.owner, c.status, c.decided,
           c.decided_by, c.value, d.actor, d.reason, c.run_id, c.entry_id, c.noticed_at, c.last_seen_at, c.resolved_at
    FROM syncd.conflicts c
    JOIN crm.accounts a ON a.id = c.account_id
    LEFT JOIN crm.relations r ON r.id = c.row_id
    LEFT JOIN crm.tags t ON c.table_name = 'relation_tags' AND c.field = 'tag:' || t.id
    LEFT JOIN crm.groups g ON c.table_name = 'group_members' AND c.field = 'group:' || g.id
    LEFT JOIN LATERAL (SELECT actor, reason FROM syncd.decisions d WHERE d.conflict_id = c.id
                       ORDER BY d.id DESC LIMIT 1) AS d ON true
    WHERE (:with_resolved OR c.status = 'open') AND (CAST(:account AS text) IS NULL OR a.name = :account)
    ORDER BY c.status = 'resolved', c.id DESC
    LIMIT :most
""")
_DECIDED = text("""
    SELECT count(*) FROM syncd.conflicts c JOIN crm.accounts a ON a.id = c.account_id
    WHERE c.status = 'resolved' AND c.decided_by = 'owner' AND c.resolved_at > now() - interval '7 days'
      AND (CAST(:account AS text) IS NULL OR a.name = :account)
""")
_FIND = text("""
    SELECT id, account_id, table_name, row_id, field, local, remote, owner, status, decided, withheld_at, run_id
    FROM syncd.conflicts WHERE id = :id FOR UPDATE
""")
_LOCK = text("SELECT id FROM crm.relations WHERE id = :row_id FOR NO KEY UPDATE")
_RESOLVE = text("""
    UPDATE syncd.conflicts
    SET status = 'resolved', resolved_at = now(), decided = :decided, decided_by = 'person', value = :value
    WHERE id = :id
""")
_LATER = text("""
    SELECT EXISTS (SELECT FROM syncd.conflicts WHERE row_id = :row_id AND table_name = :table_name AND field = :field
                   AND account_id = :account_id AND id > :id)
""")
_CAPTURE = text("""
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    VALUES (:account_id, :row_id, :operation, :facet, CAST(:payload AS jsonb) - 'operation', :actor, :reason)
""")
_TAG = text("SELECT remote_id, name FROM crm.tags WHERE id = :id")
_GROUP = text("SELECT remote_id, title FROM crm.groups WHERE id = :id")


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """One conflict as people see it. ``name`` is the field as they call it; ``actor`` and ``reason`` who decided."""

    id: int
    account: str
    table_name: str
    relation_id: int
    email: str | None
    field: str
    name: str
    base: str | None
    local: str | None
    remote: str | None
    owner: str
    status: str
    decided: str | None
    decided_by: str | None
    value: str | None
    actor: str | None
    reason: str | None
    run_id: int | None
    entry_id: int | None
    noticed_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Take:
    """What a person takes: the ``local`` value, the ``remote`` one, or a ``value`` of their own."""

    side: str
    value: str | None = None

    def of(self, local: str | None, remote: str | None) -> str | None:
        return {"local": local, "remote": remote}.get(self.side, self.value)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was decided. ``is_sent``: the CRM is told; else it has the value already."""

    field: str
    value: str | None
    is_sent: bool


async def list_conflicts(
    connection: Connection, *, account: str | None = None, with_resolved: bool = False, most: int = 200
) -> tuple[ConflictRow, ...]:
    """Return conflicts, the open ones first, the latest first."""
    binds = {"account": account, "with_resolved": with_resolved, "most": most}
    return tuple(ConflictRow(**row) for row in (await connection.execute(_LIST, binds)).mappings())


async def count_decided(connection: Connection, account: str | None = None) -> int:
    """Count the conflicts that their owners decided within a week."""
    return int((await connection.execute(_DECIDED, {"account": account})).scalar_one())


async def resolve_conflict(
    connection: Connection,
    conflict_id: int,
    take: Take,
    *,
    actor: str,
    reason: str | None = None,
    settle_window_s: float = SETTLE_WINDOW_S,
) -> Resolved:
    """Decide a conflict. Raises UserError when there is none, it was decided otherwise, or it is being sent now.

    What is given up of it and may still land within ``settle_window_s`` does not undo the decision.
    """
    conflict = (await connection.execute(_FIND, {"id": conflict_id})).one_or_none()
    if conflict is None:
        raise UserError(f"there is no conflict {conflict_id}; `syncd conflicts list --all` shows what there is")
    account_id = AccountId(conflict.account_id)
    is_clear = conflict.status != "open" or await withhold_one(
        connection, account_id, conflict, settle_window_s=settle_window_s
    )
    await connection.execute(_LOCK, {"row_id": conflict.row_id})
    here = await value_here(connection, conflict)
    if not is_clear:
        _require_settled(conflict, here)
    there = await _presumed_there(connection, conflict, here)
    wanted = _checked(conflict, take.of(conflict.local if conflict.status == "resolved" else here, conflict.remote))
    await set_here(connection, account_id, conflict, wanted, origin="local")
    is_sent = not is_same(conflict.field, there, wanted)
    if is_sent:
        change = await _change(connection, conflict, there, wanted)
        told = {"account_id": account_id, "row_id": conflict.row_id, "actor": actor, "reason": reason}
        payload = {
            "operation": operation_of(change),
            "facet": facet_of(change),
            "payload": encode_change(change).decode(),
        }
        await connection.execute(_CAPTURE, {**told, **payload})
    decided = {"id": conflict_id, "decided": take.side, "value": wanted if take.side == "value" else None}
    await connection.execute(_RESOLVE, decided)
    await record(connection, Decision(account_id, f"resolve {take.side}", actor, reason, conflict_id=conflict_id))
    await close_incidents(connection, account_id, IncidentKind.CONFLICT, [subject_of(conflict_id)])
    return Resolved(conflict.field, wanted, is_sent)


def _require_settled(conflict: Any, here: str | None) -> None:
    """Raise UserError where an edit of the field is left that could not be taken out of the outbox: it would be sent
    after the decision, or meet the CRM's value again when the mirror does not hold the edit any more."""
    if conflict.withheld_at is None or not is_same(conflict.field, here, conflict.local):
        raise UserError(
            f"conflict {conflict.id} has an edit that is on its way this moment; try again when it is settled"
        )


async def _presumed_there(connection: Connection, conflict: Any, here: str | None) -> str | None:
    """Return what the CRM holds as far as is known. Raises UserError where the field has been edited since."""
    if conflict.status == "open":
        return None if conflict.remote is None else str(conflict.remote)
    left = conflict.remote if conflict.decided == "remote" else conflict.local
    where = {"row_id": conflict.row_id, "table_name": conflict.table_name, "field": conflict.field}
    where |= {"account_id": conflict.account_id, "id": conflict.id}
    is_old = (await connection.execute(_LATER, where)).scalar_one()
    if is_old or conflict.decided in ("value", "agreed") or not is_same(conflict.field, here, left):
        raise UserError(
            f"conflict {conflict.id} was decided, and the field has been changed since; edit the row instead"
        )
    return None if left is None else str(left)


def _checked(conflict: Any, value: str | None) -> str | None:
    """Return the value as the field takes it."""
    is_link = conflict.table_name != "relations"
    if is_link and value not in (YES, NO):
        raise UserError(f"{conflict.field} is there or not: take local, remote, {YES} or {NO}")
    if conflict.field == "email" and (not value or "@" not in value):
        raise UserError("an e-mail address is wanted: take local, remote or an address")
    return value


async def _change(connection: Connection, conflict: Any, old: str | None, new: str | None) -> LocalChange:
    """Return the change that tells the CRM, as the triggers would have captured it."""
    if conflict.table_name == "relations":
        if conflict.field == "email":
            return ChangeEmail(old, str(new))
        return UpdateProfile({conflict.field: old}, {conflict.field: new})
    link_id = int(conflict.field.partition(":")[2])
    if conflict.table_name == "relation_tags":
        tag = (await connection.execute(_TAG, {"id": link_id})).one()
        return (AddTag if new == YES else RemoveTag)(link_id, tag.remote_id, tag.name)
    group = (await connection.execute(_GROUP, {"id": link_id})).one()
    return (JoinGroup if new == YES else LeaveGroup)(link_id, group.remote_id, group.title)
