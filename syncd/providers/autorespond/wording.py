"""How the CRM's own words may be quoted in a reason or warning: short, on one line, without addresses or keys.

What the CRM says ends up in attempts, logs and pages. Known secrets are redacted there again; here goes whatever
looks like an e-mail address, a URL or a credential, because a provider does not know the account's key.
"""

from __future__ import annotations

import re

LONGEST = 200
_ADDRESS = re.compile(r"[^\s@\"'<>(),;:]+(?:@|%40)[^\s@\"'<>(),;:]+")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_CREDENTIAL = re.compile(r"\b(key|admin|password|email|newemail|fieldValue)\b(\s*[=:]\s*|\s+)[\"']?(?=\S*\d)\S+", re.I)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


def quoted(text: str, longest: int = LONGEST) -> str:
    """Return a foreign text fit to stand in a reason: one line, masked, at most ``longest`` characters."""
    line = _UNPRINTABLE.sub(" ", text[: 20 * LONGEST]).strip()
    line = _URL.sub("(a URL)", line)
    line = _ADDRESS.sub("(an address)", line)
    line = _CREDENTIAL.sub(r"\1 (hidden)", line)
    return line if len(line) <= longest else line[: longest - 1] + "…"
