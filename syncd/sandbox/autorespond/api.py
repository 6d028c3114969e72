"""One request of Autorespond's API: which operation it is, whether it may, and what it does.

``read`` recognises a request without doing anything; ``apply`` does it and says what to answer. Between the two stands
whatever a fault does, so that "applied" and "answered" can come apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest
from urllib.parse import parse_qsl

import msgspec

from syncd.sandbox.autorespond import envelope
from syncd.sandbox.autorespond.call import Call
from syncd.sandbox.autorespond.checks import Arguments, Fall, Refusal, invalid
from syncd.sandbox.autorespond.encode import Encoder
from syncd.sandbox.autorespond.routes import Found, Route, Router
from syncd.sandbox.reply import Reply
from syncd.sandbox.switches import Switches
from syncd.sandbox.world import World

BASE = "/api/1.0/"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
Pairs = tuple[tuple[str, str], ...]
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came off the wire."""

    verb: str
    path: str
    query: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that has been recognised: its operation and route if it has one, and what it gives where."""

    request: Request
    operation: str
    found: Found | None
    route: Route | None
    query: Pairs
    body: Pairs | None
    given: dict[str, str]


class Autorespond:
    """The API over one world, under one set of switches."""

    def __init__(self, world: World, switches: Switches) -> None:
        self._world = world
        self._switches = switches
        self._encoder = Encoder(world, switches)
        self._router = Router(switches)
        self._key = world.administration.key.encode()
        self._admin = str(world.administration.id).encode()

    def warm(self) -> None:
        """Encode every order now, so that the first answer is as quick as the later ones."""
        for order in self._world.orders.values():
            self._encoder.order(order)

    def read(self, request: Request) -> Visit:
        """Recognise a request; nothing is checked and nothing happens yet."""
        found = self._router.find(request.path.removeprefix(BASE))
        route = found.by_verb.get(request.verb) if found else None
        query, body = _pairs(request.query), _body(request)
        given = {**dict(query), **dict(body or ()), **(found.names if found else _NOTHING)}
        return Visit(request, route.operation if route else "none", found, route, query, body, given)

    def apply(self, visit: Visit) -> Reply:
        """Do what a request asks, wholly or not at all, and return the answer."""
        if visit.found is None:
            return envelope.error(404, "no such method", self._switches)
        if visit.route is None:
            return self._other_verb(visit, visit.found)
        try:
            query = dict(visit.query)
            admin, key = query.pop("admin", ""), query.pop("key", "")
            if visit.route.is_signed:
                self._check_key(admin, key)
            arguments = Arguments(visit.found.names, self._parameters(visit, visit.route, query))
            payload = visit.route.answer(Call(self._world, self._switches, self._encoder, arguments))
        except Refusal as refused:
            return envelope.refusal(refused, self._switches)
        return envelope.answer(payload, visit.route, self._switches, self._encoder)

    def _other_verb(self, visit: Visit, found: Found) -> Reply:
        allowed = {"Allow": ", ".join(sorted({*found.by_verb, "OPTIONS"}))}
        if visit.request.verb == "OPTIONS" and self._switches.options:
            return Reply(200, headers=allowed)
        headers = allowed if self._switches.allow_header else {}
        return envelope.error(405, "method not allowed", self._switches, headers)

    def _check_key(self, admin: str, key: str) -> None:
        if not (compare_digest(admin.encode(), self._admin) and compare_digest(key.encode(), self._key)):
            raise Refusal(Fall.WRONG_KEY, "invalid admin or key")

    def _parameters(self, visit: Visit, route: Route, query: dict[str, str]) -> dict[str, str]:
        """Return the parameters that stand where this operation reads them; any other is refused."""
        place = route.place(visit.request.verb, self._switches)
        body = visit.body
        if body is None or (body and place not in (_place(visit.request), "any")):
            raise invalid("the body is not one that this method reads")
        if query and place not in ("query", "any"):
            raise invalid(f"parameter not read from the query: {min(query)}")
        given = {**query, **dict(body)}
        if len(dict(visit.query)) < len(visit.query) or len(query) + len(body) > len(given):
            raise invalid("a parameter is given twice")
        strangers = given.keys() - set(route.parameters) if given else ()
        if strangers and self._switches.unknown_parameters == "refuse":
            raise invalid(f"unknown parameter: {min(strangers)}")
        return given


def _place(request: Request) -> str:
    return "json" if request.content_type == JSON else "form"


@lru_cache(1024)
def _pairs(text: str) -> Pairs:
    """Read a query or form; the credentials alone are the same text in most requests, hence the cache."""
    return tuple(parse_qsl(text, keep_blank_values=True))


def _body(request: Request) -> Pairs | None:
    """Return the parameters of the body; None if it is neither a form nor a JSON object of scalars."""
    if not request.body:
        return ()
    try:
        if request.content_type == JSON:
            scalars = msgspec.json.decode(request.body, type=dict[str, str | int | float | bool])
            return tuple((name, _text(value)) for name, value in scalars.items())
        if request.content_type == FORM:
            return tuple(parse_qsl(request.body.decode(), keep_blank_values=True))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None


def _text(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
