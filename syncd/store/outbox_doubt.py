"""Doubt: what a dropped claim may have sent.

A lane whose last claim left its intent behind was dropped in mid-sending. Whatever may have been sent is marked
uncertain here, before anybody sends again: a barrier will be read back, anything else said once more afterwards. An
intent that is still negative says that the call, which is not repeat-safe, had not begun (``outbox_intent``): it is in
nobody's doubt, and is sent as if for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.changes import IDENTITY, PROFILE
from syncd.policy.fold import Entry, RepeatSafe
from syncd.store.engine import Connection
from syncd.store.outbox_landing import Late, late_of

_DOUBT = text(
    """
    UPDATE syncd.entries e SET is_uncertain = true
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:seqs AS bigint[])) AS c (lane_id, seq)
    WHERE e.lane_id = c.lane_id AND e.seq = c.seq
    """
)


async def doubt(
    connection: Connection,
    lanes: Sequence[Any],
    entries: dict[int, list[Entry]],
    is_repeat_safe: RepeatSafe,
    lands_s: float,
) -> dict[int, Late]:
    """Mark what a dropped claim was about to send, in the database and among the ``entries`` of each lane; it may have
    been applied, or may land for ``lands_s``. Return what the lanes are to expect from now on: the caller tells them,
    once it does not need them any more where it has locked them."""
    found = {
        lane.id: doubtful(entries.get(lane.id, ()), lane.sending_upto, is_repeat_safe)
        for lane in lanes
        if lane.sending_upto is not None
    }
    places = [(lane_id, entry.seq) for lane_id, told in found.items() for entry in told]
    if not places:
        return {}
    lane_ids, seqs = (list(column) for column in zip(*places, strict=True))
    await connection.execute(_DOUBT, {"lane_ids": lane_ids, "seqs": seqs})
    for lane_id, told in found.items():
        if told:
            entries[lane_id][:] = marked(entries[lane_id], told)
    return {lane_id: late_of(told, entries.get(lane_id, ()), lands_s) for lane_id, told in found.items()}


def doubtful(entries: Sequence[Entry], upto: int | None, is_repeat_safe: RepeatSafe) -> list[Entry]:
    """Return the entries that a dropped claim with this intent may have sent: a barrier alone, or
    else anything up to the intent that is no barrier, with the dead profile edits that may have lent it their columns;
    none while the intent says that nothing had begun. One that was in doubt before is in doubt anew: this try may land
    as well."""
    if upto is None or upto < 0:
        return []
    is_alone = any(entry.seq == upto and _is_barrier(entry, is_repeat_safe) for entry in entries)
    if is_alone:
        return [entry for entry in entries if entry.seq == upto and entry.status == "pending"]
    sent = [e for e in entries if e.status == "pending" and e.seq <= upto and not _is_barrier(e, is_repeat_safe)]
    return [*_lent(entries, sent, is_repeat_safe), *sent]


def _lent(entries: Sequence[Entry], sent: Sequence[Entry], is_repeat_safe: RepeatSafe) -> list[Entry]:
    """Return the dead profile edits before the last one that was sent, back to the last barrier."""
    lent: list[Entry] = []
    last = max((entry.seq for entry in sent if entry.facet == PROFILE), default=0)
    for entry in entries:
        if entry.seq >= last:
            break
        if _is_barrier(entry, is_repeat_safe) and entry.status != "diverged":
            lent.clear()
        elif entry.facet == PROFILE and entry.status == "dead" and not entry.is_reassertion:
            lent.append(entry)
    return lent


def marked(entries: Sequence[Entry], doubted: Iterable[Entry]) -> list[Entry]:
    """Return entries of a lane with those of them uncertain that are in doubt."""
    seqs = {entry.seq for entry in doubted}
    return [msgspec.structs.replace(entry, is_uncertain=True) if entry.seq in seqs else entry for entry in entries]


def _is_barrier(entry: Entry, is_repeat_safe: RepeatSafe) -> bool:
    if entry.is_reassertion:
        return False
    return entry.facet == IDENTITY or (entry.change is not None and not is_repeat_safe(entry.change))
