"""``--account`` on every command that reads the database: a name that is not there is refused, never "nothing"."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.store import Store
from tests.process.test_cli import is_one_clear_failure
from tests.support.commands import syncd
from tests.support.outbox import new_account

READERS = (
    "outbox list",
    "outbox list --by-reason",
    "outbox holds",
    "outbox holds 1",
    "outbox approve --yes",
    "outbox reject --yes",
    "outbox pause",
    "conflicts list",
    "runs list",
    "runs approve orders",
    "runs reject orders",
    "shapes",
    "shapes accept orders id",
    "explain relation jan@x.example",
)


@pytest.mark.parametrize("door", READERS)
async def test_an_unknown_account_is_refused_with_the_known_ones(
    tmp_path: Path, database: str, store: Store, door: str
) -> None:
    """Whoever mistypes a name in a bad hour must not read that nothing waits. What counts is what the mirror holds: a
    configured account that was never pulled has nothing to show, and one that is configured no more still may have."""
    await new_account(store, "shop")
    await new_account(store, "cafe")
    for name in ("shpo", "default"):  # the second is the configured one
        refused = await syncd(*door.split(), "--account", name, cwd=tmp_path, database_url=database)
        assert is_one_clear_failure(refused, 2)
        assert refused.err == f"syncd: there is no account '{name}'; the mirror has: cafe, shop\n"


@pytest.mark.parametrize("door", ["outbox list", "outbox holds", "conflicts list", "runs list", "shapes"])
async def test_an_account_that_is_configured_no_more_is_shown(
    tmp_path: Path, database: str, store: Store, door: str
) -> None:
    """Its changes wait in the outbox all the same."""
    await new_account(store, "shop")
    shown = await syncd(*door.split(), "--account", "shop", "--json", cwd=tmp_path, database_url=database)
    assert shown.code == 0, shown.both
    assert shown.json() in ([], {"conflicts": [], "decided": 0})
