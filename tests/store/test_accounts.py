"""Accounts: made once, and never shared by two CRMs."""

from __future__ import annotations

import pytest

from syncd.domain.errors import ConfigurationError
from syncd.store import Store
from syncd.store.accounts import ensure_account


async def test_an_account_is_made_once(store: Store) -> None:
    """Its id is part of every key; a second row would mirror everything twice."""
    async with store.begin_remote() as connection:
        first = await ensure_account(connection, "default", "autorespond")
        assert await ensure_account(connection, "default", "autorespond") == first


async def test_an_account_of_another_provider_is_refused(store: Store) -> None:
    """Remote ids of two CRMs under one account would overwrite each other."""
    async with store.begin_remote() as connection:
        await ensure_account(connection, "default", "autorespond")
        with pytest.raises(ConfigurationError, match="SYNCD_ACCOUNT"):
            await ensure_account(connection, "default", "getresponse")
