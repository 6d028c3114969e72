"""Given up: what stands in the mirror only because of edits that were rejected or skipped, and never reached the CRM.

Such rows differ from every answer until one takes them back. Whoever gave the edits up has decided that already: the
CRM rewrites nothing by it, and lacks nothing that it ever showed. So the guards of a pull leave these rows out when
they count; the pull itself treats them like all others.

Left behind is what the newest edits of a field brought, all of them given up, after a pull last had its say; and taken
back it is only by the value that stood before the first of them. An answer that brings a third value is news. That a
pull has seen a link is noted now and then only (``touch_before``), so one that the CRM showed in between may pass for
left behind until the next note.

Looked up lane by lane, along the key of the entries: as much as the merge looks up for a row that differs.
"""

from __future__ import annotations


def is_link_left(relation: str, kind: str, other: str, seen_at: str) -> str:
    """Return the SQL that tells whether the link of a relation to another row, a tag or a group by its ``kind``, last
    seen then, is there by given-up edits alone. It binds ``account_id``. Where a removal came first, also one that a
    later edit has superseded, the CRM had the link before them."""
    return f"""
        COALESCE((
            SELECT f.status = 'skipped' AND f.operation IN ('add_tag', 'join_group')
            FROM syncd.lanes l JOIN syncd.entries f ON f.lane_id = l.id
            WHERE l.account_id = :account_id AND l.relation_id = {relation} AND f.facet = '{kind}:' || {other}
              AND f.status IN ('skipped', 'superseded') AND f.reasserts IS NULL AND f.settled_at > {seen_at}
              AND NOT EXISTS (SELECT FROM syncd.entries d
                              WHERE d.lane_id = f.lane_id AND d.seq > f.seq AND d.facet = f.facet
                                AND d.status <> 'skipped' AND d.reasserts IS NULL)
            ORDER BY f.seq LIMIT 1), false)
    """


def is_edit_taken_back(c: str) -> str:
    """Return the SQL that tells whether a change ``c``, an update of a relation by the transaction under way, only
    takes given-up edits back. It binds ``account_id``. When a pull last had its say is told by the history: the row
    itself is written already. What was given up before the history begins is not left out: nobody knows what was said
    since."""
    return f"""
        NOT EXISTS (
            SELECT FROM jsonb_each(jsonb_strip_nulls({c}.before)) AS k (name, was)
            WHERE NOT COALESCE((
                SELECT COALESCE((array_agg(x.before -> k.name ORDER BY f.seq))[1], 'null')
                           = COALESCE({c}.after -> k.name, 'null')
                       AND (array_agg(x.after -> k.name ORDER BY f.seq DESC))[1] = k.was
                FROM syncd.lanes l JOIN syncd.entries f ON f.lane_id = l.id
                CROSS JOIN LATERAL syncd.edit_of(f.operation, f.payload) AS x
                WHERE l.account_id = :account_id AND l.relation_id = {c}.row_id AND f.facet IN ('profile', 'identity')
                  AND f.status = 'skipped' AND f.reasserts IS NULL AND x.after ? k.name
                  AND NOT EXISTS (SELECT FROM syncd.entries d
                                  CROSS JOIN LATERAL syncd.edit_of(d.operation, d.payload) AS y
                                  WHERE d.lane_id = f.lane_id AND d.seq > f.seq AND d.facet = f.facet
                                    AND d.status <> 'skipped' AND d.reasserts IS NULL AND y.after ? k.name)
                  AND NOT EXISTS (SELECT FROM syncd.changes p
                                  WHERE p.table_name = 'relations' AND p.row_id = {c}.row_id
                                    AND p.origin IN ('remote', 'reproject') AND p.xact <> pg_current_xact_id()
                                    AND p.after ? k.name AND p.changed_at > f.settled_at)
                  AND NOT EXISTS (SELECT FROM syncd.history_horizons h
                                  WHERE h.account_id = :account_id AND h.kept_since > f.settled_at)
            ), false))
    """
