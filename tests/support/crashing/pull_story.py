"""What a pull that is killed has to bring: something new for every stream, and absences that are confirmed by it.

The world is built anew for each take, the same each time; the database as it was after the pulls before is cloned.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from syncd.inbound import Puller
from syncd.providers.autorespond import provider
from syncd.providers.contract import Auth, ProviderOptions
from syncd.sandbox import Sandbox, World
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.transport import Transport
from tests.support import news
from tests.support.clock import ManualClock
from tests.support.crashing.pulls import POLICY
from tests.support.news import BREAD
from tests.support.pulling import NOON

SECOND, THIRD = NOON + timedelta(hours=2), NOON + timedelta(hours=4)
GONE = 100_902
_GROUPS, _DOCUMENTS = 4, 2


def first() -> World:
    """The world at noon, small, for every message in it is a point; one buyer will be deleted."""
    made = news.world(relations=4)
    for group in list(made.groups)[_GROUPS:]:
        for relation in made.relations.values():
            made.leave(relation, group)
        del made.groups[group]
    made.add_relation("gone@example.nl", id=GONE, first_name="Gina", last_name="Weg")
    made.add_order(GONE, BREAD, at=NOON - timedelta(days=2))
    return made


def second(made: World) -> World:
    """Two hours later: news, and what is gone is seen to be gone for the first time."""
    made.clock.set(SECOND)
    news.stir(made, 0, documents=_DOCUMENTS)
    tagged = next(each for each in made.relations.values() if each.tags)
    made.untag(tagged, min(tagged.tags))
    grouped = next(each for each in made.relations.values() if each.groups)
    made.leave(grouped, max(grouped.groups))
    made.delete_relation(GONE)
    return made


def third(made: World) -> World:
    """Two hours later again: the news that the killed pull is to bring."""
    made.clock.set(THIRD)
    news.stir(made, 1, documents=_DOCUMENTS)
    return made


async def prepare(url: str, files: Path) -> None:
    """Bring a migrated database, and the directory of PDFs, to where the pull that is killed begins."""
    store = Store.open(url, pool_size=2)
    made = first()
    crm = provider(ProviderOptions(administration=str(made.administration.id)))
    clock = ManualClock(NOON)
    try:
        async with store.begin_remote() as connection:
            account = await ensure_account(connection, "default", crm.name)
        async with Sandbox(made) as box:
            transport = Transport.open(box.base_url, Auth(query={"admin": box.admin, "key": box.key}), clock=clock)
            puller = Puller(store, crm, transport, clock, account, replace(POLICY, files=files), lambda _: None)
            await _pull_all(puller)
            second(made)
            await clock.advance((SECOND - NOON).total_seconds())
            await _pull_all(puller)
            await transport.close()
    finally:
        await store.close()


async def _pull_all(puller: Puller) -> None:
    for report in await puller.pull_all():
        assert report.is_success, report
