"""Proof in the store: what it costs, and what people are shown of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from syncd.domain.incidents import Incident, IncidentKind
from syncd.store import Store, runs
from syncd.store.incidents import count_incidents, open_incidents
from syncd.store.outbox import count_backlog
from syncd.store.outbox_awaited import _EXPIRE, _OF_FACET, _OF_OPERATIONS, _OF_RELATIONS, _TAKE
from syncd.store.status import read_outbox
from tests.support.claims import account_with, changed, claimed_one, delivered, entry_of, settled
from tests.support.lanes import add, is_repeat_safe
from tests.support.outbox import rows, run_sql

SOON = datetime(2999, 1, 1, tzinfo=UTC)
PLANS = {
    "relations": (_OF_RELATIONS, {"account_id": 1, "asked_at": SOON, "ids": [1, 2], "operations": ["add_tag"]}),
    "facet": (_OF_FACET, {"account_id": 1, "asked_at": SOON, "facet": "group:1"}),
    "operations": (_OF_OPERATIONS, {"account_id": 1, "asked_at": SOON, "operations": ["create_field"]}),
    "take": (_TAKE, {"account_id": 1, "most": 16, "lease_s": 60.0}),
    "expire": (_EXPIRE, {}),
    "run": (runs._START, {"account_id": 1, "stream": "tags", "trigger": "test", "asked_from": None}),
}


@pytest.mark.parametrize("name", PLANS)
async def test_proof_is_found_by_its_indexes_however_much_is_settled(store: Store, name: str) -> None:
    """A pull of every minute must not read through years of deliveries."""
    account = await account_with(store)
    await run_sql(
        store,
        """
        INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, acked_seq)
        SELECT :a, n, 10, 10 FROM generate_series(1000, 2999) AS n
        """,
        a=account.id,
    )
    await run_sql(
        store,
        """
        INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status, xact,
                                   captured_at, settled_at, prove_until)
        SELECT l.id, s, l.account_id, l.relation_id, 'add_tag', 'tag:1', '{}', 'accepted', '1', now(), now(),
               CASE WHEN l.relation_id % 100 = 0 THEN now() + interval '1 day' END
        FROM syncd.lanes l, generate_series(1, 10) AS s
        """,
    )
    await run_sql(store, "ANALYZE syncd.entries")
    statement, binds = PLANS[name]
    async with store.begin() as connection:
        plan = (await connection.execute(text(f"EXPLAIN {statement.text}"), binds)).scalars().all()
    assert not any("Seq Scan on entries" in line for line in plan), "\n".join(plan)


async def test_a_plain_delivery_writes_one_column_more(store: Store) -> None:
    """At thousands a second each is felt; what the dice chose is written apart."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    lane = await claimed_one(store, account)
    await settled(store, account, delivered(lane, awaiting=[1], read_back=[(1, 600.0)]))
    first, second = await entry_of(store, 1, 1), await entry_of(store, 1, 2)
    assert (second["prove_until"], second["prove_at"]) == (None, None)
    spans = await rows(
        store,
        "SELECT prove_until - settled_at > interval '6 days' AS long, prove_at - settled_at AS after "
        "FROM syncd.entries WHERE seq = 1",
    )
    assert (spans[0]["long"], spans[0]["after"].total_seconds()) == (True, 600.0)
    assert first["proved_at"] is None


async def test_reassertions_are_counted_apart_from_what_is_not_delivered(store: Store) -> None:
    """Whoever waits for an empty outbox must not wait for them."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await run_sql(
        store,
        "UPDATE syncd.entries SET reasserts = 1, captured_at = now() - interval '1 day', "
        "next_attempt_at = now() + interval '1 hour' WHERE seq = 1",
    )
    async with store.begin() as connection:
        backlog = await count_backlog(connection, account.id, is_repeat_safe)
        (status,) = await read_outbox(connection)
    assert (backlog.pending, backlog.blocked, backlog.reasserting) == (1, 0, 1)
    assert (status.pending, status.reasserting) == (1, 1)
    assert status.oldest_s is not None
    assert status.oldest_s < 3600, "a reassertion is no old change"


async def test_open_incidents_are_counted_by_kind_and_zero_is_told(store: Store) -> None:
    """A gauge that is missing alarms nobody, and one that stays after the end alarms for ever."""
    account = await account_with(store)
    async with store.begin() as connection:
        for subject in ("entry:1", "entry:2"):
            await open_incidents(connection, account.id, [Incident(IncidentKind.DIVERGED, subject, "x")])
        counts = {(row.account, row.kind): row.open for row in await count_incidents(connection)}
    assert counts[account.name, "diverged"] == 2
    assert counts[account.name, "parked"] == 0
    assert {kind for _, kind in counts} == set(IncidentKind)
