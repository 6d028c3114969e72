"""Parts of a migration: SQL files that belong to one revision, ``migrations/sql/<part>_<number>.sql``.

Revisions from 0008 on are run by it. The ones before carry the same lines themselves: what has been released is not
changed any more.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from syncd.store.schema import migrations_dir


def run_parts(bind: Connection, revision: str) -> None:
    """Run a revision's parts by name, each whole; then see to what every revision owes.

    A column that a part gives to a mirrored table belongs to its past, too; and nobody may call a new routine unasked.
    """
    bind.exec_driver_sql("SELECT 1")  # the transaction must be open before the driver is used below SQLAlchemy
    for part in sorted((migrations_dir() / "sql").glob(f"*_{revision[1:]}.sql")):
        body = part.read_text(encoding="utf-8")
        bind.connection.dbapi_connection.run_async(lambda driver, body=body: driver.execute(body))  # type: ignore[union-attr]
    bind.exec_driver_sql("CALL syncd.define_as_of()")
    bind.exec_driver_sql("REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA crm, syncd FROM PUBLIC")
