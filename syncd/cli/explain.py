"""``syncd explain``: how a relation's values came to be what they are, on both sides. Reads the database alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.outbox import ENTRY_ID
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, table
from syncd.cli.timeline import Event, time_of, timeline, window_of
from syncd.domain.errors import UserError
from syncd.policy.facet_choice import Choice, NamedFacet, Unclear, choose
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.accounts import chosen_accounts
from syncd.store.engine import Connection
from syncd.store.explain import LocalEdit, read_edit, read_runs
from syncd.store.explain_answer import Answer
from syncd.store.explain_find import (
    RelationFound,
    find_by_former_address,
    find_entry,
    find_relations,
    named_facets,
    near_addresses,
)
from syncd.store.explain_story import MirroredValue, Story, read_story
from syncd.store.outbox_plan import snapshot
from syncd.store.schema import require_current

_COLOURS = {"edit": WARN, "settled": GOOD, "proof": GOOD, "conflict": BAD, "hold": WARN, "entry": QUIET, "pull": "cyan"}
_MOST_SHOWN = 400
_BAD_ENDS = frozenset({"dead", "parked", "diverged"})

account_option = click.option("--account", metavar="NAME", help="Only this account, where several know the address.")
most_option = click.option(
    "--most", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Only so many edits and changes."
)


@dataclass(frozen=True, slots=True)
class Told:
    """What is printed: of a relation its story, of one entry its edits, and either as a timeline. ``former_address`` is
    what the relation was asked for by, where it has that address no more."""

    relation: RelationFound | None
    story: Story | None
    edits: tuple[LocalEdit, ...]
    timeline: tuple[Event, ...]
    former_address: str | None = None


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
    """Show a relation's values, what the CRM said of them, and everything that led to them, in order of time.

    EMAIL may be an address that it had before and that nobody has now, and a local or a remote id as well (id:12 and
    remote:12 leave no doubt). FACET narrows it: a column such as last_name, or tag:VIP, field:CODE, group:TITLE,
    list:NAME; as stored (tag:5, profile, identity) it works too.

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
            await chosen_accounts(connection, account)
            relation, former = await _find(connection, key, account)
            named = await named_facets(connection, relation.account_id)
            chosen = None if facet is None else _chosen(choose(facet, named))
            story = await read_story(connection, relation, chosen, most=most, called=_called(named))
    runs = {run.id: run for run in story.runs}
    events = timeline(story.edits, story.history, story.conflicts, runs, _called(named))
    return Told(relation, story, story.edits, events, former)


async def _entry(settings: Settings, entry_id: int) -> Told:
    async with opened(settings) as database:
        await require_current(database.store)
        async with snapshot(database.store) as connection:
            found = await find_entry(connection, entry_id)
            if found is None:
                raise UserError(f"there is no entry {entry_id}; `syncd outbox list` shows what there is")
            relation_id, account_id, _ = found
            edits = await read_edit(connection, entry_id)
            named = await named_facets(connection, account_id)
            relations = () if relation_id is None else await find_relations(connection, f"id:{relation_id}", None)
            runs = await read_runs(connection, [edit.proved_run_id for edit in edits if edit.proved_run_id is not None])
    return Told(relations[0] if relations else None, None, edits, timeline(edits, (), (), runs, _called(named)))


async def _find(connection: Connection, key: str, account: str | None) -> tuple[RelationFound, str | None]:
    """Return the one relation that is meant, and the key if it is an address that the relation had and has no more.

    Raises UsageError, which hides no address, with what there is.
    """
    found = await find_relations(connection, key, account)
    if len(found) == 1:
        return found[0], None
    if found:
        which = ", ".join(f"id:{one.id} (account {one.account}, CRM {one.remote_id or 'none'})" for one in found)
        raise click.UsageError(f"{len(found)} relations may be meant by {key!r}: {which}; name one, or --account")
    former = await find_by_former_address(connection, key, account) if "@" in key else ()
    if len(former) == 1:
        return former[0], key
    if former:
        which = ", ".join(f"id:{one.id} ({one.email or 'no address'} now, account {one.account})" for one in former)
        raise click.UsageError(f"nobody has {key!r} any more; {len(former)} relations had it: {which}; name one")
    near = await near_addresses(connection, key, account)
    advice = f"; did you mean {' or '.join(near)}?" if near else ""
    raise click.UsageError(f"the mirror has no relation {key!r}{advice}")


def _chosen(choice: Choice | Unclear) -> Choice:
    if isinstance(choice, Unclear):
        raise click.UsageError(choice.reason)
    return choice


def _called(named: Sequence[NamedFacet]) -> Mapping[str, str]:
    return {each.stored: each.name or str(each.id) for each in named}


def _print(told: Told, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    console = out()
    if told.relation is not None:
        _head(told.relation, told.former_address)
    if told.story is not None:
        _values(told.story)
        _answers(told.story)
    if not told.timeline:
        console.print(Text("Nothing is known to have happened to it.", style=QUIET))
        return
    rows = [
        [event.at, Text(event.what, style=_colour(event, told.edits)), event.words, Text(event.told, style=QUIET)]
        for event in told.timeline
        if event.what != "entry"
    ]
    console.print(table("What happened", ["when", "what", "~", "~how"], rows))
    for edit in told.edits:
        if (waits := _waiting(edit)) is not None:
            console.print(Text(waits, style=BAD if edit.status in _BAD_ENDS else WARN))


def _head(relation: RelationFound, former_address: str | None) -> None:
    console = out()
    name = " ".join(filter(None, (relation.first_name, relation.suffix, relation.last_name)))
    head = Text(relation.email or "no e-mail address", style="bold")
    where = f"relation {relation.id}, CRM {relation.remote_id or 'not yet'}, account {relation.account}"
    console.print(head + Text(f"  {name}  {where}" if name else f"  {where}", style=QUIET))
    if former_address is not None:
        now = relation.email or "none"
        console.print(Text(f"{former_address} is an address that it had before; it has {now} now.", style=WARN))
    if relation.missing_since is not None:
        console.print(Text(f"missing in the CRM since {time_of(relation.missing_since)}", style=BAD))
    console.print()


def _values(story: Story) -> None:
    """Every value that is there; of a relation as a whole, what nobody ever said is left out."""
    console = out()
    for reading in story.readings:
        if reading.absent_since is not None:
            console.print(Text(f"{reading.stream}: absent since {time_of(reading.absent_since)}\n", style=WARN))
    values = [value for value in story.values if story.chosen is not None or value.value is not None]
    if values:
        columns = ["", "~now", "~comes from", "since", "~last read"]
        console.print(table("Values", columns, map(_row, values)))
        if any(value.protected_by for value in values):
            console.print(Text("No pull overwrites a value whose edit waits here.", style=QUIET))
        console.print()


def _answers(story: Story) -> None:
    """What the CRM said of each, when, and which pull heard it: what the values above are to be held against."""
    if not story.answers:
        return
    rows = [
        [answer.name, _said(answer), time_of(answer.received_at) if answer.received_at else "-", _by(answer)]
        for answer in story.answers
    ]
    out().print(table("What the CRM said", ["", "~answer", "last heard", "~by"], rows))
    out().print()


def _said(answer: Answer) -> str:
    if answer.record is None:
        return answer.words
    cut = answer.record if len(answer.record) <= _MOST_SHOWN else f"{answer.record[:_MOST_SHOWN]}... (cut; --json: all)"
    return f"{answer.words}: {cut}"


def _by(answer: Answer) -> str:
    if answer.run is not None:
        return window_of(answer.run)
    if answer.entry_id is not None:
        return f"its answer to entry {answer.entry_id}"
    return "-" if answer.received_at is None else "a pull that is not kept any more"


def _row(value: MirroredValue) -> list[object]:
    now = Text("-" if value.value is None else value.value or "''")
    if value.missing_since is not None:
        now += Text(" (not shown any more)", style=BAD)
    by = value.seen_by if value.seen_by is not None and value.seen_by != value.run else None
    last = time_of(value.read_at or value.last_seen_at) + (f", run {by.id}" if by is not None else "")
    return [value.name, now, _source(value), time_of(value.changed_at or value.first_seen_at), last]


def _source(value: MirroredValue) -> Text:
    if value.protected_by:
        return Text(f"made here, {', '.join(value.protected_by)} waits", style=WARN)
    was = f"was {value.before}; " if value.before is not None else ""
    match value.origin:
        case "remote":
            return Text(was + (window_of(value.run) or "a pull that is not kept any more"))
        case "local":
            return Text(f"{was}made here, entry {value.entry_id}")
        case "reproject":
            return Text(f"{was}read again from what the CRM had said (syncd reproject)")
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
            return f"Entry {edit.id} is not sent yet; syncd plan says what it waits for."
        case "held":
            return f"Entry {edit.id} is held; syncd outbox approve or reject decides."
        case "dead" | "parked" | "diverged":
            return f"Entry {edit.id} is {edit.status} and waits for you; syncd outbox retry or skip decides."
        case _:
            return None
