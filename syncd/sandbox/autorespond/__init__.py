"""Autorespond's REST API 1.0 as its reference states it, written from that reference alone.

``routes`` is the table of endpoints, ``checks`` what they demand of parameters, ``reads`` and ``writes`` what they do,
``encode`` and ``spelling`` how rows look, ``envelope`` what is put around them, ``api`` the way a request takes.
"""

from __future__ import annotations

from syncd.sandbox.autorespond.api import BASE, Autorespond, Request, Visit
from syncd.sandbox.autorespond.routes import OPERATIONS

__all__ = ["BASE", "OPERATIONS", "Autorespond", "Request", "Visit"]
