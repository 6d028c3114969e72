"""Reads and checks the parameters of a call, as strictly as the reference lets one be.

A parameter that is missing, malformed, given twice, given in another place or named by no heading is refused: a client
that is wrong must not get away with it here and find out at the vendor's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from ipaddress import ip_address

_DIGITS = re.compile(r"[1-9][0-9]{0,17}\Z")
_EMAIL = re.compile(r"[^@\s,;<>]+@[^@\s,;<>]+\Z")
_FIELD_NAME = re.compile(r"[A-Za-z_]{1,59}\Z")


class Fall(Enum):
    """Which switch decides the status of a refusal."""

    WRONG_KEY = "wrong_key"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    CREDIT = "credit_detail"


class Refusal(Exception):
    """The call is refused; the state is as it was."""

    def __init__(self, fall: Fall, message: str) -> None:
        super().__init__(message)
        self.fall = fall
        self.message = message


def invalid(message: str) -> Refusal:
    """Refuse a parameter."""
    return Refusal(Fall.INVALID, message)


def unknown(what: str, value: object) -> Refusal:
    """Refuse an id or address that nobody has."""
    return Refusal(Fall.UNKNOWN, f"{what} not found: {value}")


@dataclass(frozen=True, slots=True)
class Arguments:
    """The path names and parameters of one call, as texts."""

    path: dict[str, str]
    given: dict[str, str]

    def number(self, name: str) -> int:
        """Return a path name that must be an id."""
        return _number(name, self.path[name])

    def text(self, name: str) -> str:
        """Return a parameter that must be there; it may be empty."""
        value = self.given.get(name)
        if value is None:
            raise invalid(f"missing parameter: {name}")
        return value

    def filled(self, name: str) -> str:
        """Return a parameter that must be there and not be empty."""
        value = self.text(name)
        if not value.strip():
            raise invalid(f"empty parameter: {name}")
        return value

    def positive(self, name: str) -> int:
        """Return a parameter that must be a whole number above zero."""
        return _number(name, self.text(name))

    def choice(self, name: str, values: tuple[str, ...], default: str | None = None) -> str:
        """Return a parameter that must be one of some values, letter for letter."""
        value = self.given.get(name, default)
        if value is None:
            raise invalid(f"missing parameter: {name}")
        if value not in values:
            raise invalid(f"{name} must be one of {', '.join(values)}")
        return value

    def email(self, name: str) -> str:
        """Return a parameter that must look like an e-mail address."""
        value = self.text(name)
        if not _EMAIL.match(value) or len(value) > 254:
            raise invalid(f"{name} is not an e-mail address")
        return value

    def sized(self, name: str, least: int, most: int) -> str:
        """Return a parameter that must have a number of characters."""
        value = self.text(name)
        if not least <= len(value) <= most:
            raise invalid(f"{name} must have {least} to {most} characters")
        return value

    def date(self, name: str, spelling: str, shown: str) -> date:
        """Return a parameter that must be a date, spelled exactly so."""
        value = self.text(name)
        try:
            found = datetime.strptime(value, spelling).date()  # noqa: DTZ007
        except ValueError:
            found = None
        if found is None or found.strftime(spelling) != value:
            raise invalid(f"{name} must be a date, format {shown}")
        return found

    def address(self, name: str) -> str:
        """Return a parameter that must be an IP address."""
        value = self.text(name)
        try:
            return str(ip_address(value))
        except ValueError:
            raise invalid(f"{name} is not an IP address") from None

    def field_name(self, name: str) -> str:
        """Return a parameter that may name a free field."""
        value = self.text(name)
        if not _FIELD_NAME.match(value):
            raise invalid(f"{name} may have letters and underscores only, fewer than 60")
        return value


def _number(name: str, value: str) -> int:
    if not _DIGITS.match(value):
        raise invalid(f"{name} must be a whole number above 0")
    return int(value)
