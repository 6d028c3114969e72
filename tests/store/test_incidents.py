"""Incidents: a person is told once, and again only after it was well in between."""

from __future__ import annotations

from syncd.domain.incidents import Incident, IncidentKind
from syncd.store import Store
from syncd.store.incidents import close_incidents, list_incidents, open_incidents
from tests.support.outbox import new_account

TAG = Incident(IncidentKind.DIVERGED, "entry:7", "the CRM does not show the tag", {"expected": "vip"})
NAME = Incident(IncidentKind.DIVERGED, "entry:8", "the CRM shows another last_name")


async def test_an_incident_is_news_once_and_counted_after(store: Store) -> None:
    """A thousand failures are one thing to know, not a thousand."""
    account = await new_account(store)
    async with store.begin() as connection:
        assert await open_incidents(connection, account.id, [TAG, NAME]) == (TAG, NAME)
        assert await open_incidents(connection, account.id, [TAG, TAG]) == ()
        listed = {row.subject: row.occurrences for row in await list_incidents(connection)}
    assert listed == {"entry:7": 2, "entry:8": 1}


async def test_an_incident_that_was_closed_is_news_again(store: Store) -> None:
    """What went well and broke again is a new thing to know; the old one stays on record."""
    account = await new_account(store)
    async with store.begin() as connection:
        await open_incidents(connection, account.id, [TAG, NAME])
        await close_incidents(connection, account.id, IncidentKind.DIVERGED, ["entry:7"])
        assert [row.subject for row in await list_incidents(connection, account="default")] == ["entry:8"]
        assert await open_incidents(connection, account.id, [TAG, NAME]) == (TAG,)
        await close_incidents(connection, account.id, IncidentKind.DIVERGED)
        assert await list_incidents(connection) == ()
        kept = await list_incidents(connection, with_closed=True)
    assert sorted((row.subject, row.occurrences) for row in kept) == [("entry:7", 1), ("entry:7", 1), ("entry:8", 2)]
    assert {row.detail for row in kept if row.subject == "entry:7"} == {'{"expected": "vip"}'}
