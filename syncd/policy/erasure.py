"""Erasure: by what an erased person is known again, what stands in for them, and which texts speak of them.

A hash is an HMAC-SHA256. Its key is made of a salt that each database has of its own and of a secret that no database
holds (a setting, perhaps blank): whoever has a dump but not the secret cannot try addresses against the hashes, and
two databases never share a hash. E-mail addresses are hashed in normal form, so that spelling one in other letter
cases, or with a blank around it, is no way around the erasure. Remote ids are hashed with the number of their account.

It must never decide by a name: two people have one name, and a namesake must not vanish with the erased.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

ERASED = "(erased)"
_PROVEN = b"syncd erasure 1"
_SHORTEST, _SHORTEST_NAME = 4, 2
# What many records say of many people tells nothing of one.
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d\d-\d\d-\d{4}")
_OURS = re.compile(r"[a-z_]+")
_COMMON = frozenset({"true", "false", "null", "none", "subscribed", "unsubscribed", "nederland", "netherlands"})


class Invoices(StrEnum):
    """What becomes of the invoices of an erased person."""

    KEEP = "keep-pseudonymised"
    REMOVE = "remove"


class Kind(StrEnum):
    """What was hashed: an address, the CRM's id of a relation, or the number of an invoice that was removed."""

    EMAIL = "email"
    REMOTE_ID = "remote_id"
    INVOICE = "invoice"


@dataclass(frozen=True, slots=True)
class Hasher:
    """Makes the hashes of one database."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, salt: bytes, secret: str) -> Hasher:
        return cls(hmac.digest(salt, secret.encode(), "sha256"))

    @property
    def proof(self) -> bytes:
        """The hash of a known word: equal only where salt and secret are the same."""
        return self._hash(_PROVEN)

    def email(self, address: str) -> bytes:
        return self._hash(b"email\0" + normal(address).encode())

    def remote_id(self, account_id: int, remote_id: str) -> bytes:
        return self._hash(f"remote_id\0{account_id}\0{remote_id}".encode())

    def invoice(self, account_id: int, number: str, *, is_credit: bool) -> bytes:
        return self._hash(f"invoice\0{account_id}\0{number}\0{is_credit}".encode())

    def _hash(self, message: bytes) -> bytes:
        return hmac.digest(self.key, message, "sha256")


def normal(address: str) -> str:
    """Return an e-mail address as it is compared: composed, without blanks around it, whatever its letter case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", address).strip().casefold())


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """What stands in for one erased person in invoices that the law keeps: the same in all of them."""

    hash: bytes

    @property
    def name(self) -> str:
        return f"erased-{self.hash.hex()[:12]}"

    @property
    def email(self) -> str:
        """An address that can never exist (RFC 2606)."""
        return f"{self.name}@erased.invalid"


# The columns of an invoice that name a person, and those that may. Country, amounts and numbers are the books: kept.
NAMING = ("full_name", "address", "postal_code", "city")
_FREE = ("company", "vat_number", "description", "detail_error")


def pseudonymised(values: Mapping[str, object], person: Pseudonym, mentions: Mentions | None) -> dict[str, object]:
    """Return an invoice's columns with stand-ins where they name a person. What is empty stays empty.

    A company, its VAT number and free texts are kept where ``mentions`` can tell that they do not speak of the person;
    without it they go too. A VAT number without a company is the person's.
    """
    changed: dict[str, object] = {name: person.name for name in NAMING if values.get(name)}
    if values.get("relation_email"):
        changed["relation_email"] = person.email
    for name in _FREE:
        text = values.get(name)
        is_alone = name == "vat_number" and not values.get("company")
        if isinstance(text, str) and text and (mentions is None or is_alone or mentions.of(text)):
            changed[name] = ERASED if name in ("description", "detail_error") else person.name
    return {**values, **changed, "relation_remote_id": None}


@dataclass(frozen=True)
class Mentions:
    """Finds texts that speak of a person: by address, by name, by any value that was kept of them.

    Whole words, whatever their letter case. ``sure`` are the values by which a text about somebody else may be judged
    too: addresses, and what is long enough to be nobody else's.
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def of(self, text: str) -> bool:
        """Tell whether a text mentions the person."""
        return self._all is not None and self._all.search(unicodedata.normalize("NFC", text)) is not None

    def surely(self, text: str) -> bool:
        """Tell whether a text that may be about somebody else mentions the person beyond doubt."""
        return self._sure is not None and self._sure.search(unicodedata.normalize("NFC", text)) is not None

    def cleaned(self, value: object, *, surely: bool = False) -> object:
        """Return a JSON value whose texts that mention the person are replaced whole.

        Where it may be about somebody else, a key in small letters is a name of ours, whatever the person is called.
        """
        found = self.surely if surely else self.of
        match value:
            case str():
                return ERASED if found(value) else value
            case dict():
                ours = {key for key in value if surely and _OURS.fullmatch(key)}
                return {
                    ERASED if key not in ours and found(key) else key: self.cleaned(one, surely=surely)
                    for key, one in value.items()
                }
            case list():
                return [self.cleaned(item, surely=surely) for item in value]
            case _:
                return value

    @cached_property
    def sure(self) -> tuple[str, ...]:
        distinct = (value for value in self.values if len(value) >= 8 and _tells(value))
        return _distinct((*self._spelled, *(name for name in self.names if " " in name.strip()), *distinct))

    @cached_property
    def all(self) -> tuple[str, ...]:
        names = (name for name in self.names if len(name) >= _SHORTEST_NAME)
        return _distinct((*self._spelled, *names, *(value for value in self.values if _tells(value))))

    @property
    def _spelled(self) -> tuple[str, ...]:
        return (*self.addresses, *(address.replace("@", "%40") for address in self.addresses))

    @cached_property
    def _all(self) -> re.Pattern[str] | None:
        return _pattern(self.all)

    @cached_property
    def _sure(self) -> re.Pattern[str] | None:
        return _pattern(self.sure)


def patterns(values: Iterable[str]) -> list[str]:
    """Return LIKE patterns that find at least every text with one of the values, once it is in lower case.

    A database may lower ASCII alone, and JSON escapes some signs: whatever is in doubt matches anything.
    """
    return ["%" + "".join(map(_liked, value.lower())) + "%" for value in values]


def _liked(sign: str) -> str:
    if not sign.isascii() or sign in '"\\/' or ord(sign) < 32:
        return "%"
    return "\\" + sign if sign in "%_" else sign


def _tells(value: str) -> bool:
    """Tell whether a value is of use to find somebody: no flag, no small number, nothing that everybody has."""
    is_number = not any(letter.isalpha() for letter in value)
    least = 9 if is_number else _SHORTEST  # a telephone number is one, a quantity is none
    return len(value) >= least and value.casefold() not in _COMMON and not _DATE.match(value)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    composed = (unicodedata.normalize("NFC", value).strip() for value in values)
    return tuple(dict.fromkeys(value for value in composed if value))


def _pattern(values: tuple[str, ...]) -> re.Pattern[str] | None:
    if not values:
        return None
    longest_first = sorted(values, key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE)
