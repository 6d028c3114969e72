"""The lanes of a plan as people are shown them: names for numbers, values for payloads, reasons for what waits.

Of each lane so many calls and waits are told; the rest is counted. Everything is read from the plan's own snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncd.domain.account import Account
from syncd.domain.changes import EndSubscription, LocalChange, facet_of, operation_of
from syncd.domain.facets import turn_of, values_of
from syncd.outbound.planned import EntryMark, PlannedCall, PlannedLane, PlannedValue, PlannedWait
from syncd.outbound.rehearsal import Rehearsed
from syncd.policy.fold import Entry, Step
from syncd.policy.rounds import Course
from syncd.policy.waits import Wait, waits
from syncd.providers.contract import Provider
from syncd.store.engine import Connection
from syncd.store.outbox_plan import AccountNow, EntryNote, Names, WaitingLane, read_names, read_notes

# Of one relation this many calls and this many waits are shown; the rest is counted.
SHOWN = 50
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LaneCourse:
    """A lane with its course, and what rehearsing said about each of its steps, by the carrier's sequence number."""

    lane: WaitingLane
    course: Course
    rehearsed: Mapping[int, Rehearsed]

    @property
    def steps(self) -> list[tuple[int, Step]]:
        """The steps that would be sent, each with the number of its round."""
        refused = self.course.refused
        return [
            (number, step)
            for number, made in enumerate(self.course.rounds, 1)
            for step in made.plan.steps
            if step.carrier.seq not in refused
        ]

    def why(self, wait: Wait) -> str:
        """Name what an entry waits for. Dead in the course and not in the database: it would be refused unsent."""
        is_refused = wait.entry.seq in self.course.refused or wait.entry.change is None
        return REFUSED if is_refused else wait.why.value


async def show_lanes(
    connection: Connection, provider: Provider, account: Account, kept: Sequence[LaneCourse], now: AccountNow
) -> tuple[PlannedLane, ...]:
    """Return these lanes as the plan shows them."""
    cuts = [(made, made.steps, waits(made.course.left, now.now, made.lane.landing)) for made in kept]
    waiting = [wait.entry for _, _, waited in cuts for wait in waited[:SHOWN]]
    told = [step.change for _, steps, _ in cuts for _, step in steps[:SHOWN]]
    told += [entry.change for entry in waiting if entry.change is not None]
    names = await _names(connection, account, [made.lane.relation_id for made in kept], told)
    notes = await read_notes(connection, waiting)
    return tuple(
        PlannedLane(
            relation_id=made.lane.relation_id,
            remote_id=made.lane.remote_id,
            email=made.lane.email,
            sender=made.lane.sender,
            calls=tuple(_call(provider, made, number, step, names) for number, step in steps[:SHOWN]),
            more_calls=max(0, len(steps) - SHOWN),
            waits=tuple(_wait(made, wait, names, notes) for wait in waited[:SHOWN]),
            more_waits=max(0, len(waited) - SHOWN),
        )
        for made, steps, waited in cuts
    )


async def _names(
    connection: Connection, account: Account, relation_ids: Sequence[int | None], changes: Sequence[LocalChange]
) -> Names:
    numbers: dict[str, set[int]] = {"field": set(), "list": set()}
    for change in changes:
        kind, _, number = facet_of(change).partition(":")
        if kind in numbers:
            numbers[kind].add(int(number))
    return await read_names(
        connection,
        account.id,
        [id_ for id_ in relation_ids if id_ is not None],
        fields=sorted(numbers["field"]),
        lists=sorted(numbers["list"]),
        subscriptions=[change.subscription_id for change in changes if isinstance(change, EndSubscription)],
    )


def _call(provider: Provider, made: LaneCourse, number: int, step: Step, names: Names) -> PlannedCall:
    row = provider.call(step.change)
    return PlannedCall(
        round=number,
        operation=operation_of(step.change),
        turn=turn_of(step.change).value,
        values=_values(made.lane, step.change, (*step.superseded, step.carrier)[0], names),
        call=row.operation,
        verb=row.verb,
        path=row.path,
        effect=row.effect.value,
        carries=EntryMark.of(step.carrier),
        supersedes=tuple(EntryMark.of(entry) for entry in step.superseded),
        is_in_doubt=step.carrier.is_uncertain,
        requests=made.rehearsed[step.carrier.seq].requests,
    )


def _wait(made: LaneCourse, wait: Wait, names: Names, notes: Mapping[int, EntryNote]) -> PlannedWait:
    entry, change, note = wait.entry, wait.entry.change, notes.get(wait.entry.id)
    refusal = made.course.refused.get(entry.seq) or entry.fault or None
    return PlannedWait(
        operation=entry.operation,
        turn=None if change is None else turn_of(change).value,
        values=() if change is None else _values(made.lane, change, entry, names),
        entry=EntryMark.of(entry),
        why=made.why(wait),
        behind=None if wait.behind is None else EntryMark.of(wait.behind),
        awaits=None if wait.awaits is None else EntryMark.other(wait.awaits),
        until=wait.until,
        hold_id=None if note is None else note.hold_id,
        attempts=entry.attempts,
        error=refusal or (None if note is None else note.error),
    )


def _values(lane: WaitingLane, change: LocalChange, earliest: Entry, names: Names) -> tuple[PlannedValue, ...]:
    called = {f"field:{id_}": name for id_, name in names.fields.items()}
    called |= {f"list:{id_}": name for id_, name in names.lists.items()}
    bases = {f"list:{list_}": status for (id_, list_), status in names.list_statuses.items() if id_ == lane.relation_id}
    bases |= {f"subscription:{id_}": f"ends {day}" for id_, day in names.ends.items()}
    said = values_of(change, earliest.change, called=called, bases=bases)
    return tuple(PlannedValue(value.name, value.base, value.local, value.key) for value in said)
