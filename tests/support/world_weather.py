"""The weather of a faulty world: which request is struck by what is decided by the seed and by the request alone.

The n-th request of one operation and path meets the same fate in every run of a seed, whatever else happens around it;
a draw from one sequence would make it depend on who came first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random

from syncd.sandbox import Fault, Faults, Kind

READS = frozenset({"fields", "tags", "groups", "lists", "relation_by_id", "relation_by_email", "relation_tags"}) | {
    "relation_subscriptions"
}
PROBE = "groups"

# Each kind of weather: the fault that it brings.
WRITES: dict[str, Fault] = {
    "slow": Fault(kind=Kind.DELAY, delay_s=0.06),
    "ill": Fault(kind=Kind.STATUS, status=503),
    "ill, but did it": Fault(kind=Kind.STATUS, status=500, applied=True),
    "throttled": Fault(kind=Kind.STATUS, status=429),
    "throttled for a second": Fault(kind=Kind.STATUS, status=429, retry_after_s=1),
    "gateway": Fault(kind=Kind.HTML, status=502),
    "gateway under 200": Fault(kind=Kind.HTML, status=200, applied=True),
    "reset before": Fault(kind=Kind.RESET),
    "reset after": Fault(kind=Kind.LOST_RESET),
    "lost answer": Fault(kind=Kind.LOST_ANSWER),
    "cut": Fault(kind=Kind.TRUNCATED),
    "garbled": Fault(kind=Kind.MALFORMED),
    "wordless": Fault(kind=Kind.EMPTY_BODY),
    "twice": Fault(kind=Kind.TWICE),
    "error under 200": Fault(kind=Kind.ERROR),
    "a plain no": Fault(kind=Kind.FALSE),
    "not found": Fault(kind=Kind.STATUS, status=404, message="no such method"),
    "unauthorised": Fault(kind=Kind.STATUS, status=401),
}
LIE = ("lie", Fault(kind=Kind.YES))
READ_KINDS = (
    "slow",
    "ill",
    "gateway",
    "gateway under 200",
    "reset before",
    "lost answer",
    "cut",
    "garbled",
    "throttled",
)
ONCE_IN_A_WHILE = frozenset({"throttled for a second", "unauthorised"})
MOST_RARE = 2
# No request lands later than this; a settle window that is longer covers it. So many others are no bound in time: while
# an account is paused or throttled none come, and a window may pass meanwhile.
LATEST_S = 1.0


@dataclass(slots=True)
class Climate:
    """How often a request is struck, by which kinds; ``late_after`` makes some repeat-safe writes land late."""

    chance: float
    kinds: tuple[str, ...]
    is_lying: bool = False
    is_late: bool = False


class Weather(Faults):
    """Stands in a simulator in place of its faults."""

    def __init__(self, seed: int, climate: Climate) -> None:
        super().__init__(seed)
        self._seed = seed
        self._climate = climate
        self._seen: Counter[tuple[str, str]] = Counter()
        self._rare = 0
        self.struck: Counter[str] = Counter()
        self.is_calm = False

    def calm(self) -> None:
        """Strike nothing more."""
        self.is_calm = True

    def take(self, operation: str, verb: str, path: str) -> Fault | None:
        self._seen[operation, path] += 1
        random = Random(f"{self._seed}/{operation}/{path}/{self._seen[operation, path]}")
        chance = self._climate.chance * (2 if operation.startswith("list_") else 1)  # they are few, and matter most
        if self.is_calm or random.random() >= chance:
            return None
        name, fault = self._drawn(operation, random)
        if fault is None or (name in ONCE_IN_A_WHILE and self._rare >= MOST_RARE):
            return None
        self._rare += name in ONCE_IN_A_WHILE
        self.struck[name] += 1
        return fault

    def _drawn(self, operation: str, random: Random) -> tuple[str, Fault | None]:
        if operation == PROBE:
            return "", None
        if operation in READS:
            name = random.choice(READ_KINDS)
            return (name, WRITES[name]) if name in self._climate.kinds else ("", None)
        if self._climate.is_late and random.random() < 0.85:
            return self._late(operation, random)
        if self._climate.is_lying and random.random() < 0.15:
            return LIE
        name = random.choice(self._climate.kinds)
        return name, WRITES[name]

    @staticmethod
    def _late(operation: str, random: Random) -> tuple[str, Fault | None]:
        if operation.startswith("list_") or operation == "field_create":
            return "", None
        if random.random() < 0.3:
            return "late", Fault(kind=Kind.LATE, after=random.randint(1, 12), delay_s=LATEST_S)
        return "late", Fault(kind=Kind.LATE, delay_s=random.uniform(0.1, LATEST_S))


def climate(random: Random, *, is_late: bool = False) -> Climate:
    """Draw the climate of a schedule: mild or foul, with some of the kinds or nearly all."""
    kinds = tuple(name for name in WRITES if random.random() < random.choice((0.5, 0.9)))
    chance = 0.75 if is_late else random.choice((0.03, 0.1, 0.2, 0.35))
    return Climate(chance, kinds or tuple(WRITES), is_lying=random.random() < 0.3, is_late=is_late)
