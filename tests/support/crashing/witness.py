"""The witness: what the CRM's journal, its requests and its state say, held against the story. Returns complaints.

Everything here is read from the simulator, which shares no code with the drainer; only ``ledger`` reads the database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from syncd.sandbox import Effect, RequestLine, Sandbox
from tests.support.crashing.story import ADMINISTRATION, PROFILE, Edit, Fact, Person, expected, facts, numbers
from tests.support.ready import UNKEYED

_ONCE = {"list_subscribe", "list_gdpr_subscribe", "list_unsubscribe", "subscription_end", "field_create"}
_APPLIED = {"answered", "lost_answer"}


@dataclass(frozen=True, slots=True)
class Done:
    """One effect of the CRM as a fact, in the journal's order."""

    whom: Person
    facet: str
    value: object


def effects(sandbox: Sandbox) -> list[Done]:
    """Read the journal as facts, leaving out what follows from a list call (its mail, its note, its group)."""
    operations = {line.seq: line.operation for line in sandbox.requests}
    return [
        Done(*fact)
        for effect in sandbox.journal
        for fact in _facts_of(effect, is_of_list=operations.get(effect.request, "").startswith("list_"))
    ]


def _facts_of(effect: Effect, *, is_of_list: bool) -> Iterable[Fact]:
    subject, _, rest = effect.subject.partition("/")
    noun, _, number = subject.partition(":")
    whom = int(number) if noun == "relation" else ADMINISTRATION
    match effect.kind:
        case "relation.created" | "relation.changed" | "relation.email_changed":
            assert isinstance(effect.after, dict)
            names = ("email",) if effect.kind == "relation.created" else PROFILE
            yield from ((whom, name, effect.after[name]) for name in names if name in effect.after)
        case "tag.added":
            yield whom, f"tag:{effect.after}", True
        case "tag.removed":
            yield whom, f"tag:{effect.before}", False
        case "group.joined" if not is_of_list:
            yield whom, f"group:{effect.after}", True
        case "group.left" if not is_of_list:
            yield whom, f"group:{effect.before}", False
        case "field.set":
            yield whom, f"field:{rest}", effect.after
        case "list.subscribed":
            yield whom, rest, "S"
        case "list.unsubscribed":
            yield whom, rest, "U"
        case "subscription.ended":
            yield ADMINISTRATION, subject, effect.after
        case "field.created":
            yield ADMINISTRATION, f"new_field:{effect.after}", True


def once_calls(sandbox: Sandbox) -> Counter[tuple[Person, str]]:
    """Count the calls that do something each time, as far as the CRM acted on them: by person and facet."""
    calls = [line for line in sandbox.requests if line.operation in _ONCE]
    return Counter(_about(line) for line in calls if line.fate in _APPLIED and line.status in (0, 200))


def _about(line: RequestLine) -> tuple[Person, str]:
    given = line.parameters
    if line.operation == "field_create":
        return ADMINISTRATION, f"new_field:{given['fieldName']}"
    if line.operation == "subscription_end":
        return ADMINISTRATION, f"subscription:{given['id']}"
    return int(given["relId"]), f"list:{given['listId']}"


def _key(edit: Edit, numbered: dict[Person, int]) -> tuple[Person, str]:
    is_anybodys = edit.facet.startswith("subscription:")
    return (ADMINISTRATION if is_anybodys else numbered.get(edit.whom, edit.whom)), edit.facet


def twice(sandbox: Sandbox, edits: Sequence[Edit]) -> list[str]:
    """Complain of everything that was done oftener than it was asked for. Holds at any time."""
    numbered = numbers(sandbox, edits)
    allowed = Counter(_key(edit, numbered) for edit in edits if edit.is_once)
    found = [f"{key} was done {n} times" for key, n in once_calls(sandbox).items() if n > allowed[key]]
    births = Counter(_email_of(effect) for effect in sandbox.journal.of("relation.created"))
    wanted = Counter(edit.value for edit in edits if edit.sql.startswith("INSERT INTO crm.relations "))
    found += [f"{email} was created {n} times" for email, n in births.items() if n > wanted[email]]
    mails = Counter(effect.subject for effect in sandbox.journal.of("mail.planned"))
    return found + [f"{n} mails are planned for {subject}" for subject, n in mails.items() if n > 1]


def _email_of(effect: Effect) -> object:
    assert isinstance(effect.after, dict)
    return effect.after["email"]


def differs(sandbox: Sandbox, edits: Sequence[Edit]) -> list[str]:
    """Complain of every fact that is not as the edits left it, and of every once-call that never came."""
    numbered = numbers(sandbox, edits)
    wanted, found = expected(edits, numbered), facts(sandbox.world)
    wrong = [
        f"{key[0]} {key[1]} is {found.get(key)!r}, not {wanted.get(key)!r}"
        for key in sorted(wanted.keys() | found.keys(), key=str)
        if wanted.get(key) != found.get(key)
    ]
    calls = once_calls(sandbox)
    keys = [_key(edit, numbered) for edit in edits if edit.is_once]
    return wrong + [f"{key} was never done" for key in keys if not calls[key]]


def disorder(sandbox: Sandbox, edits: Sequence[Edit], decided: frozenset[tuple[Person, str]]) -> list[str]:
    """Complain of effects out of the order of the commits; what a person ``decided`` about comes when they say.

    Per person and facet, effects are a subsequence of the edits' values. Across facets, nothing passes a barrier.
    """
    numbered = numbers(sandbox, edits)
    reached: dict[tuple[Person, str], int] = {}
    places: list[tuple[Person, int]] = []
    found: list[str] = []
    for done in effects(sandbox):
        key = (done.whom, done.facet)
        start = reached.get(key, 0)
        place = next((i for i in range(start, len(edits)) if _is_of(edits[i], key, done.value, numbered)), None)
        if place is None:
            found.append(f"{done.whom} {done.facet} became {done.value!r} out of order")
            continue
        reached[key] = place + 1
        if key not in decided:
            places.append((done.whom, place))
    barriers = [i for i, edit in enumerate(edits) if edit.is_barrier and _key(edit, numbered) not in decided]
    return found + _passed(edits, places, barriers, numbered)


def _is_of(edit: Edit, key: tuple[Person, str], value: object, numbered: dict[Person, int]) -> bool:
    return _key(edit, numbered) == key and edit.value == value


def _passed(
    edits: Sequence[Edit], places: Sequence[tuple[Person, int]], barriers: Sequence[int], numbered: dict[Person, int]
) -> list[str]:
    found = []
    latest: dict[Person, int] = {}
    for _, place in places:
        whom = numbered.get(edits[place].whom, edits[place].whom)
        before = latest.get(whom, -1)
        between = [b for b in barriers if place <= b <= before and numbered.get(edits[b].whom, edits[b].whom) == whom]
        if between:
            found.append(f"{edits[before].facet} of {whom} came before {edits[place].facet}, across a barrier")
        latest[whom] = max(before, place)
    return found


async def ledger(connection: asyncpg.Connection) -> list[str]:
    """Complain of everything in the outbox that is not settled, dense, idle and told once."""
    return [f"{row['n']} {row['what']}" for row in await connection.fetch(_LEDGER) if row["n"]]


_LEDGER = f"""
    SELECT 'captures are not staged' AS what, count(*) AS n FROM syncd.captures
    UNION ALL
    SELECT 'entries are ' || status, count(*) FROM syncd.entries
    WHERE status NOT IN ('verified', 'accepted', 'superseded', 'skipped') GROUP BY status
    UNION ALL
    SELECT 'deliveries of yesterday are not proved', count(*) FROM syncd.entries
    WHERE captured_at < now() - interval '1 day' AND status <> 'verified'
    UNION ALL
    SELECT 'lanes are not at rest', count(*) FROM syncd.lanes
    WHERE acked_seq <> tail_seq OR claimed_by IS NOT NULL OR sending_upto IS NOT NULL OR block_reason IS NOT NULL
    UNION ALL
    SELECT 'lanes are due in one table alone', count(*) FROM (
        (SELECT account_id, ready_at, id FROM syncd.lanes WHERE ready_at IS NOT NULL
         EXCEPT SELECT account_id, ready_at, lane_id FROM syncd.ready)
        UNION ALL
        (SELECT account_id, ready_at, lane_id FROM syncd.ready EXCEPT SELECT account_id, ready_at, id FROM syncd.lanes)
    ) AS apart
    UNION ALL
    SELECT 'lanes and their keys differ', count(*) FROM ({UNKEYED}) AS apart
    UNION ALL
    SELECT 'lanes are not dense', count(*) FROM syncd.lanes l
    WHERE tail_seq <> (SELECT count(*) FROM syncd.entries e WHERE e.lane_id = l.id)
       OR tail_seq <> (SELECT max(seq) FROM syncd.entries e WHERE e.lane_id = l.id)
    UNION ALL
    SELECT 'entries are told twice in the history', count(*) FROM (
        SELECT entry_id FROM syncd.changes WHERE origin = 'local' GROUP BY entry_id HAVING count(*) > 1) AS told
    UNION ALL
    SELECT 'delivered entries are missing in the history', count(*) FROM syncd.entries e
    WHERE e.relation_id IS NOT NULL AND e.status IN ('verified', 'accepted') AND e.operation <> 'end_subscription'
      AND e.reasserts IS NULL
      AND NOT EXISTS (SELECT FROM syncd.changes c WHERE c.entry_id = e.id AND c.origin = 'local')
    UNION ALL
    SELECT 'relations have no remote id', count(*) FROM crm.relations WHERE remote_id IS NULL
"""
