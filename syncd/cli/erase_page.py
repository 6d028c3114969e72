"""What ``syncd erase`` shows: what is held, what was removed, and what is still to be done by hand.

The CRM's ids and the paths of files are shown, because somebody must act on them; they are kept in no receipt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.text import Text

from syncd.cli.page import BAD, GOOD, WARN, out, plain, table
from syncd.policy.erasure import Invoices
from syncd.service.erasing import Erased, Found, Order
from syncd.store.erasure import Receipt

LATER = (
    "Backups, replicas and the write-ahead log hold the old rows until they expire: erase again after restoring one.",
    "Deleted rows stay in the database's files until VACUUM has passed; autovacuum does, VACUUM does it now.",
    "Logs written at level debug may name the person; so may whatever other systems copied from the mirror.",
)


def show_found(found: Found, order: Order) -> None:
    """Print what is held, and what forbids or follows."""
    console, person = out(), found.person
    if found.was_erased:
        console.print("This person was erased before, and nothing came back but perhaps words in reports.")
        return
    bearers = ([one.account, one.relation_id, one.remote_id] for one in person.bearers)
    console.print(table("Relations", ["account", "#id", "#CRM id"], bearers))
    console.print(table("\nHeld", ["what", "#rows", "~becomes"], _held(found, order)))
    if person.undelivered:
        rows = ([one.account, one.entry_id, one.operation, one.status, one.captured_at] for one in person.undelivered)
        console.print(table("\nNot delivered", ["account", "#entry", "change", "status", "made"], rows))
    console.print("\nReports and incidents that mention the person lose those words.")
    for account, remote_id in person.elsewhere:
        told = f"{account}: relation {remote_id} has another address, and orders or invoices that bear this one: kept."
        console.print(Text(f"{told} If it is the same person, erase that address too.", style=WARN))


def found_document(found: Found, order: Order) -> dict[str, object]:
    """Return what is held as JSON has it."""
    person = found.person
    return {
        "relations": plain(person.bearers),
        "held": {str(name): rows for name, rows, _ in _held(found, order)},
        "invoices": order.invoices.value,
        "undelivered": plain(person.undelivered),
        "same_address_on": [{"account": account, "remote_id": id_} for account, id_ in person.elsewhere],
        "files": list(person.files),
        "was_erased": found.was_erased,
    }


def show_receipt(erased: Erased, found: Found, order: Order) -> None:
    """Print the receipt."""
    console, receipt = out(), erased.receipt
    console.print(table(f"\nReceipt {receipt.id}", ["table", "#rows"], sorted(receipt.counts.items())))
    console.print(Text(f"erased by {receipt.actor}, kept out under {receipt.hash}", style=GOOD))
    console.print(Text(f"begun {_when(receipt.started_at)}, finished {_when(receipt.finished_at)}"))
    for line in _kept(receipt):
        console.print(line)
    console.print(Text("\nStill to be done by hand", style="bold"))
    for line in [*_by_hand(erased, found, order), *LATER]:
        console.print(f"- {line}", soft_wrap=True)


def receipt_document(erased: Erased, found: Found, order: Order) -> dict[str, object]:
    """Return the receipt as JSON has it."""
    done = _by_hand(erased, found, order)
    return {"receipt": plain(erased.receipt), "kept": _kept(erased.receipt), "by_hand": [*done, *LATER]}


def show_list(receipts: Sequence[Receipt]) -> None:
    """Print all receipts, the latest first."""
    columns = ["#receipt", "hash", "account", "erased", "by", "#rows", "state"]
    rows = (
        [one.id, one.hash, one.account or "all", one.started_at, one.actor, sum(one.counts.values()), _state(one)]
        for one in receipts
    )
    out().print(table("Erasures", columns, rows) if receipts else "Nobody was erased.")


def _when(instant: datetime | None) -> str:
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S") if instant else "never"


def _state(receipt: Receipt) -> Text:
    if receipt.readmitted_at is not None:
        return Text("readmitted", style=WARN)
    return Text("finished", style=GOOD) if receipt.finished_at else Text("not finished: erase again", style=BAD)


def _held(found: Found, order: Order) -> list[tuple[str, int, str]]:
    person = found.person
    fate = "removed" if order.invoices is Invoices.REMOVE else "kept, with stand-ins for names and addresses"
    files = "forgotten; see below" if order.by_hand(person.files) else "removed"
    rows = [("relations", len(person.bearers), "removed"), ("orders", len(person.orders), "removed")]
    rows += [("invoices", len(person.invoices), fate), ("invoice_files", len(person.files), files)]
    rows += [(name, count, "removed") for name, count in person.held.items()]
    return [row for row in rows if row[1]]


def _kept(receipt: Receipt) -> list[str]:
    kept = receipt.counts.get("crm.invoices (stand-ins)", 0)
    return [f"kept for the books: {kept} invoices with their numbers and amounts; they name nobody"] if kept else []


def _by_hand(erased: Erased, found: Found, order: Order) -> list[str]:
    lines = [
        f"{one.account}: delete relation {one.remote_id} in the CRM (its API cannot), and end its subscriptions there."
        for one in found.person.bearers
        if one.remote_id is not None
    ]
    lines += [f"delete the file {path}" for path in order.by_hand(found.person.files)]
    if found.person.undelivered:
        lines.append(f"{len(found.person.undelivered)} local changes were given up; the CRM never got them.")
    lines += [
        f"{account}: relation {remote_id} has orders or invoices that bear this address; erase it too if it is them."
        for account, remote_id in found.person.elsewhere
    ]
    if erased.open_runs:
        lines.append(
            f"{erased.open_runs} pulls that began before are under way and may name the person in their report: run "
            "the same command once more when they have ended."
        )
    return lines + _unsaid(erased.receipt.by_hand, found)


def _unsaid(stored: Sequence[Mapping[str, object]], found: Found) -> list[str]:
    """Return what an earlier, interrupted run of the same erasure left to do, where this one cannot name it."""
    if found.person.bearers:
        return []
    return [f"{item['what']}: {item['count']} ({item.get('account', 'see the first receipt')})" for item in stored]
