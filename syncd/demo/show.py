"""What the demo shows: one glance for each act. Nothing here decides anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from syncd.demo.delivered import Arrival
from syncd.demo.edits import Edit
from syncd.demo.witness import Comparison

PROOFS = {"verified": "green", "accepted": "cyan", "superseded": "dim"}


def console(stream: TextIO) -> Console:
    """Return the console to show the demo on; where there is no terminal a line may be wide."""
    wide = Console(file=stream, highlight=False)
    return wide if wide.is_terminal else Console(file=stream, highlight=False, width=132)


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
    console.print(Text(f"   {edit.meaning:<18}", "dim"), Text(edit.shown() + ";", "yellow"), sep="", soft_wrap=True)


def arrived(console: Console, arrivals: Sequence[Arrival]) -> None:
    """Show each local change with what the CRM held before and after it, and how often it was sent."""
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("change", no_wrap=True)
    for name in ("relation", "in the CRM before", "in the CRM after"):
        table.add_column(name, overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("proof")
    for each in arrivals:
        tries = Text(str(each.attempts), "bold yellow" if each.attempts > 1 else "")
        table.add_row(
            each.change,
            each.relation,
            each.before,
            each.after,
            tries,
            Text(each.status, PROOFS.get(each.status, "bold red")),
        )
    console.print(table)


def differences(console: Console, comparisons: Sequence[Comparison], limit: int = 5) -> None:
    """Name the first few differences of each kind."""
    for each in comparisons:
        for sentence in each.differences[:limit]:
            console.print(Text(f"   {each.kind}: {sentence}", "red"))


def invitation(console: Console, database_url: str, base_url: str, log: str) -> None:
    """Say how to go on playing while everything runs."""
    console.print()
    console.print(Text("Everything stays running. Ctrl-C ends it.", style="bold"))
    rows = (
        ("edit the mirror", f"psql '{database_url}'"),
        ("see its state", f"SYNCD_DATABASE_URL='{database_url}' syncd status"),
        ("the CRM's journal", f"curl {base_url.split('/api/')[0]}/_sandbox/journal"),
        ("the daemon's log", f"tail -f {log}"),
    )
    for meaning, command in rows:
        console.print(Text(f"   {meaning:<18}", "dim"), Text(command, "cyan"), sep="", soft_wrap=True)
