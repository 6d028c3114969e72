"""Edits on both sides, and what must become of each: the model beside the state machine of ``test_convergence``.

The model knows nothing of syncd. It writes down every edit that anybody made of any field, with the value that its
editor saw, and says afterwards what may not be: an edit that is gone although nobody who could know it changed it and
no conflict tells of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from syncd.sandbox import Relation
from tests.support.both_sides import BothSides

COLUMNS = ("email", "first_name", "last_name")
HERE, THERE = "here", "there"
# What an answer that came whole is called by the simulator; its windows are what may be proven.
WHOLE = frozenset({"answered", "duplicate_rows"})


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: by which side, from the value that its editor saw to another, after so many requests."""

    side: str
    seen: str | None
    value: str | None
    at: int = 0


@dataclass(slots=True)
class Person:
    """Somebody who is known on one side or on both; ``is_bound``: the mirror knows that the two are one."""

    email: str
    local_id: int | None = None
    remote_id: int | None = None
    edits: dict[str, list[Edit]] = field(default_factory=dict)
    is_bound: bool = False
    calls: list[tuple[int, bool]] = field(default_factory=list)
    blind: set[str] = field(default_factory=set)

    def note(self, name: str, side: str, seen: str | None, value: str | None, at: int) -> None:
        self.edits.setdefault(name, []).append(Edit(side, seen, value, at))


@dataclass(frozen=True, slots=True)
class Lost:
    """One conflict row of the mirror, as the model needs it."""

    local: str | None
    remote: str | None


class State:
    """What both sides hold of a person now, field by field."""

    def __init__(self, both: BothSides) -> None:
        self._both = both

    async def here(self, person: Person, name: str, *, is_sure: bool = False) -> str | None:
        """Return a field's value in the mirror; ``is_sure``: a link that an answer lacked counts as gone."""
        kind, _, number = name.partition(":")
        if name in COLUMNS:
            value = await self._both.value(f"SELECT {name} FROM crm.relations WHERE id = :id", id=person.local_id)
            return None if value is None else str(value)
        match kind:
            case "tag":
                sql = "SELECT 1 FROM crm.relation_tags l JOIN crm.tags t ON t.id = l.tag_id"
            case "group":
                sql = "SELECT 1 FROM crm.group_members l JOIN crm.groups t ON t.id = l.group_id"
            case _:
                sql = "SELECT value FROM crm.relation_fields l JOIN crm.fields t ON t.id = l.field_id"
        column = "code" if kind == "field" else "remote_id"
        found = await self._both.rows(
            f"{sql} WHERE relation_id = :id AND t.account_id = :account AND t.{column} = :number"
            + (" AND l.missing_since IS NULL" if is_sure else ""),
            id=person.local_id,
            number=number,
        )
        if kind == "field":
            return found[0][0] if found else None
        return "yes" if found else "no"

    def there(self, person: Person, name: str) -> str | None:
        assert person.remote_id is not None
        relation = self._both.world.relations[person.remote_id]
        kind, _, number = name.partition(":")
        if name in COLUMNS:
            return str(getattr(relation, name)) or None
        match kind:
            case "tag":
                return "yes" if int(number) in relation.tags else "no"
            case "group":
                return "yes" if int(number) in relation.groups else "no"
            case _:
                return relation.fields.get(number)

    async def conflicts(self, person: Person, name: str) -> list[Lost]:
        """Return the conflicts about a field; the mirror numbers tags and groups its own way."""
        kind, _, number = name.partition(":")
        if kind in ("tag", "group"):
            ours = await self._both.value(
                f"SELECT id FROM crm.{kind}s WHERE account_id = :account AND remote_id = :number", number=number
            )
            name = f"{kind}:{ours}"
        found = await self._both.rows(
            "SELECT local, remote FROM syncd.conflicts WHERE account_id = :account AND row_id = :id AND field = :name",
            id=person.local_id,
            name=name,
        )
        return [Lost(*row) for row in found] + await self._diverged(person, name)

    async def _diverged(self, person: Person, facet: str) -> list[Lost]:
        """Return what was told of links that the CRM's people undid right after they had been delivered."""
        told = await self._both.rows(
            "SELECT e.operation FROM syncd.incidents i JOIN syncd.entries e ON i.subject = 'entry:' || e.id"
            " WHERE i.kind = 'diverged' AND e.relation_id = :id AND e.facet = :facet",
            id=person.local_id,
            facet=facet,
        )
        is_in = {"add_tag": True, "join_group": True, "remove_tag": False, "leave_group": False}
        ours = [is_in[operation] for (operation,) in told if operation in is_in]
        return [Lost("yes", "no") if one else Lost("no", "yes") for one in ours]


async def complaints(both: BothSides, people: Sequence[Person]) -> list[str]:
    """Return everything that is wrong once both sides had the time to settle."""
    state = State(both)
    found = [*(await _doubles(both, people)), *(await _uncovered(both)), *(await _waiting(both))]
    for person in people:
        if person.local_id is None or person.remote_id is None:
            found.append(f"{person.email} is known on one side only: {person.local_id}, {person.remote_id}")
            continue
        found += _calls(both, person)
        for name in sorted({*COLUMNS, *person.edits}):
            here, there = await state.here(person, name), state.there(person, name)
            if (here or None) != (there or None):
                found.append(f"{person.email}: {name} is {here!r} here and {there!r} there")
                continue
            told = await state.conflicts(person, name)
            found += [f"{person.email}: {name}: {lost}" for lost in _lost(both, person, name, here, told)]
    return found


def _lost(both: BothSides, person: Person, name: str, value: str | None, told: Sequence[Lost]) -> Iterator[str]:
    """Name the edits that are gone without a trace: not the value, not edited over by who knew it, in no conflict."""
    edits = person.edits.get(name, [])
    for position, edit in enumerate(edits):
        later = edits[position + 1 :]
        if edit.value == value or any(other.side == edit.side or other.seen == edit.value for other in later):
            continue
        if any((one.local if edit.side == HERE else one.remote) == edit.value for one in told):
            continue
        if edit.side == THERE and (name in person.blind or _was_never_seen(both, person, name, position)):
            continue
        if edit.side == THERE and _was_taken_back_unacknowledged(both, person, name, position):
            continue
        yield f"the edit {edit.side} from {edit.seen!r} to {edit.value!r} is lost: it is {value!r}, edits were {edits}"


def _was_never_seen(both: BothSides, person: Person, name: str, position: int) -> bool:
    """Whether an edit there only undid what nobody had read meanwhile: there and back leaves nothing to be seen."""
    edit = person.edits[name][position]
    started = [one for one in person.edits[name][:position] if one.side == THERE and one.seen == edit.value]
    return bool(started) and not any(
        line.operation in _SIGHTS[name.partition(":")[0]] and line.fate in WHOLE and _is_about(line.path, person, name)
        for line in both.box.requests
        if started[-1].at < line.seq <= edit.at
    )


def _was_taken_back_unacknowledged(both: BothSides, person: Person, name: str, position: int) -> bool:
    """Whether the edit is the one loss that is known and not mended (README, what this version cannot do).

    The CRM came to hold what an edit here asks for before that was acknowledged: its people did the same, or the answer
    to our call was lost. Then its people took it back. Now the CRM shows what was agreed on before, ours is sent as if
    nothing had been there, and nothing tells of it. Links alone come back to what they were: names are never given
    twice here.
    """
    edits, edit = person.edits[name], person.edits[name][position]
    asked = (HERE, edit.value, edit.seen)
    ours = [one for one in edits[:position] if (one.side, one.seen, one.value) == asked]
    return (
        name.partition(":")[0] in _SIGHTS
        and bool(ours)
        and not any(
            line.operation in _LINKING and line.fate in WHOLE and line.status == 200
            for line in both.box.requests
            if ours[-1].at < line.seq <= edit.at and _is_about(line.path, person, name)
        )
    )


_LINKING = ("tag_add", "tag_remove", "group_add", "group_remove")
_SIGHTS = {"tag": ("relation_tags", "tag_add", "tag_remove"), "group": ("group_members", "group_add", "group_remove")}


def _is_about(path: str, person: Person, name: str) -> bool:
    kind, _, number = name.partition(":")
    parts = path.split("/")
    return str(person.remote_id) in parts or (kind == "group" and number in parts)


def _calls(both: BothSides, person: Person) -> Iterator[str]:
    """Every subscription that was asked for was made, once."""
    relation = both.world.relations[person.remote_id or 0]
    asked = Counter((number, "S" if is_on else "U") for number, is_on in person.calls)
    made = Counter((event.list_id, event.flag) for event in relation.events)
    for call in {*asked, *made}:
        if asked[call] != made[call]:
            yield f"{person.email}: call {call} was asked for {asked[call]} times and made {made[call]} times"


async def _doubles(both: BothSides, people: Sequence[Person]) -> list[str]:
    """Everybody is there once, on both sides."""
    mirrored = {int(row[0]) for row in await both.rows(_MIRRORED) if row[0] is not None}
    found = [f"relation {number} is mirrored and not in the CRM" for number in mirrored - both.world.relations.keys()]
    found += [f"relation {number} is in the CRM and not mirrored" for number in both.world.relations.keys() - mirrored]
    expected = len(people)
    counted = await both.value("SELECT count(*) FROM crm.relations WHERE account_id = :account")
    if counted != expected or len(both.world.relations) != expected:
        found.append(f"{expected} people are {counted} rows here and {len(both.world.relations)} there")
    return found


_MIRRORED = "SELECT remote_id FROM crm.relations WHERE account_id = :account AND missing_since IS NULL"


async def _waiting(both: BothSides) -> list[str]:
    rows = await both.rows(
        "SELECT operation, facet, status, error FROM syncd.entries WHERE account_id = :account"
        " AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')"
        " UNION ALL SELECT operation, facet, 'captured', NULL FROM syncd.captures WHERE account_id = :account"
    )
    return [f"{operation} of {facet} still waits: {status}, {error}" for operation, facet, status, error in rows]


async def _uncovered(both: BothSides) -> list[str]:
    """No instant is proven that no whole answer spoke of. The witness is the simulator's own log of requests."""
    read = [
        (line.at - timedelta(hours=int(line.parameters["hours"])), line.at)
        for line in both.box.requests.of("orders")
        if line.fate in WHOLE and line.status == 200
    ]
    proven = await both.rows(
        "SELECT lower(span), upper(span) FROM syncd.coverage, unnest(proven) AS span"
        " WHERE account_id = :account AND stream = 'orders'"
    )
    return [
        f"orders are proven from {lower} to {upper}, read was {read}"
        for lower, upper in proven
        if not _is_covered(lower, upper, read)
    ]


def _is_covered(lower: datetime, upper: datetime, read: Sequence[tuple[datetime, datetime]]) -> bool:
    upto = lower
    for start, end in sorted(read):
        if start <= upto:
            upto = max(upto, end)
    return upto >= upper


def known(relation: Relation) -> Person:
    """Return somebody who is in the CRM from the start."""
    return Person(relation.email, None, relation.id)
