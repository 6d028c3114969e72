-- Conflicts, complete: how each was decided, by whom, and whether what loses has left the outbox.

-- Before this every conflict was decided for the application, and the row stayed open.
UPDATE syncd.conflicts SET status = 'resolved', resolved_at = now() WHERE status = 'open';

ALTER TABLE syncd.conflicts
    ADD COLUMN decided text
        CONSTRAINT conflicts_decided_check CHECK (decided IN ('local', 'remote', 'value', 'agreed')),
    -- the owner of the field, the two sides themselves (they agree again), or a person, whom syncd.decisions names
    ADD COLUMN decided_by text
        CONSTRAINT conflicts_decided_by_check CHECK (decided_by IN ('owner', 'agreement', 'person')),
    -- what the field was given when a person named a value of their own
    ADD COLUMN value text,
    -- the delivery that noticed it; null where a pull did (run_id)
    ADD COLUMN entry_id bigint,
    -- when the edit that must not be sent had left the outbox; null: it has not, or need not
    ADD COLUMN withheld_at timestamptz,
    ADD COLUMN last_seen_at timestamptz NOT NULL DEFAULT now();
UPDATE syncd.conflicts SET decided = 'local', decided_by = 'owner' WHERE status = 'resolved';

CREATE UNIQUE INDEX conflicts_open_key ON syncd.conflicts (account_id, table_name, row_id, field) WHERE status = 'open';
CREATE INDEX conflicts_row_idx ON syncd.conflicts (row_id, table_name, field);

ALTER TABLE syncd.decisions ADD COLUMN conflict_id bigint;
CREATE INDEX decisions_conflict_id_idx ON syncd.decisions (conflict_id) WHERE conflict_id IS NOT NULL;

COMMENT ON TABLE syncd.conflicts IS
    'Fields that both sides changed: what was agreed, what each says, who owns the field, and what was decided.';
