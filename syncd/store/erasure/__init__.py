"""Erasure: removing a person from every table, for good.

**Order.** First the hashes are written and committed (``ledger``): from that moment no new pull writes the person. Then
the pulls that began before are waited for (``waiting``): they may not have seen the hashes. Only then are rows removed,
in small transactions: orders and invoices, then records kept unread (``kept``) and texts that speak of the person
(``texts``), and last, in one
transaction for each relation, its outbox, history, links and the relation itself (``relation``). The relation goes
last because everything else is found through it: killed anywhere, the same command finds what is left and goes on.

**Locks.** Each transaction takes first the receipt (so that two erasures of one person take turns), then, where the
outbox is concerned, the stage lock, the lane, the relation, as everybody here does, and asks for everything else
without waiting. Who is in the way is left alone and met again in a moment, so nothing here can close a circle.

**What is personal** is a register (``columns``): every column that could hold a value of a person is listed there with
how it is erased, or why it never holds one. A test compares it with the database.
"""

from syncd.store.erasure.kept import erase_kept, is_kept
from syncd.store.erasure.ledger import Opening, Receipt, begin, extend, find_open, finish, list_receipts, readmit
from syncd.store.erasure.person import Bearer, Person, Undelivered, is_in_hand, survey
from syncd.store.erasure.relation import erase_relation, refusal
from syncd.store.erasure.rows import Goal, erase_invoices, erase_orders
from syncd.store.erasure.texts import erase_texts
from syncd.store.erasure.waiting import Busy, older_writers, open_runs, still_writing

__all__ = [
    "Bearer",
    "Busy",
    "Goal",
    "Opening",
    "Person",
    "Receipt",
    "Undelivered",
    "begin",
    "erase_invoices",
    "erase_kept",
    "erase_orders",
    "erase_relation",
    "erase_texts",
    "extend",
    "find_open",
    "finish",
    "is_in_hand",
    "is_kept",
    "list_receipts",
    "older_writers",
    "open_runs",
    "readmit",
    "refusal",
    "still_writing",
    "survey",
]
