"""Single values: everything that cannot be misread is accepted, everything else costs the value and leaves a note."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from msgspec import UNSET

from syncd.providers.autorespond import formats
from syncd.providers.autorespond.formats import Zone

DUTCH = Zone("Europe/Amsterdam")


def noted(read, value, *more):
    notes = []
    return read(value, "key", notes, *more), bool(notes)


@pytest.mark.parametrize("value", [True, 1, "1", "TRUE", "true", "Y", "y", "J", "ja", "ok", " OK "])
def test_spellings_of_yes(value):
    assert formats.truth(value) is True


@pytest.mark.parametrize("value", [False, 0, "0", "FALSE", "false", "N", "n", "nee"])
def test_spellings_of_no(value):
    assert formats.truth(value) is False


@pytest.mark.parametrize("value", [None, "", "-", "maybe", 2, [], {}, "yes!"])
def test_other_booleans_are_unknown_and_noted(value):
    """Unknown read as false would mark paid orders unpaid."""
    assert noted(formats.flag, value) == (None, True)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (12, "12"), (Decimal("12.50"), "12.50"), (Decimal("1.234"), "1.234"), ("12.50", "12.50"), ("12,50", "12.50"),
        ("1.234,56", "1234.56"), ("1,234.56", "1234.56"), ("€ 12,50", "12.50"), ("12,50 €", "12.50"),
        ("-12,5", "-12.5"), ("1.234.567", "1234567"), ("0", "0"), ("1234", "1234"),
    ],
)  # fmt: skip
def test_amounts_that_can_be_read(value, amount):
    assert noted(formats.amount, value) == (Decimal(amount), False)


@pytest.mark.parametrize(
    "value",
    ["1.234", "1,234", "-1.234", "0.125", "12 50", "1e5", "twelve", "1.2.3", "12,50,1", True, [1], Decimal("NaN"),
     Decimal("1E+99999999999"), Decimal("Infinity"), 10**30, "9" * 40, Decimal("1E-99999999")],
)  # fmt: skip
def test_amounts_that_may_mean_two_things_or_nothing_are_refused(value):
    """1.234 read the wrong way is off by a factor of a thousand, in somebody's books."""
    assert noted(formats.amount, value) == (None, True)


@pytest.mark.parametrize("value", [None, UNSET, "", "-", " "])
def test_no_amount_is_no_amount(value):
    assert noted(formats.amount, value) == (None, False)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-07-01T12:30:00+02:00", "2026-07-01T10:30"), ("2026-07-01T10:30:00Z", "2026-07-01T10:30"),
        ("2026-07-01T12:30:00.000+0200", "2026-07-01T10:30"), ("2026-07-01 12:30", "2026-07-01T10:30"),
        ("2026-07-01 12:30:00", "2026-07-01T10:30"), ("01-07-2026 12:30", "2026-07-01T10:30"),
        ("01-07-2026", "2026-06-30T22:00"), ("2026-01-01", "2025-12-31T23:00"), (1782901800000, "2026-07-01T10:30"),
        ("1782901800000", "2026-07-01T10:30"), (Decimal("1782901800000"), "2026-07-01T10:30"),
    ],
)  # fmt: skip
def test_moments_that_can_be_read(value, moment):
    expected = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert noted(formats.instant, value, DUTCH) == (expected, False)


@pytest.mark.parametrize(
    ("value", "on"),
    [
        ("2026-07-01", date(2026, 7, 1)), ("01-07-2026", date(2026, 7, 1)), ("2026-06-30T22:00:00Z", date(2026, 7, 1)),
        ("2026-07-01 00:00:00", date(2026, 7, 1)), (1782856800000, date(2026, 7, 1)),
    ],
)  # fmt: skip
def test_days_that_can_be_read(value, on):
    """Java says midnight as the evening before in UTC; the day meant is the one in the CRM's zone."""
    assert noted(formats.day, value, DUTCH) == (on, False)


@pytest.mark.parametrize("value", [None, UNSET, "", "-", "0000-00-00", "0000-00-00 00:00:00"])
def test_no_date_is_no_date(value):
    assert noted(formats.instant, value, DUTCH) == (None, False)
    assert noted(formats.day, value, DUTCH) == (None, False)


@pytest.mark.parametrize(
    "value",
    ["07/01/2026", "31-31-2026", "13-2026-01", "20260701", 20260701, 1782901800, "2026-W01-1", "tomorrow", True,
     [2026, 7, 1], "9999-12-31T23:59:59-12:00", "2026-02-30", Decimal("1E+99999999999")],
)  # fmt: skip
def test_dates_that_may_mean_another_day_are_refused(value):
    assert noted(formats.instant, value, DUTCH) == (None, True)
    assert noted(formats.day, value, DUTCH) == (None, True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, "7"), ("7", "7"), ("007", "7"), (" 7 ", "7"), (Decimal("7.0"), "7"), ("A-7", "A-7"), (0, None), ("0", None),
     ("", None), (None, None), (UNSET, None), ("²", "²")],
)  # fmt: skip
def test_ids_become_one_text(value, expected):
    """7 and "007" are one relation; two spellings of it would be two rows."""
    assert noted(formats.reference, value) == (expected, False)
