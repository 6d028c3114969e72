"""The spellings in which one secret may turn up in text: as it is, and as each layer between us and a log writes it."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_SHORTEST_BASE64 = 6


def spellings(secret: str) -> frozenset[str]:
    """Return every spelling, the secret itself included; none is empty."""
    encoded = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        quote(quote(secret, safe=""), safe=""),
    }
    forms = encoded | {_ESCAPE.sub(lambda escape: escape[0].lower(), text) for text in encoded}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret)}
    forms |= {repr(secret)[1:-1], repr(secret.encode())[2:-1]}
    forms |= {json.dumps(form)[1:-1] for form in tuple(forms)}
    return frozenset(form for form in forms | _base64(secret.encode()) if form)


def _base64(secret: bytes) -> set[str]:
    """The base64 text of the secret at each of the three places it can start in a longer one (``user:secret``).

    The first and last characters there depend on the neighbours, so only the certain middle is kept.
    """
    forms = set()
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * offset + secret).decode().rstrip("=")
            first = (0, 2, 3)[offset]
            certain = text[first : (offset + len(secret)) * 8 // 6]
            if len(certain) >= _SHORTEST_BASE64:
                forms.add(certain)
    return forms
