"""Defects of pulling: what a bad answer may do, what belongs into one transaction, whose turn it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from syncd.inbound import parents, window
from syncd.inbound.files import _Filing
from syncd.policy import windows, witness
from syncd.service.lease import Lease
from syncd.store import coverage
from syncd.store.invoice_files import Content
from syncd.store.mirror import subscriptions
from tests.support.defects.planting import Defect, in_class, instead


def _proven_first(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def write(context: Any, connection: Any, stream: Any, run: Any, fetched: Any, span: Any, seen: Any) -> Any:
        if span is not None:
            async with context.store.begin_remote() as apart:
                await coverage.prove(apart, context.account.id, stream.name, span, run.id)
        return await sound(context, connection, stream, run, fetched, span, seen)

    return write


def _apart(sound: Callable[..., Any]) -> Callable[..., Any]:
    async def write_shown(context: Any, connection: Any, *given: Any) -> Any:
        async with context.store.begin_remote() as apart:
            return await sound(context, apart, *given)

    return write_shown


def _kept_first(_: Callable[..., Any]) -> Callable[..., Any]:
    async def file(self: Any, invoice: Any, path: str, response: Any) -> None:
        body = b"".join(response.chunks())
        await self._keep(invoice, path, Content(hashlib.sha256(body).digest(), len(body), "application/pdf"))
        self._shelf.publish(self._shelf.draft(path, [body]))

    return file


def _believes(_: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_: witness.Verdict.BELIEVED


def _by_the_clock_before(sound: Callable[..., Any]) -> Callable[..., Any]:
    return lambda since, started_at, before_s, after_s, rule: sound(since, started_at, before_s, before_s, rule)


_KILLED = "tests/process/test_crash_pulls.py::test_a_puller_may_die_before_and_after_each_of_its_messages"
_EVERY = "tests/pipelines/test_pull_every_stream.py::"

PULLS: dict[str, Defect] = {
    "proof_before_rows": Defect(
        "Time is proven in a transaction of its own, before the rows of the window are written.",
        _KILLED,
        instead(window, "_write", _proven_first),
        is_long=True,
    ),
    "rows_before_proof": Defect(
        "The rows of a sweep are committed before it is noted that their parents were read.",
        _KILLED,
        instead(parents, "write_shown", _apart),
        is_long=True,
    ),
    "row_before_file": Defect(
        "The row of a PDF is committed before the file is in its place.",
        _KILLED,
        in_class(_Filing, "_file", _kept_first),
        is_long=True,
    ),
    "capped_answer_believed": Defect(
        "An answer that lacks most of what is known is taken as whole.",
        _EVERY + "test_a_cap_on_hours_leaves_the_time_beyond_it_unproven",
        instead(witness, "judge", _believes),
        is_long=True,
    ),
    "events_go_back": Defect(
        "A subscription's older event, shown by a cut answer, replaces the younger one that is known.",
        _EVERY + "test_an_answer_without_the_latest_event_does_not_bring_back_the_one_before",
        instead(subscriptions, "_goes_back", lambda _: lambda *_: False),
        is_long=True,
    ),
    "jump_unnoticed": Defect(
        "What an answer proves is judged by the clock of the answers before it, not by its own.",
        "tests/pipelines/test_pull_clocks.py::"
        "test_whatever_the_clocks_say_nothing_is_claimed_unread_and_nothing_is_lost",
        instead(windows, "proven_by", _by_the_clock_before),
        is_long=True,
    ),
    "pull_lease_ignored": Defect(
        "Every replica pulls, whoever holds the account's lease.",
        "tests/pipelines/test_pull_replicas.py::test_two_daemons_ask_no_more_than_one_and_take_over_from_each_other",
        in_class(Lease, "is_held", lambda _: property(lambda _: True)),
        is_long=True,
    ),
}
