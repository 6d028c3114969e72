"""Turns a request value into bytes for the wire. The only code that sees a request and its credentials together.

Renders the target once, from text that is already percent-encoded: nothing encodes it a second time and nothing
decodes it, so an invoice number ``2023/001`` arrives as ``2023%2F001`` and an address ``a+b@`` as ``a%2Bb%40``.
Refuses whatever could start a second header or a second request.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, urlsplit

from yarl import URL

from syncd import __version__
from syncd.domain.errors import ConfigurationError
from syncd.providers.contract import Auth, Request

USER_AGENT = f"syncd/{__version__}"

_PATH = re.compile(r"(?!/)(?!(?:.*/)?\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_TEXT = re.compile(r"[\x20-\x7e\t]*")
_BODILESS_VERBS = frozenset({"GET", "HEAD", "OPTIONS"})
_Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Base:
    """A checked base URL: where to connect, what to put in Host, and the path that every request's path follows."""

    origin: URL
    host: str
    path: str


def parse_base(base_url: str) -> Base:
    """Check a base URL: https, or http to this machine alone; no user, query or fragment.

    Raises ConfigurationError; the URL itself is never in the text, because a pasted one may carry credentials.
    """
    try:
        parts = urlsplit(base_url.strip())
        port, host = parts.port, parts.hostname
        origin = URL(f"{parts.scheme}://{parts.netloc}").origin() if host else None
    except ValueError:
        raise _refused("is not a URL") from None
    if host is None or origin is None or parts.scheme not in ("https", "http"):
        raise _refused("must look like https://host/path")
    if ":" not in host and not _HOST.fullmatch(origin.raw_host or ""):
        raise _refused("has a host name that cannot exist")
    if "@" in base_url:  # anywhere: a password with a slash in it ends up in the path
        raise _refused("must not carry a user name or password")
    if parts.query or parts.fragment or "?" in base_url or "#" in base_url:
        raise _refused("must not carry a query or fragment")
    if port == 0:
        raise _refused("has no usable port")
    if parts.scheme == "http" and not _is_loopback(host):
        raise _refused("must be https; plain http is for addresses of this machine alone (127.0.0.1, ::1, localhost)")
    path = parts.path.strip("/")
    if not _PATH.fullmatch(path):
        raise _refused("has a path with characters that must be percent-encoded")
    return Base(origin, origin.host_port_subcomponent or host, f"/{path}/" if path else "/")


def _refused(why: str) -> ConfigurationError:
    return ConfigurationError(f"the base URL of the CRM {why}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Signer:
    """Renders requests to one base URL, signed with one account's credentials."""

    __slots__ = ("_anonymous", "_auth_query", "_signed", "base")

    def __init__(self, base: Base, auth: Auth) -> None:
        self.base = base
        common = f"Host: {base.host}\r\nUser-Agent: {USER_AGENT}\r\nAccept-Encoding: gzip, deflate\r\n"
        self._auth_query = query_text(tuple(auth.query.items()))
        self._anonymous = common
        self._signed = common + "".join(_header(name, value) for name, value in auth.headers.items())

    def target(self, request: Request) -> str:
        """Return the request target: base path, path, and the query with the credentials last."""
        if not _PATH.fullmatch(request.path):
            raise ValueError(f"{request.operation}: the path is not percent-encoded segment by segment")
        query = query_text(request.query) if request.query else ""
        if request.is_signed and self._auth_query:
            query = f"{query}&{self._auth_query}" if query else self._auth_query
        path = self.base.path + request.path
        return f"{path}?{query}" if query else path

    def headers(self, request: Request, body: bytes) -> str:
        """Return the header lines, each ended, for a request whose body is ``body``."""
        if not _HEADER_TEXT.fullmatch(request.accept):
            raise ValueError(f"{request.operation}: the media type is not plain text")
        lines = f"{self._signed if request.is_signed else self._anonymous}Accept: {request.accept}\r\n"
        if request.form:
            lines += "Content-Type: application/x-www-form-urlencoded\r\n"
        elif request.json is not None:
            lines += "Content-Type: application/json\r\n"
        if body or request.verb not in _BODILESS_VERBS:
            lines += f"Content-Length: {len(body)}\r\n"
        return lines

    def render(self, request: Request) -> bytes:
        """Return the whole message. Raises ValueError for a request that no endpoint row can have built."""
        if not _TOKEN.fullmatch(request.verb):
            raise ValueError(f"{request.operation}: the verb is no HTTP method")
        body = body_bytes(request)
        return f"{request.verb} {self.target(request)} HTTP/1.1\r\n{self.headers(request, body)}\r\n".encode() + body


def body_bytes(request: Request) -> bytes:
    """Return the request's body: form, JSON or nothing."""
    if request.form:
        return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in request.form).encode()
    return request.json or b""


def query_text(pairs: _Pairs) -> str:
    """Return the pairs as a query string; a space is ``%20``, a plus ``%2B``, whatever reads it."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


def _header(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name) or not _HEADER_TEXT.fullmatch(value):
        raise ConfigurationError(f"the credential for header {name!r} holds a character that no header can carry")
    return f"{name}: {value}\r\n"
