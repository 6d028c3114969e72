"""Passing: what a part of a lane must be told of the e-mail changes that stand behind it.

An e-mail change that waits for another lane is passed by a later one, and stays passed once that one may have been
applied (``policy.fold``). A claim reads a long lane in part, and must not decide otherwise for that.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from syncd.policy.fold import Entry


def is_to_be_told(read: Sequence[Entry]) -> bool:
    """Tell whether what stands behind a part of a lane matters to it: only if an e-mail change of it may be passed."""
    return any(entry.moves and not entry.is_uncertain for entry in read)


def told(read: Sequence[Entry], *, moves_on: bool, has_moved_on: bool) -> list[Entry]:
    """Return a part of a lane with each e-mail change told what stands behind the part."""
    if not moves_on and not has_moved_on:
        return list(read)
    return [
        msgspec.structs.replace(entry, moves_on=moves_on, has_moved_on=has_moved_on) if entry.moves else entry
        for entry in read
    ]


def part(entries: Sequence[Entry], size: int) -> tuple[Entry, ...]:
    """Return the first so many entries of a lane, told what stands behind them."""
    read, rest = entries[:size], entries[size:]
    if not rest or not is_to_be_told(read):
        return tuple(read)
    moves_on, has_moved_on = any(entry.moves for entry in rest), any(entry.has_moved for entry in rest)
    return tuple(told(read, moves_on=moves_on, has_moved_on=has_moved_on))
