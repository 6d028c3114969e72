-- Until when a call that was in doubt may still land.
--
-- A re-assertion waits for that, but only a delivery makes one. A profile edit that backs off, or that was given up, may
-- land as well; the CRM would find by the old address what an e-mail change has moved meanwhile, and make a second
-- relation of it. So each entry says it for itself.

ALTER TABLE syncd.entries ADD COLUMN lands_until timestamptz;
COMMENT ON COLUMN syncd.entries.lands_until IS
    'A try of it whose fate is unknown may still land until then: the settle window after it.';

-- What is in doubt at this moment may land for as long as the settings say where nothing is set.
UPDATE syncd.entries SET lands_until = now() + interval '180 seconds'
WHERE is_uncertain AND status IN ('pending', 'held', 'dead', 'parked', 'diverged');
