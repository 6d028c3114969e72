"""Late rows that a sweep finds: they count as late for the window that should have shown them."""

from __future__ import annotations

from syncd.inbound.context import Context
from syncd.policy.windows import corrected
from syncd.providers.contract import Stream, StreamKind
from syncd.store import Connection
from syncd.store.lateness import Appeared, measure
from syncd.store.mirror.scope import Seen


async def measure_late(context: Context, connection: Connection, stream: Stream, seen: Seen) -> None:
    """Measure how late the new rows of a sweep's answer were for the window of the same records, if there is one."""
    windows = (other for other in context.provider.streams.values() if other.kind is StreamKind.WINDOW)
    window = next((other.name for other in windows if other.records == stream.records), None)
    if window is not None:
        now = corrected(context.clock.now(), context.transport.clock_skew_s)
        await measure(connection, context.account.id, Appeared(window, stream.records, seen.new, now))
