"""Logs: one line per event, JSON off a terminal and pretty on one, and never a secret in any of them.

Theory of operation. There is one way out (``sink``): our own structlog events and every record of the standard
library's ``logging`` (httpx, aiohttp, asyncio, alembic, apscheduler, warnings, uncaught exceptions) become one event
dictionary, run through one chain, and are written as one line to standard error. Redaction is a step of that chain, so
nothing can be logged around it: texts, nested values, exception texts and tracebacks. Tracebacks never show local
variables.

What is hidden (``redaction``):

* every value given to ``add_secrets``, as it is and in the spellings in which it travels: percent- and form-encoded,
  JSON- and Python-escaped, HTML-escaped, base64;
* by name, whether registered or not: values of query, form, JSON and Python-dictionary parameters such as ``key``,
  ``admin``, ``password``, ``token``, ``email``, ``fieldValue``, credentials headers, passwords inside URLs;
* e-mail addresses, wherever they stand. The one exception: a field named ``email`` of our own debug events.

A CRM's record that a command shows goes through ``redact_record``: secrets by name or value are hidden, addresses stay.

Redaction never raises: a line that cannot be redacted is replaced, not let through.
"""

from syncd.log.redaction import add_secrets, redact, redact_record
from syncd.log.sink import configure, get

__all__ = ["add_secrets", "configure", "get", "redact", "redact_record"]
