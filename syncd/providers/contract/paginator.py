"""Paginators: given the request just answered, the answer, and how many records it held, which request is next?"""

from __future__ import annotations

from typing import Protocol

from syncd.providers.contract.answers import Response
from syncd.providers.contract.request import Request


class Paginator(Protocol):
    """Pure and stateless: page numbers are read back from the request, totals from headers or the answer's body."""

    def first(self, request: Request) -> Request:
        """Return the request for the first page."""

    def after(self, request: Request, response: Response, received: int) -> Request | None:
        """Return the request for the next page, or None when the answer was the last one."""


class SinglePage:
    """The whole collection comes in one answer (every Autorespond list)."""

    def first(self, request: Request) -> Request:
        return request

    def after(self, request: Request, response: Response, received: int) -> Request | None:
        return None
