"""What every step of a pull needs: the parts, the account, the policy. Made once, shared by all streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.errors import MalformedAnswer
from syncd.inbound.drift import Drift
from syncd.inbound.policy import PullPolicy
from syncd.providers.contract import Provider
from syncd.store import Store
from syncd.store.mirror import Scope
from syncd.store.runs import Run
from syncd.transport import Transport

if TYPE_CHECKING:
    from syncd.inbound.inspection import Inspection

_ALWAYS = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: rows written and bytes received by it so far, and of what is asked for one by one how
    many are ``done`` of how many in ``total``. ``is_receiving``: its answer is still coming. ``share_read`` of a large
    answer has been decoded, from 0 to 1."""

    stream: str
    rows: int
    bytes: int
    done: int = 0
    total: int | None = None
    is_receiving: bool = False
    share_read: float | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one account's pulling. ``on_progress`` hears of every batch. An ``inspection`` says what is asked
    for instead of what is due, and watches how it stood; then every row that is shown is marked as seen now.
    ``give_way`` is awaited before each request: a backfill lets live traffic go first. ``drift`` is one run's own: what
    it sees of the shape of its answers."""

    store: Store
    provider: Provider
    transport: Transport
    clock: Clock
    account: Account
    policy: PullPolicy
    on_progress: Callable[[Progress], None] | None = None
    inspection: Inspection | None = None
    give_way: Callable[[], Awaitable[None]] | None = None
    drift: Drift = field(default_factory=Drift)

    def scope(self, run: Run) -> Scope:
        """Return what the writes of a run are told."""
        now = self.clock.now()
        return Scope(
            account_id=self.account.id,
            run_id=run.id,
            now=now,
            asked_at=run.started_at,
            touch_before=_ALWAYS if self.inspection else now - timedelta(seconds=self.policy.touch_every_s),
            absence_gap_s=self.policy.absence_gap_s,
            grace_s=self.policy.grace_s,
            awaits_proof=run.awaits_proof,
            owners=self.policy.owners,
            is_strange=self.drift.is_strange,
        )

    def progressed(self, stream: str, rows: int, size: int, *, done: int = 0, total: int | None = None) -> None:
        """Tell whoever watches."""
        self.tell(Progress(stream, rows, size, done, total))

    def tell(self, progress: Progress) -> None:
        """Tell whoever watches of more than numbers."""
        if self.on_progress is not None:
            self.on_progress(progress)


class NotBelieved(MalformedAnswer):
    """A well-formed answer that known facts speak against; raised to roll back what was written of it."""
