-- What every name means, where people look for it: \d+, \df+ and the database browsers of applications.

COMMENT ON SCHEMA crm IS 'The mirror of the CRM. Read all of it; edit relations, relation_tags, group_members and relation_fields with plain SQL or the functions here: syncd tells the CRM.';
COMMENT ON SCHEMA syncd IS 'The machinery of syncd: outbox, coverage, runs, history. Read it with `syncd status` and `syncd outbox`; write it never.';

COMMENT ON TABLE crm.accounts IS 'One row per CRM administration (tenant), named in the settings. Written by syncd alone.';
COMMENT ON TABLE crm.relations IS 'Contacts. INSERT and UPDATE reach the CRM; a relation cannot be deleted through its API.';
COMMENT ON TABLE crm.tags IS 'Tags that relations may have. Created in the CRM only; written by syncd alone.';
COMMENT ON TABLE crm.relation_tags IS 'Which relation has which tag. INSERT adds the tag in the CRM, DELETE removes it; either may start e-mail campaigns there.';
COMMENT ON TABLE crm.fields IS 'Free fields (and the CRM''s standard ones, not writable). crm.create_field makes one; written by syncd alone.';
COMMENT ON TABLE crm.relation_fields IS 'Values of free fields as last set from here: the CRM does not let them be read back. INSERT and UPDATE reach the CRM.';
COMMENT ON TABLE crm.groups IS 'Groups of relations. Created in the CRM only; written by syncd alone.';
COMMENT ON TABLE crm.group_members IS 'Which relation is in which group. INSERT joins, DELETE leaves, in the CRM too.';
COMMENT ON TABLE crm.lists IS 'Mailing lists (listmanagers, campaigns). Created in the CRM only; written by syncd alone.';
COMMENT ON TABLE crm.list_subscriptions IS 'The latest standing of a relation on a list. Change it with crm.subscribe, crm.subscribe_with_consent, crm.unsubscribe.';
COMMENT ON TABLE crm.orders IS 'Orders, one row each, lines apart. Read only.';
COMMENT ON TABLE crm.order_lines IS 'Lines of orders in the order given; replaced as a whole when the order changes. Read only.';
COMMENT ON TABLE crm.invoices IS 'Invoices and credit invoices; key is (account_id, number, is_credit). Amounts in euro as the CRM gives them. Read only.';
COMMENT ON TABLE crm.invoice_lines IS 'Lines of invoices; credit invoices have none, because the API does not tell. Read only.';
COMMENT ON TABLE crm.invoice_files IS 'Where the PDF of an invoice is kept. Read only.';

DO $$
DECLARE t text; c text; said text;
BEGIN
    -- The book-keeping that mirrored tables share.
    FOR t, c, said IN
        SELECT col.table_name, col.column_name, shared.said
        FROM information_schema.columns col JOIN (VALUES
            ('id', 'Key in this database; never changes, unknown to the CRM.'),
            ('account_id', 'The administration that the row belongs to (crm.accounts.id).'),
            ('remote_id', 'Key in the CRM; null until the CRM gave one.'),
            ('raw', 'The record as the CRM last gave it, unknown keys kept; null if never read from there.'),
            ('content_hash', 'Hash of the normalised record; tells whether a pull brings anything new.'),
            ('first_seen_at', 'When the row was first read or made here.'),
            ('last_seen_at', 'When the CRM last showed the row; of unchanged rows moved once a day at most.'),
            ('changed_at', 'When a pull or a delivery last changed the row; an undelivered local edit does not move it.'),
            ('missing_since', 'Since when the CRM does not show it any more, confirmed; null while it does. Rows are never deleted for that.'),
            ('relation_id', 'The relation (crm.relations.id); null where its relation is not known here.'),
            ('relation_remote_id', 'Key of the relation in the CRM as given; null where the CRM does not tell.'),
            ('relation_email', 'E-mail address as the CRM gave it with this record; it may since have changed.')
        ) AS shared (name, said) ON shared.name = col.column_name
        WHERE col.table_schema = 'crm'
    LOOP
        EXECUTE format('COMMENT ON COLUMN crm.%I.%I IS %L', t, c, said);
    END LOOP;

    FOR t, c, said IN VALUES
        ('accounts', 'id', 'Key in this database; account_id elsewhere.'),
        ('accounts', 'name', 'Name in the settings (SYNCD_ACCOUNT); the account argument of the functions.'),
        ('accounts', 'provider', 'Which CRM: autorespond, getresponse, useresponse.'),
        ('accounts', 'title', 'Name of the administration in the CRM; null if not told.'),
        ('accounts', 'email', 'Address of the administration; null if not told.'),
        ('accounts', 'service_level', 'Contract level as the CRM names it; null if not told.'),
        ('accounts', 'is_locked', 'Whether the CRM locked the administration; null if not told.'),
        ('relations', 'email', 'E-mail address, as given; the CRM finds a relation by it. Editable. Null only where the CRM told an id alone.'),
        ('relations', 'first_name', 'First name. Editable; null: unknown or none.'),
        ('relations', 'suffix', 'Particle between first and last name (tussenvoegsel), such as van der. Editable; null: unknown or none.'),
        ('relations', 'last_name', 'Last name. Editable; null: unknown or none.'),
        ('relations', 'gender', 'M, F or - (unspecified). Editable; null: unknown.'),
        ('relations', 'type', 'One character, defined in the CRM. Editable; the API does not give it back, so null says: not set from here.'),
        ('relations', 'customer', 'y or n. Editable; the API does not give it back, so null says: not set from here.'),
        ('relations', 'funnel_state', 'State in the CRM''s funnel, as it names it. Read only; null: unknown.'),
        ('relations', 'remote_id', 'Key in the CRM; null until a relation made here is delivered.'),
        ('relations', 'detail_at', 'When tags and subscriptions of this relation were last read; null: never.'),
        ('tags', 'name', 'Name, as given; two tags of one name are possible.'),
        ('relation_tags', 'relation_id', 'The relation (crm.relations.id).'),
        ('relation_tags', 'tag_id', 'The tag (crm.tags.id), of the same account.'),
        ('fields', 'code', 'What the CRM knows the field by; the code argument of crm.set_field.'),
        ('fields', 'name', 'Label, as shown in the CRM; null if not told.'),
        ('fields', 'type', 'boolean, string or list; null if not told.'),
        ('fields', 'options', 'What a list field may hold; empty: not a list, or not told.'),
        ('fields', 'is_writable', 'Whether crm.relation_fields may hold it; false for the CRM''s standard fields.'),
        ('relation_fields', 'relation_id', 'The relation (crm.relations.id).'),
        ('relation_fields', 'field_id', 'The field (crm.fields.id), of the same account and writable.'),
        ('relation_fields', 'value', 'The value as text; true or false in boolean fields; an empty text clears it. Editable; null: never set from here.'),
        ('groups', 'title', 'Title, as given; null if not told.'),
        ('group_members', 'group_id', 'The group (crm.groups.id), of the same account.'),
        ('group_members', 'relation_id', 'The relation (crm.relations.id).'),
        ('lists', 'name', 'Name, as given; null if not told.'),
        ('lists', 'category', 'Category in the CRM; null: none.'),
        ('lists', 'code', 'Short code in the CRM; null: none.'),
        ('lists', 'group_id', 'The group bound to the list (crm.groups.id); null: none, or not known here.'),
        ('lists', 'group_remote_id', 'Key of that group in the CRM as given; null: none.'),
        ('list_subscriptions', 'relation_id', 'The relation (crm.relations.id).'),
        ('list_subscriptions', 'list_id', 'The list (crm.lists.id).'),
        ('list_subscriptions', 'status', 'subscribed or unsubscribed; another word is the CRM''s own.'),
        ('list_subscriptions', 'event_at', 'When that became so, says the CRM; null if not told.'),
        ('orders', 'relation_name', 'Name as the CRM gave it with this order; null if not told.'),
        ('orders', 'invoice_number', 'Number of its invoice; null while there is none. Later invoices name the order themselves.'),
        ('orders', 'purchased_at', 'When it was ordered; null if the CRM''s text was no date (see raw).'),
        ('orders', 'is_paid', 'Whether it is paid; may turn either way later. Null if not told.'),
        ('order_lines', 'order_id', 'The order (crm.orders.id).'),
        ('order_lines', 'position', 'Place within the order, as the CRM lists them.'),
        ('order_lines', 'line_type', 'Kind of line as the CRM names it; null if not told.'),
        ('order_lines', 'product_id', 'Key of the product in the CRM; null if not told.'),
        ('order_lines', 'product_name', 'Name of the product at that time; null if not told.'),
        ('order_lines', 'quantity', 'How many; null if not told.'),
        ('order_lines', 'subscription_id', 'Key of the subscription in the CRM, for crm.end_subscription; null: the line is no subscription.'),
        ('order_lines', 'subscription_billed_until', 'Day up to which the subscription is billed; null: not told or no subscription.'),
        ('order_lines', 'subscription_ends_on', 'Day on which the subscription ends; null: it runs on, or no subscription.'),
        ('invoices', 'remote_id', 'Key in the CRM where it has one; Autorespond has none, so null.'),
        ('invoices', 'number', 'Invoice number, a text: leading zeros and slashes count.'),
        ('invoices', 'is_credit', 'Whether it is a credit invoice.'),
        ('invoices', 'order_remote_id', 'Key of the order in the CRM (crm.orders.remote_id); null for credit invoices and until the detail is read.'),
        ('invoices', 'billing_id', 'Key of the billing of a subscription in the CRM; null: none, or detail not read.'),
        ('invoices', 'description', 'Description, as given; null if not told.'),
        ('invoices', 'invoiced_on', 'Date of the invoice; null if the CRM''s text was no date (see raw).'),
        ('invoices', 'amount_incl', 'Total in euro including VAT, sign as given; null if not told or not a clear number (see raw).'),
        ('invoices', 'amount_excl', 'Total in euro without VAT; null until the detail is read.'),
        ('invoices', 'amount_vat', 'VAT in euro; null until the detail is read.'),
        ('invoices', 'full_name', 'Name on the invoice; null until the detail is read.'),
        ('invoices', 'company', 'Company on the invoice; null: none, or detail not read.'),
        ('invoices', 'address', 'Street and number on the invoice; null: none, or detail not read.'),
        ('invoices', 'postal_code', 'Postal code on the invoice; null: none, or detail not read.'),
        ('invoices', 'city', 'City on the invoice; null: none, or detail not read.'),
        ('invoices', 'country', 'Country on the invoice as given; null: none, or detail not read.'),
        ('invoices', 'vat_number', 'VAT number of the buyer; null: none, or detail not read.'),
        ('invoices', 'detail_status', 'pending: lines are still to be read; done; unavailable: the API has none (credit invoices); failed: see detail_error.'),
        ('invoices', 'detail_attempts', 'How often reading the detail was tried.'),
        ('invoices', 'detail_next_at', 'When reading the detail is due.'),
        ('invoices', 'detail_error', 'Why the detail could not be read; null: no trouble.'),
        ('invoices', 'detail_raw', 'The detail as the CRM gave it; null until read.'),
        ('invoice_lines', 'invoice_id', 'The invoice (crm.invoices.id).'),
        ('invoice_lines', 'position', 'Place within the invoice, as the CRM lists them.'),
        ('invoice_lines', 'sku', 'Article code; null if not told.'),
        ('invoice_lines', 'description', 'Description, as given; null if not told.'),
        ('invoice_lines', 'quantity', 'How many; null if not told.'),
        ('invoice_lines', 'amount', 'Amount in euro as given; the CRM does not document whether VAT is in it. Null if not told.'),
        ('invoice_lines', 'discount', 'Discount as given; the CRM does not document whether it is euro or percent. Null if not told.'),
        ('invoice_lines', 'vat_amount', 'VAT in euro; null if not told.'),
        ('invoice_lines', 'vat_percentage', 'VAT rate in percent; null if not told.'),
        ('invoice_lines', 'ledger', 'Account code for the books; null if not told.'),
        ('invoice_files', 'invoice_id', 'The invoice (crm.invoices.id).'),
        ('invoice_files', 'path', 'Where the file lies, below the data directory of syncd.'),
        ('invoice_files', 'sha256', 'SHA-256 of the file.'),
        ('invoice_files', 'size_bytes', 'Size in bytes.'),
        ('invoice_files', 'content_type', 'Media type as the CRM declared it.'),
        ('invoice_files', 'fetched_at', 'When it was fetched.')
    LOOP
        EXECUTE format('COMMENT ON COLUMN crm.%I.%I IS %L', t, c, said);
    END LOOP;
END
$$;

COMMENT ON FUNCTION crm.set_actor IS 'Names who edits, and why, for the rest of this transaction; shown in the outbox and the history. Null: the database role.';
COMMENT ON FUNCTION crm.add_tag IS 'Gives the relation with this e-mail address the tag of this name; returns false if it has it already.';
COMMENT ON FUNCTION crm.remove_tag IS 'Takes the tag of this name from the relation with this e-mail address; returns false if it has it not.';
COMMENT ON FUNCTION crm.set_field IS 'Sets a free field, by code or unique name, of the relation with this e-mail address; an empty text clears it. Returns false if it is so already.';
COMMENT ON FUNCTION crm.join_group IS 'Puts the relation with this e-mail address in the group of this title; returns false if it is in it already.';
COMMENT ON FUNCTION crm.leave_group IS 'Takes the relation with this e-mail address out of the group of this title; returns false if it is not in it.';
COMMENT ON FUNCTION crm.subscribe IS 'Subscribes to a list, by name, code or remote id; the CRM may send mail. Sent only if SYNCD_ALLOWED_OPERATIONS names subscribe.';
COMMENT ON FUNCTION crm.unsubscribe IS 'Unsubscribes from a list, by name, code or remote id; planned mails are dropped. Sent only if SYNCD_ALLOWED_OPERATIONS names unsubscribe.';
COMMENT ON FUNCTION crm.subscribe_with_consent IS 'Subscribes to a list with a record of consent (GDPR). Sent only if SYNCD_ALLOWED_OPERATIONS names subscribe_with_consent.';
COMMENT ON FUNCTION crm.end_subscription IS 'Ends a paid subscription (crm.order_lines.subscription_id) on a day. Sent only if SYNCD_ALLOWED_OPERATIONS names end_subscription.';
COMMENT ON FUNCTION crm.create_field IS 'Creates a free field in the CRM; it appears in crm.fields after delivery and a pull. Type boolean, string or list; options with list only.';

DO $$
DECLARE name text; said text;
BEGIN
    FOR name, said IN VALUES
        ('account_states', 'Per account: pause, breaker, limits, lease.'),
        ('captures', 'Local edits as committed, not yet staged. Insert-only for triggers; the stager moves them to entries.'),
        ('lanes', 'The outbox per relation (or per account): cursor, lease, fence.'),
        ('entries', 'The outbox: local changes in dense order per lane, and how they ended.'),
        ('attempts', 'One row per delivery tried, without any secret.'),
        ('runs', 'One row per pull: what was asked, received, written, and why it was not believed.'),
        ('coverage', 'Which time of a window stream is proven to be read.'),
        ('readings', 'When each row of a row-by-row stream was last read.'),
        ('changes', 'The history: one row per applied change, either direction.'),
        ('conflicts', 'Fields that both sides changed, and which side won.')
    LOOP
        EXECUTE format('COMMENT ON TABLE syncd.%I IS %L', name, said);
    END LOOP;
    FOR name, said IN
        SELECT oid::regprocedure, CASE
            WHEN proname LIKE 'capture%' THEN 'Writes captures of local edits.'
            WHEN proname LIKE 'guard%' OR proname LIKE 'refuse%' THEN 'Refuses what cannot reach the CRM.'
            WHEN proname LIKE 'find%' OR proname IN ('choose', 'only_account') THEN 'Finds one thing by name, or refuses.'
            ELSE 'Serves the triggers and functions of syncd.' END
        FROM pg_proc WHERE pronamespace = 'syncd'::regnamespace
    LOOP
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', name, said);
    END LOOP;
END
$$;
