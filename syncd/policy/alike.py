"""Alike: do two reasons say the same about different entries?

What differs between entries (numbers, quoted values, addresses, the operation's name in front) is masked; what is left
is the **kind** of a refusal. Many different entries refused for one kind, with nothing delivered between them, may be
the host's trouble ("maintenance") and not theirs. It must be stable: kinds are kept in the database.
"""

from __future__ import annotations

import re

_LONGEST = 160
_OPERATION = re.compile(r"^[a-z][a-z0-9_]*: ")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|“[^”]*”|‘[^’]*’")
_ADDRESS = re.compile(r"\(an address\)|<email>|\S+@\S+")
_NUMBER = re.compile(r"\d+")


def kind_of(reason: str, status: int | None = None) -> str:
    """Return what a reason says apart from whom it says it about; ``status`` is that of the answer."""
    said = _OPERATION.sub("", reason.strip())
    said = _ADDRESS.sub("@", _QUOTED.sub("''", said))
    said = " ".join(_NUMBER.sub("#", said).casefold().split())
    return f"{'-' if status is None else status} {said[:_LONGEST]}"
