"""``syncd sandbox``: serve the simulated CRM until Ctrl-C."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from syncd.cli import session
from syncd.cli.page import out
from syncd.domain.errors import UserError
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
    with _port_told(port):
        session.run(lambda: serve(options, _tell), then="its world is gone, the next start makes it anew")


@contextmanager
def _port_told(port: int) -> Iterator[None]:
    """Say what to do about a port that is taken."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is taken" if error.errno == errno.EADDRINUSE else "is not yours to listen on"
        raise UserError(f"port {port} {why}; choose another with --port, or --port 0 for a free one") from error


def _tell(sandbox: Sandbox) -> None:
    """Print how to reach it: settings on standard output, so that they can be put into a file as they are."""
    out().print(
        f"SYNCD_BASE_URL={sandbox.base_url}\nSYNCD_AUTORESPOND_ADMIN={sandbox.admin}\nSYNCD_AUTORESPOND_KEY={sandbox.key}",
        soft_wrap=True,
    )
    sys.stdout.flush()
    print("The simulated CRM listens; Ctrl-C ends it.", file=sys.stderr)
