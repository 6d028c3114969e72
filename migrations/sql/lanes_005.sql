-- A lane is looked up from its newest version down, because those before it stay in its indexes for as long as anybody's
-- transaction is open. That needs each version to have a place of its own there: versions that an index keeps together
-- (deduplicated) are given out oldest first, whichever way it is read. What is together already comes apart by vacuum and
-- by and by; it is slower until then, and no more.

ALTER INDEX syncd.lanes_pkey SET (deduplicate_items = off);
ALTER INDEX syncd.lanes_relation_id_key SET (deduplicate_items = off);

-- What is staged lengthens its lanes, which are looked up like that, too. The upsert that did it went through all
-- versions of each lane, the oldest first, because a unique index is asked for conflicts in one way only. It is left for
-- lanes that are not there yet, and for the lane of an account itself, which has no relation to be looked up by.
--
-- The arrays go together, one element a lane, in the order of account and relation: lanes are locked in it. Each
-- statement of a volatile function sees what was committed before it, so a lane that had to be waited for is read as it
-- was locked, and keeps its place until this transaction writes it.

CREATE FUNCTION syncd.lengthen_lanes(
    accounts bigint[], relations bigint[], added bigint[], due boolean[], OUT ids bigint[], OUT tails bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    hit bigint;
    places tid[];
    missing bigint[];
    made_ids bigint[];
    made_tails bigint[];
BEGIN
    SELECT array_agg(coalesce(m.id, 0) ORDER BY g.nth), array_agg(coalesce(m.place, '(0,0)') ORDER BY g.nth),
           array_agg(m.tail_seq + g.added ORDER BY g.nth),
           coalesce(array_agg(g.nth ORDER BY g.nth) FILTER (WHERE m.id IS NULL), '{}')
    INTO ids, places, tails, missing
    FROM unnest(lengthen_lanes.accounts, lengthen_lanes.relations, lengthen_lanes.added)
        WITH ORDINALITY AS g (account_id, relation_id, added, nth)
    LEFT JOIN LATERAL (
        SELECT l.id, l.ctid AS place, l.tail_seq FROM syncd.lanes l
        WHERE l.account_id = g.account_id AND l.relation_id BETWEEN g.relation_id AND g.relation_id
        ORDER BY l.relation_id DESC LIMIT 1
        FOR UPDATE
    ) AS m ON true;

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
        INSERT INTO syncd.lanes AS l (account_id, relation_id, tail_seq, ready_at)
        SELECT g.account_id, g.relation_id, g.added, CASE WHEN g.is_due THEN clock_timestamp() END
        FROM unnest(lengthen_lanes.ids, lengthen_lanes.accounts, lengthen_lanes.relations, lengthen_lanes.added,
                    lengthen_lanes.due) AS g (id, account_id, relation_id, added, is_due)
        WHERE g.id = 0
        ORDER BY g.account_id, g.relation_id
        ON CONFLICT (account_id, relation_id) DO UPDATE
            SET tail_seq = l.tail_seq + excluded.tail_seq,
                ready_at = CASE WHEN l.claimed_by IS NULL THEN LEAST(l.ready_at, excluded.ready_at)
                                ELSE l.ready_at END
        RETURNING l.id, l.account_id, l.relation_id, l.tail_seq
    )
    SELECT array_agg(id ORDER BY account_id, relation_id), array_agg(tail_seq ORDER BY account_id, relation_id)
    INTO made_ids, made_tails FROM made;
    FOR i IN 1 .. cardinality(missing) LOOP
        ids[missing[i]] := made_ids[i];
        tails[missing[i]] := made_tails[i];
    END LOOP;
END
$$;
COMMENT ON FUNCTION syncd.lengthen_lanes(bigint[], bigint[], bigint[], boolean[]) IS
    'Make room at the end of lanes for so many entries each, and wake those that nobody holds; returns their ids and tails.';
