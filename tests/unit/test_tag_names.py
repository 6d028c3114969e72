"""Tag names to tags: the CRM lists a relation's tags by name, and names are no keys there."""

from __future__ import annotations

from syncd.store.mirror.relation_tags import TagNames, resolve

TAGS = TagNames.of([(1, "VIP"), (2, "vip"), (3, " Twin"), (4, "Twin"), (5, "Twin ")])


def test_the_spelling_counts_before_the_trimming_and_the_trimming_before_the_case() -> None:
    """Two tags may differ by a blank or by letter case alone."""
    assert resolve(["vip", " Twin"], TAGS, frozenset()) == ([2, 3], [])
    assert resolve(["VIP "], TAGS, frozenset()) == ([1], [])


def test_the_tag_that_is_held_already_is_meant() -> None:
    """Else every sweep could move a relation from one twin to the other."""
    twins = TagNames.of([(3, "Twin"), (4, "Twin")])
    assert resolve(["Twin"], twins, frozenset({4})) == ([4], [])
    assert resolve(["Twin", "Twin"], twins, frozenset({4})) == ([4, 3], [])


def test_which_of_two_tags_of_one_name_is_held_is_not_guessed() -> None:
    """A membership that nobody had could be sent on, or be taken away from whoever really has the other one."""
    twins = TagNames.of([(3, "Twin"), (4, "Twin"), (5, "Other")])
    assert resolve(["Twin", "Other"], twins, frozenset()) == ([5], [])
    assert resolve(["Twin", "Twin"], twins, frozenset()) == ([3, 4], []), "who is shown both has both"
    assert resolve(["Twin", "Other"], twins, frozenset({3, 4})) == ([3, 4, 5], []), "nor which of both has gone"
    ids, warnings = resolve(["twin"], twins, frozenset())
    assert (ids, len(warnings)) == ([], 1)


def test_an_unknown_name_is_left_out_and_told() -> None:
    """The next snapshot of the tags will know it."""
    ids, warnings = resolve(["Nobody"], TAGS, frozenset())
    assert ids == []
    assert "Nobody" in warnings[0]
