"""Convergence: whatever people edit on both sides, whatever goes wrong meanwhile, in the end both sides say the same.

A state machine edits a simulated CRM and its mirror at random, moves the clocks, lets requests fail in every way,
pulls and drains; then the faults end. Now both sides must agree; of every edit ever made it must be known what became
of it (``tests.support.converging``); nothing more is written, however often is pulled and drained; and no time counts
as read that was not.

Not in here: requests that land late and the values that are said once more because of them (``test_drain_late`` and
``test_world_late`` are about those), and edits of free fields in the CRM, which no call of its API shows.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from syncd.domain.errors import UserError
from syncd.policy.merge import Owner, Owners
from syncd.sandbox import Administration, World
from syncd.sandbox.records import Group, OrderLine
from syncd.store import Store
from tests.support import proving
from tests.support.both_sides import BothSides, both_sides
from tests.support.converging import HERE, THERE, Person, State, complaints, known
from tests.support.outbox import retry_entry, skip_entry
from tests.support.proving import Say, is_long
from tests.support.pulling import NOON

STREAMS = (
    "tags",
    "groups",
    "lists",
    "fields",
    "group_members",
    "orders",
    "relation_details",
    "relation_tags",
    "relation_subscriptions",
)
READS = ("tags", "groups", "group_members", "orders", "relation_by_id", "relation_by_email", "relation_tags")
WRITES = ("relation_upsert", "relation_email", "tag_add", "tag_remove", "group_add", "group_remove", "field_set")
# An answer that lies in good form is unmasked by what is known only; of the orders of a day nothing may be known yet.
READ_FAULTS = ("status", "html", "reset", "lost_answer", "truncated", "malformed", "missing", "empty_body")
LIES = ("empty_list", "dropped_rows", "null", "duplicate_rows")
WRITE_FAULTS = ("status", "html", "reset", "lost_answer", "lost_reset", "truncated", "malformed", "empty_body", "twice")
CALL_FAULTS = ("status", "reset")
LISTS = TAGS = FIELDS = 2
# The groups of lists move with their lists; these do not. Everybody is in the first, else nobody would show.
OWN_GROUPS = (90_001, 90_002, 90_003)

sides = st.sampled_from([HERE, THERE])
KINDS = ("name", "tag", "group", "email", "field", "call", "create", "twin", "clash", "clash")
# What, of whom (of as many as there are), which of them, on which side.
EDITS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 40), st.integers(0, 1), sides), min_size=1, max_size=5
)


def _faults(operations: Sequence[str], kinds: Sequence[str], most: int) -> st.SearchStrategy[tuple[str, str, int]]:
    return st.tuples(st.sampled_from(operations), st.sampled_from(kinds), st.integers(1, most))


FAULTS = st.lists(
    st.one_of(
        _faults(READS, READ_FAULTS, 3),
        _faults([name for name in READS if name != "orders"], LIES, 1),
        _faults(WRITES, WRITE_FAULTS, 2),
        _faults(["list_subscribe", "list_unsubscribe"], CALL_FAULTS, 1),
    ),
    min_size=1,
    max_size=3,
)
owners = st.sampled_from([Owner.LOCAL, Owner.LOCAL, Owner.REMOTE, Owner.HOLD])


class Tally:
    """What was done over all examples, for the proof's line."""

    counts: ClassVar[Counter[str]] = Counter()


class Convergence(RuleBasedStateMachine):
    """One example: an account of its own in the test's database, a CRM of its own."""

    store: Store
    runner: asyncio.Runner
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()
        self.people: list[Person] = []
        self.values = itertools.count(1)
        Tally.counts["examples"] += 1

    def do(self, work: Any) -> Any:
        """Run something asynchronous to its end: the simulator answers only meanwhile."""
        return self.runner.run(work)

    @initialize(names=owners, tags=owners, address=owners, edits=EDITS)
    def begin(self, names: Owner, tags: Owner, address: Owner, edits: list[tuple[str, int, int, str]]) -> None:
        self.do(self._begin(Owners(names, {"tags": tags, "groups": tags, "email": address})))
        self.edit(edits)

    async def _begin(self, chosen: Owners) -> None:
        number = next(self.numbers)
        world = World.seeded(3, 3, 0, seed=number, now=NOON, administration=Administration(id=4711 + number))
        for relation in world.relations.values():
            relation.events.clear()
        world.groups |= {number: Group(number, f"Group {number}") for number in OWN_GROUPS}
        self.both: BothSides = await self.stack.enter_async_context(
            both_sides(self.store, world, owners=chosen, name=f"account-{number}", faults_seed=number)
        )
        self.state, self.chosen = State(self.both), chosen
        self.lists = list(world.lists)[:LISTS]
        self.everybody, *self.groups = OWN_GROUPS
        self.tags = list(world.tags)[:TAGS]
        self.fields = [code for code in world.fields if world.fields[code].type == "string" and "_FF" in code][:FIELDS]
        for relation in world.relations.values():
            world.join(relation, self.everybody)
            self.people.append(known(relation))
        await self.both.pull(*STREAMS)
        await self._meet()

    # Edits -----------------------------------------------------------------------------------------------------------

    @rule(edits=EDITS)
    def edit(self, edits: list[tuple[str, int, int, str]]) -> None:
        """A few people are at work on both sides before anybody pulls or drains."""
        for kind, who, which, side in edits:
            self.do(self._edit(kind, who, which, side))

    async def _edit(self, kind: str, who: int, which: int, side: str) -> None:
        match kind:
            case "name":
                column = ("first_name", "last_name")[which]
                await self._change(who, column, f"name {next(self.values)}", side)
            case "email":
                await self._change(who, "email", f"address{next(self.values)}@both.example", side)
            case "tag":
                await self._change(who, f"tag:{self.tags[which]}", None, side)
            case "group":
                await self._change(who, f"group:{self.groups[which % len(self.groups)]}", None, side)
            case "field":
                await self._change(who, f"field:{self.fields[which]}", f"value {next(self.values)}", HERE)
            case "call":
                await self._call(who, self.lists[which])
            case "clash":  # one field of one person on both sides, the given side last
                name = ("last_name", f"tag:{self.tags[0]}")[which]
                for one in (THERE, HERE) if side == HERE else (HERE, THERE):
                    await self._change(who % 3, name, None if which else f"name {next(self.values)}", one)
            case "create" | "twin":
                await self._create(side, kind == "twin")

    async def _change(self, who: int, name: str, value: str | None, side: str) -> None:
        """Give a field of somebody whom the side knows a value; a tag or a membership is turned round."""
        there = [each for each in self.people if (each.local_id if side == HERE else each.remote_id) is not None]
        if not there:
            return
        person = there[who % len(there)]
        if (name, side) == ("email", THERE) and person.local_id is not None and not person.is_bound:
            return  # made on both sides, and the one thing that says so is gone: rightly they become two people
        seen = await self.state.here(person, name) if side == HERE else self.state.there(person, name)
        wanted = value or ("no" if seen == "yes" else "yes")
        await (self._edit_here if side == HERE else self._edit_there)(person, name, wanted)
        if side == HERE and name.startswith("group:") and any(e.side == HERE for e in person.edits.get(name, ())):
            person.blind.add(name)  # there and back: a whole group is not read for one membership before a delivery
        person.note(name, side, seen, wanted, self.both.box.requests.total)
        Tally.counts[f"edits {side}"] += 1

    async def _edit_here(self, person: Person, name: str, value: str) -> None:
        kind, _, number = name.partition(":")
        whose = {"id": person.local_id, "value": value, "number": number}
        things = f"FROM crm.{kind}s WHERE account_id = :account AND remote_id = :number"
        match kind:
            case "tag" | "group":
                table = "relation_tags" if kind == "tag" else "group_members"
                if value == "yes":
                    sql = f"INSERT INTO crm.{table} (relation_id, {kind}_id) SELECT :id, id {things}"
                else:
                    sql = f"DELETE FROM crm.{table} WHERE relation_id = :id AND {kind}_id = (SELECT id {things})"
            case "field":
                sql = (
                    "INSERT INTO crm.relation_fields (relation_id, field_id, value) SELECT :id, id, :value"
                    " FROM crm.fields WHERE account_id = :account AND code = :number"
                    " ON CONFLICT (relation_id, field_id) DO UPDATE SET value = excluded.value"
                )
            case _:
                sql = f"UPDATE crm.relations SET {name} = :value WHERE id = :id"
        await self.both.edit(sql, **whose)

    async def _edit_there(self, person: Person, name: str, value: str) -> None:
        world = self.both.world
        assert person.remote_id is not None
        relation = world.relations[person.remote_id]
        kind, _, number = name.partition(":")
        match kind:
            case "tag":
                (world.tag if value == "yes" else world.untag)(relation, int(number))
            case "group":
                (world.join if value == "yes" else world.leave)(relation, int(number))
            case _:
                world.change_relation(relation.id, **{name: value})

    async def _call(self, who: int, number: int) -> None:
        there = [each for each in self.people if each.local_id is not None]
        person = there[who % len(there)]
        is_on = not any(listed == number and on for listed, on in person.calls[-1:])
        email = await self.state.here(person, "email")
        alike = "SELECT count(*) FROM crm.relations WHERE account_id = :account AND lower(email) = lower(:email)"
        if await self.both.value(alike, email=email) != 1:
            return  # two rows of one address, for a while: the functions refuse to guess who is meant
        name = self.both.world.lists[number].name
        account = self.both.account.name
        if is_on:
            sql = "SELECT crm.subscribe(:email, :list, account => :name)"
        else:
            sql = "SELECT crm.unsubscribe(:email, :list, 'asked to', account => :name)"
        await self.both.edit(sql, email=email, list=name, name=account)
        person.calls.append((number, is_on))
        Tally.counts["calls"] += 1

    async def _create(self, side: str, is_twin: bool) -> None:
        """Make somebody, or make somebody a second time whom only the other side knows so far."""
        await self._meet()
        ours = "local_id" if side == HERE else "remote_id"
        alone = [each for each in self.people if getattr(each, ours) is None and len(each.edits.get("email", ())) == 1]
        if is_twin and alone:
            person = alone[0]
        else:
            person = Person(f"new{next(self.values)}@both.example")
            self.people.append(person)
        name = f"name {next(self.values)}"
        if side == HERE:
            sql = "INSERT INTO crm.relations (account_id, email, last_name) VALUES (:account, :email, :name)"
            await self.both.edit(sql, email=person.email, name=name)
            sql = "SELECT id FROM crm.relations WHERE account_id = :account AND email = :email"
            person.local_id = await self.both.value(sql, email=person.email)
        else:
            relation = self.both.world.add_relation(person.email, last_name=name)
            self.both.world.join(relation, self.everybody)
            person.remote_id = relation.id
        person.note("email", side, None, person.email, self.both.box.requests.total)
        person.note("last_name", side, None, name, self.both.box.requests.total)
        Tally.counts["creates"] += 1

    # What goes wrong -------------------------------------------------------------------------------------------------

    @rule(faults=FAULTS)
    def spoil(self, faults: list[tuple[str, str, int]]) -> None:
        for operation, kind, times in faults:
            self._spoil(operation, kind, times)

    def _spoil(self, operation: str, kind: str, times: int) -> None:
        status = {"status": 503, "html": 502}.get(kind, 0)
        self.both.box.faults.add(kind, operation=operation, times=times, status=status)
        Tally.counts["faults"] += 1

    # Time and traffic ------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([60, 3 * 3600, 30 * 3600]), orders=st.lists(st.booleans(), max_size=2))
    def pass_time(self, seconds: int, orders: list[bool]) -> None:
        self.do(self.both.advance(seconds))
        for is_paid in orders:
            there = next(iter(self.both.world.relations))
            self.both.world.add_order(there, (OrderLine("product", 7001, "Brood", 1),), is_paid=is_paid)

    @rule(streams=st.lists(st.sampled_from(STREAMS), min_size=1, max_size=3, unique=True), is_first=st.booleans())
    def move(self, streams: list[str], is_first: bool) -> None:
        """Pull some streams and drain, in either order."""
        if is_first:
            self.do(self._drain())
        self.do(self._pull(*streams))
        if not is_first:
            self.do(self._drain())

    @rule(who=st.integers(0, 40), which=st.integers(0, 1))
    def overtake(self, who: int, which: int) -> None:
        self.do(self._overtake(who, ("last_name", f"tag:{self.tags[0]}")[which]))

    async def _overtake(self, who: int, name: str) -> None:
        """Let an edit be made and delivered while a pull's answer is on its way: the older answer undoes nothing."""
        stream = "group_members" if name == "last_name" else "relation_tags"
        number = self.both.box.faults.add("hold_answer", operation=stream, path=self._path(stream, who))
        slow = asyncio.create_task(self.both.pull(stream))
        held = asyncio.create_task(self.both.box.until_held())
        await asyncio.wait({slow, held}, return_when=asyncio.FIRST_COMPLETED)
        held.cancel()
        await self._change(who, name, None if ":" in name else f"name {next(self.values)}", HERE)
        await self._drain()
        there = [each for each in self.people if each.local_id is not None]
        person, owner = there[who % len(there)], self.chosen.of(name, "tags" if ":" in name else None)
        before = await self.state.here(person, name, is_sure=":" in name)
        self.both.box.faults.clear(number)
        self.both.box.release()
        await slow
        await self._meet()
        if owner is Owner.LOCAL:
            after = await self.state.here(person, name, is_sure=":" in name)
            assert after == before, f"{name} was undone by an older answer"
        Tally.counts["overtaken answers"] += 1

    def _path(self, stream: str, who: int) -> str:
        there = [each for each in self.people if each.local_id is not None]
        number = there[who % len(there)].remote_id
        return f"groups/{self.everybody}/" if stream == "group_members" else f"relation/{number}/"

    @rule(stream=st.sampled_from(STREAMS))
    def pull(self, stream: str) -> None:
        self.do(self._pull(stream))

    async def _pull(self, *streams: str) -> None:
        await self.both.wake()
        await self.both.pull(*streams)
        await self._meet()
        Tally.counts["pulls"] += len(streams)

    async def _drain(self) -> None:
        await self.both.wake()
        await self.both.drain()
        await self._meet()
        Tally.counts["drains"] += 1

    async def _meet(self) -> None:
        """Find out who has come to be known on the other side."""
        bound = await self.both.rows("SELECT id, remote_id FROM crm.relations WHERE account_id = :account")
        by_remote = {int(remote): ours for ours, remote in bound if remote is not None}
        by_local = {ours: int(remote) for ours, remote in bound if remote is not None}
        for person in self.people:
            if person.remote_id is not None and person.remote_id in by_remote:
                person.local_id = by_remote[person.remote_id]
            elif person.local_id in by_local and person.remote_id is None:
                person.remote_id = by_local[person.local_id]
            person.is_bound = person.is_bound or person.remote_id in by_remote

    # The end ---------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "both"):
                self.do(self._judge())
        finally:
            self.do(self.stack.aclose())

    async def _judge(self) -> None:
        self.both.box.faults.clear()
        for _ in range(12):
            await self._round()
            if await self._is_quiet():
                break
        await self._round()
        found = await complaints(self.both, self.people)
        assert not found, "\n".join(found)
        await self._is_silent()

    async def _round(self) -> None:
        """Let time pass, and do what a daemon and a person with an eye on it would do in it."""
        await self.both.advance(2 * 3600)
        await self.both.wake()
        await self._decide()
        await self.both.drain()
        await self._pull(*STREAMS)
        await self.both.drain()
        await self._meet()

    async def _decide(self) -> None:
        """Decide what waits for a person: send it again. Calls are spoiled in ways alone that do not carry them out.
        What the CRM's people undid right after it was delivered is given up as often as it is said once more."""
        stuck = await self.both.rows(
            "SELECT id, status FROM syncd.entries WHERE account_id = :account"
            " AND status IN ('dead', 'parked', 'diverged') ORDER BY seq"
        )
        for entry_id, status in stuck:
            try:
                async with self.both.store.begin() as connection:
                    if status == "diverged" and entry_id % 2:
                        await skip_entry(connection, entry_id, actor="test")
                    else:
                        await retry_entry(connection, entry_id, as_new=status == "parked", actor="test")
            except UserError:
                Tally.counts["decisions refused"] += 1
        await self._resolve()

    async def _resolve(self) -> None:
        """Decide the open conflicts, for this side, for that one and for neither in turn."""
        from syncd.store.conflicts import Take, resolve_conflict

        waiting = await self.both.rows(
            "SELECT id, field FROM syncd.conflicts WHERE account_id = :account AND status = 'open'"
            " AND withheld_at IS NOT NULL ORDER BY id"
        )
        for conflict_id, name in waiting:
            take = (Take("local"), Take("remote"), Take("value", f"decided{conflict_id}"))[conflict_id % 3]
            if take.side == "value" and name.partition(":")[0] in ("tag", "group", "email"):
                take = Take("local")
            try:
                async with self.both.store.begin_remote() as connection:
                    await resolve_conflict(connection, conflict_id, take, actor="test")
                Tally.counts["conflicts decided"] += 1
            except UserError:  # an edit made since is not staged yet
                Tally.counts["decisions refused"] += 1

    async def _is_quiet(self) -> bool:
        left = await self.both.value(
            "SELECT (SELECT count(*) FROM syncd.captures WHERE account_id = :account)"
            " + (SELECT count(*) FROM syncd.entries WHERE account_id = :account AND"
            " status IN ('pending', 'held', 'dead', 'parked', 'diverged'))"
            " + (SELECT count(*) FROM syncd.conflicts WHERE account_id = :account AND status = 'open')"
        )
        absent = await self.both.value(
            "SELECT (SELECT count(*) FROM crm.relation_tags t JOIN crm.relations r ON r.id = t.relation_id"
            " WHERE r.account_id = :account AND t.missing_since IS NOT NULL)"
            " + (SELECT count(*) FROM crm.group_members m JOIN crm.relations r ON r.id = m.relation_id"
            " WHERE r.account_id = :account AND m.missing_since IS NOT NULL)"
        )
        return not left and not absent

    async def _is_silent(self) -> None:
        """However often is pulled and drained now, nothing is written to either side."""
        effects, rows = len(self.both.box.journal), await self.both.value(_HISTORY)
        sent = sum(self.both.box.requests.by_operation[name] for name in (*WRITES, "list_subscribe"))
        for _ in range(2):
            await self.both.advance(600)
            await self._pull(*STREAMS)
            await self.both.drain()
        assert len(self.both.box.journal) == effects, "an echo: the CRM was written to without an edit"
        assert sum(self.both.box.requests.by_operation[name] for name in (*WRITES, "list_subscribe")) == sent
        assert await self.both.value(_HISTORY) == rows, "an echo: the mirror changed without an edit"


_HISTORY = "SELECT count(*) FROM syncd.changes WHERE account_id = :account"


def converge(database: str, *, examples: int, steps: int, seed: int) -> None:
    """Play some examples; raises AssertionError with the shortest story of what went wrong."""
    Tally.counts = Counter()
    with asyncio.Runner() as runner:
        store = Store.open(database, pool_size=4)

        class Here(Convergence):
            pass

        Here.store, Here.runner = store, runner
        chosen = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=False,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink) if is_long() else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(seeded(seed)(Here), settings=chosen)
        finally:
            runner.run(store.close())


def test_both_sides_converge_and_nothing_is_lost(database: str, proof: Say) -> None:
    """The promise of the whole program, without any knowledge of how it is kept."""
    examples, steps = (150, 40) if is_long() else (6, 14)
    converge(database, examples=examples, steps=steps, seed=proving.seed())
    counts = ", ".join(f"{number} {what}" for what, number in sorted(Tally.counts.items()))
    proof(f"convergence: {examples} examples of {steps} steps, seed {proving.seed()}: {counts}")
