"""How values are spelled on the wire: dates, amounts, ids, booleans and blanks, as the switches say.

None of the spellings is documented; the reference shows no sample of an answer. Naive times are most likely
Amsterdam's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import assert_never
from zoneinfo import ZoneInfo

from syncd.sandbox.switches import Amounts, Dates, NoDate, Switches, Truths

UNPARSABLE = "31 februari"


class Spelling:
    """The spellers of one set of switches, chosen once."""

    def __init__(self, switches: Switches) -> None:
        self.instant = _instant(switches.dates, ZoneInfo(switches.zone))
        self._day, self._no_day = _day(switches.dates), _no_day(switches.no_date)
        self.amount = _amount(switches.amounts)
        self._ids_are_text = switches.ids == "string"
        self._paid, self._flags = _truths(switches.paid), _truths(switches.flags)
        self._blank = None if switches.nulls else ""
        self.unspecified = None if switches.nulls else "-"
        self._bad_every = switches.bad_dates_every

    def number(self, value: int | None) -> int | str | None:
        """Spell an id."""
        return str(value) if self._ids_are_text and value is not None else value

    def text(self, value: str | None) -> str | None:
        """Spell a text that may be empty."""
        return value or self._blank

    def paid(self, value: bool) -> object:
        """Spell whether an order is paid."""
        return self._paid[value]

    def flag(self, value: bool) -> object:
        """Spell any other boolean."""
        return self._flags[value]

    def day(self, on: date | None) -> object:
        """Spell a day, or that there is none."""
        return self._no_day if on is None else self._day(on)

    def has_bad_date(self, number: int) -> bool:
        """Say whether this row is one whose date does not parse."""
        return bool(self._bad_every) and number % self._bad_every == 0


def _instant(dates: Dates, zone: ZoneInfo) -> Callable[[datetime], object]:
    match dates:
        case "iso":
            return lambda at: at.astimezone(zone).replace(tzinfo=None).isoformat(timespec="seconds")
        case "offset":
            return lambda at: at.astimezone(zone).isoformat(timespec="seconds")
        case "space":
            return lambda at: at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
        case "minutes":
            return lambda at: at.astimezone(zone).strftime("%Y-%m-%d %H:%M")
        case "dutch":
            return lambda at: at.astimezone(zone).strftime("%d-%m-%Y %H:%M:%S")
        case "dutch_minutes":
            return lambda at: at.astimezone(zone).strftime("%d-%m-%Y %H:%M")
        case "epoch_ms":
            return lambda at: int(at.timestamp()) * 1000
        case _:
            assert_never(dates)


def _day(dates: Dates) -> Callable[[date], object]:
    match dates:
        case "iso" | "offset" | "space" | "minutes":
            return lambda on: on.isoformat()
        case "dutch" | "dutch_minutes":
            return lambda on: on.strftime("%d-%m-%Y")
        case "epoch_ms":
            return lambda on: int(datetime(on.year, on.month, on.day, tzinfo=UTC).timestamp()) * 1000
        case _:
            assert_never(dates)


def _no_day(spelled: NoDate) -> str | None:
    match spelled:
        case "null":
            return None
        case "empty":
            return ""
        case "dash":
            return "-"
        case "zeros":
            return "0000-00-00"
        case _:
            assert_never(spelled)


def _amount(amounts: Amounts) -> Callable[[int], object]:
    match amounts:
        case "number":
            return lambda cents: cents / 100
        case "point":
            return lambda cents: f"{cents / 100:.2f}"
        case "comma":
            return lambda cents: f"{cents / 100:.2f}".replace(".", ",")
        case "grouped":
            return _grouped
        case "euro":
            return lambda cents: f"€ {_grouped(cents)}"
        case "ambiguous":
            return lambda cents: f"{cents // 1000 or 1}.{abs(cents) % 1000:03d}"
        case _:
            assert_never(amounts)


def _grouped(cents: int) -> str:
    return f"{cents / 100:,.2f}".translate(str.maketrans(",.", ".,"))


def _truths(spelled: Truths) -> tuple[object, object]:
    """Return what no and yes are spelled as."""
    match spelled:
        case "letters":
            return "N", "Y"
        case "bool":
            return False, True
        case "string":
            return "false", "true"
        case "capitals":
            return "FALSE", "TRUE"
        case "number":
            return 0, 1
        case "dutch":
            return "N", "J"
        case "words":
            return "nee", "ja"
        case _:
            assert_never(spelled)
