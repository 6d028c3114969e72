"""``syncd migrate``: create or upgrade the tables."""

from __future__ import annotations

import click

from syncd.cli import session
from syncd.cli.page import json_option, out, print_json
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.grants import Granted, grant_script
from syncd.store.migrate import Upgraded, upgrade


@click.command(name="migrate")
@click.option(
    "--print-grants", is_flag=True, help="Print the SQL that makes the roles, for an administrator; change nothing."
)
@json_option
def command(print_grants: bool, as_json: bool) -> None:
    """Create the tables, or upgrade them to this version of syncd.

    Safe to run at any time and from several machines at once; it does nothing when the tables are current.
    """
    if print_grants:
        click.echo(grant_script(), nl=False)
        return
    settings = session.begin().settings
    done = session.run(lambda: _upgrade(settings))
    if as_json:
        print_json({"before": done.before, "after": done.after, "grants": done.grants.value})
    else:
        _tell(done)


async def _upgrade(settings: Settings) -> Upgraded:
    async with opened(settings) as database:
        return await upgrade(database.store)


def _tell(done: Upgraded) -> None:
    console = out()
    if done.has_moved:
        console.print(f"The schema moved from {done.before or 'nothing'} to {done.after}.")
    else:
        console.print(f"The schema is current ({done.after}); nothing was changed.")
    if done.grants is Granted.LEFT_TO_ADMINISTRATOR:
        console.print("The roles are left to an administrator: give them the output of `syncd migrate --print-grants`.")
