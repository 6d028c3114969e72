"""What becomes of a person who is erased, and by what they are known again."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from syncd.settings.group import Group


class ErasureSettings(Group):
    title: ClassVar[str] = "Erasure"

    erase_invoices: Literal["keep-pseudonymised", "remove"] = Field(
        "keep-pseudonymised",
        description="What syncd erase does with invoices: keep-pseudonymised keeps numbers and amounts for the books "
        "and replaces names and addresses, remove deletes them.",
    )
    erase_key: SecretStr = Field(
        SecretStr(""),
        description="Secret part of the hashes by which erased persons are kept out; the same for every process, never "
        "changed once somebody is erased; blank leaves the database's own part alone, which a dump holds too.",
    )
