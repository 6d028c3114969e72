"""What a person may do to an entry while the daemon runs: nothing of it can break order."""

import asyncio

import pytest
from sqlalchemy import text

from syncd.domain.account import Account
from syncd.domain.errors import UserError
from syncd.store import Store
from syncd.store.account_states import look
from syncd.store.outbox import (
    AttemptRow,
    ClaimedLane,
    Reassertion,
    Selection,
    count_entries,
    group_by_reason,
    list_entries,
    pause_accounts,
    resume_accounts,
    retry_entries,
    show_entry,
)
from tests.support.claims import (
    account_with,
    begun,
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
from tests.support.lanes import NOW, add, create, email, field, profile, remove, sent, subscribe
from tests.support.locks import until_blocked
from tests.support.outbox import new_account, retry_entry, rows, run_sql, skip_entry


async def _retry(store: Store, entry_id: int, **given: bool) -> None:
    async with store.begin() as connection:
        await retry_entry(connection, entry_id, **given)


async def _skip(store: Store, entry_id: int) -> bool:
    async with store.begin() as connection:
        return await skip_entry(connection, entry_id, reason="not wanted")


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
    await changed(store, account, 1, remove(2))
    lane = await claimed_one(store, account)
    await _retry(store, (await entry_of(store, 1))["id"])
    assert not (await lane_of(store, 1))["is_due"], "not before the worker's last request can have ended"
    assert (await settled(store, account, delivered(lane))).fenced == {lane.lane_id}
    await expire(store)
    assert sent((await claimed_one(store, account)).plan) == [add(), remove(2)]


async def test_touching_a_lane_in_mid_barrier_keeps_the_doubt(store: Store) -> None:
    """The fenced worker may have mailed: the next one must read back."""
    account = await account_with(store)
    await changed(store, account, 1, add(), subscribe())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    assert await begun(store, await claimed_one(store, account))
    await _skip(store, (await entry_of(store, 1))["id"])
    await expire(store)
    assert (await claimed_one(store, account)).plan.steps[0].carrier.is_uncertain


async def test_a_barrier_that_is_skipped_before_it_began_never_begins(store: Store) -> None:
    """The operator is told that nobody has it in hand, and that is the truth: its worker asks before it sends."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    lane = await claimed_one(store, account)
    is_in_hand = await _skip(store, (await entry_of(store, 1))["id"])
    assert not is_in_hand
    assert not await begun(store, lane)


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


async def test_an_older_value_is_not_sent_after_a_newer_one_that_may_have_arrived(store: Store) -> None:
    """A value whose answers were all lost is dead and may be at the CRM: the one before it would undo it."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"))
    await settled(store, account, failed(await claimed_one(store, account), "dead", error="no"))
    await changed(store, account, 1, field("b"))
    lane = await claimed_one(store, account)
    lost = failed(lane, "dead", error="the answer was lost")
    lost.attempts.append(AttemptRow(lane.entries[-1].id, "set_field", NOW, 1.0, 1, None, "unknown", "lost"))
    await settled(store, account, lost)
    with pytest.raises(UserError, match="may have been applied"):
        await _retry(store, (await entry_of(store, 1, 1))["id"])
    await _retry(store, (await entry_of(store, 1, 2))["id"])
    assert sent((await claimed_one(store, account)).plan) == [field("b")]


async def test_an_older_value_may_be_sent_when_the_newer_one_was_refused(store: Store) -> None:
    """A plain no leaves no trace."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"))
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await changed(store, account, 1, field("b"))
    lane = await claimed_one(store, account)
    refused = failed(lane, "dead")
    refused.attempts.append(AttemptRow(lane.entries[-1].id, "set_field", NOW, 1.0, 1, 400, "rejected", "no"))
    await settled(store, account, refused)
    await _retry(store, (await entry_of(store, 1, 1))["id"])
    assert sent((await claimed_one(store, account)).plan) == [field("a")]


async def test_an_older_value_is_not_sent_after_one_that_was_given_up(store: Store) -> None:
    """It may have been in the hands of a worker when it was; whoever wants the older value edits the row."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, field("b"))
    await _skip(store, (await entry_of(store, 1, 2))["id"])
    async with store.begin() as connection:
        await connection.exec_driver_sql("UPDATE syncd.entries SET status = 'diverged' WHERE seq = 1")
    with pytest.raises(UserError, match="given up"):
        await _retry(store, (await entry_of(store, 1, 1))["id"])


@pytest.mark.parametrize("status", ["pending", "dead", "held"])
async def test_a_facet_is_given_up_oldest_first(store: Store, status: str) -> None:
    """The newer one may be under way, with the older one folded into it: given up alone, the older would follow it."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"), field("b"), field("c", number=2))
    async with store.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE syncd.entries SET status = '{status}' WHERE seq = 1")
    first, second, other = [(await entry_of(store, 1, seq))["id"] for seq in (1, 2, 3)]
    with pytest.raises(UserError, match=f"entry {first} changed"):
        await _skip(store, second)
    for entry_id in (other, first, second):
        await _skip(store, entry_id)


async def test_a_refused_create_is_not_retried_while_its_correction_is_being_sent(store: Store) -> None:
    """Two creates of one person, under two addresses, would be two people."""
    account = await account_with(store, 0, unbound=1)
    await changed(store, account, 1, create("a@x.example"))
    lane = await claimed_one(store, account)
    refused = failed(lane, "dead")
    refused.attempts.append(AttemptRow(lane.entries[0].id, "create_relation", NOW, 1.0, 1, 400, "rejected", "no"))
    await settled(store, account, refused)
    await changed(store, account, 1, email("b@x.example", "a@x.example"))
    assert sent((await claimed_one(store, account)).plan) == [create("b@x.example")]
    with pytest.raises(UserError, match="being sent at this moment"):
        await _retry(store, (await entry_of(store, 1, 1))["id"])


async def test_a_change_is_not_given_up_while_an_older_value_waits_to_be_said_again(store: Store) -> None:
    """A re-assertion that nothing newer supersedes any more would be sent after what a worker may just have brought."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    await changed(store, account, 1, field("b"), field("a"))
    async with store.begin() as connection:
        await connection.exec_driver_sql("UPDATE syncd.entries SET reasserts = 1 WHERE seq = 3")
    second, again = (await entry_of(store, 1, 2))["id"], (await entry_of(store, 1, 3))["id"]
    with pytest.raises(UserError, match=f"entry {again} changed"):
        await _skip(store, second)
    await _skip(store, again)
    await _skip(store, second)


async def test_an_older_value_that_was_said_again_is_no_obstacle(store: Store) -> None:
    """It stands behind the refused change, and is older: who wants the change must still be able to have it."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    lane = await claimed_one(store, account)
    doubted = delivered(lane, reassertions=[Reassertion(add(1), lane.plan.steps[0].carrier.id, 3600.0)])
    await settled(store, account, doubted)
    await changed(store, account, 1, remove(1))
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    refused = (await entry_of(store, 1, 3))["id"]
    await run_sql(store, "UPDATE syncd.entries SET status = 'accepted' WHERE reasserts IS NOT NULL")
    await run_sql(store, "UPDATE syncd.entries SET seq = 4 WHERE reasserts IS NOT NULL")
    await _retry(store, refused)
    assert sent((await claimed_one(store, account)).plan) == [remove(1)]


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_an_older_value_is_not_retried_while_a_newer_one_is_on_its_way(store: Store, is_claimed: bool) -> None:
    """In a worker's hands, or backing off after a lost answer: a barrier between the two could send the older alone."""
    account = await account_with(store)
    await changed(store, account, 1, field("a"))
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await changed(store, account, 1, field("b"))
    lane = await claimed_one(store, account)
    if not is_claimed:
        lost = failed(lane, delay_s=60)
        lost.attempts.append(AttemptRow(lane.entries[-1].id, "set_field", NOW, 1.0, 1, None, "unknown", "lost"))
        await settled(store, account, lost)
    with pytest.raises(UserError, match="being sent at this moment" if is_claimed else "tried again"):
        await _retry(store, (await entry_of(store, 1, 1))["id"])


async def test_an_older_value_is_not_retried_behind_one_that_a_reassertion_has_settled(store: Store) -> None:
    """The newer one was delivered, shown otherwise and said once more: the CRM has it."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe(), field("b"))
    await settled(store, account, delivered(await claimed_one(store, account)))
    lane = await claimed_one(store, account)
    again = Reassertion(field("b"), lane.plan.steps[0].carrier.id, 0.0)
    await settled(store, account, delivered(lane, "diverged", reassertions=[again], after_s=0.0))
    await settled(store, account, delivered(await claimed_one(store, account)))
    assert (await entry_of(store, 1, 2))["status"] == "superseded"
    older = "SET status = 'dead', operation = 'set_field', facet = n.facet, payload = n.payload"
    await run_sql(store, f"UPDATE syncd.entries e {older} FROM syncd.entries n WHERE e.seq = 1 AND n.seq = 2")
    with pytest.raises(UserError, match="cannot be retried"):
        await _retry(store, (await entry_of(store, 1))["id"])


async def test_skipping_says_whether_a_worker_had_it_in_hand(store: Store) -> None:
    """What is given up while it is sent may reach the CRM all the same; a person must know."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    await claimed_one(store, account)
    await changed(store, account, 1, add(2))
    async with store.begin() as connection:
        assert await skip_entry(connection, (await entry_of(store, 1, 1))["id"])
        assert not await skip_entry(connection, (await entry_of(store, 1, 2))["id"])


async def test_what_is_skipped_in_a_workers_hand_may_begin_until_its_lease_is_over(store: Store) -> None:
    """The worker learns of it when it renews; what it sends until then may land a settle window later."""
    account = await account_with(store)
    await changed(store, account, 1, profile(first_name="A"))
    await claimed_one(store, account, lease_s=1000.0)
    async with store.begin() as connection:
        assert await skip_entry(connection, (await entry_of(store, 1))["id"], settle_window_s=100.0)
    told = "{} BETWEEN now() + interval '1000 seconds' AND now() + interval '1100 seconds' AS is_long"
    for column, table in (("profile_lands_until", "lanes"), ("next_attempt_at", "entries WHERE reasserts IS NOT NULL")):
        (row,) = await rows(store, f"SELECT {told.format(column)} FROM syncd.{table}")
        assert row["is_long"], column


async def test_every_decision_is_recorded(store: Store) -> None:
    """Who, what, why and when, beside what was tried."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    entry_id = (await entry_of(store, 1))["id"]
    async with store.begin() as connection:
        await retry_entry(connection, entry_id, actor="jan", reason="tag is back")
        await skip_entry(connection, entry_id, actor="piet", reason="not any more")
        story = await show_entry(connection, entry_id)
    assert story is not None
    assert [(d.verb, d.actor, d.reason) for d in story.decisions] == [
        ("retry", "jan", "tag is back"),
        ("skip", "piet", "not any more"),
    ]
    assert story.entry.reason is None, "why the edit was made is the application's word"


async def test_a_refused_decision_leaves_no_record(store: Store) -> None:
    """Nothing was decided."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    with pytest.raises(UserError):
        await _retry(store, (await entry_of(store, 1))["id"])
    assert await rows(store, "SELECT 1 FROM syncd.decisions") == []


async def test_accounts_are_paused_and_resumed_by_name_or_all_at_once(store: Store) -> None:
    """The stop button, and who pressed it."""
    account = await account_with(store)
    other = await new_account(store, "other")
    async with store.begin() as connection:
        assert await pause_accounts(connection, "other", actor="jan", reason="moving house") == ("other",)
        assert (await look(connection, other.id)).paused == "moving house"
        assert (await look(connection, account.id)).paused is None
        assert await pause_accounts(connection, None, actor="jan") == ("default", "other")
        assert await resume_accounts(connection, None, actor="piet") == ("default", "other")
        assert await resume_accounts(connection, None, actor="piet") == ()
        with pytest.raises(UserError, match="default, other"):
            await pause_accounts(connection, "shop")
    found = await rows(store, "SELECT verb, actor, reason FROM syncd.decisions ORDER BY id")
    assert [tuple(row.values()) for row in found] == [
        ("pause", "jan", "moving house"),
        ("pause", "jan", None),
        ("pause", "jan", None),
        ("resume", "piet", None),
        ("resume", "piet", None),
    ]


async def test_what_failed_alike_is_one_line(store: Store) -> None:
    """Five thousand dead entries are three troubles."""
    account = await account_with(store, 6)
    for relation in range(1, 7):
        await changed(store, account, relation, add(1 + relation % 2))
    for lane in (await claimed(store, account)).lanes:
        tag = 1 + (lane.relation_id or 0) % 2
        words = f"tag {lane.relation_id} is unknown" if tag == 1 else "not a member"
        await settled(store, account, failed(lane, "dead", error=words))
    async with store.begin() as connection:
        groups = await group_by_reason(connection, Selection(statuses=("dead",)))
        counts = await count_entries(connection, Selection())
    assert {(group.reason, group.entries, group.relations) for group in groups} == {
        ("tag # is unknown", 3, 3),
        ("not a member", 3, 3),
    }
    assert counts == {"dead": 6}


async def test_a_person_who_retries_several_entries_meets_no_settler_in_a_circle(store: Store) -> None:
    """Their lanes are locked first, in the order in which a settle locks them, whatever order they are named in."""
    account = await account_with(store, 2)
    for relation in (1, 2):
        await changed(store, account, relation, add())
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead'")
    ids = [row["id"] for row in await rows(store, "SELECT id FROM syncd.entries ORDER BY id DESC")]

    async def retry() -> None:
        async with store.begin() as connection:
            await retry_entries(connection, ids)

    lock = text("SELECT 1 FROM syncd.lanes WHERE relation_id = :id FOR UPDATE NOWAIT")
    async with store.begin() as settler:
        await settler.execute(lock, {"id": 1})
        retrying = asyncio.create_task(retry())
        await until_blocked(store)
        await settler.execute(lock, {"id": 2})
    await retrying
    assert await rows(store, "SELECT 1 FROM syncd.entries WHERE status <> 'pending'") == []
