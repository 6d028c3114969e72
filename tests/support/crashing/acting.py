"""One act: a process works through the doors until it ends, or until its point is met and it is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import make_url

from syncd.sandbox import Sandbox
from tests.support.crashing.doors import CrmLine, DatabaseLine, Door, Streams
from tests.support.crashing.forks import Forks
from tests.support.crashing.gate import Gate


async def act(warm: Forks, work: str, order: Mapping[str, Any], gate: Gate, url: str, sandbox: Sandbox) -> int:
    """Run one process to its end or to its gate's point; return how it ended, when both sides have done with it."""

    async def dial_crm() -> Streams:
        return await asyncio.open_connection("127.0.0.1", sandbox.port)

    doors = [Door(gate, DatabaseLine, lambda: dial_database(url)), Door(gate, CrmLine, dial_crm)]
    for door in doors:
        await door.open()
    sides = {
        "database": through(url, doors[0].port),
        "crm": sandbox.base_url.replace(f":{sandbox.port}/", f":{doors[1].port}/"),
        "admin": sandbox.admin,
        "key": sandbox.key,
    }
    pid = await warm.start({**sides, **order}, work)
    code = await _end(warm, gate, pid)
    for door in doors:
        await door.close()
    return code


async def _end(warm: Forks, gate: Gate, pid: int) -> int:
    """Kill the process as soon as the world has stopped for it, unless it ends before."""
    ending = asyncio.create_task(warm.ended(pid))
    reaching = asyncio.create_task(gate.reached.wait())
    await asyncio.wait([ending, reaching], return_when=asyncio.FIRST_COMPLETED)
    reaching.cancel()
    if gate.is_shut:
        await warm.kill(pid)
    return await ending


async def dial_database(url: str) -> Streams:
    """Connect to a server as its URL says, without speaking to it yet."""
    target = make_url(url)
    host = str(target.query.get("host") or target.host or "127.0.0.1")
    port = int(str(target.query.get("port") or target.port or 5432))
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)


def through(url: str, port: int) -> str:
    """Return a database's URL by way of a door."""
    target = make_url(url)
    user = target.username or target.query.get("user") or os.environ.get("PGUSER", "postgres")
    secret = "" if target.password is None else f":{quote(str(target.password), safe='')}"
    return f"postgresql://{user}{secret}@127.0.0.1:{port}/{target.database}"
