"""Paid subscriptions: end one at a date. It touches money, so on a repeat it is read back and never sent again."""

from __future__ import annotations

from collections.abc import Iterable

from syncd.domain.changes import EndSubscription
from syncd.domain.records import Order
from syncd.providers.autorespond import decode
from syncd.providers.autorespond.judgement import Said
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found, accepted, undecided
from syncd.providers.autorespond.writes.finding import Whom, whom
from syncd.providers.contract import Conversation, Delivered, Outcome, Proof, Target, Unknown


def end(dialogue: Dialogue, change: EndSubscription, target: Target) -> Conversation:
    """End the subscription, unless an earlier try may have done so: then its orders are read instead."""
    if target.is_repeat:
        return (yield from _read_back(dialogue, change, target))
    reply = yield from dialogue.write(
        "subscription_end", {"id": change.subscription_id}, endDate=change.ends_on.strftime("%d-%m-%Y")
    )  # fmt: skip
    return accepted(reply) if isinstance(reply, Said) else reply


def _read_back(dialogue: Dialogue, change: EndSubscription, target: Target) -> Asking[Outcome]:
    who = yield from whom(dialogue, target)
    if not isinstance(who, Whom):
        return undecided(who)
    found = yield from dialogue.read_list("relation_orders", decode.ORDER, {"id": who.remote_id})
    if not isinstance(found, Found):
        return undecided(found)
    if _is_ended(found.records, change):
        return Delivered(Proof.VERIFIED, who.learned, "the CRM shows the end date")
    return Unknown("the CRM does not show this end date, which does not prove that an earlier try will not arrive")


def _is_ended(orders: Iterable[Order], change: EndSubscription) -> bool:
    lines = (line for order in orders for line in order.lines)
    return any(
        line.subscription_id == change.subscription_id and line.subscription_ends_on == change.ends_on for line in lines
    )
