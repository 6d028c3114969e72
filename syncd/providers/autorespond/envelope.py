"""Finds the payload in an answer: under ``data``, under the operation's own key, or bare; and the ``error`` in it.

What every answer of this API looks like is unknown but for two reads, so each of the three forms is accepted and a
fourth is refused. A list that is not there is an error, never an empty list: else a change of shape would look like
"everything was deleted". Two candidates in one answer are refused too, because choosing would be a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec

from syncd.domain.errors import MalformedAnswer, ShapeChanged
from syncd.providers.autorespond.elements import UNREADABLE, Elements, Piece
from syncd.providers.autorespond.mending import mended
from syncd.providers.autorespond.wording import quoted
from syncd.providers.contract import Effect, Endpoint, Response

_HEAD = 64 * 1024
_SHOWN = 4096
_SECRET = re.compile(r'("accesscode"\s*:\s*)("[^"]*"?|[^",}\s]+)', re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\r\n"
_GENERIC = {"list": ("list",), "boolean": ("result", "status", "success")}
_STARTS = {"list": b"[n", "object": b"{n", "boolean": b'tfn"01', "id": b'"0123456789', "text": b'"0123456789'}
_WORD = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANYTHING = msgspec.json.Decoder()


def keys_of(row: Endpoint) -> tuple[str, ...]:
    """Return the envelope keys that may hold an operation's payload, in lower case."""
    own = (row.payload_key,) if row.payload_key else ()
    return tuple(dict.fromkeys(("data", *own, *_GENERIC.get(row.shape, ()))))


def pieces(response: Response, row: Endpoint) -> Iterator[Piece]:
    """Read the list in an answer piece by piece; null is an empty list.

    Raises MalformedAnswer, early or late, for anything that is not one complete list in a known envelope.
    """
    chunks = response.chunks()
    head = _head_of(chunks)
    keys = keys_of(row)
    start, seen = _opening(head, keys)
    if start is None:
        _check_ended(head, chunks)
        if not _is_null_list(seen, keys):
            told = f"The answer to {row.operation} holds no list under {' or '.join(keys)}."
            raise ShapeChanged(told, _shown(head))
        return
    elements = Elements(_then(head[start:], chunks))
    yield from elements
    _check_tail(elements.tail, None if seen is None else keys)


def payload(body: bytes, row: Endpoint) -> bytes:
    """Return the JSON text of the payload of a small answer; a bare word such as TRUE comes back as a JSON text.

    Raises MalformedAnswer when the body is empty, HTML, not JSON, or not of the operation's shape.
    """
    text = body.removeprefix(_BOM).strip()
    refuse_html(text)
    text = text if _is_json(text) else mended(text)
    if text.startswith(b"{"):
        return _unwrapped(text, row)
    if _WORD.fullmatch(text) and row.shape in ("boolean", "text", "object") and not _is_json(text):
        text = msgspec.json.encode(text.decode())
    if not _is_json(text) or text[:1] not in _starts(row):
        _refuse(row, text)
    return text


def error_of(response: Response, row: Endpoint) -> str | None:
    """Return the text of a truthy ``error`` in an answer, of whatever status, or None. Looks at its start."""
    head = next(response.chunks(_HEAD), b"")[:_HEAD]
    try:
        if response.spool is None and len(response.body) <= _HEAD:
            body = response.body.removeprefix(_BOM)
            seen = _ANYTHING.decode(body if _is_json(body) else mended(body))
        else:
            seen = _opening(head.removeprefix(_BOM).lstrip(), keys_of(row))[1]
    except (MalformedAnswer, *UNREADABLE):
        return None
    return _error_text({str(key).lower(): value for key, value in seen.items()}) if isinstance(seen, dict) else None


def is_html(response: Response) -> bool:
    """Tell whether an answer is a page for people: what a proxy or a servlet container says when the API is ill.

    The body decides: servlets call everything text/html that nobody gave a type, a plain TRUE as well.
    """
    head = next(response.chunks(256), b"").removeprefix(_BOM).lstrip()
    return head[:1] == b"<" if head else "html" in response.headers.get("content-type", "").lower()


def refuse_html(text: bytes) -> None:
    """Raise MalformedAnswer when a body is HTML, empty or missing."""
    if not text:
        raise MalformedAnswer("The answer is empty.")
    if text[:1] == b"<":
        raise MalformedAnswer("The answer is HTML, not JSON: something between syncd and the API answered.")


def _head_of(chunks: Iterator[bytes]) -> bytes:
    head = b""
    while len(head) < _HEAD and (chunk := next(chunks, None)) is not None:
        head += chunk
    head = head.removeprefix(_BOM).lstrip()
    refuse_html(head)
    return head


def _then(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _opening(head: bytes, keys: tuple[str, ...]) -> tuple[int | None, dict[str, Any] | None]:
    """Return where the list's elements start (None: no list), and the envelope's keys before it (None: bare).

    The head is read as Latin-1, so that positions in text and bytes are the same; keys are ASCII anyway.
    """
    if head[:1] == b"[":
        return 1, None
    if head[:1] != b"{":
        return None, None if head.strip() == b"null" else {}
    try:
        return _walk(head[: 2 * _HEAD].decode("latin-1"), keys)
    except (ValueError, IndexError, RecursionError):
        raise MalformedAnswer("The answer is not JSON, or is cut off before its payload.") from None


def _walk(text: str, keys: tuple[str, ...]) -> tuple[int | None, dict[str, Any]]:
    seen: dict[str, Any] = {}
    at = _skip(text, 1)
    while text[at] != "}":
        name, at = _JSON.raw_decode(text, at)
        at = _expect(text, _skip(text, at), ":")
        if name.lower() in keys and text[at] == "[":
            _check_envelope(seen, keys)
            return at + 1, seen
        seen[name.lower()], at = _JSON.raw_decode(text, at)
        at = _skip(text, at)
        at = at if text[at] == "}" else _expect(text, at, ",")
    return None, seen


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, mark: str) -> int:
    if text[at] != mark:
        raise ValueError(mark)
    return _skip(text, at + 1)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _check_ended(head: bytes, chunks: Iterator[bytes]) -> None:
    """Refuse a body that goes on after its only value."""
    body = head + b"".join(chunks)
    if not _is_json(body):
        raise MalformedAnswer("The answer is not one JSON document.")


def _is_null_list(seen: dict[str, Any] | None, keys: tuple[str, ...]) -> bool:
    if seen is None:
        return True
    _check_error(seen)
    held = [key for key in keys if key in seen]
    return len(held) == 1 and seen[held[0]] is None


def _check_tail(tail: bytes, keys: tuple[str, ...] | None) -> None:
    """Refuse what must not follow the list: for a bare one anything, for an enveloped one a second payload or error."""
    if keys is None:
        if tail.strip():
            raise MalformedAnswer("The answer goes on after its list.")
        return
    try:
        rest = msgspec.json.decode(b'{"":0' + tail, type=dict[str, Any])
    except UNREADABLE:
        raise MalformedAnswer("The answer is cut off or goes on after its list.") from None
    _check_envelope({key.lower(): value for key, value in rest.items()}, keys)


def _check_envelope(seen: dict[str, Any], keys: tuple[str, ...]) -> None:
    _check_error(seen)
    if any(key in seen for key in keys):
        raise ShapeChanged(f"The answer has two payloads, under {' and '.join(keys)}; none of them is believed.")


def _check_error(seen: dict[str, Any]) -> None:
    text = _error_text(seen)
    if text is not None:
        raise MalformedAnswer(f"The CRM answered with an error: {text}.")


def _error_text(seen: dict[str, Any]) -> str | None:
    error = seen.get("error")
    if isinstance(error, dict):
        told = (error.get(key) for key in ("message", "text", "error", "description", "code"))
        error = next((word for word in told if word), None) or (error and "no text")
    if not error:
        return None
    return quoted("no text" if error is True else str(error))


def _unwrapped(text: bytes, row: Endpoint) -> bytes:
    try:
        told = {key.lower(): bytes(raw) for key, raw in _OBJECT.decode(text).items()}
    except UNREADABLE as error:
        raise MalformedAnswer(f"The answer to {row.operation} is not JSON: {error}.") from None
    if "error" in told:
        _check_error({"error": _ANYTHING.decode(told["error"])})
    starts = _starts(row)
    for key in keys_of(row):
        if key in told and (key == "data" or told[key][:1] in starts):
            if told[key][:1] not in starts:
                _refuse(row, text)
            return told[key]
    if row.shape != "object":
        _refuse(row, text)
    return text


def _starts(row: Endpoint) -> tuple[bytes, ...]:
    """Return the first bytes that a payload may have; a write that should show an object may also just say yes."""
    starts = _STARTS.get(row.shape, b"")
    if row.shape == "object" and row.effect is not Effect.SAFE:
        starts += _STARTS["boolean"]
    return tuple(starts[at : at + 1] for at in range(len(starts)))


def _is_json(text: bytes) -> bool:
    try:
        text.decode()
        _ANYTHING.decode(text)
    except UNREADABLE:
        return False
    return True


def _refuse(row: Endpoint, text: bytes) -> NoReturn:
    raise ShapeChanged(f"The answer to {row.operation} is not the {row.shape} that it should be.", _shown(text))


def _shown(text: bytes) -> bytes:
    """Return the beginning of an answer, as a JSON text, without what may be a secret."""
    told = text[:_SHOWN].decode(errors="ignore").replace("\0", "")
    return msgspec.json.encode(_SECRET.sub(r'\1"(hidden)"', told))
