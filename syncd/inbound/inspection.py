"""Inspection: watch a pull write its answers, and say of each row how it stood.

It is the audit's eye inside the ordinary pipeline: the pull reads, judges, merges and writes as it always does, with
all its guards, and mends what drifted; nothing here writes to the mirror or the CRM. (One exception, which nobody
reads: an order whose columns are not what the CRM said loses the digest that says they are.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncd.domain.audits import Verdict
from syncd.domain.records import Row
from syncd.inbound.parents import Shown, proves
from syncd.policy.auditing import judge
from syncd.policy.diff import diff
from syncd.providers.contract import Stream
from syncd.store import Connection, inspecting
from syncd.store.audit import note_audit
from syncd.store.followup import Due
from syncd.store.inspecting import HeldOrder
from syncd.store.mirror import Scope, orders
from syncd.store.mirror.normal import digest
from syncd.store.mirror.relations import COLUMNS
from syncd.store.mirror.undelivered import undelivered

_NEWS = frozenset({"insert", "update", "missing", "found"})


@dataclass(frozen=True, slots=True)
class Before:
    """What the mirror held before an answer was written: what the CRM had said of it, by row."""

    said: dict[int, bytes | None] = field(default_factory=dict)
    orders: tuple[HeldOrder, ...] = ()


@dataclass(slots=True)
class Inspection:
    """One round over one kind. ``due`` is what to ask for; ``may_go_on`` is asked before each call."""

    kind: str
    due: Sequence[Due]
    may_go_on: Callable[[], Awaitable[bool]]
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    asked: set[int] = field(default_factory=set)
    judged: set[int] = field(default_factory=set)

    async def admits(self, due: Due) -> bool:
        """Tell whether this row may be asked for now; remember that it is."""
        if not await self.may_go_on():
            return False
        self.asked.add(due.id)
        return True

    async def look(self, connection: Connection, shown: Sequence[Shown]) -> Before:
        """See what the mirror holds, before the answers are written."""
        ids = [answer.due.id for answer in shown]
        match self.kind:
            case "relations":
                rows = await inspecting.relation_rows(connection, ids)
                return Before({row_id: row["content_hash"] for row_id, row in rows.items()})
            case "orders":
                held = await inspecting.orders_of(connection, ids)
                await inspecting.distrust(connection, held)
                return Before(orders=held)
            case _:
                return Before()

    async def judge(
        self, connection: Connection, scope: Scope, stream: Stream, shown: Sequence[Shown], before: Before
    ) -> Sequence[int]:
        """Say how the rows stood, now that their answers are written. Return the parents that are proven by them."""
        there = [answer for answer in shown if proves(stream, answer)]
        found: Counter[Verdict] = Counter()
        match self.kind:
            case "relations":
                proven = await self._relations(connection, scope, there, before, found)
            case "relation_tags":
                proven = await self._tags(connection, scope, there, found)
            case "relation_subscriptions":
                proven = await self._subscriptions(connection, scope, there, found)
            case "orders":
                proven = await self._orders(connection, stream, shown, before, found)
            case _:
                proven = []
        if self.kind != "orders":
            found[Verdict.VANISHED] += sum(1 for answer in shown if answer.is_absent or _is_null(stream, answer))
        self.judged |= {answer.due.id for answer in shown if not answer.warnings}
        await self._note(connection, scope, found)
        return proven

    async def judge_detail(
        self, connection: Connection, scope: Scope, invoice_id: int, *, is_said_before: bool
    ) -> None:
        """Say how an invoice's detail stood, now that its answer is written."""
        changed = {one.row_id for one in await inspecting.changed_now(connection, "invoices")}
        verdict = judge(
            is_changed=invoice_id in changed, is_said_before=is_said_before, is_equal=True, is_waiting=False
        )
        self.judged.add(invoice_id)
        await self._note(connection, scope, Counter([verdict]))

    async def vanished(self, connection: Connection, scope: Scope, row_id: int) -> None:
        """Note that the CRM knows a row no more."""
        self.judged.add(row_id)
        await self._note(connection, scope, Counter([Verdict.VANISHED]))

    async def close(self, connection: Connection, scope: Scope) -> None:
        """Count what was asked for and brought no answer that was written."""
        unread = self.asked - self.judged
        number = await inspecting.count_orders(connection, unread) if self.kind == "orders" else len(unread)
        await self._note(connection, scope, Counter({Verdict.UNREAD: number}))

    async def _note(self, connection: Connection, scope: Scope, found: Counter[Verdict]) -> None:
        self.verdicts += found
        await note_audit(connection, scope.account_id, self.kind, found)

    async def _relations(
        self,
        connection: Connection,
        scope: Scope,
        there: Sequence[Shown],
        before: Before,
        found: Counter[Verdict],
    ) -> list[int]:
        ids = [answer.due.id for answer in there]
        changed = {one.row_id for one in await inspecting.changed_now(connection, "relations") if one.kind in _NEWS}
        now = await inspecting.relation_rows(connection, ids)
        waiting = await _waiting(connection, scope, "relations", ids)
        proven = []
        for answer in there:
            row_id, record = answer.due.id, answer.rows[-1].record
            difference = diff(now[row_id], {name: getattr(record, name) for name in COLUMNS})
            verdict = judge(
                is_changed=row_id in changed,
                is_said_before=before.said.get(row_id) == digest(record),
                is_equal=not difference,
                is_waiting=row_id in waiting,
            )
            found[verdict] += 1
            proven += [row_id] if verdict is not Verdict.UNREAD else []
        return proven

    async def _tags(
        self, connection: Connection, scope: Scope, there: Sequence[Shown], found: Counter[Verdict]
    ) -> list[int]:
        said = {answer.due.id: {_folded(row) for row in answer.rows} for answer in there}
        held = await inspecting.tag_names(connection, list(said))
        unknowable = await inspecting.ambiguous_tag_names(connection, scope)
        equal = {row_id for row_id, names in said.items() if names - unknowable <= held[row_id] <= names}
        return await self._links(connection, scope, "relation_tags", list(said), equal, found)

    async def _subscriptions(
        self, connection: Connection, scope: Scope, there: Sequence[Shown], found: Counter[Verdict]
    ) -> list[int]:
        said = {
            answer.due.id: {row.record.list_remote_id: (row.record.status, row.record.event_at) for row in answer.rows}
            for answer in there
        }
        held = await inspecting.list_standings(connection, list(said))
        doubtful = await inspecting.doubtful_standings(connection, list(said))
        equal = {row_id for row_id, standings in said.items() if standings.items() <= held[row_id].items()} - doubtful
        proven = await self._links(connection, scope, "list_subscriptions", list(said), equal, found)
        return [row_id for row_id in proven if row_id not in doubtful]

    async def _links(
        self,
        connection: Connection,
        scope: Scope,
        table: str,
        ids: Sequence[int],
        equal: set[int],
        found: Counter[Verdict],
    ) -> list[int]:
        changed = [one for one in await inspecting.changed_now(connection, table) if one.kind in _NEWS]
        moved = {one.row_id for one in changed}
        wrong = await inspecting.invented_links(connection, scope, table, changed)
        waiting = await _waiting(connection, scope, table, ids)
        proven = []
        for row_id in ids:
            verdict = judge(
                is_changed=row_id in moved,
                is_said_before=row_id in wrong,
                is_equal=row_id in equal,
                is_waiting=row_id in waiting,
            )
            found[verdict] += 1
            proven += [row_id] if verdict is not Verdict.UNREAD else []
        return proven

    async def _orders(
        self,
        connection: Connection,
        stream: Stream,
        shown: Sequence[Shown],
        before: Before,
        found: Counter[Verdict],
    ) -> list[int]:
        """Judge each order of these relations: those shown, and those that the mirror held and the CRM did not show."""
        there = [answer for answer in shown if proves(stream, answer)]
        rows = {row.record.remote_id: row.record for answer in there for row in answer.rows}
        changed = await inspecting.changed_now(connection, "orders")
        updated = {one.row_id for one in changed if one.kind in ("update", "found")}
        known = {order.remote_id: order for order in before.orders}
        read, gone = {answer.due.id for answer in there}, {answer.due.id for answer in shown if answer.is_absent}
        lacking = {order.relation_id for order in before.orders if order.remote_id not in rows}
        for remote_id, record in rows.items():
            order = known.get(remote_id)
            if order is None:
                found[Verdict.LATE] += 1
                continue
            is_said = not order.is_true and orders.hash_of(record)[:16] == order.said
            found[judge(is_changed=order.id in updated, is_said_before=is_said, is_equal=True, is_waiting=False)] += 1
        found[Verdict.VANISHED] += sum(
            1 for order in before.orders if order.relation_id in read | gone and order.remote_id not in rows
        )
        return [row_id for row_id in read if row_id not in lacking]


async def _waiting(connection: Connection, scope: Scope, table: str, ids: Sequence[int]) -> frozenset[int]:
    local = await undelivered(connection, scope, ids)
    return frozenset(local) | await inspecting.in_conflict(connection, table, ids)


def _is_null(stream: Stream, answer: Shown) -> bool:
    return stream.name == "relation_details" and not answer.rows and not answer.is_absent


def _folded(row: Row[Any]) -> str:
    return str(row.record.name).strip().casefold()
