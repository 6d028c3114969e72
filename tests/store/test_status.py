"""The status queries: numbers that people act on must be right."""

from __future__ import annotations

from sqlalchemy import text

from syncd.store import Store
from syncd.store.status import read_accounts, read_mirror, read_outbox, read_streams

_WORLD = """
    INSERT INTO crm.accounts (id, name, provider) VALUES (1, 'shop', 'autorespond'), (2, 'new', 'autorespond');
    INSERT INTO syncd.account_states (account_id, paused_at, pause_reason, lease_owner, lease_until)
        VALUES (1, now(), 'the key is refused', 'r1', now() - interval '1 second');
    INSERT INTO crm.relations (id, account_id, remote_id) VALUES (7, 1, '70'), (8, 1, '80');
    UPDATE crm.relations SET missing_since = now() WHERE id = 8;
    INSERT INTO syncd.runs (account_id, stream, trigger, status, started_at, finished_at, received, updated, reason)
        VALUES (1, 'orders', 'schedule', 'succeeded', now() - interval '2 h', now() - interval '1 h', 5, 2, NULL),
               (1, 'orders', 'schedule', 'failed', now() - interval '60 s', now(), 0, 0, 'no answer');
    INSERT INTO syncd.coverage (account_id, stream, proven) VALUES
        (1, 'orders', tstzmultirange(
            tstzrange(now() - interval '100 d', now() - interval '5 d'),
            tstzrange(now() - interval '4 d', now() - interval '3 h')));
    INSERT INTO syncd.lanes (id, account_id, relation_id, tail_seq) VALUES (1, 1, 7, 3);
    INSERT INTO syncd.entries
            (lane_id, seq, account_id, relation_id, operation, facet, payload, status, xact, captured_at)
        VALUES (1, 1, 1, 7, 'add_tag', 'tag:1', '{}', 'dead', pg_current_xact_id(), now() - interval '9 d'),
               (1, 2, 1, 7, 'add_tag', 'tag:2', '{}', 'pending', pg_current_xact_id(), now() - interval '100 s'),
               (1, 3, 1, 7, 'add_tag', 'tag:3', '{}', 'verified', pg_current_xact_id(), now() - interval '99 d');
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
        VALUES (1, 7, 'add_tag', 'tag:4', '{}');
"""


async def test_status_counts_what_waits_and_where_the_holes_are(store: Store) -> None:
    """A hole that is not shown is a month of missing orders; an old entry that is not shown is a lost customer."""
    async with store.begin_remote() as connection:
        for statement in _WORLD.split(";\n"):
            await connection.execute(text(statement))
    async with store.begin() as connection:
        new, shop = await read_accounts(connection)
        (orders,) = await read_streams(connection, horizon_days=90)
        _, outbox = await read_outbox(connection)
        mirrors = await read_mirror(connection)
    assert (shop.pause_reason, shop.lease_owner, new.breaker_state) == ("the key is refused", None, "closed")
    assert (orders.status, orders.reason, orders.changed) == ("failed", "no answer", 0)
    assert (orders.holes, round(orders.hole_s / 3600), round((orders.lag_s or 0) / 3600)) == (1, 24, 3)
    assert round(orders.hole_age_s / 3600) == 5 * 24
    assert round((orders.success_age_s or 0) / 3600) == 1
    assert (outbox.pending, outbox.dead, outbox.parked) == (2, 1, 0)
    assert 100 <= (outbox.oldest_s or 0) < 200
    assert {mirror.account: mirror.relations for mirror in mirrors} == {"shop": 1, "new": 0}


async def test_empty_database_has_an_empty_status(store: Store) -> None:
    """The first `syncd status` comes before the first account."""
    async with store.begin() as connection:
        assert await read_accounts(connection) == ()
        assert await read_streams(connection, horizon_days=90) == ()
        assert await read_outbox(connection) == ()
