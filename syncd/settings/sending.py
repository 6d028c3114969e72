"""What may be sent, how hard to try and when to stop."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from syncd.providers.autorespond import provider
from syncd.providers.contract import Effect
from syncd.settings.group import Group
from syncd.settings.names import nearest
from syncd.settings.values import Names, Owned, Places, Verbs

GUARDED_OPERATIONS = ("subscribe", "subscribe_with_consent", "unsubscribe", "end_subscription")


class SendSettings(Group):
    title: ClassVar[str] = "Sending"

    allowed_operations: Names = Field(
        frozenset(),
        description="Local changes that mail people or end subscriptions and may be sent all the same: any of "
        + ", ".join(GUARDED_OPERATIONS)
        + ".",
    )
    autorespond_verbs: Verbs = Field(
        {},
        description="Other HTTP verbs for single Autorespond writes, as tag_add=PUT; its reference names none.",
    )
    autorespond_places: Places = Field(
        {},
        description="Where single Autorespond writes put their parameters (query, form or json), as field_set=query.",
    )
    full_payload: bool = Field(
        False,
        description="Sends all profile fields, not the changed ones alone; needed if the CRM blanks what is not sent.",
    )
    verify_writes: bool = Field(
        False, description="Reads back after each write that can be read back; surer, at one more request each."
    )
    send_attempts: int = Field(
        12,
        ge=1,
        le=1000,
        description="Failed tries after which an entry is dead and waits for you.",
    )
    send_age_days: float = Field(
        7, gt=0, le=365, description="Age at which an entry that failed three times is dead and waits for you."
    )
    send_timeout_s: float = Field(
        60,
        ge=1,
        le=1800,
        description="Total time for one delivery of several requests; never more than half the lease.",
    )
    send_backoff_s: float = Field(
        2, gt=0, le=3600, description="Pause after a first failure; it doubles from there, with full jitter."
    )
    send_backoff_max_s: float = Field(
        900, gt=0, le=86400, description="Longest pause between two tries; also how late a mended CRM may be noticed."
    )
    send_lease_s: float = Field(
        120,
        ge=10,
        le=3600,
        description="Time a worker may hold a relation's queue; after a crash its changes wait this long.",
    )
    send_poll_s: float = Field(
        0.05,
        ge=0.01,
        le=60,
        description="Longest pause between looks into an empty outbox; half of it is added to the first delivery "
        "after a rest.",
    )

    settle_window_s: float = Field(
        180,
        ge=0,
        le=86400,
        description="Wait before a value whose first try may still land is sent once more; 0 lets it undo newer ones.",
    )
    read_back_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of accepted changes that are read back after the settle window, at one request each.",
    )
    guard_relations: int = Field(
        500,
        ge=0,
        le=999_999,
        description="Relations that may change within the window below; more wait for `syncd outbox approve`. 0: off.",
    )
    guard_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="The same as a share of all relations, where that is less, but never under 50; 0 leaves it out.",
    )
    guard_window_s: float = Field(
        60,
        ge=1,
        le=86400,
        description="Stretch of time in which changed relations are counted; one transaction counts whole.",
    )
    conflict_owner: Literal["local", "remote", "hold"] = Field(
        "local",
        description="Whose value counts where both sides changed a field: local is sent over the CRM's, remote "
        "replaces the edit, hold waits for `syncd conflicts resolve`.",
    )
    conflict_owners: Owned = Field(
        {},
        description="Owners of single fields, as email=hold,last_name=remote,tags=local,tag:VIP=hold; others as above.",
    )
    keep_sent_days: float = Field(
        90,
        ge=0,
        le=36500,
        description="Days that delivered and skipped changes and their tries are kept, one at least; 0: for ever.",
    )

    @field_validator("allowed_operations")
    @classmethod
    def _known_operations(cls, value: frozenset[str]) -> frozenset[str]:
        unknown = sorted(value - set(GUARDED_OPERATIONS))
        if unknown:
            raise ValueError("may name " + ", ".join(GUARDED_OPERATIONS) + " alone")
        return value

    @field_validator("autorespond_verbs", "autorespond_places")
    @classmethod
    def _known_writes(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            return value
        writes = autorespond_writes()
        for name in value:
            if name not in writes:
                raise ValueError(f"names a write that does not exist; {nearest(name, writes)}")
        return value


def autorespond_writes() -> tuple[str, ...]:
    """Return the names of Autorespond's write operations, whose verb and place its reference leaves open."""
    return tuple(name for name, row in provider().endpoints.items() if row.effect is not Effect.SAFE)
