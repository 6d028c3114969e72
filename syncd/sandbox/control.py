"""The simulator's own endpoint, ``/_sandbox/...`` on the same port: look at the state, turn switches, move time, break.

Plain JSON in and out. It is no part of any CRM: whoever talks to it knows that this is a simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from syncd.domain.errors import UserError
from syncd.sandbox.edits import Edit, apply
from syncd.sandbox.faults import Fault
from syncd.sandbox.records import Relation
from syncd.sandbox.switches import as_json

if TYPE_CHECKING:
    from syncd.sandbox.server import Sandbox

PREFIX = "/_sandbox/"
Query = dict[str, list[str]]


class _Time(msgspec.Struct, forbid_unknown_fields=True):
    """A move of the clock: forward by seconds, or to an instant."""

    advance_s: float = 0.0
    set: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Control:
    """The verbs of the control endpoint."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._verbs: dict[tuple[str, str], Callable[[Query, bytes], object]] = {
            ("GET", "state"): self._state,
            ("GET", "journal"): self._journal,
            ("GET", "requests"): self._requests,
            ("GET", "relation"): self._relation,
            ("GET", "relations"): self._relations,
            ("GET", "faults"): self._faults,
            ("POST", "faults"): self._add_fault,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "switches"): self._switches,
            ("POST", "switches"): self._turn,
            ("POST", "clock"): self._move_clock,
            ("POST", "edit"): self._edit,
            ("POST", "release"): self._release,
            ("POST", "land"): self._land,
        }

    def answer(self, verb: str, path: str, query: str, body: bytes) -> web.Response:
        """Answer one control request; what cannot be read is a 400 with the reason."""
        found = self._verbs.get((verb, path.removeprefix(PREFIX)))
        if found is None:
            return _json(404, {"error": "no such control", "controls": [" ".join(each) for each in self._verbs]})
        try:
            return _json(200, found(parse_qs(query), body))
        except (UserError, msgspec.MsgspecError, ValueError) as error:
            return _json(400, {"error": str(error)})
        except KeyError as error:
            return _json(404, {"error": f"there is no {error}"})

    def _state(self, query: Query, body: bytes) -> object:
        sandbox, world = self._sandbox, self._sandbox.world
        return {
            "now": sandbox.clock.now(),
            "base_url": sandbox.base_url,
            "admin": sandbox.admin,
            "relations": len(world.relations),
            "orders": len(world.orders),
            "invoices": len(world.invoices),
            "tags": {str(tag.id): tag.name for tag in world.tags.values()},
            "groups": {str(group.id): group.title for group in world.groups.values()},
            "effects": len(world.journal),
            "planned_mails": len(world.mails),
            "requests": sandbox.requests.total,
            "requests_by_operation": sandbox.requests.by_operation,
            "requests_by_status": {str(status): count for status, count in sandbox.requests.by_status.items()},
            "requests_by_fate": sandbox.requests.by_fate,
            "held": sandbox.held,
            "late": sandbox.late,
            "faults": sandbox.faults.as_json(),
            "switches": as_json(sandbox.switches),
        }

    def _journal(self, query: Query, body: bytes) -> object:
        return self._sandbox.journal.since(_since(query))

    def _requests(self, query: Query, body: bytes) -> object:
        return self._sandbox.requests.since(_since(query))

    def _relation(self, query: Query, body: bytes) -> object:
        world = self._sandbox.world
        if "id" in query:
            return _shown(world.relations[int(query["id"][0])])
        email = query.get("email", [""])[0]
        found = world.relation(email)
        if found is None:
            raise KeyError(email)
        return _shown(found)

    def _relations(self, query: Query, body: bytes) -> object:
        return [_shown(each) for each in self._sandbox.world.relations.values()]

    def _faults(self, query: Query, body: bytes) -> object:
        return self._sandbox.faults.as_json()

    def _add_fault(self, query: Query, body: bytes) -> object:
        return {"number": self._sandbox.faults.add(Fault.read(msgspec.json.decode(body, type=dict[str, Any])))}

    def _clear_faults(self, query: Query, body: bytes) -> object:
        self._sandbox.faults.clear(int(query["number"][0]) if "number" in query else None)
        return self._sandbox.faults.as_json()

    def _switches(self, query: Query, body: bytes) -> object:
        return as_json(self._sandbox.switches)

    def _turn(self, query: Query, body: bytes) -> object:
        self._sandbox.turn(self._sandbox.switches.turned(**msgspec.json.decode(body, type=dict[str, Any])))
        return as_json(self._sandbox.switches)

    def _move_clock(self, query: Query, body: bytes) -> object:
        move = msgspec.json.decode(body, type=_Time)
        if move.set is not None:
            self._sandbox.clock.set(move.set)
        return {"now": self._sandbox.clock.advance(move.advance_s)}

    def _edit(self, query: Query, body: bytes) -> object:
        return {"made": apply(self._sandbox.world, msgspec.json.decode(body, type=Edit))}

    def _release(self, query: Query, body: bytes) -> object:
        return {"released": self._sandbox.release()}

    def _land(self, query: Query, body: bytes) -> object:
        return {"landed": self._sandbox.land()}


def _since(query: Query) -> int:
    return int(query.get("since", ["0"])[0])


def _shown(relation: Relation) -> dict[str, object]:
    return msgspec.structs.asdict(relation)


def _json(status: int, content: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(content), content_type="application/json")
