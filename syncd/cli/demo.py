"""``syncd demo``: the whole circle, shown."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="demo")
@click.option("--once", is_flag=True, help="Prove both sides equal and exit: 0 if they are, 1 if not.")
@click.option("--relations", default=60, show_default=True, type=click.IntRange(10), help="People in the world.")
@click.option("--orders", default=150, show_default=True, type=click.IntRange(0), help="Orders in the world.")
@click.option("--invoices", default=90, show_default=True, type=click.IntRange(0), help="Invoices in the world.")
@click.option("--seed", default=7, show_default=True, help="The same seed makes the same world.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Home of the embedded Postgres.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(
    once: bool, relations: int, orders: int, invoices: int, seed: int, data_dir: Path | None, as_json: bool
) -> int:
    """Show the whole circle with real parts: Postgres, the daemon, and a simulated CRM that has a bad day.

    Needs no settings and touches none of your data.
    """
    from syncd import log
    from syncd.cli import session
    from syncd.demo import DemoOptions, run_demo

    log.configure(json=None, level="warning")
    options = DemoOptions(once, relations, orders, invoices, seed, data_dir, as_json)
    return session.run(lambda: run_demo(options), then="nothing is left running, the next demo begins anew")
