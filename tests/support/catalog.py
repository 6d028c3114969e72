"""What a database says about its own tables, as comparable text: one line for each column, constraint and index."""

from __future__ import annotations

from sqlalchemy import text

from syncd.store import Connection

_LINES = text(
    """
    SELECT format('column %s.%s %s %s%s%s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  CASE WHEN a.attnotnull THEN ' not null' END,
                  CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text END,
                  ' default ' || pg_get_expr(d.adbin, d.adrelid))
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm')
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE n.nspname IN ('crm', 'syncd') AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'
    UNION ALL
    SELECT format('constraint %s.%s %s %s', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
      FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('crm', 'syncd') AND k.contype <> 'n' AND c.relname <> 'alembic_version'
    UNION ALL
    SELECT format('index %s', indexdef) FROM pg_indexes
     WHERE schemaname IN ('crm', 'syncd') AND tablename <> 'alembic_version'
    UNION ALL
    SELECT format('storage %s.%s %s', n.nspname, c.relname, c.reloptions)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('crm', 'syncd') AND c.relkind = 'r' AND c.reloptions IS NOT NULL
    """
)


async def described(connection: Connection) -> frozenset[str]:
    """Describe every table of both schemas."""
    return frozenset((await connection.execute(_LINES)).scalars())


async def constraint(connection: Connection, name: str) -> str:
    """Return the definition of the constraint of that name."""
    query = text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")
    return str((await connection.execute(query, {"name": name})).scalar_one())
