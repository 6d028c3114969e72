"""What a call overwrites is written down before it goes out, by nobody but the lane's owner."""

from __future__ import annotations

from syncd.domain.changes import UpdateProfile
from syncd.policy.merge import Conflict, Owner
from syncd.store import Store
from syncd.store.outbox import ClaimedLane, Contest, write_contests
from tests.support.claims import account_with, changed, claimed_one, expire
from tests.support.outbox import rows, run_sql

EDIT = UpdateProfile({"last_name": "Agreed"}, {"last_name": "Ours"})
TOLD = "SELECT base, local, remote, status, decided FROM syncd.conflicts"


async def told(store: Store, lane: ClaimedLane, worker: str) -> bool:
    entry = lane.plan.steps[0].carrier
    async with store.begin() as connection:
        clash = Conflict("last_name", "Agreed", "Ours", "Theirs", entry.captured_at)
        contests = [Contest(entry.id, entry.seq, clash, Owner.LOCAL)]
        return await write_contests(connection, worker, lane.lane_id, lane.epoch, contests)


async def test_what_is_about_to_be_overwritten_is_written_down_once(store: Store) -> None:
    """However many tries meet it: one edit and one value of the CRM are one conflict."""
    account = await account_with(store)
    await changed(store, account, 1, EDIT)
    lane = await claimed_one(store, account)
    assert await told(store, lane, "w")
    assert await told(store, lane, "w")
    (row,) = await rows(store, TOLD)
    assert tuple(row.values()) == ("Agreed", "Ours", "Theirs", "resolved", "local")


async def test_whoever_has_lost_the_lane_may_not_overwrite(store: Store) -> None:
    """The lane's new owner looks for itself; the old one would say an older value over what was delivered since."""
    account = await account_with(store)
    await changed(store, account, 1, EDIT)
    lost = await claimed_one(store, account, "slow")
    await expire(store)
    taken = await claimed_one(store, account, "other")
    assert not await told(store, lost, "slow")
    assert not await rows(store, TOLD)
    assert await told(store, taken, "other")


async def test_an_edit_before_it_that_cannot_be_read_does_not_stop_the_delivery(store: Store) -> None:
    """Skipped, and written by a later version perhaps: the conflict is told as it was met."""
    account = await account_with(store)
    await changed(store, account, 1, EDIT)
    await run_sql(store, "UPDATE syncd.entries SET status = 'skipped', settled_at = now(), payload = '{}'")
    await changed(store, account, 1, EDIT)
    assert await told(store, await claimed_one(store, account), "w")
    (row,) = await rows(store, TOLD)
    assert row["base"] == "Agreed"
