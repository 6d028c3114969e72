"""``syncd outbox pause|resume|prune``: what concerns an account's outbox as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import click

from syncd.cli import session
from syncd.cli.deciding import actor_option, reason_option
from syncd.cli.page import account_option, json_option, out, print_json
from syncd.cli.progress import Counted
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store.accounts import account_ids
from syncd.store.outbox import Pruned, pause_accounts, prune, resume_accounts
from syncd.store.schema import require_current


@click.command(name="pause", short_help="Send nothing and pull nothing until resume.")
@account_option
@actor_option
@reason_option
@json_option
def pause(account: str | None, actor: str, reason: str | None, as_json: bool) -> None:
    """Stop sending to the CRM and pulling from it; what is under way ends. Local edits are captured as ever.

    Every replica heeds it within a second or so; `syncd outbox resume` alone ends it.
    """
    settings = session.begin().settings
    _say("paused", session.run(lambda: _pause(settings, account, actor, reason)), as_json)


@click.command(name="resume", short_help="Go on after a pause.")
@account_option
@actor_option
@reason_option
@json_option
def resume(account: str | None, actor: str, reason: str | None, as_json: bool) -> None:
    """Go on, whoever paused the account; one whose credentials are still refused will be paused again."""
    settings = session.begin().settings
    _say("resumed", session.run(lambda: _resume(settings, account, actor, reason)), as_json)


@click.command(name="prune", short_help="Delete what was settled long ago.")
@account_option
@click.option(
    "--older-than", "days", metavar="DAYS", type=click.FloatRange(min=1), help="Default: SYNCD_KEEP_SENT_DAYS."
)
@json_option
def prune_(account: str | None, days: float | None, as_json: bool) -> None:
    """Delete delivered, superseded and skipped changes and their tries, once they are old enough.

    The daemon does it by itself. What is not delivered, or needed by something that is not, stays.
    """
    settings = session.begin().settings
    configured = {config.name: config.send.keep_sent_days for config in session.accounts(settings, account)}
    keep = configured if days is None else dict.fromkeys(configured, days)
    pruned = session.run(lambda: _prune(settings, keep))
    if as_json:
        print_json(pruned)
    for name, done in pruned.items() if not as_json else ():
        kept = f"what is older than {keep[name]:g} days" if keep[name] else "nothing: SYNCD_KEEP_SENT_DAYS is 0"
        out().print(f"{name}: deleted {kept}: {done.entries} changes, {done.attempts} tries")


COMMANDS = (pause, resume, prune_)


async def _pause(settings: Settings, account: str | None, actor: str, reason: str | None) -> tuple[str, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            return await pause_accounts(connection, account, actor=actor, reason=reason)


async def _resume(settings: Settings, account: str | None, actor: str, reason: str | None) -> tuple[str, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            return await resume_accounts(connection, account, actor=actor, reason=reason)


async def _prune(settings: Settings, keep: Mapping[str, float]) -> dict[str, Pruned]:
    """Prune each account to its age, batch by batch; Ctrl-C loses nothing."""
    done: dict[str, Pruned] = {}
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            known = await account_ids(connection)
        with Counted("pruning") as counted:
            for name, days in keep.items():
                done[name] = total = Pruned(0, 0, None)
                after: int | None = 0 if days and name in known else None
                while after is not None:
                    async with database.store.begin() as connection:
                        batch = await prune(connection, known[name], keep_days=days, after=after)
                    after = batch.after
                    done[name] = total = Pruned(total.entries + batch.entries, total.attempts + batch.attempts, None)
                    counted.add(batch.entries)
    return done


def _say(what: str, names: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json({what: names})
    else:
        out().print(f"{what}: {', '.join(names) or 'nothing'}")
