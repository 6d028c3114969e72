"""The doors of the crash proofs: "before", "torn" and "after" must mean what they say, or the proofs prove nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from syncd.sandbox import Sandbox, World
from tests.support.crashing.acting import dial_database, through
from tests.support.crashing.doors import CrmLine, DatabaseLine, Dial, Door, Line, hang_up
from tests.support.crashing.gate import Gate, Moment, Point

_COMMIT = "COMMIT after INSERT INTO marks VALUES ($1)"


@asynccontextmanager
async def _door(gate: Gate, kind: type[Line], dial: Dial) -> AsyncIterator[int]:
    door = Door(gate, kind, dial)
    await door.open()
    yield door.port
    gate.shut()
    await door.close()


@pytest.mark.parametrize(
    ("moment", "is_there"), [(Moment.BEFORE, False), (Moment.TORN, False), (Moment.AFTER, True)], ids=str
)
async def test_a_commit_is_done_after_its_point_and_not_before(database: str, moment: Moment, is_there: bool) -> None:
    """ "After" is the commit in doubt: the server has done it, the client waits for ever."""
    witness = await asyncpg.connect(database)
    await witness.execute("CREATE TABLE marks (id integer)")
    gate = Gate(Point(_COMMIT, 1, moment))
    async with _door(gate, DatabaseLine, lambda: dial_database(database)) as port:
        client = await asyncpg.connect(through(database, port))
        task = asyncio.create_task(_mark(client))
        await gate.reached.wait()
        await asyncio.wait([task], timeout=0.3)
        assert not task.done(), "nobody has told it that the line is gone"
        client.terminate()
        await asyncio.wait([task])
    assert isinstance(task.exception(), asyncpg.PostgresError | asyncpg.InterfaceError | OSError)
    assert (await witness.fetchval("SELECT count(*) FROM marks") == 1) is is_there
    await witness.close()


async def _mark(client: asyncpg.Connection) -> None:
    async with client.transaction():
        await client.execute("INSERT INTO marks VALUES ($1)", 1)


async def test_a_point_stops_every_other_connection_too(database: str) -> None:
    """What a dying process still says on another connection, nobody hears."""
    witness = await asyncpg.connect(database)
    await witness.execute("CREATE TABLE marks (id integer)")
    gate = Gate(Point(_COMMIT, 1, Moment.BEFORE))
    async with _door(gate, DatabaseLine, lambda: dial_database(database)) as port:
        first, second = [await asyncpg.connect(through(database, port)) for _ in range(2)]
        tasks = [asyncio.create_task(_mark(first))]
        await gate.reached.wait()
        tasks.append(asyncio.create_task(second.execute("INSERT INTO marks VALUES (2)")))
        first.terminate()
        await asyncio.wait(tasks, timeout=1, return_when=asyncio.FIRST_EXCEPTION)
        second.terminate()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert await witness.fetchval("SELECT count(*) FROM marks") == 0
    await witness.close()


@pytest.mark.parametrize(
    ("moment", "is_there"), [(Moment.BEFORE, False), (Moment.TORN, False), (Moment.AFTER, True)], ids=str
)
async def test_a_call_is_applied_after_its_point_and_not_before(moment: Moment, is_there: bool) -> None:
    """Half a request must not be a whole one, and "after" means that the CRM has acted and nobody was told."""
    world = World.seeded(relations=1, orders=0, invoices=0)
    number = next(iter(world.relations))
    path = f"/api/1.0/relation/{number}/setfield"
    code = next(field.code for field in world.fields.values() if field.is_free)
    async with Sandbox(world) as sandbox:
        gate = Gate(Point(f"POST {path}", 1, moment))
        body = f"fieldCode={code}&fieldValue=rye"
        async with _door(gate, CrmLine, lambda: asyncio.open_connection("127.0.0.1", sandbox.port)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            query = f"?admin={sandbox.admin}&key={sandbox.key}"
            head = f"POST {path}{query} HTTP/1.1\r\nHost: crm\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            await gate.reached.wait()
            await hang_up(writer)
        assert ([effect.after for effect in sandbox.journal] == ["rye"]) is is_there
        assert await reader.read() == b""
