"""What is not known about the real server, as switches: each names the answers it may give, the likeliest by default.

A switch holds for every answer until it is turned; what happens once or by chance is a fault (``sandbox.faults``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import msgspec

from syncd.domain.errors import UserError

Dates = Literal["iso", "offset", "space", "minutes", "dutch", "dutch_minutes", "epoch_ms"]
Truths = Literal["letters", "bool", "string", "capitals", "number", "dutch", "words"]
NoDate = Literal["null", "empty", "dash", "zeros"]
Amounts = Literal["number", "point", "comma", "grouped", "euro", "ambiguous"]
Place = Literal["query", "form", "json", "any"]


@dataclass(frozen=True, slots=True)
class Switches:
    """How the simulator answers. Statuses of errors: 200 stands for 200 with an ``error`` in the body."""

    # text: booleans as plain TRUE, the rest as data; titled: named, with a capital
    envelope: Literal["data", "named", "titled", "bare", "text"] = "data"
    error_shape: Literal["string", "object"] = "string"
    wrong_key: Literal[401, 403, 400, 200] = 401
    unknown: Literal[404, 400, 200, 204] = 404  # an id or e-mail address nobody has; 204 stands for 200 with null
    invalid: Literal[400, 422, 404, 200] = 400  # a parameter missing or malformed, an e-mail address in use
    credit_detail: Literal[400, 404, 500, 200] = 400  # the detail of a credit invoice: not supported
    verbs: Mapping[str, str] = field(default_factory=dict)  # operation to verb, over the recommended table
    places: Mapping[str, Place] = field(default_factory=dict)  # operation to where its parameters are read
    allow_header: bool = True  # on a 405
    options: bool = True  # whether OPTIONS is answered
    unknown_parameters: Literal["refuse", "ignore"] = "refuse"
    email_case: Literal["insensitive", "sensitive"] = "insensitive"
    omitted: Literal["kept", "blanked"] = "kept"  # what relation_upsert does with the fields it is not given
    paid: Truths = "letters"  # Y/N, true/false, "true"/"false", "TRUE"/"FALSE", 1/0, J/N, ja/nee
    flags: Truths = "bool"  # every other boolean: isCreditInvoice, locked
    paid_default: Literal["-", "Y", "N"] = "-"  # when /orders is asked without paid
    dates: Dates = "iso"
    no_date: NoDate = "null"  # where a row has none: null, "", "-", "0000-00-00"
    zone: Literal["Europe/Amsterdam", "UTC"] = "Europe/Amsterdam"  # of naive times, and of the days of dateFrom
    amounts: Amounts = "number"
    ids: Literal["number", "string"] = "number"
    after: Literal["exclusive", "inclusive"] = "exclusive"  # dateFrom of /invoices
    created: Literal["made", "dated"] = "made"  # what dateFrom looks at: when an invoice was made, or its own date
    hours_cap: int = 0  # the widest window that /orders really looks back, silently; 0 is none
    nulls: bool = False  # null where a text is empty
    empty_lists: Literal["list", "null"] = "list"
    unknown_keys: bool = False  # every row has a key that no reference names
    bad_dates_every: int = 0  # every nth order and invoice has a date that does not parse
    duplicate_tags: bool = False  # two tags of one name
    latency_s: float = 0.0  # before every answer
    rate_per_s: int = 0  # more requests than this in a second get 429; 0 is no limit
    retry_after: Literal["seconds", "date", "none"] = "seconds"  # on a 429 or 503
    chunked: bool = False  # answers without a length

    def turned(self, **changes: object) -> Switches:
        """Return these switches with some turned; UserError names a switch or a value that does not exist."""
        known = {each.name for each in fields(self)}
        if strangers := sorted(set(changes) - known):
            raise UserError(f"there is no switch {strangers[0]!r}; there are: {', '.join(sorted(known))}")
        try:
            checked = msgspec.convert({**_plain(self), **changes}, Switches, strict=False)
        except msgspec.ValidationError as error:
            raise UserError(f"a switch cannot be turned so: {error}") from error
        return replace(checked)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Switches:
        """Read ``name=value`` texts, as a command line gives them; ``verbs.tag_add=PUT`` reaches into a table."""
        changes: dict[str, object] = {}
        for text in texts:
            name, found, value = text.partition("=")
            if not found:
                raise UserError(f"a switch is written name=value, not {text!r}")
            name, dot, operation = name.partition(".")
            if dot:
                table = changes.setdefault(name, {})
                assert isinstance(table, dict)
                table[operation] = value
            else:
                changes[name] = value
        return cls().turned(**changes)


def _plain(switches: Switches) -> dict[str, object]:
    return {each.name: getattr(switches, each.name) for each in fields(switches)}


def as_json(switches: Switches) -> dict[str, object]:
    """Return the switches as a plain object, for the control endpoint."""
    return _plain(switches)
