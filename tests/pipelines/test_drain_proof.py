"""Proof: what the CRM said yes to is verified by whichever read shows it, and a person hears of what is not shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec
import pytest

from syncd.inbound import PullPolicy
from syncd.sandbox.records import OrderLine, Relation
from syncd.store import Store, runs
from syncd.store.incidents import IncidentRow, list_incidents
from syncd.store.outbox_awaited import take
from tests.support.outbox import Circle, circle, retry_entry, rows, run_sql, skip_entry, stage_all
from tests.support.planning import applied, filed

NO_GRACE = PullPolicy(grace_s=0)
TAG, WORN = 301, 302


def _who(c: Circle) -> Relation:
    return next(iter(c.sandbox.world.relations.values()))


def _group(c: Circle) -> int:
    return next(iter(c.sandbox.world.groups))


def _bare(c: Circle) -> None:
    for relation in c.sandbox.world.relations.values():
        relation.tags.clear()
        relation.events.clear()
        for group in list(relation.groups):
            c.sandbox.world.leave(relation, group)


async def _edit(c: Circle, sql: str) -> None:
    given = {"who": _who(c).id, "group": _group(c)}
    await c.edit(sql, **{name: value for name, value in given.items() if f":{name}" in sql})


async def _call(c: Circle, operation: str, number: int | None = None, **payload: Any) -> None:
    """Capture a list call as its function would."""
    number = number or next(iter(c.sandbox.world.lists))
    told = {"list_id": number, "list_remote_id": str(number), **payload}
    await c.edit(
        "INSERT INTO syncd.captures (account_id, relation_id, operation, facet, payload) "
        "VALUES (:account_id, :who, :operation, :facet, CAST(CAST(:payload AS text) AS jsonb))",
        who=_who(c).id,
        operation=operation,
        facet=f"list:{number}",
        payload=msgspec.json.encode(told).decode(),
    )


async def _incidents(c: Circle, *, with_closed: bool = False) -> tuple[IncidentRow, ...]:
    async with c.store.begin() as connection:
        return await list_incidents(connection, with_closed=with_closed)


async def _entry(c: Circle, index: int = -1) -> dict[str, Any]:
    return (await rows(c.store, "SELECT * FROM syncd.entries ORDER BY id"))[index]


async def _tagged(c: Circle) -> int:
    """Deliver one tag; return the entry's id."""
    _bare(c)
    await _edit(c, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)")
    assert (await c.drain()).delivered == 1
    return int((await _entry(c))["id"])


@dataclass(frozen=True)
class Case:
    """An edit that ends accepted, the streams that show it, and what makes the CRM show something else."""

    edit: Callable[[Circle], Any]
    streams: tuple[str, ...]
    undo: Callable[[Circle], object]
    difference: tuple[dict[str, str], dict[str, str]]
    before: Callable[[Circle], Any] | None = None


def _sql(text: str) -> Callable[[Circle], Any]:
    return lambda c: _edit(c, text)


async def _silent_profile(c: Circle) -> None:
    c.sandbox.faults.add("empty_body", operation="relation_upsert")
    await _edit(c, "UPDATE crm.relations SET first_name = 'Ander' WHERE id = :who")


async def _worn(c: Circle) -> None:
    c.sandbox.world.tag(_who(c), WORN)
    async with c.store.begin_remote() as connection:
        await connection.exec_driver_sql(
            f"INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES ({_who(c).id}, {WORN})"
        )


async def _member(c: Circle) -> None:
    c.sandbox.world.join(_who(c), _group(c))
    async with c.store.begin_remote() as connection:
        await connection.exec_driver_sql(
            f"INSERT INTO crm.group_members (relation_id, group_id) VALUES ({_who(c).id}, {_group(c)})"
        )


async def _subscriber(c: Circle) -> None:
    line = OrderLine("subscription", 7, "Abonnement", 1, subscription_id=9001)
    c.sandbox.world.add_order(_who(c).id, (line,))
    assert (await c.pull("orders")).is_success


def _ended(c: Circle) -> None:
    c.sandbox.world.end_subscription(9001, date(2030, 1, 31))


CASES = {
    "add_tag": Case(
        _sql("INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)"),
        ("relation_tags",),
        lambda c: c.sandbox.world.untag(_who(c), TAG),
        ({"tag": "there"}, {"tag": "not there"}),
    ),
    "remove_tag": Case(
        _sql("DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 302"),
        ("relation_tags",),
        lambda c: c.sandbox.world.tag(_who(c), WORN),
        ({"tag": "not there"}, {"tag": "there"}),
        _worn,
    ),
    "join_group": Case(
        _sql("INSERT INTO crm.group_members (relation_id, group_id) VALUES (:who, :group)"),
        ("group_members",),
        lambda c: c.sandbox.world.leave(_who(c), _group(c)),
        ({"group": "member"}, {"group": "no member"}),
    ),
    "leave_group": Case(
        _sql("DELETE FROM crm.group_members WHERE relation_id = :who AND group_id = :group"),
        ("group_members",),
        lambda c: c.sandbox.world.join(_who(c), _group(c)),
        ({"group": "no member"}, {"group": "member"}),
        _member,
    ),
    "update_profile": Case(
        _silent_profile,
        ("relation_details",),
        lambda c: c.sandbox.world.change_relation(_who(c).id, first_name="Anders"),
        ({"first_name": "Ander"}, {"first_name": "Anders"}),
    ),
    "change_email": Case(
        _sql("UPDATE crm.relations SET email = 'new@x.example' WHERE id = :who"),
        ("relation_details",),
        lambda c: c.sandbox.world.change_relation(_who(c).id, email="old@x.example"),
        ({"email": "new@x.example"}, {"email": "old@x.example"}),
    ),
    "subscribe": Case(
        lambda c: _call(c, "subscribe", skip_optin=False),
        ("relation_subscriptions",),
        lambda c: _who(c).events.clear(),
        ({"list": "subscribed"}, {"list": "nothing"}),
    ),
    "create_field": Case(
        _sql("SELECT crm.create_field('colour', 'Kleur', 'string')"),
        ("fields",),
        lambda c: [
            c.sandbox.world.fields.pop(f.code) for f in list(c.sandbox.world.fields.values()) if f.name == "colour"
        ],
        ({"field": "there"}, {"field": "not there"}),
    ),
    "end_subscription": Case(
        _sql("SELECT crm.end_subscription('9001', DATE '2030-03-31')"),
        ("relation_orders",),
        _ended,
        ({"subscription": "2030-03-31"}, {"subscription": "2030-01-31"}),
        _subscriber,
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


async def _accepted(c: Circle, case: Case) -> None:
    _bare(c)
    if case.before is not None:
        await case.before(c)
    await case.edit(c)
    assert (await c.drain()).delivered == 1
    found = await _entry(c)
    assert (found["status"], found["prove_until"] is not None) == ("accepted", True)


async def test_a_pull_that_shows_the_value_verifies_for_free(store: Store, case: Case) -> None:
    """No request more than the pull would make anyway; the entry says which run showed it."""
    async with circle(store) as c:
        await _accepted(c, case)
        report = await c.pull(*case.streams)
        assert report.is_success
        found = await _entry(c)
        assert (found["status"], found["proved_run_id"]) == ("verified", report.run_id)
        assert found["proved_at"] is not None
        assert (found["prove_until"], found["prove_at"]) == (None, None)
        assert await _incidents(c) == ()


async def test_a_pull_that_shows_another_value_is_an_incident_with_both(store: Store, case: Case) -> None:
    """The CRM said yes and does not hold it: nobody but a person can tell why."""
    async with circle(store) as c:
        await _accepted(c, case)
        case.undo(c)
        report = await c.pull(*case.streams, policy=NO_GRACE)
        found = await _entry(c)
        assert (found["status"], found["proved_run_id"]) == ("diverged", report.run_id)
        (incident,) = await _incidents(c)
        assert (incident.kind, incident.subject) == ("diverged", f"entry:{found['id']}")
        assert _values(incident) == case.difference
        assert any(f"entry {found['id']}" in warning for warning in report.warnings)
        assert "x.example" not in "".join(report.warnings)


def _values(incident: IncidentRow) -> tuple[dict[str, str], dict[str, str]]:
    """Both values, with the names cut to their first word."""
    detail = msgspec.json.decode(incident.detail)
    expected, shown = ({name.split()[0]: value for name, value in detail[key].items()} for key in ("expected", "shown"))
    return expected, shown


async def test_nothing_is_called_diverged_within_the_grace(store: Store, case: Case) -> None:
    """A late request may be at work, and some CRMs show a write only after a while."""
    async with circle(store) as c:
        await _accepted(c, case)
        case.undo(c)
        await c.pull(*case.streams)
        assert (await _entry(c))["status"] == "accepted"
        assert await _incidents(c) == ()


async def test_orders_confirm_a_changed_address(store: Store) -> None:
    """Relations of which no group and no sweep speaks may still order something."""
    async with circle(store) as c:
        await _subscriber(c)
        await _edit(c, "UPDATE crm.relations SET email = 'new@x.example' WHERE id = :who")
        assert (await c.drain()).delivered == 1
        await c.pull("orders")
        assert (await _entry(c))["status"] == "verified"


async def test_a_group_answer_proves_profiles_and_addresses(store: Store) -> None:
    """Its rows are whole relations."""
    async with circle(store) as c:
        c.sandbox.world.join(_who(c), _group(c))
        await _edit(c, "UPDATE crm.relations SET email = 'new@x.example' WHERE id = :who")
        await c.drain()
        await c.pull("group_members")
        assert (await _entry(c))["status"] == "verified"


async def test_field_values_await_no_proof(store: Store) -> None:
    """They cannot be read: awaiting them would keep the index full of what never comes."""
    async with circle(store) as c:
        number = next(f.id for f in c.sandbox.world.fields.values() if "_FF" in f.code and f.type == "string")
        await c.edit(
            "INSERT INTO crm.relation_fields (relation_id, field_id, value) VALUES (:who, :field, 'blauw')",
            who=_who(c).id,
            field=number,
        )
        await c.drain(read_back_share=1.0)
        found = await _entry(c)
        assert (found["status"], found["prove_until"], found["prove_at"]) == ("accepted", None, None)


async def test_what_is_never_shown_in_whole_awaits_no_proof(store: Store) -> None:
    """`customer` is write-only: a proof of the name beside it would claim too much."""
    async with circle(store) as c:
        c.sandbox.faults.add("empty_body", operation="relation_upsert")
        await _edit(c, "UPDATE crm.relations SET first_name = 'Ander', customer = 'y' WHERE id = :who")
        await c.drain()
        found = await _entry(c)
        assert (found["status"], found["prove_until"]) == ("accepted", None)


async def test_a_pull_asked_for_before_the_delivery_proves_nothing(store: Store) -> None:
    """Its answer may be older than the delivery, whichever way it reads."""
    async with circle(store) as c:
        _bare(c)
        await _edit(c, "INSERT INTO crm.relation_tags (relation_id, tag_id) VALUES (:who, 301)")
        await c.drain()
        await run_sql(store, "UPDATE syncd.entries SET prove_until = now() + interval '1 day', settled_at = now()")
        c.sandbox.faults.add("hold", operation="relation_tags")
        pulling = asyncio.create_task(c.pull("relation_tags", policy=NO_GRACE))
        await c.sandbox.until_held()
        await run_sql(store, "UPDATE syncd.entries SET settled_at = clock_timestamp()")
        c.sandbox.release()
        await pulling
        assert (await _entry(c))["status"] == "accepted"
        await c.pull("relation_tags")
        assert (await _entry(c))["status"] == "verified"


async def test_a_run_that_began_while_nothing_awaited_proof_asks_for_none(store: Store) -> None:
    """The hot path of pulls: one flag, read with the run's own row."""
    async with circle(store) as c:
        await _tagged(c)
        async with store.begin() as connection:
            assert (await runs.start(connection, c.account.id, "tags", "test", None)).awaits_proof
        await c.pull("relation_tags")
        async with store.begin() as connection:
            assert not (await runs.start(connection, c.account.id, "tags", "test", None)).awaits_proof


async def test_a_facet_with_something_undelivered_does_not_diverge(store: Store) -> None:
    """What the CRM shows will be set right, or is right already: the newer edit says."""
    async with circle(store) as c:
        await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await _edit(c, "DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 301")
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c, 0))["status"] == "accepted", "captured, and not even staged"
        c.sandbox.faults.add("status", operation="tag_remove", status=503, times=0)
        await c.drain(backoff_s=600.0, backoff_max_s=600.0)
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c, 0))["status"] == "accepted", "staged, and backing off"
        assert await _incidents(c) == ()


async def test_a_lane_that_is_being_sent_does_not_diverge(store: Store) -> None:
    """Its worker may be delivering the very thing."""
    async with circle(store) as c:
        await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await run_sql(store, "UPDATE syncd.lanes SET claimed_by = 'somebody'")
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "accepted"


async def test_a_day_later_nothing_is_concluded_from_another_value(store: Store) -> None:
    """A campaign may have taken the tag away since: that is the CRM's business and no lost write."""
    async with circle(store) as c:
        await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await run_sql(store, "UPDATE syncd.entries SET settled_at = settled_at - interval '25 hours'")
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "accepted"


async def test_an_overtaken_delivery_awaits_nothing(store: Store) -> None:
    """Its value is not expected any more; only the last one of the facet is."""
    async with circle(store) as c:
        await _tagged(c)
        await _edit(c, "DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 301")
        await c.drain()
        await c.pull("relation_tags")
        first, second = await c.entries()
        assert (first["status"], first["prove_until"]) == ("accepted", None)
        assert second["status"] == "verified"


async def test_each_column_of_a_profile_is_expected_as_it_was_delivered_last(store: Store) -> None:
    """Edits of other columns overtake nothing."""
    async with circle(store) as c:
        c.sandbox.faults.add("empty_body", operation="relation_upsert", times=3)
        for column, value in (("first_name", "Een"), ("last_name", "Twee"), ("first_name", "Drie")):
            await _edit(c, f"UPDATE crm.relations SET {column} = '{value}' WHERE id = :who")
            await c.drain()
        c.sandbox.world.change_relation(_who(c).id, last_name="Anders")
        await c.pull("relation_details", policy=NO_GRACE)
        statuses = [(e["status"], e["prove_until"] is not None) for e in await c.entries()]
        assert statuses == [("accepted", False), ("diverged", True), ("verified", False)]
        (incident,) = await _incidents(c)
        assert _values(incident) == ({"last_name": "Twee"}, {"last_name": "Anders"})


async def test_a_diverged_value_stays_in_the_mirror_until_somebody_decides(store: Store) -> None:
    """The application wrote it and was told that it is delivered: no pull takes it away in silence."""
    async with circle(store) as c:
        c.sandbox.faults.add("empty_body", operation="relation_upsert")
        await _edit(c, "UPDATE crm.relations SET first_name = 'Ander' WHERE id = :who")
        await c.drain()
        c.sandbox.world.change_relation(_who(c).id, first_name="Anders")
        await c.pull("relation_details", policy=NO_GRACE)
        await c.pull("relation_details", policy=NO_GRACE)
        shown = await rows(store, "SELECT first_name FROM crm.relations WHERE id = :who", who=_who(c).id)
        assert shown == [{"first_name": "Ander"}]


async def test_a_diverged_change_that_is_shown_after_all_is_verified(store: Store) -> None:
    """A CRM that was slow to show it, or a person who mended it there."""
    async with circle(store) as c:
        await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "diverged"
        c.sandbox.world.tag(_who(c), TAG)
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "verified"
        assert [row.closed_at is not None for row in await _incidents(c, with_closed=True)] == [True]


async def test_a_later_value_ends_a_divergence(store: Store) -> None:
    """Delivered, it supersedes the diverged entry, and nobody needs to look at that any more."""
    async with circle(store) as c:
        await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await c.pull("relation_tags", policy=NO_GRACE)
        await _edit(c, "DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 301")
        await c.drain()
        assert [e["status"] for e in await c.entries()] == ["superseded", "accepted"]
        assert await _incidents(c) == ()


async def test_a_divergence_that_a_delivery_missed_is_mended_by_the_next_read(store: Store) -> None:
    """Called diverged in the moment in which a newer value was delivered."""
    async with circle(store) as c:
        await _tagged(c)
        await _edit(c, "DELETE FROM crm.relation_tags WHERE relation_id = :who AND tag_id = 301")
        await c.drain()
        await run_sql(store, "UPDATE syncd.entries SET status = 'diverged' WHERE seq = 1")
        await c.pull("relation_tags")
        assert [e["status"] for e in await c.entries()] == ["superseded", "verified"]


@pytest.mark.parametrize("verb", [retry_entry, skip_entry])
async def test_a_persons_decision_closes_the_incident(store: Store, verb: Callable[..., Any]) -> None:
    """It was seen and dealt with."""
    async with circle(store) as c:
        entry_id = await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await c.pull("relation_tags", policy=NO_GRACE)
        assert len(await _incidents(c)) == 1
        async with store.begin() as connection:
            await verb(connection, entry_id)
        assert await _incidents(c) == ()


async def test_tags_of_one_name_prove_nothing(store: Store) -> None:
    """The CRM lists names: which of the two is there cannot be told."""
    async with circle(store) as c:
        c.sandbox.world.add_tag(c.sandbox.world.tags[TAG].name, 399)
        await c.pull("tags")
        await _tagged(c)
        c.sandbox.world.untag(_who(c), TAG)
        await c.pull("relation_tags", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "accepted"


async def test_a_standing_that_somebody_moved_since_is_no_divergence(store: Store) -> None:
    """People unsubscribe by the link in their mail; the event's date tells."""
    async with circle(store) as c:
        _bare(c)
        await _call(c, "subscribe", skip_optin=False)
        await c.drain()
        c.sandbox.clock.advance(5)
        c.sandbox.world.unsubscribe(_who(c), next(iter(c.sandbox.world.lists)), "link")
        await c.pull("relation_subscriptions", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "accepted"


# Parked


async def _parked(c: Circle) -> dict[str, Any]:
    _bare(c)
    c.sandbox.faults.add("late", operation="list_subscribe")
    await _call(c, "subscribe", skip_optin=False)
    assert (await c.drain()).parked == 1
    return await _entry(c)


async def test_a_parked_call_is_an_incident_with_the_evidence(store: Store) -> None:
    """What was sent, when, what each try came to and what reading showed: all that a person needs to decide."""
    async with circle(store) as c:
        entry = await _parked(c)
        (incident,) = await _incidents(c)
        assert (incident.kind, incident.subject) == ("parked", f"entry:{entry['id']}")
        detail = msgspec.json.decode(incident.detail)
        assert (detail["operation"], detail["sent"]["skip_optin"]) == ("subscribe", False)
        assert [one["outcome"] for one in detail["tries"]] == ["unknown", "unknown"]
        assert all(one["at"] for one in detail["tries"])
        assert "does not show" in detail["reading"]


@pytest.mark.parametrize("verb", [retry_entry, skip_entry])
async def test_deciding_about_a_parked_call_closes_its_incident(store: Store, verb: Callable[..., Any]) -> None:
    """Whatever was decided, somebody has looked."""
    async with circle(store) as c:
        entry = await _parked(c)
        async with store.begin() as connection:
            await verb(connection, entry["id"])
        assert await _incidents(c) == ()


async def test_a_pull_that_shows_a_parked_call_frees_what_waits_behind_it(store: Store) -> None:
    """The late request landed: nobody has to press a button."""
    async with circle(store) as c:
        await _parked(c)
        await _call(c, "unsubscribe", reason="asked")
        assert (await c.drain()).blocked == 2
        c.sandbox.land()
        await c.pull("relation_subscriptions")
        assert (await _entry(c, 0))["status"] == "verified"
        assert await _incidents(c) == ()
        assert (await c.drain()).delivered == 1
        history = await rows(store, "SELECT after FROM syncd.changes WHERE table_name = 'list_subscriptions'")
        assert {"after": {"status": "subscribed"}} in history


async def test_a_standing_from_before_decides_nothing(store: Store) -> None:
    """The relation was subscribed long ago; whether this call mailed them again cannot be told from that."""
    async with circle(store) as c:
        _bare(c)
        number = next(iter(c.sandbox.world.lists))
        c.sandbox.clock.advance(-40 * 86400)
        c.sandbox.world.subscribe(_who(c), number, skips_optin=True)
        c.sandbox.clock.advance(40 * 86400)
        c.sandbox.faults.add("late", operation="list_subscribe")
        await _call(c, "subscribe", skip_optin=False)
        assert (await c.drain()).parked == 1
        assert "since before this change" in (await _entry(c))["error"]
        await c.pull("relation_subscriptions", policy=NO_GRACE)
        assert (await _entry(c))["status"] == "parked"


# Reading back


async def _due(c: Circle) -> None:
    await run_sql(c.store, "UPDATE syncd.entries SET prove_at = now() WHERE prove_at IS NOT NULL")


@pytest.mark.parametrize(
    "name", ["add_tag", "remove_tag", "update_profile", "change_email", "subscribe", "create_field", "end_subscription"]
)
async def test_the_drainer_reads_back_what_the_dice_chose(store: Store, name: str) -> None:
    """Where no pull comes by, one call does."""
    async with circle(store) as c:
        case = CASES[name]
        _bare(c)
        if case.before is not None:
            await case.before(c)
        await case.edit(c)
        assert (await c.drain(read_back_share=1.0)).verified == 0, "not before the settle window is over"
        await _due(c)
        report = await c.drain(read_back_share=1.0)
        assert (report.verified, report.diverged) == (1, 0)
        found = await _entry(c)
        assert (found["status"], found["proved_run_id"], found["prove_at"]) == ("verified", None, None)


async def test_a_read_back_that_shows_another_value_is_an_incident_with_both(store: Store) -> None:
    """The same as by a pull."""
    async with circle(store) as c:
        _bare(c)
        await CASES["change_email"].edit(c)
        await c.drain(read_back_share=1.0, settle_window_s=0.0)
        CASES["change_email"].undo(c)
        await _due(c)
        assert (await c.drain(read_back_share=1.0, settle_window_s=0.0)).diverged == 1
        (incident,) = await _incidents(c)
        assert _values(incident) == CASES["change_email"].difference


async def test_a_daemon_reads_back_beside_its_deliveries(store: Store) -> None:
    """Nobody runs anything for it. One at a time: the second is asked for when the first is concluded."""
    async with circle(store) as c:
        _bare(c)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 301 FROM crm.relations LIMIT 2")
        await c.drain(read_back_share=1.0)
        await _due(c)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(c.drainer(read_back_share=1.0, read_back_batch=1).run(stop))
            await c.sandbox.until_requests("relation_tags", 2)
            stop.set()
        assert "verified" in [e["status"] for e in await c.entries()]


async def test_a_share_of_none_reads_nothing(store: Store) -> None:
    """Pulls still prove for free."""
    async with circle(store) as c:
        _bare(c)
        await CASES["add_tag"].edit(c)
        await c.drain(read_back_share=0.0)
        found = await _entry(c)
        assert (found["prove_at"], found["prove_until"] is not None) == (None, True)


async def test_two_drainers_never_read_back_the_same(store: Store) -> None:
    """Each takes what the other has not; what a dead one took is due again when its lease ends."""
    async with circle(store, relations=20) as c:
        _bare(c)
        await c.edit("INSERT INTO crm.relation_tags (relation_id, tag_id) SELECT id, 301 FROM crm.relations")
        await c.drain(read_back_share=1.0)
        await _due(c)

        async def taken() -> set[int]:
            async with store.begin() as connection:
                found, _ = await take(connection, c.account.id, most=8, lease_s=60)
                return {entry.id for entry in found}

        parts = await asyncio.gather(taken(), taken(), taken())
        assert sum(map(len, parts)) == len(set().union(*parts)) == 20
        assert await taken() == set()
        await _due(c)
        assert len(await taken()) == 8


async def test_a_read_back_that_fails_says_nothing_and_is_tried_later(store: Store) -> None:
    """Neither about the change nor about the account."""
    async with circle(store) as c:
        _bare(c)
        await CASES["add_tag"].edit(c)
        await c.drain(read_back_share=1.0)
        await _due(c)
        c.sandbox.faults.add("status", operation="relation_tags", status=503)
        await c.drain(read_back_share=1.0)
        later = await rows(
            store, "SELECT status, prove_at > now() + interval '5 minutes' AS is_later FROM syncd.entries"
        )
        assert later == [{"status": "accepted", "is_later": True}]
        assert c.sandbox.requests.by_operation["relation_tags"] == 1


async def test_a_group_is_never_read_for_one_relation(store: Store) -> None:
    """Its answer holds every member; the next pull of it proves them all."""
    async with circle(store) as c:
        await _accepted(c, CASES["join_group"])
        assert (await _entry(c))["prove_at"] is None


async def test_proof_that_does_not_come_is_not_awaited_for_ever(store: Store) -> None:
    """The index of the unproven must stay small."""
    async with circle(store) as c:
        await _tagged(c)
        await run_sql(store, "UPDATE syncd.entries SET prove_until = now() - interval '1 second'")
        await c.drain()
        found = await _entry(c)
        assert (found["status"], found["prove_until"]) == ("accepted", None)


async def test_a_second_subscription_in_doubt_is_not_taken_for_the_first(store: Store) -> None:
    """Both are wanted, each mails. What the CRM shows is the first one's, and so it stays a question for a person."""
    async with circle(store) as c:
        _bare(c)
        await _call(c, "subscribe", skip_optin=False)
        assert (await c.drain()).delivered == 1
        c.sandbox.faults.add("late", operation="list_subscribe")
        await _call(c, "subscribe", skip_optin=False)
        assert (await c.drain()).parked == 1
        assert "perhaps since before this change" in (await _entry(c))["error"]
        await c.pull("relation_subscriptions", policy=NO_GRACE)
        assert [e["status"] for e in await c.entries()] == ["verified", "parked"]


async def test_a_second_subscription_in_doubt_is_believed_when_its_event_is_plainly_younger(store: Store) -> None:
    """A person is asked only where the dates cannot tell."""
    async with circle(store) as c:
        _bare(c)
        await _call(c, "subscribe", skip_optin=False)
        assert (await c.drain()).delivered == 1
        await c.edit("UPDATE syncd.entries SET settled_at = settled_at - interval '2 days'")
        c.sandbox.faults.add("lost_answer", operation="list_subscribe")
        await _call(c, "subscribe", skip_optin=False)
        report = await c.drain()
        assert (report.delivered, report.parked) == (1, 0)
        assert (await _entry(c))["status"] == "verified"


async def test_a_subscription_by_another_hand_that_was_known_before_is_not_taken_for_ours(store: Store) -> None:
    """By a form on a page, an hour ago; the mirror has it."""
    async with circle(store) as c:
        _bare(c)
        c.sandbox.world.subscribe(_who(c), next(iter(c.sandbox.world.lists)), skips_optin=True)
        await c.pull("relation_subscriptions", policy=NO_GRACE)
        c.sandbox.faults.add("late", operation="list_subscribe")
        await _call(c, "subscribe", skip_optin=False)
        assert (await c.drain()).parked == 1


async def test_an_answer_that_lacks_a_standing_does_not_make_it_younger(store: Store) -> None:
    """That it was not shown for a while, or is shown again, says nothing about when it began."""
    async with circle(store) as c:
        _bare(c)
        c.sandbox.world.subscribe(_who(c), next(iter(c.sandbox.world.lists)), skips_optin=True)
        await c.pull("relation_subscriptions", policy=NO_GRACE)
        c.sandbox.faults.add("late", operation="list_subscribe")
        await _call(c, "subscribe", skip_optin=False)
        for kind in ("missing", "found"):
            await c.edit(
                "INSERT INTO syncd.changes (account_id, table_name, row_id, link_id, kind, origin) "
                "SELECT :account_id, 'list_subscriptions', relation_id, list_id, :kind, 'remote' "
                "FROM crm.list_subscriptions WHERE relation_id = :who",
                who=_who(c).id,
                kind=kind,
            )
        assert (await c.drain()).parked == 1


async def test_a_subscription_after_an_unsubscription_is_believed_as_shown(store: Store) -> None:
    """Nobody stood so before it: what is shown can be nothing else."""
    async with circle(store) as c:
        _bare(c)
        await _call(c, "unsubscribe", reason="asked")
        c.sandbox.faults.add("lost_answer", operation="list_subscribe")
        await _call(c, "subscribe", skip_optin=False)
        report = await c.drain()
        assert (report.delivered, report.parked) == (2, 0)


async def test_a_plan_file_does_not_take_the_second_subscription_for_the_first_either(store: Store) -> None:
    """Applying claims by another door, and must know as much."""
    async with circle(store) as c:
        _bare(c)
        await _call(c, "subscribe", skip_optin=False)
        assert (await c.drain()).delivered == 1
        await _call(c, "subscribe", skip_optin=False)
        await stage_all(store)
        await c.edit("UPDATE syncd.entries SET is_uncertain = true WHERE status = 'pending'")
        await applied(c, await filed(c))
        assert (await _entry(c))["status"] == "parked"
        assert c.sandbox.requests.by_operation["list_subscribe"] == 1
