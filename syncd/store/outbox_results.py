"""Results: how a claimed lane ended, as ``settle`` writes it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec

from syncd.domain.changes import LocalChange
from syncd.domain.incidents import Incident
from syncd.policy.merge import Conflict, Owner
from syncd.store.outbox_history import HistoryRow
from syncd.store.outbox_landing import Late


class EntrySettlement(msgspec.Struct, frozen=True, gc=False):
    """What becomes of one entry that was not plainly delivered.

    A pending one with ``delay_s`` backs off that long from the database's now.
    """

    seq: int
    status: str
    is_tried: bool = True
    delay_s: float | None = None
    is_uncertain: bool = False
    error: str | None = None
    superseded_by: int | None = None


class AttemptRow(msgspec.Struct, frozen=True, gc=False):
    """One conversation, as ``outbox show`` tells it."""

    entry_id: int
    operation: str
    started_at: datetime
    elapsed_s: float
    requests: int
    status_code: int | None
    outcome: str
    detail: str


class Reassertion(msgspec.Struct, frozen=True, gc=False):
    """What to say once more in ``window_s``: ``reasserts`` is the id of the entry whose first try may still land."""

    change: LocalChange
    reasserts: int
    window_s: float


class Contest(msgspec.Struct, frozen=True, gc=False):
    """A field that the CRM had moved by itself when an entry was about to move it; its owner says who gave way."""

    entry_id: int
    seq: int
    conflict: Conflict
    owner: Owner


class LaneSettlement(msgspec.Struct, gc=False):
    """How one claimed lane ended. An empty one releases the lane as it was.

    ``delivered`` are sequence numbers with their proof; ``entries`` all others that change. What the CRM may show is
    ``awaiting`` proof by any pull; ``read_back`` names what is to be looked at on purpose, and in how many seconds.
    ``incidents`` are opened, those about the entries ``at_rest`` closed.
    ``again_at`` and ``after_s`` say when to look again, whichever is sooner; ``is_more`` says at once. A lane that
    grew since it was read is looked at at once whatever this says. ``reassertions`` are appended to it.
    ``contests`` are written down as conflicts. ``late`` is what of it may still land. ``moved`` are the ids of e-mail
    changes that are on their way no more: who waits for their old addresses is woken.
    """

    lane_id: int
    relation_id: int | None
    epoch: int
    seen_seq: int
    acked_seq: int
    is_more: bool = False
    again_at: datetime | None = None
    after_s: float | None = None
    is_failed: bool = False
    is_delivered: bool = False
    block_reason: str | None = None
    bind_remote_id: str | None = None
    delivered: list[tuple[int, str]] = []
    entries: list[EntrySettlement] = []
    attempts: list[AttemptRow] = []
    history: list[tuple[int, HistoryRow]] = []
    reassertions: list[Reassertion] = []
    awaiting: list[int] = []
    read_back: list[tuple[int, float]] = []
    incidents: list[Incident] = []
    at_rest: list[int] = []
    contests: list[Contest] = []
    moved: list[int] = []
    late: Late = Late()


@dataclass(frozen=True, slots=True)
class Settled:
    """``fenced`` lanes were taken over and dropped; ``deferred`` ones must be settled again in a moment, because an
    application holds the relation's row and waiting for it here would hold up everybody else."""

    fenced: frozenset[int] = frozenset()
    deferred: frozenset[int] = frozenset()
