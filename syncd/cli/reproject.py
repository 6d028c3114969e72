"""``syncd reproject``: read again what is kept of the CRM's words, with the decoder of now."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.text import Text

from syncd.cli import session
from syncd.cli.ending import FAILED, OK, TRY_LATER
from syncd.cli.page import WARN, account_option, json_option, out, print_json, table
from syncd.cli.progress import Shown
from syncd.cli.pull import names_of, require_streams
from syncd.inbound import ORDER
from syncd.inbound.reproject import Reprojected, Reprojector
from syncd.service.accounts import pull_policy
from syncd.service.oneshot import opened_runtimes
from syncd.settings import AccountConfig, Settings

_COLUMNS = ["account", "stream", "#looked at", "#changed", "#newly read", "#still unread", "#doubtful", "#held"]


@click.command(name="reproject")
@click.option("--streams", metavar="NAME,...", default="", help="Only these streams; default: all.")
@account_option
@json_option
def command(streams: str, account: str | None, as_json: bool) -> int:
    """Read again every record that is kept of the CRM's answers, as this syncd reads them, and write what changes.

    For after an upgrade that reads what an older syncd could not. The CRM is not asked. Edits that are not delivered
    stay as they are; what changes is in the history with the origin "reproject". It may run beside the daemon and be
    stopped at any time: the same command goes on. Run again, it changes nothing.

    Exit codes: 0 all is read, 1 some records still cannot be read, 75 rows were held by an application: run it again.
    """
    settings = session.begin().settings
    configs = session.accounts(settings, account)
    names = names_of(streams)
    found = session.run(lambda: _reproject(settings, configs, names))
    if as_json:
        print_json(found)
    else:
        _show(found)
    return exit_code(found)


async def _reproject(
    settings: Settings, configs: tuple[AccountConfig, ...], names: tuple[str, ...]
) -> list[Reprojected]:
    found: list[Reprojected] = []
    with Shown("reading again") as shown:
        async with opened_runtimes(settings, configs, shown) as runtimes:
            for runtime in runtimes:
                require_streams(runtime, names)
                chosen = [name for name in ORDER if name in runtime.provider.streams and name in (names or ORDER)]
                shown.expect(len(chosen))
                reprojector = Reprojector(
                    runtime.store,
                    runtime.provider,
                    runtime.account,
                    owners=pull_policy(runtime.config).owners,
                    on_progress=shown.progressed,
                )
                for name in chosen:
                    found.append(await reprojector.reproject(runtime.provider.streams[name]))
                    shown.step(f"{runtime.account.name} {name}")
    return found


def exit_code(found: Sequence[Reprojected]) -> int:
    """0 when nothing is left, 75 when only rows that somebody held are, else 1."""
    if any(one.unread for one in found):
        return FAILED
    return TRY_LATER if any(one.deferred for one in found) else OK


def _show(found: Sequence[Reprojected]) -> None:
    told = [one for one in found if one.looked or one.read or one.unread]
    if not told:
        out().print("Nothing is kept that could be read again.")
        return
    rows = [
        [one.account, one.stream, one.looked, one.changed, one.read, one.unread, one.doubtful, one.deferred]
        for one in told
    ]
    out().print(table("Read again", _COLUMNS, rows))
    for one in told:
        for reason in one.reasons:
            out().print(Text(f"{one.account} {one.stream}: still unread: {reason}", style=WARN))
