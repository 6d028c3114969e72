-- What applications call: edits by e-mail address and name, and calls of the CRM that are no table edits.
--
-- All run as the owner of the schema, because they read names everywhere and (the second kind) write captures; who may
-- call them is decided by EXECUTE alone, which PUBLIC has not. session_user, and so the actor, stays the caller's.
-- Names are compared trimmed, exact first, then without regard to case where that is unique. Nothing is guessed: an
-- unknown or ambiguous name is an error (SY013, SY014 of guards_001.sql) that says what to do.

-- Arguments -----------------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.require(argument text, value text) RETURNS void LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF value IS NULL OR btrim(value) = '' THEN
        RAISE EXCEPTION 'argument % is missing: it is %', argument, CASE WHEN value IS NULL THEN 'null' ELSE 'blank' END
            USING ERRCODE = 'SY015', HINT = format('Give %s a value; \df crm.* shows the arguments.', argument);
    END IF;
END
$$;

CREATE FUNCTION syncd.refuse_argument(argument text, problem text, hint text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'argument %: %', argument, problem USING ERRCODE = 'SY015', HINT = hint;
END
$$;

-- Finding -------------------------------------------------------------------------------------------------------------

CREATE FUNCTION syncd.find_account(account text) RETURNS bigint LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE found_id bigint;
BEGIN
    IF account IS NULL THEN
        RETURN syncd.only_account();
    END IF;
    SELECT id INTO found_id FROM crm.accounts WHERE name = account;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no account %', quote_literal(account)
            USING ERRCODE = 'SY013', HINT = 'SELECT name FROM crm.accounts shows them.';
    END IF;
    RETURN found_id;
END
$$;

-- Relations that are gone in the CRM do not count; they are named when nothing else is found.
CREATE FUNCTION syncd.find_relation(email text, account text, OUT relation_id bigint, OUT account_id bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE accounts bigint[]; living bigint[]; gone bigint[];
BEGIN
    PERFORM syncd.require('email', email);
    accounts := CASE WHEN account IS NULL THEN ARRAY(SELECT a.id FROM crm.accounts a)
                     ELSE ARRAY[syncd.find_account(account)] END;
    SELECT array_agg(r.id ORDER BY r.id) FILTER (WHERE r.missing_since IS NULL), array_agg(r.id ORDER BY r.id)
    INTO living, gone
    FROM crm.relations r
    WHERE r.account_id = ANY (accounts) AND lower(r.email) = lower(btrim(find_relation.email));
    IF cardinality(living) = 1 THEN
        SELECT r.id, r.account_id INTO relation_id, account_id FROM crm.relations r WHERE r.id = living[1];
    ELSIF living IS NOT NULL THEN
        RAISE EXCEPTION 'several relations have the address %: ids %', email, array_to_string(living, ', ')
            USING ERRCODE = 'SY014', HINT = 'Name the account (last argument), or edit the tables by relation id.';
    ELSIF gone IS NOT NULL THEN
        RAISE EXCEPTION 'relation % (%) is gone in the CRM', gone[1], email
            USING ERRCODE = 'SY010', HINT = 'INSERT INTO crm.relations (email, ...) makes it anew.';
    ELSE
        RAISE EXCEPTION 'there is no relation with the address %', email
            USING ERRCODE = 'SY013',
                  HINT = 'INSERT INTO crm.relations (email, ...) first; in the same transaction if you like.';
    END IF;
END
$$;

-- Chooses among rows whose names match without regard to case; titles hold what matched of each row.
CREATE FUNCTION syncd.choose(kind text, wanted text, ids bigint[], titles text[], remote_ids text[], by_id text)
    RETURNS bigint LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE exact bigint[];
BEGIN
    exact := ARRAY(SELECT u.id FROM unnest(ids, titles) AS u (id, title) WHERE btrim(u.title) = btrim(wanted));
    IF cardinality(exact) = 1 THEN
        RETURN exact[1];
    ELSIF cardinality(ids) = 1 THEN
        RETURN ids[1];
    ELSIF ids IS NULL THEN
        RAISE EXCEPTION 'there is no % named %', kind, quote_literal(btrim(wanted))
            USING ERRCODE = 'SY013', HINT = format(
                '%sCreate it in the CRM first (the API cannot), then run `syncd pull %ss`.',
                CASE kind WHEN 'field' THEN 'SELECT crm.create_field(name, label, type) asks the CRM for it. Or: '
                          ELSE '' END,
                kind);
    END IF;
    RAISE EXCEPTION '% %s are named %: remote ids %, local ids %', cardinality(ids), kind, quote_literal(btrim(wanted)),
            array_to_string(remote_ids, ', '), array_to_string(ids, ', ')
        USING ERRCODE = 'SY014', HINT = format('Choose by local id: %s.', by_id);
END
$$;

CREATE FUNCTION syncd.find_tag(account_id bigint, tag text) RETURNS bigint LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM syncd.require('tag', tag);
    RETURN (SELECT syncd.choose('tag', tag, array_agg(t.id ORDER BY t.id), array_agg(t.name ORDER BY t.id),
                                array_agg(t.remote_id ORDER BY t.id),
                                'INSERT INTO crm.relation_tags (relation_id, tag_id), or DELETE')
            FROM crm.tags t
            WHERE t.account_id = find_tag.account_id AND t.missing_since IS NULL
              AND lower(btrim(t.name)) = lower(btrim(tag)));
END
$$;

CREATE FUNCTION syncd.find_group(account_id bigint, wanted text) RETURNS bigint LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM syncd.require('group', wanted);
    RETURN (SELECT syncd.choose('group', wanted, array_agg(g.id ORDER BY g.id), array_agg(g.title ORDER BY g.id),
                                array_agg(g.remote_id ORDER BY g.id),
                                'INSERT INTO crm.group_members (group_id, relation_id), or DELETE')
            FROM crm.groups g
            WHERE g.account_id = find_group.account_id AND g.missing_since IS NULL
              AND lower(btrim(g.title)) = lower(btrim(wanted)));
END
$$;

-- By code first; a name serves where it is unique.
CREATE FUNCTION syncd.find_field(account_id bigint, code text) RETURNS bigint LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE coded bigint[];
BEGIN
    PERFORM syncd.require('code', code);
    coded := ARRAY(SELECT f.id FROM crm.fields f WHERE f.account_id = find_field.account_id
                   AND f.code = btrim(find_field.code) AND f.missing_since IS NULL);
    IF cardinality(coded) = 1 THEN
        RETURN coded[1];
    END IF;
    RETURN (SELECT syncd.choose('field', find_field.code, array_agg(f.id ORDER BY f.id),
                                array_agg(CASE WHEN lower(f.code) = lower(btrim(find_field.code))
                                               THEN f.code ELSE f.name END ORDER BY f.id),
                                array_agg(f.remote_id ORDER BY f.id),
                                'INSERT INTO crm.relation_fields (relation_id, field_id, value)')
            FROM crm.fields f
            WHERE f.account_id = find_field.account_id AND f.missing_since IS NULL
              AND lower(btrim(find_field.code)) IN (lower(f.code), lower(btrim(f.name))));
END
$$;

-- By remote id or code first; a name serves where it is unique.
CREATE FUNCTION syncd.find_list(account_id bigint, list text) RETURNS bigint LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE coded bigint[];
BEGIN
    PERFORM syncd.require('list', list);
    coded := ARRAY(SELECT l.id FROM crm.lists l WHERE l.account_id = find_list.account_id
                   AND btrim(list) IN (l.remote_id, l.code) AND l.missing_since IS NULL);
    IF cardinality(coded) = 1 THEN
        RETURN coded[1];
    END IF;
    RETURN (SELECT syncd.choose('list', list, array_agg(l.id ORDER BY l.id), array_agg(l.name ORDER BY l.id),
                                array_agg(l.remote_id ORDER BY l.id), 'pass its remote id in place of its name')
            FROM crm.lists l
            WHERE l.account_id = find_list.account_id AND l.missing_since IS NULL
              AND lower(btrim(l.name)) = lower(btrim(list)));
END
$$;

-- Who edits, and why --------------------------------------------------------------------------------------------------

CREATE FUNCTION crm.set_actor(actor text, reason text DEFAULT NULL) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('syncd.actor', COALESCE(actor, ''), true),
            set_config('syncd.reason', COALESCE(reason, ''), true);
END
$$;

-- Edits by e-mail and name: each returns whether there was anything to change -----------------------------------------

-- A row marked missing means that the CRM was seen without the tag: it is taken away and added anew.
CREATE FUNCTION crm.add_tag(email text, tag text, account text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; wanted bigint;
BEGIN
    SELECT * INTO r FROM syncd.find_relation(email, account);
    wanted := syncd.find_tag(r.account_id, tag);
    IF EXISTS (SELECT FROM crm.relation_tags l
               WHERE l.relation_id = r.relation_id AND l.tag_id = wanted AND l.missing_since IS NOT NULL) THEN
        DELETE FROM crm.relation_tags l WHERE l.relation_id = r.relation_id AND l.tag_id = wanted;
    END IF;
    INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (r.relation_id, wanted) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;

CREATE FUNCTION crm.remove_tag(email text, tag text, account text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; wanted bigint;
BEGIN
    SELECT * INTO r FROM syncd.find_relation(email, account);
    wanted := syncd.find_tag(r.account_id, tag);
    DELETE FROM crm.relation_tags l WHERE l.relation_id = r.relation_id AND l.tag_id = wanted;
    RETURN FOUND;
END
$$;

CREATE FUNCTION crm.set_field(email text, code text, value text, account text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; wanted bigint;
BEGIN
    IF value IS NULL THEN
        PERFORM syncd.refuse_argument('value', 'it is null', 'Write an empty text to clear the field.');
    END IF;
    SELECT * INTO r FROM syncd.find_relation(email, account);
    wanted := syncd.find_field(r.account_id, code);
    INSERT INTO crm.relation_fields AS f (relation_id, field_id, value) VALUES (r.relation_id, wanted, set_field.value)
    ON CONFLICT (relation_id, field_id) DO UPDATE SET value = EXCLUDED.value
        WHERE f.value IS DISTINCT FROM EXCLUDED.value;
    RETURN FOUND;
END
$$;

CREATE FUNCTION crm.join_group(email text, group_title text, account text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; wanted bigint;
BEGIN
    SELECT * INTO r FROM syncd.find_relation(email, account);
    wanted := syncd.find_group(r.account_id, group_title);
    IF EXISTS (SELECT FROM crm.group_members m
               WHERE m.relation_id = r.relation_id AND m.group_id = wanted AND m.missing_since IS NOT NULL) THEN
        DELETE FROM crm.group_members m WHERE m.relation_id = r.relation_id AND m.group_id = wanted;
    END IF;
    INSERT INTO crm.group_members (group_id, relation_id) VALUES (wanted, r.relation_id) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$$;

CREATE FUNCTION crm.leave_group(email text, group_title text, account text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; wanted bigint;
BEGIN
    SELECT * INTO r FROM syncd.find_relation(email, account);
    wanted := syncd.find_group(r.account_id, group_title);
    DELETE FROM crm.group_members m WHERE m.relation_id = r.relation_id AND m.group_id = wanted;
    RETURN FOUND;
END
$$;

-- Calls that are no table edits: captured directly, sent only where SYNCD_ALLOWED_OPERATIONS names them ---------------

-- The relation's row is held as the foreign key of a link row holds it: were it merged into its twin meanwhile, the call
-- would be about nobody. Whoever meets a merge in that moment is told to try again.
CREATE FUNCTION syncd.capture_call(account_id bigint, relation_id bigint, operation text, facet text, payload jsonb)
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM crm.relations r WHERE r.id = relation_id FOR KEY SHARE;
    IF relation_id IS NOT NULL AND NOT FOUND THEN
        RAISE EXCEPTION 'relation % was merged into another row just now', relation_id
            USING ERRCODE = 'serialization_failure', HINT = 'Run the transaction again.';
    END IF;
    INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload, actor, reason)
    VALUES (account_id, relation_id, operation, facet, payload, syncd.actor(), syncd.reason());
END
$$;

-- Finds relation and list and captures one call about them; extra holds the payload's other keys.
CREATE FUNCTION syncd.capture_list_call(email text, list text, account text, operation text, extra jsonb)
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE r record; wanted bigint;
BEGIN
    SELECT * INTO r FROM syncd.find_relation(email, account);
    wanted := syncd.find_list(r.account_id, list);
    PERFORM syncd.capture_call(r.account_id, r.relation_id, operation, 'list:' || wanted, extra || jsonb_build_object(
        'list_id', wanted, 'list_remote_id', (SELECT l.remote_id FROM crm.lists l WHERE l.id = wanted)));
END
$$;

CREATE FUNCTION crm.subscribe(email text, list text, skip_optin boolean DEFAULT false, account text DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM syncd.require('skip_optin', skip_optin::text);
    PERFORM syncd.capture_list_call(email, list, account, 'subscribe', jsonb_build_object('skip_optin', skip_optin));
END
$$;

CREATE FUNCTION crm.unsubscribe(email text, list text, reason text, account text DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM syncd.require('reason', reason);
    PERFORM syncd.capture_list_call(email, list, account, 'unsubscribe', jsonb_build_object('reason', reason));
END
$$;

CREATE FUNCTION crm.subscribe_with_consent(
    email text, list text, privacy_text text, privacy_agreement boolean, privacy_url text, consent_text text,
    consent_agreement boolean, ip text, skip_optin boolean DEFAULT false, account text DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM syncd.require(given.argument, given.value)
    FROM (VALUES ('privacy_text', privacy_text), ('privacy_agreement', privacy_agreement::text),
                 ('privacy_url', privacy_url), ('consent_text', consent_text),
                 ('consent_agreement', consent_agreement::text), ('ip', ip),
                 ('skip_optin', skip_optin::text)) AS given (argument, value);
    BEGIN
        PERFORM ip::inet;
    EXCEPTION WHEN invalid_text_representation THEN
        PERFORM syncd.refuse_argument('ip', format('%L is not an IP address', ip),
                                      'Give the address that the consent was given from, such as 192.0.2.7.');
    END;
    PERFORM syncd.capture_list_call(email, list, account, 'subscribe_with_consent', jsonb_build_object(
        'skip_optin', skip_optin, 'privacy_text', privacy_text, 'privacy_agreement', privacy_agreement,
        'privacy_url', privacy_url, 'consent_text', consent_text, 'consent_agreement', consent_agreement, 'ip', ip));
END
$$;

CREATE FUNCTION crm.end_subscription(subscription_id text, ends_on date, account text DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE owner_ids bigint[]; accounts bigint[];
BEGIN
    PERFORM syncd.require('subscription_id', subscription_id), syncd.require('ends_on', ends_on::text);
    IF ends_on NOT BETWEEN '1900-01-01' AND '9999-12-31' THEN
        PERFORM syncd.refuse_argument('ends_on', 'it is no day of this age', 'Give the last day of the subscription.');
    END IF;
    SELECT array_agg(o.relation_id ORDER BY o.purchased_at DESC NULLS LAST, o.id DESC), array_agg(DISTINCT o.account_id)
    INTO owner_ids, accounts
    FROM crm.order_lines l JOIN crm.orders o ON o.id = l.order_id
    WHERE l.subscription_id = end_subscription.subscription_id
      AND (account IS NULL OR o.account_id = syncd.find_account(account));
    IF accounts IS NULL THEN
        RAISE EXCEPTION 'there is no subscription %', subscription_id
            USING ERRCODE = 'SY013', HINT = 'Its order may not be read yet: run `syncd pull orders`.';
    ELSIF cardinality(accounts) > 1 THEN
        RAISE EXCEPTION 'several accounts have a subscription %', subscription_id
            USING ERRCODE = 'SY014', HINT = 'Name the account (last argument).';
    END IF;
    PERFORM syncd.capture_call(accounts[1], owner_ids[1], 'end_subscription', 'subscription:' || subscription_id,
        jsonb_build_object('subscription_id', subscription_id, 'ends_on', to_char(ends_on, 'YYYY-MM-DD')));
END
$$;

CREATE FUNCTION crm.create_field(name text, label text, type text, options text[] DEFAULT '{}',
                                 account text DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE owner_id bigint; problem text;
BEGIN
    PERFORM syncd.require('name', name), syncd.require('label', label), syncd.require('type', type);
    IF name !~ '^[A-Za-z_]+$' OR length(name) >= 60 THEN
        PERFORM syncd.refuse_argument('name', format('%L is not accepted by the CRM', name),
                                      'Use letters and underscores only, fewer than 60.');
    ELSIF type NOT IN ('boolean', 'string', 'list') THEN
        PERFORM syncd.refuse_argument('type', format('%L is none', type), 'Write boolean, string or list.');
    END IF;
    problem := CASE
        WHEN options IS NULL THEN 'they are null'
        WHEN type = 'list' AND cardinality(options) = 0 THEN 'a list needs at least one'
        WHEN type <> 'list' AND cardinality(options) > 0 THEN format('a %s has none', type)
        WHEN array_ndims(options) > 1 THEN 'they are nested'
        WHEN array_position(options, NULL) IS NOT NULL OR '' = ANY (options) THEN 'one is null or empty'
        WHEN array_to_string(options, '') LIKE '%,%' THEN 'one holds a comma, which is what separates them'
        WHEN length(array_to_string(options, ',')) >= 2048 THEN 'together they are 2048 characters or longer' END;
    IF problem IS NOT NULL THEN
        PERFORM syncd.refuse_argument('options', problem, 'Give ARRAY[''one'', ''two''] with type list, else nothing.');
    END IF;
    owner_id := syncd.find_account(account);
    IF EXISTS (SELECT FROM crm.fields f WHERE f.account_id = owner_id AND f.missing_since IS NULL
               AND lower(create_field.name) IN (lower(f.code), lower(f.name))) THEN
        PERFORM syncd.refuse_argument('name', format('there is a field %s already', name),
                                      'Set it with crm.set_field(email, code, value), or choose another name.');
    END IF;
    PERFORM syncd.capture_call(owner_id, NULL, 'create_field', 'new_field:' || name, jsonb_build_object(
        'name', name, 'label', label, 'type', type, 'options', to_jsonb(options)));
END
$$;

-- Functions of crm are for those whom EXECUTE was granted; those of syncd for syncd alone.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA crm, syncd FROM PUBLIC;
