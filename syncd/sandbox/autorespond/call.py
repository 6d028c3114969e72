"""What an operation gets and what it may give back."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.sandbox.autorespond.checks import Arguments, unknown
from syncd.sandbox.autorespond.encode import Encoder, Row
from syncd.sandbox.records import Group, ListManager, Relation
from syncd.sandbox.switches import Switches
from syncd.sandbox.world import World


@dataclass(frozen=True, slots=True)
class Rows:
    """A list, its rows encoded."""

    rows: list[bytes]


@dataclass(frozen=True, slots=True)
class File:
    """A document that is no JSON."""

    content: bytes
    content_type: str


Payload = Rows | File | Row | bool | int | str


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who is asked, how it answers, and with which arguments."""

    world: World
    switches: Switches
    encoder: Encoder
    arguments: Arguments

    def relation(self, name: str) -> Relation:
        """Return the relation that a path name means."""
        return self.relation_with(self.arguments.number(name))

    def relation_with(self, number: int) -> Relation:
        """Return the relation with an id."""
        relation = self.world.relations.get(number)
        if relation is None:
            raise unknown("relation", number)
        return relation

    def find(self, email: str) -> Relation | None:
        """Find a relation by e-mail address, minding case if the switch says so."""
        return self.world.relation(email, is_exact=self.switches.email_case == "sensitive")

    def group(self, name: str) -> Group:
        """Return the group that a path name means."""
        number = self.arguments.number(name)
        group = self.world.groups.get(number)
        if group is None:
            raise unknown("group", number)
        return group

    def tag(self, name: str) -> int:
        """Return the id of the tag that a path name means."""
        number = self.arguments.number(name)
        if number not in self.world.tags:
            raise unknown("tag", number)
        return number

    def listmanager(self, name: str) -> ListManager:
        """Return the list that a path name means."""
        number = self.arguments.number(name)
        found = self.world.lists.get(number)
        if found is None:
            raise unknown("listmanager", number)
        return found
