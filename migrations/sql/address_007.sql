-- Who leaves an address, found by the address: whoever takes it must not be sent before (syncd/store/outbox_address.py).

CREATE INDEX entries_leaving_idx ON syncd.entries (account_id, lower(payload ->> 'old'))
    WHERE operation = 'change_email' AND status IN ('pending', 'held', 'dead', 'parked', 'diverged');
