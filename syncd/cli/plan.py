"""``syncd plan``: what would be sent now, and why the rest waits. Sends, moves and claims nothing."""

from __future__ import annotations

from pathlib import Path

import click

from syncd.cli import session
from syncd.cli.page import account_option, json_option, out, print_json
from syncd.cli.plan_page import show_plan
from syncd.cli.progress import Shown
from syncd.clock import SystemClock
from syncd.outbound.plan_file import FiledPlan, save_plan
from syncd.outbound.planned import Plan
from syncd.outbound.planning import Planner, Wish
from syncd.service.accounts import drain_limits
from syncd.service.oneshot import opened_runtimes
from syncd.settings import AccountConfig, Settings


@click.command(name="plan")
@click.option("--email", help="Only this relation.")
@click.option("--read", "with_remote", is_flag=True, help="Ask the CRM what it has now: safe reads, at your rate.")
@click.option(
    "--most", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Show, and read, so many relations."
)
@click.option(
    "--save", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write the whole plan, for `syncd apply`."
)
@account_option
@json_option
def command(
    email: str | None, with_remote: bool, most: int, path: Path | None, account: str | None, as_json: bool
) -> int:
    """Show what a drain would send now, call by call, and why the rest waits. Nothing is sent, moved or claimed.

    Edits that are not staged yet are included. The totals are exact, however many relations are shown.

    \b
    Examples:
      syncd plan --email jan@example.com --read
      syncd plan --save today.plan && syncd apply today.plan
    """
    settings = session.begin().settings
    configs = session.accounts(settings, account)
    if path is not None and len(configs) > 1:
        raise click.UsageError("a plan file is of one account; name it with --account")
    wish = Wish(email, most, with_remote, path is not None)
    made = session.run(lambda: _plans(settings, configs, wish), then="nothing was sent")
    if path is not None:
        save_plan(made[0][1], path)
    plans = [plan for plan, _ in made]
    if as_json:
        print_json(plans)
    else:
        for plan in plans:
            show_plan(plan)
        if path is not None:
            number = len(made[0][1].lanes)
            noun = "relation" if number == 1 else "relations"
            out().print(f"\nSaved {number} {noun} to {path}; the file holds addresses.", markup=False)
    return 0


async def _plans(settings: Settings, configs: tuple[AccountConfig, ...], wish: Wish) -> list[tuple[Plan, FiledPlan]]:
    made = []
    with Shown("planning") as shown:
        async with opened_runtimes(settings, configs, shown) as runtimes:
            for runtime in runtimes:
                planner = Planner(
                    runtime.store,
                    runtime.provider,
                    runtime.transport,
                    SystemClock(),
                    runtime.account,
                    drain_limits(runtime.config),
                )
                made.append(await planner.plan(wish))
    return made
