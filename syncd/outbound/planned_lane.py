"""A filed lane on its way out: what is still to be sent of it, and what its entries must look like before each claim.

Pure bookkeeping. It begins with the file's entries and calls; after each claim that was settled it is told what was
delivered, and expects the lane to be as the file's remaining rounds say. It never decides a call: it only recognises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from syncd.outbound.plan_file import FiledEntry, FiledLane, filed_entry, payload_of
from syncd.policy.fold import Entry, Plan, Step
from syncd.policy.rounds import left_after
from syncd.policy.states import EntryStatus
from syncd.store.outbox_apply import Sought

_DELIVERED = (EntryStatus.VERIFIED, EntryStatus.ACCEPTED)
_OTHER_CALLS = "this version of syncd, or its settings, would send other calls than those planned"


class LaneOnItsWay:
    """Mutable: one lane of one plan. ``sent`` counts its delivered calls."""

    def __init__(self, filed: FiledLane, made_at: datetime) -> None:
        self.filed = filed
        self.sent = 0
        self._made_at = made_at
        self._entries = {entry.seq: entry for entry in filed.entries}
        self._calls = {call.seq: call for round_ in filed.rounds for call in round_.calls}
        self._remote_id = filed.remote_id
        self._facets = {entry.seq: entry.facet for entry in filed.entries}

    @property
    def planned(self) -> int:
        """How many calls were planned to be sent."""
        return sum(call.refusal is None for round_ in self.filed.rounds for call in round_.calls)

    @property
    def is_done(self) -> bool:
        return not self._calls

    def is_expected_to_die(self, seq: int) -> bool:
        """Tell whether the plan said that this call would be refused unsent."""
        return seq in self._calls and self._calls[seq].refusal is not None

    def sought(self) -> Sought:
        """Return what the next claim must find."""
        filed = self.filed
        reach = next(r.reach for r in filed.rounds if any(call.seq in self._calls for call in r.calls))
        return Sought(
            relation_id=filed.relation_id,
            remote_id=self._remote_id,
            email=filed.email,
            upto=filed.upto,
            reach=reach,
            made_at=self._made_at,
            facets=frozenset(self._facets[seq] for seq in self._calls if seq in self._facets),
            compare=self._moved,
            admits=self._unplanned,
        )

    def settled(
        self, entries: Sequence[Entry], plan: Plan, ended: Mapping[int, EntryStatus], remote_id: str | None
    ) -> None:
        """Take note of a settled claim: ``ended`` are the carriers that are done with, and how."""
        done = tuple(step for step in plan.steps if step.carrier.seq in ended)
        refused = {seq for seq, status in ended.items() if status is EntryStatus.DEAD}
        left = {entry.seq: entry for entry in left_after(entries, Plan(done, plan.broken), refused)}
        for step in done:
            self._calls.pop(step.carrier.seq, None)
            if ended[step.carrier.seq] is EntryStatus.DIVERGED:
                left[step.carrier.seq] = msgspec.structs.replace(step.carrier, status=EntryStatus.DIVERGED.value)
        self.sent += len(done) - len(refused)
        self._remote_id = self._remote_id or remote_id
        gone = {entry.seq for entry in entries} - left.keys()
        there = {seq: filed_entry(entry, self._made_at) for seq, entry in left.items()}
        self._entries = {seq: there.get(seq, entry) for seq, entry in self._entries.items() if seq not in gone}

    def _unplanned(self, plan: Plan) -> str | None:
        """Say what in a fold the file does not name; one without a call, or an entry to bury, is none of its rounds."""
        if plan.is_idle or not all(self._is_planned(step) for step in plan.steps):
            return _OTHER_CALLS
        return None

    def _is_planned(self, step: Step) -> bool:
        call = self._calls.get(step.carrier.seq)
        supersedes = tuple(entry.seq for entry in step.superseded)
        return call is not None and call.supersedes == supersedes and call.payload == payload_of(step.change)

    def _moved(self, found: Sequence[Entry], fates: Mapping[int, str]) -> str | None:
        """Say in one clause how the lane's entries differ from the planned ones, or None."""
        there = {entry.seq: filed_entry(entry, self._made_at) for entry in found}
        for seq, planned in self._entries.items():
            if seq not in there:
                return _missing(planned, fates.get(seq))
            if (reason := _difference(planned, there[seq])) is not None:
                return reason
        extra = next((entry for seq, entry in there.items() if seq not in self._entries), None)
        return None if extra is None else f"{_called(extra)} ({extra.operation}) is {extra.status} again"


def _missing(planned: FiledEntry, fate: str | None) -> str:
    if fate is None:
        return f"{_called(planned)} ({planned.operation}) is not in the outbox"
    if fate in _DELIVERED:
        return f"{_called(planned)} ({planned.operation}) was delivered already ({fate})"
    return f"{_called(planned)} ({planned.operation}) is {fate} already"


def _difference(planned: FiledEntry, there: FiledEntry) -> str | None:
    """Compare all that a plan rests on; a capture has no number until it is staged."""
    if planned.id is None:
        planned = msgspec.structs.replace(planned, id=there.id)
    if planned == there:
        return None
    name = _called(there)
    if (planned.id, planned.operation, planned.captured_at, planned.payload) != (
        there.id,
        there.operation,
        there.captured_at,
        there.payload,
    ):
        return f"place {planned.seq} holds another change ({there.operation}) than the one planned"
    if planned.status != there.status:
        return f"{name} ({there.operation}) is {there.status} now, it was {planned.status}"
    if there.is_uncertain and not planned.is_uncertain:
        return f"{name} ({there.operation}) may have been sent meanwhile"
    if there.status == EntryStatus.PENDING.value:
        return f"{name} ({there.operation}) was tried meanwhile"
    return f"{name} ({there.operation}) has changed"


def _called(entry: FiledEntry) -> str:
    return f"entry {entry.id}" if entry.id is not None else f"the change at place {entry.seq}"
