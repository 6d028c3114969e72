"""The SQL of orders and their lines. Why they are compared and written so is told in ``orders``."""

from __future__ import annotations

from sqlalchemy import text

from syncd.domain.records import OrderLine

OWN = ("invoice_number", "purchased_at", "is_paid")
WHOSE = ("relation_remote_id", "relation_email", "relation_name")
LINE = OrderLine.__struct_fields__

COMPARE = text("""
    SELECT array_agg(i.n) FILTER (WHERE o.id IS NULL) AS new,
           array_agg(nextval((SELECT CAST(pg_get_serial_sequence('crm.orders', 'id') AS regclass))))
               FILTER (WHERE o.id IS NULL) AS new_ids,
           array_agg(i.n) FILTER (WHERE o.is_same IS FALSE) AS changed,
           array_agg(o.id) FILTER (WHERE o.id IS NOT NULL) AS seen,
           array_agg(i.n) FILTER (WHERE o.is_same AND i.whose <> :not_said AND o.seal <> i.seal
                                     AND o.last_seen_at < :asked_at) AS respelled,
           array_agg(o.id) FILTER (WHERE o.is_same AND o.last_seen_at < :touch_before) AS stale
    FROM (SELECT remote_id, n, substring(CAST(:hashes AS bytea) FROM CAST(n - 1 AS integer) * 32 + 1 FOR 16),
                 substring(CAST(:hashes AS bytea) FROM CAST(n - 1 AS integer) * 32 + 17 FOR 16),
                 substring(CAST(:seals AS bytea) FROM CAST(n - 1 AS integer) * 16 + 1 FOR 16)
          FROM jsonb_array_elements_text(CAST(CAST(:remote_ids AS text) AS jsonb))
              WITH ORDINALITY AS given (remote_id, n)) AS i (remote_id, n, own, whose, seal)
    LEFT JOIN LATERAL (
        SELECT id, last_seen_at, substring(content_hash FROM 33) AS seal,
               last_seen_at >= :asked_at OR missing_since IS NULL AND substring(content_hash FOR 16) = i.own
                   AND (i.whose = :not_said OR substring(content_hash FROM 17 FOR 16) = i.whose) AS is_same
        FROM crm.orders
        WHERE account_id = :account_id AND remote_id = i.remote_id
        LIMIT 1
    ) AS o ON true
""")
TOUCH = text("UPDATE crm.orders SET last_seen_at = now() WHERE id = ANY(CAST(:ids AS bigint[]))")
FAMILIAR = text("""
    SELECT array_agg(i.n) AS known, array_agg(o.id) AS ids,
           array_agg(o.id) FILTER (WHERE o.last_seen_at < :touch_before) AS stale
    FROM (SELECT remote_id, n, substring(CAST(:seals AS bytea) FROM CAST(n - 1 AS integer) * 16 + 1 FOR 16)
          FROM jsonb_array_elements_text(CAST(CAST(:remote_ids AS text) AS jsonb))
              WITH ORDINALITY AS given (remote_id, n)) AS i (remote_id, n, seal)
    JOIN LATERAL (
        SELECT id, last_seen_at FROM crm.orders
        WHERE account_id = :account_id AND remote_id = i.remote_id AND missing_since IS NULL
          AND substring(content_hash FROM 33) = i.seal
        LIMIT 1
    ) AS o ON true
""")
RESPELL = text("""
    UPDATE crm.orders o
    SET raw = CAST(i.raw AS jsonb), content_hash = substring(o.content_hash FOR 32) || i.seal, last_seen_at = now()
    FROM unnest(CAST(:remote_ids AS text[]), CAST(:raws AS text[]), CAST(:seals AS bytea[])) AS i (remote_id, raw, seal)
    WHERE o.account_id = :account_id AND o.remote_id = i.remote_id
""")

ORDERS = """
    unnest(CAST(:remote_ids AS text[]), CAST(:hashes AS bytea[]), CAST(:raws AS text[]),
           CAST(:invoice_number AS text[]), CAST(:purchased_at AS timestamptz[]), CAST(:is_paid AS boolean[]),
           CAST(:relation_remote_id AS text[]), CAST(:relation_email AS text[]), CAST(:relation_name AS text[]))
        AS i (remote_id, hash, raw, invoice_number, purchased_at, is_paid,
              relation_remote_id, relation_email, relation_name)
"""
LINES = """
    unnest(CAST(:line_order AS text[]), CAST(:line_position AS integer[]), CAST(:line_type AS text[]),
           CAST(:product_id AS text[]), CAST(:product_name AS text[]), CAST(:quantity AS text[]),
           CAST(:subscription_id AS text[]), CAST(:subscription_billed_until AS date[]),
           CAST(:subscription_ends_on AS date[]))
        AS l (remote_id, position, line_type, product_id, product_name, quantity,
              subscription_id, subscription_billed_until, subscription_ends_on)
"""
LINE_COLUMNS = "order_id, position, " + ", ".join(LINE)
LINE_VALUES = (
    "l.position, l.line_type, l.product_id, l.product_name, CAST(l.quantity AS numeric),"
    " l.subscription_id, l.subscription_billed_until, l.subscription_ends_on"
)
NOT_SAID = bytes(16)
ORDER_COLUMNS = ("id", "account_id", "remote_id", "relation_id", "raw", "content_hash", *OWN, *WHOSE)
HISTORY_COLUMNS = ("account_id", "table_name", "row_id", "kind", "origin", "run_id")
# One writer of an account's orders at a time, whichever stream shows them: rows found new stay new until they are in.
LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('syncd.orders', :account_id))")

OLD = text(f"""
    SELECT o.id, o.remote_id, {", ".join("o." + name for name in OWN + WHOSE)}, o.content_hash,
           o.missing_since, o.relation_id,
           ARRAY(SELECT ROW({", ".join("l." + name for name in LINE)})
                 FROM crm.order_lines l WHERE l.order_id = o.id ORDER BY l.position) AS lines
    FROM crm.orders o
    WHERE o.account_id = :account_id AND o.remote_id = ANY(CAST(:remote_ids AS text[]))
    ORDER BY o.id FOR UPDATE
""")
UPDATE = text(f"""
    UPDATE crm.orders o
    SET relation_id = r.id, relation_remote_id = i.relation_remote_id,
        relation_email = i.relation_email, relation_name = i.relation_name, invoice_number = i.invoice_number,
        purchased_at = i.purchased_at, is_paid = i.is_paid, raw = CAST(i.raw AS jsonb), content_hash = i.hash,
        last_seen_at = CASE WHEN CAST(:is_retold AS boolean) THEN o.last_seen_at ELSE now() END,
        changed_at = now(), missing_since = NULL
    FROM {ORDERS}
    LEFT JOIN crm.relations r ON r.account_id = :account_id AND r.remote_id = i.relation_remote_id
    WHERE o.account_id = :account_id AND o.remote_id = i.remote_id
    RETURNING o.remote_id, o.relation_id
""")
DROP_LINES = text("DELETE FROM crm.order_lines WHERE order_id = ANY(CAST(:ids AS bigint[]))")
ADD_LINES = text(f"""
    INSERT INTO crm.order_lines ({LINE_COLUMNS})
    SELECT o.id, {LINE_VALUES}
    FROM {LINES} JOIN crm.orders o ON o.account_id = :account_id AND o.remote_id = l.remote_id
""")

KNOWN = text("""
    SELECT count(*) FROM crm.orders
    WHERE account_id = :account_id AND purchased_at >= :since AND purchased_at < :upto
      AND missing_since IS NULL AND first_seen_at < now()
""")
GONE = text("""
    SELECT id, remote_id FROM crm.orders o
    WHERE account_id = :account_id AND purchased_at >= :since AND purchased_at < :upto
      AND missing_since IS NULL AND first_seen_at < now()
      AND NOT EXISTS (SELECT FROM unnest(CAST(:seen AS bigint[])) AS s (id) WHERE s.id = o.id)
    ORDER BY purchased_at
""")
