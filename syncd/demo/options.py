"""What a demo may be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """``once`` proves both sides equal and ends; ``data_dir`` holds the embedded Postgres (blank: syncd's own)."""

    once: bool = False
    relations: int = 60
    orders: int = 150
    invoices: int = 90
    seed: int = 7
    data_dir: Path | None = None
    as_json: bool = False
    timeout_s: float = 60.0
