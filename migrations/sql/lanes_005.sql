-- A lane is looked up from its newest version down, because those before it stay in its indexes for as long as anybody's
-- transaction is open. That needs each version to have a place of its own there: versions that an index keeps together
-- (deduplicated) are given out oldest first, whichever way it is read.

ALTER INDEX syncd.lanes_pkey SET (deduplicate_items = off);
ALTER INDEX syncd.lanes_relation_id_key SET (deduplicate_items = off);
