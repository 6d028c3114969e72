-- Who leaves an address, and who takes one, found by the address (syncd/store/outbox_address.py).
--
-- As in address_007.sql, but with what was given up: its relation keeps the address in the CRM all the same. Whoever
-- takes an address is found when the one that had it is done, and need not ask again and again.

DROP INDEX syncd.entries_leaving_idx;
CREATE INDEX entries_leaving_idx ON syncd.entries (account_id, lower(payload ->> 'old'))
    WHERE operation = 'change_email' AND status IN ('pending', 'held', 'dead', 'parked', 'diverged', 'skipped');
CREATE INDEX entries_taking_idx ON syncd.entries (account_id, lower(coalesce(payload ->> 'new', payload ->> 'email')))
    WHERE facet = 'identity' AND status = 'pending';
-- E-mail changes are few, and a long lane must not be walked along for them.
CREATE INDEX entries_moves_idx ON syncd.entries (lane_id, seq)
    WHERE operation = 'change_email' AND status IN ('pending', 'held', 'dead', 'parked', 'diverged', 'skipped');
