"""The register: every column that could hold a value of a person, and how an erasure deals with it.

It decides nothing at run time but which texts ``texts`` looks through; it is here so that nobody adds a column in which
a person could stay behind. ``tests/store/test_erasure_columns`` compares it with the database: a text, JSON or binary
column of either schema that is not listed fails it, and so does a listed one that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class How(StrEnum):
    """How a column is erased."""

    ROW = "row"  # its row goes, because the row is the person's
    STAND_IN = "stand-in"  # its row goes, or stays with stand-ins where the law keeps it
    TEXT = "text"  # of no one in particular: what mentions the person is replaced
    OTHERS = "others"  # the person's rows go; others' are cleaned of what is the person's beyond doubt


@dataclass(frozen=True, slots=True)
class Never:
    """A column that never holds a value of a person, and why."""

    why: str


_CATALOGUE = Never("a name that the business gave to something that many have")
_RECEIPT = Never("made by the erasure itself, of hashes, counts and who erased")
_OURS = Never("a word of ours")
_TENANT = Never("of the administration itself, which is no relation of it")
_NUMBERS = Never("a number or code of the CRM, of no use without its row")


def _each(table: str, columns: str, fate: How | Never) -> dict[str, How | Never]:
    return {f"{table}.{column}": fate for column in columns.split()}


REGISTER: Mapping[str, How | Never] = {
    **_each("crm.accounts", "name provider remote_id title email service_level raw content_hash", _TENANT),
    **_each("crm.relations", "remote_id email first_name suffix last_name gender type customer funnel_state", How.ROW),
    **_each("crm.relations", "raw content_hash", How.ROW),
    **_each("crm.tags", "remote_id name raw content_hash", _CATALOGUE),
    **_each("crm.fields", "remote_id code name type options raw content_hash", _CATALOGUE),
    **_each("crm.relation_fields", "value", How.ROW),
    **_each("crm.groups", "remote_id title raw content_hash", _CATALOGUE),
    **_each("crm.lists", "remote_id name category code group_remote_id raw content_hash", _CATALOGUE),
    **_each("crm.list_subscriptions", "status", How.ROW),
    **_each("crm.orders", "remote_id relation_remote_id relation_email relation_name invoice_number", How.ROW),
    **_each("crm.orders", "raw content_hash", How.ROW),
    **_each("crm.order_lines", "line_type product_id product_name subscription_id", How.ROW),
    **_each("crm.invoices", "relation_remote_id relation_email description full_name company address", How.STAND_IN),
    **_each("crm.invoices", "postal_code city vat_number detail_error detail_raw raw content_hash", How.STAND_IN),
    **_each("crm.invoices", "remote_id number order_remote_id billing_id country detail_status", _NUMBERS),
    **_each("crm.invoice_lines", "description", How.STAND_IN),
    **_each("crm.invoice_lines", "sku ledger", _NUMBERS),
    **_each("crm.invoice_files", "path sha256 content_type", How.ROW),
    **_each("syncd.invoice_fetches", "error sha256 content_type", How.ROW),
    **_each("syncd.account_states", "pause_reason", How.TEXT),
    **_each("syncd.account_states", "breaker_state limits lease_owner", _OURS),
    **_each("syncd.captures", "operation facet payload actor reason before after", How.ROW),
    **_each("syncd.lanes", "claimed_by block_reason", How.ROW),
    **_each("syncd.entries", "payload error reason", How.OTHERS),
    **_each("syncd.entries", "operation facet status actor", How.ROW),
    **_each("syncd.attempts", "detail", How.OTHERS),
    **_each("syncd.attempts", "operation outcome", How.ROW),
    **_each("syncd.holds", "reason", How.TEXT),
    **_each("syncd.holds", "status", _OURS),
    **_each("syncd.decisions", "reason", How.TEXT),
    **_each("syncd.decisions", "verb actor", Never("who of the business decided what")),
    **_each("syncd.incidents", "subject summary detail", How.TEXT),
    **_each("syncd.incidents", "kind", _OURS),
    **_each("syncd.runs", "warnings reason", How.TEXT),
    **_each("syncd.runs", "stream trigger status", _OURS),
    **_each("syncd.run_holds", "stream kind status", _OURS),
    **_each("syncd.run_holds", "examples", How.TEXT),
    **_each("syncd.shapes", "stream key types drift", _OURS),
    **_each("syncd.shapes", "record", How.ROW),
    **_each("syncd.unread", "stream", _OURS),
    **_each("syncd.unread", "remote_id raw digest reason", How.ROW),
    **_each("syncd.coverage", "stream", _OURS),
    **_each("syncd.readings", "stream", _OURS),
    **_each("syncd.lateness", "stream", _OURS),
    **_each("syncd.rungs", "stream", _OURS),
    **_each("syncd.audits", "kind", _OURS),
    **_each("syncd.changes", "before after", How.OTHERS),
    **_each("syncd.changes", "table_name kind origin", _OURS),
    **_each("syncd.conflicts", "base local remote value", How.OTHERS),
    **_each("syncd.conflicts", "table_name field owner status decided decided_by", _OURS),
    **_each("syncd.erasure_keys", "salt proof", _RECEIPT),
    **_each("syncd.erasures", "hash invoices actor counts by_hand readmitted_by", _RECEIPT),
    **_each("syncd.suppressions", "kind hash", _RECEIPT),
    **_each("syncd.alembic_version", "version_num", _OURS),
}


def texts() -> dict[str, dict[str, How]]:
    """Return, by table, the columns that are looked through for mentions."""
    found: dict[str, dict[str, How]] = {}
    for column, fate in REGISTER.items():
        if fate in (How.TEXT, How.OTHERS):
            table, name = column.rsplit(".", 1)
            found.setdefault(table, {})[name] = How(fate)
    return found
