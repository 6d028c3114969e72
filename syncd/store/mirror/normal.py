"""Normal form: the digest by which a row is known to be unchanged, and the arrays that ``unnest`` takes.

A digest is blake2b-128 over the decoded values, not over the JSON text: two endpoints that spell the same order
differently have the same digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from syncd.domain.records import Row

R = TypeVar("R")
K = TypeVar("K")

_encode = msgspec.msgpack.Encoder().encode


def digest(value: object) -> bytes:
    """Return the 16-byte digest of a struct, or of a tuple of values and structs."""
    return blake2b(_encode(value), digest_size=16).digest()


def seal(raw: bytes) -> bytes:
    """Return the 16-byte digest of a record's JSON text as given."""
    return blake2b(raw, digest_size=16).digest()


def raw_text(raw: bytes) -> str | None:
    """Return a record's JSON text as Postgres takes it; None for one whose text must not be kept."""
    return raw.decode() or None


def last_of_each(rows: Iterable[Row[R]], key: Callable[[R], K]) -> tuple[dict[K, Row[R]], tuple[str, ...]]:
    """Return the rows by key, the last of each key winning, and a warning for each key that came more than once."""
    found: dict[K, Row[R]] = {}
    doubles: dict[K, int] = {}
    for row in rows:
        name = key(row.record)
        if name in found:
            doubles[name] = doubles.get(name, 1) + 1
        found[name] = row
    return found, tuple(
        f"{name} came {count} times in one answer; the last one counts" for name, count in doubles.items()
    )


def warnings_of(rows: Iterable[Row[R]]) -> tuple[str, ...]:
    return tuple(warning for row in rows if row.warnings for warning in row.warnings)


def unsaid(row: Row[Any], names: Iterable[str]) -> list[str]:
    """Return the fields that a record does not carry. Of a row with warnings the empty ones are among them: each may be
    what could not be read, and that never overwrites what is known."""
    record, is_doubtful = row.record, bool(row.warnings)
    values = ((name, getattr(record, name)) for name in names)
    return [name for name, value in values if value is msgspec.UNSET or (is_doubtful and value is None)]


def columns_of(records: Sequence[object], *names: str) -> dict[str, list[object]]:
    """Return one list per named field: the arrays that ``unnest`` takes."""
    return {name: [_value(getattr(record, name)) for record in records] for name in names}


def _value(value: object) -> object:
    return None if value is msgspec.UNSET else value
