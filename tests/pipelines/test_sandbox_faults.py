"""Each fault does to the state and to the wire what it says, and to nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from syncd.domain.errors import UserError
from syncd.sandbox import Fault, Faults, Kind
from tests.support.crm import ANNA, Caller, crm

ADD = f"relation/{ANNA}/addtag/306"


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with crm() as opened:
        opened.sandbox.world.relations[ANNA].tags.clear()
        yield opened


def is_applied(caller: Caller) -> bool:
    return 306 in caller.sandbox.world.relations[ANNA].tags


@pytest.mark.parametrize(
    ("kind", "error", "applied"),
    [
        ("lost_answer", aiohttp.ServerDisconnectedError, True),
        ("lost_reset", aiohttp.ClientOSError, True),
        ("reset", aiohttp.ClientOSError, False),
        ("late", aiohttp.ServerDisconnectedError, False),
    ],
)
async def test_unanswered_requests(caller: Caller, kind: str, error: type[Exception], applied: bool) -> None:
    """The client sees nearly the same in all four; only the state tells them apart."""
    caller.sandbox.faults.add(kind, operation="tag_add")
    with pytest.raises(error):
        await caller.post(ADD)
    assert is_applied(caller) is applied
    assert caller.sandbox.requests.of("tag_add")[0].fate == kind
    assert (await caller.post(ADD)).status == 200


async def test_a_reset_is_a_reset_on_the_wire(caller: Caller) -> None:
    """RST and FIN are different news to a client."""
    caller.sandbox.faults.add("reset")
    reader, writer = await asyncio.open_connection(caller.sandbox.host, caller.sandbox.port)
    writer.write(b"GET /api/1.0/version HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_late_request_lands_after_a_newer_one(caller: Caller) -> None:
    """The reason to assert a last value again once the settle window has passed."""
    code = next(field.code for field in caller.sandbox.world.fields.values() if field.is_free)
    caller.sandbox.faults.add("late", operation="field_set")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await caller.post(f"relation/{ANNA}/setfield", fieldCode=code, fieldValue="oud")
    await caller.post(f"relation/{ANNA}/setfield", fieldCode=code, fieldValue="nieuw")
    assert caller.sandbox.land() == 1
    assert caller.sandbox.world.relations[ANNA].fields[code] == "oud"
    assert [effect.request for effect in caller.sandbox.journal] == [2, 1]


async def test_a_late_request_may_land_by_itself(caller: Caller) -> None:
    """With a delay nobody has to call ``land``."""
    caller.sandbox.faults.add("late", delay_s=0.01)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await caller.post(ADD)
    await caller.sandbox.journal.until(lambda journal: len(journal) == 1)
    assert is_applied(caller)
    assert caller.sandbox.late == 0


async def test_a_late_request_may_land_after_so_many_others(caller: Caller) -> None:
    """Neither a clock nor a test has to say when: later than what was asked meanwhile, and before what comes then."""
    caller.sandbox.faults.add("late", operation="tag_add", after=2)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await caller.post(ADD)
    applied = []
    for _ in range(3):
        await caller.get("tags")
        applied.append(is_applied(caller))
    assert applied == [False, True, True]
    assert caller.sandbox.late == 0


async def test_a_request_may_be_applied_twice(caller: Caller) -> None:
    """A gateway that repeats what it thinks was lost: harmless to a tag, two mails to a subscriber."""
    caller.sandbox.faults.add("twice", times=2)
    assert (await caller.post(ADD)).payload is True
    assert len(caller.sandbox.journal) == 1
    assert (await caller.post("listmanagers/401/subscribe", relId=str(ANNA))).payload is True
    subscribed = caller.sandbox.journal.of("list.subscribed")
    assert [effect.request for effect in subscribed] == [2, 2]


@pytest.mark.parametrize(
    ("fault", "status", "applied"),
    [
        (Fault(kind=Kind.STATUS), 503, False),
        (Fault(kind=Kind.STATUS, status=500, applied=True), 500, True),
        (Fault(kind=Kind.HTML), 502, False),
        (Fault(kind=Kind.HTML, status=200), 200, False),
        (Fault(kind=Kind.HTML, applied=True), 502, True),
        (Fault(kind=Kind.ERROR), 200, False),
        (Fault(kind=Kind.FALSE), 200, False),
        (Fault(kind=Kind.YES), 200, False),
        (Fault(kind=Kind.EMPTY_BODY), 200, True),
        (Fault(kind=Kind.MALFORMED), 200, True),
        (Fault(kind=Kind.NULL), 200, True),
        (Fault(kind=Kind.DELAY, delay_s=0.01), 200, True),
        (Fault(kind=Kind.DRIP, size=1), 200, True),
    ],
)
async def test_answered_faults(caller: Caller, fault: Fault, status: int, applied: bool) -> None:
    """Whether it was applied and what was answered are two things."""
    caller.sandbox.faults.add(fault)
    got = await caller.post(ADD)
    assert (got.status, is_applied(caller)) == (status, applied)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("error", b'{"error":"simulated fault"}'),
        ("false", b'{"data":false}'),
        ("yes", b'{"data":true}'),
        ("empty_body", b""),
        ("malformed", b'{"data":tru<!'),
        ("null", b'{"data":null}'),
        ("missing", b'{"took":3}'),
        ("drip", b'{"data":true}'),
    ],
)
async def test_bodies_of_faults(caller: Caller, kind: str, body: bytes) -> None:
    """What a decoder has to make sense of, or refuse to."""
    caller.sandbox.faults.add(kind)
    assert (await caller.post(ADD)).body == body


async def test_html_is_html_by_its_type(caller: Caller) -> None:
    """A gateway's page under 200 is the nastiest."""
    caller.sandbox.faults.add("html", status=200)
    got = await caller.get("tags")
    assert got.headers["Content-Type"].startswith("text/html")
    assert got.body.startswith(b"<html>")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_truncated_body_ends_before_its_length(chunked: bool) -> None:
    """With a length and without one: the client must notice either."""
    async with crm(chunked=chunked) as caller:
        caller.sandbox.faults.add("truncated", share=0.3)
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.get("orders", hours="99999")


async def test_rows_can_go_missing_or_come_twice(caller: Caller) -> None:
    """Valid JSON, 200, and wrong all the same."""
    whole = (await caller.get("orders", hours="99999")).payload
    caller.sandbox.faults.add("empty_list")
    assert (await caller.get("orders", hours="99999")).payload == []
    caller.sandbox.faults.add("dropped_rows", share=0.25)
    fewer = (await caller.get("orders", hours="99999")).payload
    assert len(fewer) == 45
    assert all(row in whole for row in fewer)
    caller.sandbox.faults.add("duplicate_rows")
    assert len((await caller.get("orders", hours="99999")).payload) == 120


async def test_a_held_request_waits_and_a_held_answer_was_applied(caller: Caller) -> None:
    """Races are made by holding, not by sleeping."""
    caller.sandbox.faults.add("hold", operation="tag_add")
    asked = asyncio.create_task(caller.post(ADD))
    await caller.sandbox.until_held()
    assert not is_applied(caller)
    assert caller.sandbox.release() == 1
    assert (await asked).status == 200

    caller.sandbox.faults.add("hold_answer", operation="tag_remove")
    asked = asyncio.create_task(caller.post(f"relation/{ANNA}/removetag/306"))
    await caller.sandbox.until_held()
    assert not is_applied(caller)
    assert not asked.done()
    caller.sandbox.release()
    assert (await asked).payload is True


@pytest.mark.parametrize(("spelling", "header"), [("seconds", "7"), ("date", "Sat, 01 Mar 2025 12:00:07 GMT")])
async def test_retry_after_of_a_fault(spelling: str, header: str) -> None:
    """Seconds or a date, both are allowed by HTTP."""
    async with crm(retry_after=spelling) as caller:
        caller.sandbox.faults.add("status", status=429, retry_after_s=7)
        got = await caller.get("tags")
        assert (got.status, got.headers["Retry-After"]) == (429, header)


async def test_a_rule_strikes_its_operation_nth_and_times_only(caller: Caller) -> None:
    """Faults must be aimed, or a test proves nothing about the one it meant."""
    caller.sandbox.faults.add("status", operation="tag_*", nth=2, times=2, verb="POST", path="addtag")
    statuses = [(await caller.post(ADD)).status for _ in range(4)]
    assert statuses == [200, 503, 503, 200]
    assert (await caller.get("tags")).status == 200
    assert caller.sandbox.faults.is_spent


def test_chance_is_by_seed() -> None:
    """A soak that fails must fail again."""

    def struck(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add("reset", probability=0.3, times=0)
        return [faults.take("tag_add", "POST", "/") is not None for _ in range(200)]

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


def test_faults_are_read_from_a_command_line() -> None:
    """Text in, a checked rule out."""
    got = Fault.parse("status:operation=tag_add,status=429,retry_after_s=2,times=3,applied=true")
    assert (got.kind, got.operation, got.status, got.retry_after_s, got.times, got.applied) == (
        Kind.STATUS,
        "tag_add",
        429,
        2,
        3,
        True,
    )


@pytest.mark.parametrize("text", ["explode", "status:time=2", "status:times", "status:path=(", "status:times=x"])
def test_a_fault_that_does_not_exist_is_refused(text: str) -> None:
    """A fault that can never strike makes a test pass for nothing."""
    with pytest.raises(UserError):
        Fault.parse(text)


async def test_an_operation_that_does_not_exist_is_refused(caller: Caller) -> None:
    """The same for a misspelled operation."""
    with pytest.raises(UserError):
        caller.sandbox.faults.add("status", operation="tag_ad")
