"""Which conversation delivers which local change, and which changes may be sent at all.

Changes that mail people, record consent or end subscriptions stay off until the options name them: such a change is
rejected before any request, with a reason that says how to allow it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    operation_of,
)
from syncd.providers.autorespond.writes import fields, groups, lists, relations, subscriptions, tags
from syncd.providers.autorespond.writes.dialogue import Dialogue
from syncd.providers.contract import Conversation, Effect, Rejected, Target

GUARDED_OPERATIONS = frozenset({"subscribe", "subscribe_with_consent", "unsubscribe", "end_subscription"})


def converse(dialogue: Dialogue, allowed: frozenset[str], change: LocalChange, target: Target) -> Conversation:
    """Start the conversation that delivers a change, or one that refuses it without a request."""
    operation = operation_of(change)
    if operation in GUARDED_OPERATIONS and operation not in allowed:
        return _switched_off(operation)
    return _conversation(dialogue, change, target)


def effect_of(change: LocalChange) -> Effect:
    """Return what repeating a delivery does: everything is harmless to repeat but lists, endings and new fields."""
    match change:
        case SubscribeWithConsent():
            return Effect.CONSENT
        case Subscribe() | Unsubscribe() | EndSubscription() | CreateField():
            return Effect.ONCE
        case (
            CreateRelation() | ChangeEmail() | UpdateProfile() | AddTag() | RemoveTag() | SetField() | JoinGroup()
            | LeaveGroup()
        ):  # fmt: skip
            return Effect.REPEAT_SAFE
        case _:
            assert_never(change)


def write_of(change: LocalChange) -> str:
    """Return the name of the write that delivers a change: the one request of its conversation that is no read."""
    return _WRITES[type(change)]


_WRITES: Mapping[type[LocalChange], str] = {
    CreateRelation: "relation_upsert",
    ChangeEmail: "relation_email",
    UpdateProfile: "relation_upsert",
    AddTag: "tag_add",
    RemoveTag: "tag_remove",
    SetField: "field_set",
    JoinGroup: "group_add",
    LeaveGroup: "group_remove",
    Subscribe: "list_subscribe",
    Unsubscribe: "list_unsubscribe",
    SubscribeWithConsent: "list_gdpr_subscribe",
    EndSubscription: "subscription_end",
    CreateField: "field_create",
}


def _conversation(dialogue: Dialogue, change: LocalChange, target: Target) -> Conversation:
    match change:
        case CreateRelation():
            return relations.create(dialogue, change, target)
        case UpdateProfile():
            return relations.update(dialogue, change, target)
        case ChangeEmail():
            return relations.change_email(dialogue, change, target)
        case AddTag():
            return tags.add(dialogue, change, target)
        case RemoveTag():
            return tags.remove(dialogue, change, target)
        case SetField():
            return fields.set_value(dialogue, change, target)
        case CreateField():
            return fields.create(dialogue, change, target)
        case JoinGroup():
            return groups.join(dialogue, change, target)
        case LeaveGroup():
            return groups.leave(dialogue, change, target)
        case Subscribe():
            return lists.subscribe(dialogue, change, target)
        case SubscribeWithConsent():
            return lists.subscribe_with_consent(dialogue, change, target)
        case Unsubscribe():
            return lists.unsubscribe(dialogue, change, target)
        case EndSubscription():
            return subscriptions.end(dialogue, change, target)
        case _:
            assert_never(change)


def _switched_off(operation: str) -> Conversation:
    yield from ()
    return Rejected(
        f"operation {operation} is switched off; add it to SYNCD_ALLOWED_OPERATIONS and run syncd outbox retry"
        f" --operation {operation}"
    )
