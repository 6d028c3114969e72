"""``syncd explain``: how a relation's values came to be what they are, on both sides. Reads the database alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.outbox import ENTRY_ID
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, table
from syncd.cli.timeline import Event, timeline, window_of
from syncd.domain.errors import UserError
from syncd.policy.facet_choice import Choice, Unclear, choose
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.engine import Connection
from syncd.store.explain import LocalEdit, read_edit
from syncd.store.explain_find import (
    RelationFound,
    find_entry,
    find_relations,
    named_facets,
    near_addresses,
)
from syncd.store.explain_story import MirroredValue, Story, read_story
from syncd.store.outbox_plan import snapshot
from syncd.store.schema import require_current

_COLOURS = {"edit": WARN, "settled": GOOD, "proof": GOOD, "conflict": BAD, "hold": WARN, "entry": QUIET, "pull": "cyan"}
_BAD_ENDS = frozenset({"dead", "parked", "diverged"})

account_option = click.option("--account", metavar="NAME", help="Only this account, where several know the address.")
most_option = click.option(
    "--most", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Only so many edits and changes."
)


@dataclass(frozen=True, slots=True)
class Told:
    """What is printed: the story where there is a relation, the edits where there is none, and both as a timeline."""

    story: Story | None
    edits: tuple[LocalEdit, ...]
    timeline: tuple[Event, ...]


@click.group(name="explain")
def command() -> None:
    """Show where a value comes from and what became of a change."""


@command.command(name="relation", short_help="Values of a relation, and how they came to be.")
@click.argument("relation", metavar="EMAIL")
@click.argument("facet", required=False)
@account_option
@most_option
@json_option
def relation_(relation: str, facet: str | None, account: str | None, most: int, as_json: bool) -> None:
    """Show a relation's values, and everything that led to them, in order of time.

    EMAIL may be a local id or a remote id as well (id:12 and remote:12 leave no doubt). FACET narrows it: a column such
    as last_name, or tag:VIP, field:CODE, group:TITLE, list:NAME; as stored (tag:5, profile, identity) it works too.

    \b
    Examples:
      syncd explain relation jan@example.com
      syncd explain relation jan@example.com tag:VIP
    """
    settings = session.begin().settings
    told = session.run(lambda: _relation(settings, relation, facet, account, most))
    _print(told, as_json)


@command.command(name="entry", short_help="One change of the outbox, from edit to proof.")
@click.argument("entry_id", type=ENTRY_ID)
@json_option
def entry(entry_id: int, as_json: bool) -> None:
    """Show one change of the outbox from its transaction to its proof, with those that it superseded."""
    settings = session.begin().settings
    _print(session.run(lambda: _entry(settings, entry_id)), as_json)


async def _relation(settings: Settings, key: str, facet: str | None, account: str | None, most: int) -> Told:
    async with opened(settings) as database:
        await require_current(database.store)
        async with snapshot(database.store) as connection:
            relation = await _find(connection, key, account)
            named = await named_facets(connection, relation.account_id)
            chosen = None if facet is None else _chosen(choose(facet, named))
            story = await read_story(connection, relation, chosen, most=most)
    return _told(story, story.edits, {each.stored: each.name or str(each.id) for each in named})


async def _entry(settings: Settings, entry_id: int) -> Told:
    async with opened(settings) as database:
        await require_current(database.store)
        async with snapshot(database.store) as connection:
            found = await find_entry(connection, entry_id)
            if found is None:
                raise UserError(f"there is no entry {entry_id}; `syncd outbox list` shows what there is")
            relation_id, account_id, facet = found
            edits = await read_edit(connection, entry_id)
            named = await named_facets(connection, account_id)
            relations = () if relation_id is None else await find_relations(connection, f"id:{relation_id}", None)
            story = await read_story(connection, relations[0], Choice((facet,)), most=1) if relations else None
    return _told(story, edits, {each.stored: each.name or str(each.id) for each in named})


async def _find(connection: Connection, key: str, account: str | None) -> RelationFound:
    """Return the one relation that is meant. Raises UserError with what there is to choose from."""
    found = await find_relations(connection, key, account)
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(f"id:{one.id} (account {one.account}, CRM {one.remote_id or 'none'})" for one in found)
        raise UserError(f"{len(found)} relations are meant by {key!r}: {which}; name one of them, or --account")
    near = await near_addresses(connection, key, account)
    advice = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"the mirror has no relation {key!r}{advice}")


def _chosen(choice: Choice | Unclear) -> Choice:
    if isinstance(choice, Unclear):
        raise UserError(choice.reason)
    return choice


def _told(story: Story | None, edits: tuple[LocalEdit, ...], called: Mapping[str, str]) -> Told:
    if story is None:
        return Told(None, edits, timeline(edits, (), (), {}, called))
    runs = {run.id: run for run in story.runs}
    return Told(story, edits, timeline(edits, story.history, story.conflicts, runs, called))


def _print(told: Told, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    console = out()
    if told.story is not None:
        _head(told.story)
        values = [_row(value) for value in told.story.values]
        if values:
            columns = ["", "~now", "~comes from", "~since", "~seen"]
            console.print(table("Values", columns, values), "", sep="\n")
    if not told.timeline:
        console.print(Text("Nothing is known to have happened to it.", style=QUIET))
        return
    rows = [
        [event.at, Text(event.what, style=_colour(event, told.edits)), event.words, Text(event.told, style=QUIET)]
        for event in told.timeline
    ]
    console.print(table("What happened", ["when", "", "~what", "~how"], rows))
    for edit in told.edits:
        if (waits := _waiting(edit)) is not None:
            console.print(Text(waits, style=BAD if edit.status in _BAD_ENDS else WARN))


def _head(story: Story) -> None:
    relation, console = story.relation, out()
    name = " ".join(filter(None, (relation.first_name, relation.suffix, relation.last_name)))
    head = Text(relation.email or "no e-mail address", style="bold")
    where = f"relation {relation.id}, CRM {relation.remote_id or 'not yet'}, account {relation.account}"
    console.print(head + Text(f"  {name}  {where}" if name else f"  {where}", style=QUIET))
    if relation.missing_since is not None:
        console.print(Text(f"missing in the CRM since {relation.missing_since.astimezone():%Y-%m-%d %H:%M}", style=BAD))
    for reading in story.readings:
        if reading.absent_since is not None:
            console.print(Text(f"{reading.stream}: absent since {reading.absent_since.astimezone():%Y-%m-%d %H:%M}"))
    console.print()


def _row(value: MirroredValue) -> list[object]:
    now = Text("-" if value.value is None else value.value or "''")
    if value.missing_since is not None:
        now += Text(" (not shown any more)", style=BAD)
    if value.protected_by:
        now += Text(f" protected by {', '.join(value.protected_by)}", style=WARN)
    seen = window_of(value.seen_by) if value.seen_by is not None else ""
    last = value.read_at or value.last_seen_at
    stamp = f"{last.astimezone():%Y-%m-%d %H:%M:%S}"
    return [value.name, now, _source(value), value.changed_at or value.first_seen_at, f"{stamp} {seen}".strip()]


def _source(value: MirroredValue) -> Text:
    was = f"was {value.before}; " if value.before is not None else ""
    match value.origin:
        case "remote":
            return Text(was + (window_of(value.run) or "a pull that is not kept any more"))
        case "local":
            return Text(f"{was}made here, entry {value.entry_id}")
        case _ if value.protected_by:
            return Text("made here, not delivered yet", style=WARN)
        case _ if value.value is None:
            return Text("never said", style=QUIET)
        case _:
            return Text("older than the history", style=QUIET)


def _colour(event: Event, edits: tuple[LocalEdit, ...]) -> str:
    ended = {edit.id for edit in edits if edit.status in _BAD_ENDS}
    return BAD if event.what == "settled" and event.entry in ended else _COLOURS.get(event.what, "")


def _waiting(edit: LocalEdit) -> str | None:
    match edit.status:
        case "captured":
            return f"An edit of {edit.operation} is captured and not staged yet."
        case "pending" if edit.next_attempt_at is not None:
            return f"Entry {edit.id} waits for its next try at {edit.next_attempt_at.astimezone():%H:%M:%S}."
        case "pending":
            return f"Entry {edit.id} waits to be sent."
        case "held":
            return f"Entry {edit.id} is held; syncd outbox approve or reject decides."
        case "dead" | "parked" | "diverged":
            return f"Entry {edit.id} is {edit.status} and waits for you; syncd outbox retry or skip decides."
        case _:
            return None
