"""Relations: create, edit the profile, change the e-mail address.

The CRM's upsert finds by e-mail address. So a relation whose id is known is asked for its address first: keyed on a
stale one, the upsert would make a second relation. Only changed fields are sent; what the CRM does with an empty one
is unknown, so emptying a field is refused unless ``full_payload`` says that empty texts are understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from syncd.domain.changes import ChangeEmail, CreateRelation, UpdateProfile
from syncd.domain.errors import MalformedAnswer
from syncd.domain.records import Relation
from syncd.policy.merge import Conflict
from syncd.policy.proof import Showing, Sight
from syncd.providers.autorespond import decode, formats, rows
from syncd.providers.autorespond.judgement import Reply, Said
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found, accepted, undecided
from syncd.providers.autorespond.writes.finding import (
    NO_ADDRESS,
    NO_RELATION,
    is_same_address,
    relation_by_email,
    relation_by_id,
)
from syncd.providers.contract import (
    Contested,
    Conversation,
    Delivered,
    Outcome,
    Proof,
    Rejected,
    Retryable,
    Target,
    Throttled,
    Unauthorised,
)

_PARAMETERS = {
    "first_name": "firstName", "suffix": "suffix", "last_name": "lastName", "gender": "gender", "type": "type",
    "customer": "customer",
}  # fmt: skip
_READABLE = ("first_name", "suffix", "last_name", "gender")
_GONE = Rejected("the CRM no longer knows the relation of this id")


def create(dialogue: Dialogue, change: CreateRelation, target: Target) -> Conversation:
    """Upsert by the new address and learn the id; a relation that is known already is edited instead.

    On a repeat, look first: a relation that has all of it needs no second upsert. Look first, too, where names would be
    overwritten: the address may have become known to the CRM while nobody here could know; and where the address may be
    another relation's still.
    """
    profile = {name: value for name, value in change.profile.items() if value is not None}
    if target.remote_id is not None:
        return (yield from update(dialogue, UpdateProfile(old={}, new=dict(profile)), target))
    sent = _sent(profile, {}, dialogue)
    if isinstance(sent, Rejected):
        return sent
    clashes: tuple[Conflict, ...] = ()
    if target.is_repeat or target.others or (target.agreed is not None and sent):
        found = yield from relation_by_email(dialogue, change.email, target.others)
        if not isinstance(found, Found):
            return undecided(found) if target.is_repeat else found
        if found.first is not None and (seen := _proved(found.first, sent)).proof is Proof.VERIFIED:
            return replace(seen, detail="an earlier try had arrived" if target.is_repeat else "the CRM has it already")
        clashes = _clashes(target, profile, found.first)
        if target.agreed is not None and target.agreed.gives_way(clashes):
            return Contested(clashes)
    reply = yield from dialogue.write("relation_upsert", {}, clashes, email=change.email, **_named(sent))
    return (yield from _created(dialogue, change, sent, reply))


def _created(dialogue: Dialogue, change: CreateRelation, sent: Mapping[str, str], reply: Reply) -> Asking[Outcome]:
    if not isinstance(reply, Said):
        return reply
    shown = _relation(reply, dialogue)
    if shown is None or not is_same_address(shown, change.email):
        return (yield from _learn(dialogue, change.email, sent))
    return _proved(shown, sent)


def update(dialogue: Dialogue, change: UpdateProfile, target: Target) -> Conversation:
    """Ask for the CRM's present address, then upsert the changed fields under it."""
    known = yield from _present(dialogue, target)
    if not isinstance(known, Relation):
        return known
    if not isinstance(known.email, str) or not known.email:
        return Rejected("the relation has no e-mail address in the CRM, and its profile can only be set by address")
    sent = _sent(change.new, _values(known), dialogue)
    if isinstance(sent, Rejected):
        return sent
    learned = None if target.remote_id is not None else known.remote_id
    clashes = _clashes(target, change.new, known)
    if target.agreed is not None and target.agreed.gives_way(clashes):
        return Contested(clashes)
    if not sent:
        return Delivered(Proof.VERIFIED, learned, "the CRM has these values already")
    reply = yield from dialogue.write("relation_upsert", {}, clashes, email=known.email, **_named(sent))
    return (yield from _updated(dialogue, known, sent, learned, reply))


def _updated(
    dialogue: Dialogue, known: Relation, sent: Mapping[str, str], learned: str | None, reply: Reply
) -> Asking[Outcome]:
    if not isinstance(reply, Said):
        return reply
    shown = _relation(reply, dialogue)
    if shown is None and dialogue.verify_writes:
        found = yield from relation_by_id(dialogue, known.remote_id)
        shown = found.first if isinstance(found, Found) else None
    if shown is None:
        return accepted(reply, learned)
    if shown.remote_id != known.remote_id:
        told = "the CRM put the values on another relation of the same address"
        return Delivered(Proof.DIVERGED, learned, told, _other({"id": known.remote_id}, {"id": shown.remote_id}))
    return _proved(shown, sent, learned=learned)


def change_email(dialogue: Dialogue, change: ChangeEmail, target: Target) -> Conversation:
    """Change the address by id. Look first what it is: an earlier try may have done it, or somebody in the CRM."""
    who = yield from _whose_address(dialogue, change, target)
    if not isinstance(who, str):
        return undecided(who) if target.is_repeat else who
    learned = None if target.remote_id is not None else who
    if target.is_repeat:
        has_address = yield from _has_address(dialogue, who, change)
        if has_address is True:
            return Delivered(Proof.VERIFIED, learned, "an earlier try had arrived")
        if has_address is not False:
            return undecided(has_address)
    if target.others:
        found = yield from relation_by_email(dialogue, change.new, target.others)
        if not isinstance(found, Found):
            return undecided(found) if target.is_repeat else found
    clashes = yield from _moved_address(dialogue, who, change, target)
    if not isinstance(clashes, tuple):
        return clashes
    if target.agreed is not None and target.agreed.gives_way(clashes):
        return Contested(clashes)
    reply = yield from dialogue.write("relation_email", {"id": who}, clashes, newemail=change.new)
    match reply:
        case Said():
            return (yield from _address_changed(dialogue, change, who, learned, reply))
        case Rejected():
            if (yield from _has_address(dialogue, who, change)) is True:
                return Delivered(Proof.VERIFIED, learned, "the CRM had this address already")
            hint = "; if another relation holds the address, merge the two in the CRM"
            return Rejected(reply.reason + hint, reply.is_absent)
        case _:
            return reply


def _learn(dialogue: Dialogue, email: str, sent: Mapping[str, str]) -> Conversation:
    """Read the id that the upsert's answer did not show. The upsert may be sent again, so a failed read is harmless;
    but whatever it failed by, the upsert was not refused."""
    found = yield from relation_by_email(dialogue, email)
    if isinstance(found, Throttled):
        return Retryable(found.reason, found.retry_after_s)
    if isinstance(found, Rejected | Unauthorised):
        return Retryable(found.reason)
    if not isinstance(found, Found):
        return found
    if found.first is None:
        return Retryable("the CRM took the relation and does not show it yet")
    return _proved(found.first, sent)


def _present(dialogue: Dialogue, target: Target) -> Asking[Relation | Outcome]:
    """Return the relation as the CRM has it now, by id or else by address."""
    if target.remote_id is not None:
        found = yield from relation_by_id(dialogue, target.remote_id)
        missing = _GONE
    elif target.email:
        found = yield from relation_by_email(dialogue, target.email, target.others)
        missing = NO_RELATION
    else:
        return NO_ADDRESS
    if not isinstance(found, Found):
        return found
    relation = found.first
    return relation if isinstance(relation, Relation) else missing


def _whose_address(dialogue: Dialogue, change: ChangeEmail, target: Target) -> Asking[str | Outcome]:
    """Return the id of the relation whose address changes: known, or found by the old address or else the new one."""
    if target.remote_id is not None:
        return target.remote_id
    for email in (change.old, change.new):
        if not email:
            continue
        found = yield from relation_by_email(dialogue, email, target.others)
        if not isinstance(found, Found):
            return found
        if found.first is not None:
            return str(found.first.remote_id)
    return NO_RELATION


def _has_address(dialogue: Dialogue, remote_id: str, change: ChangeEmail) -> Asking[bool | Outcome]:
    """Tell whether the CRM shows the new address; a change of letter case alone must be shown exactly."""
    found = yield from relation_by_id(dialogue, remote_id)
    if not isinstance(found, Found):
        return found
    if found.first is None:
        return False
    if change.old is not None and change.old.casefold() == change.new.casefold():
        return bool(found.first.email == change.new)
    return is_same_address(found.first, change.new)


def _moved_address(
    dialogue: Dialogue, who: str, change: ChangeEmail, target: Target
) -> Asking[tuple[Conflict, ...] | Outcome]:
    """Return whether the CRM has another address by now than either side knows of."""
    if target.agreed is None:
        return ()
    found = yield from relation_by_id(dialogue, who)
    if not isinstance(found, Found):
        return undecided(found) if target.is_repeat else found
    return _clashes(target, {"email": change.new}, found.first)


def _clashes(target: Target, wanted: Mapping[str, str | None], present: Relation | None) -> tuple[Conflict, ...]:
    """Return the fields that the CRM, as it is now, has moved by itself."""
    if target.agreed is None or present is None:
        return ()
    email = {"email": present.email} if isinstance(present.email, str) else {}
    return target.agreed.clashes(wanted, {**_values(present), **email})


def _address_changed(
    dialogue: Dialogue, change: ChangeEmail, who: str, learned: str | None, reply: Said
) -> Asking[Outcome]:
    if not dialogue.verify_writes:
        return accepted(reply, learned)
    found = yield from relation_by_id(dialogue, who)
    if not isinstance(found, Found) or found.first is None:
        return accepted(reply, learned)
    if is_same_address(found.first, change.new):
        return Delivered(Proof.VERIFIED, learned)
    shown = found.first.email if isinstance(found.first.email, str) else ""
    difference = _other({"email": change.new}, {"email": shown})
    return Delivered(Proof.DIVERGED, learned, "the CRM still shows another address", difference)


def _sent(
    new: Mapping[str, str | None], present: Mapping[str, str | None], dialogue: Dialogue
) -> dict[str, str] | Rejected:
    """Return the columns to send with their wire values, or why they cannot be sent."""
    wanted: dict[str, str] = {}
    for name, value in new.items():
        if name not in _PARAMETERS:
            return Rejected(f"{name} cannot be set through this API", is_ours=True)
        said = _wire_value(name, value)
        if said == "" and not dialogue.full_payload:
            if name in present and not present[name]:
                continue
            return Rejected(
                f"{name} cannot be emptied: what the CRM does with an empty text is unknown; give it a value, "
                "or set SYNCD_FULL_PAYLOAD=true to send empty texts",
                is_ours=True,
            )
        if said is None:
            return Rejected(f"{name} must be {_RULES[name]}", is_ours=True)
        wanted[name] = said
    if dialogue.full_payload and wanted:
        return {**{name: value or "" for name, value in present.items() if name != "gender" or value}, **wanted}
    return wanted


_RULES = {"gender": "M, F or -", "type": "a single character", "customer": "y or n"}


def _wire_value(name: str, value: str | None) -> str | None:
    """Return a column's value as the reference wants it, '' for nothing, None when it breaks the reference's rule."""
    given = (value or "").strip() if name in _RULES else (value or "")
    match name:
        case "gender":
            return given.upper() or "-" if given.upper() in ("", "M", "F", "-") else None
        case "type":
            return given if len(given) <= 1 else None
        case "customer":
            flag = formats.truth(given)
            return "" if not given else None if flag is None else ("y" if flag else "n")
        case _:
            return given


def _named(sent: Mapping[str, str]) -> dict[str, str]:
    return {_PARAMETERS[name]: value for name, value in sent.items()}


def _relation(said: Said, dialogue: Dialogue) -> Relation | None:
    """Return the relation that an answer shows; None when it says yes and no more."""
    try:
        row = rows.one_of(said.payload or b"null", decode.RELATION, "relation_upsert", dialogue.zone)
    except MalformedAnswer:
        return None
    record = row.record if row is not None else None
    return record if isinstance(record, Relation) else None


def _values(relation: Relation) -> dict[str, str | None]:
    shown = ((name, getattr(relation, name)) for name in _READABLE)
    return {name: value for name, value in shown if value is None or isinstance(value, str)}


def _proved(shown: Relation, sent: Mapping[str, str], *, learned: str | None = "") -> Delivered:
    """Compare what was sent with what the CRM shows: verified, diverged, or accepted where it shows nothing."""
    remote_id = shown.remote_id if learned == "" else learned
    values = _values(shown)
    differing = [name for name in sent if name in values and not _is_equal(name, values[name], sent[name])]
    if differing:
        difference = _other({n: sent[n] for n in differing}, {n: values[n] or "" for n in differing})
        return Delivered(Proof.DIVERGED, remote_id, f"the CRM shows another {', '.join(differing)}", difference)
    if all(name in values for name in sent):
        return Delivered(Proof.VERIFIED, remote_id)
    return Delivered(Proof.ACCEPTED, remote_id)


def _other(expected: Mapping[str, str], shown: Mapping[str, str]) -> Showing:
    return Showing(Sight.OTHER, expected, shown)


def _is_equal(name: str, shown: str | None, sent: str) -> bool:
    nothing = "-" if name == "gender" else ""
    return (shown or nothing).strip() == sent.strip()
