"""HTTP: how a ``Request`` value becomes bytes on a socket and an ``Answer`` value comes back.

Theory of operation. Four layers, each a file, lowest first:

* ``wire``: one pool of connections (aiohttp's connector and response parser) and the ``Exchange``: one request and
  its answer on one connection. We write the request's bytes ourselves, so the instant before which nothing can have
  been applied is a line of our own code (``is_sent``), nothing is ever sent twice behind our back (aiohttp repeats
  GET, PUT and DELETE when a kept connection breaks), and no redirect, cookie or proxy exists.
* ``message``: checks the base URL and renders a ``Request`` with the account's credentials; the only code that sees
  both. Credentials live in rendered bytes for the length of one exchange and in no value that anybody else holds.
* ``httpx_transport``: the same wire under the httpx API (``httpx.AsyncClient(transport=AiohttpTransport(wire))``).
* ``client``: ``Transport``, what the pipelines use. ``send`` goes over the wire directly; ``download`` goes through
  an httpx client on that transport and spools the body to disk.

Why ``send`` does not build httpx objects: an outbox delivery is one small POST. Measured on one core, 32 at a time, in
one run of ``benchmarks/transport.py`` (requests a second, best of three):

{figures}

Answers are values. After ``is_sent`` every fault is ``MaybeApplied``; before it every fault is ``NotSent``; a complete
answer of any status, redirects included, is ``Answered``. Reasons are fixed clauses: no URL, no host, no text that
the server sent. Cancellation always propagates and closes the connection.
"""

from syncd.transport.client import Transport, TransportCounters
from syncd.transport.httpx_transport import AiohttpTransport
from syncd.transport.limits import TransportLimits
from syncd.transport.wire import Wire

__all__ = ["AiohttpTransport", "Transport", "TransportCounters", "TransportLimits", "Wire"]
