"""Respelling: keep ``raw`` as the CRM spells it now, where nothing else about a row has changed.

Done when a key turned up that syncd does not know: its values are to be had from then on, not only of rows that happen
to change. ``changed_at`` and the history stay as they are, because no column did change.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import text

from syncd.store.engine import Connection
from syncd.store.mirror.normal import raw_text

_ROWS = """
    UPDATE crm.{table} t SET raw = CAST(i.raw AS jsonb)
    FROM unnest(CAST(:ids AS bigint[]), CAST(:raws AS text[])) AS i (id, raw)
    WHERE t.id = i.id AND t.id IN (SELECT id FROM crm.{table} WHERE id = ANY(CAST(:ids AS bigint[]))
                                   FOR NO KEY UPDATE SKIP LOCKED)
"""


async def respell(connection: Connection, table: str, raws: Mapping[int, bytes]) -> None:
    """Replace the raw of rows, by our ids. Rows that an application holds are left as they are."""
    if raws:
        values = {"ids": list(raws), "raws": [raw_text(raw) for raw in raws.values()]}
        await connection.execute(text(_ROWS.format(table=table)), values)
