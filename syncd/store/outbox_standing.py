"""Standing: since when a relation may have stood on a list as a list call wants it, before that call was ever begun.

A list call whose fate is unknown is read back, and the CRM shows no more than how the relation stands. What an earlier
call of the same kind did, or another hand, must not be taken for this call's doing. So what was known before is read
here: earlier calls of the outbox that were delivered, or may have been; and the mirror, as far as it is certain that
no other standing was learned of its row after the change was made (that it was not shown, or shown again, says nothing
about when it began). It must never name a time that is too early.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from syncd.store.engine import Connection

_STOOD = text(
    """
    SELECT e.id, GREATEST(
        (SELECT max(coalesce(o.settled_at, o.captured_at)) FROM syncd.entries o
         WHERE o.lane_id = e.lane_id AND o.facet = e.facet AND o.seq < e.seq
           AND (o.operation = 'unsubscribe') = (e.operation = 'unsubscribe')
           AND (o.status IN ('verified', 'accepted', 'diverged', 'skipped') OR o.is_uncertain)),
        (SELECT coalesce(s.event_at, s.last_seen_at) FROM crm.list_subscriptions s
         WHERE s.relation_id = e.relation_id AND s.list_id = CAST(e.payload ->> 'list_id' AS bigint)
           AND s.status = CASE e.operation WHEN 'unsubscribe' THEN 'unsubscribed' ELSE 'subscribed' END
           AND s.first_seen_at < e.captured_at
           AND NOT EXISTS (SELECT FROM syncd.changes c
                           WHERE c.table_name = 'list_subscriptions' AND c.row_id = s.relation_id
                             AND c.link_id = s.list_id AND c.origin = 'remote' AND c.kind = 'update'
                             AND c.changed_at >= e.captured_at))
    ) AS stood_at
    FROM syncd.entries e
    WHERE e.id = ANY (CAST(:ids AS bigint[])) AND e.operation IN ('subscribe', 'subscribe_with_consent', 'unsubscribe')
    """
)


async def stood(connection: Connection, entry_ids: Sequence[int]) -> dict[int, datetime]:
    """Return, of those list calls before which the relation may have stood as they want it, since when it may have."""
    if not entry_ids:
        return {}
    rows = await connection.execute(_STOOD, {"ids": list(entry_ids)})
    return {id_: stood_at for id_, stood_at in rows.all() if stood_at is not None}
