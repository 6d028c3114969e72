-- Subscriptions that an answer lacked: noted here until a second answer, apart in time, lacks them too or one shows them.
-- Until then nothing is to be seen of it on crm.list_subscriptions: a standing may be all that is known of a consent.

CREATE TABLE syncd.absent_standings (
    relation_id bigint NOT NULL,
    list_id bigint NOT NULL,
    absent_since timestamptz NOT NULL,
    CONSTRAINT absent_standings_pkey PRIMARY KEY (relation_id, list_id)
);
COMMENT ON TABLE syncd.absent_standings IS
    'Standings on lists that the last answer about their relation lacked, not for long enough to be believed.';
