"""Autorespond's provider against the simulator, which was written from the reference by other hands.

Whatever the unknowns of the API turn out to be (each is a switch), the mirror's records must be the world's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import aiohttp
import pytest

from syncd.domain.changes import (
    AddTag,
    ChangeEmail,
    CreateField,
    CreateRelation,
    EndSubscription,
    JoinGroup,
    LeaveGroup,
    RemoveTag,
    SetField,
    Subscribe,
    SubscribeWithConsent,
    Unsubscribe,
    UpdateProfile,
)
from syncd.providers.autorespond import provider
from syncd.providers.autorespond.conversations import GUARDED_OPERATIONS
from syncd.providers.contract import Delivered, Proof, ProviderOptions, Rejected, StreamArguments, Target
from syncd.sandbox import Sandbox, Switches, World
from tests.support.wire import Wire

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
EVERYTHING = StreamArguments(NOW, asked_from=NOW - timedelta(days=3650))
SWITCHES = [
    Switches(),
    Switches(envelope="named", dates="offset", amounts="comma", ids="string", paid="string", chunked=True),
    Switches(envelope="bare", dates="space", amounts="grouped", paid="bool", nulls=True, unknown_keys=True),
    Switches(envelope="text", dates="dutch", amounts="euro", unknown=200, error_shape="object", invalid=200),
    Switches(dates="epoch_ms", amounts="point", unknown=204, invalid=422, email_case="sensitive"),
    Switches(unknown=400, invalid=404),
]


@asynccontextmanager
async def connected(switches: Switches, **options: object) -> AsyncIterator[tuple[Sandbox, Wire]]:
    world = World.seeded(relations=30, orders=60, invoices=30, seed=3, now=NOW)
    async with Sandbox(world, switches) as sandbox, aiohttp.ClientSession() as session:
        crm = provider(ProviderOptions(allowed_operations=GUARDED_OPERATIONS, **options))  # type: ignore[arg-type]
        yield sandbox, Wire(session, sandbox.base_url, crm.auth({"admin": sandbox.admin, "key": sandbox.key}), crm)


@pytest.mark.parametrize("switches", SWITCHES)
async def test_what_is_pulled_is_what_the_world_holds(switches: Switches) -> None:
    async with connected(switches) as (sandbox, wire):
        world = sandbox.world
        orders = await wire.pull("orders", EVERYTHING)
        assert [warning for row in orders for warning in row.warnings] == []
        shown = {row.record.remote_id: row.record for row in orders}
        assert set(shown) == {str(number) for number in world.orders}
        for order in world.orders.values():
            record = shown[str(order.id)]
            assert record.is_paid is order.is_paid
            assert record.relation_remote_id == str(order.relation_id)
            assert abs(record.purchased_at - order.purchased_at) < timedelta(seconds=60)
            assert [line.subscription_ends_on for line in record.lines] == [line.ends_on for line in order.lines]
        invoices = {(row.record.number, row.record.is_credit): row for row in await wire.pull("invoices", EVERYTHING)}
        assert set(invoices) == set(world.invoices)
        assert all(not row.warnings and row.record.amount_incl is not None for row in invoices.values())
        for (number, is_credit), invoice in world.invoices.items():
            if not is_credit:
                [detail] = await wire.pull("invoice_details", StreamArguments(NOW, key=number))
                assert detail.record.relation_remote_id == str(invoice.relation_id)
                amounts = [line.amount for line in detail.record.lines]
                assert amounts == [Decimal(line.amount_cents) / 100 for line in invoice.lines]
                assert detail.record.amount_incl == invoices[number, False].record.amount_incl


@pytest.mark.parametrize("switches", SWITCHES)
async def test_relations_and_what_they_have_are_those_of_the_world(switches: Switches) -> None:
    async with connected(switches) as (sandbox, wire):
        world = sandbox.world
        tags = {row.record.remote_id: row.record.name for row in await wire.pull("tags", StreamArguments(NOW))}
        assert tags == {str(tag.id): tag.name for tag in world.tags.values()}
        fields = {row.record.code: row.record.is_writable for row in await wire.pull("fields", StreamArguments(NOW))}
        assert fields == {field.code: field.is_free for field in world.fields.values()}
        assert len(await wire.pull("lists", StreamArguments(NOW))) == len(world.lists)
        for group in world.groups.values():
            members = await wire.pull("group_members", StreamArguments(NOW, key=str(group.id)))
            assert [row.record.remote_id for row in members] == [str(number) for number in group.members]
        for relation in list(world.relations.values())[:8]:
            key = StreamArguments(NOW, key=str(relation.id))
            [detail] = await wire.pull("relation_details", key)
            assert detail.record.email == relation.email
            assert {row.record.name for row in await wire.pull("relation_tags", key)} == {
                world.tags[number].name for number in relation.tags
            }
            latest = {str(event.list_id): event.flag for event in sorted(relation.events, key=lambda it: it.at)}
            found = {
                it.record.list_remote_id: it.record.status[0] for it in await wire.pull("relation_subscriptions", key)
            }
            assert found == {number: flag.lower() for number, flag in latest.items()}
            owned = {row.record.remote_id for row in await wire.pull("relation_orders", key)}
            assert owned == {str(number) for number in world.orders_of[relation.id]}


async def deliver(wire: Wire, change, target: Target):
    return await wire.converse(wire.provider.converse(change, target))


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("switches", SWITCHES)
async def test_every_change_reaches_the_world(switches: Switches, verify: bool) -> None:
    """One relation through its whole life, under each guess about the API."""
    async with connected(switches, verify_writes=verify) as (sandbox, wire):
        world = sandbox.world
        email, moved = "New+1@Example.org", "moved@example.org"
        made = await deliver(wire, CreateRelation(email, {"first_name": "Jo", "last_name": "Vis"}), Target(None, email))
        assert isinstance(made, Delivered)
        assert made.proof is Proof.VERIFIED
        who = Target(made.remote_id, email)
        relation = lambda: world.relations[int(made.remote_id)]  # noqa: E731
        tag, group, list_ = (
            next(iter(world.tags.values())),
            next(iter(world.groups.values())),
            next(iter(world.lists.values())),
        )
        code = next(field.code for field in world.fields.values() if field.is_free)
        changes = [
            ChangeEmail(email, moved),
            UpdateProfile({"first_name": "Jo"}, {"first_name": "Jos", "gender": "M"}),
            AddTag(1, None, tag.name),
            SetField(1, code, None, "rood"),
            JoinGroup(1, None, group.title),
            Subscribe(1, str(list_.id), True),
            CreateField("shoe_size", "Shoe size", "list", ("40", "41")),
        ]
        for change in changes:
            outcome = await deliver(wire, change, Target(made.remote_id, moved))
            assert isinstance(outcome, Delivered), outcome
            assert outcome.proof is not Proof.DIVERGED, outcome
        assert (relation().email, relation().first_name, relation().gender) == (moved, "Jos", "M")
        assert (relation().tags, relation().fields[code]) == ({tag.id}, "rood")
        assert group.id in relation().groups
        assert relation().events[-1].flag == "S"
        assert any(field.name == "shoe_size" for field in world.fields.values())
        for change in (
            RemoveTag(1, str(tag.id), tag.name),
            LeaveGroup(1, str(group.id), group.title),
            Unsubscribe(1, str(list_.id), "asked to"),
            SubscribeWithConsent(1, str(list_.id), True, "privacy", True, "https://x.nl", "yes", True, "192.0.2.1"),
        ):
            assert isinstance(await deliver(wire, change, who), Delivered)
        assert (relation().tags, relation().events[-1].flag) == (set(), "S")


@pytest.mark.parametrize("switches", SWITCHES)
async def test_what_the_crm_refuses_is_rejected(switches: Switches) -> None:
    """Under each form that a refusal may have, and with nothing changed."""
    async with connected(switches) as (sandbox, wire):
        world = sandbox.world
        first, second = list(world.relations.values())[:2]
        before = len(sandbox.journal)
        for change, target in (
            (ChangeEmail(first.email, second.email), Target(str(first.id), second.email)),
            (AddTag(1, "99999", "gone"), Target(str(first.id), first.email)),
            (AddTag(1, "1", "x"), Target(None, "nobody@example.org")),
            (UpdateProfile({}, {"first_name": "A"}), Target("999999", "nobody@example.org")),
            (UpdateProfile({}, {"last_name": None}), Target(str(first.id), first.email)),
        ):
            outcome = await deliver(wire, change, target)
            assert isinstance(outcome, Rejected), (change, outcome)
            assert first.email not in outcome.reason
            assert second.email not in outcome.reason
        assert len(sandbox.journal) == before


async def test_a_subscription_is_ended_and_read_back() -> None:
    async with connected(Switches()) as (sandbox, wire):
        number, order = next(iter(sandbox.world.order_of_subscription.items()))
        relation = str(sandbox.world.orders[order].relation_id)
        change = EndSubscription(str(number), NOW.date() + timedelta(days=30))
        assert (await deliver(wire, change, Target(relation, None))).proof is Proof.ACCEPTED
        assert (await deliver(wire, change, Target(relation, None, is_repeat=True))).proof is Proof.VERIFIED


async def test_a_wrong_key_is_known_in_every_form() -> None:
    for status in (401, 403, 400, 200):
        async with connected(Switches(wrong_key=status)) as (_, wire):  # type: ignore[arg-type]
            wire._auth = wire.provider.auth({"admin": "1", "key": "wrong"})
            outcome = wire.provider.judge(await wire.send(wire.provider.probe()), "groups")
            assert type(outcome).__name__ == "Unauthorised", (status, outcome)
            liveness = wire.provider.liveness()
            assert liveness is not None
            assert (await wire.send(liveness)).status == 200


async def test_the_administration_is_pulled_without_its_access_code() -> None:
    async with connected(Switches(), administration="4711") as (sandbox, wire):
        [row] = await wire.pull("administration", StreamArguments(NOW))
        assert row.record.title == sandbox.world.administration.name
        assert sandbox.world.administration.access_code.encode() not in row.raw
