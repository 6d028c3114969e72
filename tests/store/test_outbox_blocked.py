"""Blocked does not block: live lanes cost the same beside what is stuck, what is settled, and one lane without end.

Told in pages that a claim of live lanes and its settle touch, by the session's own count: no noise of time is in it.
How fast that is ``make bench ARGS=claims`` measures. That an endless lane gives way to the others after each window is
proved in ``test_outbox_claim.py`` and ``pipelines/test_drain_leases.py``.
"""

from __future__ import annotations

from syncd.domain.account import Account
from syncd.store import Store
from syncd.store.outbox import Terms, claim, settle, stage
from tests.conftest import admin
from tests.support.claims import account_with, claimed, delivered
from tests.support.lanes import is_repeat_safe
from tests.support.outbox import run_sql, stage_all
from tests.support.pages import pages_so_far

LIVE = 5
TERMS = Terms("w", 60.0, 100, is_repeat_safe)

# A burden, and four times as much: lanes of eight entries each. Beside none at all the indexes are a level lower.
SOME, MANY, EACH = 500, 2000, 8
NOISE = 1.1  # a page of an index that was split here and not there

# Entries of each lane of a range, as the triggers write them.
CAPTURED = """
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
    SELECT :a, lane, 'add_tag', 'tag:' || tag,
           jsonb_build_object('tag_id', tag, 'tag_remote_id', CAST(tag AS text), 'tag_name', 'a tag')
    FROM generate_series(CAST(:first AS bigint), :last) lane, generate_series(1, CAST(:tags AS bigint)) tag
"""

MOVING = 16
# Relations of a range that go from an address to another.
MOVED = """
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
    SELECT :a, n + CAST(:more AS bigint), 'change_email', 'identity',
           jsonb_build_object('old', n || '@' || CAST(:leave AS text), 'new', n || '@' || CAST(:take AS text))
    FROM generate_series(CAST(:first AS bigint), :last) n
"""

# Of the lanes above the live ones a third waits behind a parked address, a third has nothing but dead tags, and a third
# backs off for an hour.
STUCK_THERE = """
    UPDATE syncd.entries
    SET operation = CASE WHEN lane_id % 3 = 0 AND seq = 1 THEN 'change_email' ELSE operation END,
        facet = CASE WHEN lane_id % 3 = 0 AND seq = 1 THEN 'identity' ELSE facet END,
        payload = CASE WHEN lane_id % 3 = 0 AND seq = 1 THEN '{"old": null, "new": "a@x.example"}' ELSE payload END,
        status = CASE WHEN lane_id % 3 = 0 AND seq = 1 THEN 'parked' WHEN lane_id % 3 = 1 THEN 'dead' ELSE status END,
        next_attempt_at = CASE WHEN lane_id % 3 = 2 THEN now() + interval '1 hour' END
    WHERE relation_id > :live
"""

# All that was there, long delivered.
DELIVERED = """
    UPDATE syncd.entries SET status = 'accepted', settled_at = now(), attempts = 1 WHERE status = 'pending'
"""
ASLEEP = "UPDATE syncd.lanes SET acked_seq = tail_seq, ready_at = NULL"


async def _cost(store: Store, account: Account, *, live: int = LIVE) -> int:
    """Deliver one new entry of each live lane, as a drainer does; return the pages that staging and claiming them, and
    settling them, touched."""
    await run_sql(store, CAPTURED, a=account.id, first=1, last=LIVE, tags=1)
    async with store.begin() as connection:
        before = await pages_so_far(connection)
        await stage(connection)
        lanes = (await claim(connection, account.id, TERMS, most=16)).lanes
        claiming = await pages_so_far(connection) - before
    assert len(lanes) == live
    async with store.begin_remote() as connection:
        before = await pages_so_far(connection)
        assert not (await settle(connection, account.id, "w", [delivered(lane) for lane in lanes])).fenced
        return claiming + await pages_so_far(connection) - before


async def _usual(store: Store, database: str, account: Account) -> int:
    """Return what it costs by and by, once what was written to get here is tidied up: the first rounds fill pages."""
    await admin(database, "VACUUM ANALYZE")
    return sorted([await _cost(store, account) for _ in range(5)])[2]


async def _staged(store: Store, account: Account, first: int, last: int, tags: int) -> None:
    await run_sql(store, CAPTURED, a=account.id, first=first, last=last, tags=tags)
    await stage_all(store)


async def test_live_lanes_cost_no_more_the_more_entries_are_stuck(store: Store, database: str) -> None:
    """A parked address, a tag that the CRM refuses to hundreds, an hour's back-off: who is well must not notice."""
    account, costs = await account_with(store, LIVE + MANY), []
    for since, upto in ((0, SOME), (SOME, MANY)):
        await _staged(store, account, LIVE + since + 1, LIVE + upto, EACH)
        await run_sql(store, STUCK_THERE, live=LIVE)
        assert (await claimed(store, account, most=MANY)).lanes == (), "each is looked at once, and never again"
        costs.append(await _usual(store, database, account))
    assert costs[1] <= NOISE * costs[0], f"beside {SOME} stuck lanes {costs[0]} pages, beside {MANY} {costs[1]}"


async def test_live_lanes_cost_no_more_the_more_was_delivered(store: Store, database: str) -> None:
    """By themselves and by others: what is settled is history, and is kept for weeks."""
    account, costs = await account_with(store, LIVE + MANY), []
    for since, upto in ((0, SOME), (SOME, MANY)):
        await _staged(store, account, LIVE + since + 1, LIVE + upto, EACH)
        await _staged(store, account, 1, LIVE, upto - since)
        await run_sql(store, DELIVERED)
        await run_sql(store, ASLEEP)
        costs.append(await _usual(store, database, account))
    assert costs[1] <= NOISE * costs[0], (
        f"after {SOME} deliveries of each lane {costs[0]} pages, after {MANY} {costs[1]}"
    )


async def test_a_claim_looks_at_the_addresses_it_needs_however_many_move(store: Store) -> None:
    """A burst of new addresses, of which the planner has no statistics yet: it must not be walked through for each."""
    account, costs = await account_with(store, 2 * MANY), []
    for since, upto in ((0, SOME), (SOME, MANY)):
        await run_sql(store, MOVED, a=account.id, first=since + 1, last=upto, leave="a", take="b", more=0)
        await stage_all(store)
        await run_sql(store, ASLEEP)
        await run_sql(store, MOVED, a=account.id, first=since + 1, last=since + MOVING, leave="c", take="a", more=MANY)
        async with store.begin() as connection:
            await stage(connection)
            before = await pages_so_far(connection)
            assert (await claim(connection, account.id, TERMS, most=MOVING)).looked == MOVING
            costs.append(await pages_so_far(connection) - before)
    assert costs[1] <= 1.3 * costs[0], f"with {SOME} on the move {costs[0]} pages, with {MANY} {costs[1]}"


async def test_an_endless_lane_costs_a_window_however_long_it_is(store: Store, database: str) -> None:
    """An import gone wild on one relation: each claim reads so much of it and no more."""
    account, costs = await account_with(store, LIVE + 1), []
    for more in (SOME, MANY - SOME):
        await _staged(store, account, LIVE + 1, LIVE + 1, more)
        await admin(database, "VACUUM ANALYZE")
        costs.append(await _cost(store, account, live=LIVE + 1))
    assert costs[1] <= NOISE * costs[0], f"beside one lane of {SOME} entries {costs[0]} pages, of {MANY} {costs[1]}"
