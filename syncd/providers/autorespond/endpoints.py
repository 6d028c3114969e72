"""All 29 endpoints of Autorespond's REST API 1.0, one row each, and the settings' say over them.

The reference names no verbs and does not tell query from body, so verb and place of every write are a default that
``ProviderOptions`` may override; those of reads are not, because each read was seen to work or can be nothing else.
An override that could never work (unknown name, a read, two operations on one verb and path) is refused at start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from syncd.domain.errors import ConfigurationError
from syncd.providers.contract import Effect, Endpoint, Place, ProviderOptions

_SAFE, _REPEAT, _ONCE, _CONSENT = Effect.SAFE, Effect.REPEAT_SAFE, Effect.ONCE, Effect.CONSENT
_FORM = Place.FORM
_VERBS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_BODILESS = frozenset({"GET", "DELETE"})
_PROFILE = ("firstName", "suffix", "lastName", "gender", "type", "customer")
_CONSENTS = ("privacyText", "privacyAgreement", "privacyUrl", "consentText", "consentAgreement", "ip")

# fmt: off
ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("version", "GET", "version", _SAFE, "text", "Administration - Get API Version",
             payload_key="version", is_signed=False),
    Endpoint("fields", "GET", "fields", _SAFE, "list", "Administration - Get All Fields", payload_key="fields"),
    Endpoint("tags", "GET", "tags", _SAFE, "list", "Administration - Get All Tags", payload_key="tags"),
    Endpoint("administration", "GET", "admins/{id}", _SAFE, "object", "Administration - Load Admin",
             payload_key="admin"),
    Endpoint("lists", "GET", "listmanagers", _SAFE, "list", "ListManagers - Show Listmanagers",
             payload_key="listmanagers"),
    Endpoint("list_gdpr_subscribe", "POST", "listmanagers/{listId}/gdpr_subscribe", _CONSENT, "boolean",
             "ListManagers - Start Listmanager with GDPR Data", ("relId", "skipOptin", *_CONSENTS), _FORM,
             payload_key="result", mails=True),
    Endpoint("list_subscribe", "POST", "listmanagers/{listId}/subscribe", _ONCE, "boolean",
             "ListManagers - Start Listmanager", ("relId", "skipOptin"), _FORM, payload_key="result", mails=True),
    Endpoint("list_unsubscribe", "POST", "listmanagers/{listId}/unsubscribe", _ONCE, "boolean",
             "ListManagers - Stop Listmanager", ("relId", "reason"), _FORM, payload_key="result", mails=True),
    Endpoint("subscription_end", "POST", "orders/subscriptions/{id}/end", _ONCE, "boolean",
             "Orders - End Existing Subscription", ("endDate",), _FORM, payload_key="result", mails=True),
    Endpoint("invoice_file", "GET", "invoices/{invoiceNumber}", _SAFE, "file",
             "Orders - Get PDF invoice for Given Invoice Number", accept="application/pdf"),
    Endpoint("invoice_detail", "GET", "invoice/{invoiceNumber}", _SAFE, "object", "Orders - Show Individual Invoice",
             payload_key="invoice"),
    Endpoint("invoices", "GET", "invoices", _SAFE, "list", "Orders - Show Invoices", ("dateFrom",),
             payload_key="invoices"),
    Endpoint("relation_orders", "GET", "orders/relation/{id}", _SAFE, "list",
             "Orders - Show Orders for Given Relation", payload_key="orders"),
    Endpoint("orders", "GET", "orders", _SAFE, "list", "Orders - Show Orders", ("paid", "hours"),
             payload_key="orders"),
    Endpoint("group_add", "POST", "group/{grpId}/member/{relId}", _REPEAT, "boolean",
             "Relations - Add Relation To group", place=_FORM, payload_key="result"),
    Endpoint("field_create", "POST", "field", _ONCE, "id",
             "Relations - Create New Free Field within an Administration",
             ("fieldName", "fieldLabel", "fieldType", "fieldOptions"), _FORM, payload_key="id"),
    Endpoint("relation_upsert", "POST", "relation", _REPEAT, "object", "Relations - Create or Update Relation",
             ("email", *_PROFILE), _FORM, payload_key="relation"),
    Endpoint("groups", "GET", "groups", _SAFE, "list", "Relations - Get All Groups", payload_key="groups"),
    Endpoint("group_members", "GET", "groups/{grpId}/relations", _SAFE, "list", "Relations - Get Relations in Group",
             payload_key="relations"),
    Endpoint("relation_by_email", "GET", "relation", _SAFE, "object", "Relations - Load Relation by Email",
             ("email",), payload_key="relation"),
    Endpoint("relation_by_id", "GET", "relation/{id}", _SAFE, "object", "Relations - Load Relation by Id",
             payload_key="relation"),
    Endpoint("group_remove", "DELETE", "group/{grpId}/member/{relId}", _REPEAT, "boolean",
             "Relations - Remove Relation From group", payload_key="result"),
    Endpoint("relation_subscriptions", "GET", "relation/{id}/subscriptions", _SAFE, "list",
             "Relations - Show subscriptions", payload_key="subscriptions"),
    Endpoint("relation_email", "POST", "relation/{id}/email", _REPEAT, "boolean", "Relations - Update Relation Email",
             ("newemail",), _FORM, payload_key="result"),
    Endpoint("tag_add_by_email", "POST", "relation/addtag/{tagId}", _REPEAT, "boolean",
             "Tags - Add Tag To Relation with given email", ("email",), _FORM, payload_key="status"),
    Endpoint("tag_add", "POST", "relation/{relId}/addtag/{tagId}", _REPEAT, "boolean", "Tags - Add Tag To Relation",
             place=_FORM, payload_key="result"),
    Endpoint("tag_remove", "POST", "relation/{relId}/removetag/{tagId}", _REPEAT, "boolean",
             "Tags - Remove Tag From Relation", place=_FORM, payload_key="result"),
    Endpoint("field_set", "POST", "relation/{relId}/setfield", _REPEAT, "boolean",
             "Tags - Set a Free field For a Relation", ("fieldCode", "fieldValue"), _FORM, payload_key="result"),
    Endpoint("relation_tags", "GET", "relation/{id}/tags", _SAFE, "list", "Tags - Show tags for relation",
             payload_key="tags"),
)
# fmt: on


def endpoints(options: ProviderOptions) -> Mapping[str, Endpoint]:
    """Return the table by operation name, with the overrides of the options applied.

    Raises ConfigurationError for an override that names no write, an impossible verb or place, or a clash.
    """
    known = {row.operation: row for row in ENDPOINTS}
    for name in (*options.verbs, *options.places):
        _check_is_write(name, known)
    table = {name: _overridden(row, options) for name, row in known.items()}
    _check_no_clash(table.values())
    return MappingProxyType(table)


def _check_is_write(name: str, known: Mapping[str, Endpoint]) -> None:
    if name not in known:
        raise ConfigurationError(f"Autorespond has no operation {name!r}, so its verb or place cannot be set.")
    if known[name].effect is Effect.SAFE:
        raise ConfigurationError(f"{name} is a read of Autorespond; verb and place can be set for writes only.")


def _overridden(row: Endpoint, options: ProviderOptions) -> Endpoint:
    if row.operation not in options.verbs and row.operation not in options.places:
        return row
    verb = options.verbs.get(row.operation, row.verb).upper()
    if verb not in _VERBS:
        raise ConfigurationError(f"{row.operation} cannot be called with the verb {verb!r}.")
    place = options.places.get(row.operation) or _usual_place(verb)
    if verb in _BODILESS and place is not Place.QUERY:
        raise ConfigurationError(f"{row.operation} as {verb} has no body; its parameters must go in the query.")
    return row.overridden(verb, place)


def _usual_place(verb: str) -> Place:
    """Java servlet containers parse a form on POST only, so every other verb puts its parameters in the query."""
    return Place.FORM if verb == "POST" else Place.QUERY


def _check_no_clash(rows: Iterable[Endpoint]) -> None:
    taken: dict[tuple[str, str], str] = {}
    for row in rows:
        other = taken.setdefault((row.verb, row.path), row.operation)
        if other != row.operation:
            raise ConfigurationError(f"{row.operation} and {other} would both be {row.verb} {row.path}.")
