"""Proving: what a pull's answer says about delivered changes, one function per kind of answer.

Each is called in the transaction that writes the answer, before it is merged, so that a change the CRM turns out not to
hold is protected like any other that is not delivered (G5). Each asks the database once, and not at all when nothing
awaited proof as the run began. Returned are warnings for the run, without values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date

from sqlalchemy import text

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    EndSubscription,
    JoinGroup,
    LeaveGroup,
    RemoveTag,
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
)
from syncd.domain.records import FreeField, Relation, Subscription
from syncd.policy import proof
from syncd.policy.proof import EXPECTED, UNTOLD, Showing, Sight
from syncd.store.engine import Connection
from syncd.store.mirror.scope import Scope, Seen
from syncd.store.outbox_awaited import Awaited, Reading, of_facet, of_operations, of_relations
from syncd.store.outbox_proof import conclude
from syncd.store.outbox_standing import stood

_LINES = text("""
    SELECT l.subscription_id, l.subscription_ends_on, o.id
    FROM crm.order_lines l JOIN crm.orders o ON o.id = l.order_id
    WHERE o.account_id = :account_id AND l.subscription_id = ANY(CAST(:ids AS text[]))
""")
_ADDRESSES = text("""
    SELECT relation_id, relation_email, id FROM crm.orders
    WHERE account_id = :account_id AND relation_id = ANY(CAST(:ids AS bigint[])) AND relation_email IS NOT NULL
""")


async def by_relations(connection: Connection, scope: Scope, shown: Mapping[int, Relation]) -> tuple[str, ...]:
    """Hold identity and profile changes against relations, by local id, as an answer showed them."""
    if not scope.awaits_proof:
        return ()
    operations = ("create_relation", "change_email", "update_profile")
    awaited = await of_relations(connection, _reading(scope), list(shown), *operations)

    def look(entry: Awaited) -> Showing:
        change = entry.change
        if not isinstance(change, CreateRelation | ChangeEmail | UpdateProfile) or entry.relation_id is None:
            return UNTOLD
        return proof.by_relation(change, shown[entry.relation_id])

    return await _concluded(connection, scope, awaited, look)


async def by_tags(
    connection: Connection,
    scope: Scope,
    shown: Mapping[int, Collection[int]],
    alike: Collection[int],
    unsure: Collection[int],
) -> tuple[str, ...]:
    """Hold tag changes against the tags of relations, both by local id. Tags ``alike`` share their name with another,
    so that nothing is known of them; relations ``unsure`` may have more tags than were read."""
    if not scope.awaits_proof:
        return ()
    awaited = await of_relations(connection, _reading(scope), list(shown), "add_tag", "remove_tag")

    def look(entry: Awaited) -> Showing:
        change = entry.change
        if not isinstance(change, AddTag | RemoveTag) or entry.relation_id is None or change.tag_id in alike:
            return UNTOLD
        is_there = change.tag_id in shown[entry.relation_id]
        return UNTOLD if entry.relation_id in unsure and not is_there else proof.by_tags(change, is_there)

    return await _concluded(connection, scope, awaited, look)


async def by_members(
    connection: Connection, scope: Scope, group_id: int, members: Iterable[int], *, is_whole: bool
) -> tuple[str, ...]:
    """Hold changes of one group's membership against its members, by local id; ``is_whole``: all could be read."""
    if not scope.awaits_proof:
        return ()
    awaited = await of_facet(connection, _reading(scope), f"group:{group_id}")
    there = frozenset(members) if awaited else frozenset[int]()

    def look(entry: Awaited) -> Showing:
        is_there = entry.relation_id in there
        if not isinstance(entry.change, JoinGroup | LeaveGroup) or not (is_there or is_whole):
            return UNTOLD
        return proof.by_members(entry.change, is_there)

    return await _concluded(connection, scope, awaited, look)


async def by_standings(
    connection: Connection, scope: Scope, shown: Mapping[int, Sequence[Subscription]]
) -> tuple[str, ...]:
    """Hold list calls against the standings of relations, by local id, each shown whole."""
    if not scope.awaits_proof:
        return ()
    operations = ("subscribe", "subscribe_with_consent", "unsubscribe")
    awaited = await of_relations(connection, _reading(scope), list(shown), *operations)
    known = await stood(connection, [entry.id for entry in awaited if entry.delivered_at is None])

    def look(entry: Awaited) -> Showing:
        change = entry.change
        if not isinstance(change, Subscribe | SubscribeWithConsent | Unsubscribe) or entry.relation_id is None:
            return UNTOLD
        standings = (one for one in shown[entry.relation_id] if one.list_remote_id == change.list_remote_id)
        stands, made_at, delivered_at = next(standings, None), entry.captured_at, entry.delivered_at
        return proof.by_standing(change, stands, made_at, delivered_at, known.get(entry.id))

    return await _concluded(connection, scope, awaited, look)


async def by_fields(
    connection: Connection, scope: Scope, shown: Sequence[FreeField], *, is_whole: bool
) -> tuple[str, ...]:
    """Hold new fields against the list of all fields; ``is_whole``: all could be read."""
    if not scope.awaits_proof:
        return ()
    awaited = await of_operations(connection, _reading(scope), "create_field")

    def look(entry: Awaited) -> Showing:
        if not isinstance(entry.change, CreateField):
            return UNTOLD
        seen = proof.by_fields(entry.change, shown)
        return seen if is_whole or seen.sight is Sight.EXPECTED else UNTOLD

    return await _concluded(connection, scope, awaited, look)


async def by_orders(connection: Connection, scope: Scope, seen: Seen) -> tuple[str, ...]:
    """Hold ended subscriptions and changed addresses against the orders that an answer showed, once all are written.

    Orders can only confirm an address: each may keep the one of its day.
    """
    if not scope.awaits_proof:
        return ()
    awaited = await of_operations(connection, _reading(scope), "end_subscription", "change_email")
    ends = await _ends(connection, scope, awaited, seen)
    addresses = await _addresses(connection, scope, awaited, seen)

    def look(entry: Awaited) -> Showing:
        match entry.change:
            case EndSubscription() as change:
                return proof.by_end(change, ends.get(change.subscription_id, ()))
            case ChangeEmail() as change:
                told = addresses.get(entry.relation_id or 0)
                return EXPECTED if told == {change.new.casefold()} else UNTOLD
            case _:
                return UNTOLD

    return await _concluded(connection, scope, awaited, look)


async def _ends(
    connection: Connection, scope: Scope, awaited: Iterable[Awaited], seen: Seen
) -> Mapping[str, list[date | None]]:
    ids = [entry.change.subscription_id for entry in awaited if isinstance(entry.change, EndSubscription)]
    if not ids:
        return {}
    rows = (await connection.execute(_LINES, {"account_id": scope.account_id, "ids": ids})).all()
    shown = {row.id for row in rows}.intersection(seen.ids)
    found: dict[str, list[date | None]] = {}
    for row in rows:
        if row.id in shown:
            found.setdefault(row.subscription_id, []).append(row.subscription_ends_on)
    return found


async def _addresses(
    connection: Connection, scope: Scope, awaited: Iterable[Awaited], seen: Seen
) -> Mapping[int, set[str]]:
    ids = [entry.relation_id for entry in awaited if isinstance(entry.change, ChangeEmail)]
    if not ids:
        return {}
    rows = (await connection.execute(_ADDRESSES, {"account_id": scope.account_id, "ids": ids})).all()
    shown = {row.id for row in rows}.intersection(seen.ids)
    found: dict[int, set[str]] = {}
    for row in rows:
        if row.id in shown:
            found.setdefault(row.relation_id, set()).add(row.relation_email.casefold())
    return found


async def _concluded(
    connection: Connection, scope: Scope, awaited: Sequence[Awaited], look: Callable[[Awaited], Showing]
) -> tuple[str, ...]:
    return (await conclude(connection, _reading(scope), awaited, look)).warnings


def _reading(scope: Scope) -> Reading:
    return Reading(scope.account_id, scope.asked_at, scope.grace_s, scope.run_id)
