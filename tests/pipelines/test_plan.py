"""Plan: what it prints is what a drain then sends, call by call, and printing it sends and moves nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncd.domain.changes import LocalChange
from syncd.outbound.applying import Fate
from syncd.providers.contract import ProviderOptions
from syncd.store import Store, account_states
from tests.support.claims import changed
from tests.support.lanes import add, email, field, join, profile, remove, subscribe, unsubscribe
from tests.support.outbox import Circle, circle, remote_sql, rows, run_sql, stage_all
from tests.support.planning import ALONE, applied, calls_of, filed, planned, sent_by_lane, told_by_lane, writes


def people(c: Circle) -> list[int]:
    return list(c.sandbox.world.relations)


async def _tag(c: Circle, who: int, tag: int) -> None:
    await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, :tag)", who=who, tag=tag)


async def _untag(c: Circle, who: int, tag: int) -> None:
    await c.edit("DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = :tag", who=who, tag=tag)


async def _rename(c: Circle, who: int, name: str) -> None:
    await c.edit("UPDATE crm.relations SET last_name = :name WHERE id = :who", who=who, name=name)


async def _everything(c: Circle) -> None:
    """A day's edits: folds, barriers, a create with its tag, several relations, some of it captured only."""
    one, two, three = people(c)[:3]
    lists = next(iter(c.sandbox.world.lists))
    await _tag(c, one, 301)
    await _untag(c, one, 301)
    await _rename(c, one, "Een")
    await _rename(c, one, "Twee")
    await c.edit("UPDATE crm.relations SET email = 'ander@x.example' WHERE id = :who", who=one)
    await _rename(c, one, "Drie")
    await changed(c.store, c.account, two, subscribe(lists), unsubscribe(lists), add(302))
    await stage_all(c.store)
    await c.edit("INSERT INTO crm.relations (account_id, email) VALUES (:account_id, 'nieuw@x.example')")
    new = (await rows(c.store, "SELECT id FROM crm.relations WHERE email = 'nieuw@x.example'"))[0]["id"]
    await _tag(c, new, 303)
    await _rename(c, three, "Vier")


async def test_the_plan_is_what_a_drain_then_sends(store: Store) -> None:
    """A plan that differs from the drain by one call is worse than none."""
    async with circle(store) as c:
        await _everything(c)
        plan = await planned(c)
        assert (await c.drain(ALONE)).is_empty
        assert sorted(call for _, call in calls_of(plan)) == sorted(writes(c))
        assert told_by_lane(plan) == await sent_by_lane(c)
        assert plan.totals.calls == len(c.reports)
        assert plan.totals.requests <= sum(report.requests for report in c.reports)


async def test_a_plan_says_how_long_its_requests_take_at_the_allowed_rate(store: Store) -> None:
    """An operator who waits for a backlog asks when it will be gone; the rate answers, reads included."""
    async with circle(store) as c:
        one, two = people(c)[:2]
        await _rename(c, one, "Een")
        await changed(store, c.account, two, add(301), subscribe(next(iter(c.sandbox.world.lists))))
        await run_sql(store, "UPDATE syncd.entries SET is_uncertain = true WHERE operation = 'subscribe'")
        for rate_per_s in (0.25, 4.0):
            plan = await planned(c, replace(ALONE, rate_per_s=rate_per_s))
            assert (plan.totals.calls, plan.totals.requests, plan.rate_per_s) == (3, 5, rate_per_s)
            assert plan.estimated_s == 5 / rate_per_s
        unbound = await planned(c, replace(ALONE, rate_per_s=None))
        assert (unbound.rate_per_s, unbound.estimated_s) == (None, None)


@pytest.mark.parametrize("window", [1, 2, 3, 100])
async def test_the_plan_reads_a_long_lane_in_the_pieces_of_the_claims(store: Store, window: int) -> None:
    """What is folded depends on how much of a lane one claim reads; the plan must not fold more."""
    async with circle(store) as c:
        one = people(c)[0]
        changes: list[LocalChange] = [add(301), profile(last_name="a"), remove(301), email("b@x.example"), add(301)]
        changes += [profile(last_name="b"), profile(last_name="c"), subscribe(next(iter(c.sandbox.world.lists)))]
        await changed(store, c.account, one, *changes, remove(301), profile(last_name="d"))
        limits = replace(ALONE, window=window)
        plan = await planned(c, limits)
        assert (await c.drain(limits)).is_empty
        assert [call for _, call in calls_of(plan)] == writes(c)


async def test_planning_sends_moves_and_claims_nothing(store: Store) -> None:
    """Whoever looks must be able to look again."""
    async with circle(store) as c:
        await _everything(c)
        before = await _state(store)
        plan = await planned(c)
        assert plan.totals.captured == 3
        assert await _state(store) == before
        assert list(c.sandbox.requests) == []
        again = await planned(c)
        assert (calls_of(again), again.totals) == (calls_of(plan), plan.totals)


async def _state(store: Store) -> list[object]:
    tables = ("captures", "lanes", "entries", "attempts", "account_states", "changes", "runs")
    return [await rows(store, f"SELECT * FROM syncd.{table} ORDER BY 1, 2") for table in tables]


async def test_a_call_tells_what_it_carries_and_supersedes_and_from_what_to_what(store: Store) -> None:
    """The operator sees which edits became one call, and what was last agreed."""
    async with circle(store) as c:
        one = people(c)[0]
        before = c.sandbox.world.relations[one].last_name
        await _rename(c, one, "Een")
        await _rename(c, one, "Twee")
        await _tag(c, one, 301)
        await stage_all(store)
        ids = [entry["id"] for entry in await c.entries()]
        lane = (await planned(c)).lanes[0]
        name, tag = lane.calls
        assert [(v.name, v.base, v.local) for v in name.values] == [("last_name", before, "Twee")]
        assert (name.carries.entry, [mark.entry for mark in name.supersedes]) == (ids[1], [ids[0]])
        assert (name.verb, name.path, name.turn, name.effect) == ("POST", "relation", "update", "repeat_safe")
        assert (tag.path, tag.turn) == ("relation/{relId}/addtag/{tagId}", "add")
        assert [(v.name, v.base, v.local) for v in tag.values] == [
            (f"tag:{c.sandbox.world.tags[301].name}", "no", "yes")
        ]


async def test_what_waits_says_why(store: Store) -> None:
    """Back-off, a hold, a dead entry, one behind a dead identity, an operation that is switched off."""
    async with circle(store, options=ProviderOptions()) as c:
        one, two, three, four = people(c)[:4]
        await changed(store, c.account, one, email("x@x.example"), add(301))
        await changed(store, c.account, two, add(301), add(302))
        await changed(store, c.account, three, subscribe(next(iter(c.sandbox.world.lists))))
        await changed(store, c.account, four, add(303), remove(303))
        await run_sql(store, "UPDATE syncd.entries SET status = 'dead', error = 'in use' WHERE facet = 'identity'")
        await run_sql(
            store,
            "UPDATE syncd.entries SET next_attempt_at = now() + interval '1 hour', attempts = 2 "
            "WHERE relation_id = :two AND facet = 'tag:302'",
            two=two,
        )
        await run_sql(
            store, "UPDATE syncd.entries SET status = 'held', hold_id = 7 WHERE facet = 'tag:303' AND seq = 1"
        )
        plan = await planned(c)
        told = {
            (lane.relation_id, wait.operation, wait.why, wait.behind is not None)
            for lane in plan.lanes
            for wait in lane.waits
        }
        assert told == {
            (one, "change_email", "dead", False),
            (one, "add_tag", "behind", True),
            (two, "add_tag", "back_off", False),
            (three, "subscribe", "refused", False),
            (four, "add_tag", "held", False),
            (four, "remove_tag", "behind", True),
        }
        assert calls_of(plan) == [(c.sandbox.world.relations[two].email, "tag_add")]
        assert plan.totals.by_reason == {"dead": 1, "behind": 2, "back_off": 1, "refused": 1, "held": 1}
        waits = {wait.why: wait for lane in plan.lanes for wait in lane.waits}
        assert waits["held"].hold_id == 7
        assert waits["back_off"].until is not None
        assert "SYNCD_ALLOWED_OPERATIONS" in (waits["refused"].error or "")


@pytest.mark.parametrize(
    ("late", "operation", "call"),
    [("profile", "change_email", "relation_email"), ("address", "update_profile", "relation_upsert")],
)
async def test_what_waits_for_a_late_call_says_so_and_applies_as_planned(
    store: Store, late: str, operation: str, call: str
) -> None:
    """Address and profile wait for each other's calls that may still land; the rest is planned, and sent."""
    async with circle(store) as c:
        one = people(c)[0]
        await changed(store, c.account, one, add(301), profile(first_name="A"), email("x@x.example"))
        await run_sql(store, f"UPDATE syncd.lanes SET {late}_lands_until = now() + interval '1 minute'")
        if late == "profile":
            await run_sql(store, "UPDATE syncd.entries SET status = 'superseded' WHERE facet = 'profile'")
        plan = await planned(c)
        waits = {wait.operation: wait for lane in plan.lanes for wait in lane.waits}
        assert (waits[operation].why, waits[operation].until is None) == ("landing", False)
        (lane,) = (await applied(c, await filed(c))).lanes
        assert (lane.fate, lane.sent) == (Fate.SENT, 1)
        await c.drain()
        assert call not in writes(c)
        await c.wake()
        await c.drain()
        assert call in writes(c)


async def test_a_refused_call_is_planned_around_as_the_drain_goes_around_it(store: Store) -> None:
    """What is behind a switched-off operation is sent all the same."""
    async with circle(store, options=ProviderOptions()) as c:
        one = people(c)[0]
        await changed(store, c.account, one, add(301), subscribe(next(iter(c.sandbox.world.lists))), remove(302))
        plan = await planned(c)
        await c.drain(ALONE)
        assert [call for _, call in calls_of(plan)] == writes(c) == ["tag_add", "tag_remove"]


async def test_a_paused_account_is_told_beside_its_calls(store: Store) -> None:
    """The plan of a paused account is what the pause holds back."""
    async with circle(store) as c:
        await _rename(c, people(c)[0], "Een")
        async with store.begin() as connection:
            await account_states.pause(connection, c.account.id, "holiday", by_operator=True)
        plan = await planned(c)
        assert (plan.paused, plan.totals.calls) == ("holiday", 1)


async def test_a_barrier_that_a_dead_drainer_left_is_planned_as_read_back_first(store: Store) -> None:
    """It may have been applied; who reads the plan must know that it is asked before it is sent again."""
    async with circle(store) as c:
        one = people(c)[0]
        await changed(store, c.account, one, subscribe(next(iter(c.sandbox.world.lists))))
        await run_sql(store, "UPDATE syncd.lanes SET sending_upto = 1, claimed_by = 'gone', ready_at = now()")
        (call,) = (await planned(c)).lanes[0].calls
        assert (call.is_in_doubt, call.effect, call.requests) == (True, "once", 2)


async def test_reading_shows_the_crm_beside_both_and_reads_only(store: Store) -> None:
    """Base, local, remote: the three values that a decision needs, by safe reads alone."""
    async with circle(store) as c:
        one = people(c)[0]
        await _rename(c, one, "Hier")
        await _tag(c, one, 301)
        relation = c.sandbox.world.relations[one]
        c.sandbox.world.change_relation(one, last_name="Daar")
        c.sandbox.world.tag(c.sandbox.world.relations[one], 301)
        plan = await planned(c, with_remote=True)
        shown = {v.name: (v.base, v.local, v.remote) for call in plan.lanes[0].calls for v in call.values}
        assert shown == {
            "last_name": (relation.last_name, "Hier", "Daar"),
            f"tag:{c.sandbox.world.tags[301].name}": ("no", "yes", "yes"),
        }
        assert [line.operation for line in c.sandbox.requests] == ["relation_by_id", "relation_tags"]
        assert plan.reading is None


async def test_reading_stops_when_the_account_is_refused(store: Store) -> None:
    """Nobody knocks on after a refused key."""
    async with circle(store, key="wrong") as c:
        for who in people(c)[:3]:
            await _rename(c, who, "X")
        plan = await planned(c, with_remote=True)
        assert plan.reading is not None
        assert len(list(c.sandbox.requests)) == 1


async def test_reading_asks_about_what_is_shown_alone(store: Store) -> None:
    """Nobody looks at a million relations by accident."""
    async with circle(store) as c:
        for who in people(c)[:3]:
            await _rename(c, who, "X")
        plan = await planned(c, with_remote=True, most=2)
        assert [line.operation for line in c.sandbox.requests] == ["relation_by_id"] * 2
        assert (len(plan.lanes), plan.more_lanes, plan.totals.calls) == (2, 1, 3)


async def test_one_address_is_planned_alone(store: Store) -> None:
    """What somebody asks about, without the rest; the address is compared without letter case."""
    async with circle(store) as c:
        one, two = people(c)[:2]
        await _rename(c, one, "X")
        await _rename(c, two, "Y")
        address = c.sandbox.world.relations[two].email
        plan = await planned(c, email=address.upper())
        assert calls_of(plan) == [(address, "relation_upsert")]
        assert plan.totals.relations == 1


async def test_a_create_is_planned_with_what_follows_it(store: Store) -> None:
    """Its tag has no remote id to go to yet, and goes all the same."""
    async with circle(store) as c:
        await c.edit("INSERT INTO crm.relations (account_id, email, gender) VALUES (:account_id, 'n@x.example', 'F')")
        new = (await rows(store, "SELECT id FROM crm.relations WHERE email = 'n@x.example'"))[0]["id"]
        await _tag(c, new, 301)
        (lane,) = (await planned(c)).lanes
        assert [(call.round, call.call, call.requests) for call in lane.calls] == [
            (1, "relation_upsert", 1),
            (2, "tag_add", 1),
        ]
        assert [(v.name, v.base, v.local) for v in lane.calls[0].values] == [
            ("email", None, "n@x.example"),
            ("gender", None, "F"),
        ]


async def test_a_large_outbox_is_counted_whole_and_shown_in_part(store: Store) -> None:
    """ "And so many more" must be true."""
    async with circle(store, relations=40) as c:
        for who in people(c):
            await changed(store, c.account, who, add(301), field("x"), join(next(iter(c.sandbox.world.groups))))
        plan = await planned(c, most=3)
        assert (len(plan.lanes), plan.more_lanes) == (3, 37)
        assert (plan.totals.relations, plan.totals.calls) == (40, 120)
        assert {name: count.number for name, count in plan.totals.by_call.items()} == {
            "tag_add": 40,
            "field_set": 40,
            "group_add": 40,
        }


async def test_two_accounts_are_not_mixed(store: Store) -> None:
    """One plan, one administration."""
    async with circle(store) as c:
        await _rename(c, people(c)[0], "X")
        await remote_sql(store, "INSERT INTO crm.accounts (id, name, provider) VALUES (99, 'other', 'autorespond')")
        await run_sql(store, "INSERT INTO crm.relations (account_id, email) VALUES (99, 'o@x.example')")
        assert (await planned(c)).totals.relations == 1


async def test_what_is_only_said_once_more_is_counted_and_is_no_part_of_a_plan(store: Store) -> None:
    """A plan is about changes; a delivered value that is said again is the drain's own care."""
    async with circle(store) as c:
        one, two = people(c)[:2]
        await changed(store, c.account, one, add(301), add(302))
        await changed(store, c.account, two, add(301))
        again = "UPDATE syncd.entries SET reasserts = id WHERE relation_id = :two OR facet = 'tag:302'"
        await run_sql(store, again, two=two)
        plan = await planned(c)
        assert [(lane.relation_id, [call.call for call in lane.calls]) for lane in plan.lanes] == [(one, ["tag_add"])]
        assert (plan.totals.calls, plan.totals.waiting, plan.totals.reassertions) == (1, 0, 2)
        (lane,) = (await applied(c, await filed(c))).lanes
        assert (lane.fate, lane.sent) == (Fate.SENT, 1)
        assert writes(c) == ["tag_add"]
