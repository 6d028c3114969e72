"""``syncd shapes`` and ``syncd shapes accept``: what is odd about the shape of the CRM's answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import click

from syncd.cli import session
from syncd.cli.deciding import actor_option
from syncd.cli.page import account_option, json_option, out, print_json, span, table
from syncd.clock import SystemClock
from syncd.domain.errors import UserError
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.accounts import chosen_accounts
from syncd.store.schema import require_current
from syncd.store.shapes import Odd, accept, list_odd


@click.group(name="shapes", invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--all", "with_accepted", is_flag=True, help="Also what was accepted.")
@click.option("--records", "with_records", is_flag=True, help="Show the offending records too: data of persons.")
@account_option
@json_option
@click.pass_context
def command(
    context: click.Context, with_accepted: bool, with_records: bool, account: str | None, as_json: bool
) -> None:
    """List the keys of the CRM's answers that syncd does not know, that are gone, or whose values are of another type.

    An unknown key is kept in raw; nothing is lost. A key that is gone from a whole answer keeps that stream from being
    written, until it is back or you accept that it is gone. A value of another type is kept in raw and left out of the
    columns, until a syncd that reads it has run `syncd reproject`.
    """
    if context.invoked_subcommand is not None:
        return
    settings = session.begin().settings
    found = session.run(lambda: _read(settings, account, with_accepted=with_accepted))
    found = found if with_records else tuple(replace(odd, record=None) for odd in found)
    if as_json:
        print_json(found)
    elif found:
        out().print(_table(found))
        for odd in found:
            if odd.record is not None:
                out().print(f"{odd.account} {odd.stream} {odd.key}: {odd.record}", markup=False)
    else:
        out().print("Every answer has the shape that syncd knows.")


@command.command(name="accept", short_help="Let a key be as it is now.")
@click.argument("stream")
@click.argument("key")
@account_option
@actor_option
@json_option
def accept_(stream: str, key: str, account: str | None, actor: str, as_json: bool) -> None:
    """Let a key of a stream be as it is now: gone for good, of another type, or unknown and of no use to you."""
    settings = session.begin().settings
    accounts = session.run(lambda: _accept(settings, stream, key, account, actor))
    if as_json:
        print_json({"stream": stream, "key": key, "accounts": accounts})
    else:
        out().print(f"accepted: {key} of {stream} ({', '.join(accounts)})")


async def _read(settings: Settings, account: str | None, *, with_accepted: bool) -> tuple[Odd, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            return await list_odd(connection, account=account, with_accepted=with_accepted)


async def _accept(settings: Settings, stream: str, key: str, account: str | None, actor: str) -> tuple[str, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            await chosen_accounts(connection, account)
            found = await accept(connection, stream, key, actor, account)
            if not found:
                raise UserError(f"nothing is odd about {key!r} of {stream!r}; `syncd shapes` shows what is")
            return found


def _table(found: tuple[Odd, ...]) -> object:
    now = SystemClock().now()
    rows = [
        [odd.account, odd.stream, odd.key or "(the answer)", odd.drift, ", ".join(odd.types), _age(odd, now)]
        for odd in found
    ]
    return table("Odd keys", ["account", "stream", "~key", "what", "types", "#since"], rows)


def _age(odd: Odd, now: datetime) -> object:
    return span((now - odd.noticed_at).total_seconds())
