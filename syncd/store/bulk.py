"""Bulk: what makes thousands of values cheap for the driver.

COPY appends many new rows of one table in the connection's own transaction. It is for rows known to be new, by a
comparison made under a lock that keeps other writers of the same rows away: COPY knows no ON CONFLICT. It exists
because an array parameter costs the driver some 330 ns an element and a COPY record 40. Where thousands of keys or
digests are only compared, they travel as one JSON text and one run of bytes, for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import asyncpg
import msgspec

from syncd.domain.errors import InfrastructureError
from syncd.store.engine import Connection


def json_array(texts: Sequence[str | None]) -> str:
    """Return texts as one JSON array, for ``jsonb_array_elements_text``: one parameter instead of thousands."""
    return msgspec.json.encode(texts).decode()


async def copy_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Append rows to a table (schema and name). Raises InfrastructureError when the connection is lost."""
    schema, name = table.split(".")
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    assert isinstance(driver, asyncpg.Connection)
    try:
        await driver.copy_records_to_table(name, schema_name=schema, columns=columns, records=rows)
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
        raise InfrastructureError("the database connection was lost; it is tried again") from error
