"""The simulator's writes change what the reference says they change, once, and its journal tells the truth about it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import pytest

from tests.support.crm import ANNA, PIET, Caller, crm


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with crm() as opened:
        yield opened


def kinds(caller: Caller) -> list[str]:
    return [effect.kind for effect in caller.sandbox.journal]


async def test_upsert_creates_then_updates_by_email(caller: Caller) -> None:
    """The address is the key: the same one never makes a second relation, whatever its case."""
    first = (await caller.post("relation", email="Nieuw@voorbeeld.example", firstName="Nora", gender="F")).payload
    second = (await caller.post("relation", email="nieuw@voorbeeld.example", lastName="de Wit")).payload
    assert first["id"] == second["id"]
    assert (second["firstName"], second["lastName"], second["gender"]) == ("Nora", "de Wit", "F")
    assert kinds(caller) == ["relation.created", "relation.changed"]
    assert caller.sandbox.journal[1].before == {"last_name": ""}


async def test_upsert_with_a_new_address_makes_a_second_relation(caller: Caller) -> None:
    """The trap that a change of address must avoid."""
    count = len(caller.sandbox.world.relations)
    await caller.post("relation", email="anders@voorbeeld.example", firstName="Anna")
    assert len(caller.sandbox.world.relations) == count + 1


async def test_a_password_is_never_kept(caller: Caller) -> None:
    """A simulator that logs passwords teaches the wrong habit."""
    await caller.post("relation", email="geheim@voorbeeld.example", password="s3cr3t-Canary")
    relation = caller.sandbox.world.relation("geheim@voorbeeld.example")
    assert relation
    assert relation.has_password
    assert "s3cr3t-Canary" not in repr([*caller.sandbox.journal, *caller.sandbox.requests, relation])


async def test_the_key_is_in_no_request_line(caller: Caller) -> None:
    """The request log is shown to people."""
    await caller.get("tags")
    assert caller.sandbox.key not in repr(list(caller.sandbox.requests))


async def test_email_change_moves_the_address_and_refuses_one_in_use(caller: Caller) -> None:
    """By id, and never onto somebody else."""
    world = caller.sandbox.world
    taken = world.relations[PIET].email
    assert (await caller.post(f"relation/{ANNA}/email", newemail=taken.upper())).status == 400
    assert (await caller.post(f"relation/{ANNA}/email", newemail="anna+1@voorbeeld.example")).payload is True
    found = world.relation("ANNA+1@voorbeeld.example")
    assert found
    assert found.id == ANNA
    assert kinds(caller) == ["relation.email_changed"]


@pytest.mark.parametrize(
    ("verb", "path", "kind"),
    [
        ("POST", f"relation/{ANNA}/addtag/306", "tag.added"),
        ("POST", "group/20104/member/{}", "group.joined"),
    ],
)
async def test_adding_twice_is_one_effect(caller: Caller, verb: str, path: str, kind: str) -> None:
    """Documented no-ops leave a request line and no effect: that is what makes them repeat-safe."""
    caller.sandbox.world.untag(caller.sandbox.world.relations[ANNA], 306)
    caller.sandbox.world.leave(caller.sandbox.world.relations[ANNA], 20104)
    for _ in range(2):
        assert (await caller.call(verb, path.format(ANNA))).payload is True
    assert kinds(caller).count(kind) == 1
    assert caller.sandbox.requests.total == 2


async def test_removing_twice_is_one_effect(caller: Caller) -> None:
    """The same for taking away."""
    anna = caller.sandbox.world.relations[ANNA]
    caller.sandbox.world.tag(anna, 306)
    caller.sandbox.world.join(anna, 20104)
    for _ in range(2):
        assert (await caller.post(f"relation/{ANNA}/removetag/306")).payload is True
        assert (await caller.call("DELETE", f"group/20104/member/{ANNA}")).payload is True
    assert (kinds(caller).count("tag.removed"), kinds(caller).count("group.left")) == (1, 1)
    assert ANNA not in caller.sandbox.world.groups[20104].members


async def test_tag_by_email_answers_ok(caller: Caller) -> None:
    """The one write with a text for an answer."""
    email = caller.sandbox.world.relations[ANNA].email
    assert (await caller.post("relation/addtag/306", email=email)).payload == "ok"
    assert 306 in caller.sandbox.world.relations[ANNA].tags


async def test_field_values_are_kept_but_no_read_shows_them(caller: Caller) -> None:
    """Free fields are one-way: what was set can only be seen in the world."""
    code = next(field.code for field in caller.sandbox.world.fields.values() if field.is_free)
    await caller.post(f"relation/{ANNA}/setfield", fieldCode=code, fieldValue="rogge & spelt")
    assert caller.sandbox.world.relations[ANNA].fields == {code: "rogge & spelt"}
    assert b"rogge" not in (await caller.get(f"relation/{ANNA}")).body


async def test_created_field_returns_an_id_and_is_found_by_name_with_another_code(caller: Caller) -> None:
    """The answer holds an id, setting wants the code: only a second read tells."""
    got = await caller.post("field", fieldName="maat", fieldLabel="Maat", fieldType="list", fieldOptions="S,M, L")
    rows = (await caller.get("fields")).payload
    row = next(each for each in rows if each["name"] == "maat")
    assert isinstance(got.payload, int)
    assert row["options"] == ["S", "M", "L"]
    assert row["code"].startswith(f"{caller.sandbox.admin}_FF")
    assert (await caller.post("field", fieldName="Maat", fieldLabel="x", fieldType="string")).status == 400


async def test_every_subscribe_mails_again(caller: Caller) -> None:
    """Not repeat-safe: a blind retry is a second mail to a person."""
    for _ in range(2):
        await caller.post("listmanagers/403/subscribe", relId=str(ANNA), skipOptin="Y")
    assert kinds(caller).count("mail.planned") == 2
    assert 20103 in caller.sandbox.world.relations[ANNA].groups


async def test_gdpr_subscribe_records_the_consent(caller: Caller) -> None:
    """Consent is evidence: every text of it must arrive."""
    consent = {
        "privacyText": "Wij gaan zorgvuldig om…",
        "privacyAgreement": "Y",
        "privacyUrl": "https://voorbeeld.example/privacy?a=b&c",
        "consentText": "Ja, ik wil",
        "consentAgreement": "N",
        "ip": "192.0.2.7",
    }
    got = await caller.post("listmanagers/401/gdpr_subscribe", relId=str(ANNA), **consent)
    assert got.payload is True
    assert caller.sandbox.journal.of("list.subscribed")[0].after == consent
    assert (await caller.post("listmanagers/401/gdpr_subscribe", relId=str(ANNA))).status == 400


async def test_every_unsubscribe_adds_a_note_and_drops_planned_mails(caller: Caller) -> None:
    """The second call is a second note with the person's file."""
    await caller.post("listmanagers/401/subscribe", relId=str(ANNA), skipOptin="Y")
    for _ in range(2):
        await caller.post("listmanagers/401/unsubscribe", relId=str(ANNA), reason="te veel mail")
    assert kinds(caller).count("contact.noted") == 2
    assert caller.sandbox.world.mails == []
    assert 20101 not in caller.sandbox.world.relations[ANNA].groups


async def test_ending_a_subscription_shows_in_its_order(caller: Caller) -> None:
    """The only trace of an end is the date on the line."""
    number, order = next(iter(caller.sandbox.world.order_of_subscription.items()))
    assert (await caller.post(f"orders/subscriptions/{number}/end", endDate="31-12-2031")).payload is True
    ends = {line.ends_on for line in caller.sandbox.world.orders[order].lines if line.subscription_id == number}
    assert ends == {date(2031, 12, 31)}


async def test_effects_name_the_request_that_caused_them(caller: Caller) -> None:
    """A test can follow an effect back to the wire."""
    await caller.get("tags")
    await caller.post(f"relation/{ANNA}/setfield", fieldCode="4711_FF0", fieldValue="x")
    await caller.post("relation", email="spoor@voorbeeld.example")
    assert [effect.request for effect in caller.sandbox.journal] == [3]
