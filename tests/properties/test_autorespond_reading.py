"""Reading Autorespond's answers, whatever they are and however they are cut: the whole, or a refusal."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from syncd.domain.errors import MalformedAnswer
from syncd.providers.autorespond import envelope, formats
from syncd.providers.autorespond.elements import Elements
from syncd.providers.autorespond.endpoints import ENDPOINTS
from syncd.providers.autorespond.formats import Zone
from syncd.providers.autorespond.mending import mended
from tests.support.laws import many

ORDERS = next(row for row in ENDPOINTS if row.operation == "orders")
TRICKY = st.sampled_from(['},{"a":', '"}', "\\", '\\"', "]", "[", "{", "},{", "é", "\u2028", '","', "}, {"])
TEXT = st.one_of(st.text(max_size=6), TRICKY)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(st.one_of(TEXT, st.just("a")), VALUES, max_size=4), max_size=8)
LAYOUTS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n ", " : ")])
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.decimals(), st.text(), st.just(UNSET), st.lists(st.integers()),
    st.from_regex(r"[0-9.,:TZ+-]{0,24}"), st.dictionaries(st.text(), st.integers()),
)  # fmt: skip
DUTCH = Zone("Europe/Amsterdam")


class Chunked:
    """A response whose body comes in pieces of a few bytes."""

    def __init__(self, body: bytes, size: int) -> None:
        self.body, self.size, self.spool, self.headers = body, size, None, {}

    def chunks(self, size: int = 0):
        for start in range(0, len(self.body), self.size):
            yield self.body[start : start + self.size]


def elements_of(body: bytes, size: int, piece: int) -> list[object]:
    found = Elements(iter([body[at : at + size] for at in range(0, len(body), size)]), piece)
    listed = [json.loads(bytes(raw)) for cut in found for raw in cut.raws]
    assert not found.tail.strip()
    return listed


@settings(max_examples=many(150))
@given(RECORDS, LAYOUTS, st.integers(1, 40), st.integers(1, 60), st.booleans())
@example([{"a": [{"b": 1}, {"b": 2}]}, {"a": '},{"a":'}], (",", ":"), 3, 8, True)
def test_pieces_hold_the_elements_of_the_whole(records, layout, size, piece, ascii_only):
    """A cut inside a text or a nested list would be two half orders."""
    body = json.dumps(records, separators=layout, ensure_ascii=ascii_only).encode()
    assert elements_of(body[1:], size, piece) == records


@settings(max_examples=many(80))
@given(st.lists(VALUES, max_size=6), LAYOUTS, st.integers(1, 20), st.integers(1, 30))
def test_elements_that_are_no_objects_are_cut_as_well(values, layout, size, piece):
    body = json.dumps(values, separators=layout).encode()
    assert elements_of(body[1:], size, piece) == values


@settings(max_examples=many(100))
@given(RECORDS, st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_cut_off_body_is_never_believed(records, size, piece, data):
    """A truncated list looks like a shorter one: every order after the cut would seem gone."""
    body = json.dumps({"data": records}).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(MalformedAnswer):
        list(envelope.pieces(Chunked(cut, size), ORDERS))


@settings(max_examples=many(200))
@given(st.binary(max_size=60), st.integers(1, 20))
def test_bytes_of_any_kind_are_read_or_refused(body, size):
    """Nothing that comes over the wire may crash a pull with anything but a refusal."""
    try:
        list(envelope.pieces(Chunked(body, size), ORDERS))
    except MalformedAnswer:
        return
    assert msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf")) is None or b"[" in body or b"null" in body


@settings(max_examples=many(150))
@given(RECORDS, st.binary(min_size=1, max_size=2), st.data())
def test_a_damaged_body_is_read_as_json_reads_it_or_refused(records, damage, data):
    """One flipped byte may not move an element's border without being noticed."""
    body = bytearray(json.dumps({"orders": records}).encode())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + len(damage)] = damage
    try:
        pieces = list(envelope.pieces(Chunked(bytes(body), 7), ORDERS))
    except MalformedAnswer:
        return
    raws = [bytes(raw) for piece in pieces for raw in piece.raws]
    read = mended(bytes(body))  # which moves no border: see its own test
    whole = {key.lower(): value for key, value in msgspec.json.decode(read, type=dict[str, msgspec.Raw]).items()}
    payload = bytes(next(whole[key] for key in envelope.keys_of(ORDERS) if key in whole))
    listed = msgspec.json.decode(payload, type=list[msgspec.Raw] | None)
    assert [mended(raw) for raw in raws] == [mended(bytes(raw)) for raw in listed or []]


@settings(max_examples=many(150))
@given(st.lists(VALUES, max_size=4), st.binary(max_size=3), st.data())
def test_mending_moves_no_border(values, damage, data):
    """It may change what stands inside a text, never how many texts, numbers and brackets there are.

    Numbers are read as decimals, as those of records are: no float holds 1e309.
    """
    body = bytearray(json.dumps(values).encode())
    at = data.draw(st.integers(0, len(body)))
    body[at:at] = damage
    try:
        loose = json.loads(
            bytes(body).decode(errors="replace"), strict=False, parse_constant=lambda _: 1 / 0, parse_float=Decimal
        )
    except (ValueError, ZeroDivisionError):
        return
    read = msgspec.json.Decoder(float_hook=Decimal).decode(mended(bytes(body)))
    assert read == loose or "\ufffd" in str(read)
    assert [type(value) for value in read] == [type(value) for value in loose]


@given(ODD)
def test_no_value_makes_a_reader_crash(value):
    """One odd value must cost one value, not the pull."""
    notes = []
    for read in (formats.amount, formats.text, formats.reference, formats.flag):
        read(value, "key", notes)
    formats.instant(value, "key", notes, DUTCH)
    formats.day(value, "key", notes, DUTCH)
