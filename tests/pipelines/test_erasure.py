"""A person is erased: nothing of them is left in any row, and no pull brings them back."""

from __future__ import annotations

import pytest

from syncd.domain.errors import ConfigurationError, InfrastructureError, SyncdError, UserError
from syncd.policy.erasure import Invoices
from syncd.sandbox import World
from syncd.store import Store, erasure
from tests.support.erasing import (
    EMAIL,
    EVERYTHING,
    FIRST,
    LAST,
    TOWN,
    VALUES,
    add_file,
    erased,
    fill_every_table,
    left,
    local_id,
    make_person,
)
from tests.support.logs import captured_logs
from tests.support.pulling import NOON, circle

_BOOKS = "SELECT number, is_credit, invoiced_on, amount_incl, amount_excl, amount_vat FROM crm.invoices ORDER BY 1, 2"


def world() -> World:
    return World.seeded(12, 40, 24, seed=7, now=NOON)


async def test_nothing_is_left_of_a_person_in_any_row_or_log(store: Store) -> None:
    """The promise itself, with a person of whom every table knows something."""
    with captured_logs(json=True) as logs:
        async with circle(store, world=world()) as it:
            number = make_person(it.world)
            await fill_every_table(it, number)
            await add_file(store)
            before = {line.split(":")[0] for line in await left(store)}
            assert before >= {"crm.relations", "crm.orders", "crm.invoices", "syncd.entries", "syncd.runs"}
            assert before >= {"syncd.attempts", "syncd.conflicts", "syncd.incidents", "syncd.holds", "syncd.decisions"}
            books = await it.rows(_BOOKS)
            done = await erased(store)
            assert await left(store) == []
            assert await it.rows(_BOOKS) == books, "numbers and amounts are kept"
            assert done.receipt.finished_at is not None
            assert done.receipt.counts["crm.relations"] == 1
            assert await it.value("SELECT summary FROM syncd.incidents WHERE subject = 'somebody else'")
            warnings = await it.value("SELECT warnings FROM syncd.runs WHERE status = 'failed'")
            assert warnings == ["(erased)", "an order has no date"]
    assert not [value for value in VALUES if value.lower() in logs.getvalue().lower()]


async def test_no_pull_brings_a_person_back(store: Store) -> None:
    """Every stream shows them again at once, under another letter case too."""
    async with circle(store, world=world()) as it:
        number = make_person(it.world)
        await fill_every_table(it, number)
        books = await it.rows(_BOOKS)
        await erased(store)
        await it.pull(*EVERYTHING)
        assert await left(store) == []
        it.world.change_relation(number, email=EMAIL.upper(), first_name=FIRST.upper())
        it.world.add_order(number, it.world.orders[next(iter(it.world.orders))].lines)
        await it.advance(7200)
        reports = [await it.pull(stream) for stream in EVERYTHING]
        assert all(report.is_success for report in reports)
        assert await left(store) == []
        assert await it.rows(_BOOKS) == books
        assert await it.value(f"SELECT count(*) FROM crm.relations WHERE remote_id = '{number}'") == 0
