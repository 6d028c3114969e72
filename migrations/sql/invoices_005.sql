-- What one refusal ended for good is asked for again: a gateway's "not found" looks no different from the CRM's, and
-- passes. From now on a detail or PDF is given up after twelve tries over several days (``PullPolicy``).

SELECT set_config('syncd.origin', 'remote', true);

WITH again AS (
    UPDATE crm.invoices SET detail_status = 'pending', detail_next_at = now()
    WHERE detail_status = 'failed' AND detail_attempts < 12 AND pseudonymised_at IS NULL
    RETURNING id, account_id
)
INSERT INTO syncd.changes (account_id, table_name, row_id, kind, origin, before, after)
SELECT account_id, 'invoices', id, 'update', 'remote', '{"detail_status": "failed"}', '{"detail_status": "pending"}'
FROM again;

UPDATE syncd.invoice_fetches SET next_at = now() WHERE next_at IS NULL AND attempts < 12;

SELECT set_config('syncd.origin', '', true);
