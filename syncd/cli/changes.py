"""``syncd changes``: the change feed, one line a change, for programs that follow the mirror.

A line is flushed before the next batch is read, and holds the cursor that goes on after it: whoever keeps the last
cursor that they have dealt with misses nothing and gets nothing twice, whatever was killed in between.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from syncd.cli import session
from syncd.cli.page import plain
from syncd.clock import SystemClock
from syncd.domain.errors import InfrastructureError, UserError
from syncd.service.database import opened
from syncd.settings import Settings
from syncd.store import Store
from syncd.store.feed import FeedRow, read_feed
from syncd.store.schema import require_current

_BATCH, _PAUSE_S = 1000, 1.0


@click.command(name="changes")
@click.option("--since", metavar="CURSOR", help="Go on after this cursor; default: from the first change that is kept.")
@click.option("--follow", is_flag=True, help="Wait for more, until stopped; a database that is away is waited for.")
@click.option(
    "--bookmark",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the cursor in this file: begin after it, and write it there when a batch has been printed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each change as one line of JSON.")
def command(since: str | None, follow: bool, bookmark: Path | None, as_json: bool) -> None:
    """Print every change in the order in which it may be followed.

    Origins: remote (the CRM changed the mirror), edit (an application did), local (an edit reached the CRM). No change
    that commits late is skipped: one transaction that stays open holds back all that began after it.
    """
    settings = session.begin().settings
    cursor = since or _bookmarked(bookmark)
    session.run(
        lambda: _print_all(settings, cursor, bookmark, follow=follow, as_json=as_json),
        then="go on with --since and the last cursor",
    )


async def _print_all(
    settings: Settings, cursor: str | None, bookmark: Path | None, *, follow: bool, as_json: bool
) -> None:
    clock = SystemClock()
    async with opened(settings) as database:
        await require_current(database.store)
        while True:
            rows = await _next(database.store, cursor, is_patient=follow)
            _print(rows, as_json=as_json)
            if rows:
                cursor = rows[-1].cursor
                _keep(bookmark, cursor)
            elif not follow:
                return
            if len(rows) < _BATCH and follow:
                await clock.sleep(_PAUSE_S)


async def _next(store: Store, cursor: str | None, *, is_patient: bool) -> Sequence[FeedRow]:
    try:
        async with store.begin() as connection:
            return await read_feed(connection, cursor, _BATCH)
    except InfrastructureError:
        if not is_patient:
            raise
        return ()


def _print(rows: Sequence[FeedRow], *, as_json: bool) -> None:
    for row in rows:
        sys.stdout.write((msgspec.json.encode(plain(row)).decode() if as_json else _line(row)) + "\n")
    sys.stdout.flush()


def _line(row: FeedRow) -> str:
    which = f"{row.row_id}/{row.link_id}" if row.link_id is not None else str(row.row_id)
    by = f"run {row.run_id}" if row.run_id is not None else f"entry {row.entry_id}" if row.entry_id is not None else ""
    values = "" if row.after is None else bytes(row.after).decode()
    words = (row.cursor, f"{row.changed_at:%Y-%m-%dT%H:%M:%S%z}", row.origin, row.kind, f"{row.table_name} {which}", by)
    return "  ".join(word for word in (*words, values) if word)


def _bookmarked(bookmark: Path | None) -> str | None:
    if bookmark is None or not bookmark.exists():
        return None
    kept = bookmark.read_text().strip()
    if not kept:
        raise UserError(f"{bookmark} is empty: delete it to begin with the first change, or write a cursor into it")
    return kept


def _keep(bookmark: Path | None, cursor: str) -> None:
    """Replace the file as a whole: half a cursor would be another one."""
    if bookmark is not None:
        fresh = bookmark.with_name(bookmark.name + ".new")
        fresh.write_text(cursor + "\n")
        fresh.replace(bookmark)
