"""The doors as a user meets them: real processes, exit codes, what stands on which stream, and no traceback ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from syncd.sandbox import Fault, Kind, Sandbox, World
from syncd.store import Store
from tests.conftest import admin, database_url
from tests.support.commands import Ended, free_port, reap, spawn, syncd
from tests.support.logs import captured_logs, registered_secrets

CANARY = "canary8f2d1c"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(World.seeded(relations=8, orders=6, invoices=4, seed=3)) as running:
        yield running


def account(sandbox: Sandbox, database: str, **more: str) -> dict[str, str]:
    """The settings of an account on the simulator."""
    given = {"base_url": sandbox.base_url, "autorespond_admin": sandbox.admin, "autorespond_key": sandbox.key}
    return {"database_url": database, "rate_per_s": "1000", **given, **more}


def is_one_clear_failure(ended: Ended, code: int) -> bool:
    """One sentence on standard error, nothing on standard output, no traceback."""
    assert ended.code == code, ended.both
    assert "Traceback" not in ended.both
    assert ended.err.startswith("syncd: ")
    return ended.out == ""


async def test_help_is_a_page_that_names_every_door(tmp_path: Path) -> None:
    """The first thing anybody reads: commands by purpose, examples, exit codes, where settings come from."""
    ended = await syncd("--help", cwd=tmp_path)
    assert ended.code == 0
    doors = ("run", "pull", "backfill", "drain", "apply", "status", "outbox", "plan", "explain", "check", "migrate")
    for words in (*doors, "demo", "sandbox"):
        assert f"\n  {words} " in ended.out
    for words in ("Examples:", "Exit codes: 0 done", "config.example.env", "Keep both sides the same:"):
        assert words in ended.out
    assert max(map(len, ended.out.splitlines())) <= 82


async def test_version_is_the_packages(tmp_path: Path) -> None:
    """Every report of a fault begins with it."""
    from syncd import __version__

    assert (await syncd("--version", cwd=tmp_path)).out == f"syncd {__version__}\n"


async def test_mistyped_command_names_the_right_one(tmp_path: Path) -> None:
    """Exit code 2 and a suggestion, without a page of usage."""
    ended = await syncd("stauts", cwd=tmp_path)
    assert is_one_clear_failure(ended, 2)
    assert "did you mean status?" in ended.err


async def test_wrong_settings_are_told_all_at_once_and_without_values(tmp_path: Path) -> None:
    """Exit code 78, which a supervisor does not restart on."""
    ended = await syncd("run", cwd=tmp_path, rate_per_s=CANARY, databse_url=CANARY, autorespond_key=CANARY)
    assert is_one_clear_failure(ended, 78)
    assert "SYNCD_RATE_PER_S must be a number" in ended.err
    assert "did you mean SYNCD_DATABASE_URL?" in ended.err
    assert CANARY not in ended.both


async def test_unknown_account_is_named_with_the_known_ones(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """A typo in --account must not pull everything, or nothing."""
    ended = await syncd("pull", "--account", "shpo", cwd=tmp_path, **account(sandbox, database))
    assert is_one_clear_failure(ended, 2)
    assert "configured: default" in ended.err


async def test_absent_database_is_worth_another_try(tmp_path: Path) -> None:
    """75 tells cron and scripts that nothing is broken for good."""
    url = f"postgresql://u:{CANARY}@127.0.0.1:{free_port()}/x"
    ended = await syncd("status", cwd=tmp_path, database_url=url)
    assert is_one_clear_failure(ended, 75)
    assert CANARY not in ended.both


async def test_missing_database_and_garbled_url_want_a_change(tmp_path: Path, server_url: str) -> None:
    """Waiting mends neither."""
    missing = await syncd("status", cwd=tmp_path, database_url=database_url(server_url, "no_such_database"))
    assert is_one_clear_failure(missing, 78)
    garbled = await syncd("status", cwd=tmp_path, database_url=f"mysql://u:{CANARY}@h/x")
    assert is_one_clear_failure(garbled, 78)
    assert CANARY not in garbled.both


async def test_debug_shows_a_traceback_without_secrets(tmp_path: Path) -> None:
    """Whoever asks for detail gets it; the password still goes nowhere."""
    url = f"postgresql://u:{CANARY}@127.0.0.1:{free_port()}/x"
    ended = await syncd("status", cwd=tmp_path, database_url=url, log_level="debug")
    assert ended.code == 75
    assert "Traceback" in ended.err
    assert CANARY not in ended.both


async def test_migrate_makes_the_tables_once(tmp_path: Path, server_url: str) -> None:
    """Before it, every other door says what to do; after it, a second run changes nothing."""
    name = "syncd_test_migrate_door"
    await admin(server_url, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    try:
        url = database_url(server_url, name)
        before = await syncd("status", cwd=tmp_path, database_url=url)
        assert is_one_clear_failure(before, 78)
        assert "run: syncd migrate" in before.err
        first = (await syncd("migrate", "--json", cwd=tmp_path, database_url=url)).json()
        second = (await syncd("migrate", "--json", cwd=tmp_path, database_url=url)).json()
        assert (first["before"], second["before"]) == (None, first["after"])
        assert (await syncd("status", cwd=tmp_path, database_url=url)).code == 0
    finally:
        await admin(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_grants_are_printed_without_a_database(tmp_path: Path) -> None:
    """An administrator reads the script before anybody runs it."""
    ended = await syncd("migrate", "--print-grants", cwd=tmp_path)
    assert ended.code == 0
    assert "GRANT" in ended.out
    assert "syncd_reader" in ended.out


async def test_newer_schema_is_left_alone(tmp_path: Path, database: str, store: Store) -> None:
    """An old program on a new schema would write rows that the new one cannot read."""
    async with store.begin() as connection:
        await connection.execute(text("UPDATE syncd.alembic_version SET version_num = '9999'"))
    for door in (["status"], ["migrate"], ["outbox", "list"]):
        ended = await syncd(*door, cwd=tmp_path, database_url=database)
        assert is_one_clear_failure(ended, 78)
        assert "newer than this syncd" in ended.err


async def test_check_says_all_is_well(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """The first command after the settings; it must change nothing in the CRM."""
    ended = await syncd("check", "--json", cwd=tmp_path, **account(sandbox, database))
    found = ended.json()
    assert ended.code == 0, ended.both
    assert {finding["verdict"] for finding in found["findings"]} == {"ok"}
    keys = {line["name"]: line["value"] for line in found["settings"] if line["name"].endswith("_KEY")}
    assert keys == {"SYNCD_AUTORESPOND_KEY": "********", "SYNCD_ERASE_KEY": ""}, "what is set is hidden"
    assert sandbox.key not in ended.both
    assert not list(sandbox.journal)


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ({"autorespond_key": CANARY}, 78, "check the administration number and the key"),
        ({"base_url": "http://127.0.0.1:{port}/wrong/"}, 78, "is SYNCD_BASE_URL the API's address?"),
        ({"base_url": "http://127.0.0.1:{free}/"}, 75, "look at SYNCD_BASE_URL and at the network"),
    ],
)
async def test_check_names_what_is_wrong_with_the_account(
    tmp_path: Path, sandbox: Sandbox, database: str, wrong: dict[str, str], code: int, words: str
) -> None:
    """A wrong key, a wrong address and a host that is away each need another hand."""
    filled = {name: value.format(port=sandbox.port, free=free_port()) for name, value in wrong.items()}
    ended = await syncd("check", cwd=tmp_path, **account(sandbox, database, **filled))
    assert ended.code == code, ended.both
    assert words in ended.out
    assert "Traceback" not in ended.both
    assert CANARY not in ended.both


async def test_check_does_not_take_a_login_page_for_an_answer(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """A proxy that asks for a password answers 200, and every pull would fail."""
    sandbox.faults.add("html", status=200, times=0)
    ended = await syncd("check", cwd=tmp_path, **account(sandbox, database))
    assert ended.code == 78, ended.both
    assert "is SYNCD_BASE_URL the API's address?" in ended.out


async def test_an_entry_number_that_cannot_be_is_a_wrong_command_line(tmp_path: Path, database: str) -> None:
    """Not an error of the driver about eight bytes."""
    ended = await syncd("outbox", "show", "9" * 25, cwd=tmp_path, database_url=database)
    assert is_one_clear_failure(ended, 2)


async def test_check_goes_on_after_the_first_trouble(tmp_path: Path, sandbox: Sandbox) -> None:
    """A database that is away must not hide a key that is wrong."""
    settings = account(sandbox, f"postgresql://u@127.0.0.1:{free_port()}/x", autorespond_key="wrong")
    ended = await syncd("check", "--json", cwd=tmp_path, **settings)
    verdicts = {finding["subject"]: finding["verdict"] for finding in ended.json()["findings"]}
    assert verdicts["database"] == "fail"
    assert verdicts["default: credentials"] == "fail"
    assert ended.code == 78


async def test_pull_edit_drain_is_the_circle_by_hand(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """One-shot commands are how cron runs syncd, and how a person tries it."""
    settings = account(sandbox, database)
    pulled = await syncd("pull", "--json", cwd=tmp_path, **settings)
    assert pulled.code == 0, pulled.both
    assert {run["status"] for run in pulled.json()} == {"succeeded"}
    async with store.begin() as connection:
        row = await connection.execute(
            text("UPDATE crm.relations SET last_name = 'Changed' WHERE remote_id IS NOT NULL RETURNING remote_id")
        )
        ids = [int(found) for found in row.scalars()]
    drained = await syncd("drain", "--json", cwd=tmp_path, **settings)
    assert drained.code == 0, drained.both
    assert drained.json()[0]["delivered"] == len(ids) > 0
    assert {sandbox.world.relations[found].last_name for found in ids} == {"Changed"}
    status = (await syncd("status", "--json", cwd=tmp_path, **settings)).json()
    assert status["outbox"][0]["pending"] == 0
    assert status["mirror"][0]["orders"] > 0
    shown = await syncd("status", cwd=tmp_path, **settings)
    assert "Streams" in shown.out


async def test_pull_of_an_unknown_stream_lists_the_known(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """Exit code 2: nothing was asked for."""
    ended = await syncd("pull", "oders", cwd=tmp_path, **account(sandbox, database))
    assert is_one_clear_failure(ended, 2)
    assert "invoices" in ended.err


async def test_pull_with_a_wrong_key_fails_and_says_so(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """The reason stands in the table, the key nowhere."""
    ended = await syncd("pull", cwd=tmp_path, **account(sandbox, database, autorespond_key=CANARY))
    assert ended.code == 1
    assert "failed" in ended.out
    assert CANARY not in ended.both


async def test_pull_while_the_crm_is_away_is_worth_another_try(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """A timer tells by the code what passes by itself from what somebody must mend."""
    sandbox.faults.add("status", status=503, operation="tags", times=0)
    ended = await syncd("pull", "tags", cwd=tmp_path, **account(sandbox, database))
    assert ended.code == 75, ended.both
    gone = account(sandbox, database, base_url="http://127.0.0.1:1/api/1.0/")
    ended = await syncd("pull", "tags", cwd=tmp_path, **gone)
    assert ended.code == 75, ended.both
    assert "out of reach" in ended.both


async def test_backfill_reads_history_and_reports_it(tmp_path: Path, sandbox: Sandbox, database: str) -> None:
    """Everything older than the daemon's horizon comes through this door."""
    door = ("backfill", "--since", "2015-01-01", "--streams", "orders,invoices", "--json")
    ended = await syncd(*door, cwd=tmp_path, **account(sandbox, database))
    assert ended.code == 0, ended.both
    told = ended.json()
    assert {run["stream"]: run["received"] for run in told["runs"]} == {
        "orders": len(sandbox.world.orders),
        "invoices": len(sandbox.world.invoices),
    }
    assert [(one["stream"], one["is_whole"], one["unproven"]) for one in told["proven"]] == [
        ("orders", True, []),
        ("invoices", True, []),
    ]


async def test_outbox_shows_retries_and_skips(tmp_path: Path, sandbox: Sandbox, database: str, store: Store) -> None:
    """What waits for a person must be found, understood and decided from the command line."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    sandbox.faults.add(Fault(kind=Kind.STATUS, operation="relation_upsert", status=400, times=0))
    async with store.begin() as connection:
        await connection.execute(text("UPDATE crm.relations SET last_name = 'X' WHERE id = 1"))
    drained = await syncd("drain", cwd=tmp_path, **settings)
    assert drained.code == 1, drained.both
    (entry,) = (await syncd("outbox", "list", "--status", "dead", "--json", cwd=tmp_path, **settings)).json()
    shown = await syncd("outbox", "show", str(entry["id"]), cwd=tmp_path, **settings)
    assert "Tries" in shown.out
    assert entry["error"] in shown.out
    assert (await syncd("outbox", "retry", str(entry["id"]), cwd=tmp_path, **settings)).code == 0
    await syncd("drain", cwd=tmp_path, **settings)
    assert (await syncd("outbox", "skip", str(entry["id"]), "--reason", "typo", cwd=tmp_path, **settings)).code == 0
    again = await syncd("outbox", "skip", str(entry["id"]), cwd=tmp_path, **settings)
    assert is_one_clear_failure(again, 2)
    listed = await syncd("outbox", "list", cwd=tmp_path, **settings)
    assert listed.out == "Nothing to show.\n"


async def test_who_waits_for_another_ones_decision_is_not_told_to_try_later(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """Whoever runs a drain from a script is called where only a person can help, and not made to run it again."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    sandbox.faults.add(Fault(kind=Kind.STATUS, operation="relation_email", status=400, times=1))
    async with store.begin() as connection:
        (address,) = (await connection.execute(text("SELECT email FROM crm.relations WHERE id = 1"))).one()
        await connection.execute(text("UPDATE crm.relations SET email = 'moved@x.example' WHERE id = 1"))
        await connection.execute(text("UPDATE crm.relations SET email = :email WHERE id = 2"), {"email": address})
    drained = await syncd("drain", "--json", cwd=tmp_path, **settings)
    assert drained.code == 1, drained.both
    (report,) = drained.json()
    assert (report["pending"], report["blocked"]) == (0, 2)


async def test_a_doubt_is_counted_and_an_incident_is_shown(
    tmp_path: Path, sandbox: Sandbox, database: str, store: Store
) -> None:
    """A drain does not wait for the settle window and says so; a person finds in the status what they should know."""
    settings = account(sandbox, database)
    await syncd("pull", cwd=tmp_path, **settings)
    who = next(relation for relation in sandbox.world.relations.values() if relation.groups)
    sandbox.faults.add(Fault(kind=Kind.LATE, operation="relation_email"))
    edit = text("UPDATE crm.relations SET email = 'new@x.example' WHERE remote_id = :remote_id")
    async with store.begin() as connection:
        await connection.execute(edit, {"remote_id": str(who.id)})
    drained = await syncd("drain", "--json", cwd=tmp_path, **settings)
    assert drained.code == 0, drained.both
    (report,) = drained.json()
    assert (report["pending"], report["blocked"], report["reasserting"]) == (0, 0, 1)
    (again,) = (await syncd("outbox", "list", "--json", cwd=tmp_path, **settings)).json()
    await syncd("outbox", "skip", str(again["id"]), cwd=tmp_path, **settings)
    sandbox.world.change_relation(who.id, email="other@x.example")
    await syncd("pull", "group_members", cwd=tmp_path, **account(sandbox, database, settle_window_s="0"))
    (incident,) = (await syncd("status", "--json", cwd=tmp_path, **settings)).json()["incidents"]
    assert (incident["kind"], incident["subject"]) == ("diverged", f"entry:{again['reasserts']}")
    assert "other@x.example" in incident["detail"]
    shown = await syncd("status", cwd=tmp_path, **settings)
    assert "Incidents" in shown.out
    assert incident["subject"] in shown.out


async def test_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path, database: str) -> None:
    """`syncd status | head -1` must not end in a page of Python."""
    process = await spawn("status", cwd=tmp_path, database_url=database)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout._transport.close()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            err = await process.stderr.read()
            await process.wait()
    finally:
        await reap(process)
    assert err == b""


async def test_unexpected_error_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is still told in one line, without secrets, and with exit code 1."""
    from syncd.cli import app, ending

    def broken(**_: object) -> None:
        raise RuntimeError(f"the key is {CANARY}")

    monkeypatch.setattr(app.app, "main", broken)
    with captured_logs(json=True), registered_secrets(CANARY):
        assert ending.run_to_exit_code() == 1
    said = capsys.readouterr()
    assert said.err.startswith("syncd: unexpected RuntimeError")
    assert said.out == ""
    assert CANARY not in said.err
    assert "Traceback" not in said.err


async def test_sandbox_prints_the_settings_that_point_to_it(tmp_path: Path) -> None:
    """Its output can be put into .env as it is."""
    process = await spawn("sandbox", "--port", "0", "--relations", "5", cwd=tmp_path)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            lines = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.wait() == 143
    finally:
        await reap(process)
    assert [line.partition("=")[0] for line in lines] == [
        "SYNCD_BASE_URL",
        "SYNCD_AUTORESPOND_ADMIN",
        "SYNCD_AUTORESPOND_KEY",
    ]


async def test_a_port_that_is_taken_asks_for_another(tmp_path: Path, sandbox: Sandbox) -> None:
    """Two simulators at once is the commonest way to fail here."""
    taken = sandbox.base_url.split(":")[2].split("/")[0]
    ended = await syncd("sandbox", "--port", taken, cwd=tmp_path)
    assert is_one_clear_failure(ended, 2)
    assert f"port {taken} is taken; choose another with --port" in ended.err


async def test_history_does_not_lie_in_the_future(tmp_path: Path) -> None:
    """A mistyped year would read nothing and look like a success."""
    ended = await syncd("backfill", "--since", "2999-01-01", cwd=tmp_path)
    assert is_one_clear_failure(ended, 2)
    assert "2999-01-01 lies in the future" in ended.err


async def test_bare_command_shows_the_help_as_it_is(tmp_path: Path) -> None:
    """The first thing some people type; it is no error message."""
    ended = await syncd(cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Usage: syncd")


async def test_json_output_is_one_document(tmp_path: Path, database: str) -> None:
    """Programs read standard output; nothing else may stand there."""
    for door in (["status", "--json"], ["outbox", "list", "--json"], ["migrate", "--json"]):
        ended = await syncd(*door, cwd=tmp_path, database_url=database)
        assert ended.code == 0, ended.both
        json.loads(ended.out)
