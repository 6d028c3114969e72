"""An operator at random, two drainers at work, a CRM that fails: nothing that a person does breaks order.

Every edit of a facet carries a number that only grows. Whatever was retried, skipped, approved, rejected, paused and
resumed in between: the simulator's journal shows the numbers of each facet growing, and a call that is not repeat-safe
at most once each. Each seed is another story; `make prove` tells many.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from random import Random

import msgspec
import pytest

from syncd.domain.errors import UserError
from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.store import Store
from syncd.store.outbox import decide, pause_accounts, resume_accounts, retry_entry, skip_entry
from tests.support.holds import carried_out, decided, holds
from tests.support.outbox import QUICK, Circle, circle, rows

SEEDS = range(40 if os.environ.get("SYNCD_HYPOTHESIS_PROFILE") == "prove" else 4)
PEOPLE, EDITS, VERBS = 4, 80, 80
VERB_WEIGHTS = [*["retry"] * 8, *["skip"] * 4, *["approve"] * 3, "reject", "pause", *["resume"] * 3]
GUARD = Guard(relations=2, share=0, window_s=0.2)
LIMITS = {
    "lease_s": 1.0,
    "timeout_s": 0.4,
    "max_attempts": 2,
    "guard": GUARD,
    "breaker_failures": 1000,
    "settle_window_s": 0.5,
    "breaker_pause_s": 0.05,
    "breaker_pause_max_s": 0.2,
}


async def _edits(c: Circle, random: Random, people: list[int]) -> None:
    """Edit one facet of one relation after another, each time with the next number."""
    fields = [row["id"] for row in await rows(c.store, "SELECT id FROM crm.fields WHERE code LIKE '%FF%' LIMIT 1")]
    listing = next(iter(c.sandbox.world.lists))
    for number in range(1000, 1000 + EDITS):
        who = random.choice(people)
        match random.randrange(12):
            case 0 | 1 | 2 | 3 | 4 | 5:
                await c.edit(
                    """INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (:who, :field, :value)
                       ON CONFLICT (relation_id, field_id) DO UPDATE SET value = excluded.value""",
                    who=who,
                    field=random.choice(fields),
                    value=str(number),
                )
            case 6 | 7 | 8:
                await c.edit("UPDATE crm.relations SET last_name = :name WHERE id = :who", who=who, name=str(number))
            case 9:
                address = f"p{who}.{number}@x.example"
                await c.edit("UPDATE crm.relations SET email = :address WHERE id = :who", who=who, address=address)
            case _:
                await _unsubscribe(c, who, listing, number)
        await asyncio.sleep(random.choice([0, 0.005, 0.02, 0.05]))


async def _unsubscribe(c: Circle, who: int, listing: int, number: int) -> None:
    """The one call here that must never be repeated: each leaves a note with its reason."""
    payload = {"list_id": listing, "list_remote_id": str(listing), "reason": str(number)}
    await c.edit(
        """INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload)
           VALUES (:account_id, :who, 'unsubscribe', :facet, CAST(CAST(:payload AS text) AS jsonb))""",
        who=who,
        facet=f"list:{listing}",
        payload=msgspec.json.encode(payload).decode(),
    )


async def _operate(c: Circle, random: Random, done: Counter[str]) -> None:
    """Decide something at random; what is refused is refused."""
    for _ in range(VERBS):
        verb = random.choice(VERB_WEIGHTS)
        try:
            if await _decide(c, random, verb):
                done[verb] += 1
        except UserError:
            done[f"{verb} refused"] += 1
        await asyncio.sleep(random.choice([0, 0.01, 0.05]))


async def _decide(c: Circle, random: Random, verb: str) -> bool:
    if verb in ("approve", "reject"):
        found = [hold["id"] for hold in await holds(c.store) if hold["status"] == "open"]
        if found:
            async with c.store.begin() as connection:
                status = HoldStatus.APPROVED if verb == "approve" else HoldStatus.REJECTED
                await decide(connection, found[0], status, "somebody")
            await carried_out(c.store, found[0], most=random.choice([1, 3, 100]))
        return bool(found)
    if verb in ("pause", "resume"):
        async with c.store.begin() as connection:
            await (pause_accounts if verb == "pause" else resume_accounts)(connection, None)
        return True
    entry = await _some_entry(c, random)
    if entry is not None:
        async with c.store.begin() as connection:
            await (retry_entry if verb == "retry" else skip_entry)(connection, entry)
    return entry is not None


async def _some_entry(c: Circle, random: Random) -> int | None:
    """Undelivered ones, most often those that wait for a person; now and then any."""
    wanted = random.choice(["dead parked held", "dead parked held", "pending", "pending accepted skipped verified"])
    sql = "SELECT id FROM syncd.entries WHERE status = ANY (CAST(:statuses AS text[])) ORDER BY id"
    found = await rows(c.store, sql, statuses=wanted.split())
    return int(random.choice(found)["id"]) if found else None


def _faults(c: Circle, random: Random) -> None:
    for kind, share in (("status", 0.1), ("lost_answer", 0.15), ("reset", 0.05), ("lost_reset", 0.1)):
        c.sandbox.faults.add(kind, probability=share, times=0)
    c.sandbox.faults.add("status", status=400, probability=0.1, times=0)
    c.sandbox.faults.add("delay", delay_s=random.choice([0.01, 0.05]), probability=0.5, times=0)


def _applied(c: Circle) -> dict[str, list[int]]:
    """The numbers that reached the CRM, facet by facet, in the order in which they took effect."""
    found: dict[str, list[int]] = defaultdict(list)
    for effect in c.sandbox.journal:
        if effect.kind == "field.set":
            found[effect.subject].append(int(str(effect.after)))
        elif effect.kind == "contact.noted":
            found[f"{effect.subject}/list"].append(int(str(effect.after)))
        elif effect.kind == "relation.email_changed":
            found[f"{effect.subject}/email"].append(int(str(effect.after["email"]).split("@")[0].split(".")[1]))  # type: ignore[index]
        elif effect.kind == "relation.changed" and "last_name" in effect.after:  # type: ignore[operator]
            found[f"{effect.subject}/last_name"].append(int(effect.after["last_name"]))  # type: ignore[index]
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_decision_breaks_the_order_of_a_facet(store: Store, seed: int) -> None:
    """Older after newer is the one thing that an outbox must never do, whoever asks for it."""
    random, done = Random(seed), Counter[str]()
    async with circle(store, relations=PEOPLE + 2) as c:
        people = list(c.sandbox.world.relations)[:PEOPLE]
        _faults(c, random)
        stop = asyncio.Event()
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            drainers = [group.create_task(c.drainer(QUICK, **LIMITS).run(stop)) for _ in range(2)]
            async with asyncio.TaskGroup() as busy:
                busy.create_task(_edits(c, random, people))
                busy.create_task(_operate(c, Random(seed + 1000), done))
            stop.set()
            await asyncio.wait(drainers)
        c.sandbox.faults.clear()
        async with store.begin() as connection:
            await resume_accounts(connection, None)
        for hold in await holds(store):
            if hold["status"] == "open":
                await decided(store, hold["id"], HoldStatus.APPROVED)
        report = await c.drain(**{**LIMITS, "guard": None, "patience_s": 3.0})
        assert report.pending == 0, f"seed {seed}: what could be sent was left asleep"
        applied = _applied(c)
        for facet, numbers in applied.items():
            assert numbers == sorted(numbers), f"seed {seed}: {facet} out of order: {numbers}; {dict(done)}"
            if facet.endswith("/list"):
                assert len(numbers) == len(set(numbers)), f"seed {seed}: {facet} twice: {numbers}; {dict(done)}"
        assert applied
        assert await rows(store, "SELECT 1 FROM syncd.entries WHERE status = 'held'") == []


async def test_behind_a_refused_call_that_no_later_one_makes_moot_everything_waits_for_a_person(store: Store) -> None:
    """A one-shot drain that says "try later" about it would be tried for ever by a timer."""
    async with circle(store) as c:
        who, listing = next(iter(c.sandbox.world.relations)), next(iter(c.sandbox.world.lists))
        c.sandbox.faults.add("status", status=400, operation="list_unsubscribe")
        await _unsubscribe(c, who, listing, 1)
        assert (await c.drain()).dead == 1
        await _unsubscribe(c, who, listing, 2)
        report = await c.drain()
        assert (report.pending, report.blocked) == (0, 2)
