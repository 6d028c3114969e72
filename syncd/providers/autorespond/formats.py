"""The values of single keys: booleans, ids, texts, amounts, dates and instants, in every form that may turn up.

The rule is to accept what cannot be misread and to guess nothing else: whatever is not understood becomes ``None``
and a note that the row carries as a warning, while its raw JSON stays. Values arrive as JSON gives them, numbers with
a fraction as Decimal. Source: the fact sheet's sections 4.5 to 4.10; the reference states formats of inputs only.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import UNSET, UnsetType

from syncd.providers.autorespond.wording import quoted

_YES = frozenset({"true", "1", "y", "j", "ja", "ok"})
_NO = frozenset({"false", "0", "n", "nee"})
_LETTERS = ("Y", "N")
_NO_DATE = frozenset({"", "-", "0000-00-00", "0000-00-00 00:00:00", "00-00-0000"})
_DUTCH_DATE = re.compile(r"(\d{2})-(\d{2})-(\d{4})(.*)", re.ASCII)
_PLAIN = re.compile(r"[+-]?\d+(?:[.,]\d+)?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(\.)\d{3})+(?:,\d+)?|[+-]?\d{1,3}(?:(,)\d{3})+(?:\.\d+)?", re.ASCII)
_AMBIGUOUS = re.compile(r"[+-]?\d+[.,]\d{3}", re.ASCII)
_EPOCH_TEXT = re.compile(r"\d{12,13}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_MS = range(10**11, 4_102_444_800_001)  # 1973 to 2100: less would be seconds, and those are nowhere documented
_LARGEST_AMOUNT = Decimal(10) ** 15
_FINEST_AMOUNT = -12
_SMALL = range(-(10**9), 10**9)

Notes = list[str]


class Zone:
    """The zone of naive times, with the days already worked out: a day without a clock change has one offset."""

    def __init__(self, name: str) -> None:
        self.zone = ZoneInfo(name)
        self._epochs: dict[int, datetime | None] = {}

    def utc(self, naive: datetime, key: str, notes: Notes) -> datetime:
        """Return the instant of a local time; note it when that time came twice (the first is taken) or never."""
        day = naive.toordinal()
        try:
            epoch = self._epochs[day]
        except KeyError:
            epoch = self._epochs[day] = self._epoch_of_day(naive)
        if epoch is not None:
            return _EPOCH + (naive - epoch)  # a fifth of what replacing the zone of a datetime takes
        first, second = (naive.replace(tzinfo=self.zone, fold=fold).utcoffset() for fold in (0, 1))
        if first != second:
            times = "came twice that night" if first and second and first > second else "was skipped that night"
            notes.append(f"{key}: the local time {naive.isoformat(' ')} {times}; it is read as the earlier clock's")
        return naive.replace(tzinfo=self.zone, fold=0).astimezone(UTC)

    def day(self, instant: datetime) -> date:
        """Return the calendar day of an aware instant."""
        return instant.astimezone(self.zone).date()

    def _epoch_of_day(self, naive: datetime) -> datetime | None:
        """Return 1970 as a clock with that day's offset shows it; None for a day with a clock change."""
        midnight = naive.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=self.zone)
        before, after = midnight.utcoffset(), (midnight + timedelta(days=1)).utcoffset()
        return _EPOCH.replace(tzinfo=None) + before if before is not None and before == after else None


def truth(value: Any) -> bool | None:
    """Read a boolean in any of its spellings; None when it is none of them."""
    if value.__class__ is str and value in _LETTERS:
        return value == "Y"
    if value is True or value is False:
        return bool(value)
    if isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite()):
        return True if value == 1 else False if value == 0 else None
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in _YES else False if word in _NO else None
    return None


def flag(value: Any, key: str, notes: Notes) -> bool | None:
    """Read a boolean of a row; None with a note when it is missing or unknown."""
    found = truth(value)
    if found is None:
        notes.append(f"{key}: {_shown(value)} is not a boolean this API is known to use")
    return found


def text(value: Any, key: str, notes: Notes) -> str | None:
    """Read a text as given; numbers and booleans become the text that JSON spells."""
    if value is None or value.__class__ is str:
        return value
    if value is UNSET:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        return str(value)
    notes.append(f"{key}: {_shown(value)} is not a text")
    return None


def said_text(value: Any, key: str, notes: Notes) -> str | UnsetType | None:
    """Read a text, keeping apart a key that is not there at all."""
    return UNSET if value is UNSET else text(value, key, notes)


def reference(value: Any, key: str, notes: Notes) -> str | None:
    """Read the id of something: int or digits become plain digits, other text stays; null, empty and 0 are nothing."""
    if value.__class__ is int:
        return str(value) if value else None
    if value is None or value is UNSET:
        return None
    if value.__class__ is str:
        word = value.strip()
        return (word.lstrip("0") or None) if word.isascii() and word.isdigit() else (word or None)
    if _is_whole(value):
        return str(int(value)) if value else None
    notes.append(f"{key}: {_shown(value)} is not an id")
    return None


def amount(value: Any, key: str, notes: Notes) -> Decimal | None:
    """Read money or a quantity. A text such as ``1.234`` may mean two things and is refused, never guessed."""
    if value is None or value is UNSET:
        return None
    found: Decimal | None = None
    if value.__class__ is int:
        if value in _SMALL:
            return Decimal(value)
        found = Decimal(value)
    elif value.__class__ is Decimal:
        found = value
    elif value.__class__ is str:
        word = value.strip().removeprefix("€").removesuffix("€").strip()
        if word in ("", "-"):
            return None
        if _AMBIGUOUS.fullmatch(word):
            notes.append(f"{key}: {_shown(value)} may be a thousand or a fraction, so it is not taken")
            return None
        found = _amount_of(word)
    if found is None or not _is_storable(found):
        notes.append(f"{key}: {_shown(value)} is not an amount")
        return None
    return found


def instant(value: Any, key: str, notes: Notes, zone: Zone) -> datetime | None:
    """Read a moment as aware UTC: naive ones are the zone's, a bare date is its midnight there."""
    if value is None:
        return None
    found = _moment(value)
    try:
        if found.__class__ is datetime:
            if found.tzinfo is None:
                return zone.utc(found, key, notes)
            return found.astimezone(UTC)
        if found is not None:
            return zone.utc(datetime(found.year, found.month, found.day), key, notes)  # noqa: DTZ001
    except OverflowError:
        found = None
    _note_date(value, key, notes)
    return None


def day(value: Any, key: str, notes: Notes, zone: Zone) -> date | None:
    """Read a calendar day: a moment with an offset (or in epoch milliseconds) is the day it falls on in the zone."""
    if value is None:
        return None
    found = _moment(value)
    if isinstance(found, datetime):
        try:
            return found.date() if found.tzinfo is None else zone.day(found)
        except OverflowError:
            found = None
    if found is None:
        _note_date(value, key, notes)
    return found


def _moment(value: Any) -> datetime | date | None:
    if value.__class__ is str:
        return _moment_of(value) if len(value) < 64 else None
    if value.__class__ is int and value in _EPOCH_MS:
        return _EPOCH + timedelta(milliseconds=value)
    return _moment(int(value)) if _is_whole(value) else None


def _moment_of(word: str) -> datetime | date | None:
    """Read ISO forms and DD-MM-YYYY; never MM-DD, and none of the compact forms that a number could be."""
    try:
        if word[4:5] == "-" and word[7:8] == "-":
            return datetime.fromisoformat(word) if len(word) > 10 else date.fromisoformat(word)
        word = word.strip()
        if found := _DUTCH_DATE.fullmatch(word):
            day_, month, year, rest = found.groups()
            iso = f"{year}-{month}-{day_}"
            return datetime.fromisoformat(iso + rest) if rest else date.fromisoformat(iso)
        if word[4:5] == "-" and word[7:8] == "-":
            return _moment_of(word)
        return _moment(int(word)) if _EPOCH_TEXT.fullmatch(word) else None
    except ValueError:
        return None


def _note_date(value: Any, key: str, notes: Notes) -> None:
    if value is UNSET or (isinstance(value, str) and value.strip() in _NO_DATE):
        return
    notes.append(f"{key}: {_shown(value)} is not a date this API is known to use")


def _amount_of(word: str) -> Decimal | None:
    if _PLAIN.fullmatch(word):
        return Decimal(word.replace(",", "."))
    if found := _GROUPED.fullmatch(word):
        mark = found.group(1) or found.group(2)
        return Decimal(word.replace(mark, "").replace(",", "."))
    return None


def _is_storable(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= _FINEST_AMOUNT and -_LARGEST_AMOUNT < number < _LARGEST_AMOUNT


def _is_whole(value: Any) -> bool:
    if value.__class__ is not Decimal or not value.is_finite():
        return False
    return -_LARGEST_AMOUNT < value < _LARGEST_AMOUNT and value == int(value)


def _shown(value: Any) -> str:
    if value is UNSET:
        return "(nothing)"
    return repr(quoted(str(value)[:200], 40))


__all__ = [
    "Notes", "Zone", "amount", "day", "flag", "instant", "reference", "said_text", "text", "truth"
]  # fmt: skip
