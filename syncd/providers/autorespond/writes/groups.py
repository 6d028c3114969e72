"""Groups: joining and leaving are documented as harmless to repeat. A whole group is too long to be read back."""

from __future__ import annotations

from syncd.domain.changes import JoinGroup, LeaveGroup
from syncd.providers.autorespond.judgement import Said
from syncd.providers.autorespond.writes.dialogue import Dialogue, accepted
from syncd.providers.autorespond.writes.finding import Whom, group_id, whom
from syncd.providers.contract import Conversation, Target


def join(dialogue: Dialogue, change: JoinGroup, target: Target) -> Conversation:
    """Make the relation a member of the group."""
    return (yield from _write(dialogue, change, target, "group_add"))


def leave(dialogue: Dialogue, change: LeaveGroup, target: Target) -> Conversation:
    """End the relation's membership of the group."""
    return (yield from _write(dialogue, change, target, "group_remove"))


def _write(dialogue: Dialogue, change: JoinGroup | LeaveGroup, target: Target, operation: str) -> Conversation:
    group = yield from group_id(dialogue, change.group_remote_id, change.group_title)
    if not isinstance(group, str):
        return group
    who = yield from whom(dialogue, target)
    if not isinstance(who, Whom):
        return who
    reply = yield from dialogue.write(operation, {"grpId": group, "relId": who.remote_id})
    return accepted(reply, who.learned) if isinstance(reply, Said) else reply
