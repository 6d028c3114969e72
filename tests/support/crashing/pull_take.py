"""A take of the pull that is killed: killed at its point, looked at, pulled again, and compared with one undisturbed.

A **unit** is what is written and proven together: a snapshot or a window as a whole, a sweep's answer about one parent,
an invoice's detail. The undisturbed pull says which rows each unit brings. Whatever the point, a unit's rows are there
if and only if its proof is; after the next pull the mirror, its proof and its history are those of the undisturbed one.

The proof of an invoice's PDF is the PDF: its row is there only where the file stands whole. A file whose row is still
to come may stand alone until the next pull, and half of one beside its place until it is swept away.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from syncd.sandbox import Sandbox
from syncd.store import Connection, Store
from syncd.store.shelf import PART, Directory
from tests.conftest import database_url
from tests.support.crashing import pull_story
from tests.support.crashing.acting import act
from tests.support.crashing.forks import KILLED, Forks
from tests.support.crashing.gate import Event, Gate, Kind, Moment, Point
from tests.support.crashing.pull_story import THIRD
from tests.support.crashing.survey import moments
from tests.support.mirrored import Content, Key, content_by, difference

Unit: TypeAlias = tuple[str, Key | None]
RowKey: TypeAlias = tuple[str, Key]
UNDISTURBED = Point("a message that nobody sends", 1, Moment.BEFORE)
LATER = timedelta(minutes=5)
_LONGEST_S = 30
# The parents of the sweeps, and what an order of a sweep belongs to.
_PARENTS = {"group_members": "groups", "invoice_details": "invoices", "invoice_relations": "invoices"}
_FILES = "invoice_files"


@dataclass(frozen=True, slots=True)
class State:
    """What a database holds: the mirror, and of one pull its runs, what it proved and what it told the history.

    ``files`` are those that stand in the directory of PDFs, by their paths, and what they are; ``unfinished`` counts
    the invoices that somebody has begun to fetch.
    """

    mirror: Content
    statuses: Mapping[str, str]
    proven: Mapping[str, str]
    proven_by: Mapping[str, int | None]
    runs: Mapping[int, str]
    read: frozenset[Unit]
    rowwise: frozenset[Unit]
    changes: Counter[tuple[str, Key, str]]
    changed_by: Mapping[RowKey, Mapping[Unit, str]]
    files: Mapping[str, str]
    unfinished: int


@dataclass(slots=True)
class Take:
    """What came of killing a puller at a point."""

    point: Point
    is_met: bool = False
    events: list[Event] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.point}: " + ("holds" if not self.complaints else "; ".join(self.complaints[:4]))


@dataclass(frozen=True, slots=True)
class Prepared:
    """The database where the killed pull begins, and, under its name in ``directory``, its PDFs; ``server`` clones it,
    one clone at a time."""

    server_url: str
    name: str
    directory: Path
    server: asyncpg.Connection
    turn: asyncio.Lock


@dataclass(frozen=True, slots=True)
class _Scene:
    """Where one take plays."""

    url: str
    store: Store
    sandbox: Sandbox
    files: Path

    def standing(self) -> dict[str, str]:
        """Return what stands in its place among the PDFs, by path."""
        standing = (path for path in self.files.rglob("*") if path.is_file() and not path.name.endswith(PART))
        return {str(path.relative_to(self.files)): hashlib.sha256(path.read_bytes()).hexdigest() for path in standing}

    def leftovers(self) -> list[str]:
        """Complain of what lies beside the PDFs and will never be swept away."""
        Directory(self.files).tidy(datetime(2100, 1, 1, tzinfo=UTC))
        return [f"{path.name} is left" for path in self.files.rglob("*") if path.name.endswith(PART)]


@dataclass(frozen=True, slots=True)
class PullStage:
    """Where takes are played. ``before`` is where the pull begins, ``after`` what an undisturbed one leaves behind."""

    prepared: Prepared
    warm: Forks
    base: int
    before: State
    after: State
    points: tuple[Point, ...]

    async def play(self, point: Point, defects: tuple[str, ...] = ()) -> Take:
        """Kill a puller at a point and judge what it leaves and what the next one makes of it."""
        take = Take(point)
        async with _scene(self.prepared) as scene:
            take.is_met = await _pull(self.warm, scene, take, point, defects)
            take.complaints += self._halves(await _state(scene, self.base))
            scene.sandbox.clock.set(THIRD + LATER)
            await _pull(self.warm, scene, take, UNDISTURBED, defects)
            take.complaints += self._differs(await _state(scene, self.base))
            take.complaints += scene.leftovers()
        return take

    async def play_all(self, points: Iterable[Point], *, width: int = 2) -> list[Take]:
        """Play takes side by side."""
        places = asyncio.Semaphore(width)

        async def one(point: Point) -> Take:
            async with places:
                return await self.play(point)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(point)) for point in points]
        return [task.result() for task in tasks]

    def _halves(self, left: State) -> list[str]:
        """Complain of every unit whose rows and proof do not agree."""
        wrong = [f"{table} {key} is neither as before nor as after" for table, key in self._strange(left)]
        for unit, keys in self.units().items():
            new = [key for key in keys if self._is_new(left, key)]
            is_proven = unit in left.read if unit[1] is not None else left.statuses.get(unit[0]) == "succeeded"
            if len(new) != (len(keys) if is_proven else 0):
                wrong.append(f"{unit}: {len(new)} of its {len(keys)} rows are there, proven: {is_proven}")
        for stream, proven in left.proven.items():
            is_new, is_done = proven != self.before.proven.get(stream), left.statuses.get(stream) == "succeeded"
            if is_new != is_done:
                wrong.append(f"{stream}: its run ended {left.statuses.get(stream)}, new time is proven: {is_new}")
            if is_new and left.runs.get(left.proven_by[stream] or 0) != stream:
                wrong.append(f"{stream} is proven by another run")
        wrong += [f"{unit} is proven and was not read" for unit in left.rowwise - left.read]
        told = left.changes - self.after.changes
        return wrong + [f"the history tells of {each}" for each in told]

    def units(self) -> dict[Unit, list[RowKey]]:
        """The rows that each unit brings, its lines among them; a row that two units bring is there by the first."""
        found: defaultdict[Unit, list[RowKey]] = defaultdict(list)
        for key, kinds in self.after.changed_by.items():
            for unit, kind in kinds.items():
                found[unit] += [key] if kind == "insert" or len(kinds) == 1 else []
            last = next(reversed(kinds))
            lines = [each for each in self.after.mirror.rows if _is_line_of(each, key)]
            found[last] += [each for each in lines if _row(self.before, each) is None]
        for key in self.after.mirror.rows.keys() - self.before.mirror.rows.keys():
            if key[0] == _FILES:
                found[_FILES, key[1][0]].append(key)
        return found

    def _is_new(self, left: State, key: RowKey) -> bool:
        """Tell whether a row is as after; one that two units change, whether it is there at all."""
        if len(self.after.changed_by.get(key, ())) > 1:
            return _row(left, key) is not None
        return _row(left, key) == _row(self.after, key)

    def _strange(self, left: State) -> list[RowKey]:
        keys = left.mirror.rows.keys() | self.before.mirror.rows.keys() | self.after.mirror.rows.keys()
        shared = {key for key, units in self.after.changed_by.items() if len(units) > 1}
        known = {key: (_row(self.before, key), _row(self.after, key)) for key in keys - shared}
        return [key for key, rows in known.items() if _row(left, key) not in rows]

    def _differs(self, end: State) -> list[str]:
        """Complain of everything that an undisturbed pull would have left otherwise."""
        wrong = difference(self.after.mirror, end.mirror)
        wrong += [] if end.proven == self.after.proven else [f"proven is {end.proven}, not {self.after.proven}"]
        wrong += [] if end.rowwise == self.after.rowwise else ["other rows are proven one by one"]
        wrong += [] if "running" not in end.statuses.values() else ["a run is open"]
        wrong += (
            [] if end.files == self.after.files else [f"files: {dict(end.files.items() ^ self.after.files.items())}"]
        )
        wrong += [] if end.unfinished == self.after.unfinished else [f"{end.unfinished} files are still to come"]
        for sign, told in (("-", self.after.changes - end.changes), ("+", end.changes - self.after.changes)):
            wrong += [f"history {sign} {each}" for each in told]
        return wrong


@asynccontextmanager
async def pull_stage(server_url: str, template: str, warm: Forks, directory: Path) -> AsyncIterator[PullStage]:
    """Prepare the database, and rehearse the undisturbed pull twice: what both had in common are its points."""
    name = f"syncd_pulls_{uuid.uuid4().hex[:12]}"
    server = await asyncpg.connect(server_url)
    prepared = Prepared(server_url, name, directory, server, asyncio.Lock())
    await server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    try:
        await pull_story.prepare(database_url(server_url, name), directory / name)
        acts: list[list[Event]] = []
        for _ in range(2):
            async with _scene(prepared) as scene:
                base = await _value(scene.store, "SELECT max(id) FROM syncd.runs")
                before, take = await _state(scene, base), Take(UNDISTURBED)
                await _pull(warm, scene, take, UNDISTURBED, ())
                acts.append(take.events)
                scene.sandbox.clock.set(THIRD + LATER)
                await _pull(warm, scene, Take(UNDISTURBED), UNDISTURBED, ())
                after = await _state(scene, base)
                assert not take.complaints, take
        yield PullStage(prepared, warm, base, before, after, _points(acts))
    finally:
        await server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await server.close()


def _points(acts: list[list[Event]]) -> tuple[Point, ...]:
    common = set.intersection(*({(event.text, event.nth) for event in act} for act in acts))
    met = [event for event in acts[-1] if (event.text, event.nth) in common]
    asked = [event for event in met if event.kind is not Kind.SET_UP]  # before what it is for is before it, too
    return tuple(Point(event.text, event.nth, moment) for event in asked for moment in moments(event))


@asynccontextmanager
async def _scene(prepared: Prepared) -> AsyncIterator[_Scene]:
    """A clone of what is prepared, and the world with its news."""
    name = f"syncd_pulled_{uuid.uuid4().hex[:12]}"
    async with prepared.turn:
        clone = f'CREATE DATABASE "{name}" TEMPLATE "{prepared.name}" STRATEGY FILE_COPY'
        await prepared.server.execute(clone)
    files = shutil.copytree(prepared.directory / prepared.name, prepared.directory / name)
    url = database_url(prepared.server_url, name)
    store = Store.open(url, pool_size=1)
    try:
        async with Sandbox(pull_story.third(pull_story.second(pull_story.first()))) as sandbox:
            yield _Scene(url, store, sandbox, files)
    finally:
        await store.close()
        shutil.rmtree(files)
        async with prepared.turn:
            await prepared.server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _pull(warm: Forks, scene: _Scene, take: Take, point: Point, defects: tuple[str, ...]) -> bool:
    """Run one puller to its end or to its point; return whether it was killed there."""
    gate = Gate(point)
    now = scene.sandbox.clock.now().isoformat()
    order = {"account": 1, "now": now, "files": str(scene.files), "defects": defects, "longest_s": _LONGEST_S}
    code = await act(warm, "pull", order, gate, scene.url, scene.sandbox)
    take.events += gate.events
    if code != (KILLED if gate.is_shut else 0):
        take.complaints.append(f"a puller ended with {code}: {warm.complaints.read_text()[-600:]}")
    return gate.is_shut


_RUNS = "SELECT id, stream, status FROM syncd.runs WHERE id > $1 ORDER BY id"
_COVERAGE = "SELECT stream, proven::text, run_id FROM syncd.coverage"
_READINGS = """
    SELECT stream, row_id, read_at >= $1::timestamptz AS is_read, proven_at > r.finished_at AS is_proven
    FROM syncd.readings, (SELECT finished_at FROM syncd.runs WHERE id = $2) r
"""
_CHANGES = """
    SELECT c.table_name, c.row_id, c.link_id, c.kind, r.stream, o.relation_id,
           (SELECT min(v.id) FROM crm.invoices v WHERE lower(v.relation_email) = lower(n.email)) AS invoice_id
    FROM syncd.changes c JOIN syncd.runs r ON r.id = c.run_id
    LEFT JOIN crm.orders o ON c.table_name = 'orders' AND o.id = c.row_id
    LEFT JOIN crm.relations n ON c.table_name = 'relations' AND n.id = c.row_id
    WHERE c.run_id > $1 ORDER BY c.id
"""
_FILED = "SELECT invoice_id, path, encode(sha256, 'hex') AS sha256 FROM crm.invoice_files"
_OTHER = {"relation_tags": "tags", "group_members": "groups", "list_subscriptions": "lists"}


async def _value(store: Store, query: str) -> Any:
    async with store.begin() as connection:
        return (await connection.exec_driver_sql(query)).scalar_one()


async def _state(scene: _Scene, base: int) -> State:
    files = scene.standing()
    async with scene.store.begin() as connection:
        mirror = await content_by(connection)
        runs = (await connection.exec_driver_sql(_RUNS, (base,))).all()
        coverage = (await connection.exec_driver_sql(_COVERAGE)).all()
        readings = (await connection.exec_driver_sql(_READINGS, (THIRD, base))).all()
        changes, changed_by = await _history(connection, mirror, base)
        filed = (await connection.exec_driver_sql(_FILED)).all()
        unfinished = (await connection.exec_driver_sql("SELECT count(*) FROM syncd.invoice_fetches")).scalar_one()
    ours = [(_unit(mirror, row.stream, row.row_id), row) for row in readings]
    whole = {(_FILES, mirror.names["invoices"][row.invoice_id]) for row in filed if files.get(row.path) == row.sha256}
    return State(
        mirror,
        {row.stream: row.status for row in runs},
        {row.stream: row.proven for row in coverage},
        {row.stream: row.run_id for row in coverage},
        {row.id: row.stream for row in runs},
        frozenset(unit for unit, row in ours if row.is_read) | whole,
        frozenset(unit for unit, row in ours if row.is_proven),
        changes,
        changed_by,
        files,
        unfinished,
    )


async def _history(
    connection: Connection, mirror: Content, base: int
) -> tuple[Counter[tuple[str, Key, str]], dict[RowKey, dict[Unit, str]]]:
    told: Counter[tuple[str, Key, str]] = Counter()
    units: defaultdict[RowKey, dict[Unit, str]] = defaultdict(dict)
    for row in await connection.exec_driver_sql(_CHANGES, (base,)):
        key = _named(mirror, row)
        told[row.table_name, key, row.kind] += 1
        units[row.table_name, key].setdefault(_unit_of_change(mirror, row), row.kind)
    return told, dict(units)


def _named(mirror: Content, row: Any) -> Key:
    if row.link_id is None:
        return mirror.names[row.table_name][row.row_id]
    pair = mirror.names["relations"][row.row_id], mirror.names[_OTHER[row.table_name]][row.link_id]
    return pair[::-1] if row.table_name == "group_members" else pair


def _unit_of_change(mirror: Content, row: Any) -> Unit:
    """Return the unit that brought a change: for what is read whole, the stream."""
    match row.stream:
        case "group_members":
            # Who is new in a group is shown by it; which group showed a profile, nobody can say.
            return (row.stream, None if row.link_id is None else mirror.names["groups"][row.link_id])
        case "relation_orders":
            return _unit(mirror, row.stream, row.relation_id)
        case "invoice_relations" if row.table_name == "relations":
            return _unit(mirror, row.stream, row.invoice_id)  # the one that it was asked for
        case "invoice_details" | "invoice_relations" | "relation_details" | "relation_tags" | "relation_subscriptions":
            return _unit(mirror, row.stream, row.row_id)
        case _:
            return (row.stream, None)


def _unit(mirror: Content, stream: str, row_id: int) -> Unit:
    return (stream, mirror.names[_PARENTS.get(stream, "relations")].get(row_id))


def _row(state: State, key: RowKey) -> tuple[Any, ...] | None:
    return state.mirror.rows.get(key)


def _is_line_of(line: RowKey, owner: RowKey) -> bool:
    """Tell whether a row is a line of an order or an invoice."""
    return line[0] == {"orders": "order_lines", "invoices": "invoice_lines"}.get(owner[0]) and line[1][0] == owner[1]
