"""The names of settings: what they are called outside, which strangers are let by, and what a typo was meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

PREFIX = "SYNCD_"

# Kubernetes puts these into every pod for a Service called `syncd` or `syncd-...`; they are none of ours.
_KUBERNETES = re.compile(
    r"SYNCD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
# The test suite's own switches must not stop a command that is run beside it.
_TESTS = re.compile(r"SYNCD_(TEST|HYPOTHESIS)_\w+")


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def is_foreign(name: str, value: str | None) -> bool:
    """Tell whether a ``SYNCD_`` variable is put there by others and is no typo."""
    is_address = name.endswith("_PORT") and _KUBERNETES_ADDRESS.fullmatch(value or "")
    return bool(is_address or _KUBERNETES.fullmatch(name) or _TESTS.fullmatch(name))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the advice for an unknown name: the nearest right one, or where to find them all."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return "known are " + ", ".join(names) if len(names) < 24 else "config.example.env lists them all"
