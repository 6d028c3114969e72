"""Rewrite: is what one run would do to known rows more than may be done without asking a person?

A CRM that has gone wrong answers well-formed nonsense, and a pull would copy it over the mirror row by row. What was
never known cannot be rewritten: a first load, a backfill of time that was never read and the filling of empty columns
are none, however large.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RewriteRule:
    """A run may always touch ``rows`` known rows, and more up to ``share`` of those that its answer is about. A share
    of 1 never asks."""

    rows: int = 200
    share: float = 0.25


def is_too_much(touched: int, known: int, rule: RewriteRule) -> bool:
    """Judge a run that would change or mark missing ``touched`` of ``known`` rows."""
    return touched > rule.rows and touched > known * rule.share
