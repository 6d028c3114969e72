"""Circuit: this drainer's breaker and the one in the account's row, kept in step with each other.

When the breaker opens here, the row is moved, one incident is opened, and the entries that the streak killed go back to
pending, all in one transaction. When another replica moved the row, this one follows it and asks the CRM nothing: one
replica alone takes the probe when it is due. The incident stays open through the trial and closes with the first
delivery after it, or when nothing is left to send. Because all of it is in the row, a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.incidents import Incident, IncidentKind
from syncd.log import get
from syncd.outbound.limits import DrainLimits
from syncd.outbound.pace import Pace
from syncd.policy.breaker import Breaker, BreakerState, Cause
from syncd.providers.contract import Proof
from syncd.store import Connection, Store, account_pace
from syncd.store.account_pace import Breaking
from syncd.store.account_states import Outlook
from syncd.store.incidents import close_incidents, open_incidents

log = get("syncd.outbound")

SUBJECT = "account"
_DELIVERED = frozenset(proof.value for proof in Proof)
# How long to wait before looking again at a probe that another replica has taken.
_OTHERS_S = 1.0
# A probe that was taken and never reported: its replica is gone.
_LOST_S = 5.0

Probe = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class _Standing:
    """What must agree between here and the row."""

    is_broken: bool
    is_on_trial: bool


class Circuit:
    """One account's breaker, as this replica and the row know it. ``probe`` says why the account does not work."""

    def __init__(self, store: Store, account: Account, limits: DrainLimits, clock: Clock, probe: Probe) -> None:
        self._store = store
        self._account = account
        self._limits = limits
        self._clock = clock
        self._probe = probe
        self._row = _Standing(False, False)
        self._due = 0.0
        self._streak: str | None = None
        self._is_new = True

    async def sync(self, pace: Pace, outlook: Outlook) -> None:
        """Write down how the breaker moved here, or follow how another replica moved it."""
        await self._remember(pace)
        here = _Standing(pace.is_broken, pace.breaker.is_on_trial)
        if here != self._row:
            await self._write_down(pace, here)
            return
        self._follow(pace, outlook)
        if pace.breaker.is_on_trial and not outlook.has_work and not await self._is_anything_left():
            pace.move(pace.breaker.delivered())
            await self._write_down(pace, _Standing(False, False))

    async def closed_for_s(self, pace: Pace) -> float:
        """Return for how long nothing may be sent; probe when that is due and no other replica does."""
        wait_s = self._due - self._clock.monotonic()
        if wait_s > 0:
            await self._revive_late()
            return wait_s
        hold_s = self._limits.conversation_s + _LOST_S
        async with self._store.begin() as connection:
            breaking = await account_pace.take_probe(connection, self._account.id, hold_s=hold_s)
        if breaking is None:
            self._due = self._clock.monotonic() + _OTHERS_S
            return _OTHERS_S
        pace.move(_followed(pace.breaker, breaking, is_broken=True).probing())
        reason = await self._probe()
        pace.move(pace.breaker.probed(is_well=reason is None))
        return await (self._close(breaking.kind) if reason is None else self._wait_on(pace.breaker))

    async def _is_anything_left(self) -> bool:
        async with self._store.begin() as connection:
            return await account_pace.is_anything_left(connection, self._account.id)

    async def _remember(self, pace: Pace) -> None:
        """Take up, once, the streak that an earlier process was in when it ended."""
        if self._is_new:
            self._is_new = False
            async with self._store.begin() as connection:
                refusing = await account_pace.refused_lately(connection, self._account.id, delivered=_DELIVERED)
            pace.breaker = pace.breaker.remembering(refusing)

    async def _write_down(self, pace: Pace, here: _Standing) -> None:
        if here.is_broken:
            await self._open(pace.breaker)
        elif not here.is_on_trial:
            await self._pass()
        self._row = here

    async def _open(self, breaker: Breaker) -> None:
        cause = breaker.cause or Cause("the account does not answer", 1)
        pause_s, rounds = breaker.opening_pause_s, breaker.suspicions.get(cause.kind or "", 0)
        breaking = Breaking(breaker.openings, reason=cause.reason, kind=cause.kind)
        async with self._store.begin() as connection:
            is_first = await account_pace.open_breaker(
                connection, self._account.id, breaking, pause_s=pause_s, rounds=rounds
            )
            revived = await self._revive(connection, cause.kind)
            if is_first:
                incident = _incident(cause, breaker, pause_s)
                await open_incidents(connection, self._account.id, [incident])
        self._due = self._clock.monotonic() + pause_s
        self._streak = cause.kind
        if is_first:
            self._log("open", reason=cause.reason, entries=cause.count, revived=revived, pause_s=pause_s)

    async def _close(self, kind: str | None) -> float:
        """Close on trial. Whoever closes takes back what the streak killed: its opener may have crashed."""
        async with self._store.begin() as connection:
            await account_pace.close_breaker(connection, self._account.id)
            await self._revive(connection, kind)
        self._streak = None
        self._row = _Standing(False, True)
        self._log("closed")
        return 0.0

    async def _revive_late(self) -> None:
        """Take back what was killed by the streak and not settled yet when the breaker opened."""
        if self._streak is not None:
            async with self._store.begin() as connection:
                await self._revive(connection, self._streak)

    async def _revive(self, connection: Connection, kind: str | None) -> int:
        if kind is None:
            return 0
        return await account_pace.revive_refused(connection, self._account.id, kind, delivered=_DELIVERED)

    async def _wait_on(self, breaker: Breaker) -> float:
        pause_s = breaker.opening_pause_s
        async with self._store.begin() as connection:
            await account_pace.reopen_breaker(connection, self._account.id, openings=breaker.openings, pause_s=pause_s)
        self._due = self._clock.monotonic() + pause_s
        return pause_s

    async def _pass(self) -> None:
        async with self._store.begin() as connection:
            await account_pace.pass_trial(connection, self._account.id)
            await close_incidents(connection, self._account.id, IncidentKind.BREAKER, [SUBJECT])

    def _follow(self, pace: Pace, outlook: Outlook) -> None:
        limits, breaker = account_pace.read_limits(outlook.limits), pace.breaker
        breaking = limits.breaking or Breaking(0)
        row = _Standing(outlook.breaker_state != BreakerState.CLOSED, breaking.trial)
        if row.is_broken:
            self._due = self._clock.monotonic() + max(0.0, breaking.probe_at - outlook.at)
        if row != self._row:
            pace.move(_followed(breaker, breaking, is_broken=row.is_broken))
            if row.is_broken != self._row.is_broken:
                log.info("breaker.followed", account=self._account.name, state=outlook.breaker_state)
            self._row = row
        if limits.refusals or breaker.suspicions:
            pace.breaker = pace.breaker.suspecting(limits.suspicions(outlook.at))

    def _log(self, state: str, **fields: object) -> None:
        log.warning("breaker.moved", account=self._account.name, state=state, **fields)


def _followed(breaker: Breaker, breaking: Breaking, *, is_broken: bool) -> Breaker:
    cause = Cause(breaking.reason, 1, None, breaking.kind) if breaking.reason else None
    return breaker.following(is_broken=is_broken, is_on_trial=breaking.trial, openings=breaking.openings, cause=cause)


def _incident(cause: Cause, breaker: Breaker, pause_s: float) -> Incident:
    """Say once what happened to all of them; an example stands for the rest."""
    detail: dict[str, object] = {
        "example": cause.reason,
        "count": cause.count,
        "entry_id": cause.entry_id,
        "opening": breaker.openings,
        "pause_s": pause_s,
    }
    if cause.kind is not None:
        detail |= {"kind": cause.kind, "round": breaker.suspicions.get(cause.kind, 1), "rounds": breaker.rounds}
    summary = f"{_what(cause, breaker)}; nothing is sent until the CRM answers a read: {cause.reason}"
    return Incident(IncidentKind.BREAKER, SUBJECT, summary[:500], detail)


def _what(cause: Cause, breaker: Breaker) -> str:
    if breaker.openings > 1 and cause.count == 1:
        return f"changes still {'fail' if cause.kind is None else 'are refused alike'}, although reads are answered"
    if cause.kind is not None:
        return f"{cause.count} changes in a row were refused alike"
    return f"{cause.count} changes in a row failed" if cause.count > 1 else "a change failed again, and a read as well"
