"""How a delivery ended: the closed vocabulary that every conversation returns and every settle understands.

Match it with ``assert_never``. Reasons are one sentence for a person, without secrets or addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from syncd.policy.merge import Conflict
from syncd.policy.proof import Showing


class Proof(StrEnum):
    """How sure we are that the CRM now holds the value."""

    VERIFIED = "verified"  # the answer, or a read after it, showed the value
    ACCEPTED = "accepted"  # the CRM said yes; the value cannot be read back, or not yet
    DIVERGED = "diverged"  # the CRM said yes, and a read shows something else


@dataclass(frozen=True, slots=True)
class Delivered:
    """The CRM took the change. ``remote_id`` is set when the answer named the relation (bind it with the settle).

    ``difference`` holds both values where the proof is ``DIVERGED``: for the database alone, it may hold addresses.
    ``is_unshown``: a read right after did not show it, which may be too early: it is to be read back later.
    """

    proof: Proof
    remote_id: str | None = None
    detail: str = ""
    difference: Showing | None = field(default=None, compare=False, repr=False)
    is_unshown: bool = False


@dataclass(frozen=True, slots=True)
class Retryable:
    """It did not happen, or happened harmlessly: the same call may be sent again later. Uses up an attempt.

    A pause that the CRM asked for holds the whole account. ``is_misconfigured``: every call of this operation would be
    answered so until a setting is mended; the operation is paused, and no attempt is used up.
    """

    reason: str
    retry_after_s: float | None = None
    is_misconfigured: bool = False


@dataclass(frozen=True, slots=True)
class Throttled:
    """The CRM asked us to slow down. Holds for the whole account; uses up no attempt."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unauthorised:
    """The credentials are refused. Pauses the account; uses up no attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The CRM understood and said no, or nothing was sent because it never could be. Repeating will not help.

    Whoever sent it asks with a safe read whether the account works before the entry is given up.

    ``is_absent`` is true when the answer says that the thing asked for does not exist: for a read by id or e-mail that
    is a fact to act on, not a failure. ``is_ours`` is true when our own rule said no, which the CRM has no part in.
    """

    reason: str
    is_absent: bool = False
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The change may or may not have been applied, and reading could not tell (or was not tried yet).

    A pause that the CRM asked for holds the whole account.
    """

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Contested:
    """Nothing was sent: the CRM has moved a field by itself that the change must not overwrite. Uses up no attempt."""

    conflicts: tuple[Conflict, ...] = field(repr=False)
    reason: str = "both sides changed a field, and its owner keeps this edit from being sent"


Outcome: TypeAlias = Delivered | Retryable | Throttled | Unauthorised | Rejected | Unknown | Contested
