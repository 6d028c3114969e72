"""Verified writes of lists: a yes that the CRM does not show at once is asked after later, and then told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from syncd.providers.contract import ProviderOptions
from syncd.store import Store
from syncd.store.incidents import IncidentRow, list_incidents
from tests.support.outbox import GUARDED, Circle, circle, rows, run_sql

# No dice: what is read back was chosen for a reason.
CAREFUL = ProviderOptions(allowed_operations=GUARDED, verify_writes=True)
NO_DICE: dict[str, Any] = {"read_back_share": 0.0}


@asynccontextmanager
async def _circle(store: Store) -> AsyncIterator[Circle]:
    async with circle(store, options=CAREFUL) as c:
        for relation in c.sandbox.world.relations.values():
            relation.events.clear()
        yield c


async def _subscribe(c: Circle) -> None:
    number = next(iter(c.sandbox.world.lists))
    await c.edit(
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "VALUES (:account_id, :who, 'subscribe', :facet, CAST(CAST(:payload AS text) AS jsonb))",
        who=next(iter(c.sandbox.world.relations)),
        facet=f"list:{number}",
        payload=f'{{"list_id": {number}, "list_remote_id": "{number}", "skip_optin": false}}',
    )


async def _later(store: Store) -> None:
    """The settle window passes."""
    await run_sql(
        store,
        "UPDATE syncd.entries SET settled_at = settled_at - interval '10 min', prove_at = prove_at - interval '10 min'",
    )


async def _entry(c: Circle) -> dict[str, Any]:
    return (await c.entries())[-1]


async def _incidents(c: Circle) -> tuple[IncidentRow, ...]:
    async with c.store.begin() as connection:
        return await list_incidents(connection)


async def test_a_subscription_that_is_shown_at_once_is_verified_and_not_asked_after(store: Store) -> None:
    """One read, as for any other write."""
    async with _circle(store) as c:
        await _subscribe(c)
        await c.drain(**NO_DICE)
        entry = await _entry(c)
        assert (entry["status"], entry["prove_at"]) == ("verified", None)


async def test_a_subscription_that_is_still_not_shown_later_has_diverged(store: Store) -> None:
    """The CRM said yes and did nothing: a person must hear of it, as of a tag. Not at once, for it may be slow."""
    async with _circle(store) as c:
        c.sandbox.faults.add("yes", operation="list_subscribe")
        await _subscribe(c)
        await c.drain(**NO_DICE)
        assert (await _entry(c))["status"] == "accepted"
        assert (await c.drain(**NO_DICE)).diverged == 0, "not before the settle window is over"
        assert await _incidents(c) == ()
        await _later(store)
        assert (await c.drain(**NO_DICE)).diverged == 1
        entry = await _entry(c)
        assert entry["status"] == "diverged"
        (incident,) = await _incidents(c)
        assert (incident.kind, incident.subject) == ("diverged", f"entry:{entry['id']}")
        detail = msgspec.json.decode(incident.detail)
        assert list(detail["shown"].values()) == ["nothing"]


@pytest.mark.parametrize("fault", ["yes", "status"])
async def test_a_subscription_that_is_shown_later_is_verified(store: Store, fault: str) -> None:
    """The CRM was slow, or could not be read just then."""
    async with _circle(store) as c:
        if fault == "yes":
            c.sandbox.faults.add("yes", operation="list_subscribe")
        else:
            c.sandbox.faults.add("status", status=503, operation="relation_subscriptions")
        await _subscribe(c)
        await c.drain(**NO_DICE)
        assert (await _entry(c))["status"] == "accepted"
        if fault == "yes":
            relation = next(iter(c.sandbox.world.relations.values()))
            c.sandbox.world.subscribe(relation, next(iter(c.sandbox.world.lists)), skips_optin=False)
        await _later(store)
        assert (await c.drain(**NO_DICE)).verified == 1
        assert (await _entry(c))["status"] == "verified"
        assert await _incidents(c) == ()


async def test_a_crm_that_cannot_be_read_decides_nothing(store: Store) -> None:
    """It is asked again, ever more rarely."""
    async with _circle(store) as c:
        c.sandbox.faults.add("status", status=503, operation="relation_subscriptions", times=0)
        await _subscribe(c)
        await c.drain(**NO_DICE)
        await _later(store)
        assert (await c.drain(**NO_DICE)).diverged == 0
        assert (await _entry(c))["status"] == "accepted"
        assert (await rows(store, "SELECT prove_at > now() AS again FROM syncd.entries")) == [{"again": True}]
