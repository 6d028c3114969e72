-- Until when a call of a lane whose fate is unknown may still land.
--
-- A re-assertion waits for that, but only a delivery makes one, and a claim that reads the head of a long lane does not
-- see it. A profile edit that backs off, or that was given up, may land as well; the CRM would find by the old address
-- what an e-mail change has moved meanwhile, and make a second relation of it. So the lane says it.

ALTER TABLE syncd.lanes ADD COLUMN profile_lands_until timestamptz, ADD COLUMN address_lands_until timestamptz;
COMMENT ON COLUMN syncd.lanes.profile_lands_until IS
    'A call that finds the relation by its address, and whose fate is unknown, may still land until then.';
COMMENT ON COLUMN syncd.lanes.address_lands_until IS
    'A call that changes the address, and whose fate is unknown, may still land until then.';

-- What is in doubt at this moment may land for as long as the settings say where nothing is set; or for as long as what
-- says it once more waits, if they say more.
UPDATE syncd.lanes l
SET profile_lands_until = CASE WHEN late.is_profile THEN GREATEST(now() + interval '180 seconds', profile_again_at) END,
    address_lands_until = CASE WHEN late.is_address THEN GREATEST(now() + interval '180 seconds', address_again_at) END
FROM (
    SELECT lane_id, bool_or(facet = 'profile' OR operation = 'create_relation') AS is_profile,
           bool_or(operation = 'change_email') AS is_address,
           max(next_attempt_at) FILTER (WHERE reasserts IS NOT NULL AND facet = 'profile') AS profile_again_at,
           max(next_attempt_at) FILTER (WHERE reasserts IS NOT NULL AND facet = 'identity') AS address_again_at
    FROM syncd.entries
    WHERE (is_uncertain OR reasserts IS NOT NULL) AND status IN ('pending', 'held', 'dead', 'parked', 'diverged')
      AND facet IN ('profile', 'identity')
    GROUP BY lane_id
) AS late
WHERE l.id = late.lane_id;
