"""Wraps a payload or an error as the switches say: under ``data``, under its own name, bare, or as text."""

from __future__ import annotations

import msgspec

from syncd.sandbox.autorespond.call import File, Payload, Rows
from syncd.sandbox.autorespond.checks import Fall, Refusal
from syncd.sandbox.autorespond.encode import Encoder
from syncd.sandbox.autorespond.routes import Route
from syncd.sandbox.reply import PLAIN, Reply
from syncd.sandbox.switches import Switches

_json = msgspec.json.Encoder()


def answer(payload: Payload, route: Route, switches: Switches, encoder: Encoder) -> Reply:
    """Return a payload as a successful reply."""
    if isinstance(payload, File):
        return Reply(200, payload.content, content_type=payload.content_type)
    if switches.envelope == "text" and (payload is True or payload == "ok"):
        return Reply(200, b"TRUE" if payload is True else b"ok", content_type=PLAIN)
    opening, closing = _around(route, switches)
    if isinstance(payload, Rows) and not payload.rows and switches.empty_lists == "null":
        return Reply(200, opening + b"null" + closing)
    if isinstance(payload, Rows):
        return Reply(200, opening + b"[", payload.rows, b"]" + closing, is_list=True)
    body = encoder.row(payload) if isinstance(payload, dict) else _json.encode(payload)
    return Reply(200, opening + body + closing)


def _around(route: Route, switches: Switches) -> tuple[bytes, bytes]:
    match switches.envelope:
        case "bare":
            return b"", b""
        case "named":
            return b'{"%s":' % route.named.encode(), b"}"
        case "titled":
            return b'{"%s":' % route.named.title().encode(), b"}"
        case _:
            return b'{"data":', b"}"


def refusal(refused: Refusal, switches: Switches) -> Reply:
    """Return a refusal in the form that the switches give it."""
    if refused.fall is Fall.UNKNOWN and switches.unknown == 204:
        return Reply(200, b'{"data":null}')
    status: int = getattr(switches, refused.fall.value)
    return error(status, refused.message, switches)


def error(status: int, message: str, switches: Switches, headers: dict[str, str] | None = None) -> Reply:
    """Return an error with its message, as a text or as an object."""
    shown: object = message if switches.error_shape == "string" else {"code": status, "message": message}
    return Reply(status, _json.encode({"error": shown}), headers=headers or {})
