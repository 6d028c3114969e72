"""Accounts: the row that every other row of the mirror belongs to."""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.account import Account
from syncd.domain.errors import ConfigurationError, UserError
from syncd.domain.ids import AccountId
from syncd.store.engine import Connection

_INSERT = text("INSERT INTO crm.accounts (name, provider) VALUES (:name, :provider) ON CONFLICT (name) DO NOTHING")
_SELECT = text("SELECT id, provider FROM crm.accounts WHERE name = :name")
_ALL = text("SELECT id, name FROM crm.accounts ORDER BY name")
_STATE = text("INSERT INTO syncd.account_states (account_id) VALUES (:id) ON CONFLICT (account_id) DO NOTHING")


async def account_ids(connection: Connection) -> dict[str, AccountId]:
    """Return the accounts of the mirror by name."""
    return {row.name: AccountId(row.id) for row in await connection.execute(_ALL)}


async def chosen_accounts(connection: Connection, only: str | None) -> dict[str, AccountId]:
    """Return the accounts of the mirror by name, or the one that is asked for alone; raises UserError when the mirror
    has none of that name, whatever the settings say."""
    known = await account_ids(connection)
    if only is None:
        return known
    if only not in known:
        raise UserError(f"there is no account {only!r}; the mirror has: {', '.join(known) or 'none yet'}")
    return {only: known[only]}


async def ensure_account(connection: Connection, name: str, provider: str) -> Account:
    """Return the account of this name, creating it and its state row the first time.

    Call inside ``Store.begin_remote``. Raises ConfigurationError when the name belongs to another provider: its rows
    must never be mixed with another CRM's.
    """
    found = (await connection.execute(_SELECT, {"name": name})).one_or_none()
    if found is None:
        await connection.execute(_INSERT, {"name": name, "provider": provider})
        found = (await connection.execute(_SELECT, {"name": name})).one()
    if found.provider != provider:
        raise ConfigurationError(
            f"account {name!r} holds rows of {found.provider}; choose another SYNCD_ACCOUNT for {provider}"
        )
    await connection.execute(_STATE, {"id": found.id})
    return Account(AccountId(found.id), name, provider)
