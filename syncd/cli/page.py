"""What commands print: tables for people, JSON for programs, and the few words and colours they share."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import click
import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GOOD, WARN, BAD, QUIET = "green", "yellow", "red", "dim"

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
account_option = click.option("--account", "account", metavar="NAME", help="Only this account; default: all.")


class _Console(Console):
    """A console that leaves a broken pipe to ``ending``."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(32, "broken pipe")


def out() -> Console:
    """Return the console for results, as wide as the terminal, or wide enough for any table when piped."""
    console = _Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = _Console(highlight=False, width=160)
    return console


def print_json(value: object) -> None:
    """Print a value, dataclasses and instants included, as one indented JSON document."""
    text = msgspec.json.format(msgspec.json.encode(plain(value), enc_hook=str), indent=2)
    sys.stdout.write(text.decode() + "\n")


def plain(value: object) -> object:
    """Turn dataclasses, tuples and instants into what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


class _Spaced(Table):
    """A table that keeps its columns two spaces apart where there is room, else one."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.padding = (0, 2, 0, 0)
        if self.__rich_measure__(console, options.update(max_width=10_000)).maximum > options.max_width:
            self.padding = (0, 1, 0, 0)
        yield from super().__rich_console__(console, options)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Build a table: the column ``#name`` holds numbers and stands right, ``~name`` may be broken over lines."""
    made = _Spaced(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith("#") else "left"
        made.add_column(column.lstrip("#~"), justify=justify, no_wrap=not column.startswith("~"), overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(_shown(cell)) for cell in row))
    return made


def span(seconds: float | None) -> str:
    """Say a length of time the way people do: 45 s, 12 min, 3.5 h, 9 d."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)  # a transaction's time may lie a moment before what it reads
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def number(count: int) -> str:
    """Write a number with its thousands apart."""
    return f"{count:,}".replace(",", " ")


def _shown(cell: object) -> str:
    match cell:
        case None:
            return "-"
        case bool():
            return "yes" if cell else "no"
        case int():
            return number(cell)
        case datetime():
            return cell.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case _:
            return str(cell)
