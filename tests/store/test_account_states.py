"""Account states: pause, probe and throttle, kept where every replica sees them."""

from syncd.store import Store
from syncd.store.account_states import look, note_clock, pause, postpone_probe, resume, throttle
from syncd.store.status import read_accounts
from tests.support.claims import account_with, changed
from tests.support.lanes import add
from tests.support.outbox import rows


async def test_an_idle_account_has_no_work(store: Store) -> None:
    """This is asked twenty times a second."""
    account = await account_with(store)
    async with store.begin() as connection:
        outlook = await look(connection, account.id)
    assert (outlook.has_work, outlook.paused, outlook.throttled_s, outlook.ready_in_s) == (False, None, 0.0, None)


async def test_captures_and_due_lanes_are_work(store: Store) -> None:
    """Either must end a drainer's rest."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    async with store.begin() as connection:
        assert (await look(connection, account.id)).has_work
    async with store.begin() as connection:
        await connection.exec_driver_sql("UPDATE syncd.lanes SET ready_at = now() + interval '1 minute'")
        assert not (await look(connection, account.id)).has_work
        await connection.exec_driver_sql("UPDATE syncd.lanes SET ready_at = NULL")
        await connection.exec_driver_sql(
            "INSERT INTO syncd.captures (account_id, operation, facet, payload) "
            f"VALUES ({account.id}, 'x', 'x', '{{}}')"
        )
        assert (await look(connection, account.id)).has_work


async def test_the_canary_lifts_its_own_pause_and_never_an_operators(store: Store) -> None:
    """Whoever stopped the account by hand had a reason that no read can see."""
    account = await account_with(store)
    async with store.begin() as connection:
        await pause(connection, account.id, "401")
        assert (await look(connection, account.id)).probe_in_s is not None
        assert await resume(connection, account.id)
        await pause(connection, account.id, "maintenance", by_operator=True)
        await pause(connection, account.id, "401")
        outlook = await look(connection, account.id)
        assert (outlook.paused, outlook.probe_in_s) == ("maintenance", None)
        assert not await resume(connection, account.id)
        assert await resume(connection, account.id, by_operator=True)
        assert (await look(connection, account.id)).paused is None


async def test_probes_come_at_growing_intervals(store: Store) -> None:
    """A key that stays wrong for a week must not be tried twice a minute."""
    account = await account_with(store)
    waits = []
    async with store.begin() as connection:
        await pause(connection, account.id, "401", probe_in_s=30)
    for age in ("1 second", "2 minutes", "3 days"):
        async with store.begin() as connection:
            await connection.exec_driver_sql(f"UPDATE syncd.account_states SET paused_at = now() - interval '{age}'")
            await postpone_probe(connection, account.id, least_s=30, most_s=900)
            waits.append((await look(connection, account.id)).probe_in_s)
    assert waits == [30, 120, 900]


async def test_the_longest_throttle_holds(store: Store) -> None:
    """Two answers of one second may ask for different pauses."""
    account = await account_with(store)
    async with store.begin() as connection:
        await throttle(connection, account.id, 60)
        await throttle(connection, account.id, 5)
        assert (await look(connection, account.id)).throttled_s == 60
    assert len(await rows(store, "SELECT 1 FROM syncd.account_states")) == 1


async def test_the_clock_is_noted_when_it_is_news(store: Store) -> None:
    """It is told after every round; a row written each time would be dead tuples without end."""
    account = await account_with(store)
    kept = []
    for skew_s in (3.0, 3.4, -120.0):
        async with store.begin() as connection:
            await note_clock(connection, account.id, skew_s)
            kept.append((await read_accounts(connection))[0].clock_skew_s)
    assert kept == [3.0, 3.0, -120.0]
