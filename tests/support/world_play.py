"""A schedule is everything that a seed decides; to play it is to let it happen and to gather the evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from sqlalchemy import text

from syncd.domain.errors import UserError
from syncd.outbound import DrainLimits
from syncd.providers.contract import ProviderOptions
from syncd.sandbox import Sandbox
from syncd.store import Store
from tests.support.outbox import GUARDED, QUICK, Circle, circle, retry_entry, rows, skip_entry
from tests.support.ready import unkept
from tests.support.world_crew import Ground, Hand, ProcessHand, TaskHand
from tests.support.world_edits import Edit, Facts, Scriptwriter, Transaction, open_ledger, read_ledger, run_application
from tests.support.world_model import before
from tests.support.world_weather import LATEST_S, Climate, Weather, climate

PATIENCE_S = 45.0
LEASE_S, CALM_LEASE_S = 1.6, 20.0
DRAINERS, INCIDENTS = 4, ("kill", "stall", "cut")


@dataclass(frozen=True, slots=True)
class Incident:
    """What befalls the hand at a place once the simulator has seen so many requests."""

    at_request: int
    kind: str
    place: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that the seed decides; the scheduler of the machine decides the rest."""

    seed: int
    relations: int
    drainers: int
    applications: int
    transactions: int
    climate: Climate
    incidents: tuple[Incident, ...]
    are_processes: bool
    patience_s: float = PATIENCE_S

    @classmethod
    def of(cls, seed: int, *, is_late: bool = False) -> Schedule:
        """Draw the schedule of a seed. Every sixth has its drainers in processes of their own."""
        random, are_processes = Random(f"schedule {seed}"), seed % 6 == 0 and not is_late
        drainers, applications = random.randint(1, 2 if are_processes else DRAINERS), random.randint(1, 3)
        transactions = random.randint(50, 90) // applications
        if is_late:
            applications, transactions = 3, 15
        incidents = () if random.random() < 0.4 or is_late else _incidents(random, drainers)
        relations = 20 if is_late else random.randint(3, 8)
        return cls(
            seed,
            relations,
            drainers,
            applications,
            transactions,
            climate(random, is_late=is_late),
            incidents,
            are_processes,
        )

    @property
    def limits(self) -> DrainLimits:
        """Short leases where somebody is to lose one; else such that only a machine standing still could."""
        lease_s = LEASE_S if self.incidents else CALM_LEASE_S
        quick = {"backoff_s": 0.02, "backoff_max_s": 0.15, "max_attempts": 500, "throttle_s": 0.05, "probe_s": 0.05}
        breaker = {"breaker_pause_s": 0.05, "breaker_pause_max_s": 0.2, "breaker_failures": 6}
        # As long as the latest request is late, and a moment. Where nothing is late nothing need be said again, and
        # what is said again may stand between two newer values: the order would not be that of the commits.
        settling = {"settle_window_s": LATEST_S + 0.5 if self.climate.is_late else 0.0}
        return replace(QUICK, lease_s=lease_s, timeout_s=lease_s / 2, concurrency=4, **quick, **breaker, **settling)

    def __str__(self) -> str:
        told = ", ".join(f"{each.kind} {each.place} at {each.at_request}" for each in self.incidents)
        kind = "processes" if self.are_processes else "tasks"
        return (
            f"seed {self.seed}: {self.drainers} drainers ({kind}), {self.applications} applications, "
            f"{self.relations} relations, chance {self.climate.chance}"
            f"{', lying' if self.climate.is_lying else ''}{', late' if self.climate.is_late else ''}"
            f"{'; ' + told if told else ''}"
        )


def _incidents(random: Random, drainers: int) -> tuple[Incident, ...]:
    count = random.randint(1, 3)
    at = sorted(random.randint(5, 90) for _ in range(count))
    return tuple(Incident(each, random.choice(INCIDENTS), random.randrange(drainers)) for each in at)


@dataclass(slots=True)
class Evidence:
    """What was left when everything had come to rest. ``is_decided``: a person has looked at what waited for one."""

    schedule: Schedule
    sandbox: Sandbox
    start: dict[int, dict[str, object]]
    ledger: list[Edit]
    entries: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    bound: dict[int, str]
    dropped: set[int]
    fenced: int
    oddities: list[str] = field(default_factory=list)
    is_decided: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """What was left before a person decided the rest, and what the laws found wrong, before and after."""

    evidence: Evidence
    wrong: list[str]


async def play(store: Store, url: str, schedule: Schedule, laws: Callable[[Evidence], list[str]]) -> Played:
    """Let a schedule happen and look; if nothing is wrong let a person decide what waits for one, and look again."""
    options = ProviderOptions(allowed_operations=GUARDED, verify_writes=schedule.climate.is_lying)
    async with circle(store, relations=schedule.relations, options=options) as c:
        await _mirror_links(c)
        await open_ledger(store)
        start, facts = before(c.sandbox.world), Facts.of(c.sandbox.world)
        ground = Ground(c, url, schedule.limits, verifies=schedule.climate.is_lying)
        writer = Scriptwriter(Random(f"scripts {schedule.seed}"), facts, is_fickle=schedule.climate.is_late)
        scripts = writer.scripts(schedule.applications, schedule.transactions)
        oddities = await _work(ground, schedule, scripts)
        evidence = await gather(ground, schedule, start, oddities)
        wrong = laws(evidence)
        if not wrong:
            decided = await gather(ground, schedule, start, await decide(ground))
            decided.is_decided = True
            wrong = [f"after a person decided: {each}" for each in laws(decided)]
        return Played(evidence, wrong)


async def _mirror_links(c: Circle) -> None:
    """Mirror what a relation has; nobody is on a list yet."""
    async with c.store.begin_remote() as connection:
        for relation in c.sandbox.world.relations.values():
            relation.events.clear()
            for table, column, numbers in (
                ("relation_tags", "tag_id", relation.tags),
                ("group_members", "group_id", relation.groups),
            ):
                sql = f"INSERT INTO crm.{table} (relation_id, {column}) SELECT :who, unnest(CAST(:ids AS bigint[]))"
                await connection.execute(text(sql), {"who": relation.id, "ids": sorted(numbers)})


async def _work(ground: Ground, schedule: Schedule, scripts: Sequence[Sequence[Transaction]]) -> list[str]:
    """Edit, drain and suffer; then let the weather clear up and wait until everything is at rest."""
    sandbox, store = ground.circle.sandbox, ground.circle.store
    weather = Weather(schedule.seed, schedule.climate)
    sandbox.faults = weather
    kind = ProcessHand if schedule.are_processes else TaskHand
    hands: list[Hand] = [kind(ground, f"hand-{place}") for place in range(schedule.drainers)]
    oddities: list[str] = []
    under_way = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(store, oddities))
        await asyncio.gather(*(hand.start() for hand in hands))
        suffering = group.create_task(_suffer(sandbox, schedule, hands, under_way))
        try:
            await asyncio.gather(*(run_application(store, script) for script in scripts))
            await _end_of(suffering, sandbox)
            weather.calm()
            sandbox.land()
            oddities += await until_at_rest(store, schedule.patience_s)
        finally:
            async with under_way:  # a hand that is cut off while it starts is no hand that could be stopped
                for task in (suffering, watching):
                    task.cancel()
            await asyncio.gather(*(hand.stop() for hand in hands))
    return oddities


async def _suffer(sandbox: Sandbox, schedule: Schedule, hands: Sequence[Hand], under_way: asyncio.Lock) -> None:
    """Let each incident happen in its time; ``under_way`` is held while one does."""
    for incident in schedule.incidents:
        await sandbox.until_requests("*", incident.at_request, timeout_s=PATIENCE_S)
        async with under_way:
            await _befall(hands[incident.place], incident.kind, schedule)


async def _befall(hand: Hand, kind: str, schedule: Schedule) -> None:
    match kind:
        case "kill":
            await hand.kill()
            await hand.start()
        case "stall":
            await hand.stall(1.3 * schedule.limits.lease_s)
        case _:
            await hand.cut()


async def _end_of(suffering: asyncio.Task[None], sandbox: Sandbox) -> None:
    """Wait for the incidents that are still to come, as long as requests go on that could bring them about."""
    seen = -1
    while not suffering.done() and sandbox.requests.total > seen:
        seen = sandbox.requests.total
        await asyncio.wait([suffering], timeout=1.5 * LEASE_S)
    if suffering.done():
        await suffering


async def _watch(store: Store, oddities: list[str]) -> None:
    """Look at the lanes again and again: a cursor or an epoch that goes back is the end of all trust."""
    seen: dict[int, tuple[int, int, int]] = {}
    while True:
        for lane in await rows(store, "SELECT id, acked_seq, tail_seq, epoch FROM syncd.lanes"):
            now = (lane["acked_seq"], lane["tail_seq"], lane["epoch"])
            was = seen.get(lane["id"], (0, 0, 0))
            if any(after < earlier for after, earlier in zip(now, was, strict=True)):
                oddities.append(f"lane {lane['id']} went back from {was} to {now} (acked, tail, epoch)")
            seen[lane["id"]] = now
        oddities.extend(f"lane {each['lane_id']} is due in one table alone: {each}" for each in await unkept(store))
        await asyncio.sleep(0.03)


_REST = """
SELECT (SELECT count(*) FROM syncd.captures) AS captures,
       (SELECT count(*) FROM syncd.lanes WHERE ready_at IS NOT NULL OR claimed_by IS NOT NULL) AS lanes
"""


async def until_at_rest(store: Store, patience_s: float = PATIENCE_S) -> list[str]:
    """Wait until no capture and no lane waits for anything but a person; say so if that does not come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            while True:
                (left,) = await rows(store, _REST)
                if left == {"captures": 0, "lanes": 0}:
                    return []
                await asyncio.sleep(0.02)
    return [f"it does not come to rest: {left['captures']} captures and {left['lanes']} lanes still wait"]


async def gather(ground: Ground, schedule: Schedule, start: dict[int, Any], oddities: list[str]) -> Evidence:
    store = ground.circle.store
    entries = await rows(store, "SELECT * FROM syncd.entries ORDER BY lane_id, seq")
    attempts = await rows(store, "SELECT * FROM syncd.attempts ORDER BY id")
    bound = await rows(store, "SELECT id, remote_id FROM crm.relations WHERE remote_id IS NOT NULL")
    return Evidence(
        schedule,
        ground.circle.sandbox,
        start,
        await read_ledger(store),
        entries,
        attempts,
        {row["id"]: row["remote_id"] for row in bound},
        set(ground.dropped),
        ground.fenced,
        oddities,
    )


# A person ------------------------------------------------------------------------------------------------------------


async def decide(ground: Ground) -> list[str]:
    """Do as an operator would: look at what waits for a person, retry or skip it, until nothing does."""
    c = ground.circle
    limits = replace(ground.limits, lease_s=CALM_LEASE_S, timeout_s=CALM_LEASE_S / 2)
    for _ in range(12):
        waiting = await rows(
            c.store, "SELECT * FROM syncd.entries WHERE status IN ('dead', 'parked', 'diverged') ORDER BY lane_id, seq"
        )
        if not waiting:
            return []
        for entry in waiting:
            await _decide_one(ground, entry)
        try:
            await c.drain(limits)
        except TimeoutError:
            return ["a drain does not come to its end"]
    return [f"a person cannot get rid of entry {entry['id']}: {entry['error']}" for entry in waiting]


async def _decide_one(ground: Ground, entry: dict[str, Any]) -> None:
    """Skip what the CRM has, or what a later value has overtaken; retry all else. What is overtaken while an older one
    of its facet is tried again is looked at when that has come to its end."""
    is_there, window_s = await _is_in_the_crm(ground, entry), ground.limits.settle_window_s
    async with ground.circle.store.begin() as connection:
        if is_there:
            ground.found.add(entry["id"])
            await skip_entry(connection, entry["id"], reason="the CRM has it", settle_window_s=window_s)
            return
        try:
            await retry_entry(connection, entry["id"], as_new=entry["status"] == "parked")
        except UserError:
            with suppress(UserError):
                told = "a later value was delivered"
                await skip_entry(connection, entry["id"], reason=told, settle_window_s=window_s)


async def _is_in_the_crm(ground: Ground, entry: dict[str, Any]) -> bool:
    """Look where a person would look: the field list, or the mails and notes against what we know was delivered."""
    store, sandbox = ground.circle.store, ground.circle.sandbox
    if entry["operation"] == "create_field":
        return any(entry["facet"] == f"new_field:{each.name}" for each in sandbox.world.fields.values())
    if entry["operation"] not in ("subscribe", "unsubscribe"):
        return False
    (row,) = await rows(store, "SELECT remote_id FROM crm.relations WHERE id = :who", who=entry["relation_id"])
    subject = f"relation:{row['remote_id']}/{entry['facet']}"
    there = {each.request for each in sandbox.journal.of(f"list.{entry['operation']}d", subject)}
    known = await rows(
        store,
        "SELECT 1 FROM syncd.entries WHERE lane_id = :lane AND facet = :facet AND operation = :operation "
        "AND (status IN ('verified', 'accepted') OR id = ANY (:found))",
        lane=entry["lane_id"],
        facet=entry["facet"],
        operation=entry["operation"],
        found=list(ground.found),
    )
    return len(there) > len(known)
