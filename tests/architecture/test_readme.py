"""Every claim of the README runs: its generated parts are compared with what they are generated from."""

from __future__ import annotations

import re
from pathlib import Path

from syncd.cli.app import DOORS
from syncd.demo.show import LEGEND
from syncd.policy.states import ENTRY_TRANSITIONS
from syncd.settings.table import settings_table

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", README, re.S)
    assert found, name
    return found.group(1).strip()


def entry_states() -> str:
    """The entry machine as a Mermaid diagram, one arrow a line."""
    arrows = [f"    {a} --> {b}" for a, after in ENTRY_TRANSITIONS.items() for b in sorted(after)]
    finals = [f"    {a} --> [*]" for a, after in ENTRY_TRANSITIONS.items() if not after]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> pending", *arrows, *finals, "```"])


def test_settings_table_is_the_settings() -> None:
    """A setting that the README does not know does not exist for its reader."""
    assert block("settings") == settings_table().strip()


def test_state_diagram_is_the_transition_table() -> None:
    """Operators decide by this picture."""
    assert block("entry-states") == entry_states()


def test_every_guarantee_names_tests_that_exist() -> None:
    """A guarantee without a test is a hope."""
    sections = re.split(r"^### G\d", README, flags=re.M)[1:]
    assert len(sections) == 8
    for section in sections:
        patterns = re.findall(r"`(tests/[^`]+)`", section.split("\n## ")[0].replace("\n", " "))
        assert patterns
        assert all(list(ROOT.glob(pattern)) for pattern in patterns), patterns


def test_every_command_of_the_readme_exists() -> None:
    """The commands table is what a newcomer types."""
    named = {line.split()[1] for line in re.findall(r"`(syncd [a-z]+[^`]*)`", README)}
    known = {door.name for door in DOORS}
    assert named
    assert not named - known


def test_readme_opens_with_a_transcript_and_the_two_commands() -> None:
    """What it is, a look at it working, how to have it: in that order."""
    assert "What reached the CRM" in block("demo")
    assert all(sentence in block("demo") for sentence in LEGEND)
    assert {"verified", "accepted"} <= set(block("demo").split()), "proof by pull is what the demo shows"
    after = README[README.index("<!-- demo:end -->") :]
    assert after.index("make demo") < after.index("make test") < after.index("## Use it")
