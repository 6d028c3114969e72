"""``syncd erase``: remove a person for good, keep them out, and say what is still to be done elsewhere.

The address is never printed back, never logged and in no receipt. Given as ``-`` it is read from standard input, so
that it is in no shell history and no list of processes either.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from syncd import log
from syncd.cli import erase_page, session
from syncd.cli.deciding import os_user
from syncd.cli.ending import FAILED, OK
from syncd.cli.page import account_option, json_option, out, print_json
from syncd.clock import SystemClock
from syncd.domain.errors import UserError
from syncd.policy.erasure import Invoices, normal
from syncd.service.database import opened
from syncd.service.erasing import Erased, Found, Order, erase, look
from syncd.service.outlook import pulling_of
from syncd.settings import Settings
from syncd.store import erasure
from syncd.store.erasure import Receipt
from syncd.store.schema import require_current


@click.command(name="erase")
@click.argument("email", metavar="[EMAIL]", required=False)
@account_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@click.option("--drop-undelivered", "may_drop", is_flag=True, help="Give up local changes that the CRM does not have.")
@click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    default=60.0,
    type=click.FloatRange(0, 86400),
    help="How long to wait for whoever is in the way, such as a delivery of this person; default: 60.",
)
@click.option("--list", "as_list", is_flag=True, help="Show the receipts of all erasures instead.")
@click.option("--readmit", metavar="HASH|EMAIL", help="Let pulls bring this person back instead.")
@click.option(
    "--actor", metavar="NAME", default=os_user, show_default="who you are to this machine", help="Who erases."
)
@json_option
def command(
    email: str | None,
    account: str | None,
    dry_run: bool,
    yes: bool,
    may_drop: bool,
    wait_s: float,
    as_list: bool,
    readmit: str | None,
    actor: str,
    as_json: bool,
) -> int:
    """Remove the person with this address from the mirror, its history and the outbox, and let no pull bring them back.

    EMAIL may be - to read it from standard input. Shows what is held, asks, removes it in small steps beside the
    running daemon, and prints a receipt. Stopped in the middle, the same command goes on.

    The CRM itself is not touched: its API cannot delete a relation. The receipt says what to do there by hand.
    """
    settings = session.begin().settings
    if sum((email is not None, as_list, readmit is not None)) != 1:
        raise click.UsageError("give an EMAIL, or --list, or --readmit")
    if as_list:
        return _list(settings, as_json)
    if readmit is not None:
        return _readmit(settings, _hidden(readmit), actor, as_json)
    invoices = Invoices(settings.erase_invoices)
    order = Order(_hidden(email or ""), account, invoices, actor, may_drop, wait_s, _shelves(settings))
    if not dry_run and not yes and (email == "-" or not sys.stdin.isatty()):
        raise UserError("nobody can be asked here; look with --dry-run, then erase with --yes")
    found = session.run(lambda: _look(settings, order))
    if not as_json:
        erase_page.show_found(found, order)
    if dry_run:
        if as_json:
            print_json(erase_page.found_document(found, order))
        return OK
    if found.person.undelivered and not may_drop:
        raise UserError(erasure.refusal(len(found.person.undelivered)))
    if not yes:
        _confirm(order.email, err=as_json)
    erased = session.run(lambda: _erase(settings, order, found))
    if as_json:
        print_json(erase_page.receipt_document(erased, found, order))
    else:
        erase_page.show_receipt(erased, found, order)
    return OK


def _hidden(email: str) -> str:
    """Return the address, read from standard input if it is -, and keep it out of every log from now on."""
    given = sys.stdin.readline().strip() if email == "-" else email.strip()
    if not given:
        raise UserError("no address was given")
    log.add_secrets({given, given.lower(), given.upper(), normal(given)})
    return given


def _shelves(settings: Settings) -> dict[str, Path | str]:
    """Return where accounts keep PDFs; one that is not configured completely keeps what it has."""
    kept = {name: pulling.pull.invoice_files for name, pulling in pulling_of(settings).items()}
    return {name: root for name, root in kept.items() if root is not None}


def _confirm(email: str, *, err: bool) -> None:
    typed = click.prompt(
        "\nThis cannot be undone. Type the address to erase it", err=err, default="", show_default=False
    )
    if normal(typed) != normal(email):
        raise UserError("that is not the address; nothing was erased")


def _list(settings: Settings, as_json: bool) -> int:
    receipts = session.run(lambda: _receipts(settings))
    print_json(receipts) if as_json else erase_page.show_list(receipts)
    return OK


def _readmit(settings: Settings, who: str, actor: str, as_json: bool) -> int:
    numbers = session.run(lambda: _readmitted(settings, who, actor))
    if as_json:
        print_json({"readmitted": numbers})
    elif numbers:
        listed = ", ".join(map(str, numbers))
        out().print(f"readmitted (receipts {listed}): the next pulls bring the person back; older orders and invoices")
        out().print("come back with syncd backfill. Invoices that hold stand-ins keep them.")
    else:
        print("syncd: nobody is kept out under this hash or address", file=sys.stderr)
    return OK if numbers else FAILED


async def _look(settings: Settings, order: Order) -> Found:
    async with opened(settings) as database:
        await require_current(database.store)
        return await look(database.store, order)


async def _erase(settings: Settings, order: Order, found: Found) -> Erased:
    async with opened(settings) as database:
        return await erase(database.store, SystemClock(), order, found)


async def _receipts(settings: Settings) -> tuple[Receipt, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            return await erasure.list_receipts(connection)


async def _readmitted(settings: Settings, who: str, actor: str) -> tuple[int, ...]:
    async with opened(settings) as database:
        await require_current(database.store)
        async with database.store.begin() as connection:
            return await erasure.readmit(connection, database.store.erase_key, who, actor)
