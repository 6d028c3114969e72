"""The roles ``syncd_owner``, ``syncd_app`` and ``syncd_reader``: made and granted where the connecting role may.

``migrations/sql/grants.sql`` always holds the grants of the current schema, as plain statements that an administrator
can read before running them. It is repeatable, so it is no revision: every upgrade runs it again after the history.
A role that may not do that still gets its schema; ``syncd migrate`` then says that the script is left to do.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import text

from syncd.store.engine import Connection
from syncd.store.schema import migrations_dir

_STANDING = text("""
    SELECT count(r.rolname) = 3 AS exist,
           coalesce(bool_and(has_schema_privilege(r.oid, 'crm', 'USAGE')), false) AS granted,
           (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) AS may_create,
           (SELECT pg_has_role(current_user, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'crm') AS may_grant
    FROM unnest(ARRAY['syncd_owner', 'syncd_app', 'syncd_reader']) AS wanted (name)
    LEFT JOIN pg_roles r ON r.rolname = wanted.name
""")


class Granted(StrEnum):
    """``LEFT_TO_ADMINISTRATOR``: somebody with more rights must run the script of ``syncd migrate --print-grants``."""

    NOW = "now"
    ALREADY = "already"
    LEFT_TO_ADMINISTRATOR = "left to an administrator"


def grant_script() -> str:
    """Return the script, as ``syncd migrate --print-grants`` shows it."""
    return (migrations_dir() / "sql" / "grants.sql").read_text(encoding="utf-8")


async def grant_roles(connection: Connection, *, again: bool) -> Granted:
    """Make and grant the roles; ``again`` is true when the schema has just moved, so that new tables are covered."""
    standing = (await connection.execute(_STANDING)).one()
    if standing.exist and standing.granted and not again:
        return Granted.ALREADY
    if not standing.may_grant or not (standing.exist or standing.may_create):
        return Granted.LEFT_TO_ADMINISTRATOR
    raw = await connection.get_raw_connection()
    assert raw.driver_connection is not None
    await raw.driver_connection.execute(grant_script())
    return Granted.NOW
