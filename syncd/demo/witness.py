"""The verdict: both sides read whole and compared value by value.

The CRM's side is read from the simulator's memory, not through its API, so that what syncd cannot see of itself (a
free-field value, a mail sent twice) is seen here. Empty text and null are the same thing to the CRM and so to the
comparison. A relation that stands in no group, order or invoice cannot be found through this API and is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from syncd.sandbox import World
from syncd.store import Connection, Store


@dataclass(frozen=True, slots=True)
class Comparison:
    """One kind of thing on both sides: how many stand in the CRM and in the mirror, and what differs (as sentences)."""

    kind: str
    in_crm: int
    in_mirror: int
    differences: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        return not self.differences


async def compare(store: Store, world: World) -> tuple[Comparison, ...]:
    """Read both sides and compare them; the mirror's side in one transaction."""
    async with store.begin() as connection:
        return (
            _compare("relations", _crm_relations(world), await _mirror(connection, _RELATIONS), known=_visible(world)),
            _compare("tags on relations", _crm_tags(world), await _mirror(connection, _TAGS), known=_visible(world)),
            _compare("group members", _crm_groups(world), await _mirror(connection, _GROUPS)),
            _compare("subscriptions", _crm_subscriptions(world), await _mirror(connection, _SUBSCRIPTIONS)),
            _compare("free-field values", _crm_fields(world), await _mirror(connection, _FIELDS), only_mirrored=True),
            _compare("orders", _crm_orders(world), await _mirror(connection, _ORDERS)),
            _compare("invoices", _crm_invoices(world), await _mirror(connection, _INVOICES)),
            _compare("invoice lines", _crm_invoice_lines(world), await _mirror(connection, _INVOICE_LINES)),
            _compare("tags", _titles(world.tags, "name"), await _mirror(connection, _TAG_NAMES)),
            _compare("groups", _titles(world.groups, "title"), await _mirror(connection, _GROUP_TITLES)),
            _compare("lists", _titles(world.lists, "name"), await _mirror(connection, _LIST_NAMES)),
            _compare(
                "fields", {code: (f.type,) for code, f in world.fields.items()}, await _mirror(connection, _CODES)
            ),
        )


def _compare(
    kind: str,
    crm: Mapping[str, tuple[object, ...]],
    mirror: Mapping[str, tuple[object, ...]],
    *,
    known: frozenset[str] | None = None,
    only_mirrored: bool = False,
) -> Comparison:
    """Compare by key. ``known`` limits the CRM's side to what its API shows; ``only_mirrored`` to the mirror's keys."""
    expected = {key: value for key, value in crm.items() if known is None or key in known or key in mirror}
    if only_mirrored:
        expected = {key: value for key, value in expected.items() if key in mirror}
    differences = [f"{key}: not in the mirror" for key in expected.keys() - mirror.keys()]
    differences += [f"{key}: not in the CRM" for key in mirror.keys() - expected.keys()]
    differences += [
        f"{key}: CRM {expected[key]!r}, mirror {mirror[key]!r}"
        for key in expected.keys() & mirror.keys()
        if expected[key] != mirror[key]
    ]
    return Comparison(kind, len(expected), len(mirror), tuple(sorted(differences)))


def _visible(world: World) -> frozenset[str]:
    """Ids of the relations that groups, orders and invoices can show."""
    members = {str(relation.id) for relation in world.relations.values() if relation.groups}
    return frozenset(members | {str(order.relation_id) for order in world.orders.values()})


def _crm_relations(world: World) -> dict[str, tuple[object, ...]]:
    return {
        str(r.id): (r.email, _text(r.first_name), _text(r.suffix), _text(r.last_name), _text(r.gender))
        for r in world.relations.values()
    }


def _crm_tags(world: World) -> dict[str, tuple[object, ...]]:
    return {str(r.id): (tuple(sorted(world.tag_names(r))),) for r in world.relations.values() if r.tags}


def _crm_groups(world: World) -> dict[str, tuple[object, ...]]:
    members = {(group.id, member) for group in world.groups.values() for member in group.members}
    return {f"{group}/{member}": () for group, member in members}


def _crm_subscriptions(world: World) -> dict[str, tuple[object, ...]]:
    """The latest event of each list decides; events stand in the order in which they happened."""
    words = {"S": "subscribed", "U": "unsubscribed"}
    return {f"{r.id}/{event.list_id}": (words[event.flag],) for r in world.relations.values() for event in r.events}


def _crm_fields(world: World) -> dict[str, tuple[object, ...]]:
    return {f"{r.id}/{code}": (value,) for r in world.relations.values() for code, value in r.fields.items()}


def _crm_orders(world: World) -> dict[str, tuple[object, ...]]:
    return {
        str(o.id): (str(o.relation_id), o.is_paid, _text(o.invoice_number), tuple(_order_line(x) for x in o.lines))
        for o in world.orders.values()
    }


def _order_line(line: Any) -> str:
    return f"{line.product_id} x {line.quantity}"


def _crm_invoices(world: World) -> dict[str, tuple[object, ...]]:
    return {
        f"{i.number}{' credit' if i.is_credit else ''}": (Decimal(i.excl_cents + i.vat_cents) / 100, i.invoiced_on)
        for i in world.invoices.values()
    }


def _crm_invoice_lines(world: World) -> dict[str, tuple[object, ...]]:
    """Credit invoices have no detail call, so their lines cannot be mirrored."""
    return {
        i.number: (tuple(f"{x.sku} x {x.quantity}" for x in i.lines),)
        for i in world.invoices.values()
        if not i.is_credit
    }


def _titles(things: Mapping[int, Any], attribute: str) -> dict[str, tuple[object, ...]]:
    return {str(number): (getattr(thing, attribute),) for number, thing in things.items()}


def _text(value: str | None) -> str:
    return value or ""


async def _mirror(connection: Connection, sql: str) -> dict[str, tuple[object, ...]]:
    """Read one side of a comparison: the first column is the key, arrays become tuples, null becomes empty text."""
    rows = await connection.exec_driver_sql(sql)
    return {str(row[0]): tuple(_plain(row[1:])) for row in rows}


def _plain(values: Iterable[object]) -> Iterable[object]:
    for value in values:
        if isinstance(value, list):
            yield tuple(value)
        else:
            yield "" if value is None else value


_RELATIONS = """
SELECT remote_id, email, first_name, suffix, last_name, gender FROM crm.relations WHERE missing_since IS NULL
"""
_TAGS = """
SELECT r.remote_id, array_agg(t.name ORDER BY t.name) FROM crm.relation_tags rt
JOIN crm.relations r ON r.id = rt.relation_id JOIN crm.tags t ON t.id = rt.tag_id GROUP BY r.remote_id
"""
_GROUPS = """
SELECT g.remote_id || '/' || r.remote_id FROM crm.group_members m
JOIN crm.groups g ON g.id = m.group_id JOIN crm.relations r ON r.id = m.relation_id
"""
_SUBSCRIPTIONS = """
SELECT r.remote_id || '/' || l.remote_id, s.status FROM crm.list_subscriptions s
JOIN crm.relations r ON r.id = s.relation_id JOIN crm.lists l ON l.id = s.list_id
"""
_FIELDS = """
SELECT r.remote_id || '/' || f.code, v.value FROM crm.relation_fields v
JOIN crm.relations r ON r.id = v.relation_id JOIN crm.fields f ON f.id = v.field_id
"""
_ORDERS = """
SELECT o.remote_id, r.remote_id, o.is_paid, o.invoice_number,
       (SELECT array_agg(l.product_id || ' x ' || trim_scale(l.quantity) ORDER BY l.position)
        FROM crm.order_lines l WHERE l.order_id = o.id)
FROM crm.orders o LEFT JOIN crm.relations r ON r.id = o.relation_id
"""
_INVOICES = """
SELECT number || CASE WHEN is_credit THEN ' credit' ELSE '' END, amount_incl, invoiced_on FROM crm.invoices
"""
_INVOICE_LINES = """
SELECT i.number, (SELECT array_agg(l.sku || ' x ' || trim_scale(l.quantity) ORDER BY l.position)
                  FROM crm.invoice_lines l WHERE l.invoice_id = i.id)
FROM crm.invoices i WHERE NOT i.is_credit
"""
_TAG_NAMES = "SELECT remote_id, name FROM crm.tags"
_GROUP_TITLES = "SELECT remote_id, title FROM crm.groups"
_LIST_NAMES = "SELECT remote_id, name FROM crm.lists"
_CODES = "SELECT code, type FROM crm.fields"
