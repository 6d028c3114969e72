"""A profile edit that is not delivered lends no column that a later edit of its lane has said already.

Each lane here has an edit that the CRM refused, a call that waits for a person, and behind that a newer edit that was
delivered: it passed the refused one, because nothing is folded across a call that is not settled.
"""

from __future__ import annotations

import msgspec
import pytest

from syncd.domain.account import Account
from syncd.domain.changes import LocalChange
from syncd.store import Store
from syncd.store.outbox import EntrySettlement, LaneSettlement
from syncd.store.outbox_plan import waiting_lanes
from tests.support.claims import account_with, changed, claimed_one, delivered, entry_of, failed, settled
from tests.support.lanes import NOW, is_repeat_safe, profile, sent, subscribe
from tests.support.outbox import retry_entry, rows, run_sql, skip_entry


async def _passed(store: Store, account: Account, *dead: LocalChange, newer: LocalChange) -> None:
    """Leave edits dead, a call behind them parked, and a newer edit delivered."""
    await changed(store, account, 1, *dead)
    await settled(store, account, _buried(failed(await claimed_one(store, account), "dead"), len(dead)))
    await changed(store, account, 1, subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "parked"))
    await changed(store, account, 1, newer)
    await settled(store, account, delivered(await claimed_one(store, account)))


def _buried(settlement: LaneSettlement, count: int) -> LaneSettlement:
    """Let edits that were merged die with their carrier, the last of them, as the drainer does it."""
    settlement.entries += [EntrySettlement(seq, "dead", False) for seq in range(1, count)]
    return settlement


async def _retry(store: Store, seq: int) -> None:
    async with store.begin() as connection:
        await retry_entry(connection, (await entry_of(store, 1, seq))["id"])


async def _skip(store: Store, seq: int) -> None:
    async with store.begin() as connection:
        await skip_entry(connection, (await entry_of(store, 1, seq))["id"], settle_window_s=0)


async def _next(store: Store, account: Account) -> list[LocalChange]:
    return sent((await claimed_one(store, account)).plan)


async def test_an_edit_that_is_retried_does_not_take_along_what_was_overtaken(store: Store) -> None:
    """To retry "Fenna" itself is refused; retried was the gender beside it, and "Fenna" went out over "Chris"."""
    account = await account_with(store)
    dead = (profile(first_name="Fenna"), profile(gender="F"))
    await _passed(store, account, *dead, newer=profile(first_name="Chris"))
    await _retry(store, 2)
    lane = await claimed_one(store, account)
    assert sent(lane.plan) == [profile(gender="F")]
    assert [each.seq for each in lane.plan.steps[0].superseded] == [1]  # nothing of it is left to be said


async def test_a_later_edit_does_not_take_along_what_was_overtaken(store: Store) -> None:
    """Nobody retried anything: the call was decided, and the application edited another column."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), newer=profile(first_name="Chris"))
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    assert await _next(store, account) == [profile(last_name="Vos")]


async def test_a_plan_leaves_out_what_a_dropped_claim_may_have_said(store: Store) -> None:
    """The plan does not write the doubt down, and must not lend what the next claim will not."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), profile(gender="F"), newer=profile(last_name="Vos"))
    await changed(store, account, 1, profile(first_name="Chris"))
    await claimed_one(store, account)  # and dropped
    await _retry(store, 2)
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() - interval '1 s', claimed_by = 'gone'")
    async with store.begin() as connection:
        (planned,) = [lane async for lane in waiting_lanes(connection, account.id, is_repeat_safe, NOW)]
    drained = await claimed_one(store, account)
    assert [entry.change for entry in planned.entries] == [entry.change for entry in drained.entries]


async def test_a_refused_edit_on_the_other_side_of_a_barrier_is_not_in_doubt_with_a_dropped_call(store: Store) -> None:
    """It lent nothing. In doubt it would keep an older edit of another column waiting, and a value from being said once
    more."""
    account = await account_with(store)
    await changed(store, account, 1, profile(last_name="Vos"))
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await changed(store, account, 1, subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "parked"))
    await changed(store, account, 1, profile(last_name="Das"))
    assert await _next(store, account) == [profile(last_name="Das")]  # and dropped
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now() - interval '1 s'")
    again = await claimed_one(store, account)
    assert [(entry.seq, entry.is_uncertain) for entry in again.entries] == [(1, False), (2, False), (3, True)]


async def test_what_nothing_later_has_said_is_lent_all_the_same(store: Store) -> None:
    """The application wrote it, and it was delivered by nobody."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna", gender="F"), newer=profile(first_name="Chris"))
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    assert await _next(store, account) == [profile(last_name="Vos", gender="F")]


async def test_what_was_folded_into_a_later_edit_has_been_said(store: Store) -> None:
    """Its call was carried by an edit of another column."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), newer=profile(gender="F"))
    await changed(store, account, 1, profile(first_name="Chris"), profile(gender="M"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    assert await _next(store, account) == [profile(last_name="Vos")]


async def test_what_is_shown_otherwise_does_not_come_back_over_a_newer_value(store: Store) -> None:
    """A read may find it so in the moment in which the newer value is delivered."""
    account = await account_with(store)
    await changed(store, account, 1, profile(first_name="Fenna"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, profile(first_name="Chris"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET status = 'diverged' WHERE seq = 1")
    await changed(store, account, 1, profile(last_name="Vos"))
    assert await _next(store, account) == [profile(last_name="Vos")]


async def test_what_may_have_been_overtaken_is_not_lent(store: Store) -> None:
    """No older value follows a newer one, even where nobody can tell whether the newer one was applied."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), profile(gender="F"), newer=profile(last_name="Vos"))
    await changed(store, account, 1, profile(first_name="Chris"))
    lost = failed(await claimed_one(store, account), "dead")
    lost.entries = [msgspec.structs.replace(each, is_uncertain=True) for each in lost.entries]
    await settled(store, account, lost)
    await _retry(store, 2)
    assert await _next(store, account) == [profile(gender="F")]


async def test_what_only_says_an_older_value_again_overtakes_nothing(store: Store) -> None:
    """It stands behind the refused edit, and its value is older."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), newer=profile(gender="F"))
    await changed(store, account, 1, profile(first_name="Older"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await run_sql(store, "UPDATE syncd.entries SET reasserts = 1 WHERE payload -> 'new' ->> 'first_name' = 'Older'")
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    assert await _next(store, account) == [profile(first_name="Fenna", last_name="Vos")]


@pytest.mark.parametrize("payload", ['{"new": "what"}', '{"new": null}', "{}", "[]"])
async def test_what_nobody_can_read_has_said_nothing(store: Store, payload: str) -> None:
    """One broken row must not keep all lanes from being claimed."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), newer=profile(first_name="Chris"))
    await run_sql(store, "UPDATE syncd.entries SET payload = CAST(:payload AS jsonb) WHERE seq = 3", payload=payload)
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    assert await _next(store, account) == [profile(first_name="Fenna", last_name="Vos")]


async def test_an_entry_keeps_all_that_the_application_wrote(store: Store) -> None:
    """What counts of it is found anew each time; a person sees what was asked for."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), newer=profile(first_name="Chris"))
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    (fenna,) = await rows(store, "SELECT status, payload -> 'new' AS new FROM syncd.entries WHERE seq = 1")
    assert fenna == {"status": "superseded", "new": {"first_name": "Fenna"}}


async def test_a_plan_tells_what_will_be_sent(store: Store) -> None:
    """A plan that tells of the older value would be right to frighten its reader, and would be wrong."""
    account = await account_with(store)
    await _passed(store, account, profile(first_name="Fenna"), newer=profile(first_name="Chris"))
    await _skip(store, 2)
    await changed(store, account, 1, profile(last_name="Vos"))
    async with store.begin() as connection:
        lanes = [lane async for lane in waiting_lanes(connection, account.id, is_repeat_safe, NOW)]
    assert [entry.change for lane in lanes for entry in lane.entries] == [profile(), profile(last_name="Vos")]
