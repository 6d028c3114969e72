"""Claim: who sends a lane now, and what is written down before anything is sent."""

import asyncio
from collections import defaultdict

from sqlalchemy import event, text

from syncd.domain.changes import LocalChange
from syncd.store import Store
from syncd.store.outbox import Terms, claim
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
from tests.support.lanes import add, create, email, is_repeat_safe, profile, remove, sent, subscribe
from tests.support.locks import until_blocked
from tests.support.outbox import rows, run_sql, stage_all


async def test_a_claim_raises_the_epoch_sets_the_lease_and_records_the_intent(store: Store) -> None:
    """Whoever finds the lane after a crash must know that sending had begun, and how far it may have come."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    lane = await claimed_one(store, account)
    row = await lane_of(store, 1)
    assert (row["epoch"], row["sending_upto"], row["claimed_by"], row["is_due"]) == (lane.epoch, 2, "w", False)
    assert (lane.remote_id, lane.email, sent(lane.plan)) == ("1", "1@x.example", [add(1), add(2)])


async def test_two_claimers_never_get_the_same_lane(store: Store) -> None:
    """Order per relation rests on it."""
    account = await account_with(store, 40)
    for relation in range(1, 41):
        await changed(store, account, relation, add())
    claims = await asyncio.gather(*(claimed(store, account, f"w{n}", most=20) for n in range(4)))
    lanes = [lane.lane_id for claim in claims for lane in claim.lanes]
    assert len(lanes) == len(set(lanes)) == 40


async def test_many_workers_deliver_every_entry_once_and_in_order(store: Store) -> None:
    """A locking read may return a lane as another worker just left it: entries read with it would be sent twice."""
    account = await account_with(store, 8)
    wanted = [subscribe(n) for n in range(1, 6)]
    for relation in range(1, 9):
        await changed(store, account, relation, *wanted)
    sent_to: dict[int | None, list[LocalChange]] = defaultdict(list)

    async def work(worker: str) -> None:
        while sum(map(len, sent_to.values())) < 8 * 5:
            for lane in (await claimed(store, account, worker, most=3)).lanes:
                sent_to[lane.relation_id] += sent(lane.plan)
                assert not (await settled(store, account, delivered(lane), worker=worker)).fenced

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work(f"w{number}"))
    assert all(calls == wanted for calls in sent_to.values())


async def test_a_lane_with_nothing_to_send_now_sleeps_until_its_back_off_ends(store: Store) -> None:
    """Otherwise every poll would look at every waiting lane."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, failed(await claimed_one(store, account), delay_s=3600))
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    found = await claimed(store, account)
    assert (found.lanes, found.looked) == ((), 1)
    row, entry = await lane_of(store, 1), await entry_of(store, 1)
    assert row["ready_at"] == entry["next_attempt_at"]
    assert row["claimed_by"] is None


async def test_a_lane_that_waits_for_a_person_costs_nothing(store: Store) -> None:
    """Dead entries must not make their lane due again and again."""
    account = await account_with(store)
    await changed(store, account, 1, add())
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    await claimed(store, account)
    row = await lane_of(store, 1)
    assert (row["ready_at"], row["acked_seq"]) == (None, 1)


async def test_a_dropped_barrier_is_marked_uncertain_before_anybody_sends_again(store: Store) -> None:
    """The worker died somewhere between the beginning and the settle: the mail may be out."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    assert await begun(store, await claimed_one(store, account))
    await expire(store)
    lane = await claimed_one(store, account, "other")
    assert lane.plan.steps[0].carrier.is_uncertain
    assert (await entry_of(store, 1))["is_uncertain"]


async def test_a_dropped_barrier_that_had_not_begun_is_sent_as_if_for_the_first_time(store: Store) -> None:
    """Nobody is asked about a mail that provably never left."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe(), add())
    assert sent((await claimed_one(store, account)).plan) == [subscribe()]
    await expire(store)
    lane = await claimed_one(store, account, "other")
    assert sent(lane.plan) == [subscribe()]
    assert [e.is_uncertain for e in lane.entries] == [False, False]


async def test_nothing_begins_on_a_lane_that_is_not_ours_any_more(store: Store) -> None:
    """Who slept past a lease may wake up at this very place: what was claimed anew, touched or settled stays alone."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    late = await claimed_one(store, account)
    assert not await begun(store, late, "somebody else")
    await expire(store)
    again = await claimed_one(store, account, "other")
    assert not await begun(store, late)
    assert (await lane_of(store, 1))["sending_upto"] == -1
    assert await begun(store, again, "other")
    await settled(store, account, delivered(again), worker="other")
    assert not await begun(store, again, "other")
    assert (await lane_of(store, 1))["sending_upto"] is None


async def test_a_dropped_create_is_marked_uncertain_too(store: Store) -> None:
    """It is looked up by its address before it is sent again."""
    account = await account_with(store, 0, unbound=1)
    await changed(store, account, 1, create("1@x.example"))
    await claimed_one(store, account)
    await expire(store)
    assert (await claimed_one(store, account, "other")).plan.steps[0].carrier.is_uncertain


async def test_a_barrier_that_the_dropped_claim_did_not_send_stays_certain(store: Store) -> None:
    """The intent names what was being sent: reading back what never went out would park it for nothing."""
    account = await account_with(store)
    await changed(store, account, 1, add(), subscribe())
    await claimed_one(store, account)
    await expire(store)
    assert sent((await claimed_one(store, account)).plan) == [add()]
    await expire(store)
    await settled(store, account, delivered(await claimed_one(store, account)))
    assert not (await claimed_one(store, account)).plan.steps[0].carrier.is_uncertain


async def test_a_settled_barrier_leaves_no_doubt_behind(store: Store) -> None:
    """Only what was dropped is in doubt; a call that failed for certain may simply be sent again."""
    account = await account_with(store)
    await changed(store, account, 1, subscribe())
    await settled(store, account, failed(await claimed_one(store, account), delay_s=0))
    assert not (await claimed_one(store, account)).plan.steps[0].carrier.is_uncertain


async def test_a_payload_that_nobody_can_read_is_claimed_as_broken(store: Store) -> None:
    """It must reach its grave, with the reason, and not end the claim of a hundred other lanes."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2))
    await run_sql(store, 'UPDATE syncd.entries SET payload = \'{"tag_id": "seven"}\' WHERE seq = 1')
    lane = await claimed_one(store, account)
    assert [e.seq for e in lane.plan.broken] == [1]
    assert "cannot be read" in lane.plan.broken[0].fault
    assert sent(lane.plan) == [add(2)]


async def test_an_operation_of_a_newer_version_is_broken_not_fatal(store: Store) -> None:
    """Expand, deploy, contract: an old replica may see new operations for a minute."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    await run_sql(store, "UPDATE syncd.entries SET operation = 'merge_relations'")
    assert "not known" in (await claimed_one(store, account)).plan.broken[0].fault


async def test_a_window_bounds_what_one_claim_reads(store: Store) -> None:
    """One relation with fifty thousand entries must not starve the others."""
    account = await account_with(store)
    await changed(store, account, 1, *(add(n % 5 + 1) for n in range(8)))
    lane = await claimed_one(store, account, window=3)
    assert (len(lane.entries), lane.seen_seq) == (3, 3)
    await settled(store, account, delivered(lane))
    assert (await lane_of(store, 1))["is_due"]


async def test_a_window_full_of_waiting_entries_is_read_whole(store: Store) -> None:
    """Otherwise dead entries at the front would block every later facet of the relation: G6."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), remove(1), add(2), add(3))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE seq <= 3")
    assert sent((await claimed_one(store, account, window=2)).plan) == [add(3)]


async def test_a_wide_window_is_cut_to_what_one_claim_may_send(store: Store) -> None:
    """Behind a hundred entries that back off there may be thousands that need not: they, too, go in turns."""
    account = await account_with(store)
    await changed(store, account, 1, *(add(n) for n in range(1, 13)))
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour' WHERE seq <= 3")
    lane = await claimed_one(store, account, window=2)
    assert sent(lane.plan) == [add(4), add(5)]
    assert lane.seen_seq == 5
    await settled(store, account, delivered(lane, "accepted"))
    assert (await lane_of(store, 1))["is_due"]
    assert sent((await claimed_one(store, account, window=2)).plan) == [add(6), add(7)]


async def test_a_lane_that_waits_as_a_whole_is_not_read_further(store: Store) -> None:
    """A parked create with fifty thousand edits behind it, and one more every second, must cost others nothing."""
    account = await account_with(store)
    await changed(store, account, 1, email("b@x.example"), *(add(n) for n in range(1, 30)))
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked' WHERE seq = 1")
    reads: list[int] = []
    async with store.begin() as connection:
        raw = connection.sync_connection
        assert raw is not None
        event.listen(raw, "after_cursor_execute", lambda *given: reads.append("FROM syncd.entries" in given[2]))
        terms = Terms("w", 60.0, 2, is_repeat_safe)
        assert (await claim(connection, account.id, terms, most=5)).lanes == ()
    assert sum(reads) == 1
    assert (await lane_of(store, 1))["ready_at"] is None


async def test_a_lane_that_somebody_has_locked_is_skipped_and_not_waited_for(store: Store) -> None:
    """An operator at a prompt, a stager in a long batch: all other lanes go on."""
    account = await account_with(store, 3)
    for relation in (1, 2, 3):
        await changed(store, account, relation, add())
    async with asyncio.timeout(10), store.begin() as producer:
        await producer.execute(text("SELECT 1 FROM syncd.lanes WHERE relation_id = 2 FOR UPDATE"))
        assert {lane.relation_id for lane in (await claimed(store, account)).lanes} == {1, 3}
    assert {lane.relation_id for lane in (await claimed(store, account)).lanes} == {2}


async def test_a_change_staged_while_its_lane_is_put_to_sleep_wakes_it(store: Store) -> None:
    """The claim found nothing to send; the stager stands behind its lock and must not be forgotten."""
    account = await account_with(store)
    await changed(store, account, 1, add(1))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead'")
    await run_sql(
        store,
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
           VALUES (:a, 1, 'add_tag', 'tag:2', '{"tag_id": 2, "tag_remote_id": "2", "tag_name": "x"}')""",
        a=account.id,
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, store.begin() as connection:
        terms = Terms("w", 60.0, 100, is_repeat_safe)
        assert (await claim(connection, account.id, terms, most=5)).lanes == ()
        group.create_task(stage_all(store))
        await until_blocked(store)
    row = await lane_of(store, 1)
    assert (row["is_due"], row["tail_seq"]) == (True, 2)


async def test_a_lane_with_more_to_send_goes_behind_those_that_wait(store: Store) -> None:
    """Fairness: after each window a busy lane queues anew, whatever it has left."""
    account = await account_with(store, 3)
    await changed(store, account, 1, *(add(n) for n in range(1, 7)))
    await changed(store, account, 2, add())
    await changed(store, account, 3, add())
    order = []
    for _ in range(5):
        lane = (await claimed(store, account, most=1, window=2)).lanes[0]
        order.append(lane.relation_id)
        await settled(store, account, delivered(lane))
    assert order == [1, 2, 3, 1, 1]


async def test_what_a_dropped_claim_sent_from_beyond_the_window_is_not_forgotten(store: Store) -> None:
    """The head of the lane had nothing to send then, and has now: the call far behind it may have been applied."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2), add(3), subscribe())
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour' WHERE seq <= 3")
    lane = await claimed_one(store, account, window=2)
    assert [step.carrier.seq for step in lane.plan.steps] == [4]
    assert await begun(store, lane)
    await expire(store)
    head = await claimed_one(store, account, "other", window=2)
    told = await rows(store, "SELECT seq FROM syncd.entries WHERE is_uncertain")
    assert (sent(head.plan), [row["seq"] for row in told]) == ([add(1), add(2)], [4])


async def test_a_profile_edit_that_a_dropped_claim_sent_from_beyond_the_window_may_land(store: Store) -> None:
    """It keeps an address from being changed, wherever it stands."""
    account = await account_with(store)
    await changed(store, account, 1, add(1), add(2), add(3), profile(first_name="A"))
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour' WHERE seq <= 3")
    assert [step.carrier.seq for step in (await claimed_one(store, account, window=2)).plan.steps] == [4]
    await expire(store)
    await claimed_one(store, account, "other", window=2, lands_s=600.0)
    (lane,) = await rows(store, "SELECT profile_lands_until > now() AS is_late FROM syncd.lanes")
    assert lane["is_late"]


async def test_an_address_that_a_dead_drainer_may_have_made_a_relation_of_lands_as_a_create(store: Store) -> None:
    """Behind a refused create an e-mail change is sent as that create: it finds by address, and makes what it finds
    not."""
    account = await account_with(store, 0, unbound=1)
    await changed(store, account, 1, create("typo@x.example"), email("right@x.example"))
    await settled(store, account, failed(await claimed_one(store, account), "dead"))
    await run_sql(
        store,
        """INSERT INTO syncd.attempts
               (account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s, requests, outcome)
           SELECT account_id, lane_id, 1, id, operation, now(), 0, 1, 'rejected' FROM syncd.entries WHERE seq = 1""",
    )
    await run_sql(store, "UPDATE syncd.lanes SET ready_at = now()")
    assert sent((await claimed_one(store, account)).plan) == [create("right@x.example")]
    await expire(store)
    await claimed(store, account, lands_s=60.0)
    (lane,) = await rows(store, "SELECT profile_lands_until > now() AS is_late FROM syncd.lanes")
    assert lane["is_late"]
