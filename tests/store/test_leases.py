"""The account lease: one holder at a time, by the database's clock."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.store import Store
from syncd.store.leases import release_lease, take_lease


async def account(store: Store) -> AccountId:
    async with store.begin_remote() as connection:
        row = await connection.execute(
            text("INSERT INTO crm.accounts (name, provider) VALUES ('a', 'autorespond') RETURNING id")
        )
        return AccountId(row.scalar_one())


async def take(store: Store, account_id: AccountId, owner: str, lease_s: float = 60) -> int | None:
    async with store.begin() as connection:
        return await take_lease(connection, account_id, owner, lease_s)


async def test_only_one_of_two_replicas_holds_the_lease(store: Store) -> None:
    """Two pullers of one account would ask everything twice and race each other's rows."""
    account_id = await account(store)
    taken = await asyncio.gather(*(take(store, account_id, owner) for owner in "abcd"))
    assert sorted(epoch is not None for epoch in taken) == [False, False, False, True]


async def test_renewal_keeps_the_epoch_and_a_change_of_holder_raises_it(store: Store) -> None:
    """The epoch is the fence: it must move exactly when somebody else may have worked in between."""
    account_id = await account(store)
    assert [await take(store, account_id, "a"), await take(store, account_id, "a")] == [1, 1]
    assert await take(store, account_id, "b") is None
    async with store.begin() as connection:
        await release_lease(connection, account_id, "b")
    assert await take(store, account_id, "b") is None
    async with store.begin() as connection:
        await release_lease(connection, account_id, "a")
    assert await take(store, account_id, "b") == 2


async def test_expired_lease_is_taken_over_and_does_not_come_back_under_its_epoch(store: Store) -> None:
    """A dead replica must not keep its account, and a replica that slept through its lease must notice."""
    account_id = await account(store)
    assert await take(store, account_id, "a", lease_s=-1) == 1
    assert await take(store, account_id, "a", lease_s=-1) == 2
    assert await take(store, account_id, "b") == 3
    assert await take(store, account_id, "a") is None
