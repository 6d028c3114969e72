"""Addresses that change hands: no call ever takes an address that another relation has in the CRM, and none waits for
ever.

A small world of relations whose addresses are each other's, edited in one order that is valid here: whoever takes an
address finds it free. Lanes are sent in any order; calls are refused, and their answers lost. At the end a person gives
each relation that the CRM refused something an address that nobody ever had.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from syncd.domain.changes import ChangeEmail, CreateRelation, LocalChange
from syncd.policy.fold import Entry, Step, fold
from tests.support.lanes import NOW, entry, is_repeat_safe
from tests.support.laws import many

RELATIONS = 4
ADDRESSES = [f"{name}@x.example" for name in "abcdefg"]
MOVES = st.lists(st.tuples(st.integers(0, RELATIONS - 1), st.sampled_from(ADDRESSES)), max_size=12)


class World:
    """``here`` and ``there``: the address of each relation in the mirror and in the CRM; None: it is not there."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.here: list[str | None] = [*ADDRESSES[: RELATIONS - 1], None]
        self.there = list(self.here)
        self.lanes: list[list[Entry]] = [[] for _ in range(RELATIONS)]
        self._ids = 0
        self.may_fail = True

    def move(self, relation: int, address: str) -> None:
        """Edit a relation as an application could: the first edit of the unknown one is its creation."""
        if address in self.here:
            return
        old, self.here[relation] = self.here[relation], address
        self._ids += 1
        change: LocalChange = CreateRelation(address, {}) if old is None else ChangeEmail(old, address)
        self.lanes[relation].append(entry(self._ids, change, id=self._ids))

    def send_all(self) -> None:
        """Fold and send until no lane has anything to send, in an order that is drawn."""
        while ready := [n for n in range(RELATIONS) if fold(self._noted(n), is_repeat_safe, NOW).steps]:
            relation = self._data.draw(st.sampled_from(ready))
            (step,) = fold(self._noted(relation), is_repeat_safe, NOW).steps
            self._send(relation, step)

    def _noted(self, relation: int) -> list[Entry]:
        return [replace(one, awaits=self._awaited(relation, one)) for one in self.lanes[relation]]

    def _awaited(self, relation: int, taker: Entry) -> int | None:
        """As the claim notes it: the last change of another lane, older and not delivered, away from the address."""
        leaving = [
            one.id
            for lane in self.lanes[:relation] + self.lanes[relation + 1 :]
            for one in lane
            if isinstance(one.change, ChangeEmail) and one.change.old == _taken(taker) and one.id < taker.id
        ]
        return max(leaving, default=None) if taker.status == "pending" else None

    def _send(self, relation: int, step: Step) -> None:
        fate = self._data.draw(st.sampled_from(["yes", "no", "lost", "landed"])) if self.may_fail else "yes"
        carrier = step.carrier.seq
        if fate == "no" and not (step.carrier.is_uncertain and isinstance(step.change, CreateRelation)):
            self._mark(relation, carrier, status="dead", is_refused=True)
            return
        if fate != "lost":
            self._apply(relation, step.change)
        if fate in ("lost", "landed"):
            self._mark(relation, carrier, is_uncertain=True)
            return
        done = {carrier, *(one.seq for one in step.superseded)}
        self.lanes[relation] = [one for one in self.lanes[relation] if one.seq not in done]

    def _mark(self, relation: int, seq: int, **given: object) -> None:
        self.lanes[relation] = [replace(one, **given) if one.seq == seq else one for one in self.lanes[relation]]

    def _apply(self, relation: int, change: LocalChange) -> None:
        address = change.email if isinstance(change, CreateRelation) else change.new  # type: ignore[union-attr]
        others = self.there[:relation] + self.there[relation + 1 :]
        assert address not in others, "the CRM would take the one relation for the other"
        is_made = self.there[relation] is None
        assert is_made == isinstance(change, CreateRelation) or self.there[relation] == address, "made once"
        self.there[relation] = address


def _taken(taker: Entry) -> str | None:
    match taker.change:
        case ChangeEmail(new=address) | CreateRelation(email=address):
            return address
        case _:
            return None


@given(MOVES, st.data())
@settings(max_examples=many(300))
def test_no_address_is_taken_before_it_is_free_and_nobody_waits_for_ever(
    moves: list[tuple[int, str]], data: st.DataObject
) -> None:
    """Whatever is refused or lost on the way, a new address for what was refused brings all of it through."""
    world = World(data)
    for relation, address in moves:
        world.move(relation, address)
    world.send_all()
    world.may_fail = False
    for relation, lane in enumerate(world.lanes):
        if any(one.status == "dead" for one in lane):
            world.move(relation, f"fresh{relation}@x.example")
    world.send_all()
    assert world.lanes == [[] for _ in range(RELATIONS)]
    assert world.there == world.here
