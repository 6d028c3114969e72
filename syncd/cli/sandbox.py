"""``syncd sandbox``: serve the simulated CRM until Ctrl-C."""

from __future__ import annotations

import sys

import click

from syncd.cli import session
from syncd.cli.page import out
from syncd.sandbox import Fault, Sandbox, SandboxOptions, Switches, serve


@click.command(name="sandbox")
@click.option("--port", default=8011, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--relations", default=50, show_default=True, type=click.IntRange(0), help="People in the world.")
@click.option("--orders", default=80, show_default=True, type=click.IntRange(0), help="Orders in the world.")
@click.option("--invoices", default=40, show_default=True, type=click.IntRange(0), help="Invoices in the world.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same world.")
@click.option(
    "--fault", "faults", multiple=True, metavar="KIND:NAME=VALUE,...", help="Something to go wrong; repeatable."
)
@click.option("--switch", "switches", multiple=True, metavar="NAME=VALUE", help="How it answers; repeatable.")
def command(
    port: int, relations: int, orders: int, invoices: int, seed: int, faults: tuple[str, ...], switches: tuple[str, ...]
) -> None:
    """Serve a simulated CRM on this machine, to try an integration on.

    It prints the three settings that point syncd to it. The world is made anew at each start, and nothing is kept.

    \b
    Examples:
      syncd sandbox --orders 5000
      syncd sandbox --fault status:operation=tag_add,status=503,times=3 --switch dates=dutch
    """
    chosen = tuple(Fault.parse(text) for text in faults)
    options = SandboxOptions(
        relations, orders, invoices, seed, port=port, faults=chosen, switches=Switches.parse(switches)
    )
    session.run(lambda: serve(options, _tell), then="its world is gone, the next start makes it anew")


def _tell(sandbox: Sandbox) -> None:
    """Print how to reach it: settings on standard output, so that they can be put into a file as they are."""
    out().print(
        f"SYNCD_BASE_URL={sandbox.base_url}\nSYNCD_AUTORESPOND_ADMIN={sandbox.admin}\nSYNCD_AUTORESPOND_KEY={sandbox.key}",
        soft_wrap=True,
    )
    sys.stdout.flush()
    print("The simulated CRM listens; Ctrl-C ends it.", file=sys.stderr)
