"""Drift: one run's look at the shape of its answers, from the first batch to what is written of it.

It watches batches as they are decoded, and speaks at two points: before anything is committed it says whether the
answer may be believed (a key from which columns are written must not be gone from all of it), and in the transaction
that closes the run it writes down what was learned. It never touches a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from syncd.domain.errors import KeyVanished
from syncd.domain.records import Row
from syncd.policy.shape import Glimpse, learn
from syncd.providers.contract import Decoded, Stream
from syncd.store import Connection, shapes
from syncd.store.runs import Run


@dataclass(slots=True)
class Drift:
    """What a run sees of the shape of a stream, and the sentences that somebody should hear of it."""

    stream: str = ""
    glimpse: Glimpse | None = None
    told: list[str] = field(default_factory=list)

    @property
    def is_strange(self) -> bool:
        """Whether a key has been seen that was never seen before."""
        return self.glimpse is not None and self.glimpse.is_strange

    async def begin(self, connection: Connection, run: Run, stream: Stream) -> None:
        """Read what is known of the stream's keys. A stream whose keys nobody declared is not watched."""
        self.stream = stream.name
        if stream.keys is not None:
            known = await shapes.known(connection, run.account_id, stream.name)
            self.glimpse = Glimpse(known, stream.keys)

    def watch(self, batch: Decoded) -> Decoded:
        """Look at a decoded batch, in whatever thread it was decoded; return it with doubts about rows that lack what
        all had before, so that nothing known is overwritten with what they do not say."""
        if self.glimpse is None:
            return batch
        refused = [one.raw for one in batch.refused]
        doubtful = [row.raw for row in batch.rows if row.warnings]
        raws = [row.raw for row in batch.rows]
        lacking = self.glimpse.look(raws, doubtful + refused, is_strange=batch.is_strange)
        if not lacking:
            return batch
        doubt = f"{', '.join(lacking)}: not there, as it always was; what is known of it stays"
        return replace(batch, rows=[Row(row.record, row.raw, (*row.warnings, doubt)) for row in batch.rows])

    def pass_over(self, count: int) -> None:
        """Note records that were not decoded, because their very text is known."""
        if self.glimpse is not None:
            self.glimpse.familiar += count

    def believe(self) -> None:
        """Raise KeyVanished when a key that was always there, and that columns are written from, is in no record."""
        lost = () if self.glimpse is None else self.glimpse.lost()
        if lost:
            keys = " and ".join(lost)
            verb = "was" if len(lost) == 1 else "were"
            advice = f"see `syncd shapes`; if that is for good: `syncd shapes accept {self.stream} {lost[0]}`"
            raise KeyVanished(f"{keys} {verb} always there and are in no record of the answer: not believed; {advice}")

    async def write(self, connection: Connection, run: Run, *, is_believed: bool = True) -> None:
        """Write down what was learned; of an answer that was not believed only what is gone from it. Does nothing the
        second time."""
        if self.glimpse is None:
            return
        gone = set(self.glimpse.vanished())
        news = [one for one in learn(self.glimpse) if is_believed or one.key in gone]
        self.told += await shapes.learn(connection, run.account_id, run.stream, news)
        self.glimpse = None
