-- Capture, cheaper: the application writes down what its rows said, and the stager finds out what that means.
--
-- What a capture costs is the start of its statements: each function and each node of a plan is set up anew by every
-- call (2,000 instructions a function, counted), and comparing six columns and writing them as JSON took thirty
-- functions. So:
--
-- * captures.before and captures.after hold the values as they are, as arrays; payload is null then. Whoever reads a
--   payload asks syncd.payload_of, and gets what the capture would have written: the changed columns only.
-- * A statement that updates one row is not joined. Its old row is fetched strictly; that there are more says an
--   error, caught at once, and only then old and new rows are joined: in one statement, however many they are.
-- * FULL JOIN can only hash or sort: no plan that a session keeps compares all rows with all.
--
-- What is captured is decided here as before: an update that changes nothing writes nothing.

-- No capture that waits is touched: its payload stays, and is what it says.
ALTER TABLE syncd.captures ALTER payload DROP NOT NULL, ADD COLUMN before text[], ADD COLUMN after text[];
-- Asking each row whether it belongs into the index costs more than the few that did not.
DROP INDEX syncd.captures_relation_id_idx;
CREATE INDEX captures_relation_id_idx ON syncd.captures (relation_id);

COMMENT ON COLUMN syncd.captures.before IS
    'Where payload is null: what the row said. Of a profile first_name, suffix, last_name, gender, type, customer; of '
    'a field its value.';
COMMENT ON COLUMN syncd.captures.after IS
    'Where payload is null: what the row says now, in the order of before; of a field its value and code, of a tag or '
    'group its remote id and name.';

-- Inlined where it is used. What it does not know comes out whole and is refused by name, instead of as a null that
-- would keep everybody from staging.
CREATE FUNCTION syncd.payload_of(operation text, facet text, payload jsonb, before text[], after text[])
    RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN payload IS NOT NULL THEN payload
        WHEN operation = 'update_profile' THEN jsonb_build_object(
            'old', jsonb_object(
                   CASE WHEN before[1] IS DISTINCT FROM after[1] THEN ARRAY['first_name', before[1]] END
                || CASE WHEN before[2] IS DISTINCT FROM after[2] THEN ARRAY['suffix', before[2]] END
                || CASE WHEN before[3] IS DISTINCT FROM after[3] THEN ARRAY['last_name', before[3]] END
                || CASE WHEN before[4] IS DISTINCT FROM after[4] THEN ARRAY['gender', before[4]] END
                || CASE WHEN before[5] IS DISTINCT FROM after[5] THEN ARRAY['type', before[5]] END
                || CASE WHEN before[6] IS DISTINCT FROM after[6] THEN ARRAY['customer', before[6]] END),
            'new', jsonb_object(
                   CASE WHEN before[1] IS DISTINCT FROM after[1] THEN ARRAY['first_name', after[1]] END
                || CASE WHEN before[2] IS DISTINCT FROM after[2] THEN ARRAY['suffix', after[2]] END
                || CASE WHEN before[3] IS DISTINCT FROM after[3] THEN ARRAY['last_name', after[3]] END
                || CASE WHEN before[4] IS DISTINCT FROM after[4] THEN ARRAY['gender', after[4]] END
                || CASE WHEN before[5] IS DISTINCT FROM after[5] THEN ARRAY['type', after[5]] END
                || CASE WHEN before[6] IS DISTINCT FROM after[6] THEN ARRAY['customer', after[6]] END))
        WHEN operation IN ('add_tag', 'remove_tag') THEN jsonb_build_object(
            'tag_id', substr(facet, 5)::bigint, 'tag_remote_id', after[1], 'tag_name', after[2])
        WHEN operation IN ('join_group', 'leave_group') THEN jsonb_build_object(
            'group_id', substr(facet, 7)::bigint, 'group_remote_id', after[1], 'group_title', after[2])
        WHEN operation = 'set_field' THEN jsonb_build_object(
            'field_id', substr(facet, 7)::bigint, 'code', after[2], 'old', before[1], 'new', after[1])
        ELSE jsonb_build_object('before', before, 'after', after)
    END
$$;

COMMENT ON FUNCTION syncd.payload_of(text, text, jsonb, text[], text[]) IS
    'What a capture says, in the payload shape of its operation.';

-- relations --------------------------------------------------------------------------------------------------------

-- An edit of e-mail and names in one statement is two captures: the identity first, because the CRM finds by e-mail.
-- Only the look at the old row stands in a block of its own: an INSERT in there would be a transaction within the
-- application's.
CREATE OR REPLACE FUNCTION syncd.capture_relation_update() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    account bigint;
    relation bigint;
    email_before text;
    email_after text;
    profile_before text[];
    profile_after text[];
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    BEGIN
        SELECT o.email, ARRAY[o.first_name, o.suffix, o.last_name, o.gender, o.type, o.customer]
        INTO STRICT email_before, profile_before FROM before o;
    EXCEPTION
        WHEN no_data_found THEN
            RETURN NULL;
        WHEN too_many_rows THEN
            INSERT INTO syncd.captures
                (account_id, relation_id, operation, facet, payload, actor, reason, before, after)
            SELECT edit.account_id, edit.id,
                   CASE WHEN part.is_identity THEN 'change_email' ELSE 'update_profile' END,
                   CASE WHEN part.is_identity THEN 'identity' ELSE 'profile' END,
                   CASE WHEN part.is_identity
                        THEN jsonb_build_object('old', edit.email_before, 'new', edit.email_after) END,
                   syncd.actor(), syncd.reason(),
                   CASE WHEN NOT part.is_identity THEN edit.before END,
                   CASE WHEN NOT part.is_identity THEN edit.after END
            FROM (
                SELECT n.account_id, n.id, o.email AS email_before, n.email AS email_after,
                       ARRAY[o.first_name, o.suffix, o.last_name, o.gender, o.type, o.customer] AS before,
                       ARRAY[n.first_name, n.suffix, n.last_name, n.gender, n.type, n.customer] AS after
                FROM before o FULL JOIN after n ON n.id = o.id
                OFFSET 0 -- keeps the planner from making the arrays again for every use
            ) AS edit
            CROSS JOIN (VALUES (true), (false)) AS part (is_identity)
            WHERE CASE WHEN part.is_identity THEN edit.email_before IS DISTINCT FROM edit.email_after
                       ELSE edit.before <> edit.after END;
            RETURN NULL;
    END;
    SELECT n.account_id, n.id, n.email, ARRAY[n.first_name, n.suffix, n.last_name, n.gender, n.type, n.customer]
    INTO account, relation, email_after, profile_after FROM after n;
    IF email_before IS DISTINCT FROM email_after THEN
        INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
        VALUES (account, relation, 'change_email', 'identity',
                jsonb_build_object('old', email_before, 'new', email_after), syncd.actor(), syncd.reason());
    END IF;
    IF profile_before <> profile_after THEN
        INSERT INTO syncd.captures (account_id, relation_id, operation, facet, actor, reason, before, after)
        VALUES (account, relation, 'update_profile', 'profile', syncd.actor(), syncd.reason(),
                profile_before, profile_after);
    END IF;
    RETURN NULL;
END
$$;

-- relation_tags and group_members ----------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION syncd.capture_relation_tags() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, actor, reason, after)
    SELECT t.account_id, e.relation_id, TG_ARGV[0], 'tag:' || e.tag_id, syncd.actor(), syncd.reason(),
           ARRAY[t.remote_id, t.name]
    FROM edited e
    CROSS JOIN LATERAL (SELECT account_id, remote_id, name FROM crm.tags WHERE id = e.tag_id LIMIT 1) AS t;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION syncd.capture_group_members() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, actor, reason, after)
    SELECT g.account_id, e.relation_id, TG_ARGV[0], 'group:' || e.group_id, syncd.actor(), syncd.reason(),
           ARRAY[g.remote_id, g.title]
    FROM edited e
    CROSS JOIN LATERAL (SELECT account_id, remote_id, title FROM crm.groups WHERE id = e.group_id LIMIT 1) AS g;
    RETURN NULL;
END
$$;

-- relation_fields --------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION syncd.capture_field_insert() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, actor, reason, after)
    SELECT f.account_id, n.relation_id, 'set_field', 'field:' || n.field_id, syncd.actor(), syncd.reason(),
           ARRAY[n.value, f.code]
    FROM inserted n
    CROSS JOIN LATERAL (SELECT account_id, code FROM crm.fields WHERE id = n.field_id LIMIT 1) AS f
    WHERE n.value IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION syncd.capture_field_update() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation bigint;
    field bigint;
    value_before text;
    value_after text;
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    BEGIN
        SELECT o.value INTO STRICT value_before FROM before o;
    EXCEPTION
        WHEN no_data_found THEN
            RETURN NULL;
        WHEN too_many_rows THEN
            INSERT INTO syncd.captures (account_id, relation_id, operation, facet, actor, reason, before, after)
            SELECT f.account_id, edit.relation_id, 'set_field', 'field:' || edit.field_id,
                   syncd.actor(), syncd.reason(), ARRAY[edit.before], ARRAY[edit.after, f.code]
            FROM (
                SELECT n.relation_id, n.field_id, o.value AS before, n.value AS after
                FROM before o FULL JOIN after n ON n.relation_id = o.relation_id AND n.field_id = o.field_id
                WHERE o.value IS DISTINCT FROM n.value
            ) AS edit
            CROSS JOIN LATERAL (SELECT account_id, code FROM crm.fields WHERE id = edit.field_id LIMIT 1) AS f;
            RETURN NULL;
    END;
    SELECT n.relation_id, n.field_id, n.value INTO relation, field, value_after FROM after n;
    IF value_before IS DISTINCT FROM value_after THEN
        INSERT INTO syncd.captures (account_id, relation_id, operation, facet, actor, reason, before, after)
        SELECT f.account_id, relation, 'set_field', 'field:' || field, syncd.actor(), syncd.reason(),
               ARRAY[value_before], ARRAY[value_after, f.code]
        FROM crm.fields f WHERE f.id = field;
    END IF;
    RETURN NULL;
END
$$;

-- History ----------------------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW crm.history AS
    SELECT c.id, c.account_id, c.table_name, c.row_id, c.link_id, c.kind, c.origin, c.run_id, c.entry_id,
           CASE WHEN c.kind = 'missing' THEN COALESCE(c.before, '{"missing_since": null}') ELSE c.before END AS before,
           c.after, c.changed_at
    FROM syncd.changes c
    UNION ALL
    SELECT NULL, e.account_id, edit.table_name, e.relation_id, edit.link_id, edit.kind, 'edit', NULL, NULL,
           edit.before, edit.after, e.captured_at
    FROM syncd.captures e
    CROSS JOIN LATERAL syncd.edit_of(
        e.operation, syncd.payload_of(e.operation, e.facet, e.payload, e.before, e.after)) AS edit
    WHERE e.relation_id IS NOT NULL;

-- The view's functions are called by whoever reads it: who could, still can.
DO $$
DECLARE
    reader text;
BEGIN
    FOR reader IN
        SELECT DISTINCT pg_get_userbyid(a.grantee)
        FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.oid = 'syncd.edit_of(text, jsonb)'::regprocedure AND a.grantee NOT IN (0, p.proowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION syncd.payload_of(text, text, jsonb, text[], text[]) TO %I', reader);
    END LOOP;
END
$$;
