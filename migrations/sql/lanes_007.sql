-- What makes a lane the only one of its relation, in a table of its own that no delivery writes.
--
-- A lane is written three times for every delivery. While anybody's transaction stays open its old versions stay, and
-- each time its page has no more room the new one is entered into both indexes of the table. A unique index first
-- compares what it takes in with all versions that are there, the dead ones too: a delivery cost more the longer the
-- transaction was open. So these indexes are no longer unique. That there is one lane of each number, and one of each
-- relation, is said by syncd.lane_keys, which is written when a lane is made or goes, and never otherwise.

-- Before anything else, or a drainer that has locked a lane and will write it would wait for us as we wait for it.
LOCK TABLE syncd.lanes IN ACCESS EXCLUSIVE MODE;

CREATE TABLE syncd.lane_keys (
    lane_id bigint NOT NULL CONSTRAINT lane_keys_pkey PRIMARY KEY,
    account_id bigint NOT NULL,
    relation_id bigint
);
COMMENT ON TABLE syncd.lane_keys IS
    'That a relation, or an account itself, has one lane: a trigger on syncd.lanes keeps it.';

CREATE FUNCTION syncd.keep_lane_keys() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM syncd.lane_keys;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM syncd.lane_keys WHERE lane_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO syncd.lane_keys (lane_id, account_id, relation_id) VALUES (NEW.id, NEW.account_id, NEW.relation_id);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION syncd.keep_lane_keys() IS
    'Keep syncd.lane_keys equal to what syncd.lanes says; a second lane of a relation violates its key.';

CREATE TRIGGER lanes_keep_keys AFTER INSERT OR DELETE OR UPDATE OF id, account_id, relation_id ON syncd.lanes
    FOR EACH ROW EXECUTE FUNCTION syncd.keep_lane_keys();
CREATE TRIGGER lanes_truncate_keys AFTER TRUNCATE ON syncd.lanes
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.keep_lane_keys();

INSERT INTO syncd.lane_keys (lane_id, account_id, relation_id) SELECT id, account_id, relation_id FROM syncd.lanes;
CREATE UNIQUE INDEX lane_keys_relation_id_key ON syncd.lane_keys (account_id, relation_id) NULLS NOT DISTINCT;

ALTER TABLE syncd.lanes DROP CONSTRAINT lanes_pkey;
DROP INDEX syncd.lanes_relation_id_key;
CREATE INDEX lanes_id_idx ON syncd.lanes (id) WITH (deduplicate_items = off);
CREATE INDEX lanes_relation_id_idx ON syncd.lanes (account_id, relation_id) WITH (deduplicate_items = off);
-- Whoever publishes all tables needs to be told how a row of this one is known, or could not write it any more. Where
-- wal_level is logical it costs the old row in the log of each write.
ALTER TABLE syncd.lanes REPLICA IDENTITY FULL;

-- As in lanes_005.sql, but that the lane of an account itself is looked up like all others, and that a missing one is
-- inserted without asking for a conflict: whoever stages is alone, and was so when it looked.
CREATE OR REPLACE FUNCTION syncd.lengthen_lanes(
    accounts bigint[], relations bigint[], added bigint[], due boolean[], OUT ids bigint[], OUT tails bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    hit bigint;
    places tid[];
    missing bigint[];
    made_ids bigint[];
BEGIN
    SELECT array_agg(coalesce(m.id, o.id, 0) ORDER BY g.nth),
           array_agg(coalesce(m.place, o.place, '(0,0)') ORDER BY g.nth),
           array_agg(coalesce(m.tail_seq, o.tail_seq, 0) + g.added ORDER BY g.nth),
           coalesce(array_agg(g.nth ORDER BY g.nth) FILTER (WHERE m.id IS NULL AND o.id IS NULL), '{}')
    INTO ids, places, tails, missing
    FROM unnest(lengthen_lanes.accounts, lengthen_lanes.relations, lengthen_lanes.added)
        WITH ORDINALITY AS g (account_id, relation_id, added, nth)
    LEFT JOIN LATERAL (
        SELECT l.id, l.ctid AS place, l.tail_seq FROM syncd.lanes l
        WHERE l.account_id = g.account_id AND l.relation_id BETWEEN g.relation_id AND g.relation_id
        ORDER BY l.relation_id DESC LIMIT 1
        FOR UPDATE
    ) AS m ON true
    LEFT JOIN LATERAL (
        SELECT l.id, l.ctid AS place, l.tail_seq FROM syncd.lanes l
        WHERE g.relation_id IS NULL AND l.account_id BETWEEN g.account_id AND g.account_id AND l.relation_id IS NULL
        ORDER BY l.account_id DESC, l.relation_id DESC LIMIT 1
        FOR UPDATE
    ) AS o ON true;

    UPDATE syncd.lanes l
    SET tail_seq = l.tail_seq + g.added,
        ready_at = CASE WHEN l.claimed_by IS NULL
                        THEN LEAST(l.ready_at, CASE WHEN g.is_due THEN clock_timestamp() END)
                        ELSE l.ready_at END
    FROM unnest(places, lengthen_lanes.ids, lengthen_lanes.added, lengthen_lanes.due) AS g (place, id, added, is_due)
    WHERE l.ctid = g.place AND l.id = g.id;
    GET DIAGNOSTICS hit = ROW_COUNT;
    IF hit + cardinality(missing) <> cardinality(ids) THEN
        RAISE EXCEPTION 'lanes have moved under their locks';
    END IF;

    IF cardinality(missing) = 0 THEN
        RETURN;
    END IF;
    WITH made AS (
        INSERT INTO syncd.lanes (account_id, relation_id, tail_seq, ready_at)
        SELECT g.account_id, g.relation_id, g.added, CASE WHEN g.is_due THEN clock_timestamp() END
        FROM unnest(lengthen_lanes.ids, lengthen_lanes.accounts, lengthen_lanes.relations, lengthen_lanes.added,
                    lengthen_lanes.due) AS g (id, account_id, relation_id, added, is_due)
        WHERE g.id = 0
        ORDER BY g.account_id, g.relation_id
        RETURNING id, account_id, relation_id
    )
    SELECT array_agg(id ORDER BY account_id, relation_id) INTO made_ids FROM made;
    FOR i IN 1 .. cardinality(missing) LOOP
        ids[missing[i]] := made_ids[i];
    END LOOP;
END
$$;
