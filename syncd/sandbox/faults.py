"""Faults: a list of rules, each saying which requests it strikes and what then goes wrong.

A rule strikes a number of times, from its nth match on, or by seeded chance; the first rule that strikes a request has
it. What is applied to the state and what the client sees are separate: that is the whole point of a lost answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Any

import msgspec

from syncd.domain.errors import UserError


class Kind(StrEnum):
    """What goes wrong, and whether the request is applied to the state."""

    STATUS = "status"  # an error status with a JSON error; not applied, unless ``applied``
    HTML = "html"  # a page of a gateway, with 502 or whatever ``status`` says; not applied, unless ``applied``
    ERROR = "error"  # 200 with an error in the body; not applied
    FALSE = "false"  # a boolean false; not applied
    YES = "yes"  # TRUE, as if it had been done; not applied
    RESET = "reset"  # the connection is reset; not applied
    LATE = "late"  # closed without an answer; applied by ``land``, after ``delay_s``, or after ``after`` more requests
    TWICE = "twice"  # applied twice, as by a gateway that repeats what it thinks was lost; the second answer is seen
    LOST_ANSWER = "lost_answer"  # applied, then the connection is closed without an answer
    LOST_RESET = "lost_reset"  # applied, then the connection is reset
    HOLD = "hold"  # held until ``release``, then applied and answered
    HOLD_ANSWER = "hold_answer"  # applied, and the answer held until ``release``
    DELAY = "delay"  # ``delay_s`` later, applied and answered
    TRUNCATED = "truncated"  # applied; the body stops at ``share`` of its length and the connection closes
    DRIP = "drip"  # applied; the body comes in pieces of ``size`` bytes with ``delay_s`` between them
    MALFORMED = "malformed"  # applied; the body is whole by its length, yet no JSON
    EMPTY_BODY = "empty_body"  # applied; 200 and no body
    NULL = "null"  # applied; the payload is null
    MISSING = "missing"  # applied; an object without the payload
    EMPTY_LIST = "empty_list"  # applied; a list without its rows
    DROPPED_ROWS = "dropped_rows"  # applied; a list without ``share`` of its rows, spread over it
    DUPLICATE_ROWS = "duplicate_rows"  # applied; a list with every row twice
    ADDED_KEY = "added_key"  # applied; every ``every``th row has one more key, ``key``
    DROPPED_KEY = "dropped_key"  # applied; every ``every``th row is without ``key``
    RETYPED_KEY = "retyped_key"  # applied; the value of ``key`` in every ``every``th row is wrapped in an object


NOT_APPLIED = frozenset({Kind.STATUS, Kind.HTML, Kind.ERROR, Kind.FALSE, Kind.YES, Kind.RESET, Kind.LATE})


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: ``operation`` may be a pattern (``tag_*``), ``path`` is a regular expression, 0 ``times`` is always."""

    kind: Kind
    operation: str = "*"
    verb: str = "*"
    path: str = ""
    nth: int = 1
    times: int = 1
    probability: float = 1.0
    status: int = 0
    retry_after_s: int | None = None
    delay_s: float = 0.0
    after: int = 0
    share: float = 0.5
    size: int = 64
    key: str = ""  # of a row, or of the rows in a list of it: ``orderlines.quantity``
    every: int = 1
    applied: bool = False
    message: str = "simulated fault"

    def applies(self) -> bool:
        """Say whether the state changes although (or because) the fault strikes."""
        return self.applied or self.kind not in NOT_APPLIED

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``kind`` or ``kind:name=value,...`` as a command line gives it, e.g. ``status:status=503,times=2``."""
        kind, _, rest = text.partition(":")
        given = {"kind": kind}
        for pair in filter(None, rest.split(",")):
            name, found, value = pair.partition("=")
            if not found:
                raise UserError(f"a fault is written kind:name=value,..., not {text!r}")
            given[name] = value
        return cls.read(given)

    @classmethod
    def read(cls, given: dict[str, Any]) -> Fault:
        """Check a fault's fields; UserError says what is wrong."""
        try:
            fault = msgspec.convert(given, cls, strict=False)
            re.compile(fault.path)
        except (msgspec.ValidationError, re.error) as error:
            raise UserError(f"no such fault: {error}; kinds: {', '.join(Kind)}") from error
        return fault


class _Rule:
    """A fault with its count."""

    def __init__(self, fault: Fault, number: int) -> None:
        self.fault = fault
        self.number = number
        self.matched = 0
        self.struck = 0
        self._path = re.compile(fault.path)

    @property
    def is_spent(self) -> bool:
        return bool(self.fault.times) and self.struck >= self.fault.times

    def strikes(self, operation: str, verb: str, path: str, chance: Callable[[], float]) -> bool:
        fault = self.fault
        if self.is_spent or fault.verb not in ("*", verb) or not fnmatchcase(operation, fault.operation):
            return False
        if not self._path.search(path):
            return False
        self.matched += 1
        if self.matched < fault.nth or (fault.probability < 1.0 and chance() >= fault.probability):
            return False
        self.struck += 1
        return True


class Faults:
    """The rules in force; the same seed and the same requests strike the same."""

    def __init__(self, seed: int = 1, operations: Sequence[str] = ()) -> None:
        self._operations = operations
        self._chance = Random(seed)
        self._rules: list[_Rule] = []
        self._count = 0

    def add(self, kind: str | Fault, **given: Any) -> int:
        """Put a rule in force, e.g. ``add("lost_answer", operation="tag_add")``; return its number."""
        fault = kind if isinstance(kind, Fault) else Fault.read({"kind": kind, **given})
        if self._operations and not any(fnmatchcase(each, fault.operation) for each in self._operations):
            raise UserError(f"no operation is called {fault.operation!r}; there are: {', '.join(self._operations)}")
        self._count += 1
        self._rules.append(_Rule(fault, self._count))
        return self._count

    def clear(self, number: int | None = None) -> None:
        """Lift one rule, or all."""
        self._rules = [rule for rule in self._rules if number is not None and rule.number != number]

    def take(self, operation: str, verb: str, path: str) -> Fault | None:
        """Return the fault that strikes this request, and count it; None for most."""
        for rule in self._rules:
            if rule.strikes(operation, verb, path, self._chance.random):
                return rule.fault
        return None

    @property
    def is_spent(self) -> bool:
        """Whether every counted rule has struck as often as it may."""
        return all(rule.is_spent for rule in self._rules if rule.fault.times)

    def as_json(self) -> list[dict[str, object]]:
        """Return the rules with their counts, for the control endpoint."""
        return [
            {
                "number": rule.number,
                "struck": rule.struck,
                "is_spent": rule.is_spent,
                **msgspec.structs.asdict(rule.fault),
            }
            for rule in self._rules
        ]
