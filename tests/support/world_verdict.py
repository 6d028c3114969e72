"""Did the world come out as it must? Each law looks at the evidence and says in a sentence what it finds wrong.

The laws compare the simulator's journal with the model of the committed edits, and the outbox's rows with themselves.
What is not delivered must be explained by something that the schedule did; what is delivered must be there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from syncd.sandbox import Relation, RequestLine
from tests.support.world_model import COLUMNS, Called, Model, Person, compute, state_of
from tests.support.world_play import Evidence

WAITING = frozenset({"dead", "parked", "diverged", "held"})
DELIVERED = frozenset({"verified", "accepted", "diverged"})
IDENTITY = frozenset({"create_relation", "change_email"})
FINE = frozenset({"answered", "delay", "throttled"})


@dataclass(slots=True)
class Case:
    """The evidence, the model, and who is who: the CRM's relation of each person, and that person's entries."""

    evidence: Evidence
    model: Model
    there: dict[int, Relation] = field(default_factory=dict)
    entries: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    lines: dict[int, list[RequestLine]] = field(default_factory=dict)
    trails: dict[int, list[tuple[str, object, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, evidence: Evidence) -> Case:
        case = cls(evidence, compute(evidence.start, evidence.ledger))
        for person in case.model.people.values():
            found = _find(person, evidence)
            if found is not None:
                case.there[person.who] = found
        entries: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in evidence.entries:
            entries[entry["relation_id"] or -1].append(entry)
        case.entries = entries
        case.lines = _lines(case)
        case.trails = _trails(case)
        return case

    def waiting(self, who: int) -> list[dict[str, Any]]:
        return [entry for entry in self.entries.get(who, ()) if entry["status"] in WAITING]


def complaints(evidence: Evidence) -> list[str]:
    """Return everything that is wrong; nothing means that all laws hold."""
    case = Case.of(evidence)
    laws = (everybody, delivered_or_explained, same_in_the_end, in_order, once, barriers, settled_once, unfenced)
    return [*evidence.oddities, *(f"{law.__name__}: {found}" for law in laws for found in law(case))]


# The laws ------------------------------------------------------------------------------------------------------------


def everybody(case: Case) -> Iterator[str]:
    """Each relation is in the CRM once, under the id that the mirror knows, and nobody else is."""
    evidence = case.evidence
    for person in case.model.people.values():
        made = [each for each in evidence.sandbox.journal.of("relation.created") if _is_about(each.after, person)]
        if len(made) > 1:
            yield f"relation {person.who} was created {len(made)} times"
        found = case.there.get(person.who)
        if found is None and not case.waiting(person.who):
            yield f"relation {person.who} is not in the CRM"
        bound = evidence.bound.get(person.who)
        if found is not None and bound != str(found.id) and not case.waiting(person.who):
            yield f"relation {person.who} is {found.id} in the CRM and {bound} in the mirror"
    strangers = set(evidence.sandbox.world.relations) - {each.id for each in case.there.values()}
    if strangers:
        yield f"nobody asked for relations {sorted(strangers)}"


def delivered_or_explained(case: Case) -> Iterator[str]:
    """What is not delivered waits for a person for a reason that the schedule gave, or behind such an entry."""
    for who, entries in case.entries.items():
        blocked: set[str] = set()
        for entry in entries:
            facet, status = entry["facet"], entry["status"]
            if status in WAITING:
                blocked.add("*" if entry["operation"] in IDENTITY else facet)
                if not _is_explained(case, who, entry):
                    yield f"{_named(entry)} is {status} for no reason of ours: {entry['error']}"
            elif status == "pending" and not blocked & {"*", facet} and not _is_kept_by_doubt(entry, entries):
                yield f"{_named(entry)} is still pending"
        if case.evidence.is_decided and blocked:
            yield f"relation {who} still has something that waits for a person"


def _is_kept_by_doubt(entry: dict[str, Any], entries: list[dict[str, Any]]) -> bool:
    """An older value is not said again before a newer one that may have been applied: that one waits for a person."""
    return entry["reasserts"] is not None and any(
        each["facet"] == entry["facet"] and each["status"] in WAITING and each["is_uncertain"] for each in entries
    )


def same_in_the_end(case: Case) -> Iterator[str]:
    """The CRM holds the last committed value of everything that does not wait."""
    for person in case.model.people.values():
        found, waiting = case.there.get(person.who), case.waiting(person.who)
        if found is None or any(entry["operation"] in IDENTITY for entry in waiting):
            continue
        state = state_of(found, case.evidence.sandbox.world)
        stuck = {entry["facet"] for entry in waiting}
        for facet, wanted in person.now().items():
            group = "profile" if facet in COLUMNS[1:] else facet
            if state[facet] != wanted and group not in stuck and not _was_lied_to(case, person.who, facet):
                yield f"relation {person.who}: {facet} is {state[facet]!r}, committed was {wanted!r}"
    waits = {entry["facet"] for entry in case.waiting(-1)}
    for name in case.model.new_fields:
        made = sum(each.name == name for each in case.evidence.sandbox.world.fields.values())
        is_lied = any(line.fate == "yes" for line in case.lines.get(-1, ()))
        if made > 1 or (made == 0 and f"new_field:{name}" not in waits and not is_lied):
            yield f"field {name} is there {made} times"


def in_order(case: Case) -> Iterator[str]:
    """Per facet the effects are those of the commits, in their order: some may be left out, none comes again later.

    Where requests land late, an older value may come again; the end is what counts then.
    """
    if case.evidence.schedule.climate.is_late:
        return
    for person in case.model.people.values():
        effects: defaultdict[str, list[object]] = defaultdict(list)
        for facet, value, _ in case.trails.get(person.who, ()):
            effects[facet].append(value)
        for facet, values in effects.items():
            history = person.histories.get(facet)
            if history is None:
                yield f"relation {person.who}: {facet} was touched, which nobody asked for"
            elif not _is_in_order(values, history):
                yield f"relation {person.who}: {facet} went {values}, committed was {history}"


def once(case: Case) -> Iterator[str]:
    """No subscription is begun or ended more often than was asked for; in the end exactly as often."""
    for person in case.model.people.values():
        for number in {call.list_id for call in person.calls}:
            for is_on in (True, False):
                asked = sum(call.list_id == number and call.is_on == is_on for call in person.calls)
                done = len(_requests(case, person.who, number, is_on))
                word = "subscribed" if is_on else "unsubscribed"
                if done > asked:
                    yield f"relation {person.who} was {word} {done} times to {number}, asked for was {asked}"
                if case.evidence.is_decided and done + _lies(case, person.who, number, is_on) < asked:
                    yield f"relation {person.who} was {word} {done} times only to {number}, asked for was {asked}"


def barriers(case: Case) -> Iterator[str]:
    """A subscription meets the relation as it was when the application asked: all before it, nothing after.

    Looked at where nothing went wrong for the relation; elsewhere a failing facet is passed, which is meant (G6).
    """
    for person in case.model.people.values():
        found = case.there.get(person.who)
        is_plain = all(line.fate in FINE for line in case.lines.get(person.who, ())) and not case.waiting(person.who)
        if found is None or not person.calls or not is_plain or person.who in case.evidence.dropped:
            continue
        seen = _seen_by_calls(case, person)
        for call, state in zip(person.calls, seen, strict=False):
            other = {
                facet: (state.get(facet), value) for facet, value in call.seen.items() if state.get(facet) != value
            }
            if other:
                yield f"relation {person.who}: a call about list {call.list_id} met (found, committed before): {other}"


def settled_once(case: Case) -> Iterator[str]:
    """An entry is settled as delivered by one attempt, and every delivered entry has one."""
    if case.evidence.is_decided:
        return
    count: defaultdict[int, int] = defaultdict(int)
    for attempt in case.evidence.attempts:
        count[attempt["entry_id"]] += attempt["outcome"] in DELIVERED
    for entry in case.evidence.entries:
        if count[entry["id"]] > 1:
            yield f"{_named(entry)} was settled as delivered {count[entry['id']]} times"
        if entry["status"] in DELIVERED and not count[entry["id"]]:
            yield f"{_named(entry)} is {entry['status']} without an attempt"


def unfenced(case: Case) -> Iterator[str]:
    """Nobody loses a lane whose lease runs: without an incident nothing is ever fenced."""
    if case.evidence.fenced and not case.evidence.schedule.incidents:
        yield f"{case.evidence.fenced} results were fenced although nobody was killed, stalled or cut off"


# What they look at ---------------------------------------------------------------------------------------------------


def _find(person: Person, evidence: Evidence) -> Relation | None:
    world = evidence.sandbox.world
    if not person.is_new:
        return world.relations.get(person.who)
    for effect in evidence.sandbox.journal.of("relation.created"):
        if _is_about(effect.after, person):
            return world.relations[int(effect.subject.split(":")[1])]
    return None


def _is_about(profile: object, person: Person) -> bool:
    return isinstance(profile, dict) and str(profile["email"]).lower() in person.addresses


def _lines(case: Case) -> dict[int, list[RequestLine]]:
    """Sort the requests by whom they were about; the account's own are under -1."""
    by_id = {str(relation.id): who for who, relation in case.there.items()}
    by_address = {address: who for who, person in case.model.people.items() for address in person.addresses}
    lines: defaultdict[int, list[RequestLine]] = defaultdict(list)
    for line in case.evidence.sandbox.requests:
        given = line.parameters
        number = given.get("relId") or (given.get("id") if line.path.find("/relation/") > 0 else None)
        who = by_id.get(number or "") or by_address.get(given.get("email", "").lower())
        lines[who if who is not None else -1].append(line)
    return lines


def _trails(case: Case) -> dict[int, list[tuple[str, object, int]]]:
    """Return every effect on every person: facet, value after, by which request. A list's group is nobody's facet."""
    by_id = {relation.id: who for who, relation in case.there.items()}
    lists = case.evidence.sandbox.world.lists.values()
    moved = {f"group:{each.group_id}" for each in lists}
    trails: defaultdict[int, list[tuple[str, object, int]]] = defaultdict(list)
    for effect in case.evidence.sandbox.journal:
        if not effect.subject.startswith("relation:"):
            continue
        subject, _, rest = effect.subject.partition("/")
        who = by_id.get(int(subject.removeprefix("relation:")))
        if who is not None:
            person = case.model.people[who]
            code = case.evidence.sandbox.world.fields.get(rest)
            for facet, value in _facets(effect.kind, effect.before, effect.after, str(code.id) if code else ""):
                if facet in person.histories or facet not in moved:
                    trails[who].append((facet, value, effect.request))
    return trails


def _facets(kind: str, was: Any, now: Any, rest: str) -> Iterator[tuple[str, object]]:
    match kind:
        case "relation.created":
            yield from ((name, now[name]) for name in COLUMNS)
        case "relation.changed" | "relation.email_changed":
            yield from now.items()
        case "tag.added" | "tag.removed":
            yield f"tag:{now or was}", kind == "tag.added"
        case "group.joined" | "group.left":
            yield f"group:{now or was}", kind == "group.joined"
        case "field.set":
            yield f"field:{rest}", now


def _is_in_order(values: Iterable[object], history: list[object]) -> bool:
    """Tell whether values are some of a history, in its order; one may be said again before the next."""
    place = 0
    for value in values:
        try:
            place = history.index(value, place)
        except ValueError:
            return False
    return True


def _requests(case: Case, who: int, number: int, is_on: bool) -> list[int]:
    """Return the requests by which a relation was put on a list or taken off it; one may have been applied twice."""
    found = case.there.get(who)
    kind = "list.subscribed" if is_on else "list.unsubscribed"
    effects = case.evidence.sandbox.journal.of(kind, f"relation:{found.id}/list:{number}") if found else []
    return list(dict.fromkeys(effect.request for effect in effects))


def _seen_by_calls(case: Case, person: Person) -> list[dict[str, object]]:
    """Replay a relation's effects; return what stood at each of its calls, in the order of the model's calls."""
    state: dict[str, object] = {facet: history[0] for facet, history in person.histories.items()}
    trail = list(case.trails.get(person.who, ()))
    seen: dict[int, dict[str, object]] = {}
    made = {request for call in person.calls for request in _requests(case, person.who, call.list_id, call.is_on)}
    order = [effect for effect in case.evidence.sandbox.journal if effect.request]
    by_request: defaultdict[int, list[tuple[str, object]]] = defaultdict(list)
    for facet, value, request in trail:
        by_request[request].append((facet, value))
    for request in dict.fromkeys(effect.request for effect in order):
        if request in made:
            seen[request] = dict(state)
        state.update(by_request.get(request, ()))
    return [seen[request] for request in _in_turn(case, person)]


def _in_turn(case: Case, person: Person) -> Iterator[int]:
    """Return the request of each call of the model: the n-th of its kind is the n-th of its kind."""
    left: dict[tuple[int, bool], list[int]] = {}
    for call in person.calls:
        queue = left.setdefault(_key(call), _requests(case, person.who, call.list_id, call.is_on))
        if queue:
            yield queue.pop(0)


def _key(call: Called) -> tuple[int, bool]:
    return call.list_id, call.is_on


def _was_lied_to(case: Case, who: int, facet: str) -> bool:
    """Tell whether the last request about a facet was answered yes and not done; without a read it stays so."""
    code = next((each.code for each in case.evidence.sandbox.world.fields.values() if facet == f"field:{each.id}"), "")
    about = [line for line in case.lines.get(who, ()) if _is_write_of(line, facet, code)]
    return bool(about) and about[-1].fate == "yes"


def _lies(case: Case, who: int, number: int, is_on: bool) -> int:
    """Count the calls about a list that were answered yes and not done: nobody knows whether a mail went out."""
    operation = "list_subscribe" if is_on else "list_unsubscribe"
    about = [line for line in case.lines.get(who, ()) if line.operation == operation and line.fate == "yes"]
    return sum(line.parameters.get("listId") == str(number) for line in about)


def _is_write_of(line: RequestLine, facet: str, code: str) -> bool:
    given, (kind, _, number) = line.parameters, facet.partition(":")
    match kind:
        case "tag":
            return line.operation in ("tag_add", "tag_remove") and given.get("tagId") == number
        case "group":
            return line.operation in ("group_add", "group_remove") and given.get("grpId") == number
        case "field":
            return line.operation == "field_set" and given.get("fieldCode") == code
        case "list":
            return line.operation.startswith("list_") and given.get("listId") == number
        case "email":
            return line.operation == "relation_email"
        case _:
            names = {"first_name": "firstName", "last_name": "lastName", "gender": "gender"}
            return line.operation == "relation_upsert" and names[facet] in given


_READS = frozenset({"relation_by_id", "relation_by_email"})
_CALLS = {
    "create_relation": frozenset({"relation_upsert"}),
    "change_email": frozenset({"relation_email"}),
    "update_profile": frozenset({"relation_upsert"}),
    "add_tag": frozenset({"tag_add", "relation_tags"}),
    "remove_tag": frozenset({"tag_remove", "relation_tags"}),
    "set_field": frozenset({"field_set"}),
    "join_group": frozenset({"group_add"}),
    "leave_group": frozenset({"group_remove"}),
    "subscribe": frozenset({"list_subscribe", "relation_subscriptions"}),
    "unsubscribe": frozenset({"list_unsubscribe", "relation_subscriptions"}),
    "create_field": frozenset({"field_create", "fields"}),
}


def _is_explained(case: Case, who: int, entry: dict[str, Any]) -> bool:
    """Tell whether something that the schedule did can have led to this."""
    about = [line for line in case.lines.get(who, ()) if line.operation in _CALLS[entry["operation"]] | _READS]
    match entry["status"]:
        case "dead":
            return any(_is_no(line) for line in about)
        case "diverged":
            return any(line.fate == "yes" for line in about)
        case "parked":
            return who in case.evidence.dropped or any(line.fate not in FINE for line in about)
        case _:
            return False


def _is_no(line: RequestLine) -> bool:
    is_refused = line.fate in ("status", "html") and 400 <= line.status < 500
    return is_refused or line.fate in ("error", "false") or (line.fate, line.operation) == ("twice", "field_create")


def _named(entry: dict[str, Any]) -> str:
    return f"entry {entry['id']} ({entry['operation']} of relation {entry['relation_id']}, {entry['facet']})"
