"""Run holds: what a pull would have done and may not unasked, what a person said to it, and its use, once.

There is at most one current question per stream. A later run that wants no more than what is shown only repeats it; one
that wants more asks anew, so that nobody approves what was not shown to them. An approval is used up in the very
transaction that writes what it allows: if that is rolled back, it still stands. (A sweep that finds everything emptied
uses it as it begins.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text

from syncd.domain.doubts import Doubt, DoubtKind
from syncd.domain.errors import UserError
from syncd.domain.ids import AccountId
from syncd.domain.incidents import Incident, IncidentKind
from syncd.policy.states import RunHoldStatus
from syncd.store.decisions import Decision, record
from syncd.store.engine import Connection
from syncd.store.incidents import close_incidents, open_incidents
from syncd.store.runs import Run

_CURRENT = "status IN ('open', 'approved', 'rejected')"
# What was shown of a rewrite is no leave to empty anything.
_FITS = "rewritten >= :rewritten AND missing >= :missing AND (kind = :kind OR :kind <> 'emptied')"

_USE = text(f"""
    UPDATE syncd.run_holds SET status = 'used', used_run_id = :run_id
    WHERE account_id = :account_id AND stream = :stream AND {_FITS}
      AND (status = 'approved' AND expires_at > clock_timestamp() OR status = 'used' AND used_run_id = :run_id)
    RETURNING id
""")
_REPEAT = text(f"""
    UPDATE syncd.run_holds SET occurrences = occurrences + 1, last_seen_at = now(), run_id = :run_id
    WHERE account_id = :account_id AND stream = :stream AND status IN ('open', 'rejected') AND {_FITS}
    RETURNING id, status
""")
# A question that grows with every round is kept as it is now; what somebody decided is kept as it was.
_LAPSE = text("""
    WITH outgrown AS (
        DELETE FROM syncd.run_holds WHERE account_id = :account_id AND stream = :stream AND status = 'open'
    )
    UPDATE syncd.run_holds SET status = 'lapsed'
    WHERE account_id = :account_id AND stream = :stream AND status IN ('approved', 'rejected')
""")
_OPEN = text("""
    INSERT INTO syncd.run_holds (account_id, stream, kind, run_id, known, rewritten, missing, examples)
    VALUES (:account_id, :stream, :kind, :run_id, :known, :rewritten, :missing, CAST(:examples AS jsonb))
    RETURNING id, status
""")
# An approval outlives a run that did not need it: a sweep comes to other rows first, and a window may have been short.
_WELL = text("""
    WITH lapsed AS (
        UPDATE syncd.run_holds SET status = 'lapsed'
        WHERE account_id = :account_id AND stream = :stream AND status IN ('open', 'rejected')
    ), of_the_old_form AS (
        DELETE FROM syncd.shapes WHERE account_id = :account_id AND stream = :stream AND key = ''
    )
    UPDATE syncd.incidents SET closed_at = now()
    WHERE account_id = :account_id AND subject = :subject AND kind IN ('emptied', 'unasked', 'shape')
      AND closed_at IS NULL
""")
_LIST = text(f"""
    SELECT h.id, a.name AS account, h.stream, h.kind, h.status, h.run_id, h.known, h.rewritten, h.missing,
           CAST(h.examples AS text) AS examples, h.occurrences, h.opened_at, h.last_seen_at, h.expires_at
    FROM syncd.run_holds h JOIN crm.accounts a ON a.id = h.account_id
    WHERE (CAST(:account AS text) IS NULL OR a.name = :account) AND (:with_past OR h.{_CURRENT})
      AND (CAST(:stream AS text) IS NULL OR h.stream = :stream) AND (CAST(:id AS bigint) IS NULL OR h.id = :id)
    ORDER BY h.{_CURRENT} DESC, h.id DESC LIMIT :most
""")
_DECIDE = text("""
    UPDATE syncd.run_holds
    SET status = :status, decided_at = now(),
        expires_at = CASE WHEN :status = 'approved' THEN now() + make_interval(secs => :for_s) END
    WHERE id = :id AND status IN ('open', 'approved', 'rejected') AND (status <> 'approved' OR :status = 'rejected')
    RETURNING account_id, stream
""")


@dataclass(frozen=True, slots=True)
class RunHold:
    """One question as an operator sees it; ``examples`` is a JSON array as text."""

    id: int
    account: str
    stream: str
    kind: str
    status: str
    run_id: int
    known: int
    rewritten: int
    missing: int
    examples: str
    occurrences: int
    opened_at: datetime
    last_seen_at: datetime
    expires_at: datetime | None

    @property
    def sentence(self) -> str:
        return Doubt(DoubtKind(self.kind), self.known, self.rewritten, self.missing).sentence


async def permits(connection: Connection, run: Run, doubt: Doubt) -> bool:
    """Tell whether a person has allowed a run to do this much, and use that up."""
    return (await connection.execute(_USE, _binds(run, doubt))).first() is not None


async def ask(connection: Connection, run: Run, doubt: Doubt) -> RunHoldStatus:
    """Write down what a run would have done; return how its question stands: open, or rejected already."""
    binds = _binds(run, doubt)
    row = (await connection.execute(_REPEAT, binds)).first()
    if row is None:
        await connection.execute(_LAPSE, binds)
        row = (await connection.execute(_OPEN, binds)).one()
    await tell(connection, run, doubt, hold_id=row.id)
    return RunHoldStatus(row.status)


async def tell(connection: Connection, run: Run, doubt: Doubt, *, hold_id: int | None = None) -> None:
    """Open the incident about a doubt, or count it up; some doubts nobody can allow, and this is all there is."""
    kind = IncidentKind.EMPTIED if doubt.kind is DoubtKind.EMPTIED else IncidentKind.UNASKED
    detail: dict[str, object] = {"hold": hold_id, "run": run.id, "examples": list(doubt.examples)}
    detail |= {"known": doubt.known, "rewritten": doubt.rewritten, "missing": doubt.missing}
    advice = "; see `syncd runs list`" if hold_id else ""
    summary = f"{run.stream}: {doubt.sentence}; nothing of it was written{advice}"
    await open_incidents(connection, run.account_id, [Incident(kind, subject(run.stream), summary, detail)])


async def note_well(connection: Connection, account_id: AccountId, stream: str) -> None:
    """Close what was open about a stream: a run of it has succeeded."""
    values = {"account_id": account_id, "stream": stream, "subject": subject(stream)}
    await connection.execute(_WELL, values)


async def list_run_holds(
    connection: Connection,
    *,
    account: str | None = None,
    stream: str | None = None,
    hold_id: int | None = None,
    with_past: bool = False,
    most: int = 50,
) -> tuple[RunHold, ...]:
    """Return questions, current ones first, then the latest first."""
    binds = {"account": account, "stream": stream, "id": hold_id, "with_past": with_past, "most": most}
    return tuple(RunHold(**row) for row in (await connection.execute(_LIST, binds)).mappings())


async def decide(
    connection: Connection, hold_id: int, status: RunHoldStatus, actor: str, reason: str | None, *, for_s: float
) -> None:
    """Decide a question; an approval counts for ``for_s`` seconds. Raises UserError when it is not to be decided."""
    found = await connection.execute(_DECIDE, {"id": hold_id, "status": status.value, "for_s": for_s})
    row = found.one_or_none()
    if row is None:
        raise UserError(f"hold {hold_id} waits for no decision any more; `syncd runs list` shows what does")
    verb = "approve" if status is RunHoldStatus.APPROVED else "reject"
    await record(connection, Decision(row.account_id, verb, actor, reason, run_hold_id=hold_id))
    if status is RunHoldStatus.APPROVED:
        for kind in (IncidentKind.UNASKED, IncidentKind.EMPTIED):
            await close_incidents(connection, row.account_id, kind, [subject(row.stream)])


def subject(stream: str) -> str:
    """Return what an incident about a stream is about."""
    return f"stream:{stream}"


def _binds(run: Run, doubt: Doubt) -> dict[str, object]:
    return {
        "account_id": run.account_id,
        "stream": run.stream,
        "run_id": run.id,
        "kind": doubt.kind.value,
        "known": doubt.known,
        "rewritten": doubt.rewritten,
        "missing": doubt.missing,
        "examples": msgspec.json.encode(doubt.examples).decode(),
    }
