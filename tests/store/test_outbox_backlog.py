"""The backlog: what still goes out by itself, and what waits for a person."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from syncd.store import Store, outbox_backlog
from syncd.store.outbox import Backlog, count_backlog
from tests.support.claims import account_with, changed, claimed_one
from tests.support.lanes import add, email, is_repeat_safe, profile, remove, subscribe
from tests.support.outbox import remote_sql, run_sql, stage_all


async def _backlog(store: Store, account_id: int) -> Backlog:
    async with store.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '2s'"))
        return await count_backlog(connection, account_id, is_repeat_safe)  # type: ignore[arg-type]


async def test_one_endless_lane_is_counted_at_once(store: Store) -> None:
    """Every one-shot drain ends with this count: asking of each entry what is before it took minutes."""
    account = await account_with(store)
    await run_sql(
        store,
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
           SELECT :a, 1, 'add_tag', 'tag:' || n, '{"tag_id": 1, "tag_remote_id": "1", "tag_name": "x"}'
               FROM generate_series(1, 5000) n""",
        a=account.id,
    )
    assert await _backlog(store, account.id) == Backlog(5000, 0), "what is not staged yet counts"
    await changed(store, account, 1, add())
    assert await _backlog(store, account.id) == Backlog(5001, 0)
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked' WHERE seq = 1")
    assert await _backlog(store, account.id) == Backlog(4999, 2)


async def test_a_burst_of_new_addresses_is_counted_at_once(store: Store) -> None:
    """Nothing has counted the table since: asking for each who has left its address looked through the whole burst."""
    account = await account_with(store)
    await remote_sql(
        store,
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
           SELECT :a, n, 'change_email', 'identity', jsonb_build_object('old', n || '@x.nl', 'new', n || '@y.nl')
               FROM generate_series(1, 4000) n""",
        a=account.id,
    )
    await stage_all(store)
    assert await _backlog(store, account.id) == Backlog(4000, 0)


async def test_what_waits_behind_something_waits_as_well(store: Store) -> None:
    """A facet behind its own parked entry, a relation behind its identity; never the lane next to it."""
    account = await account_with(store, 3)
    await changed(store, account, 1, add(1), remove(1), add(2))
    await changed(store, account, 2, email("b@x.example"), add(1), email("c@x.example"))
    await changed(store, account, 3, add(1))
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked' WHERE seq = 1 AND relation_id IN (1, 2)")
    assert await _backlog(store, account.id) == Backlog(pending=2, blocked=5)


async def test_a_mended_address_gets_past_what_the_crm_refused_and_takes_the_rest_along(store: Store) -> None:
    """The claim plans so; counted otherwise, a drain would wait for what is never sent, or not for what is."""
    account = await account_with(store)
    await changed(store, account, 1, email("b@x.example"), add(1), email("c@x.example"))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE seq = 1")
    assert await _backlog(store, account.id) == Backlog(pending=0, blocked=3)
    await run_sql(
        store,
        """INSERT INTO syncd.attempts (account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s, requests,
                                       outcome)
           SELECT account_id, lane_id, 1, id, operation, now(), 0, 1, 'rejected' FROM syncd.entries WHERE seq = 1""",
    )
    assert await _backlog(store, account.id) == Backlog(pending=2, blocked=1)


async def test_who_takes_the_address_of_one_that_waits_for_a_person_waits_as_well(store: Store) -> None:
    """And so does who takes that one's; who takes an address of one that backs off is on its way."""
    account = await account_with(store, 5)
    await changed(store, account, 1, email("b@x.example", "a@x.example"))
    await changed(store, account, 2, email("a@x.example", "c@x.example"), add(1))
    await changed(store, account, 3, email("c@x.example", "d@x.example"))
    assert await _backlog(store, account.id) == Backlog(pending=4, blocked=0)
    await run_sql(store, "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour' WHERE relation_id = 1")
    assert await _backlog(store, account.id) == Backlog(pending=4, blocked=0)
    await changed(store, account, 4, add(1))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead' WHERE relation_id = 1")
    assert await _backlog(store, account.id) == Backlog(pending=1, blocked=4)
    await changed(store, account, 3, email("free@x.example", "c@x.example"))
    assert await _backlog(store, account.id) == Backlog(pending=3, blocked=3)


async def test_who_is_waited_for_behind_a_person_s_decision_lets_nobody_go(store: Store) -> None:
    """It is pending itself, and stands in a lane that nobody asked about: a held change is in front of it."""
    account = await account_with(store, 2)
    await changed(store, account, 1, email("z@x.example", "y@x.example"), email("b@x.example", "a@x.example"))
    await changed(store, account, 2, email("a@x.example", "c@x.example"))
    await changed(store, account, None, subscribe())
    await run_sql(store, "UPDATE syncd.entries SET status = 'held' WHERE relation_id = 1 AND seq = 1")
    assert await _backlog(store, account.id) == Backlog(pending=1, blocked=3)


async def test_an_address_that_is_taken_on_the_word_of_a_diverged_change_waits_for_a_person(store: Store) -> None:
    """The CRM said yes and shows something else: that one is told of elsewhere and not counted here."""
    account = await account_with(store, 2)
    await changed(store, account, 1, email("b@x.example", "a@x.example"))
    await changed(store, account, 2, email("a@x.example", "c@x.example"))
    await run_sql(store, "UPDATE syncd.entries SET status = 'diverged' WHERE relation_id = 1")
    assert await _backlog(store, account.id) == Backlog(pending=0, blocked=1)


async def test_an_edit_behind_which_a_newer_one_is_in_doubt_waits_for_a_person(store: Store) -> None:
    """Of the same column: sent now, the older value would follow the newer."""
    account = await account_with(store, 2)
    for relation, column in ((1, "first_name"), (2, "last_name")):
        await changed(store, account, relation, profile(first_name="A"), profile(**{column: "B"}))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead', is_uncertain = true WHERE seq = 2")
    assert await _backlog(store, account.id) == Backlog(pending=1, blocked=3)


async def test_an_edit_is_counted_as_a_claim_would_find_it(store: Store) -> None:
    """What a newer delivery has said of the one in doubt keeps nobody waiting any more."""
    account = await account_with(store)
    await changed(store, account, 1, *(profile(first_name=name) for name in "ABC"))
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead', is_uncertain = true WHERE seq = 2")
    await run_sql(store, "UPDATE syncd.entries SET status = 'accepted' WHERE seq = 3")
    assert await _backlog(store, account.id) == Backlog(pending=1, blocked=1)
    assert len((await claimed_one(store, account)).plan.steps) == 1


async def test_a_change_that_a_newer_one_in_doubt_has_passed_waits_for_a_person(store: Store) -> None:
    """The newer one is shown otherwise: counted as on its way, the older would be tried again for ever."""
    account = await account_with(store)
    await changed(store, account, 1, remove(1), add(1), add(2))
    await run_sql(store, "UPDATE syncd.entries SET status = 'diverged', is_uncertain = true WHERE seq = 2")
    assert await _backlog(store, account.id) == Backlog(pending=1, blocked=1)
    assert len((await claimed_one(store, account)).plan.steps) == 1


async def test_lanes_are_played_in_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_backlog, "_BATCH", 2)
    account = await account_with(store, 5)
    for relation in range(1, 6):
        await changed(store, account, relation, add(1), remove(1), add(2))
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked' WHERE seq = 1")
    assert await _backlog(store, account.id) == Backlog(pending=5, blocked=10)


async def test_a_value_that_is_said_once_more_is_counted_as_such_in_any_lane(store: Store) -> None:
    account = await account_with(store, 2)
    await changed(store, account, 1, email("b@x.example", "a@x.example"))
    await changed(store, account, 2, add(1), email("a@x.example", "c@x.example"))
    await run_sql(store, "UPDATE syncd.entries SET reasserts = 1 WHERE operation = 'add_tag'")
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked' WHERE relation_id = 1")
    assert await _backlog(store, account.id) == Backlog(pending=0, blocked=2, reasserting=1)
