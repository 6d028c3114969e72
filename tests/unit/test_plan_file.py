"""The plan file: what comes back is what was saved, and nothing else passes for a plan."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from syncd.domain.errors import UserError
from syncd.outbound.plan_file import (
    FORMAT,
    VERSION,
    FiledCall,
    FiledLane,
    FiledPlan,
    FiledRound,
    filed_entry,
    load_plan,
    payload_of,
    save_plan,
)
from tests.support.lanes import NOW, add, entry

PLAN = FiledPlan(
    FORMAT,
    VERSION,
    "default",
    "autorespond",
    datetime(2024, 5, 1, 12, tzinfo=UTC),
    (
        FiledLane(
            1,
            "100001",
            "anna@x.example",
            1,
            (filed_entry(entry(1, add()), NOW),),
            (
                FiledRound(
                    1,
                    (FiledCall(1, (), "tag_add", "POST", "relation/{relId}/addtag/{tagId}", payload_of(add())),),
                ),
            ),
        ),
    ),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_plan(PLAN, tmp_path / "a.plan")
    return tmp_path / "a.plan"


def test_what_is_saved_comes_back(saved: Path) -> None:
    """Every field, instants included; only the digest is new."""
    back = load_plan(saved)
    assert (back.account, back.made_at, back.lanes) == (PLAN.account, PLAN.made_at, PLAN.lanes)
    assert back.digest.startswith("sha256:")


def test_only_its_owner_may_read_it(saved: Path) -> None:
    """It holds addresses; whatever was there before, or the umask, does not matter."""
    saved.chmod(0o644)
    save_plan(PLAN, saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [path.name for path in saved.parent.iterdir()] == ["a.plan"]


def test_a_reader_that_spaces_or_orders_it_anew_does_no_harm(saved: Path) -> None:
    """People look at plans with other programs."""
    saved.write_text(json.dumps(json.loads(saved.read_text()), sort_keys=True))
    assert load_plan(saved).lanes == PLAN.lanes


def _edited(path: Path, edit: Any) -> Path:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(version=2), "format version 2 and this syncd reads version 1"),
        (lambda d: d.update(format="other"), "is not a plan"),
        (lambda d: d["lanes"][0].update(email="else@x.example"), "was changed after it was made"),
        (lambda d: d["lanes"][0]["rounds"][0]["calls"][0].update(seq=2), "was changed after it was made"),
        (lambda d: d.update(lanes=[]), "was changed after it was made"),
        (lambda d: d.update(digest=""), "was changed after it was made"),
        (lambda d: d.pop("account"), "is not a whole plan"),
        (lambda d: d.update(more=1), "is not a whole plan"),
        (lambda d: d["lanes"][0].update(upto="x"), "is not a whole plan"),
    ],
)
def test_a_file_that_was_touched_is_refused_in_one_sentence(saved: Path, edit: Any, words: str) -> None:
    """What a person approved is what is sent, or nothing is."""
    with pytest.raises(UserError) as refused:
        load_plan(_edited(saved, edit))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"format": "syncd plan"', b"hello", b"null"])
def test_what_is_no_plan_at_all_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """A wrong file name must not end in a page of Python."""
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a plan"):
        load_plan(path)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    """The name and the system's word for what is wrong."""
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_plan(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be written"):
        save_plan(PLAN, tmp_path / "no" / "such" / "place")


def test_a_failed_save_leaves_the_old_plan_whole(saved: Path) -> None:
    """Atomic: the old one or the new one, never half of either."""
    before = saved.read_bytes()
    target = saved.parent / "dir.plan"
    target.mkdir()
    with pytest.raises(UserError):
        save_plan(PLAN, target)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["a.plan", "dir.plan"]
