"""Memory: an answer is read as a stream, so that one ten times as long takes hardly more to read."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable

import pytest

from syncd.providers.autorespond import provider
from syncd.providers.contract import Response
from tests.support.proving import Say

STREAMS = provider().streams
SHORT = 6_000
LINE = {"lineType": "product", "productId": 7, "productName": "Course", "quantity": 1, "subscriptionId": None}
ORDER = {
    "relationId": 5,
    "relationName": "A",
    "relationEmail": "a@shop.example",
    "orderlines": [LINE, LINE],
    "purchaseDate": "2024-05-01 10:00:00",
    "paid": "Y",
}


def decoded(response: Response) -> int:
    return sum(len(batch.rows) for batch in STREAMS["orders"].decode(response))


def peeked(response: Response) -> int:
    peek = STREAMS["orders"].peek
    assert peek is not None
    return sum(batch.count for batch in peek(response))


def peak_mb(read: Callable[[Response], int], orders: int) -> float:
    """Read an answer of so many orders from disk; return the most memory that was held at a time."""
    with tempfile.TemporaryFile() as spool:
        spool.write(b'{"data":[')
        for number in range(orders):
            spool.write((b"," if number else b"") + json.dumps({"orderId": number + 1, **ORDER}).encode())
        spool.write(b"]}")
        response = Response(200, {"content-type": "application/json"}, spool=spool)
        tracemalloc.start()
        try:
            assert read(response) == orders
            return tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("read", [decoded, peeked])
def test_an_answer_ten_times_as_long_takes_no_more_memory_to_read(read: Callable[[Response], int], proof: Say) -> None:
    """The CRM has no pages: whoever holds a whole answer dies of the first large account."""
    short, long = peak_mb(read, SHORT), peak_mb(read, 10 * SHORT)
    proof(f"memory to read {SHORT:,} orders {short:.1f} MB, {10 * SHORT:,} orders {long:.1f} MB ({read.__name__})")
    assert long < 1.2 * short + 1
