"""Every stream on a bad day: whatever is wrong with an answer, it counts for nothing, is told, and the next run heals.

The streams are those that the provider declares; what can go wrong is a table. A stream that is added is tried by being
declared, once it has ``tests.support.news``.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from syncd.cli.ending import FAILED, TRY_LATER
from syncd.cli.runs import exit_code
from syncd.domain.reports import RunReport
from syncd.inbound import Puller, PullPolicy
from syncd.ops.metrics import Metrics
from syncd.ops.reporter import Reporter
from syncd.providers.autorespond import provider
from syncd.providers.contract import ProviderOptions, StreamKind
from syncd.sandbox import Switches
from syncd.sandbox.records import Event
from syncd.store import Store
from tests.support.logs import captured_logs
from tests.support.mirrored import lines
from tests.support.news import BREAD, NEWS, declared, world
from tests.support.proving import Say, is_long, pick, seed
from tests.support.pulling import NOON, POLICY, Circle, circle

STREAMS = {stream.name: stream for stream in declared()}
BY_ROW = [name for name, stream in STREAMS.items() if stream.kind in (StreamKind.SWEEP, StreamKind.FOLLOW_UP)]
BY_NAME = frozenset({"relation_details", "invoice_relations"})
FILES = frozenset({"invoice_files"})
ONE_ROW = FILES | {"administration", "relation_details", "invoice_details", "invoice_relations"}


@dataclass(frozen=True, slots=True)
class Bad:
    """One way in which an answer is bad. ``lists``: it takes a list to be bad so. ``limits`` are those of the pull."""

    name: str
    fault: dict[str, Any]
    lists: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    # Whether one answer can be bad so while the others of the pull are good.
    may_be_one: bool = True
    # The streams in which it is bad; none: in all.
    only: frozenset[str] = frozenset()
    # Streams in which nobody can tell: each row's own short list has no witness, and may be shorter today.
    unseen: frozenset[str] = frozenset()
    # Streams in which it is a final answer, about that row alone.
    final: frozenset[str] = frozenset()

    def suits(self, stream: str) -> bool:
        is_meant = not self.only or stream in self.only
        return is_meant and not (self.lists and stream in ONE_ROW) and stream not in self.final


SHORT_LISTS = frozenset({"group_members", "relation_tags", "relation_subscriptions", "relation_orders"})
BAD = (
    Bad("empty", {"kind": "empty_list"}, lists=True, unseen=frozenset({"group_members"})),  # some groups are empty
    Bad("capped", {"kind": "dropped_rows", "share": 0.6}, lists=True, unseen=SHORT_LISTS),
    Bad("no body", {"kind": "empty_body"}),
    Bad("truncated", {"kind": "truncated"}),
    Bad("HTML", {"kind": "html", "status": 200}),
    Bad("500", {"kind": "status", "status": 500}),
    Bad("slow drip", {"kind": "drip", "size": 1, "delay_s": 0.05}, limits={"time_limit_s": 0.15}),
    Bad("nobody", {"kind": "status", "status": 404}, may_be_one=False, only=BY_NAME),  # of one it may be true
    Bad("another type", {"kind": "malformed"}, only=FILES),
    Bad("too large", {"kind": "drip", "size": 512}, limits={"file_bytes": 100}, may_be_one=False, only=FILES),
)
MORE = (
    Bad("cut JSON", {"kind": "malformed"}),
    Bad("HTML with 502", {"kind": "html", "status": 502}),
    Bad("200 with an error", {"kind": "error"}, final=FILES | {"invoice_details"}),
    Bad("no data", {"kind": "missing"}),
)
TRIED = BAD + MORE if is_long() else BAD

PROOFS = """
    SELECT 'time', stream, 0::bigint, proven::text FROM syncd.coverage
    UNION ALL SELECT 'row', stream, row_id, proven_at::text FROM syncd.readings WHERE proven_at IS NOT NULL
    UNION ALL SELECT 'row', 'invoice_files', invoice_id, encode(sha256, 'hex') FROM crm.invoice_files
    UNION ALL SELECT 'read', stream, max(id), '' FROM syncd.runs WHERE status = 'succeeded' GROUP BY stream
"""


# What a bad answer may note or rightly bring.
_MAY_MOVE = re.compile(r'"(missing_since|is_paid)": [^,}]+')
LAST_RUN = "SELECT status, reason FROM syncd.runs WHERE stream = '{}' ORDER BY id DESC LIMIT 1"


async def test_a_bad_answer_counts_for_nothing_is_told_and_heals(store: Store, tmp_path: Path, proof: Say) -> None:
    """Half an answer taken for a whole one, by any of a dozen readers, is silent loss."""
    tries = [(stream, bad) for stream in STREAMS for bad in TRIED if bad.suits(stream)]
    wrong: list[str] = []
    async with circle(store, world=world(), policy=replace(POLICY, files=tmp_path)) as it:
        await _start(it)
        for turn, (stream, bad) in enumerate(tries):
            wrong += [f"{stream}, {bad.name}: {each}" for each in await _try(it, tmp_path, stream, bad, turn)]
        await it.pull(*(stream for stream in STREAMS if NEWS[stream].first))  # what is new for one is so for others
        for stream in STREAMS:
            again = await it.pull(stream)
            wrong += [f"{stream} has not healed"] if again.inserted + again.updated + again.missing else []
    assert not wrong, "\n".join(wrong)
    proof(f"bad answers: {len(tries)} in {len(STREAMS)} streams count for nothing, are told and heal")


async def test_one_bad_answer_among_good_ones_costs_its_row_alone(store: Store, tmp_path: Path, proof: Say) -> None:
    """A sweep reads hundreds: one that is unreadable leaves its own row unproven, and hides no other."""
    alone = [bad for bad in TRIED if bad.may_be_one and not bad.lists]
    tries = [(stream, bad.name) for stream in BY_ROW for bad in alone if bad.suits(stream)]
    chance = random.Random(seed())
    drawn = [chance.choice([each for each in tries if each[0] == stream]) for stream in BY_ROW]
    named = {bad.name: bad for bad in TRIED}
    wrong: list[str] = []
    async with circle(store, world=world(), policy=replace(POLICY, files=tmp_path)) as it:
        await _start(it)
        for turn, (stream, bad) in enumerate(pick(tries, short=len(drawn), always=drawn)):
            wrong += [f"{stream}, {bad}: {each}" for each in await _try_one(it, tmp_path, stream, named[bad], turn)]
    assert not wrong, "\n".join(wrong)
    proof(f"one bad answer among good ones: {turn + 1} tries in {len(BY_ROW)} streams cost one row")


async def test_a_cap_on_hours_leaves_the_time_beyond_it_unproven(store: Store) -> None:
    """A CRM that silently looks back two hours at most answers well; those whom it left out speak against it."""
    async with circle(store, orders=0) as it:
        for _ in range(8):
            it.world.add_order(next(iter(it.world.relations)), BREAD)
        await it.pull("orders")
        lost = [it.world.add_order(next(iter(it.world.relations)), BREAD) for _ in range(3)]
        proofs = await _proofs(it, "orders")
        await it.advance(6 * 3600)
        it.box.turn(Switches(hours_cap=2))
        it.world.add_order(next(iter(it.world.relations)), BREAD)
        capped = await it.pull("orders")
        assert (capped.status, exit_code([capped])) == ("refused", FAILED)
        assert await _proofs(it, "orders") == proofs
        it.box.turn(Switches())
        assert (await it.pull("orders")).inserted == len(lost) + 1


async def test_an_answer_without_the_latest_event_does_not_bring_back_the_one_before(store: Store) -> None:
    """Who has unsubscribed would be mailed again because an answer was cut to its first events."""
    async with circle(store, relations=3) as it:
        relation = next(iter(it.world.relations.values()))
        relation.events[:] = [Event(401, "S", NOON - timedelta(days=9)), Event(401, "U", NOON - timedelta(days=2))]
        await it.pull("lists", "groups", "group_members", "relation_subscriptions")
        whole = list(relation.events)
        relation.events.pop()
        capped = await it.pull("relation_subscriptions")
        status = "SELECT status FROM crm.list_subscriptions WHERE relation_id = 1 ORDER BY event_at DESC LIMIT 1"
        assert await it.value(status) == "unsubscribed"
        assert "lack the latest event" in capped.warnings[0]
        relation.events[:] = [*whole, Event(401, "S", NOON - timedelta(days=1))]
        assert not (await it.pull("relation_subscriptions")).warnings
        assert await it.value(status) == "subscribed"


def test_every_stream_that_is_declared_has_news() -> None:
    """Without news a bad answer has nothing to lose, and a proof about it proves nothing."""
    assert set(NEWS) == set(STREAMS)


async def _start(it: Circle) -> None:
    """Read everything, and then once what is new: the witnesses of the answers to come."""
    for report in await it.puller.pull_all():
        assert report.is_success, report
    for turn, stream in enumerate(STREAMS, start=900):
        await _make_news(it, stream, turn)
        report = await it.pull(stream)
        assert report.is_success, report
        assert report.inserted + report.updated, f"what is new of {stream} is no news"


async def _make_news(it: Circle, stream: str, turn: int) -> None:
    """Let time pass and something happen; read what the stream needs to be asked for it."""
    await it.advance(120)
    news = NEWS[stream]
    news.make(it.world, turn)
    for first in news.first:
        assert (await it.pull(first)).is_success


async def _try(it: Circle, root: Path, stream: str, bad: Bad, turn: int) -> list[str]:
    """Have all answers of a stream bad for one pull; return what is not as it should be."""
    await _make_news(it, stream, turn)
    before, proofs = await _content(it, root), await _proofs(it, stream)
    number = it.box.faults.add(**bad.fault, operation=STREAMS[stream].operation, times=0)
    report, said = await _pull_told(it, stream, replace(POLICY, files=root, **bad.limits))
    it.box.faults.clear(number)
    after = await _content(it, root)
    if stream in bad.unseen:
        wrong = _lost(before, after) + ([] if report.is_success else _untold(report, said))
    else:
        wrong = _untold(report, said) + sorted((before - after) + (after - before))
        wrong += [] if await _proofs(it, stream) == proofs else ["what is not believed has proven something"]
        wrong += (
            [] if await it.rows(LAST_RUN.format(stream)) == [(report.status, report.reason)] else ["no run says so"]
        )
    return wrong + await _unhealed(it, stream, has_news=not report.is_success)


async def _try_one(it: Circle, root: Path, stream: str, bad: Bad, turn: int) -> list[str]:
    """Have one answer of a sweep bad; return what is not as it should be."""
    await _make_news(it, stream, turn)
    operation = STREAMS[stream].operation
    before, asked = await _proofs(it, stream), it.requested(operation)
    it.box.faults.add(**bad.fault, operation=operation)
    _, said = await _pull_told(it, stream, replace(POLICY, files=root, **bad.limits))
    rows = it.requested(operation) - asked
    proven = [proof for proof in await _proofs(it, stream) - before if proof[0] == "row"]
    wrong = [] if said.get("reason") or said.get("warnings") else ["the log does not say so"]
    wrong += [] if len(proven) == rows - 1 > 0 else [f"{len(proven)} of {rows} rows are proven"]
    return wrong + await _unhealed(it, stream, has_news=False)


async def _content(it: Circle, root: Path) -> Counter[str]:
    """What the mirror says, and what lies where the files are kept."""
    return await lines(it.store) + _lying(root)


def _lying(root: Path) -> Counter[str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return Counter(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)


async def _proofs(it: Circle, stream: str) -> Counter[tuple[Any, ...]]:
    """What is proven of a stream: time, rows, or that it was read whole."""
    return Counter(row for row in await it.rows(PROOFS) if row[1] == stream)


async def _pull_told(it: Circle, stream: str, policy: PullPolicy) -> tuple[RunReport, dict[str, Any]]:
    """Pull as the daemon does; return the report and the one line that the log has of it."""
    with captured_logs(json=True) as logged:
        crm = provider(ProviderOptions(administration=it.box.admin))
        reporter = Reporter(Metrics())
        puller = Puller(it.store, crm, it.transport, it.clock, it.account, policy, reporter.run)
        report = await puller.pull(stream)
    logs = [json.loads(line) for line in logged.getvalue().splitlines()]
    (said,) = [line for line in logs if line.get("event") == "run.finished"]
    return report, said


def _untold(report: RunReport, said: dict[str, Any]) -> list[str]:
    """Complain unless report, exit code and log say that it went wrong, and why."""
    wrong = [] if report.status in ("failed", "refused") and report.reason else [f"it ended {report.status}"]
    wrong += [] if exit_code([report]) in (FAILED, TRY_LATER) else ["the exit code is that of a success"]
    expected = ("warning", report.status, report.reason)
    return wrong + ([] if (said["level"], said["status"], said.get("reason")) == expected else [f"the log says {said}"])


def _lost(before: Counter[str], after: Counter[str]) -> list[str]:
    """Name the rows that are there no more, or say something else; one that is noted as absent, or paid, is there."""
    return sorted(Counter(map(_told, before)) - Counter(map(_told, after)))


def _told(row: str) -> str:
    return _MAY_MOVE.sub("", row)


async def _unhealed(it: Circle, stream: str, *, has_news: bool) -> list[str]:
    """Pull again and complain unless that brings what the bad pull could not, and proves it."""
    proofs = await _proofs(it, stream)
    await it.advance(180)
    healed = await it.pull(stream)
    wrong = [] if healed.is_success and not healed.warnings else [f"it does not heal: {healed}"]
    wrong += [] if healed.inserted + healed.updated or not has_news else ["the next run brings nothing"]
    return wrong + ([] if await _proofs(it, stream) - proofs else ["the next run proves nothing"])
