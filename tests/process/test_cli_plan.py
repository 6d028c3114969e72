"""The doors plan, apply and explain as a user meets them: text, JSON, exit codes, and files that are no plans."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from syncd.cli.page import span
from syncd.sandbox import Fault, Kind, Sandbox, World
from syncd.store import Store
from tests.process.test_cli import account, is_one_clear_failure
from tests.support.commands import Ended, daemon, syncd


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


class Door:
    """Commands against one database and one simulator, after a first pull."""

    def __init__(self, cwd: Path, sandbox: Sandbox, store: Store, settings: dict[str, str]) -> None:
        self.cwd, self.sandbox, self.store, self.settings = cwd, sandbox, store, settings
        self.pulled = 0

    @property
    def asked(self) -> list[str]:
        """The operations that were asked for since the pull."""
        return [line.operation for line in self.sandbox.requests.since(self.pulled)]

    async def run(self, *arguments: str, **more: str) -> Ended:
        return await syncd(*arguments, cwd=self.cwd, **{**self.settings, **more})

    async def sql(self, statement: str) -> list[Any]:
        async with self.store.begin() as connection:
            found = await connection.execute(text(statement))
            return list(found.all()) if found.returns_rows else []

    async def relation(self) -> tuple[int, int, str]:
        """A mirrored relation: local id, remote id, address."""
        found = await self.sql("SELECT id, remote_id, email FROM crm.relations ORDER BY id LIMIT 1")
        return found[0][0], int(found[0][1]), found[0][2]


@pytest.fixture
async def door(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> Door:
    made = Door(tmp_path, sandbox, store, account(sandbox, database))
    pulled = await made.run("pull", "groups", "group_members", "tags", "relation_tags")
    assert pulled.code == 0, pulled.both
    made.pulled = sandbox.requests.total
    return made


async def test_plan_save_apply_is_the_way_of_a_careful_hand(door: Door) -> None:
    """Look, keep, send exactly that, and look again: everything is told, nothing is sent twice."""
    who, remote_id, address = await door.relation()
    await door.sql(f"UPDATE crm.relations SET last_name = 'Gepland' WHERE id = {who}")
    planned = await door.run("plan", "--json", "--save", "a.plan")
    assert planned.code == 0, planned.both
    (plan,) = planned.json()
    (call,) = plan["lanes"][0]["calls"]
    assert (plan["totals"]["calls"], plan["totals"]["captured"]) == (1, 1)
    assert (call["call"], call["verb"], call["path"]) == ("relation_upsert", "POST", "relation")
    assert call["values"][0]["local"] == "Gepland"
    assert door.asked == []
    file = door.cwd / "a.plan"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert door.sandbox.key not in file.read_text() + planned.both
    applied = await door.run("apply", "a.plan", "--json")
    assert applied.code == 0, applied.both
    assert [(lane["email"], lane["fate"], lane["sent"]) for lane in applied.json()["lanes"]] == [(address, "sent", 1)]
    assert door.sandbox.world.relations[remote_id].last_name == "Gepland"
    again = await door.run("apply", "a.plan")
    assert again.code == 1
    assert "already" in again.out
    empty = await door.run("plan")
    assert empty.code == 0
    assert "nothing to send" in empty.out


async def test_the_page_of_a_plan_names_calls_values_and_sums(door: Door) -> None:
    """What a person decides by: who, from what to what, which call, how many, how long."""
    who, _, address = await door.relation()
    await door.sql(f"UPDATE crm.relations SET last_name = 'Een' WHERE id = {who}")
    await door.sql(f"UPDATE crm.relations SET last_name = 'Twee' WHERE id = {who}")
    shown = await door.run("plan", "--read")
    assert shown.code == 0, shown.both
    for words in (address, "~ last_name", "Twee", "relation_upsert", "POST relation", "harmless", "1 more edit folded"):
        assert words in shown.out
    assert "1 relation, 1 call (+0 ~1 -0)" in shown.out
    assert door.asked == ["relation_by_id"]
    assert address not in shown.err


@pytest.mark.parametrize("rate_per_s", [0.01, 0.5, 1000.0])
async def test_a_plan_says_how_long_it_takes_at_the_allowed_rate(door: Door, rate_per_s: float) -> None:
    """On the page and in the document, from the rate that is set."""
    await door.sql("UPDATE crm.relations SET last_name = 'Allen' WHERE remote_id IS NOT NULL")
    pace = {"rate_per_s": f"{rate_per_s:g}", "GUARD_RELATIONS": "0"}
    (plan,) = (await door.run("plan", "--json", **pace)).json()
    requests = plan["totals"]["requests"]
    assert requests >= plan["totals"]["calls"] > 0
    assert (plan["rate_per_s"], plan["estimated_s"]) == (rate_per_s, pytest.approx(requests / rate_per_s))
    takes_s = requests / rate_per_s
    least = "about a second" if takes_s < 2 else f"at least {span(takes_s)}"
    said = " ".join((await door.run("plan", **pace)).out.split())
    assert f"; {least} at {rate_per_s:g} requests/s." in said


async def test_a_captured_mass_change_is_planned_with_the_warning_that_it_will_be_held(door: Door) -> None:
    """Whoever reads the plan must not expect the calls to go out by themselves."""
    tight = {"GUARD_RELATIONS": "3"}
    await door.sql("UPDATE crm.relations SET last_name = 'Allen'")
    number = (await door.sql("SELECT count(*) FROM crm.relations"))[0][0]
    shown = await door.run("plan", **tight)
    assert shown.code == 0, shown.both
    said = " ".join(shown.out.split())
    told = f"{number} changes of {number} relations will be held, not sent, until a person approves"
    assert f"{told}: {number} relations changed in one transaction, and up to 3 go unasked." in said
    (plan,) = (await door.run("plan", "--json", **tight)).json()
    held = {key: plan["would_be_held"][key] for key in ("changes", "relations", "limit", "hold_id")}
    assert held == {"changes": number, "relations": number, "limit": 3, "hold_id": None}
    (unguarded,) = (await door.run("plan", "--json", GUARD_RELATIONS="0")).json()
    assert unguarded["would_be_held"] is None


async def test_what_waits_is_on_the_page_with_its_reason(door: Door) -> None:
    """Without it a plan looks as if something were forgotten."""
    who, _, _ = await door.relation()
    await door.sql(f"UPDATE crm.relations SET last_name = 'X' WHERE id = {who}")
    door.sandbox.faults.add(Fault(kind=Kind.STATUS, operation="relation_upsert", status=400, times=0))
    await door.run("drain")
    shown = await door.run("plan")
    assert "is dead: retry or skip it" in shown.out
    assert "1 change waits: 1 dead" in shown.out


async def test_apply_of_what_is_no_plan_is_one_sentence(door: Door) -> None:
    """Exit code 2: nothing was sent, and what to do stands in the line."""
    who, _, _ = await door.relation()
    await door.sql(f"UPDATE crm.relations SET last_name = 'X' WHERE id = {who}")
    await door.run("plan", "--save", "a.plan")
    whole = json.loads((door.cwd / "a.plan").read_text())
    whole["lanes"][0]["rounds"][0]["calls"][0]["payload"]["new"]["last_name"] = "Y"
    (door.cwd / "edited").write_text(json.dumps(whole))
    (door.cwd / "newer").write_text(json.dumps({**whole, "version": 9}))
    (door.cwd / "garbage").write_bytes(b"\x00\xff")
    for name, words in (
        ("edited", "was changed after it was made"),
        ("newer", "format version 9"),
        ("garbage", "is not a plan"),
        ("none", "cannot be read"),
    ):
        assert is_one_clear_failure(ended := await door.run("apply", name), 2)
        assert words in ended.err
    stranger = await door.run("apply", "a.plan", account="elsewhere")
    assert is_one_clear_failure(stranger, 2)
    assert "account 'default', which is not configured" in stranger.err
    assert door.asked == []


async def test_apply_while_paused_is_worth_another_try(door: Door) -> None:
    """75: nothing is wrong with the plan; and after the pause the same file is sent."""
    who, _, _ = await door.relation()
    await door.sql(f"UPDATE crm.relations SET last_name = 'X' WHERE id = {who}")
    await door.run("plan", "--save", "a.plan")
    paused = "UPDATE syncd.account_states SET paused_at = now(), pause_reason = 'rest', is_paused_by_operator = true"
    await door.sql(paused)
    ended = await door.run("apply", "a.plan")
    assert ended.code == 75, ended.both
    assert "the account is paused: rest" in ended.out
    shown = await door.run("plan")
    assert "is paused (rest)" in shown.out
    await door.sql("UPDATE syncd.account_states SET paused_at = NULL, is_paused_by_operator = false")
    assert (await door.run("apply", "a.plan")).code == 0


async def test_apply_beside_the_daemon_sends_everything_once(door: Door, tmp_path: Path) -> None:
    """The daemon takes what it finds first; together they send each edit once and end with nothing left."""
    await door.run("plan", "--save", "empty.plan")
    await door.sql("UPDATE crm.relations SET last_name = 'Samen' WHERE remote_id IS NOT NULL")
    await door.run("plan", "--save", "a.plan")
    async with daemon(tmp_path, **door.settings) as running:
        ended = await door.run("apply", "a.plan", "--json")
        assert ended.code in (0, 1), ended.both
        assert {lane["fate"] for lane in ended.json()["lanes"]} <= {"sent", "refused"}
        await running.stopped()
    await door.run("drain")
    relations = len(await door.sql("SELECT id FROM crm.relations"))
    assert len(door.sandbox.requests.of("relation_upsert")) == relations


async def test_explain_tells_the_chain_in_order(door: Door) -> None:
    """Edit, try, end; pull, run; and the same as one JSON document."""
    who, remote_id, address = await door.relation()
    async with door.store.begin() as connection:
        await connection.execute(text("SELECT crm.set_actor('winkel', 'bestelling 7')"))
        await connection.execute(text(f"UPDATE crm.relations SET last_name = 'Nieuw' WHERE id = {who}"))
    await door.run("drain")
    shown = await door.run("explain", "relation", address, "last_name")
    assert shown.code == 0, shown.both
    events = [line.split()[2] for line in shown.out.splitlines() if line.startswith("20")]
    assert events == ["pull", "edit", "try", "settled"]
    for words in ("by winkel: bestelling 7", "try 1 of entry", "group_members, run", "→ Nieuw"):
        assert words in shown.out
    told = (await door.run("explain", "relation", f"remote:{remote_id}", "last_name", "--json")).json()
    assert [event["what"] for event in told["timeline"]] == ["pull", "edit", "entry", "try", "settled"]
    assert told["relation"]["email"] == address
    assert told["story"]["values"][0]["value"] == "Nieuw"
    entry = told["edits"][0]["id"]
    alone = (await door.run("explain", "entry", str(entry), "--json")).json()
    assert [event["what"] for event in alone["timeline"]] == ["edit", "entry", "try", "settled"]


async def test_explain_finds_a_relation_by_the_address_that_it_had(door: Door) -> None:
    """The customer on the telephone gives the old one; three strangers are no answer to that."""
    who, _, address = await door.relation()
    await door.sql(f"UPDATE crm.relations SET email = 'moved@x.example' WHERE id = {who}")
    drained = await door.run("drain")
    assert drained.code == 0, drained.both
    told = await door.run("explain", "relation", address.upper())
    assert told.code == 0, told.both
    said = f"{address.upper()} is an address that it had before; it has moved@x.example now."
    assert told.out.startswith("moved@x.example  ")
    assert said in told.out
    document = (await door.run("explain", "relation", address, "--json")).json()
    assert (document["relation"]["id"], document["former_address"]) == (who, address)
    now = (await door.run("explain", "relation", "moved@x.example", "--json")).json()
    assert (now["relation"]["id"], now["former_address"]) == (who, None)
    ((other,),) = await door.sql(f"SELECT min(id) FROM crm.relations WHERE id <> {who}")
    await door.sql(f"UPDATE crm.relations SET email = '{address}' WHERE id = {other}")
    taken = (await door.run("explain", "relation", address, "--json")).json()
    assert (taken["relation"]["id"], taken["former_address"]) == (other, None)
    await door.sql(f"UPDATE crm.relations SET email = 'too@x.example' WHERE id = {other}")
    several = await door.run("explain", "relation", address)
    assert is_one_clear_failure(several, 2)
    assert "any more; 2 relations had it: " in several.err
    assert f"id:{who} (moved@x.example now, account default)" in several.err
    assert f"id:{other} (too@x.example now, account default)" in several.err


async def test_explain_of_nobody_names_the_nearest(door: Door) -> None:
    """One sentence, the neighbours' addresses readable, exit code 2."""
    _, _, address = await door.relation()
    wrong = address.replace("@", "x@", 1)
    ended = await door.run("explain", "relation", wrong)
    assert is_one_clear_failure(ended, 2)
    assert address.lower() in ended.err
    facet = await door.run("explain", "relation", address, "lastname")
    assert is_one_clear_failure(facet, 2)
    assert "did you mean last_name" in facet.err
    assert is_one_clear_failure(await door.run("explain", "entry", "999999"), 2)


async def test_addresses_are_shown_and_never_logged(door: Door) -> None:
    """The log of a command is kept by others than its output is read by."""
    who, _, address = await door.relation()
    await door.sql(f"UPDATE crm.relations SET last_name = 'X' WHERE id = {who}")
    for command in (("plan", "--save", "a.plan"), ("apply", "a.plan"), ("explain", "relation", address)):
        ended = await door.run(*command, log_format="json", log_level="info")
        assert ended.code == 0, ended.both
        assert address not in ended.err
        assert address.lower() not in ended.err


async def test_explain_shows_what_the_crm_said_of_a_column(door: Door) -> None:
    """The value here and the CRM's own word for it, side by side, whoever moved since."""
    who, remote_id, address = await door.relation()
    theirs = door.sandbox.world.relations[remote_id].last_name
    await door.sql(f"UPDATE crm.relations SET last_name = 'Van hier' WHERE id = {who}")
    shown = await door.run("explain", "relation", address, "last_name")
    (line,) = [line for line in _said(shown.out) if line.startswith("last_name")]
    run = (await door.sql("SELECT max(id) FROM syncd.runs WHERE stream = 'group_members'"))[0][0]
    assert f'{{"lastName":"{theirs}"}}' in line
    assert re.search(rf"its record: .*\d\d:\d\d  group_members, run {run}$", line.rstrip())
    (answer,) = (await door.run("explain", "relation", address, "last_name", "--json")).json()["story"]["answers"]
    assert (answer["name"], answer["facet"], answer["record"]) == ("last_name", "profile", f'{{"lastName":"{theirs}"}}')
    assert (answer["run"]["id"], answer["run"]["stream"]) == (run, "group_members")
    assert answer["received_at"] is not None


async def test_explain_of_a_whole_relation_shows_its_record_without_secrets(door: Door) -> None:
    """The record as it came: what a report to the vendor quotes. A key in it is nobody's business."""
    who, remote_id, address = await door.relation()
    key = door.settings["autorespond_key"]
    odd = json.dumps({"password": "hunter2", "note": f"of {key}", "long": "x" * 600})
    async with door.store.begin_remote() as connection:
        raw = f"raw || '{odd}'".replace(":", "\\:")
        await connection.execute(text(f"UPDATE crm.relations SET raw = {raw} WHERE id = {who}"))
    ended = await door.run("explain", "relation", address)
    (line,) = [line for line in _said(ended.out) if line.startswith("relation")]
    told = await door.run("explain", "relation", address, "--json")
    (whole,) = [answer for answer in told.json()["story"]["answers"] if answer["name"] == "relation"]
    record = json.loads(whole["record"])
    assert record["id"] == remote_id
    assert (record["password"], record["note"], len(record["long"])) == ("<redacted>", "of <redacted>", 600)
    assert "(cut; --json: all)" in ended.out
    assert "its record: {" in line
    for page in (ended.both, told.both):
        assert key not in page
        assert "hunter2" not in page


async def test_explain_says_in_words_what_was_said_of_links(door: Door) -> None:
    """Of a tag, a group, a list and a field no record is kept; nothing at all would look like nothing known."""
    assert (await door.run("pull", "lists", "fields", "relation_subscriptions")).code == 0
    tagged = await door.sql("SELECT relation_id, tag_id FROM crm.relation_tags ORDER BY 1, 2 LIMIT 1")
    grouped = await door.sql("SELECT relation_id, group_id FROM crm.group_members ORDER BY 1, 2 LIMIT 1")
    listed = await door.sql("SELECT relation_id, list_id, status FROM crm.list_subscriptions ORDER BY 1, 2 LIMIT 1")
    (code, field) = (await door.sql("SELECT code, id FROM crm.fields WHERE is_writable ORDER BY id LIMIT 1"))[0]
    await door.sql(
        f"INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES ({tagged[0][0]}, {field}, 'x')"
    )
    assert (await door.run("drain")).code == 0
    entry = (await door.sql("SELECT id FROM syncd.entries"))[0][0]
    for who, facet, words, by in (
        (tagged[0][0], f"tag:{tagged[0][1]}", "shown among the relation's tags", "relation_tags, run"),
        (grouped[0][0], f"group:{grouped[0][1]}", "shown among the group's members", "group_members, run"),
        (listed[0][0], f"list:{listed[0][1]}", f"shown as {listed[0][2]}", "relation_subscriptions, run"),
        (tagged[0][0], f"field:{code}", "said yes to it (answer 200)", f"its answer to entry {entry}"),
    ):
        lines = " ".join(_said((await door.run("explain", "relation", f"id:{who}", facet)).out))
        assert words in lines, lines
        assert by in lines, lines
        told = (await door.run("explain", "relation", f"id:{who}", facet, "--json")).json()
        (answer,) = told["story"]["answers"]
        assert words in answer["words"]
        assert answer["record"] is None
        assert answer["received_at"] is not None
        assert answer["entry_id"] == entry if "field" in facet else f"{answer['run']['stream']}, run" == by


def _said(page: str) -> list[str]:
    """The lines of the part that tells the CRM's answers."""
    lines = [line.rstrip() for line in page.splitlines()]
    start = lines.index("What the CRM said") + 2
    return lines[start : lines.index("", start)]
