"""How far the CRM's clock is ahead of ours, from the ``Date`` headers of its answers.

A ``Date`` is cut to whole seconds, so one sample is off by up to one; the median of the last few is good to about
half a second, and one wild answer (a cache, a proxy with its own idea of time) does not move it. Headers are parsed
only when their text changes, or has not changed for too long: about once a second, whatever the rate of requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from statistics import median

_SAMPLES = 9
_SAME_SECOND = timedelta(seconds=2)


class SkewGauge:
    """Remembers the last samples of one server."""

    __slots__ = ("_last_at", "_last_text", "_samples")

    def __init__(self) -> None:
        self._last_text = ""
        self._last_at: datetime | None = None
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    @property
    def skew_s(self) -> float | None:
        """Server time minus ours in seconds; None until an answer told the time."""
        return median(self._samples) if self._samples else None

    @property
    def latest_s(self) -> float | None:
        """The last sample alone, good to about a second: after a jump of a clock it knows what the median does not."""
        return self._samples[-1] if self._samples else None

    def is_news(self, text: str | None, received_at: datetime) -> bool:
        """Tell whether this header says something that the last one did not.

        The same time again, later, says that their clock was set back, by chance to the very second.
        """
        if text is None or self._last_at is None:
            return text is not None
        return text != self._last_text or abs(received_at - self._last_at) > _SAME_SECOND

    def observe(self, headers: Mapping[str, str], received_at: datetime) -> None:
        """Take one sample from an answer's (lower-case) headers. A cached answer tells an old time: no sample."""
        text = headers.get("date", "")
        self._last_text, self._last_at = text, received_at
        if headers.get("age", "0").strip() not in ("", "0"):
            return
        try:
            told = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return
        told = told.replace(tzinfo=UTC) if told.tzinfo is None else told
        self._samples.append((told - received_at).total_seconds() + 0.5)
