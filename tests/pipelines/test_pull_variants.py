"""What the reference does not say may be either way: the same world gives the same mirror whichever the CRM turns out
to speak.

One life of a world is pulled under each variant of the simulator and compared, row by row, with the mirror of the
likeliest one. In seven mixtures every value of every switch occurs: the short form plays a few of them, ``make prove``
all, each value by itself, and a CRM that changes its mind under a mirror that is there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from syncd.sandbox import Switches, World
from tests.support import news, proving
from tests.support.mirrored import Content, blanked, content, difference
from tests.support.proving import Say
from tests.support.pulling import NOON, Circle, circle
from tests.support.throwaway import cloned_store

# Each is an open question of the fact sheet; the first value is the likeliest, and the default.
QUESTIONS: Mapping[str, tuple[Any, ...]] = {
    "envelope": ("data", "named", "titled", "bare", "text"),
    "error_shape": ("string", "object"),
    "unknown": (404, 400, 200, 204),
    "paid": ("letters", "bool", "string", "capitals", "number", "dutch", "words"),
    "flags": ("bool", "letters", "string", "capitals", "number", "dutch", "words"),
    "paid_default": ("-", "Y", "N"),
    "dates": ("iso", "offset", "space", "minutes", "dutch", "dutch_minutes", "epoch_ms"),
    "no_date": ("null", "empty", "dash", "zeros"),
    "zone": ("Europe/Amsterdam", "UTC"),
    "amounts": ("number", "point", "comma", "grouped", "euro"),
    "ids": ("number", "string"),
    "after": ("exclusive", "inclusive"),
    "created": ("made", "dated"),
    "nulls": (False, True),
    "empty_lists": ("list", "null"),
    "unknown_keys": (False, True),
    "unknown_parameters": ("refuse", "ignore"),
    "email_case": ("insensitive", "sensitive"),
    "chunked": (False, True),
}
# Switches that are no question about a reading: faults by rule, how writes are answered, how the wire behaves.
OTHERS = frozenset(
    {"wrong_key", "invalid", "credit_detail", "verbs", "places", "allow_header", "options", "omitted", "hours_cap"}
    | {"bad_dates_every", "duplicate_tags", "latency_s", "rate_per_s", "retry_after"}
)
# Readings that no client can tell apart, and that are therefore refused row by row.
UNREADABLE = {"amounts": {"ambiguous"}}

_WIDTH = max(map(len, QUESTIONS.values()))


def mixtures() -> list[dict[str, Any]]:
    """Return mixtures in which every value of every switch occurs; which meet is drawn by the seed."""
    chance = random.Random(proving.seed())
    columns = {name: [*values, *chance.choices(values, k=_WIDTH - len(values))] for name, values in QUESTIONS.items()}
    for column in columns.values():
        chance.shuffle(column)
    return [{name: column[nth] for name, column in columns.items()} for nth in range(_WIDTH)]


def alone() -> list[dict[str, Any]]:
    return [{name: value} for name, values in QUESTIONS.items() for value in values[1:]]


async def test_the_same_world_gives_the_same_mirror_under_every_reading(
    server_url: str, template: str, proof: Say
) -> None:
    """Nobody knows which of them the first real key will show; none may cost a row, a value or an hour."""
    drawn, mixed = proving.pick(range(_WIDTH), short=4), mixtures()
    variants = [*(mixed[nth] for nth in drawn), *(alone() if proving.is_long() else ())]
    usual = await _mirror_of(server_url, template, {})
    assert len(usual.rows) > 150
    wrong = []
    for variant in variants:
        found = difference(usual, await _mirror_of(server_url, template, variant))
        wrong += [f"{variant}: {len(found)} rows, such as {found[0]} and {found[-1]}"] if found else []
    assert not wrong, "\n".join(wrong)
    told = f"{len(variants)} variants of {len(QUESTIONS)} switches give the same mirror"
    proof(f"readings: {told} (seed {proving.seed()})")


@pytest.mark.skipif(not proving.is_long(), reason="make prove plays it")
async def test_a_crm_that_changes_its_mind_rewrites_nothing(server_url: str, template: str, proof: Say) -> None:
    """A new version of the CRM spells everything otherwise on a Monday: no row may look changed for it."""
    # The zone is a setting, which would have to change with it; and null in the place of a blank is another value.
    kept = {"zone": "Europe/Amsterdam", "nulls": False}
    variants = [{**variant, **kept} for variant in (*alone(), *mixtures())]
    async with cloned_store(server_url, template) as (store, _), circle(store, world=_world()) as it:
        await _live(it)
        usual = blanked(await content(store))
        for variant in variants:
            it.box.turn(Switches(**variant))
            await it.advance(60)
            for report in await it.puller.pull_all():
                assert report.is_success, (variant, report)
                assert (report.inserted, report.updated, report.missing) == (0, 0, 0), (variant, report)
            assert difference(usual, blanked(await content(store))) == [], variant
    proof(f"readings: {len(variants)} changes of mind rewrite nothing")


def test_every_switch_is_a_question_or_known_not_to_be() -> None:
    """A switch that is added must be tried, and so must every value of it."""
    hints = get_type_hints(Switches)
    assert set(hints) == set(QUESTIONS) | OTHERS
    for name, values in QUESTIONS.items():
        known = set(get_args(hints[name])) or {False, True}
        assert set(values) == known - UNREADABLE.get(name, set()), name
        assert values[0] == getattr(Switches(), name), name


async def _mirror_of(server_url: str, template: str, variant: Mapping[str, Any]) -> Content:
    """Pull the life of the world under a variant, and return the mirror."""
    zone = variant.get("zone", "Europe/Amsterdam")
    async with (
        cloned_store(server_url, template) as (store, _),
        circle(store, world=_world(), switches=Switches(**variant), time_zone=zone) as it,
    ):
        await _live(it)
        return blanked(await content(store))


def _world() -> World:
    """A world in which something of everything is blank, and every time is a whole minute: some readings have no
    seconds."""
    made = news.world(relations=6)
    for number, order in made.orders.items():
        made.orders[number] = msgspec.structs.replace(order, purchased_at=order.purchased_at.replace(second=0))
    for relation in made.relations.values():
        whole = [msgspec.structs.replace(each, at=each.at.replace(second=0, microsecond=0)) for each in relation.events]
        relation.events[:] = whole
    made.add_relation("gone@example.nl", id=100_902, first_name="Gina")
    made.add_order(100_902, news.BREAD, at=NOON - timedelta(days=2))
    return made


async def _live(it: Circle) -> None:
    """News on three days, an invoice dated a day before it was made, somebody deleted: pulled as it happens."""
    await _pull_all(it)
    for turn in range(2):
        await it.advance(7 * 3600)
        news.stir(it.world, turn, documents=3)
        newest = max(it.world.invoices.values(), key=lambda each: each.created_at)
        yesterday = newest.invoiced_on - timedelta(days=1)
        it.world.add_invoice(msgspec.structs.replace(newest, number=f"Y{turn}", invoiced_on=yesterday))
        if turn == 0:
            it.world.delete_relation(100_902)
            tagged = next(each for each in it.world.relations.values() if each.tags)
            it.world.untag(tagged, min(tagged.tags))
        await _pull_all(it)


async def _pull_all(it: Circle) -> None:
    for report in await it.puller.pull_all():
        assert report.is_success, report
