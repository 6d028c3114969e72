"""Incidents: what a person should know, said once however often it happens.

An incident is about one **subject** (an entry, the account, a stream) and is open until what it is about is well
again. It never stops anything by itself: what must wait is held, paused or refused by whoever noticed.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class IncidentKind(StrEnum):
    """What kind of thing a person should know. Stored as text; later kinds need no migration."""

    BREAKER = "breaker"  # many different entries failed alike: the host's trouble, not theirs
    DIVERGED = "diverged"  # the CRM said yes to a change and shows something else
    PARKED = "parked"  # nobody can tell whether a change was applied
    MASS_CHANGE = "mass_change"  # more relations changed at once than may be sent without being asked
    EMPTIED = "emptied"  # an account that was full answers empty
    UNASKED = "unasked"  # a pull would change or mark missing more than it may without being asked
    CONFLICT = "conflict"  # both sides changed a field whose owner is "hold": a person decides
    AMBIGUOUS = "ambiguous"  # several things bear one name, and the CRM tells them apart by nothing else
    SHAPE = "shape"  # the CRM's answers changed their form


class Incident(msgspec.Struct, frozen=True):
    """``subject`` and ``kind`` together are its identity while it is open; ``detail`` is a JSON object."""

    kind: IncidentKind
    subject: str
    summary: str
    detail: dict[str, object] = {}
