"""Drain through outages: what the host does to everybody kills nobody, and what piled up comes back without a storm."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from syncd.outbound import DrainLimits
from syncd.outbound.waiting import wait_for
from syncd.sandbox import RequestLine
from syncd.store import Store
from tests.support.outbox import QUICK, Circle, circle, rows

READS = ("groups",)


def _untagged(c: Circle) -> None:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()


async def _tag_all(c: Circle, tag: int = 301) -> None:
    await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, :tag FROM crm.relations", tag=tag)


def _broken(**given: Any) -> dict[str, Any]:
    """A breaker of small times."""
    return {"breaker_failures": 4, "breaker_pause_s": 0.05, "breaker_pause_max_s": 0.4, "concurrency": 2, **given}


def _shut() -> dict[str, Any]:
    """A breaker that stays open for as long as the test looks."""
    return _broken(breaker_pause_s=60, breaker_pause_max_s=60)


async def _incidents(store: Store) -> list[dict[str, Any]]:
    return await rows(
        store,
        "SELECT kind, subject, summary, detail, occurrences, closed_at IS NULL AS is_open "
        "FROM syncd.incidents ORDER BY id",
    )


async def _state(store: Store) -> dict[str, Any]:
    return (await rows(store, "SELECT breaker_state, breaker_opened_at, limits FROM syncd.account_states"))[0]


def _statuses(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["status"] for entry in entries}


@contextmanager
def _running(c: Circle, group: asyncio.TaskGroup, **changes: Any) -> Iterator[asyncio.Event]:
    stop = asyncio.Event()
    group.create_task(c.drainer(**changes).run(stop))
    try:
        yield stop
    finally:
        stop.set()


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 400}, {"status": 404, "message": "relation not found"}])
async def test_a_host_that_refuses_everything_kills_nothing(store: Store, fault: dict[str, Any]) -> None:
    """The base path is gone, or a gateway says 400 to all: each refusal, taken at its word, would be one entry dead."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", times=0, **fault)
        await _tag_all(c)
        await c.edit("UPDATE crm.relations SET first_name = 'Ander'")
        async with asyncio.TaskGroup() as group:
            with _running(c, group, **_broken()):
                await c.sandbox.until_requests("groups", 8)
                assert _statuses(await c.entries()) <= {"pending"}
                asked = {line.operation for line in c.sandbox.requests} - {"groups"}
                writes = sum(1 for line in c.sandbox.requests if line.operation in asked)
                assert writes <= 4 + 2, "as many as open the breaker, and what was under way"
                c.sandbox.faults.clear(number)
                await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 12)
                await c.sandbox.journal.until(lambda j: len(j.of("relation.changed")) == 12)
        assert (await c.drain()).is_empty
        assert _statuses(await c.entries()) <= {"accepted", "verified"}


async def test_a_host_in_maintenance_that_says_200_with_an_error_kills_nothing(store: Store) -> None:
    """The API's own way to say no."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        number = c.sandbox.faults.add("error", times=0, message="maintenance")
        await _tag_all(c)
        async with asyncio.TaskGroup() as group:
            with _running(c, group, **_broken()):
                await c.sandbox.until_requests("groups", 8)
                assert _statuses(await c.entries()) == {"pending"}
                c.sandbox.faults.clear(number)
                await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 12)


async def test_one_refused_entry_is_dead_after_a_read_that_works(store: Store) -> None:
    """The other side of it: a mistake must be told at once, not after an hour of patience."""
    async with circle(store) as c:
        _untagged(c)
        del c.sandbox.world.tags[301]
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (100001, 301)")
        report = await c.drain()
        assert (report.dead, report.pending) == (1, 0)
        assert c.sandbox.requests.by_operation["groups"] == 1
        assert [(e["status"], e["attempts"]) for e in await c.entries()] == [("dead", 1)]


async def test_what_our_own_rules_refuse_stops_nobody(store: Store) -> None:
    """They are no sign of the host's health, however many entries break them."""
    async with circle(store, relations=12) as c:
        await c.edit("UPDATE crm.relations SET first_name = NULL")
        report = await c.drain(**_broken())
        assert (report.dead, report.pending) == (12, 0)
        assert c.sandbox.requests.by_operation["groups"] == 0
        assert await _incidents(store) == []


async def test_a_host_that_refuses_writes_alone_opens_the_breaker_and_revives_what_it_killed(store: Store) -> None:
    """Reads work, so no read can tell: but nobody makes the same mistake a dozen times in a row and nothing else."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", operation="tag_add", status=400, message="maintenance", times=0)
        await _tag_all(c)
        async with asyncio.TaskGroup() as group:
            with _running(c, group, **_broken(breaker_pause_s=0.2, breaker_pause_max_s=60)):
                await _until_breaker(c, "open")
                opened = await _incidents(store)
                assert [(i["kind"], i["subject"], i["is_open"]) for i in opened] == [("breaker", "account", True)]
                assert "maintenance" in opened[0]["summary"]
                assert (opened[0]["detail"]["count"], opened[0]["detail"]["round"]) == (4, 1)
                await c.sandbox.until_requests("tag_add", 6)
                c.sandbox.faults.clear(number)
                await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 12)
        assert (await c.drain()).is_empty
        assert [(e["status"], e["attempts"]) for e in await c.entries()] == [("accepted", 1)] * 12
        closed = await _incidents(store)
        assert [(i["subject"], i["is_open"]) for i in closed] == [("account", False)]
        assert (await _state(store))["breaker_state"] == "closed"


async def _until_breaker(c: Circle, state: str) -> None:
    """Only the row tells, and nothing can be awaited on a row but the next look."""
    never = asyncio.Event()
    async with asyncio.timeout(10):
        while (await _state(c.store))["breaker_state"] != state:
            await wait_for(never, 0.01)


async def test_really_wrong_entries_end_dead_after_a_bounded_number_of_rounds(store: Store) -> None:
    """Fifty edits with a tag that does not exist must not stop the account for ever, nor hide the good ones."""
    async with circle(store, relations=20) as c:
        _untagged(c)
        del c.sandbox.world.tags[301]
        await _tag_all(c, 301)
        limits = _broken(breaker_rounds=3, breaker_pause_s=0.02)
        report = await c.drain(**limits)
        assert (report.pending, report.blocked) == (0, 20)
        assert _statuses(await c.entries()) == {"dead"}
        incidents = await _incidents(store)
        assert [(i["subject"], i["occurrences"], i["is_open"]) for i in incidents] == [("account", 3, False)]
        refused = c.sandbox.requests.by_operation["tag_add"]
        assert refused <= 20 + 4 + 2 + 2 * 2, "each once, once more for those of the streak, one or two for each round"
        await _tag_all(c, 302)
        again = await c.drain(**limits)
        assert (again.delivered, again.pending) == (20, 0), "and the account goes on"


async def test_good_entries_get_through_between_the_rounds(store: Store) -> None:
    """A trial that always tried the same wrong entry would hold up everybody."""
    async with circle(store, relations=20) as c:
        _untagged(c)
        del c.sandbox.world.tags[301]
        await _tag_all(c, 301)
        async with asyncio.TaskGroup() as group:
            with _running(c, group, **_broken(breaker_rounds=8, breaker_pause_s=0.02, breaker_pause_max_s=0.1)):
                await _until_breaker(c, "open")
                await c.edit("UPDATE crm.relations SET first_name = 'Ander'")
                await c.sandbox.journal.until(lambda j: len(j.of("relation.changed")) == 20)


async def test_a_crash_in_the_middle_of_a_streak_forgets_nothing(store: Store) -> None:
    """A daemon that is killed after every third refusal would else kill the outbox three by three."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        c.sandbox.faults.add("status", operation="tag_add", status=400, message="maintenance", times=0)
        for who in list(c.sandbox.world.relations)[:3]:
            await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)", who=who)
        report = await c.drain(**_broken())
        assert report.dead == 3
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (100009, 301)")
        await c.drain(**_shut())
        assert _statuses(await c.entries()) == {"pending"}, "the first three, of an earlier process, as well"


async def test_what_died_for_another_reason_stays_dead(store: Store) -> None:
    """To revive more than the streak killed would send what a person has seen refused."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        del c.sandbox.world.tags[303]
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (100001, 303)")
        await c.drain(**_broken())
        await c.edit("UPDATE crm.relations SET first_name = 'Ander' WHERE id = 100002")
        await c.drain(**_broken())
        c.sandbox.faults.add("status", operation="tag_add", status=400, message="maintenance", times=0)
        await _tag_all(c, 302)
        await c.drain(**_shut())
        dead = [e["facet"] for e in await c.entries() if e["status"] == "dead"]
        assert dead == ["tag:303"]


async def test_merged_edits_are_revived_with_the_one_that_carried_them(store: Store) -> None:
    """They died with its reason and were never sent by themselves."""
    async with circle(store, relations=12) as c:
        c.sandbox.faults.add("status", operation="relation_upsert", status=400, message="maintenance", times=0)
        await c.edit("UPDATE crm.relations SET first_name = 'Een'")
        await c.edit("UPDATE crm.relations SET last_name = 'Twee'")
        await c.drain(**_shut())
        entries = await c.entries()
        assert (len(entries), _statuses(entries)) == (24, {"pending"})


async def test_a_wrong_verb_suspends_its_operation_and_kills_nothing(store: Store) -> None:
    """The reference names no verbs: on a first day with a wrong guess, ten thousand entries must not die of it."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        c.sandbox.turn(c.sandbox.switches.turned(verbs={"tag_add": "PUT"}))
        await _tag_all(c)
        await c.edit("UPDATE crm.relations SET first_name = 'Ander'")
        report = await c.drain(concurrency=2, patience_s=1)
        assert (report.delivered, report.pending, report.dead) == (12, 12, 0)
        assert 1 <= sum(1 for line in c.sandbox.requests if "addtag" in line.path) <= 2, "as many as went side by side"
        waiting = [e for e in await c.entries() if e["operation"] == "add_tag"]
        assert {(e["status"], e["attempts"]) for e in waiting} == {("pending", 0)}
        incidents = await _incidents(store)
        assert [(i["subject"], i["is_open"]) for i in incidents] == [("operation:add_tag", True)]
        assert "SYNCD_AUTORESPOND_VERBS=tag_add=" in incidents[0]["summary"]
        c.sandbox.turn(c.sandbox.switches.turned(verbs={}))
        await c.wake()
        assert (await c.drain()).is_empty
        assert [i["is_open"] for i in await _incidents(store)] == [False], "mended by another process than it began in"


@pytest.mark.parametrize("spelling", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_that_the_crm_asks_for_holds_every_lane(store: Store, status: int, spelling: str) -> None:
    """It is asked of the client, not of one entry; 503 with Retry-After is maintenance with a date."""
    async with circle(store, relations=8) as c:
        _untagged(c)
        c.sandbox.turn(c.sandbox.switches.turned(retry_after=spelling))
        c.sandbox.faults.add("status", operation="tag_add", status=status, retry_after_s=2)
        await _tag_all(c)
        report = await c.drain(concurrency=1)
        assert report.is_empty
        lines = c.sandbox.requests.of("tag_add")
        gap_s = (lines[1].at - lines[0].at).total_seconds()
        assert gap_s >= 0.9, "a date has no fractions: what is left of its second is lost"
        tries = sorted(e["attempts"] for e in await c.entries())
        assert tries == [1] * 7 + ([1] if status == 429 else [2]), "a 503 may be that one entry's trouble"


async def test_an_outage_overnight_does_not_use_up_the_tries_of_a_small_outbox(store: Store) -> None:
    """Three changes are too few to open the breaker by themselves; a read that fails as well tells."""
    async with circle(store) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", status=500, times=0)
        for who in list(c.sandbox.world.relations)[:3]:
            await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)", who=who)
        async with asyncio.TaskGroup() as group:
            with _running(c, group, **_broken(breaker_failures=8), max_attempts=5):
                await c.sandbox.until_requests("groups", 12)
                assert _statuses(await c.entries()) == {"pending"}
                assert max(e["attempts"] for e in await c.entries()) <= 2
                c.sandbox.faults.clear(number)
                await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 3)


async def test_a_long_outage_spends_neither_tries_nor_age(store: Store) -> None:
    """Ten days later the changes are still sent: what waits for a closed breaker is not given up for being old."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", status=503, times=0)
        await _tag_all(c)
        await c.drain(**_shut())
        before = [e["attempts"] for e in await c.entries()]
        await c.edit("UPDATE syncd.entries SET captured_at = captured_at - interval '10 days'")
        for _ in range(3):
            report = await c.drain(**_shut())
            assert (report.dead, report.requests) == (0, 0)
        assert [e["attempts"] for e in await c.entries()] == before
        c.sandbox.faults.clear(number)
        await c.edit("UPDATE syncd.account_states SET limits = jsonb_set(limits, '{breaking,probe_at}', '0')")
        assert (await c.drain(**_broken())).is_empty
        assert _statuses(await c.entries()) == {"accepted"}


async def test_a_backlog_drains_without_a_storm(store: Store) -> None:
    """The simulator's own log: few probes while it is ill, then one request at a time, then more, never too many."""
    rate, width, latency_s = 60.0, 8, 0.02
    async with circle(store, relations=150) as c:
        _untagged(c)
        c.sandbox.turn(c.sandbox.switches.turned(latency_s=latency_s))
        number = c.sandbox.faults.add("status", status=503, times=0)
        await _tag_all(c)
        limits = DrainLimits(
            rate_per_s=rate, concurrency=width, poll_interval_s=0.01, breaker_pause_s=0.3, breaker_pause_max_s=0.3,
            backoff_s=0.05, backoff_max_s=0.2, lease_s=30,
        )  # fmt: skip
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer(limits).run(stop))
            await c.sandbox.until_requests("groups", 6)
            ill, ill_until = list(c.sandbox.requests), c.sandbox.requests.total
            c.sandbox.faults.clear(number)
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 150, timeout_s=20)
            stop.set()
        well = c.sandbox.requests.since(ill_until)
        writes = [line for line in well if line.operation not in READS]
        assert sum(1 for line in ill if line.operation not in READS) <= limits.breaker_failures + width
        assert len(writes) <= 150 + 2, "each once: nothing failed any more"
        assert _busiest(well, 1.0) <= rate + rate / 10 + 1
        assert (writes[1].at - writes[0].at).total_seconds() >= 0.9 * latency_s, "the first comes alone"
        assert 2 < max(_at_once(line, well, latency_s) for line in well) <= width
        assert {e["status"] for e in await c.entries()} == {"accepted"}


def _busiest(lines: list[RequestLine], window_s: float) -> int:
    """The most requests that any window of so many seconds holds."""
    times = [line.at.timestamp() for line in lines]
    return max(sum(1 for at in times if start <= at < start + window_s) for start in times)


def _at_once(line: RequestLine, lines: list[RequestLine], latency_s: float) -> int:
    """How many requests were under way when this one came, itself counted."""
    at = line.at.timestamp()
    return sum(1 for other in lines if at - latency_s < other.at.timestamp() <= at)


async def test_after_a_throttle_it_begins_again_with_one(store: Store) -> None:
    """All workers were stopped at the same moment; they must not all start at the same moment."""
    latency_s = 0.03
    async with circle(store, relations=40) as c:
        _untagged(c)
        c.sandbox.turn(c.sandbox.switches.turned(latency_s=latency_s))
        c.sandbox.faults.add("status", operation="tag_add", status=429, retry_after_s=1, nth=10, times=1)
        await _tag_all(c)
        assert (await c.drain(concurrency=6)).is_empty
        lines = c.sandbox.requests.of("tag_add")
        gaps = [(later.at - line.at).total_seconds() for line, later in pairwise(lines)]
        first = gaps.index(max(gaps)) + 1
        assert max(gaps) > 0.8
        assert gaps[first] >= 0.9 * latency_s, "the second comes when the first is answered"
        assert max(_at_once(line, lines[first:], latency_s) for line in lines[first:]) <= 6
        assert QUICK.concurrency > 1


async def test_a_page_for_people_instead_of_every_answer_is_an_outage_like_any_other(store: Store) -> None:
    """A parked domain or a login page says 200 to everything: a probe that believed it would never stop closing."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        number = c.sandbox.faults.add("html", status=200, times=0)
        await _tag_all(c)
        async with asyncio.TaskGroup() as group:
            with _running(c, group, **_broken()):
                await c.sandbox.until_requests("groups", 6)
                assert c.sandbox.requests.by_operation["tag_add"] <= 4 + 2
                c.sandbox.faults.clear(number)
                await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 12)
