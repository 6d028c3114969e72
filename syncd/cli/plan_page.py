"""How a plan looks: what is added green, what changes yellow, what is taken away red; the counts at the foot."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from syncd.cli.page import BAD, GOOD, QUIET, WARN, out, span, table
from syncd.outbound.planned import EntryMark, Plan, PlannedCall, PlannedLane, PlannedValue, PlannedWait

# Of one relation this many calls, and this many waits, are shown on a page; --json has more.
_CALLS, _WAITS = 12, 8
_SIGNS = {"add": ("+", GOOD), "update": ("~", WARN), "remove": ("-", BAD), None: ("?", QUIET)}


def show_plan(plan: Plan) -> None:
    """Print one account's plan."""
    console = out()
    for line in _warnings(plan):
        console.print(line)
    if plan.totals.calls:
        columns = ["~relation", "~change", "~agreed", "~local", *(["~CRM"] if plan.is_read else []), "call", "~entries"]
        title = f"Plan for {plan.account}"
        console.print(table(title, columns, (row for lane in plan.lanes for row in _calls(lane, plan.is_read))))
    if plan.totals.waiting:
        rows = [row for lane in plan.lanes for row in _waits(lane)]
        if rows:
            console.print("" if plan.totals.calls else None, table("Waiting", ["~relation", "~change", "~why"], rows))
    if plan.totals.calls:
        counts = sorted(plan.totals.by_call.values(), key=lambda count: -count.number)
        calls = [[count.number, count.call, f"{count.verb} {count.path}", _effect(count.effect)] for count in counts]
        console.print("", table("Calls", ["#number", "call", "~request", "~if repeated"], calls), sep="\n")
    console.print("" if plan.totals.calls or plan.totals.waiting else None, *_foot(plan), sep="\n")


def _warnings(plan: Plan) -> Iterator[Text]:
    if plan.paused is not None:
        yield Text(f"{plan.account} is paused ({plan.paused}): nothing is sent before it is resumed.", style=BAD)
    if plan.breaker != "closed":
        yield Text(f"{plan.account}: too many deliveries failed in a row; it is left alone for now.", style=WARN)
    if plan.throttled_s > 0:
        yield Text(f"{plan.account}: the CRM asked to be left alone for {span(plan.throttled_s)} more.", style=WARN)
    if plan.reading is not None:
        yield Text(f"{plan.account}: not all could be read: {plan.reading}", style=WARN)


def _calls(lane: PlannedLane, is_read: bool) -> Iterator[list[object]]:
    """One row per value; who, which call and which entries stand on the first row of each."""
    whose: object = _whose(lane)
    for call in lane.calls[:_CALLS]:
        for number, value in enumerate(call.values):
            first = number == 0
            remote = [_remote(value)] if is_read else []
            change = _change(call.turn if first or call.turn != "add" else "add", value)
            ids = _entries(call) if first else ""
            yield [whose, change, _value(value.base), _value(value.local), *remote, call.call if first else "", ids]
            whose = ""
    more = lane.more_calls + max(0, len(lane.calls) - _CALLS)
    if more:
        blanks = ["" for _ in range(5 if is_read else 4)]
        yield ["", Text(f"and {more} more calls", style=QUIET), *blanks]


def _waits(lane: PlannedLane) -> Iterator[list[object]]:
    whose: object = _whose(lane)
    for wait in lane.waits[:_WAITS]:
        value = wait.values[0] if wait.values else PlannedValue(wait.operation, None, None)
        change = _change(wait.turn, value) + Text("" if not wait.values else _towards(wait), style=QUIET)
        yield [whose, change, Text(f"{_mark(wait.entry)} {_why(wait)}", style=_colour(wait))]
        whose = ""
    more = lane.more_waits + max(0, len(lane.waits) - _WAITS)
    if more:
        yield ["", Text(f"and {more} more", style=QUIET), ""]


def _whose(lane: PlannedLane) -> Text:
    if lane.relation_id is None:
        return Text("the account", style="bold")
    named = Text(lane.email or f"relation {lane.relation_id}", style="bold")
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
    carried = Text(_mark(call.carries))
    if call.supersedes:
        shown = ", ".join(map(_mark, call.supersedes[:3]))
        more = f" and {len(call.supersedes) - 3} more" if len(call.supersedes) > 3 else ""
        carried += Text(f" for {shown}{more} too", style=QUIET)
    if call.is_in_doubt:
        carried += Text(" read back first", style=WARN)
    return carried


def _mark(mark: EntryMark) -> str:
    return f"{mark.entry}" if mark.entry is not None else "new"


def _why(wait: PlannedWait) -> str:
    error = f": {wait.error}" if wait.error else ""
    match wait.why:
        case "back_off":
            tries = f" ({wait.attempts} {'try' if wait.attempts == 1 else 'tries'}{error})" if wait.attempts else ""
            return f"backs off until {wait.until.astimezone():%H:%M:%S}{tries}" if wait.until else "backs off"
        case "held":
            return "is held" if wait.hold_id is None else f"is held by hold {wait.hold_id}: approve or reject it"
        case "behind":
            return "waits its turn" if wait.behind is None else f"waits behind entry {_mark(wait.behind)}"
        case "refused":
            return f"will be refused unsent{error}"
        case "parked":
            return f"is parked, nobody can tell whether it was applied: retry or skip it{error}"
        case "dead":
            return f"is dead: retry or skip it{error}"
        case _:
            return f"is {wait.why}: the CRM shows something else{error}"


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


_REASONS = {"back_off": "backing off", "behind": "behind another", "refused": "to be refused unsent"}


def _sums(plan: Plan) -> Text:
    totals = plan.totals
    line = Text(f"{_number(totals.relations)} {'relation' if totals.relations == 1 else 'relations'}, ")
    line += Text(f"{_number(totals.calls)} {'call' if totals.calls == 1 else 'calls'}", style="bold")
    line += Text(" (") + Text(f"+{_number(totals.added)}", style=GOOD) + Text(" ")
    line += Text(f"~{_number(totals.updated)}", style=WARN) + Text(" ")
    line += Text(f"-{_number(totals.removed)}", style=BAD) + Text(")")
    if totals.superseded:
        line += Text(f", {_number(totals.superseded)} more edits folded into them")
    if totals.captured:
        line += Text(f", {_number(totals.captured)} not staged yet")
    if plan.estimated_s is not None:
        line += Text(f"; at least {span(plan.estimated_s)} at {plan.rate_per_s:g} requests/s")
    return line + Text(".")


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")
