-- Capture: every local edit becomes rows of syncd.captures, in the transaction that makes it.
--
-- One statement-level AFTER trigger per table and verb, over transition tables: one INSERT ... SELECT per statement,
-- however many rows it touches. A capture holds the changed columns only, in the payload shape of
-- syncd/domain/changes.py. captures has no foreign key and no unique index but its own identity, so nothing here takes
-- a lock that another transaction could wait for, and nothing here can deadlock the application (G8).
--
-- Writes of syncd itself run under the transaction-local setting syncd.origin = 'remote' and are not captured. (Asked
-- in the functions: a WHEN clause on the trigger is parsed anew by every statement and costs more.) An application may
-- name who edits and why: see crm.set_actor.
--
-- Plans of these functions are cached per session whatever the size of the first statement was, so their shape must
-- suit one row and a million alike: FULL JOIN of old and new rows can only hash or sort (never compare all with all),
-- and LATERAL ... LIMIT 1 can only look up by key (never read a whole table for one row).
--
-- Nothing is sorted: the rows of one statement are of different facets, or of different relations, so that no order
-- among them is meant, and a sort costs a tenth of a capture.

CREATE FUNCTION syncd.actor() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT COALESCE(NULLIF(pg_catalog.current_setting('syncd.actor', true), ''), session_user::pg_catalog.text)
$$;

CREATE FUNCTION syncd.reason() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT NULLIF(pg_catalog.current_setting('syncd.reason', true), '')
$$;

-- relations --------------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.capture_relation_insert() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT n.account_id, n.id, 'create_relation', 'identity',
           jsonb_build_object('email', n.email, 'profile', jsonb_strip_nulls(jsonb_build_object(
               'first_name', n.first_name, 'suffix', n.suffix, 'last_name', n.last_name,
               'gender', n.gender, 'type', n.type, 'customer', n.customer))),
           syncd.actor(), syncd.reason()
    FROM inserted n;
    RETURN NULL;
END
$$;

CREATE TRIGGER capture_insert AFTER INSERT ON crm.relations REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_relation_insert();

-- An edit of e-mail and names in one statement is two captures: the identity first, because the CRM finds by e-mail.
-- A profile object is built from the pairs of changed columns only; no pair at all makes it null. (Each part of this
-- statement was measured: CASE and array joins cost a third of jsonb_build_object or an aggregate over VALUES.)
CREATE FUNCTION syncd.capture_relation_update() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT edit.account_id, edit.id, change.operation, change.facet, change.payload, syncd.actor(), syncd.reason()
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
        FROM before o FULL JOIN after n ON n.id = o.id
        OFFSET 0 -- keeps the planner from computing the profiles twice
    ) AS edit
    CROSS JOIN LATERAL (
        SELECT 'change_email' AS operation, 'identity' AS facet,
               jsonb_build_object('old', edit.email_before, 'new', edit.email_after) AS payload
        WHERE edit.email_before IS DISTINCT FROM edit.email_after
        UNION ALL
        SELECT 'update_profile', 'profile',
               jsonb_build_object('old', edit.profile_before, 'new', edit.profile_after)
        WHERE edit.profile_after IS NOT NULL
    ) AS change;
    RETURN NULL;
END
$$;

CREATE TRIGGER capture_update AFTER UPDATE ON crm.relations REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_relation_update();

-- relation_tags ----------------------------------------------------------------------------------------------------

-- One function for both verbs: the transition table is called edited in each trigger; the argument is the operation.
CREATE FUNCTION syncd.capture_relation_tags() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT t.account_id, e.relation_id, TG_ARGV[0], 'tag:' || e.tag_id,
           jsonb_build_object('tag_id', e.tag_id, 'tag_remote_id', t.remote_id, 'tag_name', t.name),
           syncd.actor(), syncd.reason()
    FROM edited e
    CROSS JOIN LATERAL (SELECT account_id, remote_id, name FROM crm.tags WHERE id = e.tag_id LIMIT 1) AS t;
    RETURN NULL;
END
$$;

CREATE TRIGGER capture_insert AFTER INSERT ON crm.relation_tags REFERENCING NEW TABLE AS edited
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_relation_tags('add_tag');

CREATE TRIGGER capture_delete AFTER DELETE ON crm.relation_tags REFERENCING OLD TABLE AS edited
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_relation_tags('remove_tag');

-- group_members ----------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.capture_group_members() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT g.account_id, e.relation_id, TG_ARGV[0], 'group:' || e.group_id,
           jsonb_build_object('group_id', e.group_id, 'group_remote_id', g.remote_id, 'group_title', g.title),
           syncd.actor(), syncd.reason()
    FROM edited e
    CROSS JOIN LATERAL (SELECT account_id, remote_id, title FROM crm.groups WHERE id = e.group_id LIMIT 1) AS g;
    RETURN NULL;
END
$$;

CREATE TRIGGER capture_insert AFTER INSERT ON crm.group_members REFERENCING NEW TABLE AS edited
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_group_members('join_group');

CREATE TRIGGER capture_delete AFTER DELETE ON crm.group_members REFERENCING OLD TABLE AS edited
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_group_members('leave_group');

-- relation_fields --------------------------------------------------------------------------------------------------

-- A row inserted with a null value says nothing that the CRM does not know already: nothing is captured.
CREATE FUNCTION syncd.capture_field_insert() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    SELECT f.account_id, n.relation_id, 'set_field', 'field:' || n.field_id,
           jsonb_build_object('field_id', n.field_id, 'code', f.code, 'old', NULL, 'new', n.value),
           syncd.actor(), syncd.reason()
    FROM inserted n
    CROSS JOIN LATERAL (SELECT account_id, code FROM crm.fields WHERE id = n.field_id LIMIT 1) AS f
    WHERE n.value IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER capture_insert AFTER INSERT ON crm.relation_fields REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_field_insert();

CREATE FUNCTION syncd.capture_field_update() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
        FROM before o FULL JOIN after n ON n.relation_id = o.relation_id AND n.field_id = o.field_id
        WHERE o.value IS DISTINCT FROM n.value
    ) AS edit
    CROSS JOIN LATERAL (SELECT account_id, code FROM crm.fields WHERE id = edit.field_id LIMIT 1) AS f;
    RETURN NULL;
END
$$;

CREATE TRIGGER capture_update AFTER UPDATE ON crm.relation_fields REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.capture_field_update();
