"""Account pace: the row that replicas agree by. Every verb moves it only from where its caller believes it to be."""

from typing import Any

from syncd.store import Store
from syncd.store.account_pace import (
    Breaking,
    close_breaker,
    join,
    leave,
    open_breaker,
    pass_trial,
    read_limits,
    reopen_breaker,
    revive_refused,
    take_canary,
    take_probe,
)
from syncd.store.account_states import Outlook, look, pause
from syncd.store.outbox import AttemptRow, EntrySettlement
from tests.support.claims import account_with, changed, claimed, entry_of, lane_of, passed, plain, settled
from tests.support.lanes import add, profile
from tests.support.outbox import rows, run_sql

MAINTENANCE = "tag_add: 400, the CRM says: maintenance"
KIND = "400 400, the crm says: maintenance".replace("400, the", "#, the")


async def _look(store: Store, account: Any) -> Outlook:
    async with store.begin() as connection:
        return await look(connection, account.id)


async def _open(store: Store, account: Any, *, pause_s: float = 5, kind: str | None = None, rounds: int = 0) -> bool:
    async with store.begin() as connection:
        breaking = Breaking(1, reason="503", kind=kind)
        return await open_breaker(connection, account.id, breaking, pause_s=pause_s, rounds=rounds)


async def test_the_second_to_open_is_told_that_it_is_open(store: Store) -> None:
    """One incident, not one for each replica."""
    account = await account_with(store)
    assert [await _open(store, account), await _open(store, account)] == [True, False]
    outlook = await _look(store, account)
    breaking = read_limits(outlook.limits).breaking
    assert breaking is not None
    assert (outlook.breaker_state, breaking.openings, breaking.reason) == ("open", 1, "503")
    assert 4 < breaking.probe_at - outlook.at <= 5


async def test_one_replica_takes_the_probe_when_it_is_due(store: Store) -> None:
    """A host that is down must not be asked by all of them at once."""
    account = await account_with(store)
    await _open(store, account, pause_s=60)
    async with store.begin() as connection:
        assert await take_probe(connection, account.id, hold_s=30) is None, "not due"
    await _due(store)
    taken = []
    for _ in range(3):
        async with store.begin() as connection:
            taken.append(await take_probe(connection, account.id, hold_s=30))
    assert [breaking is not None for breaking in taken] == [True, False, False]
    assert (await _look(store, account)).breaker_state == "half_open"


async def _due(store: Store) -> None:
    await run_sql(store, "UPDATE syncd.account_states SET limits = jsonb_set(limits, '{breaking,probe_at}', '0')")


async def test_a_prober_that_died_is_replaced(store: Store) -> None:
    """Else its crash would keep the account broken for ever."""
    account = await account_with(store)
    await _open(store, account, pause_s=0)
    for _ in range(2):
        async with store.begin() as connection:
            assert await take_probe(connection, account.id, hold_s=0) is not None


async def test_the_way_of_an_incident_through_the_row(store: Store) -> None:
    """Open, probed in vain, closed on trial, passed; each step only from the one before."""
    account = await account_with(store)
    async with store.begin() as connection:
        assert not await close_breaker(connection, account.id)
        assert not await pass_trial(connection, account.id)
    await _open(store, account, pause_s=0)
    async with store.begin() as connection:
        assert not await reopen_breaker(connection, account.id, openings=2, pause_s=0), "nobody probed"
        assert await take_probe(connection, account.id, hold_s=30)
        assert await reopen_breaker(connection, account.id, openings=2, pause_s=0)
        assert await take_probe(connection, account.id, hold_s=30)
        assert await close_breaker(connection, account.id)
    outlook = await _look(store, account)
    breaking = read_limits(outlook.limits).breaking
    assert breaking is not None
    assert (outlook.breaker_state, breaking.trial, breaking.openings) == ("closed", True, 2)
    async with store.begin() as connection:
        assert await pass_trial(connection, account.id)
    assert read_limits((await _look(store, account)).limits).breaking is None


async def test_suspicions_are_kept_for_an_hour(store: Store) -> None:
    """A kind that was believed yesterday is looked into anew today; and the row does not grow for ever."""
    account = await account_with(store)
    await _open(store, account, kind="400 old", rounds=3)
    await run_sql(store, "UPDATE syncd.account_states SET breaker_state = 'closed'")
    await run_sql(
        store,
        "UPDATE syncd.account_states SET limits = jsonb_set(limits, '{refusals,400 old,1}', "
        "to_jsonb(extract(epoch FROM now()) - 3601))",
    )
    await _open(store, account, kind="400 new", rounds=1)
    outlook = await _look(store, account)
    limits = read_limits(outlook.limits)
    assert limits.suspicions(outlook.at) == {"400 new": 1}
    assert set(limits.refusals) == {"400 new"}


async def test_who_sends_is_known_and_who_is_gone_is_forgotten(store: Store) -> None:
    """The rate is divided by this number."""
    account = await account_with(store)
    for worker in ("a", "b", "b"):
        async with store.begin() as connection:
            await join(connection, account.id, worker)
    outlook = await _look(store, account)
    limits = read_limits(outlook.limits)
    assert (limits.present(outlook.at), limits.present(outlook.at, but="a")) == (2, 1)
    assert limits.present(outlook.at + 4) == 0
    async with store.begin() as connection:
        await leave(connection, account.id, "a")
        await leave(connection, account.id, "nobody")
    outlook = await _look(store, account)
    assert read_limits(outlook.limits).drainers.keys() == {"b"}


async def test_one_replica_takes_the_canary(store: Store) -> None:
    """A paused account is asked by one of them at a time; by none if an operator paused it."""
    account = await account_with(store)
    async with store.begin() as connection:
        await pause(connection, account.id, "401", probe_in_s=60)
        assert not await take_canary(connection, account.id, hold_s=5)
        assert await take_canary(connection, account.id, hold_s=5, is_early=True)
        await pause(connection, account.id, "audit", by_operator=True)
        assert not await take_canary(connection, account.id, hold_s=5, is_early=True)


async def test_limits_of_another_version_count_as_nothing(store: Store) -> None:
    """A rolling upgrade has two versions on one row."""
    assert read_limits('{"breaking": "yes"}').breaking is None
    assert read_limits('{"breaking": {"openings": 3, "colour": "red"}, "later": 1}').breaking == Breaking(3)


async def _refused(
    store: Store, account: Any, *relations: int, outcome: str = "rejected", error: str = MAINTENANCE
) -> None:
    """Settle the changes of some relations as refused by the CRM."""
    for lane in (await claimed(store, account)).lanes:
        made = plain(lane, is_failed=True)
        if lane.relation_id in relations:
            made.acked_seq = passed(lane, lane.plan.steps)
            for step in lane.plan.steps:
                for entry in (*step.superseded, step.carrier):
                    is_carrier = entry is step.carrier
                    made.entries.append(EntrySettlement(entry.seq, "dead", is_carrier, None, False, error))
                made.attempts.append(
                    AttemptRow(step.carrier.id, step.carrier.operation, lane.now, 0.1, 2, 400, outcome, error)
                )
        else:
            made.is_more = True
        await settled(store, account, made)


async def _revive(store: Store, account: Any) -> int:
    async with store.begin() as connection:
        return await revive_refused(
            connection, account.id, KIND, delivered=frozenset({"verified", "accepted", "diverged"})
        )


async def test_what_a_streak_killed_comes_back_as_if_it_had_not_been_tried(store: Store) -> None:
    """The host was ill; nothing of that is the entry's."""
    account = await account_with(store, 3)
    for relation in (1, 2, 3):
        await changed(store, account, relation, add())
    await _refused(store, account, 1, 2, 3)
    assert await _revive(store, account) == 3
    assert await _revive(store, account) == 0
    for relation in (1, 2, 3):
        entry = await entry_of(store, relation)
        assert (entry["status"], entry["attempts"], entry["settled_at"]) == ("pending", 0, None)
        assert (await lane_of(store, relation))["is_due"]


async def test_edits_that_died_with_their_carrier_come_back_with_it(store: Store) -> None:
    """They have no attempt of their own."""
    account = await account_with(store)
    await changed(store, account, 1, profile(first_name="A"), profile(last_name="B"))
    await _refused(store, account, 1)
    assert await _revive(store, account) == 2


async def test_a_streak_ends_at_the_last_delivery(store: Store) -> None:
    """What was refused while others were delivered was refused for itself."""
    account = await account_with(store, 3)
    await changed(store, account, 1, add())
    await _refused(store, account, 1)
    await changed(store, account, 2, add())
    await _refused(store, account, 2, outcome="accepted")
    await changed(store, account, 3, add())
    await _refused(store, account, 3)
    assert await _revive(store, account) == 1
    assert (await entry_of(store, 1))["status"] == "dead"


async def test_other_kinds_and_what_was_decided_since_are_left_alone(store: Store) -> None:
    """A person who skipped an entry has decided; a mistake of another kind is no part of the incident."""
    account = await account_with(store, 3)
    for relation in (1, 2, 3):
        await changed(store, account, relation, add())
    await _refused(store, account, 1, error="tag_add: 400, the CRM says: gender is wrong")
    await _refused(store, account, 2, 3)
    await run_sql(store, "UPDATE syncd.entries SET status = 'skipped' WHERE relation_id = 2")
    assert await _revive(store, account) == 1
    statuses = await rows(store, "SELECT status FROM syncd.entries ORDER BY relation_id")
    assert [row["status"] for row in statuses] == ["dead", "skipped", "pending"]


async def test_a_lane_that_is_being_sent_is_left_for_later(store: Store) -> None:
    """Its holder folded with the dead entry as dead; to change that under it would send it out of order."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    await _refused(store, account, 1)
    await changed(store, account, 1, add(2))
    lane = (await claimed(store, account)).lanes[0]
    assert await _revive(store, account) == 0
    await settled(store, account, plain(lane, is_more=True))
    assert await _revive(store, account) == 1
