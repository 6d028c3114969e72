"""How a setting's text becomes a value. No message here may repeat the text it was given: it may be a secret."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, unquote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

_FACETS = ("tag", "group", "field")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def _names(value: object) -> object:
    """Split ``a, b`` into a set; a TOML list passes as it is."""
    if isinstance(value, str):
        return frozenset(part.strip() for part in value.split(",") if part.strip())
    return value


def _pairs(value: object) -> object:
    """Split ``a=X, b=Y`` into a mapping; a TOML table passes as it is."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if any(part.count("=") != 1 for part in parts):
        raise ValueError("must read like name=value,name=value")
    return {name.strip(): word.strip() for name, word in (part.split("=") for part in parts)}


def _verbs(value: Mapping[str, str]) -> Mapping[str, str]:
    allowed = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    if any(verb.upper() not in allowed for verb in value.values()):
        raise ValueError("each verb must be one of GET, POST, PUT, PATCH, DELETE")
    return {name: verb.upper() for name, verb in value.items()}


def _places(value: Mapping[str, str]) -> Mapping[str, str]:
    if any(place.lower() not in {"query", "form", "json"} for place in value.values()):
        raise ValueError("each place must be one of query, form, json")
    return {name: place.lower() for name, place in value.items()}


def _owners(value: Mapping[str, str]) -> Mapping[str, str]:
    owners, columns = {"local", "remote", "hold"}, {"email", "first_name", "suffix", "last_name", "gender"}
    for name, owner in value.items():
        kind, colon, rest = name.partition(":")
        if owner not in owners:
            raise ValueError("each owner must be one of local, remote, hold")
        if name not in columns | {"tags", "groups", "fields"} and not (colon and rest and kind in _FACETS):
            raise ValueError(
                f"may name {', '.join(sorted(columns))}, tags, groups, fields, tag:NAME, group:TITLE, field:CODE alone"
            )
    return value


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _base_url(value: str) -> str:
    """Accept https, or plain http to this machine; return it with exactly one slash at its end."""
    if not value:
        return ""
    parts = _split(value)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must be a URL such as https://api.e-act.nl/api/1.0/")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no user name, password, query or fragment: credentials have settings of their own")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("must start with https:// (plain http is for this machine's own addresses, for tests)")
    return value.rstrip("/") + "/"


def _split(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("is not a time zone name such as Europe/Amsterdam")
    ZoneInfo(value)
    return value


def _account_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            "must be lower-case letters, digits, - or _, at most 63 of them, starting with a letter or digit"
        )
    return value


def _path(value: object) -> object:
    """A blank path is no path; ``~`` is the home directory."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return Path(str(value)).expanduser()


def _shelf(value: object) -> object:
    """A blank place is none; ``file:///path`` is a path; any other URL is left for fsspec to make something of."""
    if not isinstance(value, str) or not value.strip():
        return None if isinstance(value, str) else value
    text = value.strip()
    if "://" in text and not text.startswith("file:"):
        return _storage(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ValueError("must be a file:/// URL of this machine")
        text = unquote(parts.path)
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("must be a whole path from / on, for the daemon and your shell start elsewhere")
    return path


def _storage(url: str) -> str:
    parts = _split(url)
    if parts.scheme in ("http", "https", "data"):
        raise ValueError("must be a directory or the URL of a storage; that kind of URL cannot be written to")
    if parts.password:
        raise ValueError("must hold no password: fsspec takes credentials from its own settings and the storage's")
    return url.rstrip("/")


Names = Annotated[frozenset[str], NoDecode, BeforeValidator(_names)]
Verbs = Annotated[Mapping[str, str], NoDecode, BeforeValidator(_pairs), AfterValidator(_verbs)]
Owned = Annotated[Mapping[str, str], NoDecode, BeforeValidator(_pairs), AfterValidator(_owners)]
Places = Annotated[Mapping[str, str], NoDecode, BeforeValidator(_pairs), AfterValidator(_places)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
ZoneName = Annotated[str, AfterValidator(_zone)]
AccountName = Annotated[str, AfterValidator(_account_name)]
OptionalPath = Annotated[Path | None, BeforeValidator(_path)]
OptionalShelf = Annotated[Path | str | None, BeforeValidator(_shelf)]
