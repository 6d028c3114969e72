"""Shapes: what was learned of each stream's records, and what is told of a key that is odd.

An unknown key is a notice: one line when it is met first, and it stands in ``syncd status`` until somebody accepts it.
A key that vanished or changed its type is an incident of its own, open until the key is well again or accepted. The
record that shows it is kept here, never in a text that is logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.policy.shape import Drift, Known, Learned
from syncd.store import run_holds
from syncd.store.decisions import Decision, record
from syncd.store.engine import Connection
from syncd.store.incidents import close_incidents, open_incidents
from syncd.store.runs import Run
from syncd.store.suppression import suppressed
from syncd.store.unread import is_hidden

_KNOWN = text("""
    SELECT key, is_usual, types, drift FROM syncd.shapes
    WHERE account_id = :account_id AND stream = :stream AND key <> ''
""")
_LEARN = text("""
    INSERT INTO syncd.shapes AS s (account_id, stream, key, is_usual, types, drift, record, noticed_at)
    VALUES (:account_id, :stream, :key, :is_usual, :types, :drift, :record, CASE WHEN :is_news THEN now() END)
    ON CONFLICT (account_id, stream, key) DO UPDATE
    SET is_usual = excluded.is_usual, types = excluded.types, drift = excluded.drift,
        record = CASE WHEN :is_news THEN excluded.record WHEN excluded.drift IS NOT NULL THEN s.record END,
        noticed_at = CASE WHEN :is_news THEN now() WHEN excluded.drift IS NOT NULL THEN s.noticed_at END,
        accepted_at = CASE WHEN NOT :is_news AND excluded.drift IS NOT NULL THEN s.accepted_at END
""")
_ENVELOPE = text("""
    INSERT INTO syncd.shapes (account_id, stream, key, drift, record, noticed_at)
    VALUES (:account_id, :stream, '', 'envelope', :record, now())
    ON CONFLICT (account_id, stream, key) DO UPDATE SET record = COALESCE(excluded.record, shapes.record)
    WHERE shapes.record IS NULL
""")
_LIST = text("""
    SELECT a.name AS account, s.stream, s.key, s.drift, s.types, s.noticed_at, s.accepted_at, s.record
    FROM syncd.shapes s JOIN crm.accounts a ON a.id = s.account_id
    WHERE s.drift IS NOT NULL AND (:with_accepted OR s.accepted_at IS NULL)
      AND (CAST(:account AS text) IS NULL OR a.name = :account)
    ORDER BY a.name, s.stream, s.key
""")
# A key that is gone for good is not usual any more; a new type or an unknown key stays what it is, and is told no more.
_ACCEPT = text("""
    UPDATE syncd.shapes s
    SET accepted_at = now(), record = NULL, is_usual = CASE WHEN drift = 'vanished' THEN false ELSE is_usual END,
        drift = CASE WHEN drift <> 'vanished' THEN drift END
    FROM crm.accounts a
    WHERE a.id = s.account_id AND s.stream = :stream AND s.key = :key AND s.drift IS NOT NULL AND s.accepted_at IS NULL
      AND (CAST(:account AS text) IS NULL OR a.name = :account)
    RETURNING s.account_id, a.name AS account
""")
_ADVICE = {
    Drift.VANISHED: (
        "; nothing of the answer was written. If the CRM has dropped it for good, `syncd shapes accept {stream} {key}`"
    ),
    Drift.RETYPED: "; it is kept in raw and what was known stays. Upgrade syncd, then `syncd reproject`",
    Drift.ENVELOPE: " Nothing of it was written; syncd may have to be upgraded, `syncd shapes` shows the answer",
    Drift.UNKNOWN: "; it is kept in raw. `syncd shapes accept {stream} {key}` when you have seen it",
}
_ASIDE = "; it is kept in raw and in no column. If that is well, `syncd shapes accept {stream} {key}`"


@dataclass(frozen=True, slots=True)
class Odd:
    """A key that is odd, as an operator sees it. ``record`` is the offending record as text: of a person, perhaps."""

    account: str
    stream: str
    key: str
    drift: str
    types: tuple[str, ...]
    noticed_at: datetime
    accepted_at: datetime | None
    record: str | None


async def known(connection: Connection, account_id: AccountId, stream: str) -> Mapping[str, Known]:
    """Return what was learned of a stream's keys."""
    rows = await connection.execute(_KNOWN, {"account_id": account_id, "stream": stream})
    return {row.key: Known(row.is_usual, frozenset(row.types), row.drift and Drift(row.drift)) for row in rows}


async def learn(connection: Connection, account_id: AccountId, stream: str, news: Sequence[Learned]) -> tuple[str, ...]:
    """Write down what an answer taught; return one sentence for each key that somebody should hear of."""
    told: list[str] = []
    hidden = await suppressed(connection, account_id) if news else None
    for one in news:
        record = None if one.record is None or is_hidden(hidden, one.record) else one.record.decode()
        values = {"is_usual": one.known.is_usual, "types": sorted(one.known.types), "drift": one.known.drift}
        given = {"account_id": account_id, "stream": stream, "key": one.key, "is_news": one.is_news}
        await connection.execute(_LEARN, {**given, **values, "record": record})
        if one.is_well:
            await close_incidents(connection, account_id, IncidentKind.SHAPE, [subject(stream, one.key)])
        if one.is_news and one.known.drift is not None:
            told.append(await _tell(connection, account_id, stream, one))
    return tuple(told)


async def tell_envelope(connection: Connection, run: Run, reason: str, record: bytes) -> None:
    """Open the incident about answers of another form, or count it up, and keep one of them (its beginning, or the
    first record that is odd). ``reason`` names keys and types alone. A run that succeeds closes it."""
    hidden = await suppressed(connection, run.account_id)
    kept = None if not record or is_hidden(hidden, record) else record.decode()
    await connection.execute(_ENVELOPE, {"account_id": run.account_id, "stream": run.stream, "record": kept})
    sentence = f"{run.stream}: {reason}{_ADVICE[Drift.ENVELOPE]}"
    incident = Incident(IncidentKind.SHAPE, run_holds.subject(run.stream), sentence, {"run": run.id})
    await open_incidents(connection, run.account_id, [incident])


async def _tell(connection: Connection, account_id: AccountId, stream: str, one: Learned) -> str:
    assert one.known.drift is not None
    advice = _ADVICE[one.known.drift] if one.is_declared else _ASIDE
    sentence = f"{stream}: {one.words}{advice.format(stream=stream, key=one.key)}"
    if one.known.drift is not Drift.UNKNOWN:
        incident = Incident(IncidentKind.SHAPE, subject(stream, one.key), sentence, {"key": one.key})
        await open_incidents(connection, account_id, [incident])
    return sentence


async def list_odd(
    connection: Connection, *, account: str | None = None, with_accepted: bool = False
) -> tuple[Odd, ...]:
    """Return the keys that are odd, those that nobody has accepted alone unless asked for all."""
    binds = {"account": account, "with_accepted": with_accepted}
    rows = (await connection.execute(_LIST, binds)).mappings()
    return tuple(Odd(**{**row, "types": tuple(row["types"])}) for row in rows)


async def accept(
    connection: Connection, stream: str, key: str, actor: str, account: str | None = None
) -> tuple[str, ...]:
    """Let a key be as it is now; return the accounts concerned, none when it is not odd. Who decided it is kept."""
    binds = {"stream": stream, "key": key, "account": account}
    found = (await connection.execute(_ACCEPT, binds)).all()
    for row in found:
        await close_incidents(connection, row.account_id, IncidentKind.SHAPE, [subject(stream, key)])
        await record(connection, Decision(row.account_id, "accept", actor, f"the key {key} of {stream}"))
    return tuple(row.account for row in found)


def subject(stream: str, key: str) -> str:
    """Return what an incident about a key is about."""
    return f"stream:{stream}:key:{key}"
