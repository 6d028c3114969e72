"""The rehearsal: play the story with drainers that die where the script says, restart, and hear the witness.

One take: a clone of the prepared database and a world as it was; a drainer per point, each killed at its point; then
drainers that nobody kills, until nothing is left to send. Between two drainers the application goes on editing and the
dead one's lease passes, by moving time in the database. What waits for a person gets one, who looks at the CRM and says
"send it" or "it is there".
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from syncd.sandbox import Sandbox
from syncd.store import Store
from tests.conftest import database_url
from tests.support.crashing import story, witness
from tests.support.crashing.acting import act
from tests.support.crashing.forks import KILLED, Forks
from tests.support.crashing.gate import Event, Gate, Point
from tests.support.crashing.prepared import prepare
from tests.support.crashing.story import ADMINISTRATION, EDITS, FAULTS, FIRST, SECOND, Edit, Person
from tests.support.outbox import retry_entry, skip_entry

_MOST_DRAINS = 8
# The longest a drainer may run: a sound one on a busy machine, and a broken one, which may run in circles.
_LONGEST_S, _BROKEN_S = 30, 15


@dataclass(frozen=True, slots=True)
class Script:
    """What differs between takes: where drainers die, how wide they work, which bug is planted in them.

    ``is_impatient``: somebody drains before the dead one's lease has passed, and must keep away from its lanes.
    """

    points: tuple[Point, ...] = ()
    concurrency: int = 1
    defects: tuple[str, ...] = ()
    is_impatient: bool = False

    def __str__(self) -> str:
        return " then ".join(map(str, self.points)) or "nobody dies"


@dataclass(slots=True)
class Take:
    """What came of a script: the ``kills`` that happened, the events of each drainer, what a person had to decide."""

    script: Script
    kills: int = 0
    parked: int = 0
    acts: list[list[Event]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        return self.kills == len(self.script.points)

    @property
    def holds(self) -> bool:
        return not self.complaints

    def __str__(self) -> str:
        return f"{self.script}: " + ("holds" if self.holds else "; ".join(self.complaints))


@dataclass(frozen=True, slots=True)
class Stage:
    """Where takes are played: a server with a prepared database to clone, and the warm process."""

    server_url: str
    prepared: str
    warm: Forks
    server: asyncpg.Connection
    turn: asyncio.Lock

    async def play(self, script: Script) -> Take:
        """Play one take from the first edit to the last complaint."""
        take = Take(script)
        name = f"syncd_crash_{uuid.uuid4().hex[:12]}"
        await self._tell(f'CREATE DATABASE "{name}" TEMPLATE "{self.prepared}" STRATEGY FILE_COPY')
        try:
            async with _scene(self, database_url(self.server_url, name), take) as scene:
                await scene.play()
        finally:
            await self._tell(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        return take

    async def _tell(self, statement: str) -> None:
        async with self.turn:
            await self.server.execute(statement)

    async def play_all(self, scripts: Iterable[Script], *, width: int = 2) -> list[Take]:
        """Play takes side by side, and each whose points were not all there up to twice again."""
        places = asyncio.Semaphore(width)

        async def one(script: Script) -> Take:
            async with places:
                take = await self.play(script)
                for _ in range(2):
                    if take.is_met or not take.holds:
                        break
                    take = await self.play(script)
                return take

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(script)) for script in scripts]
        return [task.result() for task in tasks]


@asynccontextmanager
async def stage(server_url: str, template: str, warm: Forks) -> AsyncIterator[Stage]:
    """Prepare a database with the mirror of the world and the first edits committed, for takes to clone."""
    name = f"syncd_story_{uuid.uuid4().hex[:12]}"
    server = await asyncpg.connect(server_url)
    await server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    try:
        await prepare(database_url(server_url, name))
        yield Stage(server_url, name, warm, server, asyncio.Lock())
    finally:
        await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await server.close()


@dataclass(slots=True)
class _Scene:
    """One take being played."""

    stage: Stage
    url: str
    sandbox: Sandbox
    connection: asyncpg.Connection
    take: Take
    edits: Sequence[Edit] = FIRST
    decided: set[tuple[Person, str]] = field(default_factory=set)
    cursor: dict[int, int] = field(default_factory=dict)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def play(self) -> None:
        for point in self.take.script.points:
            await self.drain(point)
            await self.look()
            if self.take.script.is_impatient:
                await self.drain_beside()
            await self.go_on()
        await self.drain_all()
        if await self.decide():
            await self.drain_all()
        await self.judge()

    async def go_on(self) -> None:
        """The application edits on, if it has not yet, and the dead drainer's lease passes."""
        if self.edits is FIRST:
            self.edits = EDITS
            for edit in SECOND:
                await self.connection.execute(edit.sql)
        await self.wake()

    async def wake(self) -> None:
        await self.connection.execute("UPDATE syncd.entries SET next_attempt_at = now() WHERE next_attempt_at > now()")
        await self.connection.execute("UPDATE syncd.lanes SET profile_lands_until = NULL, address_lands_until = NULL")
        await self.connection.execute("UPDATE syncd.entries SET prove_at = now() WHERE prove_at > now()")
        await self.connection.execute("UPDATE syncd.lanes SET ready_at = now() WHERE ready_at > now()")

    async def drain_beside(self) -> None:
        """Drain while the dead one's lease still runs: its lanes are not anybody else's yet."""
        leased = dict(await self.connection.fetch(_LEASED))
        await self.drain()
        for lane, epoch in await self.connection.fetch("SELECT id, epoch FROM syncd.lanes"):
            if leased.get(lane, epoch) != epoch:
                self.take.complaints.append(f"lane {lane} was claimed while another's lease ran")
        await self.look()

    async def drain_all(self) -> None:
        """Drain until nothing waits that a drainer could send."""
        await self.go_on()
        for _ in range(_MOST_DRAINS):
            if not await self.drain():
                return
            if not await self.connection.fetchval(_WAITING):
                return
            await self.wake()
        self.take.complaints.append(f"after {_MOST_DRAINS} drains something still waits")

    async def drain(self, point: Point | None = None) -> bool:
        """Run one drainer to its end or to its point; return whether it ended as it should."""
        gate = Gate(point, self.watch)
        order = {
            "account": 1,
            "concurrency": self.take.script.concurrency,
            "defects": self.take.script.defects,
            "longest_s": _BROKEN_S if self.take.script.defects else _LONGEST_S,
        }
        code = await act(self.stage.warm, "drain", order, gate, self.url, self.sandbox)
        self.take.acts.append(gate.events)
        self.take.kills += gate.is_shut
        if code != (KILLED if gate.is_shut else 0):
            self.take.complaints.append(f"a drainer ended with {code}: {self.stage.warm.complaints.read_text()[-600:]}")
            return False
        return True

    async def watch(self, event: Event) -> None:
        """After each commit: the cursor must not have gone back."""
        if event.text.startswith("COMMIT"):
            await self.look_at_cursors()

    async def look(self) -> None:
        """What holds at any time: nothing done twice, no cursor gone back."""
        await self.look_at_cursors()
        self.take.complaints += witness.twice(self.sandbox, self.edits)

    async def look_at_cursors(self) -> None:
        async with self.looking:
            for lane, acked in await self.connection.fetch("SELECT id, acked_seq FROM syncd.lanes"):
                if acked < self.cursor.get(lane, 0):
                    self.take.complaints.append(f"the cursor of lane {lane} went back to {acked}")
                self.cursor[lane] = acked
            for lane, seq in await self.connection.fetch(_PASSED):
                self.take.complaints.append(f"the cursor of lane {lane} has passed {seq}, which waits to be sent")

    async def decide(self) -> bool:
        """Let a person look at the CRM and decide what nobody else could tell; return whether anything waited."""
        waiting = await self.connection.fetch(_PARKED)
        if not waiting:
            return False
        calls = witness.once_calls(self.sandbox)
        store = Store.open(self.url, pool_size=1)
        try:
            for entry in waiting:
                self.take.parked += 1
                whom = int(entry["remote_id"] or ADMINISTRATION)
                key = (ADMINISTRATION if entry["operation"] == "end_subscription" else whom), entry["facet"]
                if not entry["is_uncertain"] or not any(e.is_once and e.facet == entry["facet"] for e in self.edits):
                    self.take.complaints.append(f"{entry['operation']} waits for a person without need")
                self.decided.add(key)
                async with store.begin() as connection:
                    if calls[key]:
                        await skip_entry(connection, entry["id"], reason="the CRM has it")
                    else:
                        await retry_entry(connection, entry["id"], as_new=True)
        finally:
            await store.close()
        return True

    async def judge(self) -> None:
        await self.look()
        self.take.complaints += witness.differs(self.sandbox, self.edits)
        self.take.complaints += witness.disorder(self.sandbox, self.edits, frozenset(self.decided))
        self.take.complaints += await witness.ledger(self.connection)
        bound = dict(await self.connection.fetch("SELECT email, remote_id FROM crm.relations WHERE id > 900000"))
        for whom, number in witness.numbers(self.sandbox, self.edits).items():
            email = self.sandbox.world.relations[number].email
            if bound.get(email) != str(number):
                self.take.complaints.append(f"{whom} is {number} in the CRM and {bound.get(email)} in the mirror")
        self.take.complaints[:] = list(dict.fromkeys(self.take.complaints))


_WAITING = """
    SELECT EXISTS (SELECT FROM syncd.captures) OR EXISTS (SELECT FROM syncd.entries WHERE status IN ('pending', 'held'))
"""

_LEASED = "SELECT id, epoch FROM syncd.lanes WHERE claimed_by IS NOT NULL AND ready_at > now() + interval '1 s'"

# What a claim would never find: the cursor says that it is over.
_PASSED = """
    SELECT e.lane_id, e.seq FROM syncd.entries e JOIN syncd.lanes l ON l.id = e.lane_id
    WHERE e.status IN ('pending', 'held') AND e.seq <= l.acked_seq AND NOT e.is_reopened
"""

_PARKED = """
    SELECT e.id, e.operation, e.facet, e.is_uncertain, r.remote_id
    FROM syncd.entries e LEFT JOIN crm.relations r ON r.id = e.relation_id
    WHERE e.status = 'parked' ORDER BY e.id
"""


@asynccontextmanager
async def _scene(place: Stage, url: str, take: Take) -> AsyncIterator[_Scene]:
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(story.new_world()))
        for fault in FAULTS:
            sandbox.faults.add(fault)
        connection = await asyncpg.connect(url)
        stack.push_async_callback(connection.close)
        yield _Scene(place, url, sandbox, connection, take)
