"""What applications do in a faulty world: seeded scripts of transactions, each a few edits in plain SQL.

Every edit is written into a ledger of the test's own, in the same transaction: what is in the ledger was committed,
what is not was not, also when nobody was told. A transaction holds its relations' locks until it commits, so the
ledger's numbers are in the order of the commits, per relation; between relations transactions overlap and take their
ids early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import assert_never

import msgspec
from sqlalchemy import text

from syncd.sandbox import World
from syncd.store import Connection, Store

NOBODY = 0
FIRST_NEW = 900_001


class _Edit(msgspec.Struct, frozen=True, tag_field="edit"):
    """``who`` is the relation's local id."""

    who: int


class Create(_Edit, frozen=True, tag="create"):
    email: str
    first_name: str
    last_name: str


class Rename(_Edit, frozen=True, tag="rename"):
    column: str
    value: str


class Readdress(_Edit, frozen=True, tag="readdress"):
    email: str


class Tag(_Edit, frozen=True, tag="tag"):
    tag: int
    is_on: bool


class Fill(_Edit, frozen=True, tag="fill"):
    field: int
    value: str


class Member(_Edit, frozen=True, tag="member"):
    group: int
    is_in: bool


class Call(_Edit, frozen=True, tag="call"):
    """Subscribe or unsubscribe: not repeat-safe."""

    list_id: int
    is_on: bool


class NewField(_Edit, frozen=True, tag="new_field"):
    """A field of the account: not repeat-safe either."""

    name: str


Edit = Create | Rename | Readdress | Tag | Fill | Member | Call | NewField


@dataclass(frozen=True, slots=True)
class Transaction:
    """Edits that are committed together, ``open_s`` after the last, or rolled back; ``rest_s`` passes before it."""

    edits: tuple[Edit, ...]
    open_s: float = 0.0
    rest_s: float = 0.0
    is_kept: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to edit."""

    relations: tuple[int, ...]
    tags: tuple[int, ...]
    fields: tuple[int, ...]
    groups: tuple[int, ...]
    lists: tuple[int, ...]

    @classmethod
    def of(cls, world: World) -> Facts:
        """Read them off a simulator. A list's group is moved by its calls, so applications here leave it alone."""
        lists = tuple(world.lists)[:2]
        taken = {world.lists[each].group_id for each in lists}
        fields = tuple(each.id for each in world.fields.values() if each.is_free and each.type == "string")
        groups = tuple(each for each in world.groups if each not in taken)
        return cls(tuple(world.relations), tuple(world.tags)[:4], fields, groups, lists)


LEDGER = """
CREATE SCHEMA proof;
CREATE TABLE proof.ledger (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who bigint NOT NULL, edit jsonb NOT NULL);
"""


async def open_ledger(store: Store) -> None:
    async with store.begin() as connection:
        for statement in filter(str.strip, LEDGER.split(";\n")):
            await connection.exec_driver_sql(statement)


async def read_ledger(store: Store) -> list[Edit]:
    """Return every committed edit, in the order of the commits per relation."""
    async with store.begin() as connection:
        rows = await connection.exec_driver_sql("SELECT edit::text FROM proof.ledger ORDER BY n")
        return [msgspec.json.decode(row, type=Edit) for row in rows.scalars()]  # type: ignore[arg-type]


class _Abandoned(Exception):
    """The application changed its mind."""


async def run_application(store: Store, script: Sequence[Transaction]) -> None:
    """Run one application's transactions one after the other."""
    for transaction in script:
        await asyncio.sleep(transaction.rest_s)
        await commit(store, transaction)


async def commit(store: Store, transaction: Transaction) -> None:
    """Run one transaction to its commit, or to its rollback if it is not to be kept."""
    try:
        async with store.begin() as connection:
            await _execute(connection, transaction)
            if not transaction.is_kept:
                raise _Abandoned
    except _Abandoned:
        pass


async def _execute(connection: Connection, transaction: Transaction) -> None:
    for who in sorted({edit.who for edit in transaction.edits}):
        await connection.execute(text("SELECT pg_advisory_xact_lock(4711, :who)"), {"who": who})
    for edit in transaction.edits:
        sql, binds = _statement(edit)
        await connection.execute(text(sql), {"who": edit.who, **binds} if ":who" in sql else binds)
        await connection.execute(
            text("INSERT INTO proof.ledger (who, edit) VALUES (:who, CAST(CAST(:edit AS text) AS jsonb))"),
            {"who": edit.who, "edit": msgspec.json.encode(edit).decode()},
        )
    await asyncio.sleep(transaction.open_s)


def _statement(edit: Edit) -> tuple[str, dict[str, object]]:
    match edit:
        case Create():
            return (
                "INSERT INTO crm.relations (id, account_id, email, first_name, last_name) "
                "SELECT :who, id, :email, :first_name, :last_name FROM crm.accounts ORDER BY id LIMIT 1",
                {"email": edit.email, "first_name": edit.first_name, "last_name": edit.last_name},
            )
        case Rename():
            return f"UPDATE crm.relations SET {edit.column} = :value WHERE id = :who", {"value": edit.value}
        case Readdress():
            return "UPDATE crm.relations SET email = :email WHERE id = :who", {"email": edit.email}
        case Tag(is_on=True):
            sql = "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag) ON CONFLICT DO NOTHING"
            return sql, {"tag": edit.tag}
        case Tag():
            return "DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = :tag", {"tag": edit.tag}
        case Fill():
            return (
                "INSERT INTO crm.relation_fields (relation_id, field_id, value) "
                "VALUES (:who, :field, :value) "
                "ON CONFLICT (relation_id, field_id) DO UPDATE SET value = excluded.value",
                {"field": edit.field, "value": edit.value},
            )
        case Member(is_in=True):
            sql = "INSERT INTO crm.group_members (relation_id, group_id) VALUES (:who, :g) ON CONFLICT DO NOTHING"
            return sql, {"g": edit.group}
        case Member():
            return "DELETE FROM crm.group_members WHERE relation_id = :who AND group_id = :g", {"g": edit.group}
        case Call(is_on=True):
            sql = "SELECT crm.subscribe(email, CAST(:list AS text)) FROM crm.relations WHERE id = :who"
            return sql, {"list": str(edit.list_id)}
        case Call():
            sql = "SELECT crm.unsubscribe(email, CAST(:list AS text), 'asked to') FROM crm.relations WHERE id = :who"
            return sql, {"list": str(edit.list_id)}
        case NewField():
            return "SELECT crm.create_field(CAST(:name AS text), 'A field', 'string')", {"name": edit.name}
        case _:
            assert_never(edit)


# Scripts -------------------------------------------------------------------------------------------------------------

_KINDS = ("tag",) * 34 + ("rename",) * 20 + ("fill",) * 16 + ("member",) * 12 + ("readdress",) * 7 + ("call",) * 8
_NAMES = ("Anna", "Bram", "Chris", "Dirk", "Elif", "Fenna", "Gijs", "Hanna")


class Scriptwriter:
    """Writes the scripts of one schedule. A relation's creation, addresses and calls are one application's business.

    ``is_fickle``: applications often think better of a value a moment after they have committed it.
    """

    def __init__(self, random: Random, facts: Facts, *, is_fickle: bool = False) -> None:
        self._random = random
        self._facts = facts
        self._is_fickle = is_fickle
        self._count = 0
        self._is_on: dict[tuple[int, int], bool] = {}

    def scripts(self, applications: int, transactions: int) -> tuple[tuple[Transaction, ...], ...]:
        """Return one script an application."""
        return tuple(self._script(place, applications, transactions) for place in range(applications))

    def _script(self, place: int, applications: int, transactions: int) -> tuple[Transaction, ...]:
        own = [who for index, who in enumerate(self._facts.relations) if index % applications == place]
        script = []
        for _ in range(transactions):
            if self._is_fickle and self._random.random() < 0.5:
                script += self._thought_better_of(self._random.choice(own))
            is_kept = self._random.random() > 0.08
            edits = self._chosen(own, is_kept)
            rest_s, open_s = self._random.uniform(0, 0.03), self._random.choice((0.0, 0.0, 0.005, 0.04))
            script.append(Transaction(edits, open_s, rest_s, is_kept))
        return tuple(script)

    def _thought_better_of(self, who: int) -> list[Transaction]:
        tag, field = self._random.choice(self._facts.tags), self._random.choice(self._facts.fields)
        self._count += 1
        first: tuple[Edit, ...] = (Tag(who, tag, True), Fill(who, field, f"value {self._count}"))
        second: tuple[Edit, ...] = (Tag(who, tag, False), Fill(who, field, f"better {self._count}"))
        return [Transaction(first), Transaction(second, rest_s=self._random.uniform(0.1, 0.3))]

    def _chosen(self, own: list[int], is_kept: bool) -> tuple[Edit, ...]:
        match self._random.random():
            case chance if chance < 0.06:
                return self._new(own, is_kept)
            case chance if chance < 0.14:
                return self._around_a_call(self._random.choice(own), is_kept)
            case _:
                return self._edits(own, is_kept)

    def _around_a_call(self, who: int, is_kept: bool) -> tuple[Edit, ...]:
        """What a subscription's mail may depend on, put right before it and taken away right after."""
        tag, name = self._random.choice(self._facts.tags), self._random.choice(_NAMES)
        before, after = Rename(who, "first_name", name), Rename(who, "first_name", f"{name} again")
        return (Tag(who, tag, True), before, self._call(who, is_kept), Tag(who, tag, False), after)

    def _new(self, own: list[int], is_kept: bool) -> tuple[Edit, ...]:
        """A new relation with a tag, or now and then a new field."""
        self._count += 1
        if self._random.random() < 0.15:
            return (NewField(NOBODY, f"proof_{''.join(chr(97 + int(digit)) for digit in str(self._count))}"),)
        who = FIRST_NEW + self._count
        if is_kept:
            own.append(who)
        created = Create(who, self._address(who), self._random.choice(_NAMES), self._random.choice(_NAMES))
        return (created, Tag(who, self._random.choice(self._facts.tags), True))

    def _edits(self, own: list[int], is_kept: bool) -> tuple[Edit, ...]:
        chosen = [self._edit(own, is_kept) for _ in range(self._random.choice((1, 1, 1, 2, 3)))]
        if self._random.random() < 0.04:
            value = self._random.choice(_NAMES)
            chosen = [Rename(who, "last_name", value) for who in self._facts.relations]
        return tuple(chosen)

    def _edit(self, own: list[int], is_kept: bool) -> Edit:
        random, facts = self._random, self._facts
        who = random.choice((*facts.relations, *own))
        match random.choice(_KINDS):
            case "tag":
                return Tag(who, random.choice(facts.tags), random.random() < 0.55)
            case "rename":
                column = random.choice(("first_name", "last_name", "gender"))
                return Rename(who, column, random.choice(("M", "F") if column == "gender" else _NAMES))
            case "fill":
                self._count += 1
                return Fill(who, random.choice(facts.fields), f"value {self._count}")
            case "member":
                return Member(who, random.choice(facts.groups), random.random() < 0.55)
            case "readdress":
                mine = random.choice(own)
                return Readdress(mine, self._address(mine))
            case _:
                return self._call(random.choice(own), is_kept)

    def _call(self, who: int, is_kept: bool) -> Call:
        """Subscribe and unsubscribe in turn: reading back cannot tell a second subscription from the first."""
        number = self._random.choice(self._facts.lists)
        is_on = not self._is_on.get((who, number), False)
        if is_kept:
            self._is_on[who, number] = is_on
        return Call(who, number, is_on)

    def _address(self, who: int) -> str:
        self._count += 1
        return f"w{who}.{self._count}@proof.example"
