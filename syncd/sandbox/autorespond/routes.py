"""The 29 endpoints of Autorespond's REST API 1.0 as rows: operation, verb, path, parameters, the name of its payload.

The reference names no verbs; these are the recommended ones, and the switches ``verbs`` and ``places`` try others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from syncd.domain.errors import UserError
from syncd.sandbox.autorespond import reads, writes
from syncd.sandbox.autorespond.call import Call, Payload
from syncd.sandbox.switches import Place, Switches


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. ``named`` is the key of its payload where the envelope is a named one."""

    operation: str
    verb: str
    path: str
    answer: Callable[[Call], Payload]
    named: str
    parameters: tuple[str, ...] = ()
    is_signed: bool = True

    def place(self, verb: str, switches: Switches) -> Place:
        """Say where the parameters are read: the form for POST, the query for all else, unless switched."""
        return switches.places.get(self.operation, "form" if verb == "POST" else "query")


CONSENT = ("privacyText", "privacyAgreement", "privacyUrl", "consentText", "consentAgreement", "ip")
PROFILE = ("email", "firstName", "suffix", "lastName", "gender", "type", "password", "customer")
FIELD = ("fieldName", "fieldLabel", "fieldType", "fieldOptions")

ROUTES: tuple[Route, ...] = (
    Route("version", "GET", "version", reads.version, "version", is_signed=False),
    Route("fields", "GET", "fields", reads.fields, "fields"),
    Route("tags", "GET", "tags", reads.tags, "tags"),
    Route("administration", "GET", "admins/{id}", reads.administration, "admin"),
    Route("lists", "GET", "listmanagers", reads.lists, "list"),
    Route(
        "list_gdpr_subscribe",
        "POST",
        "listmanagers/{listId}/gdpr_subscribe",
        writes.list_gdpr_subscribe,
        "result",
        ("relId", "skipOptin", *CONSENT),
    ),
    Route(
        "list_subscribe",
        "POST",
        "listmanagers/{listId}/subscribe",
        writes.list_subscribe,
        "result",
        ("relId", "skipOptin"),
    ),
    Route(
        "list_unsubscribe",
        "POST",
        "listmanagers/{listId}/unsubscribe",
        writes.list_unsubscribe,
        "result",
        ("relId", "reason"),
    ),
    Route(
        "subscription_end",
        "POST",
        "orders/subscriptions/{id}/end",
        writes.subscription_end,
        "result",
        ("endDate",),
    ),
    Route("invoice_file", "GET", "invoices/{invoiceNumber}", reads.invoice_file, "invoice"),
    Route("invoice_detail", "GET", "invoice/{invoiceNumber}", reads.invoice_detail, "invoice"),
    Route("invoices", "GET", "invoices", reads.invoices, "invoices", ("dateFrom",)),
    Route("relation_orders", "GET", "orders/relation/{id}", reads.relation_orders, "orders"),
    Route("orders", "GET", "orders", reads.orders, "orders", ("paid", "hours")),
    Route("group_add", "POST", "group/{grpId}/member/{relId}", writes.group_add, "result"),
    Route("field_create", "POST", "field", writes.field_create, "id", FIELD),
    Route("relation_upsert", "POST", "relation", writes.relation_upsert, "relation", PROFILE),
    Route("groups", "GET", "groups", reads.groups, "groups"),
    Route("group_members", "GET", "groups/{grpId}/relations", reads.group_members, "relations"),
    Route("relation_by_email", "GET", "relation", reads.relation_by_email, "relation", ("email",)),
    Route("relation_by_id", "GET", "relation/{id}", reads.relation_by_id, "relation"),
    Route("group_remove", "DELETE", "group/{grpId}/member/{relId}", writes.group_remove, "result"),
    Route("relation_subscriptions", "GET", "relation/{id}/subscriptions", reads.relation_subscriptions, "list"),
    Route("relation_email", "POST", "relation/{id}/email", writes.relation_email, "result", ("newemail",)),
    Route("tag_add_by_email", "POST", "relation/addtag/{tagId}", writes.tag_add_by_email, "status", ("email",)),
    Route("tag_add", "POST", "relation/{relId}/addtag/{tagId}", writes.tag_add, "result"),
    Route("tag_remove", "POST", "relation/{relId}/removetag/{tagId}", writes.tag_remove, "result"),
    Route("field_set", "POST", "relation/{relId}/setfield", writes.field_set, "result", ("fieldCode", "fieldValue")),
    Route("relation_tags", "GET", "relation/{id}/tags", reads.relation_tags, "tags"),
)
OPERATIONS = tuple(route.operation for route in ROUTES)


@dataclass(frozen=True, slots=True)
class Found:
    """The endpoints whose path matches, by the verb each answers to, and the path's names."""

    by_verb: Mapping[str, Route]
    names: dict[str, str]


class Router:
    """Finds the endpoints of a path under one set of switches; literal segments win over names."""

    def __init__(self, switches: Switches) -> None:
        for name in (*switches.verbs, *switches.places):
            if name not in OPERATIONS:
                raise UserError(f"there is no operation {name!r}; there are: {', '.join(OPERATIONS)}")
        self._templates: dict[tuple[int, str], list[tuple[tuple[str, ...], dict[str, Route]]]] = {}
        for route in ROUTES:
            segments = tuple(route.path.split("/"))
            kept = self._templates.setdefault((len(segments), segments[0]), [])
            by_verb = next((each for shape, each in kept if _same_shape(shape, segments)), None)
            if by_verb is None:
                by_verb = {}
                kept.append((segments, by_verb))
            verb = switches.verbs.get(route.operation, route.verb).upper()
            if verb in by_verb:
                raise UserError(f"{route.operation} and {by_verb[verb].operation} cannot both be {verb} {route.path}")
            by_verb[verb] = route
        for kept in self._templates.values():
            kept.sort(key=lambda each: sum(segment.startswith("{") for segment in each[0]))

    def find(self, path: str) -> Found | None:
        """Match a raw path, still percent-encoded: an encoded slash stays inside its segment."""
        segments = path.split("/")
        for shape, by_verb in self._templates.get((len(segments), segments[0]), ()):
            names = _match(shape, segments)
            if names is not None:
                return Found(by_verb, names)
        return None


def _same_shape(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    return all(a == b or (a[0] == "{" and b[0] == "{") for a, b in zip(left, right, strict=True))


def _match(shape: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    names = {}
    for expected, segment in zip(shape, segments, strict=True):
        if expected[0] == "{":
            if not segment:
                return None
            names[expected[1:-1]] = unquote(segment)
        elif expected != segment:
            return None
    return names
