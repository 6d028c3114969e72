"""``syncd check``: the effective settings, and whether everything they speak of is there."""

from __future__ import annotations

import click
from pydantic import SecretStr
from rich.text import Text

from syncd.cli import session
from syncd.cli.page import BAD, GOOD, QUIET, WARN, json_option, out, print_json, table
from syncd.clock import SystemClock
from syncd.service.checkup import Finding, Verdict, check_account, check_database, exit_code_of
from syncd.settings import Loaded, SettingsError
from syncd.settings.names import variable
from syncd.settings.root import Settings
from syncd.settings.table import spelled

_COLOURS = {Verdict.OK: GOOD, Verdict.WARN: WARN, Verdict.FAIL: BAD}


@click.command(name="check")
@click.option("--all", "show_all", is_flag=True, help="Show every setting, not the given ones alone.")
@json_option
def command(show_all: bool, as_json: bool) -> int:
    """Test settings, database, schema, credentials and clocks. Changes nothing anywhere.

    Exits 0 when all is well, 75 when something may pass by itself, 78 when something must be changed.
    """
    loaded = session.begin()
    findings = session.run(lambda: _look(loaded.settings))
    if as_json:
        print_json({"settings": _effective(loaded), "findings": findings, "exit_code": exit_code_of(findings)})
    else:
        _show(loaded, findings, show_all)
    return exit_code_of(findings)


async def _look(settings: Settings) -> list[Finding]:
    clock = SystemClock()
    findings = [finding async for finding in check_database(settings, clock)]
    try:
        configs = session.accounts(settings)
    except SettingsError as error:
        return findings + [Finding("account", Verdict.FAIL, line, "", error.exit_code) for line in error.problems]
    for config in configs:
        findings += [finding async for finding in check_account(config, clock)]
    return findings


def _effective(loaded: Loaded) -> list[dict[str, str]]:
    """Return every setting as it is in effect; secrets as stars."""
    return [
        {
            "name": variable(name),
            "value": _shown(getattr(loaded.settings, name)),
            "from": loaded.origins.get(name, "default"),
        }
        for name in Settings.model_fields
    ]


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    return spelled(value)


def _show(loaded: Loaded, findings: list[Finding], show_all: bool) -> None:
    console = out()
    rows = [row for row in _effective(loaded) if show_all or row["from"] != "default"]
    if rows:
        console.print(
            table("Settings", ["setting", "~value", "from"], [list(row.values()) for row in rows]), "", sep="\n"
        )
    if not show_all:
        hidden = len(Settings.model_fields) - len(rows)
        console.print(Text(f"{hidden} settings have their defaults; --all shows them.\n", style=QUIET))
    console.print(
        table(
            "Check",
            ["", "what", "~found", "~what to do"],
            [[Text(f.verdict.value, style=_COLOURS[f.verdict]), f.subject, f.words, f.advice] for f in findings],
        )
    )
