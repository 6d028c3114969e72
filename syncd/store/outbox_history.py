"""History: which row of the mirror a delivered change was about, and what changed in it.

One row of ``syncd.changes`` per delivered call, origin ``local``. It speaks of the call after folding: ``before`` is
what the CRM held, ``after`` what it holds now. Inserts and deletes of link rows need neither.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    EndSubscription,
    JoinGroup,
    LeaveGroup,
    LocalChange,
    RemoveTag,
    SetField,
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
)


class HistoryRow(msgspec.Struct, frozen=True, gc=False):
    """``before`` and ``after`` are JSON objects as text, or None."""

    table_name: str
    link_id: int | None
    kind: str
    before: str | None = None
    after: str | None = None


def history_of(change: LocalChange) -> HistoryRow | None:
    """Return what to remember of a delivered change; None when it is about no row of a relation."""
    match change:
        case AddTag():
            return HistoryRow("relation_tags", change.tag_id, "insert")
        case RemoveTag():
            return HistoryRow("relation_tags", change.tag_id, "delete")
        case SetField():
            return _update("relation_fields", change.field_id, {"value": change.old}, {"value": change.new})
        case JoinGroup():
            return HistoryRow("group_members", change.group_id, "insert")
        case LeaveGroup():
            return HistoryRow("group_members", change.group_id, "delete")
        case UpdateProfile():
            return _update("relations", None, change.old, change.new)
        case CreateRelation():
            return HistoryRow("relations", None, "insert")
        case ChangeEmail():
            return _update("relations", None, {"email": change.old}, {"email": change.new})
        case Subscribe() | SubscribeWithConsent():
            return _update("list_subscriptions", change.list_id, None, {"status": "subscribed"})
        case Unsubscribe():
            return _update("list_subscriptions", change.list_id, None, {"status": "unsubscribed"})
        case EndSubscription() | CreateField():
            return None
        case _:
            assert_never(change)


def _update(
    table: str, link_id: int | None, before: dict[str, str | None] | None, after: dict[str, str | None]
) -> HistoryRow:
    return HistoryRow(table, link_id, "update", _json(before), _json(after))


def _json(values: dict[str, str | None] | None) -> str | None:
    return None if values is None else msgspec.json.encode(values).decode()
