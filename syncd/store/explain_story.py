"""The story of one relation, or of one entry, gathered: what ``explain`` reads, in one snapshot, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import msgspec

from syncd.policy.facet_choice import COLUMNS, Choice
from syncd.store.engine import Connection
from syncd.store.explain import (
    ConflictLine,
    HistoryLine,
    LinkLine,
    LocalEdit,
    ReadLine,
    RunFound,
    read_conflicts,
    read_edits,
    read_history,
    read_links,
    read_readings,
    read_runs,
    seen_by,
)
from syncd.store.explain_answer import Answer, Heard, answers
from syncd.store.explain_find import RelationFound

# Which pulls show the rows of which table. Free fields cannot be read at all.
_STREAMS = {
    "relations": ("relation_details", "group_members", "orders", "relation_orders", "invoices", "invoice_relations"),
    "relation_tags": ("relation_tags",),
    "group_members": ("group_members",),
    "list_subscriptions": ("relation_subscriptions",),
}
# Of a relation whose own record is kept: which pulls show that. Orders and invoices only name it.
_RECORDS = ("relation_details", "group_members", "invoice_relations")
_READ_BY = {
    "relations": "relation_details",
    "relation_tags": "relation_tags",
    "list_subscriptions": "relation_subscriptions",
}
_UNDELIVERED = frozenset({"captured", "pending", "held", "dead", "parked", "diverged"})


@dataclass(frozen=True, slots=True)
class MirroredValue:
    """One value of the mirror and where it comes from.

    ``origin`` is ``remote`` (a pull's answer: ``run``), ``local`` (a change made here: ``entry_id``),
    ``reproject`` (read again from what was kept), or None where the
    history does not reach so far back. ``seen_by`` is the pull that saw it last, ``read_at`` when it was last read at
    all. ``protected_by`` are the undelivered local changes because of which no pull overwrites it.
    """

    name: str
    facet: str
    value: str | None
    origin: str | None
    changed_at: datetime | None
    run: RunFound | None
    entry_id: int | None
    before: str | None
    first_seen_at: datetime
    last_seen_at: datetime
    missing_since: datetime | None
    seen_by: RunFound | None
    read_at: datetime | None
    protected_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """Everything about a relation, or about what was chosen of it."""

    relation: RelationFound
    chosen: Choice | None
    values: tuple[MirroredValue, ...]
    answers: tuple[Answer, ...]
    edits: tuple[LocalEdit, ...]
    history: tuple[HistoryLine, ...]
    conflicts: tuple[ConflictLine, ...]
    readings: tuple[ReadLine, ...]
    runs: tuple[RunFound, ...]


async def read_story(
    connection: Connection,
    relation: RelationFound,
    chosen: Choice | None,
    *,
    most: int,
    called: Mapping[str, str] = MappingProxyType({}),
) -> Story:
    """Gather the newest ``most`` local changes and history lines of a relation, or of what was chosen of it. ``called``
    are the names of facets, for those that the relation does not have."""
    facets, column = (None, None) if chosen is None else (chosen.facets, chosen.column)
    edits = await read_edits(connection, relation.account_id, relation.id, facets, most)
    edits = tuple(edit for edit in edits if column is None or _speaks_of(edit, column))
    history = await read_history(connection, relation.id, facets, column, most)
    conflicts = await read_conflicts(connection, relation.account_id, relation.id, column, most)
    readings = await read_readings(connection, relation.account_id, relation.id)
    links = await read_links(connection, relation.id, facets)
    run_ids = {line.run_id for line in history} | {line.run_id for line in conflicts}
    run_ids |= {edit.proved_run_id for edit in edits}
    runs = await read_runs(connection, sorted(id_ for id_ in run_ids if id_ is not None))
    seen = await _seen(connection, relation, links)
    sources = _Sources(history, runs, seen, {line.stream: line.read_at for line in readings}, edits)
    values = _column_values(relation, chosen, sources) + _link_values(links, sources)
    said = answers(Heard(relation, links, history, edits, runs, seen, called), chosen)
    wants_row = chosen is None or chosen.column is not None or bool({"identity", "profile"} & set(chosen.facets))
    kept = conflicts if wants_row else ()
    return Story(relation, chosen, values, said, edits, history, kept, readings, tuple(runs.values()))


@dataclass(frozen=True, slots=True)
class _Sources:
    history: Sequence[HistoryLine]
    runs: dict[int, RunFound]
    seen: dict[tuple[str, datetime], RunFound | None]
    read_at: dict[str, datetime]
    edits: Sequence[LocalEdit]

    def last(self, table: str, link_id: int | None, column: str | None) -> HistoryLine | None:
        """Return the change that gave the row, or one column of it, its present value."""
        for line in reversed(self.history):
            if line.table_name == table and line.link_id == link_id and _gave(line, column):
                return line
        return None

    def protecting(self, facets: Sequence[str], column: str | None) -> tuple[str, ...]:
        return tuple(
            f"entry {edit.id}" if edit.id is not None else f"capture {edit.capture_id}"
            for edit in self.edits
            if edit.status in _UNDELIVERED and edit.facet in facets and (column is None or _speaks_of(edit, column))
        )


async def _seen(
    connection: Connection, relation: RelationFound, links: Sequence[LinkLine]
) -> dict[tuple[str, datetime], RunFound | None]:
    """Find the pulls that saw the rows last; many rows were seen by one."""
    streams = _STREAMS if relation.answer is None else {**_STREAMS, "relations": _RECORDS}
    wanted = {("relations", relation.last_seen_at)} | {(link.table_name, link.last_seen_at) for link in links}
    return {
        (table, at): await seen_by(connection, relation.account_id, streams[table], at)
        for table, at in sorted(wanted)
        if table in streams
    }


def _column_values(relation: RelationFound, chosen: Choice | None, sources: _Sources) -> tuple[MirroredValue, ...]:
    return tuple(
        _value(
            name=column,
            facets=("identity", "profile"),
            value=getattr(relation, column),
            table="relations",
            link_id=None,
            column=column,
            row=relation,
            sources=sources,
        )
        for column in COLUMNS
        if _is_chosen(column, chosen)
    )


def _is_chosen(column: str, chosen: Choice | None) -> bool:
    if chosen is None:
        return True
    if chosen.column is not None:
        return column == chosen.column
    return ("identity" if column == "email" else "profile") in chosen.facets


def _link_values(links: Sequence[LinkLine], sources: _Sources) -> tuple[MirroredValue, ...]:
    return tuple(
        _value(
            name=link.name,
            facets=(link.facet,),
            value=link.value,
            table=link.table_name,
            link_id=int(link.facet.partition(":")[2]),
            column=None,
            row=link,
            sources=sources,
        )
        for link in links
    )


def _value(
    *,
    name: str,
    facets: tuple[str, ...],
    value: str | None,
    table: str,
    link_id: int | None,
    column: str | None,
    row: RelationFound | LinkLine,
    sources: _Sources,
) -> MirroredValue:
    last = sources.last(table, link_id, column)
    before = None if last is None or last.before is None else _text_of(last.before, column or "value")
    return MirroredValue(
        name=name,
        facet=facets[0] if len(facets) == 1 else ("identity" if column == "email" else "profile"),
        value=value,
        origin=None if last is None else last.origin,
        changed_at=None if last is None else last.changed_at,
        run=None if last is None or last.run_id is None else sources.runs.get(last.run_id),
        entry_id=None if last is None else last.entry_id,
        before=before,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        missing_since=row.missing_since,
        seen_by=sources.seen.get((table, row.last_seen_at)),
        read_at=sources.read_at.get(_READ_BY.get(table, "")),
        protected_by=sources.protecting(facets, column),
    )


def _gave(line: HistoryLine, column: str | None) -> bool:
    if line.kind == "insert":
        return True
    if line.kind != "update":
        return column is None
    return column is None or column in msgspec.json.decode(line.after or "{}")


def _text_of(values: str, key: str) -> str | None:
    found = msgspec.json.decode(values)
    shown = found.get(key) if isinstance(found, dict) else None
    return None if shown is None else str(shown)


def _speaks_of(edit: LocalEdit, column: str) -> bool:
    """Tell whether a local change says anything about a column of the relation."""
    payload = msgspec.json.decode(edit.payload)
    match edit.operation:
        case "create_relation":
            return column == "email" or column in payload.get("profile", {})
        case "change_email":
            return column == "email"
        case "update_profile":
            return column in payload.get("new", {})
        case _:
            return False
