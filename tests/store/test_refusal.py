"""Refused or not: what the answers to a dead identity change say to whoever would send another in its place."""

import pytest
from sqlalchemy import text

from syncd.store import Store
from syncd.store.refusal import was_refused
from tests.support.outbox import new_account, rows

NO, NOT_SENT, SERVER_ERROR = ("rejected", 400), ("retryable", None), ("retryable", 503)
THROTTLED, UNAUTHORISED, SILENCE = ("throttled", 429), ("unauthorised", 401), ("unknown", None)


async def _is_refused(store: Store, operation: str, *answers: tuple[str, int | None], **entry: object) -> bool:
    given = {"status": "dead", "is_uncertain": False, **entry}
    account = await new_account(store)
    async with store.begin() as connection:
        await connection.execute(
            text(
                """WITH lane AS (
                       INSERT INTO syncd.lanes (account_id, relation_id, tail_seq) VALUES (:account_id, 1, 1)
                       RETURNING id, account_id, relation_id
                   )
                   INSERT INTO syncd.entries (lane_id, seq, account_id, relation_id, operation, facet, payload, xact,
                                              captured_at, status, is_uncertain)
                   SELECT id, 1, account_id, relation_id, :operation, 'identity', '{}', pg_current_xact_id(), now(),
                          :status, :is_uncertain
                   FROM lane"""
            ),
            {"account_id": account.id, "operation": operation, **given},
        )
        for outcome, status in answers:
            await connection.execute(
                text(
                    """INSERT INTO syncd.attempts (account_id, lane_id, epoch, entry_id, operation, started_at,
                                                   elapsed_s, requests, status_code, outcome)
                       SELECT account_id, lane_id, 1, id, operation, now(), 0, 1, :status, :outcome
                       FROM syncd.entries"""
                ),
                {"outcome": outcome, "status": status},
            )
    (row,) = await rows(store, f"SELECT {was_refused('e')} AS is_refused FROM syncd.entries e")
    return bool(row["is_refused"])


@pytest.mark.parametrize("before", [(), (NO,), (THROTTLED, UNAUTHORISED), (NOT_SENT, NOT_SENT)])
async def test_a_create_that_got_nothing_but_a_no_was_refused(
    store: Store, before: tuple[tuple[str, int | None], ...]
) -> None:
    """It is certainly not there: whoever mends its address may have it made under the new one."""
    assert await _is_refused(store, "create_relation", *before, NO)


@pytest.mark.parametrize("before", [(SILENCE,), (SERVER_ERROR,), (SILENCE, THROTTLED), (("retryable", 200),)])
async def test_a_create_that_may_have_been_made_was_not_refused(
    store: Store, before: tuple[tuple[str, int | None], ...]
) -> None:
    """The no was about a later try; made again under another address there would be two."""
    assert not await _is_refused(store, "create_relation", *before, NO)


async def test_a_create_that_a_dead_drainer_may_have_sent_was_not_refused(store: Store) -> None:
    """It left no attempt, only the doubt on the entry."""
    assert not await _is_refused(store, "create_relation", NO, is_uncertain=True)


async def test_of_a_changed_address_the_last_answer_tells(store: Store) -> None:
    """The next address takes its place at the same relation, whether it was applied or not."""
    assert await _is_refused(store, "change_email", SERVER_ERROR, NO)


@pytest.mark.parametrize(("status", "last"), [("dead", SERVER_ERROR), ("parked", NO), ("pending", NO)])
async def test_what_was_given_up_for_another_reason_was_not_refused(
    store: Store, status: str, last: tuple[str, int | None]
) -> None:
    """Tries that ran out tell nothing, and what waits for somebody is not over."""
    assert not await _is_refused(store, "change_email", NO, last, status=status)
