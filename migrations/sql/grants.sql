-- Roles of a database that syncd has migrated, and what each may do. An administrator (a superuser, or a role that may
-- create roles and owns or is a member of the owner of schemas crm and syncd) runs this in that database:
--
--     syncd migrate --print-grants | psql --set ON_ERROR_STOP=1 "$ADMIN_URL"
--
-- Running it again is harmless. It belongs to the current schema: run it again after every upgrade that asks for it.
-- The roles cannot log in; give them to those who do:  GRANT syncd_app TO shop;
--
--   syncd_owner   the daemon, when another role owns the schemas: everything but changing their shape
--   syncd_app     applications: read the mirror, edit what the CRM lets be edited
--   syncd_reader  reports: read the mirror and the history of how it came to be

-- Other databases of this server may be making the same roles at this moment.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['syncd_owner', 'syncd_app', 'syncd_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) THEN
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', role);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA crm, syncd TO syncd_owner, syncd_app, syncd_reader;

-- syncd_owner
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA crm, syncd TO syncd_owner;
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA crm, syncd TO syncd_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA crm, syncd TO syncd_owner;

-- syncd_app: edits are captured by triggers that run with the rights of the schema's owner, so an application needs
-- (and has) no right on the outbox itself.
GRANT SELECT ON ALL TABLES IN SCHEMA crm TO syncd_app;
GRANT INSERT (account_id, email, first_name, suffix, last_name, gender, type, customer),
      UPDATE (email, first_name, suffix, last_name, gender, type, customer) ON crm.relations TO syncd_app;
GRANT INSERT (relation_id, tag_id), DELETE ON crm.relation_tags TO syncd_app;
GRANT INSERT (group_id, relation_id), DELETE ON crm.group_members TO syncd_app;
GRANT INSERT (relation_id, field_id, value), UPDATE (value) ON crm.relation_fields TO syncd_app;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA crm TO syncd_app;
GRANT EXECUTE ON FUNCTION syncd.edit_of(text, jsonb), syncd.payload_of(text, text, jsonb, text[], text[]),
      syncd.history_reaches(timestamptz) TO syncd_app;

-- syncd_reader
GRANT SELECT ON ALL TABLES IN SCHEMA crm TO syncd_reader;
GRANT SELECT ON syncd.changes, syncd.conflicts, syncd.runs, syncd.coverage TO syncd_reader;
GRANT EXECUTE ON FUNCTION crm.relations_as_of(timestamptz), crm.relation_tags_as_of(timestamptz),
      crm.relation_fields_as_of(timestamptz), crm.group_members_as_of(timestamptz),
      crm.list_subscriptions_as_of(timestamptz), crm.orders_as_of(timestamptz), crm.order_lines_as_of(timestamptz),
      crm.invoices_as_of(timestamptz), crm.invoice_lines_as_of(timestamptz), crm.tags_as_of(timestamptz),
      crm.fields_as_of(timestamptz), crm.groups_as_of(timestamptz), crm.lists_as_of(timestamptz),
      crm.changes_since(text, integer), crm.changes_head(),
      syncd.edit_of(text, jsonb), syncd.payload_of(text, text, jsonb, text[], text[]),
      syncd.history_reaches(timestamptz) TO syncd_reader;
