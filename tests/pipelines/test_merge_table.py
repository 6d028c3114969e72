"""The truth table of merges: every row of ``policy.merge`` played through a real pull and a real drain.

The docstring of the policy is the specification and is read here; what the pipelines made of each row is written as a
row again, and the two texts are compared. Each row is played with the pull first (which notices what the CRM's people
did) and with the drain first (which must notice by itself, before it overwrites it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from syncd.policy import merge
from syncd.policy.merge import Owner, Owners
from syncd.sandbox import World
from syncd.store import Store
from tests.support.both_sides import BothSides, both_sides
from tests.support.pulling import NOON

OWNERS = tuple(Owner)
STREAMS = ("tags", "groups", "group_members", "relation_details", "relation_tags")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. ``number`` makes its relation's address."""

    number: int
    field: str
    agreed: str
    here: str
    there: str
    owner: str
    ends: str
    conflict: str

    @property
    def edits(self) -> Sequence[str]:
        """The values that the application gives the field, in order."""
        return self.here.split(">")[1:]

    @property
    def is_blind(self) -> bool:
        """A whole group is too long to be read for one membership: a drain alone cannot see what the CRM did."""
        return self.field == "group" and self.conflict != "none"

    def text(self, ends: str, conflict: str) -> str:
        cells = (self.field, self.agreed, self.here, self.there, self.owner, ends, conflict)
        return "| " + " | ".join(cells) + " |"


def table() -> list[Case]:
    lines = [line for line in (merge.__doc__ or "").splitlines() if line.startswith("| ")]
    return [Case(n, *(cell.strip() for cell in line.strip("|").split("|"))) for n, line in enumerate(lines[1:])]


TABLE = table()


def test_the_table_names_every_kind_of_field_and_every_owner() -> None:
    """A table that lost its rows would be kept by anybody."""
    assert {case.field for case in TABLE} == {"text", "address", "created", "tag", "group"}
    assert {case.owner for case in TABLE} == {"any", *(owner.value for owner in OWNERS)}
    assert len(TABLE) > 40


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("is_pull_first", [True, False], ids=["pull", "drain"])
async def test_every_row_of_the_table_is_what_happens(store: Store, owner: Owner, is_pull_first: bool) -> None:
    """Whoever reads the table must be able to rely on it."""
    cases = [case for case in TABLE if case.owner in ("any", owner) and (is_pull_first or not case.is_blind)]
    async with both_sides(store, _world(cases), owners=Owners(owner)) as both:
        await both.pull(*STREAMS)
        for case in cases:
            await _edit_both(both, case)
        if not is_pull_first:
            await both.drain()
        for _ in range(3):
            await both.pull(*STREAMS)
            await both.drain()
            await both.advance(2 * 3600)
        await both.pull(*STREAMS)
        played = [await _played(both, case) for case in cases]
        assert "\n".join(played) == "\n".join(case.text(case.ends, case.conflict) for case in cases)


# The two sides of a row ----------------------------------------------------------------------------------------------

GROUP, OTHER, TAG = 10_001, 10_002, 301


def _address(case: Case, value: str = "b") -> str:
    return f"{value}.{case.number}@table.example"


def _world(cases: Sequence[Case]) -> World:
    """Return a CRM in which every case has a relation as it was agreed on; all of them are in one group."""
    world = World.seeded(1, 0, 0, seed=7, now=NOON)
    group, other, tag = (*list(world.groups)[:2], next(iter(world.tags)))
    for case in cases:
        if case.field == "created":
            continue
        relation = world.add_relation(_address(case), last_name="b" if case.field == "text" else "Jansen")
        world.join(relation, group)
        if (case.field, case.agreed) == ("tag", "in"):
            world.tag(relation, tag)
        if (case.field, case.agreed) == ("group", "in"):
            world.join(relation, other)
    return world


def _ids(both: BothSides) -> tuple[int, int, int]:
    """Return the group that everybody is in, the group and the tag of the cases, as the CRM numbers them."""
    return (*list(both.world.groups)[:2], next(iter(both.world.tags)))


async def _edit_both(both: BothSides, case: Case) -> None:
    """Let the application edit, then the CRM's people; a first edit of two was sent, and its answer was lost."""
    for position, value in enumerate(case.edits):
        await _edit_here(both, case, value)
        if len(case.edits) == 2 and position == 0 and case.there == value and case.field == "text":
            both.box.faults.add("lost_answer", operation="relation_upsert")
            await both.drain()
            await both.wake()
    await _edit_there(both, case)


async def _edit_here(both: BothSides, case: Case, value: str) -> None:
    _, other, tag = _ids(both)
    ours = {"email": _address(case), "value": value}
    match case.field:
        case "text":
            if value == case.agreed:  # there and back
                await both.edit("UPDATE crm.relations SET last_name = 'elsewhere' WHERE email = :email", **ours)
            await both.edit("UPDATE crm.relations SET last_name = :value WHERE email = :email", **ours)
        case "address":
            ours["value"] = _address(case, value)
            await both.edit("UPDATE crm.relations SET email = :value WHERE email = :email", **ours)
        case "created":
            await both.edit(
                "INSERT INTO crm.relations (account_id, email, last_name) VALUES (:account, :email, :value)", **ours
            )
        case "tag" | "group":
            table, column = ("relation_tags", "tag_id") if case.field == "tag" else ("group_members", "group_id")
            things, number = ("tags", tag) if case.field == "tag" else ("groups", other)
            whose = "(SELECT id FROM crm.relations WHERE email = :email)"
            thing = f"(SELECT id FROM crm.{things} WHERE remote_id = '{number}')"
            steps = [value] if value != case.agreed else ["out" if value == "in" else "in", value]
            for step in steps:
                if step == "in":
                    await both.edit(
                        f"INSERT INTO crm.{table} (relation_id, {column}) VALUES ({whose}, {thing})", **ours
                    )
                else:
                    await both.edit(
                        f"DELETE FROM crm.{table} WHERE relation_id = {whose} AND {column} = {thing}", **ours
                    )


async def _edit_there(both: BothSides, case: Case) -> None:
    world, (everybody, other, tag) = both.world, _ids(both)
    relation = world.relation(_address(case))
    match case.field, case.there:
        case "created", "-":
            return
        case "created", value:
            world.join(world.add_relation(_address(case), last_name=value), everybody)
            return
    assert relation is not None
    match case.field, case.there:
        case "text", value:
            world.change_relation(relation.id, last_name=value)
        case "address", value:
            world.change_relation(relation.id, email=_address(case, value))
        case "tag", "in":
            world.tag(relation, tag)
        case "tag", "out":
            world.untag(relation, tag)
        case "group", "in":
            world.join(relation, other)
        case "group", "out":
            world.leave(relation, other)


# What came of it -----------------------------------------------------------------------------------------------------


async def _played(both: BothSides, case: Case) -> str:
    """Return the row of the table as it was played."""
    here, there = await _here(both, case), await _there(both, case)
    ends = here if here == there else f"here {here}, there {there}"
    return case.text(ends, await _conflict(both, case))


async def _here(both: BothSides, case: Case) -> str:
    _, other, tag = _ids(both)
    whose = f"(SELECT id FROM crm.relations WHERE email LIKE '%.{case.number}@table.example')"
    match case.field:
        case "text" | "created":
            return str(await both.value(f"SELECT last_name FROM crm.relations WHERE id = {whose}"))
        case "address":
            return str(await both.value(f"SELECT split_part(email, '.', 1) FROM crm.relations WHERE id = {whose}"))
        case "tag":
            sql = f"SELECT count(*) FROM crm.relation_tags l JOIN crm.tags t ON t.id = l.tag_id AND remote_id = '{tag}'"
        case _:
            sql = (
                "SELECT count(*) FROM crm.group_members l"
                f" JOIN crm.groups g ON g.id = l.group_id AND remote_id = '{other}'"
            )
    return "in" if await both.value(f"{sql} WHERE relation_id = {whose}") else "out"


async def _there(both: BothSides, case: Case) -> str:
    _, other, tag = _ids(both)
    end = f".{case.number}@table.example"
    relation = next(each for each in both.world.relations.values() if each.email.endswith(end))
    match case.field:
        case "text" | "created":
            return relation.last_name
        case "address":
            return relation.email.partition(".")[0]
        case "tag":
            return "in" if tag in relation.tags else "out"
        case _:
            return "in" if other in relation.groups else "out"


async def _conflict(both: BothSides, case: Case) -> str:
    """Return how the one conflict about the case stands; a second one would be a surprise."""
    found = await both.rows(
        "SELECT c.status, c.decided FROM syncd.conflicts c JOIN crm.relations r ON r.id = c.row_id"
        f" WHERE r.email LIKE '%.{case.number}@table.example'"
    )
    if not found:
        return "none"
    ((status, decided),) = found
    return "open" if status == "open" else decided
