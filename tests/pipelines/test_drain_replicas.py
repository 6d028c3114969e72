"""Several drainers on one database: what one of them was told, none of the others has to ask the CRM again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from syncd.outbound.waiting import wait_for
from syncd.store import Store
from tests.support.outbox import Circle, circle, rows


def _untagged(c: Circle) -> None:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()


async def _tag_all(c: Circle, tag: int = 301) -> None:
    await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, :tag FROM crm.relations", tag=tag)


async def _state(store: Store) -> dict[str, Any]:
    return (await rows(store, "SELECT * FROM syncd.account_states"))[0]


async def _passes(seconds: float) -> None:
    """Let time pass in which nothing may happen: there is no event for that."""
    await wait_for(asyncio.Event(), seconds)


@asynccontextmanager
async def _replicas(c: Circle, number: int, **changes: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(c.drainer(**changes).run(stop))
        try:
            yield
        finally:
            stop.set()


async def test_refused_credentials_pause_every_replica_and_one_canary_at_a_time_asks(store: Store) -> None:
    """Three replicas with a revoked key must not ask three times as often, nor go on because only one was told."""
    async with circle(store, relations=30) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", status=401, times=0)
        await _tag_all(c)
        async with _replicas(c, 3, probe_s=0.4, probe_max_s=0.4, concurrency=2):
            await c.sandbox.until_requests("groups", 1)
            await _passes(1.2)
            told = c.sandbox.requests.total
            canaries = c.sandbox.requests.by_operation["groups"]
            await _passes(1.6)
            asked = c.sandbox.requests.total - told
            assert c.sandbox.requests.by_operation["groups"] - canaries == asked, "nobody sends anything but the canary"
            assert 1 <= asked <= 5, "one each 0.4 s, whoever sends it"
            assert {(e["status"], e["attempts"]) for e in await c.entries()} == {("pending", 0)}
            c.sandbox.faults.clear(number)
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 30)
        assert (await _state(store))["paused_at"] is None
        assert {(e["status"], e["attempts"]) for e in await c.entries()} == {("accepted", 1)}


async def test_a_pause_outlives_every_process(store: Store) -> None:
    """A supervisor that restarts a daemon must not turn a revoked key into one try for each restart."""
    async with circle(store) as c:
        _untagged(c)
        c.sandbox.faults.add("status", status=403, times=0)
        await _tag_all(c)
        assert (await c.drain()).paused is not None
        sent = c.sandbox.requests.by_operation["tag_add"]
        for _ in range(3):
            async with _replicas(c, 1, probe_s=30):
                await _passes(0.3)
        assert c.sandbox.requests.by_operation["tag_add"] == sent
        assert {(e["status"], e["attempts"]) for e in await c.entries()} == {("pending", 0)}


async def test_a_key_that_may_read_and_not_write_stops_the_account_as_one_incident(store: Store) -> None:
    """The canary is answered, so it is no pause; but to send every entry into the same refusal is no way either."""
    async with circle(store, relations=20) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", verb="POST", status=403, times=0)
        await _tag_all(c)
        limits = {"breaker_failures": 4, "breaker_pause_s": 0.3, "breaker_pause_max_s": 5, "concurrency": 2}
        async with _replicas(c, 1, **limits):
            await c.sandbox.until_requests("tag_add", 6)
            assert c.sandbox.requests.by_operation["tag_add"] <= 8
            incidents = await rows(store, "SELECT subject, summary FROM syncd.incidents")
            assert [i["subject"] for i in incidents] == ["account"]
            assert "credentials refused" in incidents[0]["summary"]
            assert "other calls are answered" in incidents[0]["summary"]
            c.sandbox.faults.clear(number)
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 20)
        assert {e["status"] for e in await c.entries()} <= {"accepted", "pending"}


async def test_a_replica_that_starts_in_an_outage_asks_nothing_before_the_probe_is_due(store: Store) -> None:
    """A host that is down is restarted into: ten pods coming up together must not be the next storm."""
    async with circle(store, relations=12) as c:
        _untagged(c)
        c.sandbox.faults.add("status", status=503, times=0)
        await _tag_all(c)
        limits = {"breaker_failures": 4, "breaker_pause_s": 30, "breaker_pause_max_s": 60}
        await c.drain(**limits)
        assert (await _state(store))["breaker_state"] == "open"
        asked = c.sandbox.requests.total
        async with _replicas(c, 3, **limits):
            await _passes(0.8)
        assert c.sandbox.requests.total == asked


async def test_one_replica_alone_probes_and_all_go_on(store: Store) -> None:
    """The probe is one request, however many wait for it; and who follows starts again as narrow."""
    async with circle(store, relations=40) as c:
        _untagged(c)
        number = c.sandbox.faults.add("status", status=503, times=0)
        await _tag_all(c)
        limits = {"breaker_failures": 4, "breaker_pause_s": 0.2, "breaker_pause_max_s": 0.2, "concurrency": 2}
        async with _replicas(c, 3, **limits):
            await c.sandbox.until_requests("groups", 2)
            await _passes(1.0)
            state = await _state(store)
            probes = c.sandbox.requests.by_operation["groups"]
            assert 1 <= state["limits"]["breaking"]["openings"] <= probes + 1
            assert probes <= state["limits"]["breaking"]["openings"] + 3, "each failed probe is one opening more"
            writes = c.sandbox.requests.by_operation["tag_add"]
            assert writes <= 3 * (4 + 2), "each may fill its own streak before it hears of another's"
            c.sandbox.faults.clear(number)
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 40)
        assert (await c.drain()).is_empty
        assert (await _state(store))["breaker_state"] == "closed"
        incidents = await rows(store, "SELECT closed_at IS NULL AS is_open FROM syncd.incidents")
        assert [i["is_open"] for i in incidents] == [False], "one incident, whoever opened and whoever closed it"


async def test_a_throttle_holds_replicas_that_were_not_told(store: Store) -> None:
    """Retry-After is the client's; the CRM does not know that we are three."""
    async with circle(store, relations=45) as c:
        _untagged(c)
        c.sandbox.turn(c.sandbox.switches.turned(latency_s=0.1))
        c.sandbox.faults.add("status", operation="tag_add", status=429, retry_after_s=2, nth=8)
        await _tag_all(c)
        async with _replicas(c, 3, concurrency=1):
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 45, timeout_s=20)
        lines = c.sandbox.requests.of("tag_add")
        at = next(line.at for line in lines if line.status == 429)
        after = [(line.at - at).total_seconds() for line in lines if line.at > at]
        assert not [s for s in after if 0.9 < s < 1.95], "they look at the row twice a second"


async def test_replicas_that_deliver_share_the_rate(store: Store) -> None:
    """Two requests a second were promised to the CRM, not two for each pod."""
    rate = 20.0
    async with circle(store, relations=90) as c:
        _untagged(c)
        await _tag_all(c)
        async with _replicas(c, 2, rate_per_s=rate, concurrency=2, batch=2):
            await c.sandbox.journal.until(lambda j: len(j.of("tag.added")) == 90, timeout_s=20)
            assert len((await _state(store))["limits"]["drainers"]) == 2
        assert (await _state(store))["limits"].get("drainers") == {}, "who stops gives its share back at once"
        times = [line.at.timestamp() for line in c.sandbox.requests]
        settled = [at for at in times if at >= times[0] + 1.0]
        window_s = 1.5
        busiest = max(sum(1 for at in settled if start <= at < start + window_s) for start in settled)
        assert busiest <= rate * window_s + 2 * 2
        assert times[-1] - times[0] >= (90 - 2 * rate * 0.5 - 4) / rate


async def test_a_replica_that_is_alone_has_the_whole_rate(store: Store) -> None:
    """A share that outlives its owner would halve the speed for ever."""
    async with circle(store, relations=40) as c:
        _untagged(c)
        await c.edit(
            "UPDATE syncd.account_states SET limits = jsonb_build_object('drainers', jsonb_build_object("
            "'gone', extract(epoch FROM now()) - 60, 'killed', extract(epoch FROM now()) - 4))"
        )
        await _tag_all(c)
        report = await c.drain(rate_per_s=40.0)
        assert report.is_empty
        assert report.elapsed_s < 40 / 40 + 0.7
