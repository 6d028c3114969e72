"""Refusal: the one SQL condition that tells a dead identity change the CRM refused from one whose tries ran out.

A refused one may be superseded by a later e-mail change (``policy.fold``), a refused create by a create under another
address. So a create counts as refused only if it certainly was not applied: no try of it is in doubt, and each was
answered by a no, told to wait, or never sent. A server error before the no may have made the relation all the same; to
create it again elsewhere would make two. An e-mail change has no such twin: its last answer tells.
"""

from __future__ import annotations


def was_refused(entry: str) -> str:
    """Return the condition for the row of syncd.entries that the query calls ``entry``."""
    return f"""({entry}.status = 'dead' AND {entry}.facet = 'identity' AND COALESCE((
        SELECT a.outcome = 'rejected' FROM syncd.attempts a WHERE a.entry_id = {entry}.id ORDER BY a.id DESC LIMIT 1
    ), false) AND ({entry}.operation <> 'create_relation' OR NOT ({entry}.is_uncertain OR EXISTS (
        SELECT FROM syncd.attempts a
        WHERE a.entry_id = {entry}.id AND a.outcome NOT IN ('rejected', 'throttled', 'unauthorised')
          AND NOT (a.outcome = 'retryable' AND a.status_code IS NULL)
    ))))"""
