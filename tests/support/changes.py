"""One sample of each kind of local change, so that a new kind without a sample fails where samples are needed."""

from __future__ import annotations

from datetime import date

from syncd.domain.changes import (
    CHANGES,
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

EMAIL = "jan+list@example.org"
NEW_EMAIL = "piet@example.org"
SAMPLES: tuple[LocalChange, ...] = (
    CreateRelation(EMAIL, {"first_name": "Jan", "gender": "M"}),
    ChangeEmail(EMAIL, NEW_EMAIL),
    UpdateProfile({"first_name": None}, {"first_name": "Jan"}),
    AddTag(1, "11", "vip"),
    AddTag(1, None, "vip"),
    RemoveTag(1, "11", "vip"),
    SetField(1, "12_FF1300000000000", None, "red"),
    JoinGroup(1, "21", "Customers"),
    LeaveGroup(1, None, "Customers"),
    Subscribe(1, "31", True),
    Unsubscribe(1, "31", "asked to"),
    SubscribeWithConsent(1, "31", False, "privacy", True, "https://example.org/privacy", "yes", True, "192.0.2.1"),
    EndSubscription("41", date(2027, 1, 31)),
    CreateField("colour", "Colour", "string", ()),
)

assert {type(sample) for sample in SAMPLES} == set(CHANGES)
