-- History: every change of the mirror, what the tables held at an instant, and a feed that no late commit slips through.
--
-- syncd.changes has one row per change and origin:
--
--   remote  a pull, or an answer of the CRM to a delivery, changed the mirror (run_id, or entry_id of the delivery)
--   edit    an application edited the mirror; written when its capture is staged, dated when it was captured
--   local   a change was delivered to the CRM: the CRM's change, not the mirror's
--
-- An insert carries no values: the row's first version follows from what came after it, and its first_seen_at tells
-- since when it is there. So the first load of a million rows costs a million short rows, and no copies of them.
--
-- What the tables held at an instant is what they hold now with all later changes undone (remote and edit; a delivery
-- changes nothing here). For one row that is one look into an index. What no application and no answer speaks of is not
-- undone: see the comments of the functions. A change counts from when it was written, a new row from the beginning of
-- its transaction: for an instant at which a transaction was open, the answer is what it was about to commit.
--
-- SQLSTATE  meaning
-- SY031     the instant lies before what is kept of the history
-- SY032     the cursor of the feed lies before what is kept of it, or is none of this server's

ALTER TABLE syncd.changes DROP CONSTRAINT changes_origin_check;
ALTER TABLE syncd.changes ADD CONSTRAINT changes_origin_check CHECK (origin IN ('remote', 'local', 'edit'));
CREATE INDEX changes_feed_idx ON syncd.changes (xact, id);

-- Since when the history of an account is whole. No row: since its first row.
CREATE TABLE syncd.history_horizons (
    account_id bigint NOT NULL CONSTRAINT history_horizons_pkey PRIMARY KEY
        CONSTRAINT history_horizons_account_id_fkey REFERENCES crm.accounts (id),
    kept_since timestamptz NOT NULL,
    -- where the last row stood in the feed that is not kept any more; null while the feed is whole
    pruned_xact xid8,
    pruned_id bigint
);

-- Edits and links were not written down before this migration: what the tables held then is not to be had.
INSERT INTO syncd.history_horizons (account_id, kept_since) SELECT id, now() FROM crm.accounts;

-- Edits ---------------------------------------------------------------------------------------------------------------

-- What a captured edit changed in which table; no row for calls that edit none. Inlined where it is used.
CREATE FUNCTION syncd.edit_of(operation text, payload jsonb)
    RETURNS TABLE (table_name text, link_id bigint, kind text, before jsonb, after jsonb)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT edit.table_name, edit.link_id, edit.kind, edit.before, edit.after
    FROM (SELECT CASE operation
                WHEN 'create_relation' THEN 'relations' WHEN 'change_email' THEN 'relations'
                WHEN 'update_profile' THEN 'relations' WHEN 'add_tag' THEN 'relation_tags'
                WHEN 'remove_tag' THEN 'relation_tags' WHEN 'join_group' THEN 'group_members'
                WHEN 'leave_group' THEN 'group_members' WHEN 'set_field' THEN 'relation_fields' END AS table_name,
            CASE operation
                WHEN 'add_tag' THEN (payload ->> 'tag_id')::bigint WHEN 'remove_tag' THEN (payload ->> 'tag_id')::bigint
                WHEN 'join_group' THEN (payload ->> 'group_id')::bigint
                WHEN 'leave_group' THEN (payload ->> 'group_id')::bigint
                WHEN 'set_field' THEN (payload ->> 'field_id')::bigint END AS link_id,
            CASE WHEN operation IN ('create_relation', 'add_tag', 'join_group') THEN 'insert'
                 WHEN operation IN ('remove_tag', 'leave_group') THEN 'delete' ELSE 'update' END AS kind,
            CASE operation
                WHEN 'change_email' THEN jsonb_build_object('email', payload -> 'old')
                WHEN 'update_profile' THEN payload -> 'old'
                WHEN 'set_field' THEN jsonb_build_object('value', payload -> 'old') END AS before,
            CASE operation
                WHEN 'change_email' THEN jsonb_build_object('email', payload -> 'new')
                WHEN 'update_profile' THEN payload -> 'new'
                WHEN 'set_field' THEN jsonb_build_object('value', payload -> 'new') END AS after
    ) AS edit
    WHERE edit.table_name IS NOT NULL
$$;

-- All changes, those captured a moment ago and not yet staged among them.
CREATE VIEW crm.history AS
    SELECT c.id, c.account_id, c.table_name, c.row_id, c.link_id, c.kind, c.origin, c.run_id, c.entry_id,
           CASE WHEN c.kind = 'missing' THEN COALESCE(c.before, '{"missing_since": null}') ELSE c.before END AS before,
           c.after, c.changed_at
    FROM syncd.changes c
    UNION ALL
    SELECT NULL, e.account_id, edit.table_name, e.relation_id, edit.link_id, edit.kind, 'edit', NULL, NULL,
           edit.before, edit.after, e.captured_at
    FROM syncd.captures e CROSS JOIN LATERAL syncd.edit_of(e.operation, e.payload) AS edit
    WHERE e.relation_id IS NOT NULL;

COMMENT ON VIEW crm.history IS 'Every change of the mirror: kind, origin (remote: the CRM; edit: an application; local: delivered to the CRM), before and after. To follow it, call crm.changes_since.';

-- As of ---------------------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.history_reaches(known_at timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE kept timestamptz; whose text;
BEGIN
    SELECT h.kept_since, a.name INTO kept, whose
    FROM syncd.history_horizons h JOIN crm.accounts a ON a.id = h.account_id
    ORDER BY h.kept_since DESC LIMIT 1;
    IF kept > known_at THEN
        RAISE EXCEPTION 'what the mirror held at % is not known any more: the history of account % is kept since %',
                known_at, quote_literal(whose), kept
            USING ERRCODE = 'SY031', HINT = 'Ask for an instant from then on. SYNCD_KEEP_HISTORY_DAYS says how long '
                  'history is kept; what is gone does not come back.';
    END IF;
    RETURN known_at IS NOT NULL;
END
$$;

-- Defines the *_as_of functions anew from the columns that the tables have: a migration that adds a column to one of
-- them calls this at its end. Key columns are passed through as they are, so that a condition on them uses an index.
CREATE PROCEDURE syncd.define_as_of() LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $define$
DECLARE
    one record; chosen text; same text;
    -- What is no part of the history: null as soon as anything of the row has changed since.
    present constant text[] := ARRAY['raw', 'content_hash', 'detail_raw', 'detail_at', 'detail_attempts',
                                     'detail_next_at', 'detail_error'];
BEGIN
    FOR one IN
        SELECT t.name, t.link, t.fixed || ARRAY['account_id', 'first_seen_at'] AS fixed
        FROM (VALUES ('relations', NULL, ARRAY['id']), ('orders', NULL, ARRAY['id', 'remote_id']),
                     ('invoices', NULL, ARRAY['id', 'number', 'is_credit']), ('tags', NULL, ARRAY['id', 'remote_id']),
                     ('fields', NULL, ARRAY['id', 'remote_id']), ('groups', NULL, ARRAY['id', 'remote_id']),
                     ('lists', NULL, ARRAY['id', 'remote_id']),
                     ('relation_fields', 'field_id', ARRAY['relation_id', 'field_id']),
                     ('list_subscriptions', 'list_id', ARRAY['relation_id', 'list_id'])) AS t (name, link, fixed)
    LOOP
        same := format('c.table_name = %L AND c.row_id = r.%I', one.name,
                       CASE WHEN one.link IS NULL THEN 'id' ELSE 'relation_id' END)
            || CASE WHEN one.link IS NULL THEN '' ELSE format(' AND c.link_id = r.%I', one.link) END
            || ' AND c.origin <> ''local''';
        SELECT string_agg(CASE
                WHEN attname = ANY (one.fixed) THEN format('r.%I', attname)
                WHEN attname = ANY (present) THEN format('CASE WHEN o.undone IS NULL THEN r.%I END', attname)
                WHEN attname = 'last_seen_at' THEN 'LEAST(r.last_seen_at, known_at)'
                WHEN attname = 'changed_at' THEN format('CASE WHEN o.undone IS NULL THEN r.changed_at '
                    'ELSE GREATEST(r.first_seen_at, (SELECT max(c.changed_at) FROM crm.history c '
                    'WHERE %s AND c.changed_at <= known_at AND c.origin <> ''edit'')) END', same)
                ELSE format('p.%I', attname) END, ', ' ORDER BY attnum)
        INTO chosen
        FROM pg_attribute
        WHERE attrelid = format('crm.%I', one.name)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION crm.%1$I(known_at timestamptz) RETURNS SETOF crm.%2$I
                LANGUAGE sql STABLE AS $as_of$
                SELECT %3$s
                FROM crm.%2$I r
                CROSS JOIN LATERAL (
                    SELECT jsonb_object_agg(e.key, e.value ORDER BY c.changed_at DESC, c.id DESC) AS undone
                    FROM crm.history c CROSS JOIN LATERAL jsonb_each(c.before) AS e
                    WHERE %4$s AND c.changed_at > known_at) AS o
                CROSS JOIN LATERAL jsonb_populate_record(r, o.undone) AS p
                WHERE r.first_seen_at <= known_at AND syncd.history_reaches(known_at)
            $as_of$ $f$, one.name || '_as_of', one.name, chosen, same);
        EXECUTE format('COMMENT ON FUNCTION crm.%I(timestamptz) IS %L', one.name || '_as_of', format(
            'crm.%s as it was known at that instant. last_seen_at is not kept exactly; raw, content_hash and how a '
            'detail was fetched are null in rows that have changed since.', one.name));
    END LOOP;

    FOR one IN
        SELECT * FROM (VALUES ('order_lines', 'orders', 'order_id'), ('invoice_lines', 'invoices', 'invoice_id'))
            AS t (name, parent, key)
    LOOP
        SELECT string_agg(CASE WHEN attname = one.key THEN 'o.id' ELSE format('l.%I', attname) END, ', ' ORDER BY attnum)
        INTO chosen
        FROM pg_attribute
        WHERE attrelid = format('crm.%I', one.name)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION crm.%1$I(known_at timestamptz) RETURNS SETOF crm.%2$I
                LANGUAGE sql STABLE AS $as_of$
                SELECT %3$s
                FROM crm.%4$I o
                CROSS JOIN LATERAL (
                    SELECT (SELECT c.before -> 'lines' FROM crm.history c
                            WHERE c.table_name = %4$L AND c.row_id = o.id AND c.changed_at > known_at
                              AND c.before ? 'lines'
                            ORDER BY c.changed_at, c.id LIMIT 1) AS lines) AS h
                CROSS JOIN LATERAL (
                    SELECT now_.* FROM crm.%2$I now_ WHERE now_.%5$I = o.id AND h.lines IS NULL
                    UNION ALL
                    SELECT then_.* FROM jsonb_array_elements(h.lines) WITH ORDINALITY AS e (line, n)
                    CROSS JOIN LATERAL jsonb_populate_record(
                        NULL::crm.%2$I, e.line || jsonb_build_object(%5$L, o.id, 'position', e.n - 1)) AS then_
                ) AS l
                WHERE o.first_seen_at <= known_at AND syncd.history_reaches(known_at)
            $as_of$ $f$, one.name || '_as_of', one.name, chosen, one.parent, one.key);
        EXECUTE format('COMMENT ON FUNCTION crm.%I(timestamptz) IS %L', one.name || '_as_of',
                       format('crm.%s as they were known at that instant.', one.name));
    END LOOP;

    FOR one IN SELECT * FROM (VALUES ('relation_tags', 'tag_id'), ('group_members', 'group_id')) AS t (name, link) LOOP
        same := format('c.table_name = %L AND c.row_id = k.relation_id AND c.link_id = k.%I AND c.origin <> ''local''',
                       one.name, one.link);
        SELECT string_agg(CASE
                WHEN attname = 'first_seen_at' THEN format('COALESCE((f.before ->> ''first_seen_at'')::timestamptz, '
                    'CASE WHEN r.first_seen_at <= known_at THEN r.first_seen_at END, (SELECT max(c.changed_at) '
                    'FROM crm.history c WHERE %s AND c.kind = ''insert'' AND c.changed_at <= known_at))', same)
                WHEN attname = 'last_seen_at'
                    THEN 'LEAST(COALESCE((f.before ->> ''last_seen_at'')::timestamptz, r.last_seen_at), known_at)'
                WHEN attname = 'missing_since' THEN 'CASE WHEN f.kind IS NULL THEN r.missing_since '
                    'ELSE (f.before ->> ''missing_since'')::timestamptz END'
                WHEN attname IN ('relation_id', one.link) THEN format('k.%I', attname)
                ELSE format('r.%I', attname) END, ', ' ORDER BY attnum)
        INTO chosen
        FROM pg_attribute
        WHERE attrelid = format('crm.%I', one.name)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION crm.%1$I(known_at timestamptz) RETURNS SETOF crm.%2$I
                LANGUAGE sql STABLE AS $as_of$
                SELECT %3$s
                FROM (SELECT relation_id, %4$I FROM crm.%2$I
                      UNION
                      SELECT c.row_id, c.link_id FROM crm.history c
                      WHERE c.table_name = %2$L AND c.kind = 'delete' AND c.origin <> 'local' AND c.changed_at > known_at
                ) AS k
                LEFT JOIN crm.%2$I r ON r.relation_id = k.relation_id AND r.%4$I = k.%4$I
                LEFT JOIN LATERAL (
                    SELECT c.kind, c.before FROM crm.history c
                    WHERE %5$s AND c.changed_at > known_at
                    ORDER BY c.changed_at, c.id LIMIT 1) AS f ON true
                WHERE syncd.history_reaches(known_at)
                  AND CASE WHEN f.kind IS NULL THEN r.first_seen_at <= known_at ELSE f.kind <> 'insert' END
            $as_of$ $f$, one.name || '_as_of', one.name, chosen, one.link, same);
        EXECUTE format('COMMENT ON FUNCTION crm.%I(timestamptz) IS %L', one.name || '_as_of', format(
            'crm.%s as they were known at that instant; last_seen_at is not kept exactly.', one.name));
    END LOOP;
END
$define$;

CALL syncd.define_as_of();

-- The feed ------------------------------------------------------------------------------------------------------------

-- Ids are taken before commit, so "id greater than the last one" skips for ever what commits late. The feed is ordered
-- by transaction instead, and shows only transactions below the snapshot's horizon: all of those have ended, so nothing
-- can come in among what was shown. A transaction that stays open holds the feed back, and never tears it.
CREATE FUNCTION crm.changes_since(since text DEFAULT NULL, max_rows integer DEFAULT 1000)
    RETURNS TABLE (next_cursor text, account_id bigint, table_name text, row_id bigint, link_id bigint, kind text,
                   origin text, run_id bigint, entry_id bigint, before jsonb, after jsonb, changed_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    from_xact xid8 := '0'; from_id bigint := 0;
BEGIN
    IF since IS NOT NULL THEN
        IF since !~ '^[0-9]{1,19}:[0-9]{1,18}$' THEN
            RAISE EXCEPTION 'no cursor of this feed: %', quote_literal(since)
                USING ERRCODE = 'SY032', HINT = 'Give the next_cursor of the last row you have seen, or null to begin.';
        END IF;
        from_xact := split_part(since, ':', 1)::xid8;
        from_id := split_part(since, ':', 2)::bigint;
        PERFORM syncd.refuse_lost_cursor(from_xact, from_id);
    END IF;
    IF EXISTS (SELECT FROM syncd.changes c WHERE c.xact >= pg_snapshot_xmax(pg_current_snapshot())
                                             AND c.xact <> COALESCE(pg_current_xact_id_if_assigned(), '0')) THEN
        RAISE EXCEPTION 'the history holds rows of another server: this database was restored or moved here'
            USING ERRCODE = 'SY032', HINT = 'Run CALL syncd.settle_in() once as the owner of schema syncd, then begin '
                  'the feed anew: read the tables, and go on from crm.changes_head().';
    END IF;
    RETURN QUERY
        SELECT c.xact::text || ':' || c.id, c.account_id, c.table_name, c.row_id, c.link_id, c.kind, c.origin, c.run_id,
               c.entry_id, c.before, c.after, c.changed_at
        FROM syncd.changes c
        WHERE (c.xact, c.id) > (from_xact, from_id) AND c.xact < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY c.xact, c.id
        LIMIT LEAST(GREATEST(max_rows, 0), 100000);
END
$$;

CREATE FUNCTION syncd.refuse_lost_cursor(at_xact xid8, at_id bigint) RETURNS void LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF at_xact >= pg_snapshot_xmax(pg_current_snapshot()) THEN
        RAISE EXCEPTION 'the cursor is of another server, or of one that was set back since'
            USING ERRCODE = 'SY032', HINT = 'Read the tables anew and go on from crm.changes_head().';
    END IF;
    IF EXISTS (SELECT FROM syncd.history_horizons h WHERE (h.pruned_xact, h.pruned_id) > (at_xact, at_id)) THEN
        RAISE EXCEPTION 'changes after this cursor are not kept any more'
            USING ERRCODE = 'SY032', HINT = 'Read the tables anew and go on from crm.changes_head(); '
                  'SYNCD_KEEP_HISTORY_DAYS says how long a consumer may be away.';
    END IF;
END
$$;

CREATE FUNCTION crm.changes_head() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::numeric - 1)::text || ':' || '999999999999999999'
$$;

-- Transaction numbers belong to one server. After a restore or a move the old ones lie in the future of the new server:
-- they are replaced by this transaction's, which keeps the order of the rows.
CREATE PROCEDURE syncd.settle_in() LANGUAGE sql AS $$
    UPDATE syncd.changes SET xact = pg_current_xact_id() WHERE xact >= pg_snapshot_xmax(pg_current_snapshot());
    UPDATE syncd.history_horizons SET pruned_xact = NULL, pruned_id = NULL
    WHERE pruned_xact >= pg_snapshot_xmax(pg_current_snapshot())
$$;

COMMENT ON TABLE syncd.changes IS 'The history: one row per change of the mirror (remote, edit) or of the CRM (local), with before and after.';
COMMENT ON TABLE syncd.history_horizons IS 'Since when the history of an account is whole.';
COMMENT ON FUNCTION syncd.edit_of(text, jsonb) IS 'Which row of which table a captured edit changed, and how.';
COMMENT ON FUNCTION syncd.history_reaches(timestamptz) IS 'True when the history is whole since that instant; else an error that says since when it is.';
COMMENT ON PROCEDURE syncd.define_as_of() IS 'Defines the *_as_of functions from the columns that the tables have now.';
COMMENT ON FUNCTION crm.changes_since(text, integer) IS 'The changes after a cursor (null: all that is kept), in an order that no late commit upsets. Go on with the last next_cursor; no row means: nothing new yet.';
COMMENT ON FUNCTION crm.changes_head() IS 'The cursor of this moment: take it, then read the tables, then follow crm.changes_since from it.';
COMMENT ON FUNCTION syncd.refuse_lost_cursor(xid8, bigint) IS 'Refuses a cursor after which changes are missing.';
COMMENT ON PROCEDURE syncd.settle_in() IS 'Run once after a restore or a move to another server: gives the history this server''s transaction numbers.';

-- The auditor ---------------------------------------------------------------------------------------------------------

-- When an answer about the row was last written: read_at is when it was last asked for, whatever came of that.
ALTER TABLE syncd.readings ADD COLUMN proven_at timestamptz;

CREATE TABLE syncd.audits (
    account_id bigint NOT NULL CONSTRAINT audits_account_id_fkey REFERENCES crm.accounts (id),
    kind text NOT NULL,
    audited_on date NOT NULL,
    asked bigint NOT NULL,
    equal bigint NOT NULL,
    late bigint NOT NULL,
    wrong bigint NOT NULL,
    waiting bigint NOT NULL,
    vanished bigint NOT NULL,
    unread bigint NOT NULL,
    last_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT audits_pkey PRIMARY KEY (account_id, kind, audited_on)
);

COMMENT ON TABLE syncd.audits IS 'One row per kind of row and day: how many the auditor asked for again, and how they stood.';

-- Functions of crm are for those whom EXECUTE was granted; those of syncd for syncd, and for what the granted ones use.
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA crm, syncd FROM PUBLIC;
