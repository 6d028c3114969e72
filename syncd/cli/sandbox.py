"""``syncd sandbox``: serve the simulated CRM until Ctrl-C."""

from __future__ import annotations

import click


@click.command(name="sandbox")
@click.option("--port", default=8790, show_default=True, help="Port on this machine; 0 takes a free one.")
@click.option("--relations", default=200, show_default=True, help="People in the seeded world.")
@click.option("--orders", default=500, show_default=True, help="Orders in the seeded world.")
@click.option("--invoices", default=400, show_default=True, help="Invoices in the seeded world.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same world.")
def command(port: int, relations: int, orders: int, invoices: int, seed: int) -> None:
    """Serve a simulated CRM on this machine, to try an integration on.

    It prints its address, its administration number and its key; give these to syncd as SYNCD_BASE_URL,
    SYNCD_AUTORESPOND_ADMIN and SYNCD_AUTORESPOND_KEY. Nothing is kept: the world is made anew at each start.
    """
    raise NotImplementedError
