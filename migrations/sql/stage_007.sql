-- A transaction has its number before a capture of it has one.
--
-- Whoever stages begins where it knows who may still show a capture below: transactions with a lower number than its own
-- (syncd/policy/stagemark.py). A trigger captures what its transaction has written, and a call about a relation locks the
-- relation's row, and either takes a number. A call of an account itself may be the first thing that its transaction
-- writes, and the values of a new row are made before the row asks for the number. So it is asked for first.
--
-- As in functions_001.sql but for that.

CREATE OR REPLACE FUNCTION syncd.capture_call(
    account_id bigint, relation_id bigint, operation text, facet text, payload jsonb
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_current_xact_id();
    PERFORM FROM crm.relations r WHERE r.id = relation_id FOR KEY SHARE;
    IF relation_id IS NOT NULL AND NOT FOUND THEN
        RAISE EXCEPTION 'relation % was merged into another row just now', relation_id
            USING ERRCODE = 'serialization_failure', HINT = 'Run the transaction again.';
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    VALUES (account_id, relation_id, operation, facet, payload, syncd.actor(), syncd.reason());
END
$$;
