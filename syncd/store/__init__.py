"""Postgres: the only importer of SQLAlchemy, Alembic and asyncpg.

One function per verb, each a Core or text statement with explicit columns and named binds. A function takes an open
connection and never commits: the sequence above it owns the transaction, and no transaction is open across a network
call. Everything our own pulls write runs inside ``Store.begin_remote``, whose transaction-local setting
``syncd.origin = 'remote'`` tells the triggers that it is no local edit.
"""

from syncd.store.engine import Connection, Store

__all__ = ["Connection", "Store"]
