"""Refusal: the one SQL condition that tells a dead identity change the CRM refused from one whose tries ran out.

A refused one was certainly not applied, so a later e-mail change may supersede it (``policy.fold``). The claim plans by
this and the backlog counts by it; if they disagreed, a drain would wait for ever for what is never sent.
"""

from __future__ import annotations


def was_refused(entry: str) -> str:
    """Return the condition for the row of syncd.entries that the query calls ``entry``."""
    return f"""({entry}.status = 'dead' AND {entry}.facet = 'identity' AND COALESCE((
        SELECT a.outcome = 'rejected' FROM syncd.attempts a WHERE a.entry_id = {entry}.id ORDER BY a.id DESC LIMIT 1
    ), false))"""
