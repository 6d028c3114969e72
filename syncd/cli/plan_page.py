"""How a plan looks: what is added green, what changes yellow, what is taken away red; the counts at the foot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.cli.page import BAD, GOOD, QUIET, WARN, out, span, table
from syncd.outbound.planned import EntryMark, Plan, PlannedCall, PlannedLane, PlannedValue, PlannedWait
from syncd.store.outbox_foresee import ForeseenHold

# Of one relation this many calls, and this many waits, are shown on a page; --json has more.
_CALLS, _WAITS = 12, 8
_INDENT, _GAP, _NARROWEST, _WIDEST = "  ", 2, 8, 30
_SIGNS = {"add": ("+", GOOD), "update": ("~", WARN), "remove": ("-", BAD), None: ("?", QUIET)}


def show_plan(plan: Plan) -> None:
    """Print one account's plan: what is sent and what waits under each relation, then the calls, then the sums."""
    console = out()
    for line in _warnings(plan):
        console.print(line)
    if plan.lanes:
        console.print(Text(f"Plan for {plan.account}", style="bold"))
        _show_lanes(console, plan)
    if plan.totals.calls:
        counts = sorted(plan.totals.by_call.values(), key=lambda count: -count.number)
        calls = [[count.number, count.call, f"{count.verb} {count.path}", _effect(count.effect)] for count in counts]
        console.print("", table("Calls", ["#number", "call", "~request", "~if repeated"], calls), sep="\n")
    console.print(*([""] if plan.lanes else []), *_foot(plan), sep="\n")


def _show_lanes(console: Console, plan: Plan) -> None:
    """One grid for all relations, each under a line of its own, so that an address of any length finds room."""
    heads = ["change", "agreed", "local", *(["CRM"] if plan.is_read else []), "call", "entries"]
    rows = [list(_calls(lane, plan.is_read)) for lane in plan.lanes]
    widths = _widths(heads, [row for part in rows for row in part], console.width - len(_INDENT))
    waits = [[_waiting(wait) for wait in lane.waits[:_WAITS]] for lane in plan.lanes]
    first = min(_WIDEST, max([widths[0], *(cells[0].cell_len for part in waits for cells in part)]))
    if any(rows):
        console.print(_grid([[Text(head, style="bold") for head in heads]], widths))
    for lane, part, waiting in zip(plan.lanes, rows, waits, strict=True):
        console.print(_whose(lane))
        if part:
            console.print(_grid(part, widths))
        if waiting:
            console.print(_grid(waiting, [first, console.width - len(_INDENT) - _GAP - first]))
        more = lane.more_waits + max(0, len(lane.waits) - _WAITS)
        if more:
            console.print(Text(f"{_INDENT}and {more} more that wait", style=QUIET))


def _grid(rows: Sequence[Sequence[Text]], widths: Sequence[int]) -> Padding:
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    for width in widths:
        made.add_column(width=width, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return Padding(made, (0, 0, 0, len(_INDENT)))


def _widths(heads: Sequence[str], rows: Sequence[Sequence[Text]], room: int) -> list[int]:
    """Give each column what it needs; where that is too much, take it from the widest of the values until all fit."""
    needed = [max([len(head), *(row[n].cell_len for row in rows)]) for n, head in enumerate(heads)]
    spare = room - _GAP * (len(heads) - 1)
    values = range(len(heads) - 2)
    while sum(needed) > spare and max(needed[n] for n in values) > _NARROWEST:
        needed[max(values, key=lambda n: needed[n])] -= 1
    return needed


def _warnings(plan: Plan) -> Iterator[Text]:
    if plan.paused is not None:
        yield Text(f"{plan.account} is paused ({plan.paused}): nothing is sent before it is resumed.", style=BAD)
    if plan.breaker != "closed":
        yield Text(f"{plan.account}: too many deliveries failed in a row; it is left alone for now.", style=WARN)
    if plan.throttled_s > 0:
        yield Text(f"{plan.account}: the CRM asked to be left alone for {span(plan.throttled_s)} more.", style=WARN)
    if plan.would_be_held is not None:
        yield Text(f"{plan.account}: {_foreseen(plan.would_be_held)}", style=WARN)
    for trouble in plan.suspended:
        yield Text(f"{plan.account}: {trouble}", style=WARN)
    if plan.reading is not None:
        yield Text(f"{plan.account}: not all could be read: {plan.reading}", style=WARN)


def _foreseen(held: ForeseenHold) -> str:
    """Say what a drain would do with a mass change that is captured and not staged yet."""
    changes = f"{_number(held.changes)} {'change' if held.changes == 1 else 'changes'}"
    relations = f"{_number(held.relations)} {'relation' if held.relations == 1 else 'relations'}"
    why = f"{held.reason}, and up to {_number(held.limit)} go unasked"
    joined = "" if held.hold_id is None else f" They join hold {held.hold_id}."
    return f"{changes} of {relations} will be held, not sent, until a person approves: {why}.{joined}"


def _calls(lane: PlannedLane, is_read: bool) -> Iterator[list[Text]]:
    """One row per value; the call and its entries stand on the first row of each."""
    for call in lane.calls[:_CALLS]:
        for number, value in enumerate(call.values):
            remote = [_remote(value)] if is_read else []
            last = [Text(call.call), _entries(call)] if number == 0 else [Text(), Text()]
            yield [_change(call.turn, value), _value(value.base), _value(value.local), *remote, *last]
    more = lane.more_calls + max(0, len(lane.calls) - _CALLS)
    if more:
        yield [Text(f"and {more} more", style=QUIET), *(Text() for _ in range(5 if is_read else 4))]


def _waiting(wait: PlannedWait) -> list[Text]:
    """What, and why it is not sent."""
    value = wait.values[0] if wait.values else PlannedValue(wait.operation, None, None)
    change = _change(wait.turn, value) + Text("" if not wait.values else _towards(wait), style=QUIET)
    return [change, Text(f"{_named(wait.entry)} {_why(wait)}", style=_colour(wait))]


def _whose(lane: PlannedLane) -> Text:
    if lane.relation_id is None:
        return Text("the account", style="bold")
    named = Text(lane.email or f"relation {lane.relation_id}", style="bold")
    if any(call.operation == "create_relation" for call in lane.calls):
        named += Text(" (new)", style=GOOD)
    return named if lane.sender is None else named + Text(" (being sent now)", style=WARN)


def _change(turn: str | None, value: PlannedValue) -> Text:
    sign, colour = _SIGNS[turn]
    return Text(f"{sign} {value.name}", style=colour)


def _towards(wait: PlannedWait) -> str:
    value = wait.values[0]
    more = f" and {len(wait.values) - 1} more" if len(wait.values) > 1 else ""
    return f" = {value.local}{more}" if value.local not in (None, "yes", "no") else more


def _value(value: str | None) -> Text:
    return Text("-", style=QUIET) if value is None else Text(value if value else "''")


def _remote(value: PlannedValue) -> Text:
    """The CRM's value: quiet where it is the last agreed one, loud where both sides have moved."""
    if not value.is_read:
        return Text("?", style=QUIET)
    if value.remote == value.base:
        return Text(value.remote or "-", style=QUIET)
    return Text(value.remote or "-", style=GOOD if value.remote == value.local else BAD)


def _entries(call: PlannedCall) -> Text:
    """Which entry carries the call, and which others are folded into it."""
    carried = Text(_mark(call.carries))
    if call.supersedes:
        numbers = [str(mark.entry) for mark in call.supersedes[:3] if mark.entry is not None]
        rest = len(call.supersedes) - len(numbers)
        folded = [*numbers, *([f"{rest} more" if numbers else f"{rest} earlier"] if rest else [])]
        carried += Text(f" with {', '.join(folded)}", style=QUIET)
    if call.is_in_doubt:
        carried += Text(" read back first", style=WARN)
    return carried


def _mark(mark: EntryMark) -> str:
    return f"{mark.entry}" if mark.entry is not None else "new"


def _named(mark: EntryMark) -> str:
    return f"entry {mark.entry}" if mark.entry is not None else "the new edit"


def _why(wait: PlannedWait) -> str:
    error = f": {wait.error}" if wait.error else ""
    match wait.why:
        case "back_off":
            tries = f" ({wait.attempts} {'try' if wait.attempts == 1 else 'tries'}{error})" if wait.attempts else ""
            return f"backs off until {_time(wait)}{tries}"
        case "held":
            return "is held" if wait.hold_id is None else f"is held by hold {wait.hold_id}: approve or reject it"
        case "landing":
            return f"waits until {_time(wait)}: an earlier call that was in doubt may still land"
        case "address":
            whom = "another change" if wait.awaits is None else _named(wait.awaits)
            return f"waits for {whom}: until then another relation has the address in the CRM"
        case "behind":
            return "waits its turn" if wait.behind is None else f"waits behind {_named(wait.behind)}"
        case "refused":
            return f"will be refused unsent{error}"
        case "parked":
            return f"is parked, nobody can tell whether it was applied: retry or skip it{error}"
        case "dead":
            return f"is dead: retry or skip it{error}"
        case _:
            return f"is {wait.why}: the CRM shows something else{error}"


def _time(wait: PlannedWait) -> str:
    return "later" if wait.until is None else f"{wait.until.astimezone():%H:%M:%S}"


def _colour(wait: PlannedWait) -> str:
    return BAD if wait.why in ("dead", "parked", "refused") else WARN


def _effect(effect: str) -> Text:
    if effect == "repeat_safe":
        return Text("harmless", style=QUIET)
    return Text("done twice, so never repeated unread", style=WARN)


def _foot(plan: Plan) -> Iterator[Text]:
    totals = plan.totals
    if plan.more_lanes:
        yield Text(f"and {_number(plan.more_lanes)} more relations; --most shows more, --save writes all.", style=QUIET)
    if not totals.calls:
        empty = not totals.waiting
        yield Text(f"{plan.account}: nothing to send{'' if empty else ' now'}.", style=GOOD if empty else "")
    else:
        yield _sums(plan)
    if totals.waiting:
        reasons = ", ".join(f"{_number(n)} {_REASONS.get(why, why)}" for why, n in sorted(totals.by_reason.items()))
        yield Text(f"{_number(totals.waiting)} {'change waits' if totals.waiting == 1 else 'changes wait'}: {reasons}.")

    if totals.reassertions:
        noun = "value is" if totals.reassertions == 1 else "values are"
        told = f"{_number(totals.reassertions)} {noun} said once more by the drain: an earlier try may still land."
        yield Text(told, style=QUIET)


_REASONS = {
    "back_off": "backing off",
    "address": "for an address that another relation has yet",
    "behind": "behind another",
    "landing": "until a call in doubt cannot land any more",
    "refused": "to be refused unsent",
}


def _sums(plan: Plan) -> Text:
    totals = plan.totals
    line = Text(f"{_number(totals.relations)} {'relation' if totals.relations == 1 else 'relations'}, ")
    line += Text(f"{_number(totals.calls)} {'call' if totals.calls == 1 else 'calls'}", style="bold")
    line += Text(" (") + Text(f"+{_number(totals.added)}", style=GOOD) + Text(" ")
    line += Text(f"~{_number(totals.updated)}", style=WARN) + Text(" ")
    line += Text(f"-{_number(totals.removed)}", style=BAD) + Text(")")
    if totals.superseded:
        edits = "edit" if totals.superseded == 1 else "edits"
        line += Text(f", {_number(totals.superseded)} more {edits} folded in")
    if totals.captured:
        line += Text(f", {_number(totals.captured)} not staged yet")
    if plan.estimated_s is not None:
        least = "about a second" if plan.estimated_s < 2 else f"at least {span(plan.estimated_s)}"
        line += Text(f"; {least} at {plan.rate_per_s:g} requests/s")
    return line + Text(".")


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")
