"""The story: what an application edits, and by the edits alone what the CRM must hold and do in the end.

This is the independent model. It knows the simulator's world before the first edit and the words of the API's
reference, and nothing of syncd: a **fact** is a person, a facet and a value ("100001, tag:304, True"); an edit makes
one fact true. The CRM as it should be is the facts before with the edits' facts over them, in the order of the edits.

A facet is spelled as a reader would: ``tag:304``, ``field:CODE``, ``group:20101``, ``list:401``, ``email``,
``first_name``, ``subscription:80003``, ``new_field:NAME``. A person is the relation's number in the CRM, 0 for the
administration itself; one that the story creates is its name until the CRM has numbered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypeAlias

from syncd.sandbox import Fault, Sandbox, World

Person: TypeAlias = int | str
Fact: TypeAlias = tuple[Person, str, object]
Facts: TypeAlias = dict[tuple[Person, str], object]

PROFILE = ("email", "first_name", "suffix", "last_name", "gender")
LOTTE, DAAN, NOOR, MOHAMED, SEM, WILLEM = 100_001, 100_002, 100_003, 100_004, 100_007, 100_008
NORA, EMIL, FLEUR = "nora", "emil", "fleur"
ADMINISTRATION = 0
BREAD, TASTING, DELIVERY = "4711_FF1677758400000", "4711_FF1677758400001", "4711_FF1677758400002"
FIELD_IDS = {BREAD: 101, TASTING: 102, DELIVERY: 103}
# What an earlier drainer delivered, and what is due to be read back now.
YESTERDAYS_TAG = 306
_LAST_DAY = date(2026, 1, 31)
_SOWN = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Edit:
    """One transaction of an application, and the fact that it makes true.

    ``is_barrier``: nothing of the same relation may pass it, in either direction. ``is_once``: the CRM does something
    each time it is asked (it mails, notes, charges), so it may be asked once.
    """

    whom: Person
    sql: str
    facet: str
    value: object
    is_barrier: bool = False
    is_once: bool = False


def _tag(whom: Person, tag: int, relation: str | None = None) -> Edit:
    sql = f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({relation or whom}, {tag})"
    return Edit(whom, sql, f"tag:{tag}", True)


def _untag(whom: Person, tag: int) -> Edit:
    sql = f"DELETE FROM crm.relation_tags WHERE relation_id = {whom} AND tag_id = {tag}"
    return Edit(whom, sql, f"tag:{tag}", False)


def _field(whom: Person, code: str, value: str, relation: str | None = None) -> Edit:
    sql = (
        "INSERT INTO crm.relation_fields (relation_id, field_id, value) "
        f"VALUES ({relation or whom}, {FIELD_IDS[code]}, '{value}') "
        "ON CONFLICT (relation_id, field_id) DO UPDATE SET value = excluded.value"
    )
    return Edit(whom, sql, f"field:{code}", value)


def _join(whom: Person, group: int, relation: str | None = None) -> Edit:
    sql = f"INSERT INTO crm.group_members (group_id, relation_id) VALUES ({group}, {relation or whom})"
    return Edit(whom, sql, f"group:{group}", True)


def _leave(whom: Person, group: int) -> Edit:
    sql = f"DELETE FROM crm.group_members WHERE group_id = {group} AND relation_id = {whom}"
    return Edit(whom, sql, f"group:{group}", False)


def _email(whom: Person, email: str, relation: str | None = None) -> Edit:
    sql = f"UPDATE crm.relations SET email = '{email}' WHERE id = {relation or whom}"
    return Edit(whom, sql, "email", email, is_barrier=True)


def _create(whom: Person, email: str) -> Edit:
    sql = f"INSERT INTO crm.relations (account_id, email) VALUES (1, '{email}')"
    return Edit(whom, sql, "email", email, is_barrier=True)


def _first_name(whom: Person, name: str) -> Edit:
    return Edit(whom, f"UPDATE crm.relations SET first_name = '{name}' WHERE id = {whom}", "first_name", name)


def _once(whom: Person, call: str, facet: str, value: object) -> Edit:
    return Edit(whom, f"SELECT crm.{call}", facet, value, is_barrier=True, is_once=True)


def _subscribe(whom: Person, email: str, number: int) -> Edit:
    return _once(whom, f"subscribe('{email}', '{number}')", f"list:{number}", "S")


def _by_email(email: str) -> str:
    return f"(SELECT id FROM crm.relations WHERE email = '{email}')"


_NORA = _by_email("nora@post.example")
_EMIL = _by_email("emil@post.example")
_CONSENT = "'privacy', true, 'https://voorwaarden.example', 'consent', true, '192.0.2.7'"

# Before the first drainer starts. The order is the order of the commits.
FIRST = (
    _field(LOTTE, BREAD, "wit"),
    _tag(LOTTE, 304),
    _create(NORA, "nora@post.example"),
    _email(DAAN, "daan@werk.example"),
    _field(LOTTE, BREAD, "bruin"),
    _subscribe(LOTTE, "lotte.vries.1@bedrijf.example", 401),
    _untag(LOTTE, 304),
    _tag(NORA, 301, _NORA),
    _once(NOOR, f"subscribe_with_consent('noor.boer.3@post.example', '402', {_CONSENT})", "list:402", "S"),
    _join(MOHAMED, 20_101),
    _field(DAAN, TASTING, "ja"),
    _once(ADMINISTRATION, "create_field('kleur', 'Kleur', 'string')", "new_field:kleur", True),
    _first_name(DAAN, "Daniel"),
    _leave(MOHAMED, 20_104),
    _tag(MOHAMED, 302),
    _join(NORA, 20_102, _NORA),
    _field(NORA, DELIVERY, "zaterdag", _NORA),
    _create(EMIL, "emil@post.example"),
    _create(FLEUR, "fleur@thuis.example"),
    _once(SEM, f"end_subscription('80003', '{_LAST_DAY}')", "subscription:80003", _LAST_DAY),
    _tag(SEM, 304),
    _email(NORA, "nora.smit@post.example", _NORA),
    _once(WILLEM, "unsubscribe('willem.vries+brood.8@voorbeeld.example', '403', 'te veel')", "list:403", "U"),
    _leave(WILLEM, 20_105),
    _tag(LOTTE, 303),
    _email(DAAN, "daniel@werk.example"),
    _tag(DAAN, 303),
    _tag(NOOR, 308),
    _subscribe(EMIL, "emil@post.example", 404),
    _field(LOTTE, BREAD, "volkoren"),
    _tag(NORA, 308, _by_email("nora.smit@post.example")),
    _field(EMIL, BREAD, "rogge", _EMIL),
)

# After the first drainer died and before the next starts: the application does not wait for either.
SECOND = (
    _field(LOTTE, BREAD, "spelt"),
    _untag(NOOR, 308),
    _tag(DAAN, 308),
    _join(MOHAMED, 20_105),
    _field(NORA, DELIVERY, "zondag", _by_email("nora.smit@post.example")),
    _email(EMIL, "emil@werk.example", _EMIL),
)

EDITS = FIRST + SECOND

# What the CRM gets wrong, once each: a gateway that is busy, two answers that never arrive, and credentials that are
# refused for a moment, also when the drainer asks whether they are in general.
FAULTS = (
    Fault.parse("status:operation=tag_add,status=503"),
    Fault.parse("lost_answer:operation=list_subscribe"),
    Fault.parse("lost_answer:operation=relation_upsert"),
    Fault.parse("status:operation=group_remove,status=401"),
    Fault.parse("status:operation=groups,status=401"),
)


def new_world() -> World:
    """Return the world before the first edit, the same each time; its clock runs with the system's."""
    world = World.seeded(relations=8, orders=24, invoices=0, seed=7, now=_SOWN)
    world.clock.run()
    world.clock.set(datetime.now(UTC))
    world.relations[WILLEM].tags.add(YESTERDAYS_TAG)
    return world


def facts(world: World) -> Facts:
    """Read a world as facts; what is not there (a tag not had, a field not set) is no fact."""
    found: Facts = {}
    for number, relation in world.relations.items():
        found |= {(number, name): getattr(relation, name) for name in PROFILE}
        found |= {(number, f"tag:{tag}"): True for tag in relation.tags}
        found |= {(number, f"group:{group}"): True for group in relation.groups}
        found |= {(number, f"field:{code}"): value for code, value in relation.fields.items()}
        found |= {(number, f"list:{event.list_id}"): event.flag for event in relation.events}
    for order in world.orders.values():
        for line in order.lines:
            found[order.relation_id, f"subscription:{line.subscription_id}"] = line.ends_on
    found |= {(ADMINISTRATION, f"new_field:{field.name}"): True for field in world.fields.values()}
    return {key: value for key, value in found.items() if value not in (None, "", False)}


def expected(edits: Sequence[Edit], numbers: Mapping[Person, int]) -> Facts:
    """Return what must be true at the CRM after these edits; ``numbers`` tells how it numbered the new ones."""
    before = new_world()
    wanted = facts(before)
    for edit in edits:
        whom = numbers.get(edit.whom, edit.whom)
        if edit.facet == "email" and (whom, "gender") not in wanted:
            wanted[whom, "gender"] = "-"
        wanted[whom, edit.facet] = edit.value
        if edit.value == "U":  # "Stop Listmanager": who leaves a list leaves its group
            group = before.lists[int(edit.facet.removeprefix("list:"))].group_id
            wanted.pop((whom, f"group:{group}"), None)
    return {key: value for key, value in wanted.items() if value not in (None, "", False)}


def numbers(sandbox: Sandbox, edits: Sequence[Edit]) -> dict[Person, int]:
    """Return how the CRM numbered those whom the edits created: the first of each address."""
    born: dict[object, int] = {}
    for effect in sandbox.journal.of("relation.created"):
        assert isinstance(effect.after, dict)
        born.setdefault(effect.after["email"], int(effect.subject.removeprefix("relation:")))
    firsts: dict[Person, object] = {}
    for edit in edits:
        if isinstance(edit.whom, str):
            firsts.setdefault(edit.whom, edit.value)
    return {whom: born[email] for whom, email in firsts.items() if email in born}
