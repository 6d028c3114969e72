-- Capture of updates, cheaper: the same rows as in capture_001.sql for fewer instructions.
--
-- Most of what a capture costs is not its work but the start of its statement: each function and each node of a plan
-- is set up anew by every call (2,000 instructions a function, counted). So:
--
-- * Old rows are joined to new ones by a plain JOIN. FULL JOIN was there because it can only hash or sort, but it also
--   looks through the whole hash table for rows without a partner, which an update has not. That the two are never
--   compared all with all is now said outright: enable_nestloop is off while these functions run, so that the plan
--   that a session keeps, made for one row or for none, suits a million. (Joins with a few constants, and look-ups by
--   key, have no other way than a nested loop and keep it.)
-- * The two captures that an edit may make are two constants and one condition, not two queries appended.
--
-- benchmarks/commits.py says what is left, and how much of it any INSERT from a trigger costs.

CREATE OR REPLACE FUNCTION syncd.capture_relation_update() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_nestloop = off AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT edit.account_id, edit.id,
           CASE WHEN part.is_identity THEN 'change_email' ELSE 'update_profile' END,
           CASE WHEN part.is_identity THEN 'identity' ELSE 'profile' END,
           CASE WHEN part.is_identity THEN jsonb_build_object('old', edit.email_before, 'new', edit.email_after)
                ELSE jsonb_build_object('old', edit.profile_before, 'new', edit.profile_after) END,
           syncd.actor(), syncd.reason()
    FROM (
        SELECT n.account_id, n.id, o.email AS email_before, n.email AS email_after,
            jsonb_object(CASE WHEN o.first_name IS DISTINCT FROM n.first_name THEN ARRAY['first_name', o.first_name] END
                || CASE WHEN o.suffix IS DISTINCT FROM n.suffix THEN ARRAY['suffix', o.suffix] END
                || CASE WHEN o.last_name IS DISTINCT FROM n.last_name THEN ARRAY['last_name', o.last_name] END
                || CASE WHEN o.gender IS DISTINCT FROM n.gender THEN ARRAY['gender', o.gender] END
                || CASE WHEN o.type IS DISTINCT FROM n.type THEN ARRAY['type', o.type] END
                || CASE WHEN o.customer IS DISTINCT FROM n.customer THEN ARRAY['customer', o.customer] END
            ) AS profile_before,
            jsonb_object(CASE WHEN o.first_name IS DISTINCT FROM n.first_name THEN ARRAY['first_name', n.first_name] END
                || CASE WHEN o.suffix IS DISTINCT FROM n.suffix THEN ARRAY['suffix', n.suffix] END
                || CASE WHEN o.last_name IS DISTINCT FROM n.last_name THEN ARRAY['last_name', n.last_name] END
                || CASE WHEN o.gender IS DISTINCT FROM n.gender THEN ARRAY['gender', n.gender] END
                || CASE WHEN o.type IS DISTINCT FROM n.type THEN ARRAY['type', n.type] END
                || CASE WHEN o.customer IS DISTINCT FROM n.customer THEN ARRAY['customer', n.customer] END
            ) AS profile_after
        FROM before o JOIN after n ON n.id = o.id
        OFFSET 0 -- keeps the planner from computing the profiles twice
    ) AS edit
    CROSS JOIN (VALUES (true), (false)) AS part (is_identity)
    WHERE CASE WHEN part.is_identity THEN edit.email_before IS DISTINCT FROM edit.email_after
               ELSE edit.profile_after IS NOT NULL END;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION syncd.capture_field_update() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_nestloop = off AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT f.account_id, edit.relation_id, 'set_field', 'field:' || edit.field_id,
           jsonb_build_object('field_id', edit.field_id, 'code', f.code, 'old', edit.old, 'new', edit.new),
           syncd.actor(), syncd.reason()
    FROM (
        SELECT n.relation_id, n.field_id, o.value AS old, n.value AS new
        FROM before o JOIN after n ON n.relation_id = o.relation_id AND n.field_id = o.field_id
        WHERE o.value IS DISTINCT FROM n.value
    ) AS edit
    CROSS JOIN LATERAL (SELECT account_id, code FROM crm.fields WHERE id = edit.field_id LIMIT 1) AS f;
    RETURN NULL;
END
$$;
