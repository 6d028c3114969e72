"""The guard and its commands from the outside: an edit too large waits, a person is asked, and is obeyed."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from syncd.cli.page import span
from syncd.policy.states import HoldStatus
from syncd.sandbox import Sandbox, World
from syncd.store import Store
from syncd.store.outbox import decide, stage
from tests.support.commands import Ended, accounts_file, daemon, environment, reap, syncd
from tests.support.outbox import rows, run_sql, stage_all

PEOPLE = 60


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=PEOPLE, orders=10, invoices=0, seed=7)) as box:
        yield box


def account(sandbox: Sandbox, database: str, **more: str) -> dict[str, str]:
    given = {"base_url": sandbox.base_url, "autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    return (
        {"database_url": database, "migrate_on_start": "false", "rate_per_s": "1000", "concurrency": "4"} | given | more
    )


async def _slip(store: Store) -> int:
    """UPDATE without WHERE."""
    async with store.begin() as connection:
        done = await connection.execute(text("UPDATE crm.relations SET last_name = 'Slip' WHERE remote_id IS NOT NULL"))
    return done.rowcount


def _slipped(sandbox: Sandbox) -> int:
    return sum(relation.last_name == "Slip" for relation in sandbox.world.relations.values())


async def test_a_slip_is_held_shown_and_rejected(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """The whole story as an operator lives it, ending well."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    touched = await _slip(store)
    drained = await syncd("drain", cwd=tmp_path, **settings, guard_relations="10")
    assert drained.code == 1, "something waits for a person"
    assert "hold.opened" in drained.err
    shown = await syncd("status", cwd=tmp_path, **settings)
    assert "hold 1 waits for you" in shown.out
    refused = await syncd("outbox", "approve", cwd=tmp_path, **settings)
    assert (refused.code, "--yes" in refused.err, refused.out) == (2, True, "")
    said = await syncd("outbox", "holds", "1", cwd=tmp_path, **settings)
    assert f"{touched} changes of {touched} relations" in said.out
    assert "update_profile" in said.out
    assert "last_name" in said.out
    assert "None of it is known to mail people" in said.out
    done = await syncd("outbox", "reject", "1", "--yes", "--reason", "typo", "--json", cwd=tmp_path, **settings)
    assert (done.code, done.json()["changes"]) == (0, touched), done.both
    assert (await syncd("drain", cwd=tmp_path, **settings)).code == 0
    assert _slipped(sandbox) == 0
    status = (await syncd("status", "--json", cwd=tmp_path, **settings)).json()
    assert (status["holds"], status["outbox"][0]["held"]) == ([], 0)


async def test_no_command_loosens_the_guard_of_a_running_daemon(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A shell may know nothing of the daemon's settings; a plan, a pull or a drain from it must let no burst pass."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    async with daemon(tmp_path, **settings, guard_relations="10") as running:
        await running.until("service.started")
        for command in ("plan", "pull", "drain"):
            ended = await syncd(command, cwd=tmp_path, **settings, guard_relations="0")
            assert ended.code == 0, ended.both
            assert ("guard.kept" in ended.err) == (command == "drain")
        await _slip(store)
        await running.until("hold.opened")
        assert await running.stopped() == 0
    assert _slipped(sandbox) == 0


async def test_a_plan_sets_no_guard(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """It promises to change nothing."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    await syncd("drain", cwd=tmp_path, **settings, guard_relations="10")
    await syncd("plan", cwd=tmp_path, **settings, guard_relations="0")
    await _slip(store)
    async with store.begin() as connection:
        await stage(connection)
        held = await connection.execute(text("SELECT count(*) FROM syncd.entries WHERE status = 'held'"))
        assert held.scalar_one() > 10


@pytest.mark.parametrize("chosen", [(), ("--account", "first")])
async def test_a_drain_of_several_accounts_guards_all_before_it_stages_for_one(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store, chosen: tuple[str, ...]
) -> None:
    """Whoever is first stages what all have captured, also for an account that nobody has drained yet."""
    async with Sandbox(World.seeded(relations=9, orders=2, invoices=0, seed=1)) as first:
        path = accounts_file(tmp_path, first=first, second=sandbox)
        settings = {"database_url": database, "accounts_file": str(path), "rate_per_s": "1000", "guard_relations": "20"}
        pulled = await syncd("pull", cwd=tmp_path, **settings)
        assert pulled.code == 0, pulled.both
        assert await _slip(store) > PEOPLE
        await syncd("drain", *chosen, cwd=tmp_path, **settings)
        drained = await syncd("drain", cwd=tmp_path, **settings)
        assert drained.code == 1, drained.both
    assert _slipped(sandbox) == 0


async def test_an_approved_edit_goes_out(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """Sometimes everybody is meant."""
    settings = account(sandbox, database, guard_relations="10")
    await syncd("pull", cwd=tmp_path, **settings)
    touched = await _slip(store)
    await syncd("drain", cwd=tmp_path, **settings)
    assert _slipped(sandbox) == 0
    nothing = await syncd("outbox", "approve", "7", "--yes", cwd=tmp_path, **settings)
    assert (nothing.code, "no hold 7" in nothing.err) == (2, True)
    done = await syncd("outbox", "approve", "--yes", "--actor", "jan", cwd=tmp_path, **settings)
    assert done.code == 0, done.both
    assert (await syncd("drain", cwd=tmp_path, **settings)).code == 0
    assert _slipped(sandbox) == touched
    none = await syncd("outbox", "approve", "--yes", cwd=tmp_path, **settings)
    assert (none.code, "no mass change waits" in none.err) == (2, True)
    (hold,) = (await syncd("outbox", "holds", "--json", cwd=tmp_path, **settings)).json()
    assert (hold["status"], hold["held"]) == ("approved", 0)


async def test_a_hold_says_how_long_it_takes_and_whom_it_may_mail(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """By these two figures a person decides: an hour of requests, and hundreds of campaigns started."""
    settings = account(sandbox, database, guard_relations="10")
    await syncd("pull", cwd=tmp_path, **settings)
    tagged = "INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT r.id, t.id FROM crm.relations r, tag t"
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'Slip' WHERE remote_id IS NOT NULL"))
        one = "WITH tag AS (SELECT min(id) AS id FROM crm.tags)"
        mailed = (await connection.execute(text(f"{one} {tagged} ON CONFLICT DO NOTHING"))).rowcount
        changes = (await connection.execute(text("SELECT count(*) FROM syncd.captures"))).scalar_one()
    assert 0 < mailed < changes
    await syncd("drain", cwd=tmp_path, **settings)
    requests = changes * 1.5  # what three requests for two deliveries are, as long as nothing was measured
    for rate_per_s, concurrency in ((0.5, 4), (2.0, 4), (1000.0, 1), (1000.0, 3)):
        pace = {"rate_per_s": f"{rate_per_s:g}", "concurrency": str(concurrency)}
        takes_s = max(requests / rate_per_s, requests * 0.3 / concurrency)
        found = (await syncd("outbox", "holds", "1", "--json", cwd=tmp_path, **{**settings, **pace})).json()
        assert found["estimated_s"] == pytest.approx(takes_s)
        assert (found["deliveries"], found["requests"]) == (changes, round(requests))
        assert (found["rate_per_s"], found["concurrency"], found["may_mail"]) == (rate_per_s, concurrency, mailed)
        page = (await syncd("outbox", "holds", "1", cwd=tmp_path, **{**settings, **pace})).out
        assert f"about {changes} deliveries in {round(requests)} requests" in page
        allowed = f"({rate_per_s:g} requests/s, {concurrency} at once)"
        assert f"which takes {span(takes_s)} or more at the allowed pace {allowed}." in page
        assert f"It may mail people: {mailed} changes of tags, groups or lists can start e-mail campaigns." in page


async def test_a_decided_hold_says_what_was_decided_and_what_became_of_it(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A day later somebody asks who let this through, and how far it got; "sends 0 changes" is no answer."""
    settings = account(sandbox, database, guard_relations="10")
    await syncd("pull", cwd=tmp_path, **settings)
    touched = await _slip(store)
    await syncd("drain", cwd=tmp_path, **settings)
    jan = ("--actor", "Jan Bos", "--reason", "[new] names")
    await syncd("outbox", "approve", "1", "--yes", *jan, cwd=tmp_path, **settings)
    await syncd("drain", cwd=tmp_path, **settings)
    await run_sql(store, "UPDATE syncd.entries SET status = 'verified' WHERE status = 'accepted'")
    await run_sql(store, "UPDATE syncd.entries SET status = 'diverged' WHERE relation_id <= 2")
    (decided_at,) = (await rows(store, "SELECT decided_at FROM syncd.decisions"))[0].values()
    by = f"by Jan Bos at {decided_at.astimezone():%Y-%m-%d %H:%M:%S}"
    page = (await syncd("outbox", "holds", "1", cwd=tmp_path, **settings)).out
    assert f"\nApproved {by}: [new] names\n" in page
    kept = f"{touched} changes of {touched} relations are kept of it: {touched - 2} verified, 2 diverged."
    assert page.endswith(f"\n{kept}\n")
    assert "Approving" not in page
    summary = (await syncd("outbox", "holds", "1", "--json", cwd=tmp_path, **settings)).json()["summary"]
    assert (summary["verdict"]["verb"], summary["verdict"]["actor"]) == ("approve", "Jan Bos")
    became = {"changes": touched, "relations": touched, "statuses": {"verified": touched - 2, "diverged": 2}}
    assert summary["became"] == became
    again = await syncd("outbox", "approve", "1", "--yes", cwd=tmp_path, **settings)
    assert again.code == 0, again.both
    assert again.out.endswith(f"\nhold 1 was approved already {by}; there is nothing left to do\n")
    document = (await syncd("outbox", "approve", "1", "--yes", "--json", cwd=tmp_path, **settings)).json()
    assert (document["is_repeat"], document["changes"]) == (True, 0)
    refused = await syncd("outbox", "reject", "1", "--yes", cwd=tmp_path, **settings)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"syncd: hold 1 was approved already {by}; ")
    await run_sql(store, "DELETE FROM syncd.entries")
    page = (await syncd("outbox", "holds", "1", cwd=tmp_path, **settings)).out
    assert page.endswith("\nNone of its changes is kept any more.\n")


async def test_a_decision_that_was_left_half_carried_out_is_shown_and_finished(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A killed approve has decided; the same command goes on and asks nothing, whoever types it."""
    settings = account(sandbox, database, guard_relations="10")
    await syncd("pull", cwd=tmp_path, **settings)
    touched = await _slip(store)
    await syncd("drain", cwd=tmp_path, **settings)
    async with store.begin() as connection:
        await decide(connection, 1, HoldStatus.REJECTED, "jan", None)
    page = (await syncd("outbox", "holds", "1", cwd=tmp_path, **settings)).out
    assert f"{touched} held." in page
    assert f"{touched} do not follow yet; the daemon sees to them, or `syncd outbox reject 1`.\n" in page
    ended = await _on_a_terminal(tmp_path, settings, "", "reject", "1")
    assert f"; {touched} changes that had not followed are skipped now\n" in ended.out
    assert (ended.code, "Reject hold" in ended.out) == (0, False)
    assert {row["status"] for row in await rows(store, "SELECT status FROM syncd.entries")} == {"skipped"}


@pytest.mark.parametrize(("answer", "sent"), [("y\n", True), ("n\n", False)])
async def test_on_a_terminal_the_person_is_asked(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store, answer: str, sent: bool
) -> None:
    """Shown first, asked then; no means that it goes on waiting."""
    settings = account(sandbox, database, guard_relations="10")
    await syncd("pull", cwd=tmp_path, **settings)
    touched = await _slip(store)
    await syncd("drain", cwd=tmp_path, **settings)
    ended = await _on_a_terminal(tmp_path, settings, answer)
    assert "Approve hold 1?" in ended.out
    await syncd("drain", cwd=tmp_path, **settings)
    assert _slipped(sandbox) == (touched if sent else 0)


async def _on_a_terminal(cwd: Path, settings: dict[str, str], answer: str, *command: str) -> Ended:
    """Decide with a terminal to ask on, and type the answer."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "syncd", "outbox", *(command or ("approve",))),
        cwd=cwd,
        env=environment(**settings),
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    try:
        os.write(ours, answer.encode())
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        await reap(process)
        os.close(ours)
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def test_a_paused_account_sends_nothing_until_it_is_resumed(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """The stop button of a bad day."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    paused = await syncd("outbox", "pause", "--reason", "moving house", "--json", cwd=tmp_path, **settings)
    assert paused.json() == {"paused": ["default"]}
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'Slip' WHERE id = 1"))
    assert (await syncd("drain", cwd=tmp_path, **settings)).code == 75
    assert "paused by an operator: moving house" in (await syncd("status", cwd=tmp_path, **settings)).out
    assert (await syncd("outbox", "resume", cwd=tmp_path, **settings)).out == "resumed: default\n"
    assert (await syncd("drain", cwd=tmp_path, **settings)).code == 0
    unknown = await syncd("outbox", "pause", "--account", "shop", cwd=tmp_path, **settings)
    assert (unknown.code, "default" in unknown.err) == (2, True)


async def test_pruning_by_hand_says_what_it_deleted(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A full disk does not wait for the hour."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'X' WHERE id = 1"))
    assert (await syncd("drain", cwd=tmp_path, **settings)).code == 0
    async with store.begin() as connection:
        ago = "now() - interval '3 days'"
        await connection.execute(text(f"UPDATE syncd.entries SET staged_at = {ago}, settled_at = {ago}"))
    kept = await syncd("outbox", "prune", "--json", cwd=tmp_path, **settings)
    assert kept.json()["default"]["entries"] == 0, kept.both
    pruned = await syncd("outbox", "prune", "--older-than", "2", cwd=tmp_path, **settings)
    assert pruned.out == "default: deleted what is older than 2 days: 1 changes, 1 tries\n"
    assert (await syncd("outbox", "prune", "--older-than", "0.5", cwd=tmp_path, **settings)).code == 2


async def test_what_waits_is_listed_by_reason(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """Forty dead entries, one trouble."""
    settings = account(sandbox, database, guard_relations="0")
    await syncd("pull", cwd=tmp_path, **settings)
    sandbox.faults.add("status", operation="relation_upsert", status=400, times=0)
    touched = 3  # fewer than make the breaker ask whether it is the host's trouble
    async with store.begin() as connection:
        chosen = "SELECT id FROM crm.relations WHERE remote_id IS NOT NULL ORDER BY id LIMIT 3"
        await connection.execute(text(f"UPDATE crm.relations SET last_name = 'Slip' WHERE id IN ({chosen})"))
    assert (await syncd("drain", cwd=tmp_path, **settings)).code == 1
    (group,) = (await syncd("outbox", "list", "--by-reason", "--json", cwd=tmp_path, **settings)).json()
    assert (group["entries"], group["operation"], group["status"]) == (touched, "update_profile", "dead")
    listed = await syncd("outbox", "list", "--limit", "3", cwd=tmp_path, **settings)
    assert listed.out.startswith(f"{touched} dead\n")
    shown = await syncd("outbox", "show", str(group["entry_id"]), cwd=tmp_path, **settings)
    assert "Decisions" not in shown.out
    await syncd(
        "outbox", "skip", str(group["entry_id"]), "--reason", "left", "--actor", "jan", cwd=tmp_path, **settings
    )
    shown = await syncd("outbox", "show", str(group["entry_id"]), cwd=tmp_path, **settings)
    assert "Decisions" in shown.out
    assert "jan" in shown.out


async def test_a_skip_names_what_may_be_applied_all_the_same(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """Giving up what is on the wire gives up its record, not its effect: a script must learn that as a person does."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'Slip' WHERE id IN (1, 2, 3)"))
    await stage_all(store)
    entries = [entry["id"] for entry in await rows(store, "SELECT id FROM syncd.entries ORDER BY relation_id")]
    sent = "UPDATE syncd.lanes SET claimed_by = 'w', sending_upto = 1, ready_at = now() + interval '1 hour'"
    await run_sql(store, f"{sent} WHERE relation_id IN (2, 3)")
    skipped = await syncd("outbox", "skip", *map(str, entries[:2]), "--json", cwd=tmp_path, **settings)
    assert skipped.json() == {"skipped": entries[:2], "in_hand": [entries[1]]}, skipped.both
    told = (await syncd("outbox", "skip", str(entries[2]), cwd=tmp_path, **settings)).out
    assert f"being sent at that moment, so perhaps applied all the same: {entries[2]}\n" in told


async def test_what_the_list_leaves_out_is_told(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """A list that ends at its limit looks like all there is; the document stays the list that programs read."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'Slip' WHERE id <= 5"))
    await stage_all(store)
    await run_sql(store, "UPDATE syncd.entries SET status = 'dead', error = 'no' WHERE relation_id <= 2")
    await run_sql(store, "UPDATE syncd.entries SET status = 'parked', error = 'who knows' WHERE relation_id = 3")
    cut = await syncd("outbox", "list", "--limit", "2", "--json", cwd=tmp_path, **settings)
    assert (len(cut.json()), cut.err) == (2, "syncd: 3 more are not listed: --limit is 2\n")
    assert cut.json()[0].keys() >= {"id", "status", "operation"}
    page = await syncd("outbox", "list", "--limit", "2", cwd=tmp_path, **settings)
    assert page.out.startswith("2 pending, 2 dead, 1 parked\n")
    assert page.out.endswith("\n3 more are not listed: --limit is 2\n")
    whole = await syncd("outbox", "list", "--json", cwd=tmp_path, **settings)
    assert (len(whole.json()), whole.err) == (5, "")
    grouped = await syncd("outbox", "list", "--by-reason", "--limit", "1", "--json", cwd=tmp_path, **settings)
    assert ([group["entries"] for group in grouped.json()], grouped.err[:11]) == ([2], "syncd: 1 mo")
    counted = await syncd("outbox", "list", "--counts", "--limit", "1", "--json", cwd=tmp_path, **settings)
    assert (counted.json(), counted.err) == ({"pending": 2, "dead": 2, "parked": 1}, "")
    dead = await syncd("outbox", "list", "--counts", "--status", "dead", cwd=tmp_path, **settings)
    assert (dead.out, dead.err) == ("2 dead\n", "")
    none = await syncd("outbox", "list", "--counts", "--status", "skipped", "--json", cwd=tmp_path, **settings)
    assert none.json() == {}
