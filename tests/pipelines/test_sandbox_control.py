"""A running simulator can be looked at, moved and broken over HTTP, as somebody trying an integration does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.crm import ANNA, PIET, Caller, crm


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with crm() as opened:
        yield opened


async def test_state_and_logs_tell_no_secret(caller: Caller) -> None:
    """Whoever looks on sees what happened, not the key."""
    await caller.post("relation", email="nieuw@x.example", password="Canary-123")
    for name in ("state", "journal", "requests", "relations", "faults", "switches"):
        got = await caller.control("GET", name)
        assert got.status == 200
        assert caller.sandbox.key.encode() not in got.body
        assert b"Canary-123" not in got.body
    assert (await caller.control("GET", "state")).json["requests_by_operation"] == {"relation_upsert": 1}


async def test_journal_and_requests_are_read_from_a_number_on(caller: Caller) -> None:
    """A watcher asks for what is new."""
    await caller.post(f"relation/{ANNA}/removetag/301")
    await caller.post("relation", email="a@x.example")
    await caller.post("relation", email="b@x.example")
    journal = (await caller.control("GET", "journal?since=0")).json
    later = (await caller.control("GET", f"journal?since={journal[-2]['seq']}")).json
    assert [effect["subject"] for effect in later] == [journal[-1]["subject"]]
    requests = (await caller.control("GET", "requests?since=2")).json
    assert [(line["seq"], line["operation"], line["status"]) for line in requests] == [(3, "relation_upsert", 200)]


async def test_faults_are_set_and_lifted_at_run_time(caller: Caller) -> None:
    """One by number, or all."""
    numbers = [
        (await caller.control("POST", "faults", {"kind": "lost_answer", "operation": "tags", "times": 0})).json[
            "number"
        ]
        for _ in range(2)
    ]
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await caller.get("tags")
    await caller.control("DELETE", f"faults?number={numbers[0]}")
    assert [rule["number"] for rule in (await caller.control("GET", "faults")).json] == [numbers[1]]
    await caller.control("DELETE", "faults")
    assert (await caller.get("tags")).status == 200


async def test_clock_and_switches_are_moved_at_run_time(caller: Caller) -> None:
    """Time forward, to an instant, and other answers from now on."""
    assert (await caller.control("POST", "clock", {"advance_s": 3600})).json == {"now": "2025-03-01T13:00:00Z"}
    moved = await caller.control("POST", "clock", {"set": "2025-04-01T00:00:00+02:00"})
    assert moved.json == {"now": "2025-03-31T22:00:00Z"}
    assert (await caller.control("POST", "switches", {"paid": "bool", "wrong_key": 403})).json["paid"] == "bool"
    assert (await caller.get("orders", hours="99999")).payload[0]["paid"] in (True, False)


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        ({"edit": "pay_order", "order": 500001, "is_paid": False}, "order.changed"),
        ({"edit": "add_order", "relation": ANNA}, "order.placed"),
        ({"edit": "delete_order", "order": 500001}, "order.deleted"),
        ({"edit": "add_relation", "email": "scherm@x.example"}, "relation.created"),
        ({"edit": "change_relation", "relation": ANNA, "first_name": "Ans"}, "relation.changed"),
        ({"edit": "change_relation", "relation": ANNA, "email": "ans@x.example"}, "relation.email_changed"),
        ({"edit": "delete_relation", "relation": PIET}, "relation.deleted"),
        ({"edit": "add_tag", "name": "vip"}, "tag.created"),
        ({"edit": "rename_tag", "tag": 301, "name": "brief"}, "tag.renamed"),
        ({"edit": "tag_relation", "relation": ANNA, "tag": 305}, "tag.added"),
        ({"edit": "move_member", "relation": ANNA, "group": 20105}, "group.joined"),
    ],
)
async def test_the_world_is_edited_as_in_the_crms_own_screens(caller: Caller, edit: dict[str, Any], kind: str) -> None:
    """What changes over there without a word to us."""
    caller.sandbox.world.relations[ANNA].tags.discard(305)
    caller.sandbox.world.leave(caller.sandbox.world.relations[ANNA], 20105)
    got = await caller.control("POST", "edit", edit)
    assert got.status == 200, got.body
    assert caller.sandbox.journal[-1].kind == kind
    assert caller.sandbox.journal[-1].request == 0


async def test_a_deleted_relation_is_gone_and_its_orders_stay(caller: Caller) -> None:
    """Documents outlive people."""
    await caller.control("POST", "edit", {"edit": "delete_relation", "relation": ANNA})
    orders = (await caller.get("orders", hours="99999")).payload
    assert (await caller.get(f"relation/{ANNA}")).status == 404
    assert len(orders) == 60
    assert all(row["relationEmail"] is None for row in orders if row["relationId"] == ANNA)


async def test_one_relation_is_shown_with_what_no_read_shows(caller: Caller) -> None:
    """Field values above all."""
    code = next(field.code for field in caller.sandbox.world.fields.values() if field.is_free)
    await caller.control("POST", "edit", {"edit": "set_field", "relation": ANNA, "code": code, "value": "ja"})
    shown = (await caller.control("GET", f"relation?id={ANNA}")).json
    by_email = (await caller.control("GET", f"relation?email={shown['email']}")).json
    assert shown == by_email
    assert shown["fields"] == {code: "ja"}


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "nothing", None, 404),
        ("POST", "faults", {"kind": "explode"}, 400),
        ("POST", "switches", {"payed": "bool"}, 400),
        ("POST", "clock", {"set": "2025-04-01T00:00:00"}, 400),
        ("POST", "edit", {"edit": "explode"}, 400),
        ("POST", "edit", {"edit": "pay_order", "order": 1}, 404),
        ("POST", "edit", {"edit": "add_order", "relation": ANNA, "at": "2025-01-01T00:00:00"}, 400),
        ("POST", "edit", None, 400),
        ("GET", "relation?email=niemand", None, 404),
        ("GET", "journal?since=x", None, 400),
    ],
)
async def test_what_cannot_be_done_is_said(caller: Caller, verb: str, path: str, body: object, status: int) -> None:
    """A typing error at the control endpoint must not look like a success."""
    got = await caller.control(verb, path, body)
    assert got.status == status
    assert got.json["error"]
