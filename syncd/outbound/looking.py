"""Looking: what the CRM shows now of what a plan is about. Safe reads only, in turn with everything else.

One relation at a time, and of it only the reads that its calls need: its columns, its tags, its lists. Groups are too
long to be read for one member and free fields cannot be read at all: their remote value stays unread. It stops at the
first answer that speaks about the account (credentials, throttle) and never writes anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from msgspec import UNSET

from syncd.clock import Clock
from syncd.domain.changes import PROFILE_COLUMNS
from syncd.domain.errors import MalformedAnswer
from syncd.domain.facets import NO, YES
from syncd.domain.records import Relation, Subscription, TagName
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.outbound.planned import PlannedLane, PlannedValue
from syncd.providers.contract import (
    Answered,
    Effect,
    Provider,
    Rejected,
    Stream,
    StreamArguments,
    Throttled,
    Unauthorised,
)
from syncd.transport import Transport

_COLUMNS = frozenset({"email", *PROFILE_COLUMNS})
_STREAM_OF = {"tag": "relation_tags", "list": "relation_subscriptions"}

Records: TypeAlias = tuple[Any, ...]


class _Stopped(Exception):
    """The CRM said something about the account: whoever reads on asks for trouble."""


async def look_at_crm(
    provider: Provider, transport: Transport, clock: Clock, limits: DrainLimits, lanes: Sequence[PlannedLane]
) -> str | None:
    """Fill in the remote values of lanes; return why it was not read to the end, or None."""
    look = _Look(provider, transport, clock, limits)
    try:
        for lane in lanes:
            await look.at(lane)
    except _Stopped as stopped:
        return str(stopped)
    return look.trouble


class _Look:
    def __init__(self, provider: Provider, transport: Transport, clock: Clock, limits: DrainLimits) -> None:
        self._provider = provider
        self._transport = transport
        self._clock = clock
        self._limits = limits
        self._pace = Pace(limits, clock)
        self.trouble: str | None = None

    async def at(self, lane: PlannedLane) -> None:
        """Read what the values of one relation are now."""
        if lane.remote_id is None:
            return
        values = [value for call in lane.calls for value in call.values]
        values += [value for wait in lane.waits for value in wait.values]
        for name in dict.fromkeys(filter(None, map(_stream_of, values))):
            stream = self._provider.streams.get(name)
            if stream is None or self._provider.endpoints[stream.operation].effect is not Effect.SAFE:
                continue
            records = await self._ask(stream, lane.remote_id)
            if records is not None:
                _fill([value for value in values if _stream_of(value) == name], records)

    async def _ask(self, stream: Stream, key: str) -> Records | None:
        """Return the records of one read; an absent relation has none; None when the answer is of no use."""
        await self._clock.sleep(self._pace.turn_s(float("inf")) or 0.0)
        request = stream.request(StreamArguments(now=self._clock.now(), key=key))
        answer = await self._transport.send(request, timeout_s=self._limits.conversation_s)
        if not isinstance(answer, Answered):
            self._note(answer.reason)
            return None
        outcome = self._provider.judge(answer.response, stream.operation)
        match outcome:
            case None:
                pass
            case Unauthorised() | Throttled():
                raise _Stopped(outcome.reason)
            case Rejected(is_absent=True):
                return ()
            case _:
                self._note(getattr(outcome, "reason", "the answer was none"))
                return None
        try:
            return tuple(row.record for batch in stream.decode(answer.response) for row in batch.rows)
        except MalformedAnswer as malformed:
            self._note(str(malformed))
            return None

    def _note(self, reason: str) -> None:
        self.trouble = self.trouble or reason


def _stream_of(value: PlannedValue) -> str | None:
    if value.name in _COLUMNS:
        return "relation_details"
    return _STREAM_OF.get(value.name.partition(":")[0])


def _fill(values: Sequence[PlannedValue], records: Records) -> None:
    for value in values:
        match value.name.partition(":")[0]:
            case "tag":
                names = {record.name.strip() for record in records if isinstance(record, TagName)}
                value.remote = YES if (value.key or "").strip() in names else NO
            case "list":
                statuses = {r.list_remote_id: r.status for r in records if isinstance(r, Subscription)}
                value.remote = statuses.get(value.key or "")
            case column:
                relation = next((record for record in records if isinstance(record, Relation)), None)
                shown = getattr(relation, column, None)
                if shown is UNSET or (relation is not None and not hasattr(relation, column)):
                    continue  # this CRM never shows it
                value.remote = shown
        value.is_read = True
