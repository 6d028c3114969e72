-- What a claim reads of a lane, without what the lane has left behind.
--
-- entries_undelivered_idx keeps a place for each entry that was ever pending, until vacuum may take it. While anybody's
-- transaction stays open it may not, and a claim that read its lane from the start walked past all that was delivered
-- meanwhile. Beyond the cursor little is over: what was delivered past something that backs off or is held. At or below
-- it only two kinds are left: what waits for a person (dead, parked, diverged), and what one of these became again when
-- it was retried. They have an index of their own, into which nothing ever goes that is simply delivered.
--
-- That a retried entry can be found is not left to whoever retries: an entry that becomes pending or held again is
-- marked by the trigger below, whatever statement does it.

ALTER TABLE syncd.entries ADD COLUMN is_reopened boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN syncd.entries.is_reopened IS
    'It was dead, parked or diverged and is to be sent again: the claim must look for it below the cursor. A trigger '
    'writes it.';

CREATE FUNCTION syncd.mark_reopened() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE syncd.entries SET is_reopened = true WHERE lane_id = NEW.lane_id AND seq = NEW.seq;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION syncd.mark_reopened() IS 'Mark an entry that is to be sent although its lane may have passed it.';

-- AFTER, because a BEFORE trigger would lock each updated row once more, fired or not.
CREATE TRIGGER entries_mark_reopened AFTER UPDATE OF status ON syncd.entries
    FOR EACH ROW
    WHEN (NEW.status IN ('pending', 'held') AND OLD.status NOT IN ('pending', 'held') AND NOT NEW.is_reopened)
    EXECUTE FUNCTION syncd.mark_reopened();

-- After the trigger: making it has locked out everybody who writes entries.
UPDATE syncd.entries e SET is_reopened = true
FROM syncd.lanes l
WHERE l.id = e.lane_id AND e.seq <= l.acked_seq AND e.status IN ('pending', 'held');

CREATE INDEX entries_left_idx ON syncd.entries (lane_id, seq)
    WHERE status IN ('dead', 'parked', 'diverged') OR (is_reopened AND status IN ('pending', 'held'));
