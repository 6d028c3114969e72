"""Proof: what a read of the CRM proves of delivered changes, and what becomes of them.

* Shown as expected: ``verified``.
* Shown otherwise: ``diverged``, if nothing else can explain it. The grace is over, in which a late request may land; it
  is the last thing that its facet was delivered; nothing of the facet waits to be sent; nobody holds its lane. A day
  later another hand's doing is likelier than a lost write: then nothing is concluded.
* Overtaken by a later delivery: it awaits nothing any more. A diverged one is superseded.

No lane is locked to find this out, because a pull's transaction may last and whoever stages would wait for it. A newer
value that is delivered beside us may therefore leave an entry diverged that it should have superseded; the next read
mends that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import text

from syncd.domain.changes import LocalChange
from syncd.policy.proof import Showing, Sight, still_expected
from syncd.store.engine import Connection
from syncd.store.incidents import open_incidents
from syncd.store.outbox_address import wake_takers
from syncd.store.outbox_awaited import Awaited, Reading, decoded
from syncd.store.outbox_history import history_of
from syncd.store.outbox_incidents import close_for_entries, diverged

# How long after a delivery a read may still call it diverged.
TELLING = timedelta(days=1)

# What became of the awaited facets: what else was delivered, and what waits to be.
_FACETS = text(
    """
    WITH asked AS (
        SELECT lane_id, facet, min(seq) AS first
        FROM unnest(CAST(:lane_ids AS bigint[]), CAST(:facets AS text[]), CAST(:seqs AS bigint[]))
            AS i (lane_id, facet, seq)
        GROUP BY lane_id, facet
    )
    SELECT e.id, e.lane_id, e.facet, e.seq, e.operation, CAST(e.payload AS text) AS payload, e.status, e.settled_at,
           e.reasserts IS NOT NULL AS is_again
    FROM asked a JOIN syncd.entries e ON e.lane_id = a.lane_id AND e.facet = a.facet AND e.seq >= a.first
    WHERE e.status IN ('verified', 'accepted', 'diverged')
    UNION ALL
    SELECT e.id, e.lane_id, e.facet, e.seq, e.operation, NULL, e.status, NULL, false
    FROM asked a JOIN syncd.entries e ON e.lane_id = a.lane_id AND e.facet = a.facet
    WHERE e.status IN ('pending', 'held', 'dead', 'parked')
    ORDER BY lane_id, facet, seq
    """
)

_VERIFY = text(
    """
    UPDATE syncd.entries e
    SET status = 'verified', prove_until = NULL, prove_at = NULL, proved_at = now(), proved_run_id = :run_id,
        error = NULL
    FROM (SELECT lane_id, seq FROM syncd.entries
          WHERE id = ANY (CAST(:ids AS bigint[])) AND status IN ('accepted', 'parked', 'diverged')
          ORDER BY id FOR UPDATE SKIP LOCKED) AS locked
    WHERE e.lane_id = locked.lane_id AND e.seq = locked.seq
    RETURNING e.id
    """
)
_DIVERGE = text(
    """
    UPDATE syncd.entries e
    SET status = 'diverged', prove_at = NULL, proved_at = now(), proved_run_id = :run_id, error = i.error
    FROM (SELECT lane_id, seq, id, relation_id, facet FROM syncd.entries
          WHERE id = ANY (CAST(:ids AS bigint[])) AND status = 'accepted'
          ORDER BY id FOR UPDATE SKIP LOCKED) AS locked
    JOIN unnest(CAST(:ids AS bigint[]), CAST(:errors AS text[])) AS i (id, error) ON i.id = locked.id
    WHERE e.lane_id = locked.lane_id AND e.seq = locked.seq
      AND NOT EXISTS (SELECT FROM syncd.lanes l WHERE l.id = locked.lane_id AND l.claimed_by IS NOT NULL)
      AND NOT EXISTS (SELECT FROM syncd.captures c
                      WHERE c.relation_id IS NOT DISTINCT FROM locked.relation_id AND c.facet = locked.facet)
    RETURNING e.id
    """
)
_REST = text(
    """
    UPDATE syncd.entries e SET prove_until = NULL, prove_at = NULL
    FROM (SELECT lane_id, seq FROM syncd.entries
          WHERE id = ANY (CAST(:ids AS bigint[])) AND status = 'accepted' ORDER BY id FOR UPDATE SKIP LOCKED) AS locked
    WHERE e.lane_id = locked.lane_id AND e.seq = locked.seq
    """
)
_SUPERSEDE = text(
    """
    UPDATE syncd.entries e SET status = 'superseded', superseded_by = i.newer, prove_until = NULL, prove_at = NULL
    FROM unnest(CAST(:ids AS bigint[]), CAST(:newer AS bigint[])) AS i (id, newer)
    WHERE e.id = i.id AND e.status = 'diverged'
    """
)

# A lane that a worker holds goes by the plan that it made: nobody would look at it again for what is proved meanwhile.
# What is parked there is left to the next read.
_FREE = text(
    """
    SELECT e.id FROM syncd.entries e JOIN syncd.lanes l ON l.id = e.lane_id
    WHERE e.id = ANY (CAST(:ids AS bigint[])) AND l.claimed_by IS NULL
    ORDER BY l.relation_id FOR UPDATE OF l SKIP LOCKED
    """
)
# What an e-mail change that may have been applied has passed is locked before that one is believed to be: who holds it
# is not waited for.
_PASSED = text(
    """
    SELECT later.id AS later, e.id FROM syncd.entries later
    JOIN syncd.entries e ON e.lane_id = later.lane_id AND e.seq < later.seq
    WHERE later.id = ANY (CAST(:ids AS bigint[])) AND later.operation = 'change_email'
      AND e.facet = 'identity' AND e.reasserts IS NULL AND e.status IN ('pending', 'dead', 'diverged')
    """
)
_LOCK = text(
    """
    SELECT id FROM syncd.entries WHERE id = ANY (CAST(:ids AS bigint[])) AND status IN ('pending', 'dead', 'diverged')
    ORDER BY id FOR UPDATE SKIP LOCKED
    """
)
_SETTLE_PASSED = text(
    """
    UPDATE syncd.entries e
    SET status = 'superseded', superseded_by = p.later, settled_at = now(), prove_until = NULL, prove_at = NULL
    FROM unnest(CAST(:ids AS bigint[]), CAST(:later AS bigint[])) AS p (id, later)
    WHERE e.id = p.id
    """
)

# What waited behind a parked entry may go, so its lane is looked at at once.
_WAKE = text(
    """
    UPDATE syncd.lanes l SET ready_at = clock_timestamp(), failures = 0, block_reason = NULL
    FROM (SELECT id FROM syncd.lanes WHERE id = ANY (CAST(:ids AS bigint[])) AND claimed_by IS NULL
          ORDER BY relation_id FOR UPDATE SKIP LOCKED) AS free
    WHERE l.id = free.id
    """
)
_HISTORY = text(
    """
    INSERT INTO syncd.changes (account_id, origin, row_id, entry_id, table_name, link_id, kind, before, after)
    VALUES (:account_id, 'local', :row_id, :entry_id, :table_name, :link_id, :kind, CAST(:before AS jsonb),
            CAST(:after AS jsonb))
    """
)


class Concluded(msgspec.Struct, frozen=True):
    """What a read came to: ids of entries."""

    verified: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each divergence, without values."""
        told = "was delivered and the CRM shows something else"
        return tuple(f"entry {one} {told}: syncd outbox show {one}" for one in self.diverged)


NOTHING = Concluded()


async def conclude(
    connection: Connection, reading: Reading, awaited: Sequence[Awaited], look: Callable[[Awaited], Showing]
) -> Concluded:
    """Hold awaited entries against a read and write down what that proves. ``look`` compares one with what was shown;
    the change of the entry that it is given is what still counts of it."""
    if not awaited:
        return NOTHING
    facets = await _read_facets(connection, awaited)
    verified: dict[int, Awaited] = {}
    other: dict[int, tuple[Awaited, Showing]] = {}
    moot: list[tuple[Awaited, int]] = []
    for entry in awaited:
        facet = facets[entry.lane_id, entry.facet]
        counts = facet.expectation(entry)
        if counts is None:
            moot.append((entry, facet.last_id))
            continue
        seen = look(msgspec.structs.replace(entry, change=counts))
        if seen.sight is Sight.EXPECTED:
            verified[entry.id] = entry
        elif seen.sight is Sight.OTHER and facet.may_diverge(entry) and _is_telling(entry, reading):
            other[entry.id] = (entry, seen)
    await _let_rest(connection, moot)
    return Concluded(await _verify(connection, reading, verified), await _diverge(connection, reading, other))


def _is_telling(entry: Awaited, reading: Reading) -> bool:
    return timedelta(seconds=reading.grace_s) <= reading.asked_at - entry.settled_at <= TELLING


class _Facet:
    """What one facet of one lane was delivered, in order, and whether anything of it is not."""

    __slots__ = ("_again", "_delivered", "_expected", "is_quiet", "last_id")

    def __init__(self) -> None:
        self._delivered: list[tuple[int, LocalChange, datetime]] = []
        self._again: list[datetime] = []
        self._expected: dict[int, LocalChange] | None = None
        self.is_quiet = True
        self.last_id = 0

    def add(self, row: Any) -> None:
        if row.settled_at is None:
            self.is_quiet = False
        elif row.is_again:
            self._again.append(row.settled_at)
        elif (change := decoded(row)) is not None:
            self._delivered.append((row.seq, change, row.settled_at))
            self.last_id = row.id

    def expectation(self, entry: Awaited) -> LocalChange | None:
        """Return what the CRM should show because of this entry; None when a later delivery has overtaken it."""
        if entry.is_again:
            return None if any(at > entry.settled_at for _, _, at in self._delivered) else entry.change
        if entry.status == "parked":
            return None if any(seq > entry.seq for seq, _, _ in self._delivered) else entry.change
        if self._expected is None:
            self._expected = still_expected([(seq, change) for seq, change, _ in self._delivered])
        return self._expected.get(entry.seq)

    def may_diverge(self, entry: Awaited) -> bool:
        """Tell whether this entry speaks last for its facet; a reassertion speaks for what it repeats."""
        is_last = entry.is_again or all(at < entry.settled_at for at in self._again)
        return entry.status == "accepted" and self.is_quiet and is_last


async def _read_facets(connection: Connection, awaited: Sequence[Awaited]) -> Mapping[tuple[int, str], _Facet]:
    values = {
        "lane_ids": [entry.lane_id for entry in awaited],
        "facets": [entry.facet for entry in awaited],
        "seqs": [entry.seq for entry in awaited],
    }
    facets = {(entry.lane_id, entry.facet): _Facet() for entry in awaited}
    for row in await connection.execute(_FACETS, values):
        facets[row.lane_id, row.facet].add(row)
    return facets


async def _let_rest(connection: Connection, moot: Sequence[tuple[Awaited, int]]) -> None:
    """Overtaken entries await nothing any more."""
    if not moot:
        return
    await connection.execute(_REST, {"ids": [entry.id for entry, _ in moot]})
    stale = [(entry.id, newer) for entry, newer in moot if entry.status == "diverged"]
    if stale:
        ids, newer = (list(column) for column in zip(*stale, strict=True))
        await connection.execute(_SUPERSEDE, {"ids": ids, "newer": newer})
        await close_for_entries(connection, ids)


async def _verify(connection: Connection, reading: Reading, shown: Mapping[int, Awaited]) -> tuple[int, ...]:
    if not shown:
        return ()
    passed = await _lock_parked(connection, [one for one, entry in shown.items() if entry.status == "parked"])
    free = [one for one, entry in shown.items() if entry.status != "parked" or one in passed]
    values = {"ids": free, "run_id": reading.run_id}
    ids = tuple((await connection.execute(_VERIFY, values)).scalars())
    doubtful = [shown[one] for one in ids if shown[one].status != "accepted"]
    if doubtful:
        await close_for_entries(connection, [entry.id for entry in doubtful])
        await wake_takers(connection, [entry.id for entry in doubtful])
    parked = [entry for entry in doubtful if entry.status == "parked"]
    if parked:
        await _settle_passed(connection, {entry.id: passed[entry.id] for entry in parked})
        await connection.execute(_WAKE, {"ids": [entry.lane_id for entry in parked]})
        await _record_history(connection, reading, parked)
    return ids


async def _lock_parked(connection: Connection, ids: Sequence[int]) -> dict[int, list[int]]:
    """Lock the lanes of parked entries and what those have passed; return by the entry what that is. An entry of which
    somebody else holds either is not among them."""
    if not ids:
        return {}
    passed: dict[int, list[int]] = {one: [] for one in (await connection.execute(_FREE, {"ids": list(ids)})).scalars()}
    for later, earlier in await connection.execute(_PASSED, {"ids": list(passed)}):
        passed[later].append(earlier)
    wanted = [one for earlier in passed.values() for one in earlier]
    locked = set((await connection.execute(_LOCK, {"ids": wanted})).scalars()) if wanted else set()
    return {later: earlier for later, earlier in passed.items() if locked.issuperset(earlier)}


async def _settle_passed(connection: Connection, passed: Mapping[int, Sequence[int]]) -> None:
    """An e-mail change that turns out to be applied supersedes what it has passed, as its delivery would have done:
    sent after it, that would undo it; and as the base of the next change, it would make our own address a stranger's.
    """
    pairs = [(one, later) for later, earlier in passed.items() for one in earlier]
    if pairs:
        ids, later = (list(column) for column in zip(*pairs, strict=True))
        await connection.execute(_SETTLE_PASSED, {"ids": ids, "later": later})
        await close_for_entries(connection, ids)
        await wake_takers(connection, ids)


async def _record_history(connection: Connection, reading: Reading, found: Sequence[Awaited]) -> None:
    """A parked change that turns out to be applied is part of the relation's history from now on."""
    for entry in found:
        row = history_of(entry.change)
        if row is not None and entry.relation_id is not None:
            told = {"account_id": reading.account_id, "row_id": entry.relation_id, "entry_id": entry.id}
            await connection.execute(_HISTORY, {**told, **msgspec.structs.asdict(row)})


async def _diverge(
    connection: Connection, reading: Reading, other: Mapping[int, tuple[Awaited, Showing]]
) -> tuple[int, ...]:
    if not other:
        return ()
    errors = [f"the CRM shows another {', '.join(seen.expected)}" for _, seen in other.values()]
    values = {"ids": list(other), "errors": errors, "run_id": reading.run_id}
    ids = tuple((await connection.execute(_DIVERGE, values)).scalars())
    incidents = [diverged(one, other[one][0].operation, other[one][0].facet, other[one][1]) for one in ids]
    await open_incidents(connection, reading.account_id, incidents)
    return ids
