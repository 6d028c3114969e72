"""Apply: exactly the calls of the file are sent, and a lane that has moved since is left as it is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.domain.changes import LocalChange
from syncd.outbound.applying import Fate
from syncd.outbound.plan_file import FiledPlan, load_plan, save_plan
from syncd.policy.merge import Owner, Owners
from syncd.providers.contract import ProviderOptions
from syncd.store import Store, account_states
from tests.support.claims import changed
from tests.support.lanes import add, email, profile, remove, subscribe
from tests.support.outbox import QUICK, Circle, circle, rows, run_sql, stage_all
from tests.support.planning import ALONE, applied, calls_of, filed, planned, sent_by_lane, told_by_lane, writes


def people(c: Circle) -> list[int]:
    return list(c.sandbox.world.relations)


async def _tag(c: Circle, who: int, tag: int) -> None:
    await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=who, tag=tag)


async def _rename(c: Circle, who: int, name: str) -> None:
    await c.edit("UPDATE crm.relations SET last_name = :name WHERE id = :who", who=who, name=name)


async def _new_relation(c: Circle, address: str) -> int:
    await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, :address)", address=address)
    return int((await rows(c.store, "SELECT id FROM crm.relations WHERE email = :address", address=address))[0]["id"])


async def _day(c: Circle) -> None:
    """Captured and staged, folds, barriers, a create with what follows it."""
    one, two, three = people(c)[:3]
    await changed(c.store, c.account, one, add(301), remove(301), profile(last_name="Een"), profile(last_name="Twee"))
    await changed(c.store, c.account, two, subscribe(next(iter(c.sandbox.world.lists))), add(302), email("w@x.example"))
    new = await _new_relation(c, "nieuw@x.example")
    await _tag(c, new, 303)
    await _rename(c, new, "Nieuw")
    await _rename(c, three, "Vier")


async def test_exactly_the_planned_calls_are_sent(store: Store, tmp_path: Path) -> None:
    """Through the file: what was read by a person is what goes out, in order, all of it."""
    async with circle(store) as c:
        await _day(c)
        plan = await planned(c)
        save_plan(await filed(c), tmp_path / "day.plan")
        result = await applied(c, load_plan(tmp_path / "day.plan"))
        assert {lane.fate for lane in result.lanes} == {Fate.SENT}
        assert sorted(writes(c)) == sorted(call for _, call in calls_of(plan))
        assert await sent_by_lane(c) == told_by_lane(plan)
        assert [(lane.planned, lane.sent) for lane in result.lanes] == [(n, n) for n in _sizes(plan)]
        assert (await c.drain()).delivered == 0
        assert {lane["claimed_by"] for lane in await c.lanes()} == {None}


def _sizes(plan: object) -> list[int]:
    return [len(lane.calls) for lane in plan.lanes]  # type: ignore[attr-defined]


async def test_what_came_after_the_plan_stays_for_the_drain(store: Store) -> None:
    """Approved is what was seen: a later edit of something else of the same relation is not sent along."""
    async with circle(store) as c:
        one, two = people(c)[:2]
        await _rename(c, one, "Gepland")
        plan = await filed(c)
        await _tag(c, one, 301)
        await _rename(c, two, "Later")
        result = await applied(c, plan)
        assert [(lane.fate, lane.sent) for lane in result.lanes] == [(Fate.SENT, 1)]
        assert writes(c) == ["relation_upsert"]
        assert (await c.drain()).delivered == 2


async def test_a_facet_that_changed_again_is_refused(store: Store) -> None:
    """The application has thought better of it: to send the older value now would start what it took back."""
    async with circle(store) as c:
        one = people(c)[0]
        await _tag(c, one, 301)
        plan = await filed(c)
        await c.edit("DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 301", who=one)
        (lane,) = (await applied(c, plan)).lanes
        assert (lane.fate, lane.reason) == (Fate.REFUSED, "tag:301 was changed again after the plan was made")
        assert writes(c) == []


_MOVES = {
    "delivered": ("", "was delivered already (accepted)"),
    "dead": ("UPDATE syncd.entries SET status = 'dead'", "is dead now, it was pending"),
    "held": ("UPDATE syncd.entries SET status = 'held'", "is held now, it was pending"),
    "tried": ("UPDATE syncd.entries SET attempts = 1", "was tried meanwhile"),
    "backs off": ("UPDATE syncd.entries SET next_attempt_at = now() + interval '1 h'", "was tried meanwhile"),
    "uncertain": ("UPDATE syncd.entries SET is_uncertain = true", "may have been sent meanwhile"),
    "payload": (
        "UPDATE syncd.entries SET payload = jsonb_set(payload, '{tag_remote_id}', '\"302\"')",
        "holds another change (add_tag) than the one planned",
    ),
    "another entry": ("UPDATE syncd.entries SET id = id + 100000", "holds another change (add_tag)"),
    "gone": ("DELETE FROM syncd.entries", "is not in the outbox"),
    "remote id": ("UPDATE crm.relations SET remote_id = '999'", "has another remote id now"),
    "address": ("UPDATE crm.relations SET email = 'else@x.example'", "has another e-mail address now"),
    "leased": (
        "UPDATE syncd.lanes SET claimed_by = 'other', ready_at = now() + interval '1 min'",
        "a drainer is sending it at this moment",
    ),
    "intent": (
        "UPDATE syncd.lanes SET claimed_by = 'other', ready_at = now() - interval '1 s', sending_upto = 1",
        "may have been sent meanwhile",
    ),
}


@pytest.mark.parametrize("move", sorted(_MOVES))
async def test_a_lane_that_moved_is_refused_and_left_alone(store: Store, move: str) -> None:
    """Whatever it is that the plan rests on; one line says what, and nothing is sent to it."""
    sql, reason = _MOVES[move]
    async with circle(store) as c:
        one, two = people(c)[:2]
        await changed(store, c.account, one, add(301))
        await changed(store, c.account, two, add(301))
        plan = await filed(c)
        if sql:
            which = "id" if "crm.relations" in sql else "relation_id"
            async with store.begin_remote() as connection:
                await connection.exec_driver_sql(f"{sql} WHERE {which} = {one}")
        else:
            await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL WHERE relation_id = :two", two=two)
            await c.drain()
        before = [lane for lane in await c.lanes() if lane["relation_id"] == one]
        sent = len(writes(c))
        moved, kept = (await applied(c, plan)).lanes
        assert (kept.fate, kept.sent) == (Fate.SENT, 1)
        assert len(writes(c)) - sent == 1
        assert moved.fate is Fate.REFUSED
        assert reason in (moved.reason or "")
        assert [lane for lane in await c.lanes() if lane["relation_id"] == one] == before


@pytest.mark.parametrize("is_moved", [False, True], ids=["as sent", "address moved since"])
async def test_a_create_that_was_delivered_says_so_when_it_is_applied_again(store: Store, is_moved: bool) -> None:
    """The new remote id is what delivering it brought; told as a move, it sends the operator looking for a culprit."""
    async with circle(store) as c:
        new = await _new_relation(c, "nieuw@x.example")
        await _tag(c, new, 301)
        await stage_all(store)
        plan = await filed(c)
        assert {lane.fate for lane in (await applied(c, plan)).lanes} == {Fate.SENT}
        sent = writes(c)
        if is_moved:
            await c.edit("UPDATE crm.relations SET email = 'ander@x.example' WHERE id = :new", new=new)
        (lane,) = (await applied(c, plan)).lanes
        create = (await c.entries())[0]
        told = f"entry {create['id']} (create_relation) was delivered already ({create['status']})"
        assert (lane.fate, lane.sent, lane.reason) == (Fate.REFUSED, 0, told)
        assert writes(c) == sent


async def test_a_subscription_that_a_dead_drainer_may_have_sent_is_refused(store: Store) -> None:
    """The plan said "send"; now it must be "read back first", which nobody has approved."""
    async with circle(store) as c:
        one = people(c)[0]
        await changed(store, c.account, one, subscribe(next(iter(c.sandbox.world.lists))))
        plan = await filed(c)
        await run_sql(store, "UPDATE syncd.lanes SET claimed_by = 'gone', ready_at = now(), sending_upto = 1")
        (lane,) = (await applied(c, plan)).lanes
        assert lane.fate is Fate.REFUSED
        assert "may have been sent meanwhile" in (lane.reason or "")
        assert writes(c) == []


async def test_a_back_off_that_has_ended_adds_no_call(store: Store) -> None:
    """It was shown as waiting; to send it along would be to send what nobody has approved."""
    async with circle(store) as c:
        one = people(c)[0]
        await changed(store, c.account, one, add(301), add(302))
        backing_off = "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour' WHERE facet = 'tag:302'"
        await run_sql(store, backing_off)
        plan = await filed(c)
        await run_sql(
            store,
            "UPDATE syncd.entries SET next_attempt_at = CAST(:at AS timestamptz) + interval '1 us' "
            "WHERE facet = 'tag:302'",
            at=plan.made_at,
        )
        (lane,) = (await applied(c, plan)).lanes
        assert (lane.fate, lane.sent) == (Fate.SENT, 1)
        assert writes(c) == ["tag_add"]
        assert [entry["status"] for entry in await c.entries()] == ["accepted", "pending"]
        assert (await c.drain()).delivered == 1


async def test_settings_that_decide_other_calls_are_refused(store: Store) -> None:
    """Another window, another version: the fold would send something that nobody has seen."""
    async with circle(store) as c:
        one = people(c)[0]
        await changed(store, c.account, one, profile(last_name="a"), profile(last_name="b"))
        plan = await filed(c, replace(ALONE, window=1))
        tampered = _with_reach(plan, 2)
        (lane,) = (await applied(c, tampered)).lanes
        assert lane.fate is Fate.REFUSED
        assert "would send other calls" in (lane.reason or "")
        assert writes(c) == []


def _with_reach(plan: FiledPlan, reach: int) -> FiledPlan:
    import msgspec

    lane = plan.lanes[0]
    rounds = tuple(msgspec.structs.replace(round_, reach=reach) for round_ in lane.rounds)
    return msgspec.structs.replace(plan, lanes=(msgspec.structs.replace(lane, rounds=rounds),))


@pytest.mark.parametrize("window", [1, 2, 100])
async def test_a_long_lane_is_applied_round_by_round(store: Store, window: int) -> None:
    """Every claim reads as far as the planned one did."""
    async with circle(store) as c:
        one = people(c)[0]
        lists = next(iter(c.sandbox.world.lists))
        changes: list[LocalChange] = [add(301), profile(last_name="a"), remove(301), email("b@x.example"), add(301)]
        await changed(store, c.account, one, *changes, profile(last_name="b"), subscribe(lists), add(303))
        limits = replace(ALONE, window=window)
        plan = await planned(c, limits)
        result = await applied(c, await filed(c, limits), limits)
        assert [(lane.fate, lane.reason) for lane in result.lanes] == [(Fate.SENT, None)]
        assert await sent_by_lane(c) == told_by_lane(plan)


async def test_beside_a_drainer_every_change_is_sent_once(store: Store) -> None:
    """Both claim: a lane is sent by one of them, and the other says so or finds nothing to do."""
    async with circle(store, relations=30) as c:
        for who in people(c):
            await changed(store, c.account, who, subscribe(next(iter(c.sandbox.world.lists))), add(301))
        plan = await filed(c)
        wide = replace(QUICK, concurrency=4)
        result, _ = await asyncio.gather(applied(c, plan, wide), c.drain(wide))
        await c.drain(wide)
        assert len(c.sandbox.requests.of("list_subscribe")) == 30
        assert {entry["status"] for entry in await c.entries()} <= {"accepted", "verified"}
        assert {lane.fate for lane in result.lanes} <= {Fate.SENT, Fate.REFUSED}
        assert all(lane.reason for lane in result.lanes if lane.fate is Fate.REFUSED)


async def test_rounds_of_one_lane_are_not_let_go_between(store: Store) -> None:
    """A drainer that looks at every moment must not take the rest of a lane that is being applied.

    The lanes are put to sleep first, so that the drainer could see them only if they were let go.
    """
    async with circle(store) as c:
        for number in range(25):
            await _tag(c, await _new_relation(c, f"n{number}@x.example"), 301)
        await stage_all(store)
        plan = await filed(c)
        await run_sql(store, "UPDATE syncd.lanes SET ready_at = NULL")
        stop = asyncio.Event()
        daemon = asyncio.create_task(c.drainer(QUICK, poll_interval_s=0.001).run(stop))
        result = await applied(c, plan)
        stop.set()
        await daemon
        assert {(lane.fate, lane.sent) for lane in result.lanes} == {(Fate.SENT, 2)}
        assert {lane["epoch"] for lane in await c.lanes()} == {2}


async def test_a_call_that_fails_is_settled_as_the_drain_would_and_its_lane_stops(store: Store) -> None:
    """The entry backs off; what was planned behind it in other rounds is not sent past it."""
    async with circle(store) as c:
        one, two = people(c)[:2]
        await changed(store, c.account, one, subscribe(next(iter(c.sandbox.world.lists))), add(301))
        await changed(store, c.account, two, add(302))
        plan = await filed(c)
        c.sandbox.faults.add("status", operation="list_subscribe", status=400, times=0)
        failed, sent = (await applied(c, plan)).lanes
        assert (failed.fate, failed.planned, failed.sent) == (Fate.FAILED, 2, 0)
        assert "it is dead now" in (failed.reason or "")
        assert sent.fate is Fate.SENT
        assert [entry["status"] for entry in await c.entries()] == ["dead", "pending", "accepted"]
        assert (await c.drain()).delivered == 1


async def test_a_refusal_that_was_planned_does_not_stop_its_lane(store: Store) -> None:
    """The plan said that the switched-off call is buried and what is behind it is sent."""
    async with circle(store, options=ProviderOptions()) as c:
        one = people(c)[0]
        await changed(store, c.account, one, add(301), subscribe(next(iter(c.sandbox.world.lists))), remove(302))
        (lane,) = (await applied(c, await filed(c))).lanes
        assert (lane.fate, lane.planned, lane.sent) == (Fate.SENT, 2, 2)
        assert writes(c) == ["tag_add", "tag_remove"]
        assert [entry["status"] for entry in await c.entries()] == ["accepted", "dead", "accepted"]


async def test_an_unreadable_entry_is_buried_as_planned(store: Store) -> None:
    """What nobody can read stops its own facet alone, in a plan as in a drain."""
    async with circle(store) as c:
        one = people(c)[0]
        await changed(store, c.account, one, add(301), subscribe(next(iter(c.sandbox.world.lists))))
        await run_sql(store, "UPDATE syncd.entries SET payload = '{}' WHERE seq = 1")
        plan = await filed(c)
        (lane,) = (await applied(c, plan)).lanes
        assert (lane.fate, lane.sent, lane.reason) == (Fate.SENT, 1, None)
        assert [entry["status"] for entry in await c.entries()] == ["dead", "accepted"]


async def test_a_paused_account_waits_and_is_sent_nothing(store: Store) -> None:
    """A pause holds for every door."""
    async with circle(store) as c:
        await _rename(c, people(c)[0], "X")
        plan = await filed(c)
        async with store.begin() as connection:
            await account_states.pause(connection, c.account.id, "holiday", by_operator=True)
        (lane,) = (await applied(c, plan)).lanes
        assert (lane.fate, lane.reason) == (Fate.WAITS, "the account is paused: holiday")
        assert writes(c) == []
        async with store.begin() as connection:
            await account_states.resume(connection, c.account.id, by_operator=True)
        assert [lane.fate for lane in (await applied(c, plan)).lanes] == [Fate.SENT]


async def test_a_short_throttle_is_waited_out_and_a_long_one_is_not(store: Store) -> None:
    """As a drain does: a second is patience, an hour is another time."""
    async with circle(store) as c:
        one, two = people(c)[:2]
        await _rename(c, one, "X")
        await _tag(c, one, 301)
        plan = await filed(c)
        c.sandbox.faults.add("status", operation="relation_upsert", status=429, retry_after_s=1)
        (lane,) = (await applied(c, plan)).lanes
        assert (lane.fate, lane.sent) == (Fate.SENT, 2)
        await _rename(c, two, "Y")
        plan = await filed(c)
        c.sandbox.faults.add("status", operation="relation_upsert", status=429, retry_after_s=3600)
        (lane,) = (await applied(c, plan)).lanes
        assert lane.fate is Fate.WAITS
        assert "left alone" in (lane.reason or "")
        assert [e["attempts"] for e in await c.entries() if e["relation_id"] == two] == [0]


async def test_stopping_finishes_what_is_under_way(store: Store) -> None:
    """Ctrl-C in the middle leaves no lane claimed and nothing in doubt."""
    async with circle(store) as c:
        for who in people(c)[:3]:
            await _rename(c, who, "X")
        plan = await filed(c)
        stop = asyncio.Event()
        c.sandbox.faults.add("hold", operation="relation_upsert")
        applying = asyncio.create_task(applied(c, plan, stop=stop))
        await c.sandbox.until_held()
        stop.set()
        c.sandbox.release()
        result = await applying
        assert [lane.fate for lane in result.lanes] == [Fate.SENT, Fate.WAITS, Fate.WAITS]
        assert {lane["claimed_by"] for lane in await c.lanes()} == {None}
        assert (await c.drain()).delivered == 2


async def test_applying_twice_sends_once(store: Store) -> None:
    """The second time everything has moved."""
    async with circle(store) as c:
        await _rename(c, people(c)[0], "X")
        plan = await filed(c)
        assert [lane.fate for lane in (await applied(c, plan)).lanes] == [Fate.SENT]
        (again,) = (await applied(c, plan)).lanes
        assert again.fate is Fate.REFUSED
        assert "already" in (again.reason or "")
        assert writes(c) == ["relation_upsert"]


async def test_a_call_that_the_crm_made_moot_waits_and_is_not_sent(store: Store) -> None:
    """A person read the plan before somebody in the CRM changed the very field: its owner decides, not the file."""
    async with circle(store) as c:
        who = people(c)[0]
        await _rename(c, who, "Ours")
        plan = await filed(c)
        c.sandbox.world.change_relation(who, last_name="Theirs")
        held = replace(ALONE, owners=Owners(Owner.HOLD))
        (lane,) = (await applied(c, plan, held)).lanes
        assert (lane.fate, lane.sent) == (Fate.WAITS, 0)
        assert "both sides changed a field" in str(lane.reason)
        assert c.sandbox.world.relations[who].last_name == "Theirs"
