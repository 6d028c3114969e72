"""What the CRM said: the piece of an answer that each value of a relation stands on, when it came and by which pull.

Of a relation its own record is kept as it came, secrets taken out. Of a tag, a membership or a list nothing is kept but
that an answer showed it, or did not any more, and no answer tells free fields at all: that is said in words. A record
names a value the way the CRM spells it (``lastName``); what only differs in case and joints is the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from syncd.policy.facet_choice import COLUMNS, Choice
from syncd.store.explain import HistoryLine, LinkLine, LocalEdit, RunFound
from syncd.store.explain_find import RelationFound

_TABLES = {
    "tag": "relation_tags",
    "group": "group_members",
    "list": "list_subscriptions",
    "field": "relation_fields",
}
_AMONG = {"relation_tags": "the relation's tags", "group_members": "the group's members"}
_NEVER = "no answer that is known of has shown it"
_NO_RECORD = "(no more of that answer is kept)"
_NO_FIELDS = "no answer shows field values"
_YES = frozenset({"accepted", "verified"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the CRM last said of one value, or of the ``relation`` as a whole.

    ``record`` is the JSON text of what is kept of it, secrets taken out; None where ``words`` are all there is.
    ``received_at`` and ``run`` tell the latest answer that is known to have said so; ``entry_id``, instead of a run,
    that it was the answer to a delivery.
    """

    name: str
    facet: str | None
    words: str
    record: str | None = None
    received_at: datetime | None = None
    run: RunFound | None = None
    entry_id: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of the answers. ``seen`` are the pulls under way when a row of a table was last seen; ``called``
    are the names of facets that the mirror holds no row of."""

    relation: RelationFound
    links: Sequence[LinkLine]
    history: Sequence[HistoryLine]
    edits: Sequence[LocalEdit]
    runs: Mapping[int, RunFound]
    seen: Mapping[tuple[str, datetime], RunFound | None]
    called: Mapping[str, str]


def answers(heard: Heard, chosen: Choice | None) -> tuple[Answer, ...]:
    """Return what the CRM said of a relation and all it has, or of what was chosen of it."""
    links = tuple(_of_link(heard, link) for link in heard.links)
    if chosen is None:
        return (_of_record(heard), *links)
    columns = tuple(_of_column(heard, column) for column in COLUMNS if _is_chosen(column, chosen))
    there = {link.facet for link in heard.links}
    gone = [facet for facet in chosen.facets if facet.partition(":")[0] in _TABLES and facet not in there]
    return columns + links + tuple(_of_nothing(heard, facet) for facet in gone)


def _is_chosen(column: str, chosen: Choice) -> bool:
    if chosen.column is not None:
        return column == chosen.column
    return ("identity" if column == "email" else "profile") in chosen.facets


def _of_record(heard: Heard) -> Answer:
    relation = heard.relation
    if relation.answer is None:
        return _unread(heard, "relation", None)
    words = "its record" if relation.missing_since is None else "its last record; it is not shown any more"
    return Answer("relation", None, words, relation.answer, relation.last_seen_at, _reader(heard))


def _of_column(heard: Heard, column: str) -> Answer:
    facet, relation = "identity" if column == "email" else "profile", heard.relation
    if relation.answer is None:
        return _unread(heard, column, facet)
    said = msgspec.json.decode(relation.answer)
    pairs = said.items() if isinstance(said, dict) else ()
    piece = {key: value for key, value in pairs if _plain(key) == _plain(column)}
    words = "its record" if piece else "its record says nothing of it"
    record = msgspec.json.encode(piece).decode() if piece else None
    return Answer(column, facet, words, record, relation.last_seen_at, _reader(heard))


def _unread(heard: Heard, name: str, facet: str | None) -> Answer:
    """Return what is known of a relation whose own record no answer has shown."""
    last = _last(heard, "relations", None)
    if last is None:
        return Answer(name, facet, "no answer has shown this relation yet")
    words = "other records name this relation; its own has not been read, or is not kept"
    return Answer(name, facet, words, None, last.changed_at, _run(heard, last.run_id))


def _reader(heard: Heard) -> RunFound | None:
    """Return the pull that saw the relation last, else the one that last changed its row."""
    last = _last(heard, "relations", None)
    return heard.seen.get(("relations", heard.relation.last_seen_at)) or (last and _run(heard, last.run_id)) or None


def _of_link(heard: Heard, link: LinkLine) -> Answer:
    if link.table_name == "relation_fields":
        return _of_field(heard, link.name, link.facet)
    last, proof = _last(heard, link.table_name, _link_id(link.facet)), _proof(heard, link.facet)
    if link.missing_since is not None:
        run = _run(heard, last.run_id) if last is not None and last.kind == "missing" else None
        return Answer(link.name, link.facet, _gone(link.table_name), None, link.missing_since, run)
    seen = heard.seen.get((link.table_name, link.last_seen_at))
    words = f"shown {_where(link.table_name, link.value)} {_NO_RECORD}"
    if seen is not None and (last is not None or proof is not None):
        return Answer(link.name, link.facet, words, None, link.last_seen_at, seen)
    if proof is not None and (last is None or proof[0] > last.changed_at):
        return Answer(link.name, link.facet, words, None, proof[0], _run(heard, proof[1]))
    if last is not None:
        return Answer(link.name, link.facet, words, None, last.changed_at, _run(heard, last.run_id))
    return Answer(link.name, link.facet, _NEVER)


def _of_nothing(heard: Heard, facet: str) -> Answer:
    """Return what was said of a link that the mirror does not hold, or not any more."""
    kind, _, number = facet.partition(":")
    name = f"{kind}:{heard.called.get(facet, number)}"
    if kind == "field":
        return _of_field(heard, name, facet)
    table = _TABLES[kind]
    last, proof = _last(heard, table, _link_id(facet)), _proof(heard, facet)
    if proof is not None and (last is None or proof[0] > last.changed_at):
        return Answer(name, facet, _gone(table), None, proof[0], _run(heard, proof[1]))
    if last is None:
        return Answer(name, facet, _NEVER)
    words = _gone(table) if last.kind in ("delete", "missing") else "shown until it was removed here"
    return Answer(name, facet, words, None, last.changed_at, _run(heard, last.run_id))


def _of_field(heard: Heard, name: str, facet: str) -> Answer:
    """Return the yes to a delivery: that is all a CRM says of a field that it cannot be asked for."""
    agreed = [edit for edit in heard.edits if edit.facet == facet and edit.status in _YES]
    if not agreed:
        return Answer(name, facet, f"{_NO_FIELDS}, and no delivery that the CRM said yes to is known")
    last = agreed[-1]
    code = next((one.status_code for one in reversed(last.tries) if one.status_code is not None), None)
    told = "" if code is None else f" (answer {code})"
    words = f"{_NO_FIELDS}; the CRM said yes to it{told}"
    return Answer(name, facet, words, received_at=last.settled_at, entry_id=last.id)


def _where(table: str, value: str) -> str:
    return f"among {_AMONG[table]}" if table in _AMONG else f"as {value}"


def _gone(table: str) -> str:
    return f"not shown any more{f' {_where(table, str())}' if table in _AMONG else ''} {_NO_RECORD}"


def _last(heard: Heard, table: str, link_id: int | None) -> HistoryLine | None:
    """Return the last change of a row that a pull's answer brought."""
    return next(
        (
            line
            for line in reversed(heard.history)
            if line.table_name == table and line.link_id == link_id and line.origin == "remote" and line.run_id
        ),
        None,
    )


def _proof(heard: Heard, facet: str) -> tuple[datetime, int] | None:
    """Return when, and by which pull, the newest delivered change of a facet was shown."""
    for edit in reversed(heard.edits):
        if edit.facet == facet and edit.proved_at is not None and edit.proved_run_id is not None:
            return edit.proved_at, edit.proved_run_id
    return None


def _run(heard: Heard, run_id: int | None) -> RunFound | None:
    return None if run_id is None else heard.runs.get(run_id)


def _link_id(facet: str) -> int:
    return int(facet.partition(":")[2])


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()
