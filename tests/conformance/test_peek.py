"""Peeking at orders: the same records as decoding, without decoding; whatever is odd is left to the decoder."""

from __future__ import annotations

import json

import pytest

from syncd.domain.errors import MalformedAnswer
from syncd.providers.autorespond import provider
from syncd.providers.contract import Peeked, Response, Stream

ORDERS = provider().streams["orders"]


def order(number: object, **changes: object) -> dict[str, object]:
    line = {"lineType": "product", "productId": 7, "productName": "Brød", "quantity": 1, "subscriptionId": None}
    lines = [{**line, "subscriptionBilledUntil": None, "subscriptionEnds": None}]
    known = {"orderId": number, "relationId": 5, "relationName": "A", "relationEmail": "a@x.nl", "invoiceNumber": ""}
    return {**known, "orderlines": lines, "purchaseDate": "2024-05-01 10:00:00", "paid": "Y", **changes}


def response(*orders: object) -> Response:
    return Response(200, {"content-type": "application/json"}, json.dumps({"data": list(orders)}).encode())


def peeked(stream: Stream, given: Response) -> list[Peeked]:
    assert stream.peek is not None
    return list(stream.peek(given))


def test_keys_and_texts_are_those_of_the_decoded_rows() -> None:
    """A key or text that decoding spells differently would make an order look new, or old, for ever."""
    given = response(order(1), order("0002"), order(3))
    rows = [row for batch in ORDERS.decode(given) for row in batch.rows]
    (batch,) = peeked(ORDERS, given)
    assert list(batch.keys()) == [row.record.remote_id for row in rows]
    assert list(batch.raws()) == [row.raw for row in rows]
    assert list(batch.rows([0, 1, 2]).rows) == rows
    assert list(batch.rows([2]).rows) == rows[2:]
    assert list(batch.rows([]).rows) == []


@pytest.mark.parametrize("odd", ["NUL \u0000 inside", "unpaired \ud800 half"])
def test_texts_that_decoding_mends_are_never_taken_for_known(odd: str) -> None:
    """Their stored text is not the one in the answer: only decoding can compare them."""
    (batch,) = peeked(ORDERS, response(order(1, relationName=odd), order(2)))
    assert batch.keys() == [None, None]
    assert len(batch.rows([0, 1]).rows) == 2


def test_a_record_without_a_key_is_left_to_the_decoder() -> None:
    """It may be a broken record or a changed shape; a look cannot tell."""
    (batch,) = peeked(ORDERS, response(order(1), order(None), order(3)))
    assert batch.keys() == ["1", None, "3"]
    assert len(batch.rows([1]).rows) == 0
    assert batch.rows([1]).warnings


def test_a_changed_shape_is_malformed_however_it_is_read() -> None:
    """Most records without their id means that the answer is not what we think it is."""
    (batch,) = peeked(ORDERS, response({"id": 1}, {"id": 2}, {"id": 3}))
    with pytest.raises(MalformedAnswer):
        batch.rows([0, 1, 2])


def test_a_cut_off_answer_is_malformed_at_its_end() -> None:
    """Nobody may believe the first half."""
    whole = response(order(1), order(2)).body
    with pytest.raises(MalformedAnswer):
        peeked(ORDERS, Response(200, {}, whole[:-2]))
