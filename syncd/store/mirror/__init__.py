"""The mirror: what the CRM said, written as differences. One file per kind of record.

Every kind is written the same way. Read first what the mirror holds for the rows of a batch, send only what differs,
each verb as one ``INSERT ... SELECT FROM unnest(arrays)`` whatever the batch holds. A field that the answering
endpoint does not carry (UNSET) is left as it is. Each applied change is a row of the history. ``last_seen_at`` of
unchanged rows moves once a day, so that reading the same window again writes almost nothing.

Everything here runs inside ``Store.begin_remote`` in one transaction per answer, and never waits for an application:
relations that one holds locked are left for the next run and counted as deferred.
"""

from syncd.store.mirror.scope import Gone, Scope, Written

__all__ = ["Gone", "Scope", "Written"]
