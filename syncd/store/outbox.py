"""The outbox: its verbs in the order in which a change meets them. Each lives in a file of its own."""

from syncd.store.outbox_claim import Claim, ClaimedLane, Terms, claim
from syncd.store.outbox_lease import Renewal, already_settled, renew
from syncd.store.outbox_operate import retry_entry, skip_entry
from syncd.store.outbox_read import (
    Backlog,
    EntryStory,
    OutboxEntry,
    PastAttempt,
    Selection,
    count_backlog,
    list_entries,
    show_entry,
)
from syncd.store.outbox_results import AttemptRow, EntrySettlement, LaneSettlement, Reassertion, Settled
from syncd.store.outbox_settle import settle
from syncd.store.outbox_stage import stage

__all__ = [
    "AttemptRow",
    "Backlog",
    "Claim",
    "ClaimedLane",
    "EntrySettlement",
    "EntryStory",
    "LaneSettlement",
    "OutboxEntry",
    "PastAttempt",
    "Reassertion",
    "Renewal",
    "Selection",
    "Settled",
    "Terms",
    "already_settled",
    "claim",
    "count_backlog",
    "list_entries",
    "renew",
    "retry_entry",
    "settle",
    "show_entry",
    "skip_entry",
    "stage",
]
