"""The survey: which events the reference drain has, which points they make, and what each point is called in the docs.

The reference drain is played several times undisturbed. What all of them had in common are its events: timing alone
decides whether a drainer looks once more, and a point that is not there the next time is no point. Its **boundaries**
are the rows of the table "what happens when the drainer dies" in ``syncd.outbound``: a kind of transaction and whether
it is committed, a kind of call and whether the CRM has acted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import assert_never

import syncd.outbound
from tests.support.crashing.danger import Danger
from tests.support.crashing.gate import Event, Kind, Moment, Point
from tests.support.crashing.rehearsal import Script, Stage

_UNDISTURBED = Point("a message that nobody sends", 1, Moment.BEFORE)
_REHEARSALS = 3
_CALL = re.compile(r"/listmanagers/|/subscriptions/|/field$")
_BINDS = re.compile(r"\bUPDATE crm\.relations\b.*\bSET remote_id = ")

# What a transaction is for, by any of its statements; the first line that fits. One that fits none has no name, and
# the test of the table says so.
_TRANSACTIONS: tuple[tuple[str, str], ...] = (
    ("settling", r"set_config\('syncd\.origin'"),
    ("staging and claiming", r"syncd\.stage"),
    ("pausing or resuming", r"^(INSERT INTO|UPDATE) syncd\.account_states"),
    ("proving", r"^(UPDATE syncd\.entries|WITH due) .*\bprove_at\b|UPDATE syncd\.entries .*'verified'"),
)
# A statement that is committed by itself.
_AT_ONCE = re.compile(r"^(prepare )?UPDATE syncd\.lanes SET sending_upto = ")
_BEGINNING = "beginning what is not repeat-safe"
_WRITES = re.compile(r"\b(INSERT INTO|(?<!FOR )(?<!DO )UPDATE|DELETE FROM|COPY)\b|advisory")
_ENDS = ("COMMIT", "ROLLBACK")


@dataclass(frozen=True, slots=True)
class Survey:
    """What each point is ``called`` in the docs, in order; ``length`` is how many messages a whole drain has."""

    called: Mapping[Point, str]
    length: int

    @property
    def points(self) -> list[Point]:
        """Every event before and after; torn too, where a half could matter; what only prepares, before."""
        return list(self.called)

    def one_of_each(self, chance: Random) -> list[Point]:
        """Draw a point of each boundary."""
        boundaries = dict.fromkeys(self.called.values())
        return [chance.choice([p for p in self.points if self.called[p] == name]) for name in boundaries]

    @property
    def dangerous(self) -> list[Point]:
        """The first point of each kind of danger."""
        return [self.first(danger) for danger in Danger]

    def first(self, danger: Danger) -> Point:
        """Return where a drain first meets a danger."""
        found = self._places(danger)
        assert found, f"no drain is any more {danger}"
        return found[0]

    def _places(self, danger: Danger) -> list[Point]:
        calls = [p for p in self.points if p.text.startswith("POST ")]
        once = [p for p in calls if _CALL.search(p.text)]
        match danger:
            case Danger.CALLED:
                return [p for p in once if p.moment is Moment.AFTER]
            case Danger.CALLING:
                return [p for p in once if p.moment is Moment.BEFORE]
            case Danger.IDENTIFIED:
                return [p for p in calls if p.moment is Moment.AFTER and p.text.endswith(("/relation", "/email"))]
            case Danger.SETTLING:
                return self._ends_of("settling", Moment.BEFORE)
            case Danger.SETTLED:
                return self._ends_of("settling", Moment.AFTER)
            case Danger.HALF_SETTLED:
                return self._writes_of("settling", Moment.AFTER)
            case Danger.BINDING:
                return [p for p in self._writes_of("settling", Moment.BEFORE) if _BINDS.search(p.text)]
            case Danger.CLAIMING:
                return self._ends_of("staging and claiming", Moment.BEFORE)
            case Danger.CLAIMED:
                return self._ends_of("staging and claiming", Moment.AFTER)
            case Danger.HALF_CLAIMED:
                return self._writes_of("staging and claiming", Moment.AFTER)
            case Danger.BEGUN:
                return self._at(Moment.AFTER, f"{_BEGINNING}, committed")
        assert_never(danger)

    def _ends_of(self, purpose: str, moment: Moment) -> list[Point]:
        named = (f"{purpose}, committed", f"{purpose}, not committed")
        return [p for p in self._at(moment, *named) if p.text.startswith("COMMIT")]

    def _writes_of(self, purpose: str, moment: Moment) -> list[Point]:
        return [p for p in self._at(moment, f"{purpose}, not committed") if _is_write(p.text)]

    def _at(self, moment: Moment, *boundaries: str) -> list[Point]:
        return [p for p, name in self.called.items() if p.moment is moment and name in boundaries]


async def survey(stage: Stage) -> Survey:
    """Play the reference drain undisturbed and return what its rehearsals have in common."""
    takes = [await stage.play(Script((_UNDISTURBED,))) for _ in range(_REHEARSALS)]
    for take in takes:
        assert take.holds, str(take)
        assert take.parked == 0, "without a crash nothing may wait for a person"
    acts = [take.acts[0] for take in takes]
    common = set.intersection(*({(event.text, event.nth) for event in act} for act in acts))
    last = acts[-1]
    named = _named(last)
    called = {
        Point(event.text, event.nth, moment): named[event, moment]
        for event in last
        if (event.text, event.nth) in common
        for moment in moments(event)
    }
    return Survey(called, len(last))


def documented() -> list[str]:
    """Return the boundaries that the docs have a row for."""
    text = syncd.outbound.__doc__ or ""
    table = text.partition("| it dies |")[2].partition("\n\n")[0]
    return [row.split("|")[1].strip() for row in table.splitlines()[2:]]


def moments(event: Event) -> Iterable[Moment]:
    """Return when to kill around an event. What only prepares does nothing: after it is before what it was for."""
    yield Moment.BEFORE
    if event.kind is Kind.SET_UP:
        return
    if event.kind in (Kind.HTTP, Kind.COPY) or event.text.startswith("COMMIT"):
        yield Moment.TORN
    yield Moment.AFTER


def _named(events: Sequence[Event]) -> dict[tuple[Event, Moment], str]:
    named: dict[tuple[Event, Moment], str] = {}
    open_ones: dict[int, list[Event]] = {}
    for event in events:
        if event.kind is Kind.HTTP:
            named |= {(event, moment): _call_name(event, moment) for moment in Moment}
            continue
        if _AT_ONCE.search(event.text):
            named |= {(event, moment): f"{_BEGINNING}, not committed" for moment in Moment}
            named[event, Moment.AFTER] = f"{_BEGINNING}, committed"
            continue
        transaction = open_ones.setdefault(event.line, [])
        transaction.append(event)
        if event.text.startswith(_ENDS):
            named |= _transaction_names(open_ones.pop(event.line))
    for transaction in open_ones.values():
        named |= _transaction_names(transaction)
    return named


def _transaction_names(events: Sequence[Event]) -> dict[tuple[Event, Moment], str]:
    purpose = _purpose(events)
    if purpose == "looking":
        return {(event, moment): "while connecting or looking" for event in events for moment in Moment}
    names = {(event, moment): f"{purpose}, not committed" for event in events for moment in Moment}
    if events[-1].text.startswith("COMMIT"):
        names[events[-1], Moment.AFTER] = f"{purpose}, committed"
    return names


def _purpose(events: Sequence[Event]) -> str:
    texts = [event.text for event in events if event.kind in (Kind.SQL, Kind.COPY)]
    for purpose, pattern in _TRANSACTIONS:
        if any(re.search(pattern, text) for text in texts):
            return purpose
    writes = [text for text in texts if _is_write(text)]
    return f"a transaction without a name ({writes[0][:200]})" if writes else "looking"


def _is_write(sql: str) -> bool:
    return _WRITES.search(sql) is not None and not sql.startswith(("prepare ", *_ENDS))


def _call_name(event: Event, moment: Moment) -> str:
    if event.text.startswith("GET "):
        return "while reading from the CRM"
    kind = "a call that is not repeat-safe" if _CALL.search(event.text) else "a repeat-safe call"
    return f"{kind}, done by the CRM" if moment is Moment.AFTER else f"{kind}, not arrived"
