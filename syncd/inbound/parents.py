"""What a sweep's answers are written as: one function per stream, each for a few parents at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from msgspec import UNSET

from syncd.domain.records import Order, Refused, Row
from syncd.inbound.context import Context
from syncd.inbound.doubting import Misgivings, absence
from syncd.inbound.late import measure_late
from syncd.policy import witness
from syncd.providers.contract import Stream
from syncd.store import Connection, followup, readings, unread
from syncd.store.followup import Due
from syncd.store.mirror import (
    Scope,
    Written,
    absent_orders,
    erased,
    group_members,
    orders,
    proving,
    relation_tags,
    relations,
    subscriptions,
)
from syncd.store.mirror.membership import Pair
from syncd.store.mirror.scope import Gone, Seen
from syncd.store.mirror.touched import not_left

# Relations that only an invoice names, and only by address; and what answers with one relation or with none.
ADDRESSES = "invoice_relations"
SINGLE = frozenset({"relation_details", ADDRESSES})


@dataclass(frozen=True, slots=True)
class Shown:
    """What the CRM showed of one parent. ``is_absent``: it says that there is no such parent."""

    due: Due
    rows: tuple[Row[Any], ...] = ()
    warnings: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    is_absent: bool = False


async def write_group(
    context: Context, connection: Connection, scope: Scope, shown: Sequence[Shown], misgivings: Misgivings
) -> Written:
    """Write the members of groups. Raises Doubted when too many known members are gone from one."""
    written = Written()
    for group in shown:
        if group.is_absent:
            continue  # the snapshot of groups is what decides about a group
        pairs: list[Pair] = []
        for start in range(0, len(group.rows), context.policy.batch_rows):
            rows = group.rows[start : start + context.policy.batch_rows]
            counted, links = await group_members.write_relations(connection, scope, group.due.id, rows)
            written += counted
            pairs.extend(links)
        written += await _write_links(context, connection, scope, group, pairs, misgivings)
    return written


async def _write_links(
    context: Context,
    connection: Connection,
    scope: Scope,
    group: Shown,
    pairs: Sequence[Pair],
    misgivings: Misgivings,
) -> Written:
    """Write who belongs to a group. Counted is what changes: its relations have been counted as received already."""
    doubts = await group_members.prove(connection, scope, group.due.id, pairs, is_whole=not group.warnings)
    found = await group_members.difference(connection, scope, group.due.id, pairs)
    gone = group_members.lacking(found)
    if _is_refused(context, group, gone):
        gone = await not_left(connection, scope, gone, group.due.id)
    if _is_refused(context, group, gone):
        await misgivings.believe_absence(connection, absence(gone.known, len(gone.keys), len(group.rows)))
    if group.warnings:
        found = replace(found, gone=())  # a record that could not be read may be any of them
    links = await group_members.write_links(connection, scope, found)
    return replace(links, received=0, unchanged=0).warned(*group.warnings, *doubts)


def _is_refused(context: Context, group: Shown, gone: Gone) -> bool:
    rule = context.policy.member_witness
    return witness.judge(gone.known, len(gone.keys), len(group.rows), rule) is witness.Verdict.REFUSED


async def write_shown(
    context: Context, connection: Connection, scope: Scope, stream: Stream, shown: Sequence[Shown]
) -> Written:
    """Write the answers of a few relations; those that the CRM knows no more are noted as absent.

    Of those who were erased since they were asked for nothing is written.
    """
    hidden = await erased.of_keys(connection, scope, [answer.due.key for answer in shown])
    shown = [answer for answer in shown if answer.due.key not in hidden]
    there = [answer for answer in shown if not _is_nothing(stream, answer)]
    gone = [answer.due.id for answer in shown if _is_nothing(stream, answer)]
    written = await _write(context, connection, scope, stream, there) if there else Written()
    await readings.forget_absence(connection, scope, stream.name, [answer.due.id for answer in there])
    missing = 0
    if stream.name == "relation_details":
        missing = await followup.note_unknown_relations(connection, scope, stream.name, gone)
    warnings = [warning for answer in there for warning in answer.warnings]
    return (written + Written(missing=missing)).warned(*warnings)


def refused_of(shown: Sequence[Shown]) -> dict[int, tuple[Refused, ...]]:
    """Return what could not be read of each parent that was shown."""
    return {answer.due.id: answer.refused for answer in shown if not answer.is_absent}


def proves(stream: Stream, answer: Shown) -> bool:
    """Tell whether an answer, once written, proves its parent: it shows it, and all of it could be read. That nobody
    has an address is all there is to know of that."""
    return (stream.name == ADDRESSES or not _is_nothing(stream, answer)) and not answer.warnings


def is_about(stream: Stream, due: Due, rows: Sequence[Row[Any]]) -> bool:
    """Tell whether an answer speaks of what was asked for, where it says so itself: a relation has the address."""
    return stream.name != ADDRESSES or all(_same(row.record.email, due.key) for row in rows)


def _same(email: object, key: str) -> bool:
    return isinstance(email, str) and email.strip().casefold() == key.strip().casefold()


def _is_nothing(stream: Stream, answer: Shown) -> bool:
    """Tell whether the CRM said that there is no such relation: an error, or a single object that is null."""
    return answer.is_absent or (stream.name in SINGLE and not answer.rows)


async def _write(
    context: Context, connection: Connection, scope: Scope, stream: Stream, there: Sequence[Shown]
) -> Written:
    unsure = frozenset(answer.due.id for answer in there if answer.warnings)
    match stream.records:
        case "TagName":
            tags = {answer.due.id: answer.rows for answer in there}
            return await relation_tags.write(connection, scope, tags, unsure)
        case "Subscription":
            standings = {answer.due.id: answer.rows for answer in there}
            return await subscriptions.write(connection, scope, standings, unsure)
        case "Relation":
            return await relations.write(connection, scope, [row for answer in there for row in answer.rows])
        case "Order":
            rows = [_owned(row, answer.due.key) for answer in there for row in answer.rows]
            seen = Seen()
            written = await orders.write(connection, scope, orders.prepare(rows), seen)
            await absent_orders.forget_shown(connection, scope, seen.ids)
            whole = [answer.due.id for answer in there if answer.due.id not in unsure]
            shown = [row.record.remote_id for row in rows]
            written += await absent_orders.judge_lacking(connection, scope, whole, shown)
            await measure_late(context, connection, stream, seen)
            digests = unread.digests([one for answer in there for one in answer.refused])
            await unread.forget_shown(connection, scope, "orders", (*seen.ids, *seen.new), digests)
            return written.warned(*await proving.by_orders(connection, scope, seen))
        case _:
            raise ValueError(f"no sweep writes {stream.records}")


def _owned(row: Row[Order], relation_remote_id: str) -> Row[Order]:
    """Say whose order it is where the endpoint, asked for one relation's orders, does not."""
    if row.record.relation_remote_id is not UNSET:
        return row
    return Row(msgspec.structs.replace(row.record, relation_remote_id=relation_remote_id), row.raw, row.warnings)
