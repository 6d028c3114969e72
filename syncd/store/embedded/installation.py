"""What it takes to run the server of one data directory: its paths, its user, its binaries, its durability."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from syncd.store.embedded.layout import Layout
from syncd.store.embedded.locate import Binaries, find_binaries
from syncd.store.embedded.owner import Owner, choose_owner, prepare_data_dir


@dataclass(frozen=True, slots=True)
class Installation:
    layout: Layout
    owner: Owner
    binaries: Binaries
    is_durable: bool

    def program(self, name: str) -> Path:
        return self.binaries.directory / name


def survey(layout: Layout, configured: Path | None, *, is_durable: bool) -> Installation:
    """Choose the user and the binaries, and make the data directory ready for them."""
    owner = choose_owner(layout)
    prepare_data_dir(layout, owner)
    return Installation(layout, owner, find_binaries(layout, owner, configured), is_durable)
