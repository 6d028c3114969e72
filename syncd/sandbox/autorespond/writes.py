"""The 13 writes, each named after its operation. All checks come first: a refused call leaves the state as it was."""

from __future__ import annotations

from syncd.sandbox.autorespond.call import Call
from syncd.sandbox.autorespond.checks import Fall, Refusal, invalid
from syncd.sandbox.autorespond.encode import Row
from syncd.sandbox.autorespond.reads import relation_with_email
from syncd.sandbox.records import Relation

TEXTS = {"firstName": "first_name", "suffix": "suffix", "lastName": "last_name"}


def relation_upsert(call: Call) -> Row:
    """Heading "Create or Update Relation": by e-mail address."""
    email = call.arguments.email("email")
    profile = _profile(call)
    relation = call.find(email)
    if relation is None:
        relation = call.world.add_relation(email, **profile)
    else:
        if call.switches.omitted == "blanked":
            profile = {"first_name": "", "suffix": "", "last_name": "", "gender": "-", **profile}
        call.world.change_relation(relation.id, **profile)
    return call.encoder.relation(call.world.relations[relation.id])


def _profile(call: Call) -> dict[str, object]:
    """Check the optional parameters and return those given."""
    arguments = call.arguments
    profile: dict[str, object] = {
        ours: arguments.given[name] for name, ours in TEXTS.items() if name in arguments.given
    }
    if "gender" in arguments.given:
        profile["gender"] = arguments.choice("gender", ("M", "F", "-"))
    if "type" in arguments.given:
        profile["type"] = arguments.sized("type", 1, 1)
    if "customer" in arguments.given:
        profile["customer"] = arguments.choice("customer", ("y", "n"))
    if "password" in arguments.given:
        profile["has_password"] = bool(arguments.sized("password", 6, 20))
    return profile


def relation_email(call: Call) -> bool:
    """Heading "Update Relation Email": an address in use by another is refused."""
    relation = call.relation("id")
    email = call.arguments.email("newemail")
    holder = call.find(email)
    if holder is not None and holder.id != relation.id:
        raise invalid("e-mail address already in use")
    call.world.change_relation(relation.id, email=email)
    return True


def tag_add(call: Call) -> bool:
    """Heading "Add Tag To Relation": no action if it is there."""
    relation, tag = call.relation("relId"), call.tag("tagId")
    call.world.tag(relation, tag)
    return True


def tag_add_by_email(call: Call) -> str:
    """Heading "Add Tag To Relation with given email"."""
    tag = call.tag("tagId")
    call.world.tag(relation_with_email(call), tag)
    return "ok"


def tag_remove(call: Call) -> bool:
    """Heading "Remove Tag From Relation": no action if it is not there."""
    relation, tag = call.relation("relId"), call.tag("tagId")
    call.world.untag(relation, tag)
    return True


def field_set(call: Call) -> bool:
    """Heading "Set a Free field For a Relation"; standard fields are none."""
    relation = call.relation("relId")
    code, value = call.arguments.filled("fieldCode"), call.arguments.text("fieldValue")
    field = call.world.fields.get(code)
    if field is None or not field.is_free:
        raise Refusal(Fall.UNKNOWN, f"free field not found: {code}")
    call.world.set_field(relation, code, value)
    return True


def field_create(call: Call) -> int:
    """Heading "Create New Free Field within an Administration": returns the id, though setting wants the code."""
    arguments = call.arguments
    name, label = arguments.field_name("fieldName"), arguments.filled("fieldLabel")
    kind = arguments.choice("fieldType", ("boolean", "string", "list"))
    options = _options(call) if kind == "list" else ()
    if any(field.name.lower() == name.lower() for field in call.world.fields.values()):
        raise invalid(f"field name already in use: {name}")
    return call.world.create_field(name, label, kind, options).id


def _options(call: Call) -> tuple[str, ...]:
    text = call.arguments.filled("fieldOptions")
    if len(text) >= 2048:
        raise invalid("fieldOptions must be shorter than 2048 characters")
    return tuple(option.strip() for option in text.split(","))


def group_add(call: Call) -> bool:
    """Heading "Add Relation To group": no action if it is a member."""
    group, relation = call.group("grpId"), call.relation("relId")
    call.world.join(relation, group.id)
    return True


def group_remove(call: Call) -> bool:
    """Heading "Remove Relation From group": no action if it is no member."""
    group, relation = call.group("grpId"), call.relation("relId")
    call.world.leave(relation, group.id)
    return True


def list_subscribe(call: Call) -> bool:
    """Heading "Start Listmanager": each call mails."""
    number, relation = call.listmanager("listId").id, _subscriber(call)
    call.world.subscribe(relation, number, skips_optin=_skips_optin(call))
    return True


def list_gdpr_subscribe(call: Call) -> bool:
    """Heading "Start Listmanager with GDPR Data": each call mails and records a consent."""
    arguments = call.arguments
    number, relation, skips = call.listmanager("listId").id, _subscriber(call), _skips_optin(call)
    consent = {
        "privacyText": arguments.text("privacyText"),
        "privacyAgreement": arguments.choice("privacyAgreement", ("Y", "N")),
        "privacyUrl": arguments.text("privacyUrl"),
        "consentText": arguments.text("consentText"),
        "consentAgreement": arguments.choice("consentAgreement", ("Y", "N")),
        "ip": arguments.address("ip"),
    }
    call.world.subscribe(relation, number, skips_optin=skips, consent=consent)
    return True


def list_unsubscribe(call: Call) -> bool:
    """Heading "Stop Listmanager": each call adds a note and an event."""
    number, relation = call.listmanager("listId").id, _subscriber(call)
    call.world.unsubscribe(relation, number, call.arguments.text("reason"))
    return True


def _subscriber(call: Call) -> Relation:
    return call.relation_with(call.arguments.positive("relId"))


def _skips_optin(call: Call) -> bool:
    return call.arguments.choice("skipOptin", ("Y", "N"), "N") == "Y"


def subscription_end(call: Call) -> bool:
    """Heading "End Existing Subscription"."""
    number = call.arguments.number("id")
    ends_on = call.arguments.date("endDate", "%d-%m-%Y", "DD-MM-YYYY")
    if number not in call.world.order_of_subscription:
        raise Refusal(Fall.UNKNOWN, f"subscription not found: {number}")
    call.world.end_subscription(number, ends_on)
    return True
