"""Which JSON types ``decode`` reads under which key. A value of any other type is a change of the API's shape.

What is accepted is what cannot be misread: an id, an amount or a date may come as a number or as a text, a text as
anything that has one spelling. So money that turns from ``12.5`` into ``"12.50"`` is no news; money that turns into an
object is. Null is a value that is not there, whatever the type. The names are those of ``wire``, and a test compares
the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_TEXT = frozenset({"string", "number", "boolean"})
_NUMBER = frozenset({"string", "number"})  # an id, an amount, a date or a moment
_FLAG = frozenset({"boolean", "string", "number"})
_LIST = frozenset({"array"})


def _keys(*groups: tuple[frozenset[str], str]) -> Mapping[str, frozenset[str]]:
    return MappingProxyType({name: types for types, names in groups for name in names.split()})


def _of(prefix: str, keys: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {f"{prefix}[].{name}": types for name, types in keys.items()}


ADMINISTRATION = _keys((_NUMBER, "company_id"), (_TEXT, "serviceLevel adminName adminEmail"), (_FLAG, "locked"))
RELATION = _keys((_NUMBER, "id"), (_TEXT, "email firstName suffix lastName gender funnelState"))
TAG = _keys((_NUMBER, "id"), (_TEXT, "name"))
FIELD = _keys((_TEXT, "code name type"), (frozenset({"array", "string"}), "options"))
GROUP = _keys((_NUMBER, "id"), (_TEXT, "title"))
LIST = _keys((_NUMBER, "id groupId"), (_TEXT, "name category code"))
SUBSCRIPTION = _keys((_NUMBER, "campaignId relationId eventDate"), (_TEXT, "subscribedFlag"))
ORDER_LINE = _keys(
    (_TEXT, "lineType productName"),
    (_NUMBER, "productId quantity subscriptionId subscriptionBilledUntil subscriptionEnds subscriptionEndsAt"),
)
ORDER = MappingProxyType(
    {
        **_keys(
            (_NUMBER, "orderId relationId purchaseDate"),
            (_TEXT, "relationName relationEmail email invoiceNumber"),
            (_FLAG, "paid"),
            (_LIST, "orderlines"),
        ),
        **_of("orderlines", ORDER_LINE),
    }
)
INVOICE = _keys(
    (_TEXT, "relationEmail invoiceNumber description"), (_NUMBER, "invoiceDate amountIncl"), (_FLAG, "isCreditInvoice")
)
INVOICE_LINE = _keys(
    (_TEXT, "sku description ledger"), (_NUMBER, "discount quantity amount vatamount vatpercentage")
)  # fmt: skip
INVOICE_DETAIL = MappingProxyType(
    {
        **_keys(
            (_LIST, "lines"),
            (_NUMBER, "orderId billingId relationId invoiceDate amountIncl amountExcl amountVat"),
            (_TEXT, "relationEmail invoiceNumber fullName address postalCode city country btwNummer company"),
            (_FLAG, "isCreditInvoice"),
        ),
        **_of("lines", INVOICE_LINE),
    }
)
