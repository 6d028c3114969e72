"""Drain on bad days: every kind of failure costs what it must and no more."""

import asyncio
from typing import Any

import pytest

from syncd.store import Store
from tests.support.outbox import QUICK, Circle, circle, retry_entry, rows, run_sql


def _somebody(c: Circle) -> int:
    return next(iter(c.sandbox.world.relations))


async def _tag(c: Circle, tag: int, who: int | None = None) -> None:
    await c.edit(
        "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=who or _somebody(c), tag=tag
    )


def _untagged(c: Circle) -> None:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()


async def _subscribe(c: Circle, who: int) -> None:
    number = next(iter(c.sandbox.world.lists))
    await c.edit(
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "VALUES (:account_id, :who, 'subscribe', :facet, CAST(CAST(:payload AS text) AS jsonb))",
        who=who,
        facet=f"list:{number}",
        payload=f'{{"list_id": {number}, "list_remote_id": "{number}", "skip_optin": false}}',
    )


async def test_a_503_is_tried_again_until_it_works(store: Store) -> None:
    """The most ordinary bad minute."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", operation="tag_add", status=503, times=2)
        await _tag(c, 301)
        report = await c.drain()
        assert (report.delivered, report.retried, report.is_empty) == (1, 2, True)
        assert len(c.sandbox.journal.of("tag.added")) == 1
        outcomes = [a["outcome"] for a in await rows(store, "SELECT outcome FROM syncd.attempts ORDER BY id")]
        assert outcomes == ["retryable", "retryable", "accepted"]


async def test_a_lost_answer_to_a_tag_is_sent_again(store: Store) -> None:
    """Repeat-safe: the second identical call changes nothing, and the effect is one."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("lost_answer", operation="tag_add")
        await _tag(c, 301)
        assert (await c.drain()).is_empty
        assert c.sandbox.requests.by_operation["tag_add"] == 2
        assert len(c.sandbox.journal.of("tag.added")) == 1


async def test_a_lost_answer_to_a_create_makes_one_relation(store: Store) -> None:
    """The address is the key: the second try finds what the first one made, and binds its id."""
    async with circle(store) as c:
        c.sandbox.faults.add("lost_answer", operation="relation_upsert")
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'new@x.example')")
        assert (await c.drain()).is_empty
        assert len(c.sandbox.journal.of("relation.created")) == 1
        created = c.sandbox.world.relation("new@x.example")
        assert created is not None
        assert await rows(store, "SELECT 1 FROM crm.relations WHERE remote_id = :r", r=str(created.id))


async def test_a_lost_answer_to_a_subscription_is_read_back_and_not_repeated(store: Store) -> None:
    """G2: a second call would mail a second time."""
    async with circle(store) as c:
        who = _somebody(c)
        c.sandbox.world.relations[who].events.clear()
        c.sandbox.faults.add("lost_answer", operation="list_subscribe")
        await _subscribe(c, who)
        assert (await c.drain()).is_empty
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        assert c.sandbox.requests.by_operation["relation_subscriptions"] == 1
        assert len(c.sandbox.journal.of("mail.planned")) == 1
        assert [e["status"] for e in await c.entries()] == ["verified"]


async def test_a_subscription_that_reading_cannot_decide_is_parked_with_the_evidence(store: Store) -> None:
    """The request may still land: only a person can tell."""
    async with circle(store) as c:
        who = _somebody(c)
        c.sandbox.world.relations[who].events.clear()
        c.sandbox.faults.add("late", operation="list_subscribe")
        await _subscribe(c, who)
        report = await c.drain()
        assert (report.parked, report.blocked) == (1, 1)
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
        entry = (await c.entries())[0]
        assert (entry["status"], "does not show" in entry["error"]) == ("parked", True)


async def test_what_waits_behind_a_parked_entry_waits_for_the_person_too(store: Store) -> None:
    """A one-shot drain that says "try later" about it would be tried for ever by a timer."""
    async with circle(store) as c:
        who = _somebody(c)
        c.sandbox.world.relations[who].events.clear()
        c.sandbox.faults.add("late", operation="list_subscribe")
        await _subscribe(c, who)
        await c.drain()
        await _subscribe(c, who)
        report = await c.drain()
        assert (report.pending, report.blocked) == (0, 2)


async def test_a_mended_address_brings_a_refused_relation_to_the_crm_after_all(store: Store) -> None:
    """Whoever sees the typing error corrects it by UPDATE: no other way is open to an application."""
    async with circle(store) as c:
        c.sandbox.faults.add("error", operation="relation_upsert")
        c.sandbox.faults.add("status", status=400, operation="relation_upsert", nth=1, times=1)
        await c.edit(
            "INSERT INTO crm.relations (account_id, email, last_name) VALUES (:account_id, 'nora@exmple.org', 'Vries')"
        )
        await c.edit("UPDATE crm.relations SET first_name = 'Nora' WHERE email = 'nora@exmple.org'")
        report = await c.drain()
        assert (report.dead, report.blocked) == (1, 2)
        await c.edit("UPDATE crm.relations SET email = 'nora@example.org' WHERE email = 'nora@exmple.org'")
        await c.drain()
        await c.edit("UPDATE crm.relations SET email = 'nora@example.com' WHERE email = 'nora@example.org'")
        report = await c.drain()
        assert (report.pending, report.blocked) == (0, 0)
        there = c.sandbox.world.relation("nora@example.com")
        assert there is not None
        assert (there.first_name, there.last_name) == ("Nora", "Vries")
        assert c.sandbox.world.relation("nora@exmple.org") is None
        bound = await rows(store, "SELECT remote_id FROM crm.relations WHERE email = 'nora@example.com'")
        assert [row["remote_id"] for row in bound] == [str(there.id)]
        assert len(c.sandbox.journal.of("relation.created")) == 1


async def test_a_create_that_may_have_been_applied_is_not_made_again_elsewhere(store: Store) -> None:
    """Tries that ran out tell nothing about the CRM: a second relation is worse than a question to a person."""
    async with circle(store) as c:
        c.sandbox.faults.add("status", status=500, operation="relation_upsert", times=0)
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'nora@exmple.org')")
        await c.drain(max_attempts=2)
        await c.edit("UPDATE crm.relations SET email = 'nora@example.org' WHERE email = 'nora@exmple.org'")
        asked = c.sandbox.requests.by_operation["relation_upsert"]
        report = await c.drain(max_attempts=2)
        assert c.sandbox.requests.by_operation["relation_upsert"] == asked
        assert (report.pending, report.blocked) == (0, 2), "both wait for a person: trying later changes nothing"
        assert [e["status"] for e in await c.entries()] == ["dead", "pending"]


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 500, "applied": True}, {"kind": "late"}])
async def test_a_no_after_a_doubtful_try_does_not_let_a_create_be_made_elsewhere(
    store: Store, fault: dict[str, Any]
) -> None:
    """The first try made the relation, or is still on its way; that the second was refused says nothing about it."""
    async with circle(store) as c:
        c.sandbox.faults.add(**fault, operation="relation_upsert")
        c.sandbox.faults.add("false", operation="relation_upsert")
        await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'nora@exmple.org')")
        assert (await c.drain()).dead == 1
        await c.edit("UPDATE crm.relations SET email = 'nora@example.org' WHERE email = 'nora@exmple.org'")
        report = await c.drain()
        c.sandbox.land()
        assert (report.delivered, report.pending, report.blocked) == (0, 0, 2)
        assert len(c.sandbox.journal.of("relation.created")) == 1
        (create, _) = await c.entries()
        async with store.begin() as connection:
            await retry_entry(connection, create["id"])
        assert (await c.drain()).blocked == 0
        await c.wake()
        await c.drain()
        assert c.sandbox.world.relation("nora@example.org") is not None
        assert len(c.sandbox.journal.of("relation.created")) == 1


async def test_refused_credentials_pause_the_account_and_cost_no_attempt(store: Store) -> None:
    """A key that was revoked over the weekend must not kill a weekend of changes."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", status=401, times=0)
        await _tag(c, 301)
        report = await c.drain()
        assert report.paused is not None
        assert "401" in report.paused
        assert (report.pending, report.dead) == (1, 0)
        assert [e["attempts"] for e in await c.entries()] == [0]
        sent = c.sandbox.requests.by_operation["tag_add"]
        await c.drain()
        assert c.sandbox.requests.by_operation["tag_add"] == sent, "a paused account is asked by its canary alone"


async def test_a_refusal_of_one_call_alone_costs_its_entry_alone(store: Store) -> None:
    """A key without the right to one call: its entry, always the oldest, would else stop every other for ever."""
    async with circle(store) as c:
        _untagged(c)
        who, other = list(c.sandbox.world.relations)[:2]
        c.sandbox.faults.add("status", operation="tag_add", status=403, times=0)
        await _tag(c, 301, who)
        await c.edit("UPDATE crm.relations SET last_name = 'Ander' WHERE id = :who", who=other)
        report = await c.drain(concurrency=1, max_attempts=3)
        assert (report.paused, report.delivered, report.dead) == (None, 1, 1)
        assert c.sandbox.world.relations[other].last_name == "Ander"
        entry = next(e for e in await c.entries() if e["operation"] == "add_tag")
        assert (entry["status"], entry["attempts"]) == ("dead", 3)
        assert "other calls are answered" in entry["error"]


async def test_the_canary_clears_the_pause(store: Store) -> None:
    """Nobody has to press a button when the key works again."""
    async with circle(store) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", status=401, times=0)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer(probe_s=0.02).run(stop))
            await _tag(c, 301)
            await c.sandbox.until_requests("groups", 2)
            c.sandbox.faults.clear(number)
            await c.sandbox.journal.until(lambda j: bool(j.of("tag.added")))
            stop.set()
        state = (await rows(store, "SELECT paused_at, pause_reason FROM syncd.account_states"))[0]
        assert state == {"paused_at": None, "pause_reason": None}
        assert [(e["status"], e["attempts"]) for e in await c.entries()] == [("accepted", 1)]


async def test_an_operators_pause_holds_and_is_lifted_by_an_operator_alone(store: Store) -> None:
    """Whoever stopped it had a reason that no read can see."""
    from syncd.store.account_states import pause, resume

    async with circle(store) as c:
        _untagged(c)
        async with store.begin() as connection:
            await pause(connection, c.account.id, "audit", by_operator=True)
        await _tag(c, 301)
        assert ((await c.drain()).paused, c.sandbox.requests.total) == ("audit", 0)
        async with store.begin() as connection:
            await resume(connection, c.account.id, by_operator=True)
        assert (await c.drain()).is_empty


async def test_an_operators_pause_stops_a_running_daemon_and_resuming_goes_on(store: Store) -> None:
    """What is claimed goes back, so that "paused" means within a moment and not after the queue."""
    from syncd.store.account_states import pause, resume

    async with circle(store) as c:
        _untagged(c)
        stop = asyncio.Event()
        async with store.begin() as connection:
            await pause(connection, c.account.id, "audit", by_operator=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer().run(stop))
            await _tag(c, 301)
            async with store.begin() as connection:
                await resume(connection, c.account.id, by_operator=True)
            await c.sandbox.journal.until(lambda j: bool(j.of("tag.added")))
            stop.set()
        assert [(e["status"], e["attempts"]) for e in await c.entries()] == [("accepted", 1)]


async def test_a_throttle_holds_the_account_and_costs_no_attempt(store: Store) -> None:
    """Retry-After is the account's, not the entry's."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", operation="tag_add", status=429, retry_after_s=1)
        await _tag(c, 301)
        report = await c.drain()
        assert report.is_empty
        assert report.elapsed_s >= 0.9
        assert [e["attempts"] for e in await c.entries()] == [1]


async def test_a_throttle_longer_than_ones_patience_ends_a_one_shot_drain(store: Store) -> None:
    """Cron must come back later instead of sitting there; other replicas are told through the database."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", operation="tag_add", status=429, retry_after_s=3600)
        await _tag(c, 301)
        report = await c.drain()
        assert (report.pending, report.retried) == (1, 1)
        throttled = await rows(
            store, "SELECT throttled_until > now() + interval '50 minutes' AS t FROM syncd.account_states"
        )
        assert throttled == [{"t": True}]
        assert (await c.drain()).requests == 0


async def test_a_pause_of_no_seconds_is_no_leave_to_hammer_on(store: Store) -> None:
    """Some servers send Retry-After: 0 with every 429; no attempt is used, so nothing else would ever slow us down."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", operation="tag_add", status=429, retry_after_s=0)
        await _tag(c, 301)
        report = await c.drain(throttle_s=0.5)
        assert report.is_empty
        assert report.elapsed_s >= 0.4


async def test_a_rejected_tag_blocks_its_own_facet_only(store: Store) -> None:
    """G6: a poison entry delays nobody."""
    async with circle(store) as c:
        _untagged(c)
        who = _somebody(c)
        del c.sandbox.world.tags[301]
        await _tag(c, 301)
        await _tag(c, 302)
        await c.edit("UPDATE crm.relations SET first_name = 'Ander' WHERE id = :who", who=who)
        report = await c.drain()
        assert (report.delivered, report.dead, report.pending, report.blocked) == (2, 1, 0, 1)
        assert c.sandbox.world.relations[who].tags == {302}
        assert c.sandbox.world.relations[who].first_name == "Ander"


async def test_a_later_value_supersedes_a_dead_one(store: Store) -> None:
    """Once the CRM holds the later value, nobody needs to look at the dead one."""
    async with circle(store) as c:
        who = _somebody(c)
        await c.edit("UPDATE crm.relations SET first_name = NULL, last_name = 'Twee' WHERE id = :who", who=who)
        assert (await c.drain()).dead == 1, "emptying a field is refused"
        await c.edit("UPDATE crm.relations SET first_name = 'Een' WHERE id = :who", who=who)
        assert (await c.drain()).is_empty
        assert [e["status"] for e in await c.entries()] == ["superseded", "verified"]
        there = c.sandbox.world.relations[who]
        assert (there.first_name, there.last_name) == ("Een", "Twee"), "the dead edit's other column was not forgotten"


async def test_a_dead_identity_blocks_its_lane_and_says_why(store: Store) -> None:
    """A tag for somebody who is not there would go to nobody, or to somebody else."""
    async with circle(store) as c:
        _untagged(c)
        first, second = list(c.sandbox.world.relations)[:2]
        c.sandbox.world.add_relation("taken@x.example")
        await c.edit("UPDATE crm.relations SET email = 'taken@x.example' WHERE id = :who", who=first)
        await _tag(c, 301, first)
        await _tag(c, 302, second)
        report = await c.drain()
        assert (report.dead, report.pending, report.blocked) == (1, 0, 2)
        assert c.sandbox.world.relations[second].tags == {302}
        assert c.sandbox.world.relations[first].tags == set()
        assert any("change_email was not delivered" in (x["block_reason"] or "") for x in await c.lanes())


async def test_a_payload_that_nobody_can_read_dies_and_the_rest_goes_on(store: Store) -> None:
    """Never die of one bad entry."""
    async with circle(store) as c:
        _untagged(c)
        await _tag(c, 301)
        await _tag(c, 302)
        await run_sql(store, "UPDATE syncd.captures SET payload = '[]' WHERE facet = 'tag:301'")
        report = await c.drain()
        assert (report.delivered, report.dead) == (1, 1)
        assert "cannot be read" in (await c.entries())[0]["error"]


async def test_a_conversation_that_breaks_costs_its_own_entry_only(store: Store) -> None:
    """A bug in a provider must not stop the daemon, nor loop for ever."""
    async with circle(store) as c:
        _untagged(c)
        await _tag(c, 301)
        await _tag(c, 302)
        c.provider = _Breaking(c.provider)  # type: ignore[assignment]
        report = await c.drain()
        assert (report.delivered, report.dead) == (1, 1)
        assert "broke off" in (await c.entries())[0]["error"]


class _Breaking:
    """A provider with a bug in one conversation."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def converse(self, change: object, target: object) -> object:
        if getattr(change, "tag_id", None) == 301:
            raise RuntimeError("a bug")
        return self._real.converse(change, target)  # type: ignore[attr-defined]


async def test_a_spent_budget_ends_in_dead_with_the_last_reason(store: Store) -> None:
    """Not for ever: a person should know."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", operation="tag_add", status=500, times=0)
        await _tag(c, 301)
        report = await c.drain(max_attempts=3)
        entry = (await c.entries())[0]
        assert (report.dead, entry["status"], entry["attempts"]) == (1, "dead", 3)
        assert "500" in entry["error"]


async def test_an_outage_opens_the_breaker_and_spends_few_attempts(store: Store) -> None:
    """One incident, not a thousand: the rest of the backlog waits unharmed for a probe to succeed."""
    async with circle(store, relations=40) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", status=503, times=0)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 301 FROM crm.relations")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer(breaker_failures=5, breaker_pause_s=0.05, concurrency=2).run(stop))
            await c.sandbox.until_requests("groups", 2)
            assert c.sandbox.requests.by_operation["tag_add"] <= 8
            states = await rows(store, "SELECT breaker_state FROM syncd.account_states")
            assert states[0]["breaker_state"] in ("open", "half_open")
            assert await _told(store) == [("breaker", "account", 1, True)]
            c.sandbox.faults.clear(number)
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 40)
            stop.set()
        assert max(e["attempts"] for e in await c.entries()) <= 2
        assert (await rows(store, "SELECT breaker_state FROM syncd.account_states"))[0]["breaker_state"] == "closed"
        assert (await c.drain()).is_empty, "it finds nothing left to try, and ends the trial"
        assert await _told(store) == [("breaker", "account", 1, False)]


async def _told(store: Store) -> list[tuple[object, ...]]:
    """Return each incident: its kind, its subject, how often it was opened, whether it is open."""
    sql = "SELECT kind, subject, occurrences, closed_at IS NULL AS is_open FROM syncd.incidents ORDER BY id"
    return [tuple(row.values()) for row in await rows(store, sql)]


async def test_a_server_that_is_not_there_costs_no_change(store: Store) -> None:
    """Nothing was sent for certain; the budget ends it when nobody comes back."""
    async with circle(store) as c:
        _untagged(c)
        await _tag(c, 301)
        await c.sandbox.__aexit__(None, None, None)
        report = await c.drain(max_attempts=50, patience_s=0.05, backoff_s=0.5)
        assert (report.delivered, report.pending) == (0, 1)


async def test_a_rate_is_kept(store: Store) -> None:
    """One or two requests a second is what we dare towards an API whose limit nobody knows."""
    async with circle(store, relations=10) as c:
        _untagged(c)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 301 FROM crm.relations")
        report = await c.drain(rate_per_s=20.0)
        assert report.is_empty
        assert report.elapsed_s >= (report.requests - 3) / 20
        assert QUICK.rate_per_s is None
