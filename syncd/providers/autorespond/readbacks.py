"""Read-backs: what the CRM shows of a change that it said yes to. One read each, never a write.

Free-field values and the columns ``type`` and ``customer`` are never shown. A group's members come in one answer,
however many they are: that is worth a pull, and never a read for one relation's sake.
"""

from __future__ import annotations

from typing import assert_never

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
from syncd.domain.records import Relation
from syncd.policy.proof import (
    UNTOLD,
    by_fields,
    by_orders,
    by_relation,
    by_standing,
    by_tags,
    is_shown_by_relations,
)
from syncd.providers.autorespond import decode
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found
from syncd.providers.autorespond.writes.finding import Whom, relation_by_id, whom
from syncd.providers.autorespond.writes.lists import standing
from syncd.providers.autorespond.writes.tags import is_among
from syncd.providers.contract import Outcome, Readable, ReadBack, Target


def readable(change: LocalChange) -> Readable:
    """Return how a delivered change can be seen."""
    match change:
        case SetField():
            return Readable.NEVER
        case CreateRelation() | UpdateProfile() | ChangeEmail():
            return Readable.BY_CALL if is_shown_by_relations(change) else Readable.NEVER
        case JoinGroup() | LeaveGroup():
            return Readable.BY_PULL
        case (
            AddTag() | RemoveTag() | Subscribe() | SubscribeWithConsent() | Unsubscribe() | EndSubscription()
            | CreateField()
        ):  # fmt: skip
            return Readable.BY_CALL
        case _:
            assert_never(change)


def read_back(dialogue: Dialogue, change: LocalChange, target: Target) -> ReadBack:
    """Read what the CRM shows of a delivered change."""
    if isinstance(change, CreateField):
        found = yield from dialogue.read_list("fields", decode.FIELD)
        return by_fields(change, found.records) if isinstance(found, Found) else found
    if readable(change) is not Readable.BY_CALL:
        return UNTOLD
    who = yield from whom(dialogue, target)
    if not isinstance(who, Whom):
        return who
    return (yield from _of_relation(dialogue, change, who, target))


def _of_relation(dialogue: Dialogue, change: LocalChange, who: Whom, target: Target) -> ReadBack:
    match change:
        case AddTag() | RemoveTag():
            found = yield from dialogue.read_list("relation_tags", decode.TAG_NAME, {"id": who.remote_id})
            return by_tags(change, is_among(change, found.records)) if isinstance(found, Found) else found
        case Subscribe() | SubscribeWithConsent() | Unsubscribe():
            return (yield from _standing(dialogue, change, who, target))
        case EndSubscription():
            found = yield from dialogue.read_list("relation_orders", decode.ORDER, {"id": who.remote_id})
            return by_orders(change, found.records) if isinstance(found, Found) else found
        case CreateRelation() | UpdateProfile() | ChangeEmail():
            known = yield from _relation(dialogue, who)
            return by_relation(change, known) if isinstance(known, Relation) else known or UNTOLD
        case _:
            return UNTOLD


def _standing(
    dialogue: Dialogue, change: Subscribe | SubscribeWithConsent | Unsubscribe, who: Whom, target: Target
) -> ReadBack:
    found = yield from dialogue.read_list("relation_subscriptions", decode.SUBSCRIPTION, {"id": who.remote_id})
    if not isinstance(found, Found):
        return found
    return by_standing(change, standing(found.records, change.list_remote_id), target.since, target.since)


def _relation(dialogue: Dialogue, who: Whom) -> Asking[Relation | Outcome | None]:
    found = yield from relation_by_id(dialogue, who.remote_id)
    if not isinstance(found, Found):
        return found
    return found.first if isinstance(found.first, Relation) else None
