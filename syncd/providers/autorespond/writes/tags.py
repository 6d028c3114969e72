"""Tags: added and removed by id, both documented as harmless to repeat, shown again by name only."""

from __future__ import annotations

from collections.abc import Iterable

from syncd.domain.changes import AddTag, RemoveTag, facet_of
from syncd.domain.facets import NO, YES
from syncd.domain.records import TagName
from syncd.policy.merge import Conflict
from syncd.policy.proof import Sight, by_tags
from syncd.providers.autorespond import decode
from syncd.providers.autorespond.judgement import Said
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found, accepted
from syncd.providers.autorespond.writes.finding import Whom, tag_id, whom
from syncd.providers.contract import Contested, Conversation, Delivered, Outcome, Proof, Target


def add(dialogue: Dialogue, change: AddTag, target: Target) -> Conversation:
    """Give the relation the tag."""
    return (yield from _write(dialogue, change, target, "tag_add"))


def remove(dialogue: Dialogue, change: RemoveTag, target: Target) -> Conversation:
    """Take the tag from the relation."""
    return (yield from _write(dialogue, change, target, "tag_remove"))


def _write(dialogue: Dialogue, change: AddTag | RemoveTag, target: Target, operation: str) -> Conversation:
    tag = yield from tag_id(dialogue, change.tag_remote_id, change.tag_name)
    if not isinstance(tag, str):
        return tag
    who = yield from whom(dialogue, target)
    if not isinstance(who, Whom):
        return who
    clashes = yield from _moved(dialogue, who, change, target)
    if not isinstance(clashes, tuple):
        return clashes
    if target.agreed is not None and target.agreed.gives_way(clashes):
        return Contested(clashes)
    reply = yield from dialogue.write(operation, {"relId": who.remote_id, "tagId": tag}, clashes)
    if not isinstance(reply, Said):
        return reply
    if not dialogue.verify_writes:
        return accepted(reply, who.learned)
    return (yield from _shown(dialogue, who, change, reply))


def _moved(
    dialogue: Dialogue, who: Whom, change: AddTag | RemoveTag, target: Target
) -> Asking[tuple[Conflict, ...] | Outcome]:
    """Return whether the CRM did by itself what was done and undone here: only then can an addition or a removal, which
    else does nothing, overwrite something. Asked in that case alone."""
    facet, wanted = facet_of(change), YES if isinstance(change, AddTag) else NO
    if target.agreed is None or facet not in target.agreed.trails or target.agreed.trails[facet].base != wanted:
        return ()
    found = yield from dialogue.read_list("relation_tags", decode.TAG_NAME, {"id": who.remote_id})
    if not isinstance(found, Found):
        return found
    return target.agreed.clashes({facet: wanted}, {facet: YES if is_among(change, found.records) else NO})


def _shown(dialogue: Dialogue, who: Whom, change: AddTag | RemoveTag, reply: Said) -> Asking[Delivered]:
    """Read the relation's tags after the write; a failed read leaves the CRM's yes as it is."""
    found = yield from dialogue.read_list("relation_tags", decode.TAG_NAME, {"id": who.remote_id})
    if not isinstance(found, Found):
        return accepted(reply, who.learned)
    has_tag = is_among(change, found.records)
    seen = by_tags(change, has_tag)
    if seen.sight is Sight.EXPECTED:
        return Delivered(Proof.VERIFIED, who.learned)
    told = f"the CRM {'still shows' if has_tag else 'does not show'} the tag"
    return Delivered(Proof.DIVERGED, who.learned, told, seen)


def is_among(change: AddTag | RemoveTag, shown: Iterable[TagName]) -> bool:
    """Tell whether the change's tag is among those shown, by name."""
    return change.tag_name.strip() in {tag.name.strip() for tag in shown}
