"""PDFs of invoices: only what is a PDF is kept, whole, once, in a place that no invoice number can choose."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import DBAPIError

from syncd.domain.errors import UserError
from syncd.sandbox.autorespond.pdf import pdf
from syncd.store import Store
from syncd.store.shelf import Directory, place
from tests.support.erasing import erased, make_person
from tests.support.pulling import POLICY, Circle, circle

KEPT = "SELECT v.number, f.path, f.sha256, f.size_bytes, f.content_type FROM crm.invoice_files f"
KEPT += " JOIN crm.invoices v ON v.id = f.invoice_id ORDER BY v.number"
COUNT = "SELECT count(*) FROM crm.invoice_files"


@asynccontextmanager
async def filing(store: Store, root: Path, *, invoices: int = 6) -> AsyncIterator[Circle]:
    """A circle whose invoices are mirrored and whose PDFs are wanted."""
    async with circle(store, invoices=invoices, policy=replace(POLICY, files=root, sweep_budget=100)) as it:
        await it.pull("invoices")
        yield it


async def cut_short(it: Circle) -> None:
    """End a run between the file and its row, as a kill does: the database refuses the row."""
    await it.edit(
        """CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql
           AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$""",
        "CREATE TRIGGER refuse BEFORE INSERT ON crm.invoice_files EXECUTE FUNCTION public.refuse()",
    )
    with pytest.raises(DBAPIError, match="refused"):
        await it.pull("invoice_files")
    await it.edit("DROP TRIGGER refuse ON crm.invoice_files")


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_every_invoice_has_its_file_and_is_never_asked_for_again(store: Store, tmp_path: Path) -> None:
    """The row says what the file is; books are kept for years and fetched once."""
    async with filing(store, tmp_path) as it:
        report = await it.pull("invoice_files")
        assert (report.status, report.inserted, report.requests) == ("succeeded", 6, 6)
        rows = await it.rows(KEPT)
        assert files(tmp_path) == sorted(path for _, path, *_ in rows)
        for _, path, sha256, size, content_type in rows:
            body = (tmp_path / path).read_bytes()
            assert body.startswith(b"%PDF-")
            assert (hashlib.sha256(body).digest(), len(body), content_type) == (sha256, size, "application/pdf")
        await it.advance(86400)
        assert (await it.pull("invoice_files")).requests == 0
        assert it.requested("invoice_file") == 6
        assert await it.value("SELECT count(*) FROM syncd.invoice_fetches") == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "html", "status": 200},
        {"kind": "error"},
        {"kind": "empty_body"},
        {"kind": "truncated"},
        {"kind": "status", "status": 500},
    ],
    ids=str,
)
async def test_what_is_no_pdf_is_not_written_and_asked_for_again_later(
    store: Store, tmp_path: Path, fault: dict[str, object]
) -> None:
    """A page of HTML under the name of an invoice is found out years later, by the tax office."""
    async with filing(store, tmp_path) as it:
        it.box.faults.add(operation="invoice_file", **fault)  # type: ignore[arg-type]
        report = await it.pull("invoice_files")
        assert (report.status, report.inserted, len(report.warnings)) == ("succeeded", 5, 1)
        assert len(files(tmp_path)) == await it.value(COUNT) == 5
        assert await it.value("SELECT attempts FROM syncd.invoice_fetches") == 1
        assert (await it.pull("invoice_files")).requests == 0, "it waits before it is tried again"
        await it.advance(61)
        is_refused = fault["kind"] == "error"
        assert (await it.pull("invoice_files")).inserted == (0 if is_refused else 1)
        await it.advance(3601)
        assert (await it.pull("invoice_files")).inserted == (1 if is_refused else 0), "a refusal waits for longer"


async def test_a_file_that_is_refused_for_days_is_given_up(store: Store, tmp_path: Path) -> None:
    """What the CRM refuses for good is not asked for ever."""
    async with filing(store, tmp_path) as it:
        it.box.faults.add("status", status=404, operation="invoice_file", times=0)
        for _ in range(2 * POLICY.detail_attempts):
            await it.pull("invoice_files")
            await it.advance(86401)
        assert it.requested("invoice_file") == 6 * POLICY.detail_attempts
        assert await it.value("SELECT count(next_at) FROM syncd.invoice_fetches") == 0


async def test_a_file_larger_than_is_allowed_is_not_kept(store: Store, tmp_path: Path) -> None:
    """An answer that never ends must not fill the disk."""
    async with circle(store, invoices=1, policy=replace(POLICY, files=tmp_path, file_bytes=100)) as it:
        await it.pull("invoices")
        report = await it.pull("invoice_files")
        assert (report.status, report.inserted) == ("failed", 0)
        assert files(tmp_path) == []


@pytest.mark.parametrize("number", ["../../../etc/passwd", "..x", "/etc/x", "2024/7 ü", ".part", "x" * 300, "a\\b"])
async def test_no_invoice_number_leads_out_of_the_directory(store: Store, tmp_path: Path, number: str) -> None:
    """The CRM may call an invoice anything; it must not thereby choose where we write."""
    root = tmp_path / "deep" / "files"
    async with circle(store, invoices=1, policy=replace(POLICY, files=root)) as it:
        ((_, invoice),) = it.world.invoices.items()
        it.world.invoices.clear()
        it.world.invoices[number, False] = msgspec.structs.replace(invoice, number=number, is_credit=False)
        await it.pull("invoices")
        assert (await it.pull("invoice_files")).inserted == 1
        (path,) = files(tmp_path)
        assert path.startswith("deep/files/default/")
        assert path.count("/") == 3
        assert await it.value("SELECT path FROM crm.invoice_files") == path.removeprefix("deep/files/")


async def test_a_number_that_no_path_can_hold_is_given_up_and_costs_the_others_nothing(
    store: Store, tmp_path: Path
) -> None:
    """``invoices/..`` is another call; of one such number the round must not die, each time anew."""
    async with circle(store, invoices=6, policy=replace(POLICY, files=tmp_path)) as it:
        invoice = next(iter(it.world.invoices.values()))
        it.world.invoices["..", False] = msgspec.structs.replace(invoice, number="..", is_credit=False)
        await it.pull("invoices")
        assert (await it.pull("invoice_details")).is_success
        report = await it.pull("invoice_files")
        assert (report.status, report.inserted, report.requests) == ("succeeded", 6, 6)
        assert await it.rows("SELECT attempts, next_at FROM syncd.invoice_fetches") == [(1, None)]


async def test_a_process_killed_between_file_and_row_fetches_nothing_twice(store: Store, tmp_path: Path) -> None:
    """The file is known again by what was written down before it was moved to its place."""
    async with filing(store, tmp_path, invoices=1) as it:
        await cut_short(it)
        assert (len(files(tmp_path)), await it.value(COUNT)) == (1, 0)
        assert (await it.pull("invoice_files")).requests == 0, "somebody may be at it still"
        await it.advance(301)
        report = await it.pull("invoice_files")
        assert (report.inserted, report.requests) == (1, 0)
        assert (it.requested("invoice_file"), await it.value(COUNT), len(files(tmp_path))) == (1, 1, 1)


async def test_another_file_in_the_place_is_replaced(store: Store, tmp_path: Path) -> None:
    """What stands there may be another system's, or a half of somebody's copy: the row never speaks of it."""
    async with filing(store, tmp_path, invoices=1) as it:
        await cut_short(it)
        (path,) = files(tmp_path)
        (tmp_path / path).write_bytes(pdf("forged"))
        await it.advance(301)
        assert (await it.pull("invoice_files")).inserted == 1
        ((_, _, sha256, _, _),) = await it.rows(KEPT)
        assert hashlib.sha256((tmp_path / path).read_bytes()).digest() == sha256
        assert it.requested("invoice_file") == 2


async def test_a_killed_process_leaves_its_half_file_for_a_day(store: Store, tmp_path: Path) -> None:
    """Halves are swept away, but never the one that somebody is writing at this moment."""
    async with filing(store, tmp_path, invoices=1) as it:
        half = Directory(tmp_path).draft("default/1.pdf", [b"%PDF-"]).file
        await it.pull("invoice_files")
        assert half.exists()
        Directory(tmp_path).tidy(it.clock.now().replace(year=2100))
        assert not half.exists()


async def test_without_a_directory_nothing_is_fetched(store: Store) -> None:
    """On request alone: thousands of calls and a disk are not taken unasked."""
    async with circle(store) as it:
        reports = await it.puller.pull_all()
        assert "invoice_files" not in {report.stream for report in reports}
        with pytest.raises(UserError, match="SYNCD_INVOICE_FILES"):
            await it.pull("invoice_files")
        assert it.requested("invoice_file") == 0


async def test_a_directory_that_cannot_be_written_is_told_and_costs_no_invoice_a_try(
    store: Store, tmp_path: Path
) -> None:
    """A full or foreign disk is no invoice's fault."""
    (tmp_path / "default").write_text("a file where the directory should be")
    async with filing(store, tmp_path) as it:
        report = await it.pull("invoice_files")
        assert (report.status, report.requests) == ("failed", 1)
        assert "SYNCD_INVOICE_FILES" in (report.reason or "")
        assert await it.value("SELECT sum(attempts) FROM syncd.invoice_fetches") == 0
        (tmp_path / "default").unlink()
        await it.advance(301)
        assert (await it.pull("invoice_files")).inserted == 6


async def test_an_erased_persons_files_go_and_are_not_fetched_again(store: Store, tmp_path: Path) -> None:
    """A PDF names the person in full: stand-ins in the row would hide nothing."""
    async with circle(store, policy=replace(POLICY, files=tmp_path)) as it:
        number = make_person(it.world)
        invoices = it.world.invoices.items()
        theirs = {place("default", n, is_credit=c) for (n, c), each in invoices if each.relation_id == number}
        await it.pull("groups", "group_members", "invoices", "invoice_files")
        before = files(tmp_path)
        receipt = await erased(it.store, shelves={"default": tmp_path})
        assert set(before) - set(files(tmp_path)) == theirs & set(before)
        assert len(files(tmp_path)) == await it.value(COUNT) < len(before)
        assert not [item for item in receipt.receipt.by_hand if "files" in str(item["what"])]
        await it.advance(86400)
        assert (await it.pull("invoice_files")).requests == 0


async def test_an_invoice_erased_while_its_file_is_fetched_keeps_none(store: Store, tmp_path: Path) -> None:
    """The erasure has seen no file then, and will not look again."""
    async with filing(store, tmp_path, invoices=1) as it:
        it.world.invoices = {(n, False): msgspec.structs.replace(v, is_credit=False) for (n, _), v in
                             it.world.invoices.items()}  # fmt: skip
        it.box.faults.add("hold_answer", operation="invoice_file")
        pulling = asyncio.create_task(it.pull("invoice_files"))
        await it.box.until_held()
        async with it.store.begin_remote() as connection:
            await connection.exec_driver_sql("UPDATE crm.invoices SET pseudonymised_at = now()")
        it.box.release()
        await pulling
        assert (files(tmp_path), await it.value(COUNT)) == ([], 0)
