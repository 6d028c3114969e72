"""How late rows come is counted where they are written: what was late for certain, and what was on time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from syncd.domain.account import Account
from syncd.domain.ids import RunId
from syncd.policy.coverage import Interval
from syncd.policy.lateness import EDGES_S, STEADY_S, Histogram
from syncd.store import Connection, Store, coverage
from syncd.store.accounts import ensure_account
from syncd.store.lateness import MOST_ROWS, Appeared, learned, learned_of_all, measure
from syncd.store.unsettled import count, due, since

NOW = datetime(2024, 5, 10, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


async def account_with(connection: Connection, *proven: Interval) -> Account:
    account = await ensure_account(connection, "default", "autorespond")
    for interval in proven:
        await coverage.prove(connection, account.id, "orders", interval, RunId(1))
    return account


async def orders_of(connection: Connection, account: Account, *times: datetime | None) -> list[int]:
    ids = []
    for number, at in enumerate(times):
        values = f"({account.id}, '{number}', {'NULL' if at is None else repr(at.isoformat())})"
        insert = f"INSERT INTO crm.orders (account_id, remote_id, purchased_at) VALUES {values} RETURNING id"
        ids.append((await connection.exec_driver_sql(insert)).scalar_one())
    return ids


async def measured(store: Store, proven: Sequence[Interval], *times: datetime | None) -> Histogram:
    async with store.begin_remote() as connection:
        account = await account_with(connection, *proven)
        ids = await orders_of(connection, account, *times)
        await measure(connection, account.id, Appeared("orders", "Order", ids, NOW))
        return await learned(connection, account.id, "orders", NOW)


@pytest.mark.parametrize("late_s", [120.0, *EDGES_S[3:-4:5], EDGES_S[20] - 0.5])
async def test_a_row_in_proven_time_is_late_by_what_the_policy_says(store: Store, late_s: float) -> None:
    """The database sorts into the buckets that the arithmetic reads: an edge between them belongs to the upper one."""
    seen = await measured(store, [Interval(ago(10 * 365 * 86400), ago(60))], ago(late_s))
    (bucket,) = [n for n, rows in enumerate(seen.counts) if rows]
    assert (EDGES_S[bucket - 1] if bucket else 0) <= late_s < EDGES_S[bucket]


async def test_a_row_of_the_young_time_is_on_time_and_one_after_a_downtime_says_nothing(store: Store) -> None:
    """What ten hours without a daemon bring may all have been late, or none of it: it must not water the share down."""
    steady = await measured(store, [Interval(ago(86400), ago(120))], ago(60), ago(10))
    assert (steady.rows, steady.counts[0]) == (2, 2)


async def test_after_a_downtime_nothing_is_counted_but_what_was_late_for_certain(store: Store) -> None:
    """The older row lies in time that was proven before the downtime."""
    seen = await measured(store, [Interval(ago(86400), ago(STEADY_S + 60))], ago(60), ago(40_000))
    assert (seen.rows, seen.counts[0]) == (1, 0)


async def test_rows_without_a_time_a_first_load_and_a_great_load_say_nothing(store: Store) -> None:
    """A histogram of a million old orders would call every lateness rare."""
    assert (await measured(store, [], ago(60), None)).rows == 0
    async with store.begin_remote() as connection:
        account = await account_with(connection, Interval(ago(86400), ago(60)))
        await measure(connection, account.id, Appeared("orders", "Order", [1] * (MOST_ROWS + 1), NOW))
        assert (await learned(connection, account.id, "orders", NOW)).rows == 0


async def test_months_add_up_and_half_a_year_ago_is_forgotten(store: Store) -> None:
    """One bad week must not widen every window for ever."""
    async with store.begin_remote() as connection:
        account = await account_with(connection)
        for month, rows in (("2024-05-01", 3), ("2024-04-01", 4), ("2023-10-01", 99)):
            await connection.exec_driver_sql(
                f"INSERT INTO syncd.lateness VALUES ({account.id}, 'orders', '{month}', 9, {rows})"
            )
        assert (await learned(connection, account.id, "orders", NOW)).counts[9] == 7
        assert (await learned_of_all(connection, NOW))["default", "orders"].counts[9] == 7


async def test_an_invoice_is_due_when_its_day_is_over(store: Store) -> None:
    """Its list tells the day alone: one of today is on time, one dated ten days back is ten days late or less."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")
        await coverage.prove(connection, account.id, "invoices", Interval(ago(90 * 86400), ago(120)), RunId(1))
        insert = f"""
            INSERT INTO crm.invoices (account_id, number, is_credit, invoiced_on, detail_status)
            VALUES ({account.id}, 'a', false, '2024-05-10', 'pending'),
                   ({account.id}, 'b', false, '2024-05-20', 'pending'),
                   ({account.id}, 'c', false, '2024-04-30', 'pending') RETURNING id
        """
        ids = list((await connection.exec_driver_sql(insert)).scalars())
        await measure(connection, account.id, Appeared("invoices", "Invoice", ids, NOW))
        seen = await learned(connection, account.id, "invoices", NOW)
    assert (seen.counts[0], seen.rows) == (2, 3)
    assert seen.later_than(9 * 86400) == 1


async def test_unsettled_are_the_unpaid_and_the_running_until_they_are_settled(store: Store) -> None:
    """Settled, given up, missing at the CRM, or without an id to ask by: nobody is asked for those again."""
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, "default", "autorespond")
        await connection.exec_driver_sql(f"""
            INSERT INTO crm.relations (id, account_id, remote_id, email)
            SELECT n, {account.id}, CASE n WHEN 9 THEN NULL ELSE n::text END, n || '@example.org'
            FROM generate_series(1, 9) AS n
        """)
        await connection.exec_driver_sql(f"""
            INSERT INTO crm.orders (id, account_id, remote_id, relation_id, purchased_at, is_paid, missing_since)
            SELECT n, {account.id}, n::text, n, at::timestamptz, is_paid, missing_since::timestamptz FROM (VALUES
                (1, '2024-05-01', true, NULL), (2, '2024-05-01', false, NULL), (3, '2020-05-01', false, NULL),
                (4, '2020-05-01', true, NULL), (5, '2020-05-01', true, NULL), (6, '2020-05-01', true, NULL),
                (7, '2024-05-01', false, '2024-05-09'), (8, NULL, NULL, NULL), (9, '2024-05-01', false, NULL)
            ) AS o (n, at, is_paid, missing_since)
        """)
        await connection.exec_driver_sql("""
            INSERT INTO crm.order_lines (order_id, position, subscription_id, subscription_ends_on) VALUES
                (4, 0, '40', NULL), (5, 0, '50', '2024-05-09'), (6, 0, '60', '2024-04-01')
        """)
        limits = since(NOW, 400)
        found = [row.id for row in await due(connection, account.id, "relation_orders", limits, None)]
        assert found == [2, 4, 5, 8]
        assert await count(connection, account.id, "relation_orders", limits) == 4
        await connection.exec_driver_sql(
            f"INSERT INTO syncd.readings (account_id, stream, row_id) VALUES ({account.id}, 'relation_orders', 2)"
        )
        found = [row.id for row in await due(connection, account.id, "relation_orders", limits, 3)]
        assert found == [4, 5, 8]
