"""Mailing lists: every call mails, notes or records something, so none is ever repeated blindly.

On a repeat the relation's subscriptions are read first. Showing the wanted state, they prove that an earlier try
arrived, unless the relation may have stood so before that: a second subscription to the same list looks like the first.
Not showing it, they prove nothing: a mail may be out and a delayed call may still land. That is for a person.

A list call that the CRM said yes to and does not show at once may still be under way there: it is read once more when
that is over, and has diverged if it is not shown then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from syncd.domain.changes import Subscribe, SubscribeWithConsent, Unsubscribe
from syncd.domain.records import Row, Subscription
from syncd.policy.proof import Sight, by_standing
from syncd.providers.autorespond import decode
from syncd.providers.autorespond.judgement import Said
from syncd.providers.autorespond.streams import latest_rows
from syncd.providers.autorespond.writes.dialogue import Asking, Dialogue, Found, accepted, undecided
from syncd.providers.autorespond.writes.finding import Whom, whom
from syncd.providers.contract import Conversation, Delivered, Outcome, Proof, Rejected, Target, Unknown

ListCall: TypeAlias = Subscribe | SubscribeWithConsent | Unsubscribe

_NO_LIST = Rejected("the list has no remote id yet; pull the lists and run syncd outbox retry")


def subscribe(dialogue: Dialogue, change: Subscribe, target: Target) -> Conversation:
    """Start the list for the relation; it may mail them."""
    said = {"skipOptin": "Y" if change.skip_optin else None}
    return (yield from _write(dialogue, change, target, "list_subscribe", said))


def subscribe_with_consent(dialogue: Dialogue, change: SubscribeWithConsent, target: Target) -> Conversation:
    """Start the list and record what the person agreed to, where and from which address."""
    said = {
        "skipOptin": "Y" if change.skip_optin else None,
        "privacyText": change.privacy_text,
        "privacyAgreement": _letter(change.privacy_agreement),
        "privacyUrl": change.privacy_url,
        "consentText": change.consent_text,
        "consentAgreement": _letter(change.consent_agreement),
        "ip": change.ip,
    }
    return (yield from _write(dialogue, change, target, "list_gdpr_subscribe", said))


def unsubscribe(dialogue: Dialogue, change: Unsubscribe, target: Target) -> Conversation:
    """Stop the list for the relation, with the reason that the CRM notes."""
    return (yield from _write(dialogue, change, target, "list_unsubscribe", {"reason": change.reason}))


def _write(
    dialogue: Dialogue, change: ListCall, target: Target, operation: str, said: Mapping[str, str | None]
) -> Conversation:
    if change.list_remote_id is None:
        return _NO_LIST
    who = yield from whom(dialogue, target)
    if not isinstance(who, Whom):
        return undecided(who) if target.is_repeat else who
    if target.is_repeat:
        return (yield from _read_back(dialogue, who, change, target))
    reply = yield from dialogue.write(operation, {"listId": change.list_remote_id}, relId=who.remote_id, **said)
    if not isinstance(reply, Said):
        return reply
    if not dialogue.verify_writes:
        return accepted(reply, who.learned)
    seen = yield from _read_back(dialogue, who, change, target)
    return seen if isinstance(seen, Delivered) else replace(accepted(reply, who.learned), is_unshown=True)


def _read_back(dialogue: Dialogue, who: Whom, change: ListCall, target: Target) -> Asking[Outcome]:
    found = yield from dialogue.read_list("relation_subscriptions", decode.SUBSCRIPTION, {"id": who.remote_id})
    if not isinstance(found, Found):
        return undecided(found)
    wanted = "unsubscribed" if isinstance(change, Unsubscribe) else "subscribed"
    stands = standing(found.records, change.list_remote_id)
    match by_standing(change, stands, target.since, None, target.stood_at).sight:
        case Sight.EXPECTED:
            return Delivered(Proof.VERIFIED, who.learned, "the CRM shows it")
        case Sight.UNTOLD:
            told = f"the CRM shows the relation as {wanted}, perhaps since before this change, which proves nothing"
            return Unknown(told)
        case Sight.OTHER:
            return Unknown(
                f"the CRM does not show the relation as {wanted}, which does not prove that nothing was sent"
            )


def standing(events: Iterable[Subscription], list_id: str | None) -> Subscription | None:
    """Return a relation's latest standing on a list; None when no event speaks of it."""
    latest = latest_rows(Row(event, b"") for event in events)
    return next((row.record for row in latest if row.record.list_remote_id == list_id), None)


def _letter(flag: bool) -> str:
    return "Y" if flag else "N"
