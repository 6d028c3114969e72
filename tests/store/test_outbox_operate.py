"""What a person may do to an entry while the daemon runs: nothing of it can break order."""

import pytest

from syncd.domain.account import Account
from syncd.domain.errors import UserError
from syncd.store import Store
from syncd.store.outbox import ClaimedLane, Selection, list_entries, retry_entry, show_entry, skip_entry
from tests.support.claims import (
    account_with,
    changed,
    claimed,
    claimed_one,
    delivered,
    entry_of,
    expire,
    failed,
    lane_of,
    settled,
)
from tests.support.lanes import add, create, field, profile, remove, sent, subscribe


async def _retry(store: Store, entry_id: int, **given: bool) -> None:
    async with store.begin() as connection:
        await retry_entry(connection, entry_id, **given)


async def _skip(store: Store, entry_id: int) -> None:
    async with store.begin() as connection:
        await skip_entry(connection, entry_id, reason="not wanted")


async def test_a_dead_entry_is_sent_again_with_a_fresh_budget(store: Store) -> None:
    """Somebody mended what was wrong."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await _retry(store, (await entry_of(store, 1))["id"])
    lane = await claimed_one(store, account)
    assert sent(lane.plan) == [add()]
    assert lane.plan.steps[0].carrier.attempts == 0


async def test_a_retry_that_would_undo_a_later_change_is_refused(store: Store) -> None:
    """The later value is at the CRM; sending the older one after it would break the order of the facet."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"), field("b"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    async with store.begin() as connection:
        await connection.exec_driver_sql("UPDATE syncd.entries SET status = 'dead' WHERE seq = 1")
    with pytest.raises(UserError, match="after it and was delivered"):
        await _retry(store, (await entry_of(store, 1, 1))["id"])
    assert (await entry_of(store, 1, 1))["status"] == "dead"


async def test_a_later_edit_of_another_column_is_no_obstacle(store: Store) -> None:
    """A last name that a first name overtook is still to be delivered, and the same value cannot be written again."""
    account = await account_with(store)
    await changed(store, account, 1, profile(last_name="Dead"), subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await settled(store, account, failed(await claimed_one(store, account), "parked"))
    await changed(store, account, 1, profile(first_name="New"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await _retry(store, (await entry_of(store, 1, 1))["id"])
    assert sent((await claimed_one(store, account)).plan) == [profile(last_name="Dead")]


@pytest.mark.parametrize("last", ["last_name", "first_name"])
async def test_a_later_edit_of_the_same_column_is_one(store: Store, last: str) -> None:
    """Also when it was folded into an edit that ended with another column."""
    account = await account_with(store)
    await changed(store, account, 1, profile(last_name="Old"), subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await settled(store, account, failed(await claimed_one(store, account), "parked"))
    await changed(store, account, 1, profile(last_name="New"), profile(**{last: "Last"}))
    await settled(store, account, delivered(await claimed_one(store, account)))
    with pytest.raises(UserError, match="after it and was delivered"):
        await _retry(store, (await entry_of(store, 1, 1))["id"])


async def test_a_delivered_entry_can_be_neither_retried_nor_skipped(store: Store) -> None:
    """It is done; a new edit is the way to change the CRM again."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, delivered(await claimed_one(store, account)))
    entry_id = (await entry_of(store, 1))["id"]
    with pytest.raises(UserError, match="accepted"):
        await _retry(store, entry_id)
    with pytest.raises(UserError, match="nothing to skip"):
        await _skip(store, entry_id)


async def test_skipping_a_dead_identity_lets_the_lane_go_on(store: Store) -> None:
    """What waited behind it is woken at once."""
    account = await account_with(store)
    await changed(store, account, 1, create(), add())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await _skip(store, (await entry_of(store, 1))["id"])
    assert sent((await claimed_one(store, account)).plan) == [add()]


async def test_a_parked_entry_is_read_back_first_unless_a_person_says_otherwise(store: Store) -> None:
    """Retry alone must not be able to mail somebody twice."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "parked"))
    entry_id = (await entry_of(store, 1))["id"]
    await _retry(store, entry_id)
    lane = await claimed_one(store, account)
    assert lane.plan.steps[0].carrier.is_uncertain
    await settled(store, account, failed(lane, "parked"))
    await _retry(store, entry_id, as_new=True)
    assert not (await claimed_one(store, account)).plan.steps[0].carrier.is_uncertain


async def test_touching_a_claimed_lane_fences_its_worker(store: Store) -> None:
    """The worker folded without knowing of this; what it brings back is dropped, and sent again in order."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await changed(store, account, 1, remove())
    lane = await claimed_one(store, account)
    await _retry(store, (await entry_of(store, 1))["id"])
    assert not (await lane_of(store, 1))["is_due"], "not before the worker's last request can have ended"
    assert (await settled(store, account, delivered(lane))).fenced == {lane.lane_id}
    await expire(store)
    assert sent((await claimed_one(store, account)).plan) == [remove()]


async def test_touching_a_lane_in_mid_barrier_keeps_the_doubt(store: Store) -> None:
    """The fenced worker may have mailed: the next one must read back."""
    account = await account_with(store)
    await changed(store, account, 1, add(), subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await claimed_one(store, account)
    await _skip(store, (await entry_of(store, 1))["id"])
    await expire(store)
    assert (await claimed_one(store, account)).plan.steps[0].carrier.is_uncertain


async def test_list_and_show_tell_what_happened(store: Store) -> None:
    """An operator needs the reason, the tries and whom it is about."""
    account = await account_with(store, 2)
    await changed(store, account, 1, add(1))
    await changed(store, account, 2, add(2))
    await settled(store, account, failed(await claimed_one_of(store, account, 1), "dead", error="unknown tag"))
    async with store.begin() as connection:
        dead = await list_entries(connection, Selection(statuses=("dead",)))
        everything = await list_entries(connection, Selection())
        of_two = await list_entries(connection, Selection(email="2@X.example"))
        story = await show_entry(connection, dead[0].id)
        nothing = await show_entry(connection, 10**9)
    assert [(e.email, e.error, e.operation) for e in dead] == [("1@x.example", "unknown tag", "add_tag")]
    assert len(everything) == 2
    assert [e.relation_id for e in of_two] == [2]
    assert story is not None
    assert story.entry == dead[0]
    assert nothing is None


async def claimed_one_of(store: Store, account: Account, relation_id: int) -> ClaimedLane:
    return next(x for x in (await claimed(store, account)).lanes if x.relation_id == relation_id)


async def test_an_entry_that_is_not_there_is_the_users_mistake(store: Store) -> None:
    """One line, what to do next, no traceback."""
    with pytest.raises(UserError, match="no entry 12"):
        await _retry(store, 12)
