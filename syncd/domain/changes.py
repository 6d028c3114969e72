"""Local changes: what an application did to the mirror, as the CRM must be told.

Each class is the payload of one capture and later of one outbox entry, tagged by ``operation``; the SQL triggers in
``migrations/sql`` write exactly these keys, and ``tests/store`` holds both sides together. Tags, groups and lists
carry the remote id that the mirror knew at capture time, beside the local id.

A **facet** is the part of a relation that a change speaks about. Changes of one facet are ordered and a dead one
blocks only its own facet; ``identity`` (create, e-mail change) blocks its whole lane.
"""

from __future__ import annotations

from datetime import date
from typing import TypeAlias

import msgspec

IDENTITY, PROFILE = "identity", "profile"


class CreateRelation(msgspec.Struct, frozen=True, tag="create_relation", tag_field="operation"):
    """A row inserted into crm.relations. ``profile`` holds the non-null profile columns by name."""

    email: str
    profile: dict[str, str | None]


class ChangeEmail(msgspec.Struct, frozen=True, tag="change_email", tag_field="operation"):
    old: str | None
    new: str


class UpdateProfile(msgspec.Struct, frozen=True, tag="update_profile", tag_field="operation"):
    """Changed profile columns only, each by name: values before and after."""

    old: dict[str, str | None]
    new: dict[str, str | None]


class AddTag(msgspec.Struct, frozen=True, tag="add_tag", tag_field="operation"):
    tag_id: int
    tag_remote_id: str | None
    tag_name: str


class RemoveTag(msgspec.Struct, frozen=True, tag="remove_tag", tag_field="operation"):
    tag_id: int
    tag_remote_id: str | None
    tag_name: str


class SetField(msgspec.Struct, frozen=True, tag="set_field", tag_field="operation"):
    field_id: int
    code: str
    old: str | None
    new: str | None


class JoinGroup(msgspec.Struct, frozen=True, tag="join_group", tag_field="operation"):
    group_id: int
    group_remote_id: str | None
    group_title: str | None


class LeaveGroup(msgspec.Struct, frozen=True, tag="leave_group", tag_field="operation"):
    group_id: int
    group_remote_id: str | None
    group_title: str | None


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe", tag_field="operation"):
    list_id: int
    list_remote_id: str | None
    skip_optin: bool


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe", tag_field="operation"):
    list_id: int
    list_remote_id: str | None
    reason: str


class SubscribeWithConsent(msgspec.Struct, frozen=True, tag="subscribe_with_consent", tag_field="operation"):
    list_id: int
    list_remote_id: str | None
    skip_optin: bool
    privacy_text: str
    privacy_agreement: bool
    privacy_url: str
    consent_text: str
    consent_agreement: bool
    ip: str


class EndSubscription(msgspec.Struct, frozen=True, tag="end_subscription", tag_field="operation"):
    subscription_id: str
    ends_on: date


class CreateField(msgspec.Struct, frozen=True, tag="create_field", tag_field="operation"):
    """``type`` is boolean, string or list; ``options`` only with list. Its lane is the account's, not a relation's."""

    name: str
    label: str
    type: str
    options: tuple[str, ...]


LocalChange: TypeAlias = (
    CreateRelation
    | ChangeEmail
    | UpdateProfile
    | AddTag
    | RemoveTag
    | SetField
    | JoinGroup
    | LeaveGroup
    | Subscribe
    | Unsubscribe
    | SubscribeWithConsent
    | EndSubscription
    | CreateField
)

CHANGES: tuple[type[LocalChange], ...] = (
    CreateRelation,
    ChangeEmail,
    UpdateProfile,
    AddTag,
    RemoveTag,
    SetField,
    JoinGroup,
    LeaveGroup,
    Subscribe,
    Unsubscribe,
    SubscribeWithConsent,
    EndSubscription,
    CreateField,
)

PROFILE_COLUMNS = ("first_name", "suffix", "last_name", "gender", "type", "customer")
EDITABLE_COLUMNS = ("email", *PROFILE_COLUMNS)


# What may start an e-mail campaign at the CRM, or is one.
MAILING_OPERATIONS = frozenset(
    {"add_tag", "remove_tag", "join_group", "leave_group", "subscribe", "subscribe_with_consent"}
)


def operation_of(change: LocalChange) -> str:
    """Return the operation name of a change, as stored in captures and entries."""
    return str(type(change).__struct_config__.tag)


def facet_of(change: LocalChange) -> str:
    """Return the facet that a change speaks about; the SQL triggers compute the same text."""
    match change:
        case CreateRelation() | ChangeEmail():
            return IDENTITY
        case UpdateProfile():
            return PROFILE
        case AddTag() | RemoveTag():
            return f"tag:{change.tag_id}"
        case SetField():
            return f"field:{change.field_id}"
        case JoinGroup() | LeaveGroup():
            return f"group:{change.group_id}"
        case Subscribe() | Unsubscribe() | SubscribeWithConsent():
            return f"list:{change.list_id}"
        case EndSubscription():
            return f"subscription:{change.subscription_id}"
        case CreateField():
            return f"new_field:{change.name}"


def decode_change(operation: str, payload: bytes | str) -> LocalChange:
    """Decode a stored payload (a JSON object without its operation) into its change.

    Raises msgspec.ValidationError when the payload lacks a key or holds a wrong type: a bug, not a bad day.
    """
    return _DECODERS[operation].decode(payload)


def read_change(operation: str, payload: bytes | str) -> tuple[LocalChange | None, str]:
    """Return a stored payload's change, or None and what is wrong with it: another version may have written it."""
    try:
        return decode_change(operation, payload), ""
    except KeyError:
        return None, f"the operation {operation} is not known to this version"
    except msgspec.DecodeError as error:
        return None, f"the payload cannot be read: {error}"


def encode_change(change: LocalChange) -> bytes:
    """Encode a change as the JSON object that ``decode_change`` reads."""
    return msgspec.json.encode(change)


_DECODERS: dict[str, msgspec.json.Decoder[LocalChange]] = {
    str(kind.__struct_config__.tag): msgspec.json.Decoder(kind) for kind in CHANGES
}
