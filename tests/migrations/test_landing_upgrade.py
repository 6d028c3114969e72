"""What was in doubt before lanes said until when it may land: an address does not change under it either."""

from __future__ import annotations

from syncd.store.migrate import upgrade
from tests.support.outbox import new_account, remote_sql, rows, run_sql
from tests.support.throwaway import older_database

# One lane for each kind: an edit in doubt, one without, a create and an e-mail change in doubt, a profile that is said
# once more in an hour, an edit in doubt that is delivered, and a tag in doubt.
KINDS = """
    (1, 'update_profile', 'profile', 'pending', true, NULL, NULL),
    (2, 'update_profile', 'profile', 'pending', false, NULL, NULL),
    (3, 'create_relation', 'identity', 'parked', true, NULL, NULL),
    (4, 'change_email', 'identity', 'dead', true, NULL, NULL),
    (5, 'update_profile', 'profile', 'pending', false, 900, now() + interval '1 hour'),
    (6, 'update_profile', 'profile', 'verified', true, NULL, NULL),
    (7, 'add_tag', 'tag:1', 'pending', true, NULL, NULL)
"""


async def test_what_is_in_doubt_may_land_after_the_upgrade(server_url: str) -> None:
    """A lane that knows of nothing would let the address be changed at once."""
    async with older_database(server_url, "0005") as store:
        account = await new_account(store)
        relations = (
            "INSERT INTO crm.relations (id, account_id, email) SELECT n, :a, n || '@x' FROM generate_series(1, 7) n"
        )
        await remote_sql(store, relations, a=account.id)
        await run_sql(
            store,
            "INSERT INTO syncd.lanes (id, account_id, relation_id, tail_seq) SELECT id, :a, id, 1 FROM crm.relations",
            a=account.id,
        )
        await run_sql(
            store,
            f"""INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, status,
                                           is_uncertain, reasserts, next_attempt_at, xact, captured_at)
                SELECT k.id, 1, :a, k.id, k.operation, k.facet, '{{}}', k.status, k.is_uncertain,
                       CAST(k.root AS bigint), k.again_at, pg_current_xact_id(), now()
                FROM (VALUES {KINDS}) AS k (id, operation, facet, status, is_uncertain, root, again_at)""",
            a=account.id,
        )
        await upgrade(store)
        found = await rows(
            store,
            """SELECT id, profile_lands_until > now() AS profile, address_lands_until > now() AS address,
                      profile_lands_until > now() + interval '30 minutes' AS is_long
               FROM syncd.lanes ORDER BY id""",
        )
        assert [row["id"] for row in found if row["profile"]] == [1, 3, 5]
        assert [row["id"] for row in found if row["address"]] == [4]
        assert [row["id"] for row in found if row["is_long"]] == [5]
