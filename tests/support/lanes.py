"""Builders of lanes: undelivered entries as ``policy.fold`` takes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

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
    facet_of,
    operation_of,
)
from syncd.policy.fold import Entry, Plan, fold
from syncd.policy.landing import ALL_HAS_LANDED, Landing

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
EARLIER = NOW - timedelta(minutes=1)

_ONCE = (Subscribe, Unsubscribe, SubscribeWithConsent, EndSubscription, CreateField)


def is_repeat_safe(change: LocalChange) -> bool:
    return not isinstance(change, _ONCE)


def entry(seq: int, change: LocalChange | None, status: str = "pending", **given: Any) -> Entry:
    """Return one entry; a change of None is a payload that nobody can read."""
    values: dict[str, Any] = {
        "id": 1000 + seq,
        "seq": seq,
        "operation": operation_of(change) if change is not None else "add_tag",
        "facet": facet_of(change) if change is not None else "tag:1",
        "status": status,
        "attempts": 0,
        "next_attempt_at": None,
        "is_uncertain": False,
        "captured_at": EARLIER,
        "change": change,
    }
    return Entry(**{**values, **given})


def lane(*changes: LocalChange) -> list[Entry]:
    return [entry(seq, change) for seq, change in enumerate(changes, 1)]


def plan(*entries: Entry, landing: Landing = ALL_HAS_LANDED) -> Plan:
    return fold(entries, is_repeat_safe, NOW, landing)


def sent(made: Plan) -> list[LocalChange]:
    return [step.change for step in made.steps]


def add(tag: int = 1) -> AddTag:
    return AddTag(tag_id=tag, tag_remote_id=str(tag), tag_name=f"tag {tag}")


def remove(tag: int = 1) -> RemoveTag:
    return RemoveTag(tag_id=tag, tag_remote_id=str(tag), tag_name=f"tag {tag}")


def join(group: int = 1) -> JoinGroup:
    return JoinGroup(group_id=group, group_remote_id=str(group), group_title=None)


def leave(group: int = 1) -> LeaveGroup:
    return LeaveGroup(group_id=group, group_remote_id=str(group), group_title=None)


def field(new: str | None, old: str | None = None, number: int = 1) -> SetField:
    return SetField(field_id=number, code=f"f{number}", old=old, new=new)


def profile(old: dict[str, str | None] | None = None, **new: str | None) -> UpdateProfile:
    return UpdateProfile(old=old or dict.fromkeys(new), new=new)


def email(new: str, old: str | None = None) -> ChangeEmail:
    return ChangeEmail(old=old, new=new)


def create(address: str = "a@x.example", **columns: str | None) -> CreateRelation:
    return CreateRelation(email=address, profile=columns)


def subscribe(number: int = 1) -> Subscribe:
    return Subscribe(list_id=number, list_remote_id=str(number), skip_optin=False)


def unsubscribe(number: int = 1) -> Unsubscribe:
    return Unsubscribe(list_id=number, list_remote_id=str(number), reason="")


def consent(number: int = 1) -> SubscribeWithConsent:
    return SubscribeWithConsent(
        list_id=number,
        list_remote_id=str(number),
        skip_optin=False,
        privacy_text="p",
        privacy_agreement=True,
        privacy_url="u",
        consent_text="c",
        consent_agreement=True,
        ip="192.0.2.1",
    )


def end(number: int = 1, day: int = 31) -> EndSubscription:
    return EndSubscription(subscription_id=str(number), ends_on=date(2030, 1, day))


def new_field(name: str = "colour") -> CreateField:
    return CreateField(name=name, label=name.title(), type="string", options=())
