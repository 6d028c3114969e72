"""Leaving: which changes leave an address, and which others take it.

Each side is read once, and the two are matched here. Joined in SQL they would be matched badly where it matters: the
planner does not know of a burst before the table was counted again, and looks through all that leave for each that
takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

TAKES = "lower(coalesce(w.payload ->> 'new', w.payload ->> 'email'))"
# What only says a delivered address once more has left the old one already. Waiting for it, two lanes could wait for
# each other for ever, because it goes out with the newest change of its own lane.
LEAVES = """
    operation = 'change_email' AND status IN ('pending', 'held', 'dead', 'parked', 'diverged', 'skipped')
    AND reasserts IS NULL
"""

_LEAVERS = f"""
    SELECT id, lane_id, relation_id, lower(payload ->> 'old') AS address FROM syncd.entries
    WHERE {LEAVES} AND account_id = :account_id AND payload ->> 'old' IS NOT NULL
"""
_ALL_LEAVERS = text(_LEAVERS)
_THESE_LEAVERS = text(_LEAVERS + " AND lower(payload ->> 'old') = ANY (CAST(:addresses AS text[]))")
_CAPTURED_LEAVERS = text(
    """
    SELECT -id AS id, NULL AS lane_id, relation_id, lower(payload ->> 'old') AS address FROM syncd.captures
    WHERE operation = 'change_email' AND account_id = :account_id
      AND lower(payload ->> 'old') = ANY (CAST(:addresses AS text[]))
    """
)
_TAKERS = text(
    f"""
    SELECT w.id, w.lane_id, w.relation_id, {TAKES} AS address, w.account_id
    FROM syncd.entries w WHERE w.id = ANY (CAST(:ids AS bigint[]))
    """
)
_CAPTURED_TAKERS = text(
    f"""
    SELECT -w.id AS id, NULL AS lane_id, w.relation_id, {TAKES} AS address, w.account_id
    FROM unnest(CAST(:ids AS bigint[])) AS asked (id) JOIN syncd.captures w ON w.id = -asked.id
    """
)
_ALL_TAKERS = text(
    f"""
    SELECT w.id, w.lane_id, w.relation_id, {TAKES} AS address FROM syncd.entries w
    WHERE w.facet = 'identity' AND w.status = 'pending' AND w.account_id = :account_id AND w.reasserts IS NULL
    """
)


class Change(NamedTuple):
    """A change of identity with the address (lower case) that it takes or leaves. What is captured only has a negative
    number, and no lane yet."""

    id: int
    lane_id: int | None
    relation_id: int | None
    address: str

    def is_after(self, other: Change) -> bool:
        """Tell whether it is another relation's, and later: what is captured only stands behind all that is staged."""
        is_of_another = other.lane_id != self.lane_id if self.id > 0 else other.relation_id != self.relation_id
        return is_of_another and (self.id < 0, abs(self.id)) > (other.id < 0, abs(other.id))


async def leavers_of(
    connection: Connection, account_id: AccountId, addresses: Collection[str], *, with_captured: bool = False
) -> Mapping[str, list[Change]]:
    """Return by address the changes away from it that are not delivered, or were given up."""
    asked = {"account_id": account_id, "addresses": list(addresses)}
    rows = list((await connection.execute(_THESE_LEAVERS, asked)).all())
    if with_captured:
        rows += (await connection.execute(_CAPTURED_LEAVERS, asked)).all()
    return _by_address(map(Change._make, rows))


async def pairs(connection: Connection, ids: Sequence[int], *, are_captured: bool) -> list[tuple[int, int]]:
    """Return each of these entries, or captures (negative), that takes an address with each earlier change of another
    relation away from it."""
    found = (await connection.execute(_CAPTURED_TAKERS if are_captured else _TAKERS, {"ids": list(ids)})).all()
    takers = [Change(*row[:4]) for row in found if row.address is not None]
    if not takers:
        return []
    addresses = {taker.address for taker in takers}
    left = await leavers_of(connection, found[0].account_id, addresses, with_captured=are_captured)
    return [(taker.id, leaver.id) for taker, leaver in _matched(takers, left)]


async def all_takers(connection: Connection, account_id: AccountId) -> set[int]:
    """Return the lanes of an account that take an address which another has left, delivered or not."""
    asked = {"account_id": account_id}
    left = _by_address(map(Change._make, (await connection.execute(_ALL_LEAVERS, asked)).all()))
    takers = (await connection.execute(_ALL_TAKERS, asked)).all() if left else ()
    matched = _matched(map(Change._make, takers), left)
    return {taker.lane_id for taker, _ in matched if taker.lane_id is not None}


def _matched(takers: Iterable[Change], left: Mapping[str, Sequence[Change]]) -> Iterable[tuple[Change, Change]]:
    return ((taker, leaver) for taker in takers for leaver in left.get(taker.address, ()) if taker.is_after(leaver))


def _by_address(changes: Iterable[Change]) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        found.setdefault(change.address, []).append(change)
    return found
