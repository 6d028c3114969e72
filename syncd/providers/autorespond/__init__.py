"""Autorespond (e-Act) REST API 1.0, all 29 endpoints.

The files, in the order in which an answer passes them: ``endpoints`` (the table), ``envelope`` and ``elements`` (find
the payload, cut long lists), ``wire`` and ``formats`` (keys and values), ``decode`` (records), ``streams`` (what can be
pulled), ``judgement`` (what an answer means), ``writes`` and ``conversations`` (what can be sent), ``provider``.
``wording`` says how the CRM may be quoted.
"""

from syncd.providers.autorespond.provider import provider

__all__ = ["provider"]
