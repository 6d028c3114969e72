"""Snapshot: a small collection, read whole. Its known rows are the witnesses; rows it lacks are absent, not deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from syncd.domain.errors import MalformedAnswer
from syncd.domain.records import FreeField, Refused, Row
from syncd.inbound.context import Context
from syncd.inbound.doubting import absence, believe, believe_rewrite
from syncd.inbound.fetch import Fetched, Trouble, fetch
from syncd.inbound.window import claim_stream
from syncd.policy import witness
from syncd.policy.states import RunStatus
from syncd.policy.windows import corrected
from syncd.providers.contract import Stream, StreamArguments
from syncd.store import Connection, runs, unread
from syncd.store.mirror import Scope, Written, administration, ambiguous_tags, catalogue, proving
from syncd.store.mirror.catalogue import CATALOGUES, Catalogue
from syncd.store.mirror.touched import mark_missing
from syncd.store.runs import Ending, Run


async def pull_snapshot(context: Context, stream: Stream, run: Run) -> Ending | Trouble:
    """Pull a whole collection; the run is closed in the same transaction when it succeeds."""
    now = corrected(context.clock.now(), context.transport.clock_skew_s)
    async with AsyncExitStack() as stack:
        fetched = await fetch(context, stream, StreamArguments(now=now), stack)
        if isinstance(fetched, Trouble):
            return fetched
        whole = await asyncio.to_thread(read_whole, context, stream, fetched)
        context.drift.believe()
        rows, warnings = whole.rows, whole.warnings
        async with context.store.begin_remote() as connection:
            await claim_stream(connection, run)
            scope = context.scope(run)
            if stream.records == "Administration":
                written = await _write_administration(connection, scope, rows)
            else:
                kind = CATALOGUES[stream.records]
                written = await _write_catalogue(context, connection, run, scope, kind, rows, is_whole=not warnings)
                await believe_rewrite(context, connection, scope, run, written, absent=written.missing)
            await unread.keep_only(connection, scope, stream.name, whole.refused)
            await context.drift.write(connection, run)
            ending = Ending(RunStatus.SUCCEEDED, written.warned(*warnings), fetched.requests)
            await runs.finish(connection, run, ending)
            context.progressed(stream.name, len(rows), fetched.size_bytes)
            return ending


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole answer, decoded. ``refused`` are the records that cannot be read."""

    rows: list[Row[Any]]
    warnings: tuple[str, ...]
    refused: tuple[Refused, ...]


def read_whole(context: Context, stream: Stream, fetched: Fetched) -> Whole:
    """Decode a whole answer that is small enough to hold."""
    decoded = [context.drift.watch(batch) for response in fetched.responses for batch in stream.decode(response)]
    return Whole(
        [row for batch in decoded for row in batch.rows],
        tuple(warning for batch in decoded for warning in batch.warnings),
        tuple(record for batch in decoded for record in batch.refused),
    )


async def _write_administration(connection: Connection, scope: Scope, rows: Sequence[Row[Any]]) -> Written:
    if not rows:
        raise MalformedAnswer("the answer names no administration")
    return await administration.write(connection, scope, rows[-1])


async def _write_catalogue(
    context: Context,
    connection: Connection,
    run: Run,
    scope: Scope,
    kind: Catalogue,
    rows: Sequence[Row[Any]],
    *,
    is_whole: bool,
) -> Written:
    """Write a whole collection. A record that could not be read may be any of those that are lacking: not absent.

    Raises Doubted when too many are gone. A person who says that they are has confirmed it: there is no second time.
    """
    known = await catalogue.contents(connection, scope, kind)
    gone = known.lacking({row.record.remote_id for row in rows})
    lost, rule = len(gone.keys), context.policy.snapshot_witness
    is_doubtful = witness.judge(gone.known, lost, len(rows), rule) is witness.Verdict.REFUSED
    if is_doubtful:
        await believe(connection, run, absence(gone.known, lost, len(rows)))
    written = await catalogue.write(connection, scope, kind, known, rows)
    missing = 0
    if is_doubtful and is_whole:
        ids = [known.rows[key]["id"] for key in gone.keys]
        missing = await mark_missing(connection, scope, kind.table, ids)
    elif is_whole:
        missing = await catalogue.mark_absent(connection, scope, kind, known, gone.keys)
    if kind.table == "tags":
        await ambiguous_tags.tell(connection, scope.account_id)
    fields = [row.record for row in rows if isinstance(row.record, FreeField)]
    doubts = await proving.by_fields(connection, scope, fields, is_whole=is_whole) if fields else ()
    return written + Written(missing=missing, warnings=doubts)
