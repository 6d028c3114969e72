-- Coverage and late truth: how late rows come, when older time was last read again, and what is not settled yet.

CREATE TABLE syncd.lateness (
    account_id bigint NOT NULL CONSTRAINT lateness_account_id_fkey REFERENCES crm.accounts (id),
    stream text NOT NULL,
    -- the first day of the month in which they appeared: what is long ago is forgotten
    month date NOT NULL,
    -- position among the edges of syncd/policy/lateness.py; those that were on time are in the first, 0
    bucket integer NOT NULL CONSTRAINT lateness_bucket_check CHECK (bucket >= 0),
    rows bigint NOT NULL,
    CONSTRAINT lateness_pkey PRIMARY KEY (account_id, stream, month, bucket)
);

CREATE TABLE syncd.rungs (
    account_id bigint NOT NULL CONSTRAINT rungs_account_id_fkey REFERENCES crm.accounts (id),
    stream text NOT NULL,
    reach_s double precision NOT NULL,
    -- when so much was last read with proof, and when it was last asked for; by the CRM's time, like coverage
    read_at timestamptz,
    tried_at timestamptz,
    CONSTRAINT rungs_pkey PRIMARY KEY (account_id, stream, reach_s)
);

-- The sweep of what is not settled must find the few without reading the many.
CREATE INDEX orders_unpaid_idx ON crm.orders (account_id, purchased_at) WHERE is_paid IS NOT TRUE;

COMMENT ON TABLE syncd.lateness IS
    'How long after their own timestamp rows first appeared, as counts per month: the overlap is learned from it.';
COMMENT ON TABLE syncd.rungs IS 'When each reach of the cadence ladder was last read again: survives restarts.';
