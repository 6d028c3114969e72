"""Cutting a long list: whatever the chunks, the elements are those of the whole, or the answer is refused."""

from __future__ import annotations

import json

import pytest

from syncd.domain.errors import MalformedAnswer
from syncd.providers.autorespond import envelope
from syncd.providers.autorespond.elements import Elements
from syncd.providers.autorespond.endpoints import ENDPOINTS
from syncd.providers.contract import Response

ORDERS = next(row for row in ENDPOINTS if row.operation == "orders")


def elements_of(body: bytes, size: int, piece: int) -> list[object]:
    found = Elements(iter([body[at : at + size] for at in range(0, len(body), size)]), piece)
    listed = [json.loads(bytes(raw)) for cut in found for raw in cut.raws]
    assert not found.tail.strip()
    return listed


@pytest.mark.parametrize(
    "body",
    [
        b"", b"   ", b"[", b"]", b"[{}", b'[{"a":1}]]', b"[{}] []", b"[{},]", b"[,]", b"[{} {}]", b"[1,]", b"[1 ,2, ]",
        b'{"data":[]', b'{"data":[]}}', b'{"data":[]} {"data":[]}', b'{"data":[{}]', b'{"data":[],"x":}',
        b'{"data":[],"data":[]}', b'{"data":[],"orders":[]}', b'{"data":null,"orders":[]}', b'{"data":{}}', b"{}",
        b'{"rows":[]}', b"TRUE", b"<html></html>", b'{"data":[],"error":"no"}', b'{"error":"no","data":[]}',
        b"[NaN]", b"[}", b'{"data":[}}', b'[{"a":1}}', b"[01]", b'["\xff', b"[" * 5000, b'{"data":' + b"[" * 5000,
        b'{"a":' * 5000, b"null null",
        b'{"data":[{}]}x', b"\x00", b"[\x00]",
    ],
)  # fmt: skip
def test_what_is_not_one_whole_list_is_malformed(body):
    """Each of these, believed, would empty or halve a table."""
    with pytest.raises(MalformedAnswer):
        list(envelope.pieces(Response(200, body=body), ORDERS))


@pytest.mark.parametrize(
    "body", [b"[]", b" [ ] ", b"null", b'{"data":null}', b'{"data":[]}', b'{"orders": []}', b'{"ORDERS":[ ]}',
             b'\xef\xbb\xbf{"status":"ok","data":[],"count":0}', b'{"list":[]}', b'{"error":null,"data":[]}'],
)  # fmt: skip
def test_an_empty_list_is_read_in_every_envelope(body):
    assert list(envelope.pieces(Response(200, body=body), ORDERS)) == []


def test_an_element_larger_than_a_piece_is_read():
    """An order of a thousand lines is long, not wrong."""
    long = {"a": [{"b": "x" * 50}] * 200}
    assert elements_of(json.dumps([long, {"a": 1}, long]).encode()[1:], 100, 300) == [long, {"a": 1}, long]


@pytest.mark.parametrize(
    "body", [b"1 ,2, ]", b'{"a":1}, ]', b"1,,2]", b",1]", b"1 2]", b'"a","b]', b'{"a":1}}', b"1,2"]
)
def test_a_damaged_list_is_malformed_wherever_it_is_cut(body):
    """What is wrong on both sides of a cut is still wrong."""
    for piece in range(1, len(body) + 1):
        with pytest.raises(MalformedAnswer):
            elements_of(body, 1, piece)
