"""The state of the simulated CRM, and the only code that changes it: each change is journaled, each no-op is silent.

Anybody may look into the collections; whoever wants to change something calls a verb here, so that the journal tells
the whole truth. The verbs know nothing of HTTP, of parameters or of faults.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import msgspec

from syncd.sandbox.clock import MovableClock
from syncd.sandbox.journal import Journal
from syncd.sandbox.records import (
    Event,
    Field,
    Group,
    Invoice,
    ListManager,
    Note,
    Order,
    OrderLine,
    PlannedMail,
    Relation,
    Tag,
)

PROFILE = ("email", "first_name", "suffix", "last_name", "gender", "type", "customer", "funnel_state", "has_password")


@dataclass(frozen=True, slots=True)
class Administration:
    """The tenant. ``access_code`` is a secret that the API gives away: nobody may keep or log it."""

    id: int = 4711
    key: str = "sandbox-key"
    company_id: int = 815
    access_code: str = "sandbox-access-code"
    service_level: str = "PRO"
    name: str = "Bakkerij De Gouden Aar"
    email: str = "beheer@goudenaar.example"


class World:
    """One administration: relations with their tags, groups, fields and events; lists, orders and invoices."""

    def __init__(self, now: datetime | None = None, administration: Administration | None = None) -> None:
        self.administration = administration or Administration()
        self.clock = MovableClock(now)
        self.journal = Journal(self.clock)
        self.relations: dict[int, Relation] = {}
        self.tags: dict[int, Tag] = {}
        self.groups: dict[int, Group] = {}
        self.lists: dict[int, ListManager] = {}
        self.fields: dict[str, Field] = {}
        self.orders: dict[int, Order] = {}
        self.orders_of: defaultdict[int, list[int]] = defaultdict(list)
        self.order_of_subscription: dict[int, int] = {}
        self.invoices: dict[tuple[str, bool], Invoice] = {}
        self.notes: list[Note] = []
        self.mails: list[PlannedMail] = []
        self._ids_by_email: defaultdict[str, list[int]] = defaultdict(list)

    @classmethod
    def seeded(
        cls,
        relations: int = 50,
        orders: int = 80,
        invoices: int = 40,
        seed: int = 1,
        now: datetime | None = None,
        administration: Administration | None = None,
    ) -> World:
        """Return a world of believable Dutch data, the same for the same arguments.

        Given ``now`` its clock stands still there; given none it runs with the system's, and so do the data.
        """
        from syncd.sandbox.seed import sow

        world = cls(now, administration)
        sow(world, relations=relations, orders=orders, invoices=invoices, seed=seed)
        return world

    # Relations

    def relation(self, email: str, *, is_exact: bool = False) -> Relation | None:
        """Find a relation by e-mail address, whatever its case unless ``is_exact``."""
        ids = self._ids_by_email.get(email.lower())
        if not ids:
            return None
        found = (self.relations[each] for each in ids)
        return next((each for each in found if not is_exact or each.email == email), None)

    def add_relation(self, email: str, **profile: Any) -> Relation:
        """Create a relation; its id is the next one unless given."""
        number = profile.pop("id", None) or max(self.relations, default=100_000) + 1
        relation = Relation(id=number, email=email, **profile)
        self.place(relation)
        self.journal.record("relation.created", _who(relation), None, _profile(relation))
        return relation

    def place(self, relation: Relation) -> None:
        """Put a relation into the world unseen, as a seed does."""
        self.relations[relation.id] = relation
        self._ids_by_email[relation.email.lower()].append(relation.id)
        for group in relation.groups:
            self.groups[group].members[relation.id] = None

    def change_relation(self, number: int, **changes: Any) -> bool:
        """Change a profile, the e-mail address included; return whether anything differed."""
        old = self.relations[number]
        moved = {name: value for name, value in changes.items() if getattr(old, name) != value}
        if not moved:
            return False
        new = msgspec.structs.replace(old, **moved)
        if "email" in moved:
            self._forget_email(old)
            self._ids_by_email[new.email.lower()].append(number)
        self.relations[number] = new
        kind = "relation.email_changed" if "email" in moved else "relation.changed"
        self.journal.record(kind, _who(new), {name: getattr(old, name) for name in moved}, moved)
        return True

    def delete_relation(self, number: int) -> None:
        """Remove a relation; its orders and invoices stay, as documents do."""
        relation = self.relations.pop(number)
        self._forget_email(relation)
        for group in relation.groups:
            self.groups[group].members.pop(number, None)
        self.journal.record("relation.deleted", _who(relation), _profile(relation), None)

    def _forget_email(self, relation: Relation) -> None:
        ids = self._ids_by_email[relation.email.lower()]
        ids.remove(relation.id)
        if not ids:
            del self._ids_by_email[relation.email.lower()]

    # Tags, groups, fields

    def tag_names(self, relation: Relation) -> list[str]:
        """Return the names of a relation's tags, in the order of their ids."""
        return [self.tags[tag].name for tag in sorted(relation.tags) if tag in self.tags]

    def add_tag(self, name: str, number: int | None = None) -> Tag:
        """Create a tag; a second one of the same name is allowed, as in the CRM's own screens."""
        tag = Tag(number or max(self.tags, default=300) + 1, name)
        self.tags[tag.id] = tag
        self.journal.record("tag.created", f"tag:{tag.id}", None, name)
        return tag

    def rename_tag(self, number: int, name: str) -> None:
        """Give a tag another name under its id."""
        before = self.tags[number].name
        self.tags[number] = Tag(number, name)
        self.journal.record("tag.renamed", f"tag:{number}", before, name)

    def tag(self, relation: Relation, tag: int) -> None:
        """Put a tag on a relation; nothing happens if it is there."""
        if tag not in relation.tags:
            relation.tags.add(tag)
            self.journal.record("tag.added", _who(relation), None, tag)

    def untag(self, relation: Relation, tag: int) -> None:
        """Take a tag off a relation; nothing happens if it is not there."""
        if tag in relation.tags:
            relation.tags.discard(tag)
            self.journal.record("tag.removed", _who(relation), tag, None)

    def join(self, relation: Relation, group: int) -> None:
        """Add a relation to a group; nothing happens if it is a member."""
        if group not in relation.groups:
            relation.groups.add(group)
            self.groups[group].members[relation.id] = None
            self.journal.record("group.joined", _who(relation), None, group)

    def leave(self, relation: Relation, group: int) -> None:
        """Remove a relation from a group; nothing happens if it is no member."""
        if group in relation.groups:
            relation.groups.discard(group)
            self.groups[group].members.pop(relation.id, None)
            self.journal.record("group.left", _who(relation), group, None)

    def create_field(self, name: str, label: str, kind: str, options: tuple[str, ...] = ()) -> Field:
        """Create a free field; its code bears the administration and the milliseconds of its birth."""
        millis = int(self.clock.now().timestamp() * 1000)
        while (code := f"{self.administration.id}_FF{millis}") in self.fields:
            millis += 1
        number = max((field.id for field in self.fields.values()), default=0) + 1
        field = self.fields[code] = Field(number, code, name, label, kind, options)
        self.journal.record("field.created", f"field:{code}", None, name)
        return field

    def set_field(self, relation: Relation, code: str, value: str) -> None:
        """Give a relation a free-field value. No read of the API ever shows it; ``relation.fields`` does."""
        before = relation.fields.get(code)
        if before != value:
            relation.fields[code] = value
            self.journal.record("field.set", f"{_who(relation)}/{code}", before, value)

    # Lists: nothing here is repeat-safe

    def subscribe(self, relation: Relation, number: int, *, skips_optin: bool, consent: object = None) -> None:
        """Start a list: each call is an event and plans a mail; without the opt-in step the group is joined at once."""
        at = self.clock.now()
        relation.events.append(Event(number, "S", at))
        self.journal.record("list.subscribed", f"{_who(relation)}/list:{number}", None, consent)
        self._plan_mail(relation, number, "welcome" if skips_optin else "optin")
        if skips_optin:
            self.join(relation, self.lists[number].group_id)

    def unsubscribe(self, relation: Relation, number: int, reason: str) -> None:
        """Stop a list: each call adds a note and an event; planned mails go, and so does the membership."""
        at = self.clock.now()
        self.notes.append(Note(relation.id, reason, at))
        self.journal.record("contact.noted", _who(relation), None, reason)
        relation.events.append(Event(number, "U", at))
        self.journal.record("list.unsubscribed", f"{_who(relation)}/list:{number}")
        dropped = [mail for mail in self.mails if (mail.relation_id, mail.list_id) == (relation.id, number)]
        if dropped:
            self.mails = [mail for mail in self.mails if mail not in dropped]
            self.journal.record("mails.dropped", f"{_who(relation)}/list:{number}", len(dropped), 0)
        self.leave(relation, self.lists[number].group_id)

    def _plan_mail(self, relation: Relation, number: int, template: str) -> None:
        self.mails.append(PlannedMail(relation.id, number, template, self.clock.now()))
        self.journal.record("mail.planned", f"{_who(relation)}/list:{number}", None, template)

    # Orders and invoices

    def place_order(self, order: Order) -> None:
        """Put an order into the world unseen, as a seed does."""
        self.orders[order.id] = order
        self.orders_of[order.relation_id].append(order.id)
        for line in order.lines:
            if line.subscription_id is not None:
                self.order_of_subscription[line.subscription_id] = order.id

    def add_order(
        self, relation_id: int, lines: tuple[OrderLine, ...], *, is_paid: bool = True, at: datetime | None = None
    ) -> Order:
        """Place an order, now unless another instant is given."""
        number = max(self.orders, default=500_000) + 1
        order = Order(number, relation_id, at or self.clock.now(), is_paid, lines)
        self.place_order(order)
        self.journal.record("order.placed", f"order:{number}", None, is_paid)
        return order

    def change_order(self, number: int, **changes: Any) -> None:
        """Change an order in place, as late payment or a new invoice number does; nothing tells the client."""
        old = self.orders[number]
        self.orders[number] = msgspec.structs.replace(old, **changes)
        self.journal.record("order.changed", f"order:{number}", {name: getattr(old, name) for name in changes}, changes)

    def pay_order(self, number: int) -> None:
        """Pay an order; no timestamp says when."""
        self.change_order(number, is_paid=True)

    def delete_order(self, number: int) -> None:
        """Remove an order for good."""
        order = self.orders.pop(number)
        self.orders_of[order.relation_id].remove(number)
        for line in order.lines:
            if line.subscription_id is not None:
                self.order_of_subscription.pop(line.subscription_id, None)
        self.journal.record("order.deleted", f"order:{number}", order.is_paid, None)

    def end_subscription(self, number: int, ends_on: date) -> None:
        """End a running subscription on a day."""
        order = self.orders[self.order_of_subscription[number]]
        line = next(each for each in order.lines if each.subscription_id == number)
        if line.ends_on == ends_on:
            return
        ended = msgspec.structs.replace(line, ends_on=ends_on)
        lines = tuple(ended if each is line else each for each in order.lines)
        self.orders[order.id] = msgspec.structs.replace(order, lines=lines)
        self.journal.record("subscription.ended", f"subscription:{number}", line.ends_on, ends_on)

    def add_invoice(self, invoice: Invoice) -> None:
        """Put an invoice into the world."""
        self.invoices[invoice.number, invoice.is_credit] = invoice
        self.journal.record("invoice.made", f"invoice:{invoice.number}", None, invoice.is_credit)


def _who(relation: Relation) -> str:
    return f"relation:{relation.id}"


def _profile(relation: Relation) -> dict[str, object]:
    return {name: getattr(relation, name) for name in PROFILE}
