"""Hashes, stand-ins and mentions: by what an erased person is known again, and by what not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.policy.erasure import ERASED, Hasher, Mentions, Pseudonym, normal, patterns, pseudonymised

SALT = bytes(32)
PERSON = Pseudonym(bytes(range(32)))


@pytest.mark.parametrize("spelled", ["ann@x.example", "Ann@X.Example", " ANN@x.example\n", "ann@X.EXAMPLE"])
def test_an_address_has_one_hash_however_it_is_spelled(spelled: str) -> None:
    """The CRM respells addresses; a respelled person must stay out."""
    assert Hasher.of(SALT, "").email(spelled) == Hasher.of(SALT, "").email("ann@x.example")


def test_composed_and_decomposed_letters_are_one_address() -> None:
    """Two keyboards write one ü in two ways, and MÜLLER in capitals is the same person."""
    assert normal("MÜLLER@x.example") == normal("mu\u0308ller@x.example")


def test_hashes_differ_by_salt_secret_account_and_kind() -> None:
    """A hash must tell nothing to whoever lacks the key, and nothing of one account in another."""
    one = Hasher.of(SALT, "secret")
    others = [
        Hasher.of(SALT, "").email("7"),
        Hasher.of(bytes(31) + b"1", "secret").email("7"),
        one.remote_id(1, "7"),
        one.remote_id(2, "7"),
        one.invoice(1, "7", is_credit=False),
        one.invoice(1, "7", is_credit=True),
    ]
    assert len({one.email("7"), *others}) == 7
    assert one.proof != Hasher.of(SALT, "other").proof
    assert "secret" not in repr(one)


def test_a_stand_in_is_one_name_for_one_person_and_no_address_of_anybody() -> None:
    """Books must still show that two invoices went to one customer."""
    assert re.fullmatch(r"erased-[0-9a-f]{12}@erased\.invalid", PERSON.email)
    assert Pseudonym(PERSON.hash).name == PERSON.name


def test_what_names_a_person_is_replaced_and_the_books_are_kept() -> None:
    """Numbers, amounts, country and the name of a company are what the tax office asks for."""
    values = {"full_name": "Ann Bos", "address": "Kade 1", "postal_code": "1000 AA", "city": "", "country": "NL"}
    values |= {
        "company": "Bakkerij BV",
        "vat_number": "NL1B01",
        "relation_email": "a@x.example",
        "description": "Brood",
    }
    done = pseudonymised(values | {"number": "7", "amount_incl": 1}, PERSON, Mentions(("a@x.example",), ("Ann Bos",)))
    assert done["full_name"] == done["address"] == done["postal_code"] == PERSON.name
    assert (done["city"], done["relation_email"], done["relation_remote_id"]) == ("", PERSON.email, None)
    kept = ("country", "company", "vat_number", "description", "number", "amount_incl")
    assert {name: done[name] for name in kept} == {
        name: (values | {"number": "7", "amount_incl": 1})[name] for name in kept
    }


def test_the_vat_number_of_a_person_and_a_company_called_like_one_are_replaced() -> None:
    """A sole trader's number and firm are the person."""
    mentions = Mentions(("a@x.example",), ("Ann Bos", "Bos"))
    assert pseudonymised({"vat_number": "NL1B01", "company": None}, PERSON, mentions)["vat_number"] == PERSON.name
    assert pseudonymised({"company": "Bos Advies"}, PERSON, mentions)["company"] == PERSON.name
    assert pseudonymised({"description": "Advies aan BOS"}, PERSON, mentions)["description"] == ERASED


def test_without_knowing_the_person_no_free_text_is_trusted() -> None:
    """A later pull has the hash alone: it cannot tell whether a description names them."""
    done = pseudonymised({"description": "Brood", "company": "Bakkerij", "vat_number": "NL1"}, PERSON, None)
    assert done["description"] == ERASED
    assert (done["company"], done["vat_number"]) == (PERSON.name, PERSON.name)


def test_mentions_are_whole_words_in_any_letter_case() -> None:
    """Jan must not take January along, and MÜLLER is Müller."""
    mentions = Mentions(("jan@x.example",), ("Jan", "Müller"), ("Kade 12 bis",))
    assert all(map(mentions.of, ["to JAN@X.example.", "jan!", "herr MÜLLER", "to=jan%40x.example", "kade 12 bis"]))
    assert not any(map(mentions.of, ["January", "janitor@x.example", "Müllerin", "kade 12"]))


def test_what_everybody_has_mentions_nobody() -> None:
    """A flag, a date or a small number would take half of all reports along."""
    mentions = Mentions(("a@x.example",), (), ("true", "12", "2024-05-01", "Nederland", "M", "0612345678"))
    assert not any(map(mentions.of, ["true", "12 orders", "since 2024-05-01", "in Nederland", "M"]))
    assert mentions.of("phone 0612345678")


def test_rows_of_others_are_judged_by_what_is_beyond_doubt() -> None:
    """Another Ann's history must not lose her name because an Ann was erased."""
    mentions = Mentions(("a@x.example",), ("Ann", "Bos", "Ann Bos"))
    other = {"before": {"first_name": "Ann"}, "mail": "A@x.example", "tags": ["Ann Bos", 1, None]}
    cleaned = {"before": {"first_name": "Ann"}, "mail": ERASED, "tags": [ERASED, 1, None]}
    assert mentions.cleaned(other, surely=True) == cleaned
    assert mentions.cleaned({"before": "Ann"}) == {"before": ERASED}


def test_one_name_with_a_blank_behind_it_is_not_a_full_name() -> None:
    """The CRM joins first and last name with a blank, also where there is no last name."""
    mentions = Mentions(("a@x.example",), ("Ann", "Ann ", " Ann"))
    assert not mentions.surely("Ann")
    assert mentions.of("Ann")


def test_what_we_call_our_values_stays_in_rows_of_others() -> None:
    """A change that lost the name of its value could not be read any more, and nothing behind it be delivered."""
    mentions = Mentions(("a@x.example",), (), ("last_name", "Customer", "customer"))
    change = {"old": {"customer": "x"}, "new": {"last_name": "Customer"}, "a@x.example": 1}
    cleaned = {"old": {"customer": "x"}, "new": {"last_name": ERASED}, ERASED: 1}
    assert mentions.cleaned(change, surely=True) == cleaned


@given(st.text(min_size=1, max_size=12), st.text(max_size=5), st.text(max_size=5))
def test_patterns_find_every_text_with_the_value(value: str, before: str, after: str) -> None:
    """What the database passes over is never looked at: a pattern may find too much, never too little."""
    (pattern,) = patterns([value])
    assert _like(pattern, _sql_lower(before + value + after))


def _sql_lower(told: str) -> str:
    """Lower ASCII alone, as a database in locale C does, whose letters others may also be."""
    return "".join(sign.lower() if sign.isascii() else sign for sign in told)


def _like(pattern: str, told: str) -> bool:
    signs = re.findall(r"\\.|.", pattern, re.S)
    made = "".join(".*" if s == "%" else "." if s == "_" else re.escape(s.removeprefix("\\") or s) for s in signs)
    return re.fullmatch(made, told, re.S) is not None
