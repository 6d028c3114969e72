"""What reached the CRM: the outbox's own account of each change beside the simulator's journal of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from syncd.sandbox import World
from syncd.sandbox.journal import Effect
from syncd.store import Store

EFFECTS = {
    "create_relation": "relation.created",
    "update_profile": "relation.changed",
    "change_email": "relation.email_changed",
    "add_tag": "tag.added",
    "remove_tag": "tag.removed",
    "set_field": "field.set",
    "join_group": "group.joined",
    "leave_group": "group.left",
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """One local change and its effect: texts for people, ``attempts`` as the outbox counted them."""

    change: str
    relation: str
    before: str
    after: str
    attempts: int
    status: str


async def arrivals(store: Store, world: World) -> tuple[Arrival, ...]:
    """Return every entry of the outbox, oldest first, with the effect it had."""
    async with store.begin() as connection:
        rows = (await connection.exec_driver_sql(_ENTRIES)).mappings().all()
    return tuple(_arrival(world, **row) for row in rows)


async def undelivered(store: Store) -> int:
    """Count captured changes that are not settled yet, and values that will be said once more."""
    return await _count(store, _UNDELIVERED)


async def unproven(store: Store) -> int:
    """Count delivered changes that a pull may still prove."""
    return await _count(store, _UNPROVEN)


async def _count(store: Store, sql: str) -> int:
    async with store.begin() as connection:
        return int((await connection.exec_driver_sql(sql)).scalar_one())


def _arrival(
    world: World, operation: str, remote_id: str | None, email: str, attempts: int, status: str, is_again: bool
) -> Arrival:
    subject = f"relation:{remote_id}"
    effects = [each for each in world.journal.of(EFFECTS.get(operation, "")) if each.subject.startswith(subject)]
    change = operation.replace("_", " ") + (", again" if is_again else "")
    if not effects:
        return Arrival(change, email, "-", "no effect yet", attempts, status)
    before, after = _words(world, effects[0].before), _words(world, effects[-1].after)
    return Arrival(change, email, before, after, attempts, _mark(status, effects))


def _mark(status: str, effects: Sequence[Effect]) -> str:
    """Say so when something happened twice: the failure that matters."""
    return status if len(effects) == 1 else f"{status}, {len(effects)} effects"


def _words(world: World, value: object) -> str:
    """Render what the journal holds for people: tags and groups by name, profiles by what they say."""
    match value:
        case None:
            return "nothing"
        case dict():
            return ", ".join(f"{name}={each}" for name, each in value.items() if each and name not in HIDDEN)
        case int() if value in world.tags:
            return f"tag {world.tags[value].name}"
        case int() if value in world.groups:
            return f"group {world.groups[value].title}"
        case _:
            return str(value)


HIDDEN = frozenset({"has_password", "customer", "funnel_state", "gender"})

_ENTRIES = """
SELECT e.operation, r.remote_id, COALESCE(r.email, '') AS email, e.attempts, e.status,
       e.reasserts IS NOT NULL AS is_again
FROM syncd.entries e LEFT JOIN crm.relations r ON r.id = e.relation_id ORDER BY e.id
"""
_UNPROVEN = "SELECT count(*) FROM syncd.entries WHERE prove_until IS NOT NULL"
_UNDELIVERED = """
SELECT (SELECT count(*) FROM syncd.captures)
     + (SELECT count(*) FROM syncd.entries WHERE status IN ('pending', 'held', 'dead', 'parked', 'diverged'))
"""
