"""An account: one tenant of one CRM, mirrored into the database under a name of the operator's choosing."""

from __future__ import annotations

from dataclasses import dataclass

from syncd.domain.ids import AccountId


@dataclass(frozen=True, slots=True)
class Account:
    """``id`` is part of every key of the mirror; ``name`` is what settings, logs and commands call it."""

    id: AccountId
    name: str
    provider: str
