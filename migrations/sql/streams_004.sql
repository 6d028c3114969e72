-- Everything readable: how the fetching of an invoice's PDF stands until the file is on disk and has its row.

CREATE TABLE syncd.invoice_fetches (
    invoice_id bigint NOT NULL CONSTRAINT invoice_fetches_pkey PRIMARY KEY
        CONSTRAINT invoice_fetches_invoice_id_fkey REFERENCES crm.invoices (id) ON DELETE CASCADE,
    attempts integer NOT NULL DEFAULT 0,
    -- until then nobody else asks for it: it is being fetched, or waits after a failure; null: given up
    next_at timestamptz,
    error text,
    -- what the file about to be moved to its place is: a process that is killed then need not fetch it again
    sha256 bytea,
    size_bytes bigint,
    content_type text
);

COMMENT ON TABLE syncd.invoice_fetches IS
    'Invoices whose PDF was asked for and is not kept yet: failed tries, when the next is due, and what was fetched.';
COMMENT ON COLUMN crm.invoice_files.path IS
    'Where the file lies, below the directory that SYNCD_INVOICE_FILES names.';
