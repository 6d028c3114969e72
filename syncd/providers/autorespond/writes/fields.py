"""Free fields: set a value (which can never be read back) and create a field (whose name must be unique)."""

from __future__ import annotations

import re

from syncd.domain.changes import CreateField, SetField
from syncd.domain.records import FreeField
from syncd.providers.autorespond import decode
from syncd.providers.autorespond.judgement import Said
from syncd.providers.autorespond.wording import quoted
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found, accepted, undecided
from syncd.providers.autorespond.writes.finding import Whom, whom
from syncd.providers.contract import Conversation, Delivered, Outcome, Proof, Rejected, Target, Unknown

_NAME = re.compile(r"[A-Za-z_]{1,59}")
_TYPES = ("boolean", "string", "list")
_LONGEST_OPTIONS = 2047


def set_value(dialogue: Dialogue, change: SetField, target: Target) -> Conversation:
    """Set a free field; no value is sent as an empty text, which this call documents no other way to say."""
    if decode.is_standard_field(change.code):
        return Rejected(f"{quoted(change.code, 60)} is one of the CRM's own fields, which setfield must not touch")
    who = yield from whom(dialogue, target)
    if not isinstance(who, Whom):
        return who
    value = change.new if change.new is not None else ""
    reply = yield from dialogue.write(
        "field_set", {"relId": who.remote_id}, fieldCode=change.code, fieldValue=value
    )  # fmt: skip
    return accepted(reply, who.learned) if isinstance(reply, Said) else reply


def create(dialogue: Dialogue, change: CreateField, target: Target) -> Conversation:
    """Create a field unless one of that name is there. The answer is an id; its code comes with the next read."""
    wrong = _what_is_wrong(change)
    if wrong is not None:
        return Rejected(wrong)
    found = yield from dialogue.read_list("fields", decode.FIELD)
    if not isinstance(found, Found):
        return undecided(found) if target.is_repeat else found
    if any(_has_name(field, change.name) for field in found.records):
        if target.is_repeat:
            return Delivered(Proof.VERIFIED, detail="an earlier try had arrived")
        return Rejected("the CRM has a field of this name already")
    if target.is_repeat and any(field.name == change.label for field in found.records):
        return Unknown("the CRM shows a field with this label under another name; whether it is ours cannot be told")
    reply = yield from dialogue.write(
        "field_create",
        fieldName=change.name,
        fieldLabel=change.label,
        fieldType=change.type,
        fieldOptions=",".join(change.options) if change.options else None,
    )
    if isinstance(reply, Said):
        return _created(reply)
    if target.is_repeat and isinstance(reply, Rejected):
        return (yield from _arrived_meanwhile(dialogue, change, reply))
    return reply


def _arrived_meanwhile(dialogue: Dialogue, change: CreateField, refused: Rejected) -> Asking[Outcome]:
    """Look once more after a refusal: the earlier try may have landed between our read and this one."""
    found = yield from dialogue.read_list("fields", decode.FIELD)
    if not isinstance(found, Found):
        return undecided(found)
    if any(_has_name(field, change.name) for field in found.records):
        return Delivered(Proof.VERIFIED, detail="an earlier try had arrived")
    return refused


def _has_name(field: FreeField, name: str) -> bool:
    return name.casefold() in {(field.name or "").casefold(), field.code.casefold()}


def _created(said: Said) -> Delivered:
    number = quoted(said.payload.decode().strip('"'), 40)
    return accepted(said, detail=f"field id {number}; its code comes with the next pull of fields" if number else "")


def _what_is_wrong(change: CreateField) -> str | None:
    """Return what the reference forbids about a new field, in one sentence, or None."""
    if not _NAME.fullmatch(change.name):
        return "a field name has letters a to Z and underscores only, and fewer than 60 of them"
    if change.type not in _TYPES:
        return f"a field is of type {', '.join(_TYPES)}, nothing else"
    if (change.type == "list") != bool(change.options):
        return "a field of type list has options, and no other field has"
    if any("," in option for option in change.options):
        return "an option of a field cannot hold a comma, because the CRM separates them by commas"
    if len(",".join(change.options)) > _LONGEST_OPTIONS:
        return "the options of a field, with their commas, must be shorter than 2048 characters"
    return None
