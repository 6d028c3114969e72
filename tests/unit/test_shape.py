"""What is learned of the shape of records, and when a key counts as gone: on values alone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from syncd.policy.shape import ENOUGH, Drift, Glimpse, Known, Learned, learn
from syncd.providers.autorespond import decode, keys, wire

DECLARED = {"id": frozenset({"number"}), "sum": frozenset({"number", "string"}), "lines": frozenset({"array"})}
DECLARED |= {"lines[].n": frozenset({"number"})}


def _glimpse(*records: object, known: Mapping[str, Known] | None = None, is_strange: bool = False) -> Glimpse:
    glimpse = Glimpse(known or {}, DECLARED)
    glimpse.look([msgspec.json.encode(record) for record in records], is_strange=is_strange)
    return glimpse


def _told(found: tuple[Learned, ...]) -> dict[str, Drift | None]:
    return {one.key: one.known.drift for one in found}


def _known(found: tuple[Learned, ...]) -> dict[str, Known]:
    return {one.key: one.known for one in found}


PLAIN = [{"id": n, "sum": 1.5, "lines": [{"n": 1}]} for n in range(ENOUGH)]


def test_keys_are_usual_only_when_enough_records_have_them() -> None:
    """Nine records are no rule."""
    few, enough = learn(_glimpse(*PLAIN[:-1])), learn(_glimpse(*PLAIN))
    assert {one.known.is_usual for one in few} == {None}
    assert {one.known.is_usual for one in enough} == {True}
    assert _told(enough) == {"id": None, "sum": None, "lines": None, "lines[].n": None}


def test_a_key_that_is_often_left_out_is_never_missed() -> None:
    """Some leave out what is empty; that is their shape."""
    known = _known(learn(_glimpse(*PLAIN, *({"id": 1} for _ in range(3)))))
    assert (known["id"].is_usual, known["sum"].is_usual) == (True, False)
    assert _glimpse(*({"id": n} for n in range(50)), known=known).vanished() == ()


def test_a_vanished_key_is_gone_from_all_of_enough_records_and_from_any_number_later() -> None:
    """One record that has it is enough for it to be there."""
    known = _known(learn(_glimpse(*PLAIN)))
    without = [{"id": n, "lines": [{"n": 1}]} for n in range(ENOUGH)]
    assert _glimpse(*without[:-1], known=known).lost() == ()
    assert _glimpse(*without, {"sum": 1}, known=known).lost() == ()
    gone = _glimpse(*without, known=known)
    assert gone.lost() == ("sum",)
    later = _known(learn(gone))
    assert later["sum"].drift is Drift.VANISHED
    assert _glimpse(without[0], known=known | later).lost() == ("sum",)
    familiar = _glimpse(*without, known=known)
    familiar.familiar = 1
    assert familiar.lost() == (), "a record known to the letter has it"


def test_keys_of_lines_are_missed_only_where_there_are_lines() -> None:
    """Orders without lines say nothing about the keys of lines."""
    known = _known(learn(_glimpse(*PLAIN)))
    assert _glimpse(*({"id": n, "sum": 1, "lines": []} for n in range(20)), known=known).lost() == ()
    bare = [{"id": n, "sum": 1, "lines": [{"m": 1}]} for n in range(20)]
    assert _glimpse(*bare, known=known, is_strange=True).lost() == ("lines[].n",)


def test_types_that_are_read_are_no_news_and_others_are() -> None:
    """Money may come as a number or a text; an object is another thing. Null is no type."""
    known = _known(learn(_glimpse(*PLAIN)))
    texts = _glimpse(*({**record, "sum": "1.50"} for record in PLAIN), {**PLAIN[0], "sum": None}, known=known)
    assert [(one.key, one.is_news) for one in learn(texts)] == [("sum", False)]
    odd = learn(_glimpse(*PLAIN, {**PLAIN[0], "sum": {"value": 1}}, known=known))
    assert _told(odd) == {"sum": Drift.RETYPED}
    assert odd[0].record == b'{"id":0,"sum":{"value":1},"lines":[{"n":1}]}'
    well = learn(_glimpse(*PLAIN, known=known | _known(odd)))
    assert [(one.key, one.is_well) for one in well] == [("sum", True)]


def test_an_unknown_key_is_news_once() -> None:
    """And its records are not looked through for ever because of it."""
    known = _known(learn(_glimpse(*PLAIN)))
    found = learn(_glimpse(*PLAIN, {**PLAIN[0], "hue": 3}, known=known, is_strange=True))
    assert _told(found) == {"hue": Drift.UNKNOWN}
    assert learn(_glimpse(*PLAIN, {**PLAIN[0], "hue": 3}, known=known | _known(found), is_strange=True)) == ()


def test_records_that_are_no_objects_have_no_shape() -> None:
    """Tags of a relation may be bare names."""
    assert learn(_glimpse("VIP", "Lead", 3, None)) == ()


def test_the_declared_keys_are_those_of_the_wire() -> None:
    """A key that the decoder reads and nobody declared would be told as unknown; the other way round it is not read."""
    pairs = {
        "ADMINISTRATION": wire.Administration, "RELATION": wire.Relation, "TAG": wire.Tag, "FIELD": wire.Field,
        "GROUP": wire.Group, "LIST": wire.MailingList, "SUBSCRIPTION": wire.Subscription, "ORDER": wire.Order,
        "ORDER_LINE": wire.OrderLine, "INVOICE": wire.Invoice, "INVOICE_DETAIL": wire.InvoiceDetail,
        "INVOICE_LINE": wire.InvoiceLine,
    }  # fmt: skip
    for name, shape in pairs.items():
        declared = {key for key in getattr(keys, name) if "[]." not in key}
        assert declared == set(shape.__struct_fields__), name
    assert decode.ORDER.keys is keys.ORDER
