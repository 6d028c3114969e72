"""Takes secrets and addresses out of text. Errs towards hiding too much; never raises.

Cheap where nothing can match: plain substring searches decide which of the expressions run at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from syncd.log.spellings import spellings

HIDDEN = "<redacted>"
ADDRESS = "<email>"
_SHORTEST = 4
_BARE_FROM = 8

_NAMES = (
    "key|admin|api_?key|password|passwd|pwd|secret|client_?secret|token|access_?token|auth|authorization|credentials?"
    "|dsn|email|e-?mail|new_?email|relationEmail|field_?value"
)
_HEADERS = "authorization|proxy-authorization|x-auth-token|x-api-key|api-key|cookie|set-cookie"
_NAMED = re.compile(
    rf"(?i)(?<![A-Za-z_])({_NAMES})(\s*=\s*|%3D)(?!<redacted>)(?:'[^'\n]*'|\"[^\"\n]*\"|[^&\s'\"<>\\,;)\]}}]*)",
)
_QUOTED = re.compile(rf"(?i)(\\*['\"](?:{_NAMES}|{_HEADERS})\\*['\"]\s*[:,]\s*b?)(\\*)(['\"])(?:(?!\2\3).)*\2\3")
_HEADER = re.compile(rf"(?im)(?<![\w-])({_HEADERS})(\s*:\s*)[^\r\n\"']+")
_URL_PASSWORD = re.compile(r"(://[^\s:/@?#'\"]*:)[^\s'\"]*?(@(?=[^\s@/'\"]*(?:[\s/'\"]|$)))")
_EMAIL = re.compile(r"[\w.+%~!#$*-]{1,64}(?:@|%40|%2540|\\u0040)[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_SUSPECT = re.compile(r"[@=%:,\\]")
_EMAIL_MARKS = ("@", "%40", "%2540", "\\u0040")

SENSITIVE_FIELDS = frozenset(
    {"password", "passwd", "secret", "token", "api_key", "apikey", "credentials", "authorization", "auth", "dsn"}
)
"""Names under which an event's field is hidden whatever it holds."""

_NEVER_SHOWN = SENSITIVE_FIELDS | {"pwd", "client_secret", "access_token", "refresh_token", "access_code", "cookie"}

_forms: tuple[str, ...] = ()
_bounded: tuple[re.Pattern[str], ...] = ()
_registered: set[str] = set()


def add_secrets(values: Iterable[str]) -> None:
    """Register values that must never be seen, with all their spellings, for the life of the process.

    Values under 4 characters are left to the rules by name: hiding every ``1`` would make logs unreadable. Values under
    8 are hidden only where they stand alone.
    """
    global _forms, _bounded
    _registered.update(value for value in values if len(value) >= _SHORTEST)
    long = {form for value in _registered if len(value) >= _BARE_FROM for form in spellings(value)}
    short = {form for value in _registered if len(value) < _BARE_FROM for form in spellings(value)}
    _forms = tuple(sorted(long, key=len, reverse=True))
    _bounded = tuple(re.compile(rf"(?<!\w){re.escape(form)}(?!\w)") for form in sorted(short, key=len, reverse=True))


def redact(text: str) -> str:
    """Return the text without secrets and without e-mail addresses."""
    try:
        return _without_addresses(_without_named(redact_registered(str(text))))
    except Exception:  # noqa: BLE001 (it runs inside error paths: it must not raise, and must not let text through)
        return "<text withheld: it could not be redacted>"


def redact_registered(text: str) -> str:
    """Return the text without registered secrets: the last look at a rendered line, whatever produced it."""
    for form in _forms:
        if form in text:
            text = text.replace(form, HIDDEN)
    for pattern in _bounded:
        text = pattern.sub(HIDDEN, text)
    return text


def redact_record(text: str) -> str:
    """Return a CRM's record, JSON as text, without secrets. Addresses stay: it is shown to whoever asked for them."""
    try:
        return json.dumps(_without_secrets(json.loads(text, parse_float=_number)), ensure_ascii=False)
    except Exception:  # noqa: BLE001 (as above: what cannot be read is not let through)
        return json.dumps("<record withheld: it could not be redacted>")


def redact_field(name: str, value: object) -> object:
    """Return a named value as plain as JSON, without named secrets and addresses.

    Registered secrets are left to ``redact_registered`` on the rendered line: once per line, not once per field.
    """
    if name.lower() in SENSITIVE_FIELDS and value is not None:
        return HIDDEN
    return _plain(value)


def _number(spelled: str) -> float | str:
    """Return a number; one that is too large for it as its text, because JSON has no infinity."""
    number = float(spelled)
    return number if math.isfinite(number) else spelled


def _without_secrets(value: object) -> object:
    match value:
        case dict():
            return {
                redact_registered(key): HIDDEN if _is_secret(key) else _without_secrets(item)
                for key, item in value.items()
            }
        case list():
            return [_without_secrets(item) for item in value]
        case _:
            told = str(value)
            shown = redact_registered(told)
            return value if shown == told else shown


def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "").replace("_", "")
    return any(plain == hidden.replace("_", "") for hidden in _NEVER_SHOWN)


def _plain(value: object) -> object:
    match value:
        case str():
            return _without_addresses(_without_named(value)) if _SUSPECT.search(value) else value
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): redact_field(str(key), item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case bytes():
            return _plain(value.decode("utf-8", "backslashreplace"))
    return _plain(str(value))


def _without_named(text: str) -> str:
    if "://" in text and "@" in text:
        text = _URL_PASSWORD.sub(rf"\1{HIDDEN}\2", text)
    if "=" in text or "%3D" in text or "%3d" in text:
        text = _NAMED.sub(rf"\1\2{HIDDEN}", text)
    if ":" in text or "'," in text or '",' in text:
        text = _QUOTED.sub(rf"\1\2\3{HIDDEN}\2\3", text)
        text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    return text


def _without_addresses(text: str) -> str:
    return _EMAIL.sub(ADDRESS, text) if any(mark in text for mark in _EMAIL_MARKS) else text
