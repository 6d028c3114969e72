"""PDFs of invoices on a storage that is no directory: whole, once, and only what its row says of it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from syncd.domain.errors import ConfigurationError
from syncd.store import Store
from syncd.store.shelf_remote import open_shelf
from tests.support.erasing import erased, make_person
from tests.support.pulling import POLICY, circle

KEPT = "SELECT path, sha256, size_bytes FROM crm.invoice_files ORDER BY path"
URL = "memory://books/pdf"


@pytest.fixture
def books() -> Iterator[dict[str, Any]]:
    """Whatever lies in the storage, by path; emptied afterwards, because it is one for the whole process."""
    MemoryFileSystem.store.clear()
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()


async def test_a_storage_holds_what_the_rows_say_and_is_given_nothing_twice(
    store: Store, books: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket is where books are kept that must outlive the machine."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with circle(store, invoices=6, policy=replace(POLICY, files=URL)) as it:
        await it.pull("invoices")
        assert (await it.pull("invoice_files")).inserted == 6
        rows = await it.rows(KEPT)
        assert sorted(books) == [f"/books/pdf/{path}" for path, *_ in rows]
        for path, sha256, size in rows:
            body = books[f"/books/pdf/{path}"].getvalue()
            assert (hashlib.sha256(body).digest(), len(body)) == (sha256, size)
        assert (await it.pull("invoice_files")).requests == 0
        assert os.listdir(tmp_path) == [], "nothing is left on this machine"


async def test_what_is_no_pdf_reaches_no_storage(store: Store, books: dict[str, Any]) -> None:
    """A page of HTML must not lie among the books, on whatever disk."""
    async with circle(store, invoices=1, policy=replace(POLICY, files=URL)) as it:
        await it.pull("invoices")
        it.box.faults.add("html", operation="invoice_file", status=200)
        assert (await it.pull("invoice_files")).status == "failed"
        assert books == {}


async def test_a_file_that_was_stored_before_its_row_is_known_by_its_hash(store: Store, books: dict[str, Any]) -> None:
    """Killed between the two: the whole file is not fetched again, half a one is."""
    async with circle(store, invoices=1, policy=replace(POLICY, files=URL)) as it:
        await it.pull("invoices", "invoice_files")
        ((path, sha256, size),) = await it.rows(KEPT)
        announced = f"""INSERT INTO syncd.invoice_fetches (invoice_id, next_at, sha256, size_bytes, content_type)
            SELECT id, '2000-01-01', decode('{sha256.hex()}', 'hex'), {size}, 'application/pdf'
            FROM crm.invoices"""
        async with it.store.begin_remote() as connection:
            await connection.exec_driver_sql("DELETE FROM crm.invoice_files")
            await connection.exec_driver_sql(announced)
        assert (await it.pull("invoice_files")).requests == 0
        assert await it.rows(KEPT) == [(path, sha256, size)]
        books[f"/books/pdf/{path}"].truncate(size // 2)
        async with it.store.begin_remote() as connection:
            await connection.exec_driver_sql("DELETE FROM crm.invoice_files")
            await connection.exec_driver_sql(announced)
        assert (await it.pull("invoice_files")).requests == 1
        assert len(books[f"/books/pdf/{path}"].getvalue()) == size


async def test_a_storage_that_cannot_be_written_costs_no_invoice_a_try(store: Store, tmp_path: Path) -> None:
    """Its failures are of a hundred kinds, and may tell credentials: only the kind is told."""
    (tmp_path / "default").write_text("a file where the directory should be")
    async with circle(store, invoices=2, policy=replace(POLICY, files=f"local://{tmp_path}")) as it:
        await it.pull("invoices")
        report = await it.pull("invoice_files")
        assert (report.status, report.requests) == ("failed", 1)
        assert "SYNCD_INVOICE_FILES" in (report.reason or "")
        assert str(tmp_path) not in (report.reason or "")
        assert await it.value("SELECT sum(attempts) FROM syncd.invoice_fetches") == 0
        (tmp_path / "default").unlink()
        await it.advance(301)
        assert (await it.pull("invoice_files")).inserted == 2


async def test_an_erased_persons_files_go_from_a_storage_too(store: Store, books: dict[str, Any]) -> None:
    """A receipt that says so must not leave a bucket full of their name."""
    async with circle(store, policy=replace(POLICY, files=URL)) as it:
        number = make_person(it.world)
        for key, invoice in it.world.invoices.items():
            it.world.invoices[key] = msgspec.structs.replace(invoice, is_credit=key[1])
        await it.pull("groups", "group_members", "invoices", "invoice_files")
        theirs = sum(1 for invoice in it.world.invoices.values() if invoice.relation_id == number)
        before = len(books)
        await erased(it.store, shelves={"default": URL})
        assert theirs > 0
        assert len(books) == await it.value("SELECT count(*) FROM crm.invoice_files") < before


@pytest.mark.parametrize(("url", "words"), [("nosuch://x/y", "does not know"), ("s3://bucket/x", "s3fs")])
def test_a_storage_that_nothing_here_can_write_to_is_told_at_the_start(url: str, words: str) -> None:
    """With the name of what to install, before the first request."""
    with pytest.raises(ConfigurationError, match=words):
        open_shelf(url)


def test_without_the_library_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed on request: most keep their books in a directory."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ConfigurationError, match=r"syncd\[files\]"):
        open_shelf(URL)
