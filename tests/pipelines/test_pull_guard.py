"""The guard of pulls: more than may be changed unasked waits for a person, who is obeyed once and no further."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from syncd.domain.reports import RunReport
from syncd.policy.rewrite import RewriteRule
from syncd.policy.states import RunHoldStatus
from syncd.policy.witness import WitnessRule
from syncd.providers.autorespond import provider
from syncd.providers.contract import ProviderOptions
from syncd.store import Store, run_holds
from tests.support.pulling import POLICY, Circle, circle

STRICT = replace(POLICY, rewrite=RewriteRule(rows=5, share=0.25))
HOLDS = "SELECT stream, kind, status, rewritten, missing, occurrences FROM syncd.run_holds ORDER BY id"
OPEN = "SELECT kind, subject FROM syncd.incidents WHERE closed_at IS NULL ORDER BY 1, 2"


async def _decide(it: Circle, status: RunHoldStatus, *, for_s: float = 3600, hold_id: int | None = None) -> None:
    async with it.store.begin() as connection:
        hold = (await run_holds.list_run_holds(connection, hold_id=hold_id))[0]
        await run_holds.decide(connection, hold.id, status, "jan", "asked the vendor", for_s=for_s)


def _flip(it: Circle, count: int) -> None:
    """Let the CRM say the contrary of what it said of so many orders."""
    for number, order in list(it.world.orders.items())[:count]:
        it.world.orders[number] = msgspec.structs.replace(order, is_paid=not order.is_paid)


async def _everything(it: Circle) -> RunReport:
    return await it.puller.pull("orders", reach_s=3650 * 86400.0)


async def test_a_window_that_rewrites_too_much_writes_nothing_and_asks(store: Store) -> None:
    """A CRM gone wrong answers well-formed nonsense: no value of the mirror may be lost to it, no time proven by it."""
    async with circle(store, policy=STRICT) as it:
        first = await _everything(it)
        assert (first.status, first.inserted) == ("succeeded", 30), "a first load rewrites nothing, however large"
        proven = "SELECT proven::text FROM syncd.coverage WHERE stream = 'orders'"
        paid = "SELECT remote_id, is_paid FROM crm.orders ORDER BY 1"
        before = await it.value(proven), await it.rows(paid)
        await it.advance(600)
        _flip(it, 10)
        for _ in range(2):
            held = await _everything(it)
            assert (held.status, held.is_passing, held.updated) == ("held", False, 0)
            assert "change 10 and mark missing 0 of 30" in (held.reason or "")
            assert "syncd runs approve orders" in (held.reason or "")
        assert (await it.value(proven), await it.rows(paid)) == before
        assert await it.rows(HOLDS) == [("orders", "rewrite", "open", 10, 0, 2)]
        assert await it.rows(OPEN) == [("unasked", "stream:orders")]
        assert await it.value("SELECT examples #>> '{0,columns,0}' FROM syncd.run_holds") == "is_paid"


async def test_a_few_changes_or_a_small_share_need_no_question(store: Store) -> None:
    """Whoever is asked every day says yes without looking."""
    async with circle(store, policy=STRICT) as it:
        await _everything(it)
        _flip(it, 5)
        assert (await _everything(it)).updated == 5
        assert await it.rows(HOLDS) == []


async def test_an_approval_is_for_what_was_shown_and_once(store: Store) -> None:
    """Yes to ten rows is no yes to eleven, nor to ten others tomorrow."""
    async with circle(store, policy=STRICT) as it:
        await _everything(it)
        _flip(it, 10)
        await _everything(it)
        await _decide(it, RunHoldStatus.APPROVED)
        assert await it.rows(OPEN) == []
        approved = await _everything(it)
        assert (approved.status, approved.updated) == ("succeeded", 10)
        assert await it.value("SELECT used_run_id FROM syncd.run_holds") == approved.run_id
        _flip(it, 10)
        assert (await _everything(it)).status == "held", "once"
        await _decide(it, RunHoldStatus.APPROVED)
        for number, order in list(it.world.orders.items())[10:11]:
            it.world.orders[number] = msgspec.structs.replace(order, is_paid=not order.is_paid)
        assert (await _everything(it)).status == "held", "eleven were never shown"
        statuses = [row[2:4] for row in await it.rows(HOLDS)]
        assert statuses == [("used", 10), ("lapsed", 10), ("open", 11)]
        verbs = "SELECT verb, actor, reason, run_hold_id FROM syncd.decisions ORDER BY id"
        assert [row[:3] for row in await it.rows(verbs)] == [("approve", "jan", "asked the vendor")] * 2


async def test_an_approval_expires(store: Store) -> None:
    """A yes of last week was said of last week's answer."""
    async with circle(store, policy=STRICT) as it:
        await _everything(it)
        _flip(it, 10)
        await _everything(it)
        await _decide(it, RunHoldStatus.APPROVED, for_s=-1)
        assert (await _everything(it)).status == "held"
        assert [row[2] for row in await it.rows(HOLDS)] == ["lapsed", "open"]


async def test_an_approval_of_a_run_that_fails_later_still_stands(store: Store) -> None:
    """It is used up by the transaction that writes, or not at all."""
    async with circle(store, policy=STRICT) as it:
        await _everything(it)
        _flip(it, 10)
        await _everything(it)
        await _decide(it, RunHoldStatus.APPROVED)
        await it.edit(
            "CREATE FUNCTION syncd.break() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$",
            "CREATE TRIGGER break BEFORE UPDATE ON syncd.runs FOR EACH ROW WHEN (new.status = 'succeeded') "
            "EXECUTE FUNCTION syncd.break()",
        )
        with pytest.raises(Exception, match="broken"):
            await _everything(it)
        await it.edit("DROP TRIGGER break ON syncd.runs")
        assert await it.value("SELECT status FROM syncd.run_holds") == "approved"
        assert (await _everything(it)).updated == 10


async def test_a_rejected_pull_stays_held_and_heals_with_the_answers(store: Store) -> None:
    """No means no until the CRM is well again, and then nobody need say anything."""
    async with circle(store, policy=STRICT) as it:
        await _everything(it)
        _flip(it, 10)
        await _everything(it)
        await _decide(it, RunHoldStatus.REJECTED)
        held = await _everything(it)
        assert (held.status, "was rejected" in (held.reason or "")) == ("held", True)
        _flip(it, 10)
        assert (await _everything(it)).is_success
        assert [row[2] for row in await it.rows(HOLDS)] == ["lapsed"]
        assert await it.rows(OPEN) == []


async def test_filling_what_was_empty_is_no_rewrite(store: Store) -> None:
    """Buyers that orders named alone get their names all at once; nothing known is lost by it."""
    async with circle(store, policy=STRICT) as it:
        await it.pull("orders")
        report = await it.pull("relation_details")
        assert (report.status, report.updated > 5) == ("succeeded", True)


async def test_a_snapshot_of_other_names_asks(store: Store) -> None:
    """A list endpoint that answers another account's tags would rename all of ours."""
    policy = replace(POLICY, rewrite=RewriteRule(rows=2, share=0.25))
    async with circle(store, policy=policy) as it:
        await it.pull("tags")
        names = await it.rows("SELECT name FROM crm.tags ORDER BY id")
        for number, tag in list(it.world.tags.items()):
            it.world.tags[number] = msgspec.structs.replace(tag, name=f"other {number}")
        assert (await it.pull("tags")).status == "held"
        assert await it.rows("SELECT name FROM crm.tags ORDER BY id") == names
        await _decide(it, RunHoldStatus.APPROVED)
        assert (await it.pull("tags")).updated == len(names)


async def test_a_sweep_shows_the_whole_of_what_it_would_do(store: Store) -> None:
    """It is written part by part; the question must be about all parts, or each yes would bring the next question."""
    policy = replace(STRICT, sweep_batch=2)
    async with circle(store, relations=16, orders=40, policy=policy) as it:
        await it.pull("orders", "relation_details")
        for number, relation in list(it.world.relations.items()):
            it.world.relations[number] = msgspec.structs.replace(relation, last_name=f"Other {number}")
        known = await it.value("SELECT count(*) FROM crm.relations")
        held = await it.pull("relation_details")
        assert (held.status, held.updated) == ("held", 4), "two parts are within what is always allowed"
        assert f"change {known} and mark missing 0 of {known}" in (held.reason or "")
        await _decide(it, RunHoldStatus.APPROVED)
        done = await it.pull("relation_details")
        assert (done.status, done.updated) == ("succeeded", known - 4)


async def test_tags_that_vanish_from_everybody_ask(store: Store) -> None:
    """Each relation by itself looks like an ordinary removal."""
    async with circle(store, relations=40, policy=STRICT) as it:
        await it.pull("tags", "groups", "group_members", "relation_tags")
        links = await it.value("SELECT count(*) FROM crm.relation_tags")
        keeps = next(relation for relation in it.world.relations.values() if relation.tags)
        for relation in it.world.relations.values():
            for tag in list(relation.tags) if relation is not keeps else ():
                it.world.untag(relation, tag)
        held = await it.pull("relation_tags")
        assert held.status == "held"
        marked = await it.value("SELECT count(*) FROM crm.relation_tags WHERE missing_since IS NOT NULL")
        assert marked <= 5
        await _decide(it, RunHoldStatus.APPROVED)
        assert (await it.pull("relation_tags")).is_success
        left = await it.value("SELECT count(*) FROM crm.relation_tags WHERE missing_since IS NULL")
        assert (left, links > 10) == (len(keeps.tags), True)


@pytest.mark.parametrize("stream", ["orders", "invoices", "tags", "groups", "fields", "lists"])
async def test_a_collection_that_answers_empty_is_an_incident_until_it_is_well(store: Store, stream: str) -> None:
    """An account that suddenly answers empty is an incident, not a deletion."""
    policy = replace(POLICY, window_witness=WitnessRule(few=0, max_gone_share=0))
    async with circle(store, policy=policy) as it:
        await it.puller.pull(stream, reach_s=3650 * 86400.0)
        if stream == "invoices":
            await it.puller.pull(stream, reach_s=3650 * 86400.0)
        rows = await it.value(f"SELECT count(*) FROM crm.{stream} WHERE missing_since IS NULL")
        it.box.faults.add("empty_list", operation=stream, times=2)
        for _ in range(2):
            refused = await it.puller.pull(stream, reach_s=3650 * 86400.0)
            assert (refused.status, refused.missing) == ("refused", 0)
            await it.advance(3601)
        assert await it.rows(OPEN) == [("emptied", f"stream:{stream}")]
        assert await it.value(f"SELECT count(*) FROM crm.{stream} WHERE missing_since IS NULL") == rows
        assert (await it.puller.pull(stream, reach_s=3650 * 86400.0)).is_success
        assert await it.rows(OPEN) == []


@pytest.mark.parametrize("stream", ["orders", "tags"])
async def test_a_collection_that_is_truly_empty_is_believed_when_a_person_says_so(store: Store, stream: str) -> None:
    """Somebody may have cleaned up; without a way to say so the stream would be refused for ever."""
    async with circle(store) as it:
        await it.puller.pull(stream, reach_s=3650 * 86400.0)
        getattr(it.world, stream).clear()
        assert (await it.puller.pull(stream, reach_s=3650 * 86400.0)).status == "refused"
        await _decide(it, RunHoldStatus.APPROVED)
        done = await it.puller.pull(stream, reach_s=3650 * 86400.0)
        known = await it.value(f"SELECT count(*) FROM crm.{stream} WHERE missing_since IS NOT NULL")
        assert (done.status, done.missing, known > 3) == ("succeeded", known, True)
        assert (await it.puller.pull(stream, reach_s=3650 * 86400.0)).is_success, "and nothing is lacking any more"


@pytest.mark.parametrize("stream", ["group_members", "relation_tags", "relation_orders", "relation_subscriptions"])
async def test_a_sweep_in_which_nobody_holds_anything_is_an_incident(store: Store, stream: str) -> None:
    """A call that has gone wrong says "nothing" of each, and each by itself looks ordinary."""
    async with circle(store, relations=30, orders=60) as it:
        await it.pull("tags", "lists", "groups", "group_members", "orders")
        await it.pull("relation_tags", "relation_subscriptions")
        table = {"relation_subscriptions": "list_subscriptions", "relation_orders": "orders"}.get(stream, stream)
        held = await it.value(f"SELECT count(*) FROM crm.{table} WHERE missing_since IS NULL")
        assert held > 3
        operation = provider(ProviderOptions()).streams[stream].operation
        it.box.faults.add("empty_list", operation=operation, times=0)
        for _ in range(2):
            report = await it.pull(stream)
            assert (report.status, report.missing) == ("failed", 0)
            assert "not believed" in (report.reason or "")
            await it.advance(3601)
        assert await it.rows(OPEN) == [("emptied", f"stream:{stream}")]
        assert await it.value(f"SELECT count(*) FROM crm.{table} WHERE missing_since IS NULL") == held
        it.box.faults.clear()
        assert (await it.pull(stream)).is_success
        assert await it.rows(OPEN) == []


async def test_a_crm_that_knows_nobody_is_an_incident_nobody_can_approve(store: Store) -> None:
    """'Not found' of everyone, even of one who must be there, is no deletion that anybody could mean."""
    async with circle(store) as it:
        await it.pull("orders")
        it.box.faults.add("status", status=404, operation="relation_by_id", times=0)
        assert (await it.pull("relation_details")).status == "failed"
        assert await it.rows(OPEN) == [("emptied", "stream:relation_details")]
        assert await it.rows(HOLDS) == []


async def test_a_group_that_was_truly_emptied_is_believed_when_a_person_says_so(store: Store) -> None:
    """Without a way to say so a group that was cleaned up would be refused for ever."""
    async with circle(store, relations=60) as it:
        await it.pull("groups", "group_members")
        group = next(iter(it.world.groups))
        members = [relation for relation in it.world.relations.values() if group in relation.groups]
        for relation in members:
            it.world.leave(relation, group)
        assert (await it.pull("group_members")).status == "failed"
        await _decide(it, RunHoldStatus.APPROVED)
        assert (await it.pull("group_members")).is_success
        gone = "SELECT count(*) FROM crm.group_members WHERE missing_since IS NOT NULL"
        assert (await it.value(gone), len(members) > 3) == (len(members), True)


async def test_an_account_that_finds_nothing_any_more_is_paused_until_it_does(store: Store) -> None:
    """404 of whole collections means another address, not that all is deleted; asking on helps nobody."""
    async with circle(store) as it:
        await it.puller.pull_all()
        it.box.faults.add("status", status=404, times=0)
        reports = await it.puller.pull_all()
        assert [(report.status, report.is_fault) for report in reports] == [("failed", True)]
        reason = await it.value("SELECT pause_reason FROM syncd.account_states")
        assert "check SYNCD_BASE_URL" in reason
        asked = len(list(it.box.requests))
        assert (await it.pull("orders")).run_id is None
        assert len(list(it.box.requests)) == asked
        await _probe_is_due(it)
        assert (await it.pull("orders")).run_id is None, "the canary finds nothing either"
        assert await it.value("SELECT paused_at IS NOT NULL FROM syncd.account_states")
        it.box.faults.clear()
        await _probe_is_due(it)
        assert (await it.pull("orders")).is_success
        assert await it.value("SELECT paused_at IS NULL FROM syncd.account_states")
        for table in ("orders", "tags", "groups", "relations", "invoices"):
            assert await it.value(f"SELECT count(*) FROM crm.{table} WHERE missing_since IS NOT NULL") == 0


async def test_one_collection_that_is_not_found_is_its_own_trouble(store: Store) -> None:
    """An account without that feature must not stop for it."""
    async with circle(store) as it:
        it.box.faults.add("status", status=404, operation="lists", times=0)
        report = await it.pull("lists")
        assert (report.status, report.is_fault) == ("failed", False)
        assert await it.rows("SELECT 1 FROM syncd.account_states WHERE paused_at IS NOT NULL") == []


async def test_a_host_that_has_vanished_pauses_the_account_until_it_answers(store: Store) -> None:
    """A name that resolves no more: the third pull in a row says so, with what to look at."""
    async with circle(store, policy=replace(POLICY, away_s=0)) as it:
        await it.pull("tags")
        await it.box.__aexit__(None, None, None)
        for _ in range(2):
            assert (await it.pull("tags")).is_fault
        assert await it.rows("SELECT 1 FROM syncd.account_states WHERE paused_at IS NOT NULL") == []
        assert (await it.pull("tags")).is_fault
        reason = await it.value("SELECT pause_reason FROM syncd.account_states")
        assert "out of reach" in reason
        assert "check SYNCD_BASE_URL" in reason
        assert (await it.pull("tags")).run_id is None
        assert await it.value("SELECT count(*) FROM crm.tags WHERE missing_since IS NOT NULL") == 0
        await it.box.__aenter__()
        await _probe_is_due(it)
        assert (await it.pull("tags")).is_success


async def test_a_short_absence_of_the_host_pauses_nothing(store: Store) -> None:
    """Hosts restart; the next round is soon enough."""
    async with circle(store) as it:
        await it.box.__aexit__(None, None, None)
        for _ in range(4):
            await it.pull("tags")
        assert await it.rows("SELECT 1 FROM syncd.account_states WHERE paused_at IS NOT NULL") == []
        await it.box.__aenter__()


async def test_refused_credentials_pause_with_what_to_do_and_heal(store: Store) -> None:
    """Persistent 401: no pull hammers a door with a wrong key, and none needs a hand when it is right again."""
    async with circle(store) as it:
        it.box.faults.add("status", status=401, times=0)
        assert (await it.pull("tags")).is_fault
        assert "check the account's credentials" in await it.value("SELECT pause_reason FROM syncd.account_states")
        await _probe_is_due(it)
        assert (await it.pull("tags")).run_id is None
        it.box.faults.clear()
        await _probe_is_due(it)
        assert (await it.pull("tags")).is_success


@pytest.mark.parametrize("stream", ["orders", "invoices", "tags", "groups", "relation_tags", "group_members"])
async def test_a_new_envelope_is_an_incident_until_the_old_one_is_back(store: Store, stream: str) -> None:
    """No waiting mends another form: whoever keeps syncd must hear of it, once, with the stream and what is odd."""
    async with circle(store) as it:
        await it.puller.pull_all()
        operation = provider(ProviderOptions()).streams[stream].operation
        it.box.faults.add("missing", operation=operation, times=0)
        for _ in range(2):
            assert (await it.pull(stream)).status in ("refused", "failed")
        seen = "SELECT kind, subject, occurrences FROM syncd.incidents WHERE closed_at IS NULL"
        assert await it.rows(seen) == [("shape", f"stream:{stream}", 2)]
        assert "holds no list under" in await it.value("SELECT summary FROM syncd.incidents")
        it.box.faults.clear()
        assert (await it.pull(stream)).is_success
        assert await it.rows(OPEN) == []


async def test_an_answer_cut_off_is_no_change_of_shape(store: Store) -> None:
    """A broken line heals by itself; an incident for each would hide the one that matters."""
    async with circle(store) as it:
        it.box.faults.add("malformed", operation="orders")
        assert (await it.pull("orders")).status == "refused"
        assert await it.rows(OPEN) == []


async def _probe_is_due(it: Circle) -> None:
    await it.edit("UPDATE syncd.account_states SET next_probe_at = now(), updated_at = now()")
