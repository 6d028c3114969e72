"""What the CRM must come to hold, computed from the committed edits alone; nothing of syncd is asked.

A facet's history is every value that it had, in the order of the commits, first the one before any edit. A call's
``seen`` is what stood when it was committed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from syncd.sandbox import Relation, World
from tests.support.world_edits import Call, Create, Edit, Fill, Member, NewField, Readdress, Rename, Tag

COLUMNS = ("email", "first_name", "last_name", "gender")


@dataclass(frozen=True, slots=True)
class Called:
    """One call that was committed, and what its relation looked like then."""

    list_id: int
    is_on: bool
    seen: dict[str, object]


@dataclass(slots=True)
class Person:
    """One relation as it should be."""

    who: int
    is_new: bool
    histories: dict[str, list[object]] = field(default_factory=dict)
    calls: list[Called] = field(default_factory=list)

    @property
    def addresses(self) -> set[str]:
        """Every address that it ever had, in lower case."""
        return {str(address).lower() for address in self.histories["email"]}

    def now(self) -> dict[str, object]:
        return {facet: history[-1] for facet, history in self.histories.items()}

    def put(self, facet: str, value: object, before: object) -> None:
        """Let a facet take a value; ``before`` is what it had if this is its first edit."""
        self.histories.setdefault(facet, [before]).append(value)


@dataclass(slots=True)
class Model:
    """Everybody, and the fields that were made."""

    people: dict[int, Person] = field(default_factory=dict)
    new_fields: list[str] = field(default_factory=list)


def before(world: World) -> dict[int, dict[str, object]]:
    """Read off every relation before the first edit."""
    return {number: state_of(relation, world) for number, relation in world.relations.items()}


def state_of(relation: Relation, world: World) -> dict[str, object]:
    """Return all facets of a relation as the simulator holds them."""
    columns: dict[str, object] = {name: getattr(relation, name) for name in COLUMNS}
    tags = {f"tag:{number}": number in relation.tags for number in world.tags}
    groups = {f"group:{number}": number in relation.groups for number in world.groups}
    fields = {f"field:{each.id}": relation.fields.get(code) for code, each in world.fields.items()}
    return {**columns, **tags, **groups, **fields}


def compute(start: dict[int, dict[str, object]], edits: Iterable[Edit]) -> Model:
    """Apply the committed edits in their order."""
    model = Model({who: _known(who, facets) for who, facets in start.items()})
    for edit in edits:
        if isinstance(edit, NewField):
            model.new_fields.append(edit.name)
        elif isinstance(edit, Create):
            model.people[edit.who] = _created(edit)
        else:
            _apply(model.people[edit.who], edit, start.get(edit.who, {}))
    return model


def _known(who: int, facets: dict[str, object]) -> Person:
    return Person(who, False, {name: [facets[name]] for name in COLUMNS})


def _created(edit: Create) -> Person:
    given = {"email": edit.email, "first_name": edit.first_name, "last_name": edit.last_name, "gender": "-"}
    return Person(edit.who, True, {name: [value] for name, value in given.items()})


def _apply(person: Person, edit: Edit, start: dict[str, object]) -> None:
    match edit:
        case Rename():
            person.put(edit.column, edit.value, None)
        case Readdress():
            person.put("email", edit.email, None)
        case Tag():
            person.put(f"tag:{edit.tag}", edit.is_on, start.get(f"tag:{edit.tag}", False))
        case Member():
            person.put(f"group:{edit.group}", edit.is_in, start.get(f"group:{edit.group}", False))
        case Fill():
            person.put(f"field:{edit.field}", edit.value, start.get(f"field:{edit.field}"))
        case Call():
            person.calls.append(Called(edit.list_id, edit.is_on, person.now()))
        case _:
            raise AssertionError(edit)
