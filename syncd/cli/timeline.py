"""The timeline: a story told in the order in which it happened, one line an event, for eyes and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from syncd.domain.changes import read_change
from syncd.domain.facets import FacetValue, values_of
from syncd.store.explain import ConflictLine, HistoryLine, LocalEdit, RunFound

_LINKS = {"relation_tags": "tag", "group_members": "group", "relation_fields": "field", "list_subscriptions": "list"}
_KINDS = {"insert": "is there", "delete": "is gone", "missing": "is not shown any more", "found": "is shown again"}
_ENDS = {
    "verified": "delivered, and the CRM shows it",
    "accepted": "delivered, the CRM said yes",
    "diverged": "delivered, and the CRM shows something else",
    "superseded": "superseded",
    "dead": "given up",
    "parked": "parked: nobody can tell whether it was applied",
    "skipped": "skipped",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``what`` is one of edit, entry, hold, decision, try, settled, proof, pull, delivered,
    conflict; ``told`` adds who, why and where."""

    at: datetime
    what: str
    words: str
    told: str
    entry: int | None = None
    run: int | None = None


def timeline(
    edits: tuple[LocalEdit, ...],
    history: tuple[HistoryLine, ...],
    conflicts: tuple[ConflictLine, ...],
    runs: Mapping[int, RunFound],
    called: Mapping[str, str],
) -> tuple[Event, ...]:
    """Return every event in order of time; at one instant, in the order of its own story."""
    known = {edit.id for edit in edits}
    events = [event for edit in edits for event in _of_edit(edit, runs, called)]
    events += [
        _of_history(line, runs, called) for line in history if line.entry_id is None or line.entry_id not in known
    ]
    events += [event for line in conflicts for event in _of_conflict(line, runs)]
    return tuple(sorted(events, key=lambda event: event.at))


def said(change: FacetValue) -> str:
    """Say what a value turns into what."""
    if change.base is None:
        return f"{change.name} = {shown(change.local)}"
    return f"{change.name} {shown(change.base)} → {shown(change.local)}"


def shown(value: str | None) -> str:
    return "nothing" if value is None else "an empty text" if value == "" else value


def window_of(run: RunFound | None, run_id: int | None = None) -> str:
    """Say which pull an answer came from, and over which window it was asked."""
    if run is None:
        return "" if run_id is None else f"run {run_id}, which is not kept any more"
    window = "" if run.asked_from is None else f", asked {time_of(run.asked_from)} to {time_of(run.asked_upto)}"
    return f"{run.stream}, run {run.id}{window}"


def time_of(instant: datetime | None) -> str:
    """Say an instant by the clock of whoever reads."""
    return "now" if instant is None else instant.astimezone().strftime("%Y-%m-%d %H:%M")


def _of_edit(edit: LocalEdit, runs: Mapping[int, RunFound], called: Mapping[str, str]) -> Iterator[Event]:
    words = ", ".join(map(said, _values(edit, called))) or f"{edit.operation} (its payload cannot be read)"
    who = f"by {edit.actor or 'somebody'}" + (f": {edit.reason}" if edit.reason else "")
    its = "" if edit.id is None else f"; entry {edit.id}"
    yield Event(edit.captured_at, "edit", words, f"{who}; transaction {edit.xact}{its}", edit.id)
    if edit.staged_at is not None:
        again = f"; says again what entry {edit.reasserts} may still undo" if edit.reasserts is not None else ""
        yield Event(edit.staged_at, "entry", f"entry {edit.id} ({edit.operation})", f"place {edit.seq}{again}", edit.id)
    if edit.hold is not None:
        yield Event(edit.hold.opened_at, "hold", f"held by hold {edit.hold.id}", edit.hold.reason, edit.id)
    for decision in edit.decisions:
        of = f" of hold {decision.hold_id}" if decision.hold_id is not None else ""
        why = f": {decision.reason}" if decision.reason else ""
        yield Event(decision.decided_at, "decision", f"{decision.verb}{of}", f"by {decision.actor}{why}", edit.id)
    for number, attempt in enumerate(edit.tries, 1):
        answer = "" if attempt.status_code is None else f", answer {attempt.status_code}"
        took = f"{attempt.requests} {'request' if attempt.requests == 1 else 'requests'}, {attempt.elapsed_s:.2f} s"
        told = f"{took}{answer}" + (f": {attempt.detail}" if attempt.detail else "")
        yield Event(attempt.started_at, "try", f"try {number} of entry {edit.id}: {attempt.outcome}", told, edit.id)
    if edit.settled_at is not None:
        by = f" by entry {edit.superseded_by}" if edit.superseded_by is not None else ""
        end = _ENDS.get(edit.status, edit.status)
        yield Event(edit.settled_at, "settled", f"entry {edit.id}: {end}{by}", edit.error or "", edit.id)
    if edit.proved_at is not None:
        run = edit.proved_run_id
        by = f"a pull showed it: {window_of(runs.get(run), run)}" if run is not None else "read back by the drainer"
        yield Event(edit.proved_at, "proof", f"entry {edit.id} is proven", by, edit.id, run)


def _of_history(line: HistoryLine, runs: Mapping[int, RunFound], called: Mapping[str, str]) -> Event:
    is_answer = line.origin == "remote" and line.run_id is None and line.entry_id is not None
    is_remote = line.origin == "remote" and not is_answer
    told = window_of(None if line.run_id is None else runs.get(line.run_id), line.run_id)
    if line.origin == "reproject":
        return Event(line.changed_at, "reproject", _moved(line, called), "read again from what the CRM had said")
    if is_answer:
        told = f"the CRM's answer to entry {line.entry_id}"
    elif not is_remote:
        told = "made here" + (f"; entry {line.entry_id}" if line.entry_id is not None else "")
    words = _moved(line, called)
    return Event(line.changed_at, "pull" if is_remote else "delivered", words, told, line.entry_id, line.run_id)


def _moved(line: HistoryLine, called: Mapping[str, str]) -> str:
    name = "the relation"
    if line.table_name in _LINKS:
        kind = _LINKS[line.table_name]
        name = f"{kind}:{called.get(f'{kind}:{line.link_id}', line.link_id)}"
    if line.kind != "update":
        return f"{name} {_KINDS.get(line.kind, line.kind)}"
    before, after = _object(line.before), _object(line.after)
    pairs = [
        said(FacetValue(name if line.table_name in _LINKS else key, _text(before.get(key)), _text(value)))
        for key, value in after.items()
    ]
    return ", ".join(pairs)


def _of_conflict(line: ConflictLine, runs: Mapping[int, RunFound]) -> Iterator[Event]:
    words = f"{line.field}: was {shown(line.base)}, here {shown(line.local)}, in the CRM {shown(line.remote)}"
    told = f"{line.owner} is kept; {window_of(runs.get(line.run_id or 0), line.run_id)}"
    yield Event(line.noticed_at, "conflict", words, told, run=line.run_id)
    if line.resolved_at is not None:
        yield Event(line.resolved_at, "conflict", f"{line.field}: resolved", "")


def _values(edit: LocalEdit, called: Mapping[str, str]) -> tuple[FacetValue, ...]:
    change, _ = read_change(edit.operation, edit.payload)
    return () if change is None else values_of(change, called=called)


def _object(values: str | None) -> dict[str, object]:
    found = msgspec.json.decode(values or "{}")
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
