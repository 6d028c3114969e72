"""``syncd pull``: pull streams once, now."""

from __future__ import annotations

import click

from syncd.cli import runs, session
from syncd.cli.page import account_option, json_option
from syncd.cli.progress import Shown
from syncd.domain.reports import RunReport
from syncd.service.accounts import AccountRuntime
from syncd.service.oneshot import opened_runtimes
from syncd.settings import AccountConfig, Settings


@click.command(name="pull")
@click.argument("streams", nargs=-1, metavar="[STREAM]...")
@account_option
@json_option
def command(streams: tuple[str, ...], account: str | None, as_json: bool) -> int:
    """Pull the named streams once, now; without names, all of them in the right order.

    Streams: administration, fields, tags, groups, lists, group_members, orders, invoices, invoice_details,
    invoice_files (into SYNCD_INVOICE_FILES), and the sweeps invoice_relations, relation_details, relation_tags,
    relation_subscriptions, relation_orders.
    """
    settings = session.begin().settings
    configs = session.accounts(settings, account)
    return runs.show(session.run(lambda: _pull(settings, configs, streams)), as_json=as_json)


async def _pull(settings: Settings, configs: tuple[AccountConfig, ...], streams: tuple[str, ...]) -> list[RunReport]:
    reports: list[RunReport] = []
    with Shown("pulling") as shown:
        async with opened_runtimes(settings, configs, shown) as runtimes:
            for runtime in runtimes:
                require_streams(runtime, streams)
                shown.expect(len(runtime.puller.order_of(streams)))
                reports += await _pull_account(runtime, streams)
    return reports


async def _pull_account(runtime: AccountRuntime, streams: tuple[str, ...]) -> list[RunReport]:
    if not streams:
        return list(await runtime.puller.pull_all("manual"))
    reports = []
    for stream in streams:
        reports.append(await runtime.puller.pull(stream, "manual"))
        if reports[-1].is_fault:
            break
    return reports


def names_of(text: str) -> tuple[str, ...]:
    """Return the names of a list that is written with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def require_streams(runtime: AccountRuntime, streams: tuple[str, ...]) -> None:
    """Raise UsageError for a stream that this account's provider does not have."""
    for stream in streams:
        if stream not in runtime.provider.streams:
            raise click.UsageError(
                f"{runtime.account.name} has no stream {stream!r}; there are: {', '.join(runtime.provider.streams)}"
            )
