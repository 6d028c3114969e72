"""HTTP: how a ``Request`` value becomes bytes on a socket and an ``Answer`` value comes back.

Theory of operation. Four layers, each a file, lowest first:

* ``wire``: one pool of connections (aiohttp's connector and response parser) and the ``Exchange``: one request and
  its answer on one connection. We write the request's bytes ourselves, so the instant before which nothing can have
  been applied is a line of our own code (``is_sent``), nothing is ever sent twice behind our back (aiohttp repeats
  GET, PUT and DELETE when a kept connection breaks), and no redirect, cookie or proxy exists.
* ``message``: checks the base URL and renders a ``Request`` with the account's credentials; the only code that sees
  both. Credentials live in rendered bytes for the length of one exchange and in no value that anybody else holds.
* ``httpx_transport``: the same wire under the httpx API (``httpx.AsyncClient(transport=AiohttpTransport(wire))``).
* ``client``: ``Transport``, what the pipelines use. ``send`` goes over the wire directly; ``download`` hands an
  httpx request to that transport and spools the decoded body to disk. No ``httpx.AsyncClient`` is involved there: it
  would keep cookies, parse redirects and log URLs.

Why ``send`` does not build httpx objects: an outbox delivery is one small POST, and httpx's own objects cost several
times the exchange. ``python -m benchmarks.transport``, 32 at a time, one run on two slow cores, requests a second:

    bare aiohttp session         13,300   1.00
    Transport.send               19,600   1.47
    Transport.download            5,300   0.40   httpx.Request and Response on our wire, spooled
    httpx over our transport      3,200   0.24   httpx.AsyncClient on our wire
    stock httpx                     380   0.03

Answers are values. After ``is_sent`` every fault is ``MaybeApplied``; before it every fault is ``NotSent``; a complete
answer of any status, redirects included, is ``Answered``. Reasons are fixed clauses: no URL, no host, no text that
the server sent. Cancellation always propagates and closes the connection.
"""

from syncd.transport.client import Transport, TransportCounters
from syncd.transport.httpx_transport import AiohttpTransport
from syncd.transport.limits import TransportLimits
from syncd.transport.wire import Wire

__all__ = ["AiohttpTransport", "Transport", "TransportCounters", "TransportLimits", "Wire"]
