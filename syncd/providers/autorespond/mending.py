"""Mends JSON that is broken in its texts alone, so that one name cut in the middle does not cost a whole answer.

Asked only after a decoder refused, never on a good day. It replaces what is inside one text or number and moves no
bracket, comma or quote: an answer that is cut off or glued together stays so. What cannot be known becomes the
replacement sign (escaped, so that it can be told from one the CRM sent), and ``decode`` warns of it. Such texts come
from half an emoji (a text cut by length), raw line ends, Latin-1 among UTF-8.
"""

from __future__ import annotations

import re

_LONGEST_NUMBER = 400
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]*', re.DOTALL)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}|u0000)|.)",
    re.DOTALL,
)
_CONTROL = re.compile(rb"[\x00-\x1f]")


def mended(text: bytes) -> bytes:
    """Return JSON text with its unreadable texts and numbers replaced; what is broken elsewhere stays broken."""
    return _TOKEN.sub(_mended_token, text)


def _mended_token(found: re.Match[bytes]) -> bytes:
    token = found.group()
    if token[:1] == b'"':
        return _mended_text(token)
    return token if len(token) <= _LONGEST_NUMBER else b'"' + token + b'"'


def _mended_text(token: bytes) -> bytes:
    token = _ESCAPE.sub(lambda found: rb"\ufffd" if found.group(1) else found.group(), token)
    token = _CONTROL.sub(lambda found: b"\\u%04x" % (found.group()[0] or 0xFFFD), token)
    return token if token.isascii() else token.decode(errors="replace").replace("\ufffd", "\\ufffd").encode()
