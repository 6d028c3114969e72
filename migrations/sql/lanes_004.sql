-- When lanes are due, in a table of its own: what the claim searches by, without an index on the lane.
--
-- An index on lanes.ready_at made each update of a lane, three for every delivery, write a new entry into every index of
-- the table and compare it with all older versions of its lane. While anybody's transaction stays open none of those
-- versions can be removed, and each delivery of a lane was slower than the one before. Without that index an update
-- that finds room on its page touches no index at all; hence the fillfactor, which new pages follow from now on.
--
-- lanes.ready_at stays the truth, and what everybody writes. syncd.ready has exactly one row for each lane that has a
-- time, with that very time, and nobody but the trigger below writes it: no verb, no operator at a prompt and no older
-- version of syncd can wake a lane in one place and forget it in the other. Its rows are never updated: what is over
-- lies at the low end, where the mark of the outbox passes it.

CREATE TABLE syncd.ready (
    account_id bigint NOT NULL,
    ready_at timestamptz NOT NULL,
    lane_id bigint NOT NULL,
    CONSTRAINT ready_pkey PRIMARY KEY (account_id, ready_at, lane_id)
);
COMMENT ON TABLE syncd.ready IS
    'When each lane that waits or is leased is due, as syncd.lanes says it: a trigger keeps it, the claim searches it.';

-- Each row to delete is looked up by its whole key, and deleted by its place. No two sets are joined: the planner, which
-- may have counted the table when it was empty, would read all that a held transaction keeps of it. The places hold
-- still, because a row is never updated and whoever deletes it has its lane locked.
CREATE FUNCTION syncd.keep_ready() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM syncd.ready WHERE ctid = ANY (ARRAY(
            SELECT found.place
            FROM (SELECT account_id, ready_at, id FROM before EXCEPT SELECT account_id, ready_at, id FROM after) AS b
            CROSS JOIN LATERAL (
                SELECT r.ctid AS place FROM syncd.ready r
                WHERE r.account_id = b.account_id AND r.ready_at = b.ready_at AND r.lane_id = b.id LIMIT 1
            ) AS found
        ));
        INSERT INTO syncd.ready (account_id, ready_at, lane_id)
        SELECT account_id, ready_at, id FROM after WHERE ready_at IS NOT NULL
        EXCEPT SELECT account_id, ready_at, id FROM before;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO syncd.ready (account_id, ready_at, lane_id)
        SELECT account_id, ready_at, id FROM after WHERE ready_at IS NOT NULL;
    ELSE
        DELETE FROM syncd.ready WHERE ctid = ANY (ARRAY(
            SELECT found.place
            FROM before b
            CROSS JOIN LATERAL (
                SELECT r.ctid AS place FROM syncd.ready r
                WHERE r.account_id = b.account_id AND r.ready_at = b.ready_at AND r.lane_id = b.id LIMIT 1
            ) AS found
        ));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION syncd.keep_ready() IS 'Keep syncd.ready equal to what syncd.lanes says.';

CREATE TRIGGER ready_insert AFTER INSERT ON syncd.lanes
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION syncd.keep_ready();
CREATE TRIGGER ready_update AFTER UPDATE ON syncd.lanes
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION syncd.keep_ready();
CREATE TRIGGER ready_delete AFTER DELETE ON syncd.lanes
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION syncd.keep_ready();

-- The foreign key of entries looked each new entry's lane up once more, along all its versions, though whoever writes
-- entries has their lane locked. What it is there for, that no lane goes before its entries, is asked when one goes.
ALTER TABLE syncd.entries DROP CONSTRAINT entries_lane_id_fkey;

CREATE FUNCTION syncd.keep_lane_of_entries() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM syncd.entries WHERE lane_id = OLD.id) THEN
        RAISE EXCEPTION 'lane % still has entries; delete them first', OLD.id USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION syncd.keep_lane_of_entries() IS 'Refuse to delete a lane that still has entries.';

CREATE TRIGGER lanes_keep_of_entries BEFORE DELETE ON syncd.lanes
    FOR EACH ROW EXECUTE FUNCTION syncd.keep_lane_of_entries();

-- After the triggers: making them has locked out everybody who writes lanes.
INSERT INTO syncd.ready (account_id, ready_at, lane_id)
SELECT account_id, ready_at, id FROM syncd.lanes WHERE ready_at IS NOT NULL;

DROP INDEX syncd.lanes_ready_at_idx;
ALTER TABLE syncd.lanes SET (fillfactor = 10);
