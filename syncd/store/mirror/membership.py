"""Links: which relations hold which tags, and which stand in which groups. Both tables are written alike.

An application inserts and deletes these rows, so a link whose facet has an undelivered change is left as it is (G5),
whichever side it is missing on. A link that an answer lacks gets ``missing_since``; it goes when a second answer,
apart in time, lacks it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from syncd.domain.facets import NO, YES
from syncd.policy.absence import Absence, judge
from syncd.policy.merge import Conflict, Owner, is_contested, trails
from syncd.store.engine import Connection
from syncd.store.history import Change, missing, record
from syncd.store.history import found as found_again
from syncd.store.mirror.conflicts import Noticed, agree, notice
from syncd.store.mirror.scope import Scope, Written
from syncd.store.mirror.undelivered import held, undelivered

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LinkTable:
    """A link table: ``owner`` is the column whose collection one answer shows; pairs are (relation, other)."""

    name: str
    other: str
    owner: str
    facet: str
    called: str


RELATION_TAGS = LinkTable("relation_tags", "tag_id", "relation_id", "tag", "crm.tags (name)")
GROUP_MEMBERS = LinkTable("group_members", "group_id", "group_id", "group", "crm.groups (title)")


@dataclass(frozen=True, slots=True)
class Difference:
    """How an answer differs from the mirror's links, protected links left out. ``known`` counts what it should hold."""

    new: tuple[Pair, ...]
    gone: tuple[Pair, ...]
    found: tuple[Pair, ...]
    same: tuple[Pair, ...]
    known: int
    rows: Mapping[Pair, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()


async def compare(
    connection: Connection, scope: Scope, table: LinkTable, owners: Sequence[int], shown: Iterable[Pair]
) -> Difference:
    """Compare the links of these owners with the pairs that their answers showed."""
    selecting = text(f"""
        SELECT relation_id, {table.other} AS other_id, missing_since, first_seen_at, last_seen_at FROM crm.{table.name}
        WHERE {table.owner} = ANY(CAST(:owners AS bigint[]))
    """)
    held = await connection.execute(selecting, {"owners": list(owners)})
    rows = {(row.relation_id, row.other_id): row._asdict() for row in held}
    wanted = dict.fromkeys(shown)
    new = [pair for pair in wanted if pair not in rows]
    gone = [pair for pair in rows if pair not in wanted]
    again = [pair for pair in wanted if pair in rows and rows[pair]["missing_since"] is not None]
    there = [pair for pair in wanted if pair in rows and rows[pair]["missing_since"] is None]
    protected, warnings = await _protected(connection, scope, table, _both(new, gone, again, there))
    return Difference(
        new=tuple(pair for pair in new if pair not in protected),
        gone=tuple(pair for pair in gone if pair not in protected),
        found=tuple(again),
        same=tuple(there),
        known=sum(1 for pair, row in rows.items() if row["missing_since"] is None and pair not in protected),
        rows=rows,
        warnings=warnings,
    )


async def apply(connection: Connection, scope: Scope, table: LinkTable, change: Difference) -> Written:
    """Write a difference. The caller has judged whether its answer is to be believed."""
    inserted = await _insert(connection, scope, table, change.new)
    if change.found:
        await _mark(connection, table, change.found, None)
        again = [found_again(pair[0], change.rows[pair]["missing_since"], pair[1]) for pair in change.found]
        await record(connection, scope, table.name, again)
    judged = {pair: judge(change.rows[pair]["missing_since"], scope.now, scope.absence_gap_s) for pair in change.gone}
    noted = [pair for pair, verdict in judged.items() if verdict is Absence.NOTED]
    await _mark(connection, table, noted, scope)
    await record(connection, scope, table.name, [missing(pair[0], scope.now, pair[1]) for pair in noted])
    confirmed = [pair for pair, verdict in judged.items() if verdict is Absence.CONFIRMED]
    await _delete(connection, scope, table, confirmed, change.rows)
    await _touch(connection, scope, table, change)
    shown = len(change.new) + len(change.found) + len(change.same)
    return Written(
        shown,
        inserted,
        len(change.found),
        len(change.same),
        missing=len(confirmed),
        deferred=len(change.new) - inserted,
        warnings=change.warnings,
    )


Both = Mapping[Pair, tuple[bool, bool]]


def _both(new: Sequence[Pair], gone: Sequence[Pair], again: Sequence[Pair], there: Sequence[Pair]) -> Both:
    """Say of each link whether it is here and whether it is in the CRM."""
    both = dict.fromkeys(new, (False, True)) | dict.fromkeys(gone, (True, False))
    return both | dict.fromkeys((*again, *there), (True, True))


async def _protected(
    connection: Connection, scope: Scope, table: LinkTable, both: Both
) -> tuple[frozenset[Pair], tuple[str, ...]]:
    """Return the differing links that stay as they are, having written down where both sides moved one; and warnings.

    A link is a field that is there or not: two edits of it here and one there may want different ends.
    """
    differing = sorted({pair[0] for pair, (here, there) in both.items() if here != there})
    waiting = await held(connection, scope, table.name, sorted({pair[0] for pair in both}))
    edits = await undelivered(connection, scope, differing)
    moved = {relation_id: trails(found) for relation_id, found in edits.items()}
    protected: set[Pair] = set()
    clashes: list[tuple[Pair, Conflict, bool]] = []
    for pair, (is_here, is_there) in both.items():
        facet = f"{table.facet}:{pair[1]}"
        held_by = waiting.get(pair[0], {}).get(facet)
        trail = held_by or moved.get(pair[0], {}).get(facet)
        if trail is None:
            continue
        here, there = _word(is_here), _word(is_there)
        protected.add(pair)
        if held_by is not None or is_contested(facet, trail, here, there):
            clashes.append((pair, Conflict(facet, trail.base, here, there, trail.made_at), held_by is not None))
    return frozenset(protected), await _notice(connection, scope, table, clashes)


async def _notice(
    connection: Connection, scope: Scope, table: LinkTable, clashes: Sequence[tuple[Pair, Conflict, bool]]
) -> tuple[str, ...]:
    if not clashes:
        return ()
    agreed = [(pair[0], clash) for pair, clash, is_held in clashes if is_held and clash.is_settled]
    await agree(connection, scope, table.name, agreed)
    names = await _names(connection, table, [pair[1] for pair, _, _ in clashes])
    found = [
        Noticed(pair[0], clash, Owner.HOLD if is_held else _owner(scope, table, names.get(pair[1])))
        for pair, clash, is_held in clashes
        if not clash.is_settled
    ]
    return await notice(connection, scope, table.name, found)


async def _names(connection: Connection, table: LinkTable, ids: Sequence[int]) -> dict[int, str | None]:
    source, _, column = table.called.partition(" ")
    naming = text(f"SELECT id, {column} AS name FROM {source} WHERE id = ANY(CAST(:ids AS bigint[]))")
    return {row.id: row.name for row in await connection.execute(naming, {"ids": list(ids)})}


def _owner(scope: Scope, table: LinkTable, name: str | None) -> Owner:
    return scope.owners.of(f"{table.facet}:{name}", f"{table.facet}s")


def _word(is_there: bool) -> str:
    return YES if is_there else NO


async def _insert(connection: Connection, scope: Scope, table: LinkTable, pairs: Sequence[Pair]) -> int:
    """Insert links, but of relations that are gone by now (erased, or merged with their twin) or about to be."""
    if not pairs:
        return 0
    inserting = text(f"""
        INSERT INTO crm.{table.name} (relation_id, {table.other})
        SELECT i.relation_id, i.other_id FROM {_PAIRS} JOIN crm.relations r ON r.id = i.relation_id
        ORDER BY i.relation_id, i.other_id FOR KEY SHARE OF r SKIP LOCKED
        ON CONFLICT DO NOTHING
        RETURNING relation_id, {table.other} AS other_id
    """)
    rows = (await connection.execute(inserting, _arrays(pairs))).all()
    await record(connection, scope, table.name, [Change(row[0], "insert", link_id=row[1]) for row in rows])
    return len(rows)


async def _mark(connection: Connection, table: LinkTable, pairs: Sequence[Pair], scope: Scope | None) -> None:
    if not pairs:
        return
    marking = text(f"""
        UPDATE crm.{table.name} t
        SET missing_since = :since, last_seen_at = CASE WHEN :since_is_null THEN now() ELSE t.last_seen_at END
        FROM {_PAIRS} WHERE t.relation_id = i.relation_id AND t.{table.other} = i.other_id
    """)
    since = None if scope is None else scope.now
    await connection.execute(marking, {**_arrays(pairs), "since": since, "since_is_null": since is None})


async def _delete(
    connection: Connection,
    scope: Scope,
    table: LinkTable,
    pairs: Sequence[Pair],
    rows: Mapping[Pair, Mapping[str, Any]],
) -> None:
    if not pairs:
        return
    deleting = text(f"""
        DELETE FROM crm.{table.name} t USING {_PAIRS}
        WHERE t.relation_id = i.relation_id AND t.{table.other} = i.other_id
    """)
    await connection.execute(deleting, _arrays(pairs))
    await record(
        connection, scope, table.name, [Change(pair[0], "delete", _kept(rows[pair]), link_id=pair[1]) for pair in pairs]
    )


def _kept(row: Mapping[str, Any]) -> dict[str, object]:
    return {name: row[name] for name in ("first_seen_at", "last_seen_at", "missing_since")}


async def _touch(connection: Connection, scope: Scope, table: LinkTable, change: Difference) -> None:
    stale = [pair for pair in change.same if change.rows[pair]["last_seen_at"] < scope.touch_before]
    if not stale:
        return
    touching = text(f"""
        UPDATE crm.{table.name} t SET last_seen_at = now()
        FROM {_PAIRS} WHERE t.relation_id = i.relation_id AND t.{table.other} = i.other_id
    """)
    await connection.execute(touching, _arrays(stale))


_PAIRS = "unnest(CAST(:relation_ids AS bigint[]), CAST(:other_ids AS bigint[])) AS i (relation_id, other_id)"


def _arrays(pairs: Sequence[Pair]) -> dict[str, object]:
    return {"relation_ids": [pair[0] for pair in pairs], "other_ids": [pair[1] for pair in pairs]}
