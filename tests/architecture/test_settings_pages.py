"""The settings as people read them must be the settings as the code reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.settings import GROUPS, Settings, load_settings
from syncd.settings.names import variable
from syncd.settings.table import example_env, settings_table

ROOT = Path(__file__).resolve().parents[2]


def test_example_file_is_what_the_settings_say() -> None:
    """A setting that is not in the example does not exist for most people."""
    assert (ROOT / "config.example.env").read_text() == example_env()


def test_example_file_lists_each_setting_once() -> None:
    """Twice would leave open which line counts."""
    names = re.findall(r"^(SYNCD_\w+)=", example_env(), re.M)
    assert names == [variable(name) for group in GROUPS for name in group.model_fields]
    assert sorted(names) == sorted(variable(name) for name in Settings.model_fields)


def test_example_file_loads_to_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Copying it to .env unedited must change nothing."""
    import os

    for name in [name for name in os.environ if name.startswith("SYNCD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(example_env())
    assert load_settings().settings == Settings()


def test_table_has_a_row_for_each_setting() -> None:
    """The README's table is generated from here."""
    rows = re.findall(r"^\| `(SYNCD_\w+)` \| (?:`[^`]+`|blank) \| [^|]+ \|$", settings_table(), re.M)
    assert sorted(rows) == sorted(variable(name) for name in Settings.model_fields)


def test_generator_is_a_command() -> None:
    """The head of the file names the command that makes it."""
    result = subprocess.run(
        [sys.executable, "-m", "syncd.settings.example"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == example_env()
