"""Overtaken: a profile edit that is not delivered must not lend what a later edit of its lane has said already.

A dead profile edit lends its columns to a later edit (``policy.fold``), and so does one that is shown otherwise. It may
have been passed meanwhile: behind a call that waits for a person a newer value of its column is delivered without it.
Once that call is decided, or an edit beside the dead one is retried, the older value would be said after the newer. So
of such an edit only the columns count that nothing later of its lane was delivered with, or may have been: the rule by
which a person is refused to retry it (``outbox_operate``).

Noted where entries are read to be folded, and written nowhere: the entry keeps all that the application wrote. Asked of
the deliveries themselves, which are kept for as long as an older edit of their facet is not delivered
(``outbox_prune``). A lane without such an edit costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from sqlalchemy import text

from syncd.domain.changes import UpdateProfile
from syncd.policy.fold import Entry
from syncd.policy.merging import without
from syncd.policy.states import EntryStatus
from syncd.store.engine import Connection

_LENDS = frozenset({EntryStatus.DEAD.value, EntryStatus.DIVERGED.value})

# What was folded into a delivered edit was delivered with it. A re-assertion says an older value, whatever its place.
# (CASE, because what nobody can read need not have an object there.)
_SAID = text(
    """
    SELECT a.lane_id, c.name, max(e.seq) AS seq
    FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:firsts AS bigint[])) AS a (lane_id, first)
    CROSS JOIN LATERAL (
        SELECT seq, payload -> 'new' AS new FROM syncd.entries
        WHERE lane_id = a.lane_id AND seq > a.first AND facet = 'profile' AND reasserts IS NULL
          AND (status IN ('verified', 'accepted', 'diverged', 'superseded') OR is_uncertain)
        OFFSET 0
    ) AS e
    CROSS JOIN LATERAL jsonb_object_keys(CASE WHEN jsonb_typeof(e.new) = 'object' THEN e.new ELSE '{}' END) AS c (name)
    GROUP BY a.lane_id, c.name
    """
)


async def leave_out_overtaken(connection: Connection, entries: Mapping[int, list[Entry]]) -> None:
    """Leave out of the profile edits that could lend columns, by lane, those that something later has said."""
    firsts = {lane_id: min(seqs) for lane_id, trail in entries.items() if (seqs := list(_lenders(trail)))}
    if not firsts:
        return
    said: dict[int, dict[str, int]] = {}
    asked = {"lane_ids": list(firsts), "firsts": list(firsts.values())}
    for row in await connection.execute(_SAID, asked):
        said.setdefault(row.lane_id, {})[row.name] = row.seq
    for lane_id in firsts:
        columns = _later(said.get(lane_id, {}), entries[lane_id])
        entries[lane_id][:] = [_left(entry, columns) for entry in entries[lane_id]]


def _lenders(trail: list[Entry]) -> Iterator[int]:
    return (entry.seq for entry in trail if entry.status in _LENDS and isinstance(entry.change, UpdateProfile))


def _later(said: Mapping[str, int], trail: Sequence[Entry]) -> Mapping[str, int]:
    """Add what is in doubt as far as the caller knows: a plan writes no doubt down."""
    found = dict(said)
    for entry in trail:
        if entry.is_uncertain and not entry.is_reassertion and isinstance(entry.change, UpdateProfile):
            found |= {name: max(entry.seq, found.get(name, 0)) for name in entry.change.new}
    return found


def _left(entry: Entry, said: Mapping[str, int]) -> Entry:
    """Return an entry with what still counts of it; ``said`` tells of each column where it was said last."""
    if entry.status not in _LENDS or not isinstance(entry.change, UpdateProfile):
        return entry
    overtaken = {name for name, seq in said.items() if seq > entry.seq}
    return msgspec.structs.replace(entry, change=without(entry.change, overtaken))
