"""Held: pulls leave an account alone while it is paused or its breaker is open, and share the canary with drainers."""

from __future__ import annotations

import asyncio

import pytest

from syncd.policy.alike import kind_of
from syncd.store import Store, account_pace, account_states
from syncd.store.account_pace import Breaking
from tests.support.pulling import Circle, circle

_BREAKER = (
    "SELECT breaker_state, limits #>> '{breaking,trial}', limits #>> '{breaking,openings}' FROM syncd.account_states"
)
_NEXT_PROBE_S = """
    SELECT CAST(limits #>> '{breaking,probe_at}' AS double precision) - extract(epoch FROM now())::double precision
    FROM syncd.account_states
"""


async def _opens(it: Circle, *, probe_in_s: float, openings: int = 1, kind: str | None = None) -> None:
    """Let a drainer have opened the breaker."""
    async with it.store.begin() as connection:
        breaking = Breaking(openings, reason="no answer", kind=kind)
        assert await account_pace.open_breaker(connection, it.account.id, breaking, pause_s=probe_in_s)


async def test_an_account_whose_breaker_is_open_is_left_alone(store: Store) -> None:
    """Deliveries found the host ill: pulls that go on would keep it so. No fault of theirs, and worth another try."""
    async with circle(store) as it:
        await _opens(it, probe_in_s=60)
        reports = await it.puller.pull_all()
        assert [(r.run_id, r.status, r.is_fault, r.is_passing) for r in reports] == [(None, "refused", False, True)]
        assert "left alone" in (reports[0].reason or "")
        assert len(list(it.box.requests)) == 0


async def test_a_pull_finds_out_when_the_breaker_may_close(store: Store) -> None:
    """Where no drainer runs, nobody else would: one read when it is due, and deliveries are on trial as ever."""
    async with circle(store) as it:
        await _opens(it, probe_in_s=-1)
        assert (await it.pull("tags")).is_success
        assert [line.operation for line in it.box.requests] == ["groups", "tags"]
        assert await it.rows(_BREAKER) == [("closed", "true", "1")]


async def test_a_pull_that_closes_the_breaker_takes_back_what_the_refusals_killed(store: Store) -> None:
    """As whoever closes it: the drainer that opened it may have crashed before it did so."""
    async with circle(store) as it:
        reason, kind = "closed for maintenance", kind_of("closed for maintenance", 400)
        await it.edit(
            f"""WITH lane AS (
                    INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, acked_seq)
                    VALUES ({it.account.id}, 1, 1, 1) RETURNING id
                ), dead AS (
                    INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status,
                                               attempts, xact, captured_at, settled_at, error)
                    SELECT id, 1, {it.account.id}, 1, 'add_tag', 'tag:1', '{{}}', 'dead', 1, pg_current_xact_id(),
                           now(), now(), '{reason}' FROM lane RETURNING id, lane_id
                )
                INSERT INTO syncd.attempts (account_id, lane_id, epoch, entry_id, operation, started_at, elapsed_s,
                                            requests, status_code, outcome, detail)
                SELECT {it.account.id}, lane_id, 1, id, 'add_tag', now(), 0.1, 2, 400, 'rejected', '{reason}'
                FROM dead"""
        )
        await _opens(it, probe_in_s=-1, kind=kind)
        assert (await it.pull("tags")).is_success
        assert await it.rows("SELECT status, attempts FROM syncd.entries") == [("pending", 0)]


async def test_a_canary_that_fails_opens_the_breaker_for_longer(store: Store) -> None:
    """The pause grows as a drainer would make it grow, whoever asks."""
    async with circle(store) as it:
        await _opens(it, probe_in_s=-1, openings=3)
        it.box.faults.add("status", status=503, times=0)
        report = await it.pull("tags")
        assert (report.run_id, report.is_passing) == (None, True)
        assert await it.rows(_BREAKER) == [("open", None, "4")]
        assert await it.value(_NEXT_PROBE_S) == pytest.approx(40, abs=5)
        assert len(list(it.box.requests)) == 1


@pytest.mark.parametrize("trouble", ["paused", "broken"])
async def test_a_canary_is_sent_by_one_alone(store: Store, trouble: str) -> None:
    """A drainer and ten pulls find it due at the same moment: one knocks, the others go away."""
    async with circle(store) as it:
        if trouble == "broken":
            await _opens(it, probe_in_s=-1)
        else:
            async with store.begin() as connection:
                await account_states.pause(connection, it.account.id, "refused", probe_in_s=-1)
        it.box.faults.add("status", status=503, times=0)
        reports = await asyncio.gather(*(it.puller.pull("orders") for _ in range(10)))
        assert {(r.run_id, r.is_passing) for r in reports} == {(None, True)}
        assert len(list(it.box.requests)) == 1
