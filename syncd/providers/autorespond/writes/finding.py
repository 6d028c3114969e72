"""Finds what a change names: a relation by e-mail address where no id is known yet, a tag or group by its name.

A name decides only when exactly one thing bears it, compared without surrounding blanks, in exact case before any
case. Tags and groups cannot be created through this API, so one that is missing is a matter for a person.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from syncd.domain.records import Relation
from syncd.providers.autorespond import decode
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found
from syncd.providers.contract import Outcome, Rejected, Target

NO_ADDRESS = Rejected("the relation has neither a remote id nor an e-mail address, so the CRM cannot be told whom")
NO_RELATION = Rejected("the CRM knows no relation with this e-mail address; create it there or retry its creation")
ANOTHERS = Rejected(
    "the CRM has this address on another relation, which left it here by a change that was not delivered; give that "
    "relation another address, here or in the CRM, and retry this one",
    is_ours=True,
)
OTHER_RELATION = Rejected("asked for one e-mail address, the CRM answered with a relation of another one")


@dataclass(frozen=True, slots=True)
class Whom:
    """The relation a write is about. ``learned`` is its id when this conversation found it, to be bound."""

    remote_id: str
    learned: str | None = None


def whom(dialogue: Dialogue, target: Target) -> Asking[Whom | Outcome]:
    """Return the relation's id: the known one, or by its e-mail address."""
    if target.remote_id is not None:
        return Whom(target.remote_id)
    if not target.email:
        return NO_ADDRESS
    found = yield from relation_by_email(dialogue, target.email, target.others)
    if not isinstance(found, Found):
        return found
    if found.first is None:
        return NO_RELATION
    return Whom(found.first.remote_id, learned=found.first.remote_id)


def relation_by_email(dialogue: Dialogue, email: str, others: Collection[str] = ()) -> Asking[Found | Outcome]:
    """Look a relation up by address; an answer about another address, or one of the others, is refused, never bound."""
    found = yield from dialogue.read_one("relation_by_email", decode.RELATION, email=email)
    if isinstance(found, Found) and found.first is not None:
        if not is_same_address(found.first, email):
            return OTHER_RELATION
        if str(found.first.remote_id) in others:
            return ANOTHERS
    return found


def relation_by_id(dialogue: Dialogue, remote_id: str) -> Asking[Found | Outcome]:
    """Read a relation by its id."""
    return (yield from dialogue.read_one("relation_by_id", decode.RELATION, {"id": remote_id}))


def is_same_address(relation: Relation, email: str) -> bool:
    """Tell whether a relation has this address; the CRM is not known to keep letter case."""
    return isinstance(relation.email, str) and relation.email.strip().casefold() == email.strip().casefold()


def tag_id(dialogue: Dialogue, remote_id: str | None, name: str) -> Asking[str | Outcome]:
    """Return a tag's id, from the list of all tags if the mirror has none."""
    if remote_id is not None:
        return remote_id
    found = yield from dialogue.read_list("tags", decode.TAG)
    if not isinstance(found, Found):
        return found
    return _only([(tag.name, tag.remote_id) for tag in found.records], name, "tag")


def group_id(dialogue: Dialogue, remote_id: str | None, title: str | None) -> Asking[str | Outcome]:
    """Return a group's id, from the list of all groups if the mirror has none."""
    if remote_id is not None:
        return remote_id
    if not title:
        return Rejected("the group has neither a remote id nor a title, so the CRM cannot be told which")
    found = yield from dialogue.read_list("groups", decode.GROUP)
    if not isinstance(found, Found):
        return found
    return _only([(group.title or "", group.remote_id) for group in found.records], title, "group")


def _only(named: Iterable[tuple[str, str]], name: str, noun: str) -> str | Rejected:
    pairs = [(given.strip(), remote_id) for given, remote_id in named]
    exact = {remote_id for given, remote_id in pairs if given == name.strip()}
    alike = exact or {remote_id for given, remote_id in pairs if given.casefold() == name.strip().casefold()}
    match sorted(alike):
        case [only]:
            return only
        case []:
            return Rejected(f"the CRM has no {noun} of this name and its API cannot make one; create it in the CRM")
        case several:
            return Rejected(f"the CRM has {len(several)} {noun}s of this name, so which is meant cannot be told")
