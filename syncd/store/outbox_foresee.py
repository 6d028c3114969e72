"""Foresee: what of the captured changes will the guard hold when they are staged?

A plan folds what is captured as if it were sent; a mass change is not, before a person has seen it. Told here is what
``outbox_guard`` would do if all captures were staged now, by the same rules, counts and words, and without writing
anything. It may be too much by what is staged or decided a moment later, and it holds nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.policy.guard import Change, Guard, crowded, too_large
from syncd.store.engine import Connection
from syncd.store.outbox_guard import (
    APPROVED,
    BOTTOM,
    EVENTS,
    SLACK,
    crowd_words,
    relations_of,
    transaction_words,
)
from syncd.store.outbox_hold import find_open


@dataclass(frozen=True, slots=True)
class ForeseenHold:
    """``changes`` of so many ``relations`` would be held, because of more than ``limit``; ``reason`` is the hold's own.

    ``hold_id`` is the open hold that they would join; None: one would be opened.
    """

    changes: int
    relations: int
    limit: int
    reason: str
    hold_id: int | None = None


_NEVER = datetime(9999, 1, 1, tzinfo=UTC)

# What carries the number of a transaction that is held already follows its hold without being counted.
_SPAN = text(
    """
    SELECT min(c.captured_at) AS first_at, (SELECT coalesce(max(id), 0) FROM syncd.entries) AS last_id
    FROM syncd.captures c WHERE c.account_id = :account_id AND c.relation_id IS NOT NULL
    """
)
_FOLLOWING = text(
    """
    SELECT c.relation_id, count(*) AS changes
    FROM syncd.holds h JOIN syncd.captures c ON c.account_id = h.account_id AND c.xact = ANY (h.xacts)
    WHERE h.account_id = :account_id AND h.status = 'open' GROUP BY c.relation_id
    """
)
_COUNT = text(EVENTS + "SELECT count(DISTINCT relation_id) FROM events")
_TRANSACTIONS = text(
    EVENTS
    + """SELECT CAST(xact AS text) AS xact, count(DISTINCT relation_id) AS relations
         FROM events GROUP BY events.xact HAVING count(DISTINCT relation_id) > :limit"""
)
_OF_TRANSACTIONS = text(
    """
    SELECT relation_id, count(*) AS changes FROM syncd.captures
    WHERE account_id = :account_id AND xact = ANY (CAST(CAST(:xacts AS text[]) AS xid8[])) GROUP BY relation_id
    """
)
_OTHERS = text(
    EVENTS
    + """SELECT id, relation_id, at FROM events
         WHERE xact <> ALL (CAST(CAST(:xacts AS text[]) AS xid8[])) ORDER BY at, id"""
)


async def foresee(connection: Connection, account_id: AccountId, guard: Guard | None) -> ForeseenHold | None:
    """Return what would be held of an account's captures; None when nothing would."""
    span = (await connection.execute(_SPAN, {"account_id": account_id})).one()
    if guard is None or span.first_at is None:
        return None
    look = _Look(connection, account_id, guard, await find_open(connection, account_id))
    await look.at_followers()
    await look.at_all(span.first_at, span.last_id)
    return look.found()


class _Look:
    """One look at an account's captures; ``held`` counts by relation what would be held of them."""

    def __init__(self, connection: Connection, account_id: AccountId, guard: Guard, hold_id: int | None) -> None:
        self._connection = connection
        self._account_id = account_id
        self._guard = guard
        self._hold_id = hold_id
        self._limit = guard.least
        self._held: Counter[int | None] = Counter()
        self._reasons: list[str] = []

    async def at_followers(self) -> None:
        """What belongs to a transaction that is held already follows it."""
        for row in await self._connection.execute(_FOLLOWING, {"account_id": self._account_id}):
            self._held[row.relation_id] += row.changes
            self._reasons = ["they belong to a mass change that is held"]

    async def at_all(self, first_at: datetime, last_id: int) -> None:
        """The guard's two rules, over what is captured and what was staged shortly before."""
        since = first_at - self._guard.window
        bottom = (await self._connection.execute(BOTTOM, {"last_id": last_id, "since": since - SLACK})).scalar_one()
        binds = {"account_id": self._account_id, "last_id": last_id, "bottom": bottom, "since": since, "until": _NEVER}
        binds |= {"is_all": False, "capture_id": 0}
        if (await self._connection.execute(_COUNT, binds)).scalar_one() <= self._limit:
            return
        if self._guard.enough:
            self._limit = self._guard.limit(await relations_of(self._connection, self._account_id, self._guard))
        xacts = await self._at_transactions(binds)
        await self._at_crowd({**binds, "xacts": xacts})

    async def _at_transactions(self, binds: dict[str, object]) -> list[str]:
        rows = (await self._connection.execute(_TRANSACTIONS, {**binds, "limit": self._limit})).all()
        xacts = list(too_large({row.xact: row.relations for row in rows}, self._limit))
        if xacts:
            given = {"account_id": self._account_id, "xacts": xacts}
            for row in await self._connection.execute(_OF_TRANSACTIONS, given):
                self._held[row.relation_id] += row.changes
            self._reasons.append(transaction_words(max(row.relations for row in rows)))
        return xacts

    async def _at_crowd(self, binds: dict[str, object]) -> None:
        rows = (await self._connection.execute(_OTHERS, binds)).all()
        found = crowded([Change(row.id, row.relation_id, row.at) for row in rows], self._guard.window, self._limit)
        joins = self._hold_id is not None or bool(binds["xacts"])
        if not found or (not joins and await self._goes_on(found)):
            return
        self._held.update(change.relation_id for change in found if change.id is None)
        self._reasons.append(crowd_words(self._limit, self._guard))

    async def _goes_on(self, found: Sequence[Change]) -> bool:
        """Tell whether a burst goes on from one that was approved: then it passes, unless a hold is open to join."""
        ids = [change.id for change in found if change.id is not None]
        return (await self._connection.execute(APPROVED, {"ids": ids})).scalar_one() is not None

    def found(self) -> ForeseenHold | None:
        if not self._held:
            return None
        relations = len(self._held.keys() - {None})
        return ForeseenHold(self._held.total(), relations, self._limit, self._reasons[0], self._hold_id)
