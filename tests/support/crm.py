"""A plain client of the simulator, so that its tests see what is on the wire and nothing of syncd's own transport."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from syncd.sandbox import Sandbox, Switches, World

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
ANNA, PIET = 100_001, 100_002


@dataclass(frozen=True, slots=True)
class Got:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def payload(self) -> Any:
        return self.json["data"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls a simulator with its credentials in the query."""

    sandbox: Sandbox
    session: aiohttp.ClientSession

    async def get(self, path: str, **query: str) -> Got:
        return await self.call("GET", path, query)

    async def post(self, path: str, **form: str) -> Got:
        return await self.call("POST", path, form=form)

    async def call(
        self,
        verb: str,
        path: str,
        query: dict[str, str] | None = None,
        form: dict[str, str] | None = None,
        json: object = None,
        key: str | None = None,
    ) -> Got:
        """Call the API; ``path`` is taken as it is, percent signs included."""
        signed = {"admin": self.sandbox.admin, "key": key or self.sandbox.key, **(query or {})}
        url = URL(self.sandbox.base_url + path, encoded=True).with_query(signed)
        return await self._fetch(verb, URL(str(url), encoded=True), data=form or None, json=json)

    async def control(self, verb: str, path: str, json: object = None) -> Got:
        """Call the control endpoint."""
        return await self._fetch(verb, URL(self.sandbox.control_url + path), json=json)

    async def _fetch(self, verb: str, url: URL, **body: Any) -> Got:
        async with self.session.request(verb, url, **body) as response:
            return Got(response.status, await response.read(), dict(response.headers))


@asynccontextmanager
async def crm(world: World | None = None, **switches: object) -> AsyncIterator[Caller]:
    """A seeded simulator with some switches turned, and a client of it."""
    turned = Switches().turned(**switches)
    async with (
        Sandbox(world or World.seeded(relations=30, orders=60, invoices=36, seed=7, now=NOW), turned) as sandbox,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
    ):
        yield Caller(sandbox, session)
