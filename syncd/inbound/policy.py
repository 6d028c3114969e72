"""What pulling may use up and whom it believes; settings fill this in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from syncd.policy.ladder import Rung
from syncd.policy.merge import Owners
from syncd.policy.rewrite import RewriteRule
from syncd.policy.windows import WindowRule
from syncd.policy.witness import WitnessRule


@dataclass(frozen=True, slots=True)
class PullPolicy:
    """``window`` says from when to ask and what an answer proves, ``ladder`` how often older time is read again. The
    three witness rules say how much of what is known may be gone from an answer: of a window, of a snapshot, of one
    group's members.

    What a run would change of known rows beyond ``rewrite`` is asked about first.

    A second absence counts ``absence_gap_s`` after the first. ``sweep_budget`` bounds the calls of one sweep or
    follow-up run. What an answer has proven within ``proven_s`` is not asked for by a backfill. Unpaid orders older
    than ``unpaid_days`` are given up as settled. Unchanged rows get a new ``last_seen_at`` every ``touch_every_s``.
    ``detail_attempts`` failed calls end an invoice's detail, or its PDF; between them it waits ``detail_backoff_s``, or
    ``refusal_backoff_s`` where the CRM said no, doubled each time, up to a day: for more than a day if it fails, for
    some days if it is refused. A run of ``strikes`` failed calls in a row ends a sweep. ``batch_rows`` of an answer are
    written at a time, ``sweep_batch`` small answers in one transaction. ``pages`` bounds the requests of one answer.
    Until ``grace_s`` after a delivery, an answer that does not show it says nothing. ``probe_*`` and ``breaker_*`` are
    the waits after a canary that failed, the drainer's own: between the two bounds, ever longer. A host that has been
    out of reach for ``away_s`` pauses the account. ``owners`` say whose value counts where both sides moved a field.
    ``files`` is where PDFs of invoices are kept, None nowhere; one of more than ``file_bytes`` is refused.
    """

    window: WindowRule = field(default_factory=WindowRule)
    ladder: tuple[Rung, ...] = ()
    window_witness: WitnessRule = field(default_factory=WitnessRule)
    snapshot_witness: WitnessRule = field(default_factory=lambda: WitnessRule(few=3, max_gone_share=0.2))
    member_witness: WitnessRule = field(
        default_factory=lambda: WitnessRule(few=3, max_gone_share=0.2, may_be_empty=True)
    )
    rewrite: RewriteRule = field(default_factory=RewriteRule)
    absence_gap_s: float = 3600
    grace_s: float = 180
    touch_every_s: float = 86400
    sweep_budget: int = 500
    proven_s: float = 7 * 86400.0
    unpaid_days: int = 400
    sweep_batch: int = 20
    detail_attempts: int = 12
    detail_backoff_s: float = 60
    refusal_backoff_s: float = 3600
    strikes: int = 3
    batch_rows: int = 2000
    pages: int = 1000
    throttle_s: float = 30
    probe_s: float = 30
    probe_max_s: float = 900
    breaker_pause_s: float = 5
    breaker_pause_max_s: float = 300
    away_s: float = 300
    time_limit_s: float | None = None
    owners: Owners = field(default_factory=Owners)
    files: Path | str | None = None
    file_bytes: int = 32 << 20
