"""The outbox: its verbs in the order in which a change meets them. Each lives in a file of its own."""

from syncd.store.outbox_backlog import Backlog, count_backlog
from syncd.store.outbox_claim import Claim, ClaimedLane, Terms, claim
from syncd.store.outbox_contest import write_contests
from syncd.store.outbox_guard import Sightings, set_first_guard, set_guard
from syncd.store.outbox_hold import carry_out, decide, unfinished
from syncd.store.outbox_intent import write_begun
from syncd.store.outbox_lease import Renewal, already_settled, renew
from syncd.store.outbox_operate import pause_accounts, resume_accounts, retry_entries, skip_entries
from syncd.store.outbox_prune import Pruned, prune
from syncd.store.outbox_read import (
    EntryStory,
    OutboxEntry,
    PastAttempt,
    ReasonGroup,
    Selection,
    count_entries,
    group_by_reason,
    list_entries,
    show_entry,
)
from syncd.store.outbox_results import AttemptRow, Contest, EntrySettlement, LaneSettlement, Reassertion, Settled
from syncd.store.outbox_settle import settle
from syncd.store.outbox_stage import Stager, end_still_stager, stage
from syncd.store.outbox_summary import Became, HoldRow, HoldSummary, list_holds, summarise
from syncd.store.outbox_withhold import withhold

__all__ = [
    "AttemptRow",
    "Backlog",
    "Became",
    "Claim",
    "ClaimedLane",
    "Contest",
    "EntrySettlement",
    "EntryStory",
    "HoldRow",
    "HoldSummary",
    "LaneSettlement",
    "OutboxEntry",
    "PastAttempt",
    "Pruned",
    "ReasonGroup",
    "Reassertion",
    "Renewal",
    "Selection",
    "Settled",
    "Sightings",
    "Stager",
    "Terms",
    "already_settled",
    "carry_out",
    "claim",
    "count_backlog",
    "count_entries",
    "decide",
    "end_still_stager",
    "group_by_reason",
    "list_entries",
    "list_holds",
    "pause_accounts",
    "prune",
    "renew",
    "resume_accounts",
    "retry_entries",
    "set_first_guard",
    "set_guard",
    "settle",
    "show_entry",
    "skip_entries",
    "stage",
    "summarise",
    "unfinished",
    "withhold",
    "write_begun",
    "write_contests",
]
