"""Standstill: what is left of lanes once everything has been delivered that could ever be by itself.

A drain that ends must say which of the two is true of what it leaves: that it is tried again later, or that it waits
for a person. Where lanes wait for each other's address, or a call in doubt keeps older changes back, no rule of thumb
tells: whoever leaves the address may itself be stuck behind something. So it is played to its end. Back-offs are
over, what may still land has landed, every call is delivered (``policy.rounds``), and what is delivered lets go
whoever waits for it; what nobody lets go stands still.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from syncd.policy.fold import Entry, RepeatSafe, Step
from syncd.policy.rounds import course

_AT_LAST = datetime.max.replace(tzinfo=UTC)
_WHOLE = 1_000_000_000


def standstill(
    lanes: Mapping[int, Sequence[Entry]], awaited: Mapping[int, Collection[int]], is_repeat_safe: RepeatSafe
) -> dict[int, tuple[Entry, ...]]:
    """Return of each lane the entries that only a person can bring further.

    ``lanes`` have all that is not delivered, in sequence order. ``awaited`` names for an entry those of other lanes
    that must be delivered first; one that stands in none of ``lanes`` is on its way.
    """
    left = {lane_id: tuple(entries) for lane_id, entries in lanes.items()}
    waiting = {entry.id for entries in left.values() for entry in entries}
    takers = _takers(left, awaited)
    to_look_at = list(left)
    while to_look_at:
        lane_id = to_look_at.pop()
        entries = [_told(entry, awaited.get(entry.id, ()), waiting) for entry in left[lane_id]]
        left[lane_id] = course(entries, is_repeat_safe, _AT_LAST, _WHOLE, _delivered, is_bound=True).left
        gone = {entry.id for entry in entries} - {entry.id for entry in left[lane_id]}
        waiting -= gone
        to_look_at += {taker for entry_id in gone for taker in takers.get(entry_id, ())}
    return left


def _takers(lanes: Mapping[int, Iterable[Entry]], awaited: Mapping[int, Iterable[int]]) -> dict[int, set[int]]:
    """Return by awaited entry the lanes that wait for it."""
    takers: dict[int, set[int]] = {}
    for lane_id, entries in lanes.items():
        for entry in entries:
            for entry_id in awaited.get(entry.id, ()):
                takers.setdefault(entry_id, set()).add(lane_id)
    return takers


def _told(entry: Entry, awaited: Iterable[int], waiting: Collection[int]) -> Entry:
    """Tell an entry for which other one it waits at this point, if it still does for any."""
    awaits = next((entry_id for entry_id in awaited if entry_id in waiting), None)
    return entry if awaits == entry.awaits else msgspec.structs.replace(entry, awaits=awaits)


def _delivered(_step: Step, _is_bound: bool) -> None:
    """Refuse nothing: what the CRM will say is not known, and what is tried again is not left."""
