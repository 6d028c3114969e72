-- Guards: an edit that cannot reach the CRM is refused where it is made, with the right way in the hint.
--
-- All but TRUNCATE let syncd's own writes pass (syncd.origin = 'remote', set for one transaction). Nothing here reads
-- more than it must: refusals are row triggers on the columns concerned, whose WHEN is not even looked at by other
-- updates, or statement triggers; only new relations and link rows are looked up, as the owner of the schema.
--
-- SQLSTATE  meaning
-- SY001     TRUNCATE of a mirrored table
-- SY002     the table is written by syncd alone
-- SY003     the column is written by syncd alone
-- SY004     a relation cannot be deleted through the CRM's API
-- SY005     the e-mail address is missing or malformed
-- SY006     another relation of the account has this e-mail address
-- SY007     the CRM does not accept this value
-- SY008     the field cannot be written through the API
-- SY009     the link joins rows of two accounts
-- SY010     the thing is gone in the CRM
-- SY011     which account is meant cannot be told
-- SY012     link and value rows: this verb does not exist for them
-- SY013     no relation, tag, group, list, field or subscription of that name   (functions)
-- SY014     several of that name                                               (functions)
-- SY015     an argument is missing or malformed                                (functions)

-- TRUNCATE ------------------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.guard_truncate() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of crm.% is refused: row by row changes are what syncd tells the CRM', TG_TABLE_NAME
        USING ERRCODE = 'SY001', SCHEMA = 'crm', TABLE = TG_TABLE_NAME,
              HINT = CASE WHEN TG_TABLE_NAME IN ('relation_tags', 'group_members')
                  THEN format('DELETE FROM crm.%s takes rows away in the CRM too. ', TG_TABLE_NAME) ELSE '' END
                  || 'To read everything anew run `syncd backfill`; to start over, migrate an empty database.';
END
$$;

DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'crm' LOOP
        EXECUTE format('CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON crm.%I
            FOR EACH STATEMENT EXECUTE FUNCTION syncd.guard_truncate()', name);
    END LOOP;
END
$$;

-- Tables that syncd alone writes --------------------------------------------------------------------------------------

CREATE FUNCTION syncd.guard_table() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on crm.% is refused: syncd alone writes this table', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'SY002', SCHEMA = 'crm', TABLE = TG_TABLE_NAME, HINT = TG_ARGV[0];
END
$$;

DO $$
DECLARE name text; hint text;
BEGIN
    FOR name, hint IN VALUES
        ('accounts', 'Accounts come from the settings: name one with SYNCD_ACCOUNT and run `syncd pull`.'),
        ('tags', 'The API cannot create or change tags: do it in the CRM, then run `syncd pull tags`.'),
        ('fields', 'Create a field with SELECT crm.create_field(name, label, type); '
                   'change one in the CRM, then run `syncd pull fields`.'),
        ('groups', 'The API cannot create or change groups: do it in the CRM, then run `syncd pull groups`.'),
        ('lists', 'The API cannot create or change lists: do it in the CRM, then run `syncd pull lists`.'),
        ('list_subscriptions', 'Call crm.subscribe(email, list), crm.subscribe_with_consent(...) or '
                               'crm.unsubscribe(email, list, reason).'),
        ('orders', 'Orders are made in the CRM and only read here; `syncd pull orders` reads them anew.'),
        ('order_lines', 'Orders are made in the CRM and only read here; '
                        'end a subscription with crm.end_subscription(subscription_id, ends_on).'),
        ('invoices', 'Invoices are made in the CRM and only read here; `syncd pull invoices` reads them anew.'),
        ('invoice_lines', 'Invoices are made in the CRM and only read here; `syncd pull invoices` reads them anew.'),
        ('invoice_files', 'Invoices are made in the CRM and only read here; `syncd pull invoices` reads them anew.')
    LOOP
        EXECUTE format('CREATE TRIGGER guard_table BEFORE INSERT OR UPDATE OR DELETE ON crm.%I FOR EACH STATEMENT
            WHEN (current_setting(''syncd.origin'', true) IS DISTINCT FROM ''remote'')
            EXECUTE FUNCTION syncd.guard_table(%L)', name, hint);
    END LOOP;
END
$$;

-- Values of a relation ------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.is_email(email text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT email ~ '^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$' AND pg_catalog.length(email) <= 254
$$;

CREATE FUNCTION syncd.refuse_email(email text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'crm.relations.email: %', CASE WHEN email IS NULL
            THEN 'a relation cannot be without an e-mail address: the CRM knows it by that'
            ELSE format('%L is not an e-mail address', email) END
        USING ERRCODE = 'SY005', SCHEMA = 'crm', TABLE = 'relations', COLUMN = 'email',
              HINT = 'Write one address as name@domain: one @, no spaces, no control characters, at most 254 long.';
END
$$;

-- Refuses an address that another living relation of the account has, whatever the case of its letters.
CREATE FUNCTION syncd.guard_email_is_free(account_id bigint, relation_id bigint, email text, advice text)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE holder bigint;
BEGIN
    SELECT r.id INTO holder FROM crm.relations r
    WHERE r.account_id = guard_email_is_free.account_id AND lower(r.email) = lower(guard_email_is_free.email)
      AND r.id <> guard_email_is_free.relation_id AND r.missing_since IS NULL
    ORDER BY r.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'crm.relations.email: relation % of this account has the address % already', holder, email
            USING ERRCODE = 'SY006', SCHEMA = 'crm', TABLE = 'relations', COLUMN = 'email',
                  HINT = format(advice, holder);
    END IF;
END
$$;

CREATE FUNCTION syncd.guard_profile(gender text, type text, customer text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE refused text; hint text;
BEGIN
    CASE
        WHEN gender NOT IN ('M', 'F', '-') THEN refused := 'gender'; hint := 'Write M, F, - (unspecified) or null.';
        WHEN length(type) > 1 THEN refused := 'type'; hint := 'Write one character, as defined in your CRM, or null.';
        WHEN customer NOT IN ('y', 'n') THEN refused := 'customer'; hint := 'Write y or n, or null.';
        ELSE RETURN;
    END CASE;
    RAISE EXCEPTION 'crm.relations.%: the CRM does not accept %', refused,
            quote_literal(CASE refused WHEN 'gender' THEN gender WHEN 'type' THEN type ELSE customer END)
        USING ERRCODE = 'SY007', SCHEMA = 'crm', TABLE = 'relations', COLUMN = refused, HINT = hint;
END
$$;

-- New relations -------------------------------------------------------------------------------------------------------

-- Fills account_id when there is one account only.
CREATE FUNCTION syncd.only_account() RETURNS bigint LANGUAGE plpgsql STABLE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE ids bigint[]; names text;
BEGIN
    SELECT array_agg(id), string_agg(quote_literal(name), ', ' ORDER BY name) INTO ids, names FROM crm.accounts;
    IF cardinality(ids) = 1 THEN
        RETURN ids[1];
    END IF;
    RAISE EXCEPTION 'which account is meant? %', CASE WHEN ids IS NULL THEN 'none is known yet'
            ELSE format('there are %s: %s', cardinality(ids), names) END
        USING ERRCODE = 'SY011', SCHEMA = 'crm', TABLE = 'accounts',
              HINT = CASE WHEN ids IS NULL THEN 'Run `syncd pull` once: it writes the account of the settings.'
                     ELSE 'Name it: account_id in an INSERT, the last argument (account) of a function.' END;
END
$$;

CREATE FUNCTION syncd.guard_relation_insert() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE given text;
BEGIN
    given := CASE
        WHEN NEW.remote_id IS NOT NULL THEN 'remote_id'
        WHEN NEW.funnel_state IS NOT NULL THEN 'funnel_state'
        WHEN NEW.raw IS NOT NULL THEN 'raw'
        WHEN NEW.content_hash IS NOT NULL THEN 'content_hash'
        WHEN NEW.missing_since IS NOT NULL THEN 'missing_since'
        WHEN NEW.detail_at IS NOT NULL THEN 'detail_at'
    END;
    IF given IS NOT NULL THEN
        RAISE EXCEPTION 'crm.relations.% cannot be given: syncd fills it from the CRM''s answers', given
            USING ERRCODE = 'SY003', SCHEMA = 'crm', TABLE = 'relations', COLUMN = given,
                  HINT = 'Leave it out: give email and what is known of first_name, suffix, last_name, gender, type, '
                         'customer.';
    END IF;
    NEW.account_id := COALESCE(NEW.account_id, syncd.only_account());
    IF syncd.is_email(NEW.email) IS NOT TRUE THEN
        PERFORM syncd.refuse_email(NEW.email);
    END IF;
    PERFORM syncd.guard_profile(NEW.gender, NEW.type, NEW.customer);
    PERFORM syncd.guard_email_is_free(NEW.account_id, NEW.id, NEW.email,
        'It exists: UPDATE crm.relations SET ... WHERE id = %s.');
    RETURN NEW;
END
$$;

CREATE TRIGGER guard_insert BEFORE INSERT ON crm.relations
    FOR EACH ROW WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote')
    EXECUTE FUNCTION syncd.guard_relation_insert();

-- Edited relations (AFTER, because any row trigger BEFORE would lock each row of every update once more) ----------

CREATE FUNCTION syncd.guard_relation_columns() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE edited text;
BEGIN
    SELECT string_agg(o.key, ', ' ORDER BY o.key) INTO edited
    FROM jsonb_each(to_jsonb(OLD)) o JOIN jsonb_each(to_jsonb(NEW)) n ON n.key = o.key AND n.value <> o.value
    WHERE o.key NOT IN ('email', 'first_name', 'suffix', 'last_name', 'gender', 'type', 'customer');
    RAISE EXCEPTION 'crm.relations: % cannot be edited: syncd fills it from the CRM''s answers', edited
        USING ERRCODE = 'SY003', SCHEMA = 'crm', TABLE = 'relations', COLUMN = edited,
              HINT = 'Editable are email, first_name, suffix, last_name, gender, type and customer.';
END
$$;

CREATE TRIGGER guard_columns
    AFTER UPDATE OF id, account_id, remote_id, funnel_state, raw, content_hash, first_seen_at, last_seen_at, changed_at,
                    missing_since, detail_at ON crm.relations
    FOR EACH ROW WHEN (
        current_setting('syncd.origin', true) IS DISTINCT FROM 'remote'
        AND (OLD.id, OLD.account_id, OLD.remote_id, OLD.funnel_state, OLD.raw, OLD.content_hash, OLD.first_seen_at,
             OLD.last_seen_at, OLD.changed_at, OLD.missing_since, OLD.detail_at)
        IS DISTINCT FROM (NEW.id, NEW.account_id, NEW.remote_id, NEW.funnel_state, NEW.raw, NEW.content_hash,
             NEW.first_seen_at, NEW.last_seen_at, NEW.changed_at, NEW.missing_since, NEW.detail_at))
    EXECUTE FUNCTION syncd.guard_relation_columns();

CREATE FUNCTION syncd.guard_relation_email() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF syncd.is_email(NEW.email) IS NOT TRUE THEN
        PERFORM syncd.refuse_email(NEW.email);
    END IF;
    PERFORM syncd.guard_email_is_free(NEW.account_id, NEW.id, NEW.email,
        'The API cannot merge two relations: merge this one and relation %s in the CRM, or choose another address.');
    RETURN NULL;
END
$$;

CREATE TRIGGER guard_email AFTER UPDATE OF email ON crm.relations
    FOR EACH ROW WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote'
                       AND OLD.email IS DISTINCT FROM NEW.email)
    EXECUTE FUNCTION syncd.guard_relation_email();

CREATE FUNCTION syncd.guard_relation_profile() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM syncd.guard_profile(NULLIF(NEW.gender, OLD.gender), NULLIF(NEW.type, OLD.type),
                                NULLIF(NEW.customer, OLD.customer));
    RETURN NULL;
END
$$;

CREATE TRIGGER guard_profile AFTER UPDATE OF gender, type, customer ON crm.relations
    FOR EACH ROW WHEN (
        current_setting('syncd.origin', true) IS DISTINCT FROM 'remote'
        AND (OLD.gender, OLD.type, OLD.customer) IS DISTINCT FROM (NEW.gender, NEW.type, NEW.customer))
    EXECUTE FUNCTION syncd.guard_relation_profile();

CREATE FUNCTION syncd.guard_relation_delete() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'DELETE on crm.relations is refused: the CRM cannot delete a relation through its API'
        USING ERRCODE = 'SY004', SCHEMA = 'crm', TABLE = 'relations',
              HINT = 'Delete it in the CRM; a pull then marks it with missing_since.';
END
$$;

CREATE TRIGGER guard_delete BEFORE DELETE ON crm.relations
    FOR EACH STATEMENT WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote')
    EXECUTE FUNCTION syncd.guard_relation_delete();

-- Links and values: verbs that do not exist ---------------------------------------------------------------------------

CREATE FUNCTION syncd.guard_verb() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on crm.% is refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'SY012', SCHEMA = 'crm', TABLE = TG_TABLE_NAME, HINT = TG_ARGV[1];
END
$$;

CREATE TRIGGER guard_update BEFORE UPDATE ON crm.relation_tags
    FOR EACH STATEMENT WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote')
    EXECUTE FUNCTION syncd.guard_verb('a relation has a tag or has it not',
        'DELETE the row and INSERT another; to add what may be there already write ON CONFLICT DO NOTHING.');

CREATE TRIGGER guard_update BEFORE UPDATE ON crm.group_members
    FOR EACH STATEMENT WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote')
    EXECUTE FUNCTION syncd.guard_verb('a relation is in a group or is not',
        'DELETE the row and INSERT another; to add what may be there already write ON CONFLICT DO NOTHING.');

CREATE TRIGGER guard_update BEFORE UPDATE OF relation_id, field_id, first_seen_at, last_seen_at ON crm.relation_fields
    FOR EACH STATEMENT WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote')
    EXECUTE FUNCTION syncd.guard_verb('only the column value can be edited',
        'UPDATE crm.relation_fields SET value = ... or INSERT a row for the other relation or field.');

CREATE TRIGGER guard_delete BEFORE DELETE ON crm.relation_fields
    FOR EACH STATEMENT WHEN (current_setting('syncd.origin', true) IS DISTINCT FROM 'remote')
    EXECUTE FUNCTION syncd.guard_verb('the CRM cannot take a field away from a relation',
        'Empty it: UPDATE crm.relation_fields SET value = '''' WHERE ...');

-- Links and values: what they may say ---------------------------------------------------------------------------------

CREATE FUNCTION syncd.refuse_link(table_name text, relation_id bigint, kind text, other_id bigint, title text,
                                  is_foreign boolean, gone_since timestamptz)
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF is_foreign THEN
        RAISE EXCEPTION 'crm.%: relation % and % % (%) belong to different accounts',
                table_name, relation_id, kind, other_id, title
            USING ERRCODE = 'SY009', SCHEMA = 'crm', TABLE = table_name, COLUMN = kind || '_id',
                  HINT = format('Choose the %s by account_id: the account of relation %s.', kind, relation_id);
    END IF;
    RAISE EXCEPTION 'crm.%: % % (%) is gone in the CRM since %', table_name, kind, other_id, title, gone_since
        USING ERRCODE = 'SY010', SCHEMA = 'crm', TABLE = table_name, COLUMN = kind || '_id',
              HINT = format('Choose a %s with missing_since null, or make it in the CRM anew and run `syncd pull %ss`.',
                            kind, kind);
END
$$;

CREATE FUNCTION syncd.guard_relation_tags() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    PERFORM syncd.refuse_link('relation_tags', n.relation_id, 'tag', n.tag_id, t.name,
                              t.account_id <> r.account_id, t.missing_since)
    FROM inserted n
    CROSS JOIN LATERAL (SELECT account_id FROM crm.relations WHERE id = n.relation_id LIMIT 1) AS r
    CROSS JOIN LATERAL (SELECT account_id, name, missing_since FROM crm.tags WHERE id = n.tag_id LIMIT 1) AS t
    WHERE t.account_id <> r.account_id OR t.missing_since IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER guard_insert AFTER INSERT ON crm.relation_tags REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.guard_relation_tags();

CREATE FUNCTION syncd.guard_group_members() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    PERFORM syncd.refuse_link('group_members', n.relation_id, 'group', n.group_id, g.title,
                              g.account_id <> r.account_id, g.missing_since)
    FROM inserted n
    CROSS JOIN LATERAL (SELECT account_id FROM crm.relations WHERE id = n.relation_id LIMIT 1) AS r
    CROSS JOIN LATERAL (SELECT account_id, title, missing_since FROM crm.groups WHERE id = n.group_id LIMIT 1) AS g
    WHERE g.account_id <> r.account_id OR g.missing_since IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE TRIGGER guard_insert AFTER INSERT ON crm.group_members REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.guard_group_members();

CREATE FUNCTION syncd.refuse_value(code text, value text, type text, options text[], is_writable boolean)
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT is_writable THEN
        RAISE EXCEPTION 'crm.relation_fields: field % cannot be written through the API', code
            USING ERRCODE = 'SY008', SCHEMA = 'crm', TABLE = 'relation_fields', COLUMN = 'field_id',
                  HINT = 'It is one of the CRM''s own: edit e-mail and names in crm.relations, the rest in the CRM.';
    END IF;
    RAISE EXCEPTION 'crm.relation_fields.value: field % does not accept %', code, quote_literal(value)
        USING ERRCODE = 'SY007', SCHEMA = 'crm', TABLE = 'relation_fields', COLUMN = 'value',
              HINT = CASE type WHEN 'boolean' THEN 'Write true or false, or an empty text to clear it.'
                     ELSE format('Write one of its options (%s), or an empty text to clear it.',
                                 array_to_string(options, ', ')) END;
END
$$;

-- An empty value clears a field of any type. Options are checked only where the CRM names them.
CREATE FUNCTION syncd.guard_relation_fields() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('syncd.origin', true) = 'remote' THEN
        RETURN NULL;
    END IF;
    PERFORM CASE WHEN f.account_id <> r.account_id OR f.missing_since IS NOT NULL
        THEN syncd.refuse_link('relation_fields', w.relation_id, 'field', w.field_id, f.code,
                               f.account_id <> r.account_id, f.missing_since)
        ELSE syncd.refuse_value(f.code, w.value, f.type, f.options, f.is_writable) END
    FROM written w
    CROSS JOIN LATERAL (SELECT account_id FROM crm.relations WHERE id = w.relation_id LIMIT 1) AS r
    CROSS JOIN LATERAL (SELECT account_id, missing_since, code, lower(type) AS type, options, is_writable
                        FROM crm.fields WHERE id = w.field_id LIMIT 1) AS f
    WHERE f.account_id <> r.account_id OR f.missing_since IS NOT NULL OR NOT f.is_writable
       OR (w.value <> '' AND f.type = 'boolean' AND w.value NOT IN ('true', 'false'))
       OR (w.value <> '' AND f.type = 'list' AND cardinality(f.options) > 0 AND w.value <> ALL (f.options));
    RETURN NULL;
END
$$;

CREATE TRIGGER guard_insert AFTER INSERT ON crm.relation_fields REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.guard_relation_fields();

CREATE TRIGGER guard_values AFTER UPDATE ON crm.relation_fields REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION syncd.guard_relation_fields();
