"""``syncd apply``: send exactly what a plan file names, or say what has moved."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.ending import FAILED, OK, TRY_LATER
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, table
from syncd.cli.progress import Shown
from syncd.clock import SystemClock
from syncd.domain.errors import UserError
from syncd.outbound.applying import Applied, AppliedLane, Applier, Fate
from syncd.outbound.plan_file import FiledPlan, load_plan
from syncd.service.accounts import AccountRuntime, drain_limits
from syncd.service.oneshot import opened_runtimes
from syncd.service.stopping import StopSignal
from syncd.settings import AccountConfig, Settings

# On a page; --json has all.
_SHOWN = 100
_COLOURS = {Fate.SENT: GOOD, Fate.REFUSED: WARN, Fate.FAILED: BAD, Fate.WAITS: QUIET}


@click.command(name="apply")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def command(file: Path, as_json: bool) -> int:
    """Send exactly the calls of a plan that `syncd plan --save` wrote, or refuse what has moved since.

    A relation whose edits, address or remote id are not as they were planned is left as it is, with the reason; edits
    that came later are left for the drain. May run beside the daemon.

    Exits 0 when all was sent, 1 when something was refused or failed, 75 when something waits (a pause, a throttle).
    """
    settings = session.begin().settings
    plan = load_plan(file)
    config = _config(settings, plan)
    result = session.run(lambda: _apply(settings, config, plan))
    if as_json:
        print_json(result)
    else:
        _show(result, plan)
    return _exit_code(result)


def _config(settings: Settings, plan: FiledPlan) -> AccountConfig:
    """Return the plan's own account. Raises UserError when there is none of its name and CRM."""
    found = [config for config in session.accounts(settings) if config.name == plan.account]
    if not found:
        raise UserError(f"the plan is of account {plan.account!r}, which is not configured here")
    if found[0].provider != plan.provider:
        raise UserError(
            f"the plan is for {plan.provider}, and account {plan.account!r} is configured for {found[0].provider}"
        )
    return found[0]


async def _apply(settings: Settings, config: AccountConfig, plan: FiledPlan) -> Applied:
    with Shown("applying") as shown:
        async with opened_runtimes(settings, (config,), shown) as runtimes, StopSignal() as stop:
            shown.expect(sum(len(lane.entries) for lane in plan.lanes))
            result = await _applier(runtimes[0], shown).apply(plan, stop.event)
    if stop.number is not None:
        raise session.Stopped(stop.number)
    return result


def _applier(runtime: AccountRuntime, shown: Shown) -> Applier:
    limits = drain_limits(runtime.config)
    store, provider, transport = runtime.store, runtime.provider, runtime.transport
    return Applier(store, provider, transport, SystemClock(), runtime.account, limits, shown.delivery)


def _exit_code(result: Applied) -> int:
    if result.count(Fate.WAITS):
        return TRY_LATER
    return FAILED if result.count(Fate.REFUSED) or result.count(Fate.FAILED) else OK


def _show(result: Applied, plan: FiledPlan) -> None:
    console = out()
    rest = [lane for lane in result.lanes if lane.fate is not Fate.SENT]
    if rest:
        console.print(table("Not sent", ["", "~relation", "#sent", "~why"], map(_row, rest[:_SHOWN])))
        if len(rest) > _SHOWN:
            console.print(Text(f"and {len(rest) - _SHOWN} more; --json lists all.", style=QUIET))
        console.print()
    sent, planned = sum(lane.sent for lane in result.lanes), sum(lane.planned for lane in result.lanes)
    counts = [f"{result.count(fate)} {fate.value}" for fate in Fate if result.count(fate)]
    words = f"{plan.account}: {sent} of {planned} planned calls sent in {result.elapsed_s:.1f} s"
    told = f" (relations: {', '.join(counts)})" if rest else ""
    console.print(Text(f"{words}{told}.", style=BAD if rest else GOOD))


def _row(lane: AppliedLane) -> list[object]:
    whose = lane.email or ("the account" if lane.relation_id is None else f"relation {lane.relation_id}")
    return [Text(lane.fate.value, style=_COLOURS[lane.fate]), whose, f"{lane.sent}/{lane.planned}", lane.reason or ""]
