"""An operator at random, two drainers at work, a CRM that fails: nothing that a person does breaks order.

Every edit of a facet carries a number that only grows. Whatever was retried, skipped, approved, rejected, paused and
resumed in between: no number of a facet is ever said after a larger one that was not refused, and a call that is not
repeat-safe takes effect at most once. A request may get there late, after its answer was given up and a larger number
was delivered (some are slower than our patience here): that alone may show in the simulator's journal as a number after
a larger one, and the largest is said once more after it. Each seed is another story; `make prove` tells many.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any

import msgspec
import pytest

from syncd.domain.errors import UserError
from syncd.policy.guard import Guard
from syncd.policy.states import HoldStatus
from syncd.store import Store
from syncd.store.outbox import Terms, claim, decide, pause_accounts, resume_accounts, stage
from tests.support.hearing import End, HearingTransport, disorder
from tests.support.holds import carried_out, decided, holds
from tests.support.outbox import QUICK, Circle, circle, retry_entry, rows, skip_entry
from tests.support.proving import Say, is_long

SEEDS = range(40 if is_long() else 4)
PEOPLE, EDITS, VERBS = 4, 80, 80
VERB_WEIGHTS = [*["retry"] * 8, *["skip"] * 4, *["approve"] * 3, "reject", "pause", *["resume"] * 3]
GUARD = Guard(relations=2, share=0, window_s=0.2)
LIMITS: dict[str, Any] = {
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
            if verb == "retry":
                await retry_entry(connection, entry)
            else:
                await skip_entry(connection, entry, settle_window_s=LIMITS["settle_window_s"])
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
    for late_s in (0.02, 0.1, 0.2):
        c.sandbox.faults.add("delay", delay_s=LIMITS["timeout_s"] + late_s, probability=0.03, times=0)
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


def _said(c: Circle, addresses: dict[str, int]) -> dict[str, list[tuple[int, End]]]:
    """The numbers that were sent, facet by facet as ``_applied`` names them, and how each ended."""
    assert isinstance(c.transport, HearingTransport)
    found: dict[str, list[tuple[int, End]]] = defaultdict(list)
    for heard in c.transport.heard:
        given, who = dict(heard.request.form), heard.request.path.split("/")
        match heard.request.operation:
            case "field_set":
                facet, number = f"relation:{who[1]}/{given['fieldCode']}", given["fieldValue"]
            case "list_unsubscribe":
                facet, number = f"relation:{given['relId']}/list", given["reason"]
            case "relation_email":
                facet, number = f"relation:{who[1]}/email", _numbered(given["newemail"])[1]
            case "relation_upsert":
                address = given["email"]
                relation = addresses.get(address) or _numbered(address)[0]
                facet, number = f"relation:{relation}/last_name", given["lastName"]
            case _:
                continue
        found[facet].append((int(number), heard.end))
    return found


def _numbered(address: str) -> tuple[str, str]:
    """Whose an address is that was made here, and its number."""
    who, number = address.removeprefix("p").split("@")[0].split(".")
    return who, number


async def _given_up(c: Circle) -> set[str]:
    """The facets, as ``_applied`` names them, of which a person skipped something."""
    codes = {f"field:{row['id']}": row["code"] for row in await rows(c.store, "SELECT id, code FROM crm.fields")}
    names = {"profile": "last_name", "identity": "email", **codes}
    skipped = await rows(c.store, "SELECT DISTINCT relation_id, facet FROM syncd.entries WHERE status = 'skipped'")
    return {f"relation:{row['relation_id']}/{names.get(row['facet'], 'list')}" for row in skipped}


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_decision_breaks_the_order_of_a_facet(store: Store, proof: Say, seed: int) -> None:
    """Older after newer is the one thing that an outbox must never do, whoever asks for it."""
    random, done = Random(seed), Counter[str]()
    async with circle(store, relations=PEOPLE + 2, through=HearingTransport) as c:
        people = list(c.sandbox.world.relations)[:PEOPLE]
        addresses = {relation.email: relation.id for relation in c.sandbox.world.relations.values()}
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
        applied, said, given_up = _applied(c), _said(c, addresses), await _given_up(c)
        for facet, numbers in applied.items():
            wrong = disorder(said[facet], numbers, may_end_older=facet in given_up)
            assert wrong is None, f"seed {seed}: {facet}: {wrong}; {dict(done)}"
            if facet.endswith("/list"):
                assert len(numbers) == len(set(numbers)), f"seed {seed}: {facet} twice: {numbers}; {dict(done)}"
        assert applied
        assert await rows(store, "SELECT 1 FROM syncd.entries WHERE status = 'held'") == []
        told = ", ".join(f"{count} {verb}" for verb, count in sorted(done.items()))
        effects = sum(map(len, applied.values()))
        proof(f"operators: seed {seed}: {EDITS} edits, {effects} effects on {len(applied)} facets in order; {told}")


@pytest.mark.parametrize(
    ("said", "applied", "complaint"),
    [
        ("1 2 2", [1, 2], None),
        ("1 2 1", [1, 2, 1], "1 was said after 2"),
        ("1? 2 1 2", [1, 2, 1, 2], "1 was said after 2"),
        ("1 2? 1 2", [1, 2], "1 was said after 2"),
        ("1? 2- 1 2", [1, 2], None),
        ("1 1 2", [2, 1, 2], "no request for it was in doubt"),
        ("1? 1 2 2", [1, 2, 1, 2], None),
        ("1? 1 2 2", [1, 2, 1, 2, 1, 2], "no request for it was in doubt"),
        ("1? 1 2", [1, 2, 1], "1 stands, and 2 was there"),
    ],
)
def test_what_counts_as_disorder(said: str, applied: list[int], complaint: str | None) -> None:
    """Exactly this much is forgiven: a request in doubt (?) that gets there late, and is put right, and an older value
    after a newer one that was refused (-)."""
    ends = {"?": End.DOUBT, "-": End.REFUSED}
    wrong = disorder([(int(word[0]), ends.get(word[1:], End.DONE)) for word in said.split()], applied)
    assert wrong is None if complaint is None else complaint in str(wrong)


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


async def test_a_retry_takes_no_older_value_along_over_a_newer_one(store: Store) -> None:
    """The CRM refuses a first name with the last name in its call, and the note behind them; so the next first name
    passes all three. A person may retry the last name: the older first name, merged with it, must not go out again."""
    async with circle(store) as c:
        who, listing = next(iter(c.sandbox.world.relations)), next(iter(c.sandbox.world.lists))
        for operation in ("relation_upsert", "list_unsubscribe"):
            c.sandbox.faults.add("status", status=400, operation=operation)
        await c.edit("UPDATE crm.relations SET first_name = 'Fenna' WHERE id = :who", who=who)
        await c.edit("UPDATE crm.relations SET last_name = 'Vos' WHERE id = :who", who=who)
        await _unsubscribe(c, who, listing, 1)
        await c.edit("UPDATE crm.relations SET first_name = 'Chris' WHERE id = :who", who=who)
        await c.drain()
        (refused,) = await rows(
            store, "SELECT id FROM syncd.entries WHERE status = 'dead' AND payload -> 'new' ? 'last_name'"
        )
        async with store.begin() as connection:
            await retry_entry(connection, refused["id"])
        await c.drain()
        found = c.sandbox.world.relations[who]
        assert (found.first_name, found.last_name) == ("Chris", "Vos")
        assert [each["status"] for each in await c.entries()] == ["superseded", "verified", "dead", "verified"]


@pytest.mark.parametrize("tries", [1, 9])
async def test_what_a_refused_edit_lent_to_a_call_in_doubt_is_in_doubt_with_it(store: Store, tries: int) -> None:
    """The second first name was refused, and went out with the last name all the same: the answer to that was lost."""
    async with circle(store) as c:
        who = next(iter(c.sandbox.world.relations))
        for name in ("Fenna", "Chris"):
            c.sandbox.faults.add("status", status=400, operation="relation_upsert", times=1)
            await c.edit("UPDATE crm.relations SET first_name = :name WHERE id = :who", name=name, who=who)
            await c.drain()
        c.sandbox.faults.add("lost_answer", operation="relation_upsert", times=1)
        await c.edit("UPDATE crm.relations SET last_name = 'Vos' WHERE id = :who", who=who)
        await c.drain(max_attempts=tries, backoff_s=1e6, backoff_max_s=1e6)
        fenna, chris, vos = await c.entries()
        assert c.sandbox.world.relations[who].first_name == "Chris"
        assert (chris["status"], chris["is_uncertain"], vos["is_uncertain"]) == ("dead", True, True)
        assert "400" in chris["error"], "it still says why it was refused"
        with pytest.raises(UserError, match="may have been applied"):
            async with store.begin() as connection:
                await retry_entry(connection, fenna["id"])


async def test_what_a_refused_edit_may_have_lent_to_a_dropped_call_is_in_doubt_with_it(store: Store) -> None:
    """Who had it in hand is gone, and nobody knows whether anything went out."""
    async with circle(store) as c:
        who = next(iter(c.sandbox.world.relations))
        c.sandbox.faults.add("status", status=400, operation="relation_upsert", times=1)
        await c.edit("UPDATE crm.relations SET first_name = 'Chris' WHERE id = :who", who=who)
        await c.drain()
        await c.edit("UPDATE crm.relations SET last_name = 'Vos' WHERE id = :who", who=who)
        terms = Terms("gone", 0.0, 100, lambda _: True, lands_s=60.0)
        async with store.begin() as connection:
            await stage(connection)
            assert len((await claim(connection, c.account.id, terms, most=1)).lanes) == 1
        async with store.begin() as connection:
            await stage(connection)
            (again,) = (await claim(connection, c.account.id, terms, most=1)).lanes
        assert [entry.is_uncertain for entry in again.entries] == [True, True]


@pytest.mark.parametrize("tries", [1, 2])
async def test_what_was_merged_into_a_call_in_doubt_is_in_doubt_with_it(store: Store, tries: int) -> None:
    """The answer to a call with both names was lost, and so the first name may be there. To retry the one before it
    now would be to say an older value after a newer one."""
    async with circle(store) as c:
        who, listing = next(iter(c.sandbox.world.relations)), next(iter(c.sandbox.world.lists))
        for operation in ("relation_upsert", "list_unsubscribe"):
            c.sandbox.faults.add("status", status=400, operation=operation)
        await c.edit("UPDATE crm.relations SET first_name = 'Fenna' WHERE id = :who", who=who)
        await _unsubscribe(c, who, listing, 1)
        await c.drain()
        await c.edit("UPDATE crm.relations SET first_name = 'Chris' WHERE id = :who", who=who)
        await c.edit("UPDATE crm.relations SET last_name = 'Vos' WHERE id = :who", who=who)
        c.sandbox.faults.add("lost_answer", operation="relation_upsert", times=1)
        if tries == 2:
            c.sandbox.faults.add("status", status=400, operation="relation_upsert")
        await c.drain(max_attempts=tries)
        fenna, _, *merged = await c.entries()
        assert [(each["status"], each["is_uncertain"]) for each in merged] == [("dead", True)] * 2
        with pytest.raises(UserError, match="may have been applied"):
            async with store.begin() as connection:
                await retry_entry(connection, fenna["id"])
