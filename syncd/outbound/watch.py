"""Watch: may the account be talked to at all, and if not, what would change that?

Refused credentials pause the account in the database, for every replica, and a canary read at growing intervals
clears the pause; one replica at a time sends it. An open breaker is closed by the same read (``circuit``). A throttle
passes by itself. An operator's pause is lifted by an operator. None of these costs an entry an attempt.

An entry that failed before and fails again asks for a read as well: with few entries in the outbox, as over a quiet
night, an outage would else use up their tries before there are enough of them to open the breaker.
"""

from __future__ import annotations

from contextlib import suppress

from syncd.domain.account import Account
from syncd.domain.errors import InfrastructureError
from syncd.domain.incidents import Incident, IncidentKind
from syncd.log import get
from syncd.outbound.circuit import Circuit
from syncd.outbound.converse import Line, ask_after
from syncd.outbound.limits import DrainLimits
from syncd.outbound.lookout import Lookout
from syncd.outbound.pace import Pace
from syncd.providers.contract import Throttled, Unauthorised
from syncd.store import Store, account_pace, account_states
from syncd.store.account_pace import PRESENT_S
from syncd.store.account_states import Outlook
from syncd.store.incidents import close_incidents, list_incidents, open_incidents

log = get("syncd.outbound")

# How often a paused account's row is looked at: an operator may have resumed it.
_LOOK_S = 1.0
_OPERATION = "operation:"
_NEVER = float("-inf")


class Watch:
    """One account's gate, between its row in the database and the pace of this drainer."""

    def __init__(
        self,
        store: Store,
        lookout: Lookout,
        line: Line,
        account: Account,
        limits: DrainLimits,
        *,
        is_eager: bool,
        worker: str = "",
    ) -> None:
        """``is_eager`` probes a pause at once, whenever its next probe is due: somebody is waiting for this drain."""
        self._store = store
        self._lookout = lookout
        self._line = line
        self._clock = line.clock
        self._account = account
        self._limits = limits
        self._worker = worker
        self._circuit = Circuit(store, account, limits, line.clock, self.probe)
        self._is_eager = is_eager
        self._told: frozenset[str] | None = None
        self._is_throttled = False
        self._joined_at = _NEVER
        self._asked_at = _NEVER
        self._turns = 0
        self.paused: str | None = None

    async def gate(self, pace: Pace) -> tuple[Outlook, float]:
        """Return what there is to do and for how long nothing may be sent (zero: open). Probes if a probe is due."""
        await self._write_down_refusal(pace)
        outlook = await self._lookout.look()
        if pace.is_paused or outlook.paused is not None:
            return outlook, await self._paused_for_s(pace, outlook)
        self._edge(None)
        await self._circuit.sync(pace, outlook)
        if not pace.is_broken and pace.is_doubtful:
            await self._ask(pace, outlook)
        if pace.is_broken:
            return outlook, await self._circuit.closed_for_s(pace)
        await self._tell_suspended(pace)
        await self._share(pace, outlook)
        return outlook, await self._throttled_for_s(pace, outlook)

    async def leave(self) -> None:
        """Let the other replicas have this one's share of the rate."""
        if self._joined_at == _NEVER:
            return
        with suppress(InfrastructureError):  # then it is forgotten by itself, a few seconds later
            async with self._store.begin() as connection:
                await account_pace.leave(connection, self._account.id, self._worker)

    async def _write_down_refusal(self, pace: Pace) -> None:
        if pace.refused is None or self.paused is not None:
            return
        async with self._store.begin() as connection:
            await account_states.pause(connection, self._account.id, pace.refused, probe_in_s=self._limits.probe_s)
        self._edge(pace.refused)

    async def _ask(self, pace: Pace, outlook: Outlook) -> None:
        """Find out whether the account works, for an entry that failed again; not more often than a breaker would."""
        if self._clock.monotonic() - self._asked_at < self._limits.breaker_pause_s:
            return
        self._asked_at = self._clock.monotonic()
        pace.is_doubtful = False
        match await ask_after(self._line, self._limits.conversation_s):
            case None:
                return
            case Throttled() as asked:
                pace.throttled(asked.retry_after_s or self._limits.throttle_s)
            case Unauthorised() as refused:
                pace.unauthorised(refused.reason)
            case trouble:
                pace.move(pace.breaker.unanswered(trouble.reason))
                await self._circuit.sync(pace, outlook)

    async def _share(self, pace: Pace, outlook: Outlook) -> None:
        """Say that we are sending while we are, and take our share of the rate among those who say so."""
        now, limits = self._clock.monotonic(), account_pace.read_limits(outlook.limits)
        pace.share(1 + limits.present(outlook.at, but=self._worker))
        is_sending = outlook.has_work or pace.turns != self._turns
        if is_sending and now - self._joined_at > PRESENT_S / 3:
            self._turns, self._joined_at = pace.turns, now
            async with self._store.begin() as connection:
                await account_pace.join(connection, self._account.id, self._worker)

    async def _tell_suspended(self, pace: Pace) -> None:
        """Open an incident for an operation that a setting is wrong for; close it when the operation works."""
        if self._told is None:
            self._told = await self._remembered(pace)
        now = frozenset(pace.suspended)
        if now == self._told:
            return
        news = [_suspension(name, pace.suspended[name].reason) for name in now - self._told]
        async with self._store.begin() as connection:
            await open_incidents(connection, self._account.id, news)
            over = [_OPERATION + name for name in self._told - now]
            await close_incidents(connection, self._account.id, IncidentKind.BREAKER, over)
        for incident in news:
            log.warning("operation.suspended", account=self._account.name, reason=incident.summary)
        self._told = now

    async def _remembered(self, pace: Pace) -> frozenset[str]:
        async with self._store.begin() as connection:
            rows = await list_incidents(connection, account=self._account.name)
        subjects = [row.subject for row in rows if row.kind == IncidentKind.BREAKER]
        names = frozenset(name.removeprefix(_OPERATION) for name in subjects if name.startswith(_OPERATION))
        for name in names:
            pace.remember(name)
        return names

    async def _throttled_for_s(self, pace: Pace, outlook: Outlook) -> float:
        """Hold to the longest throttle that any replica was told of."""
        if pace.throttled_s > outlook.throttled_s + 0.5:
            async with self._store.begin() as connection:
                await account_states.throttle(connection, self._account.id, pace.throttled_s)
        elif outlook.throttled_s > pace.throttled_s + 0.5:
            pace.throttled(outlook.throttled_s)
        pace.reopen()
        if self._is_throttled != (pace.throttled_s > 0):
            self._is_throttled = not self._is_throttled
            event = "account.throttled" if self._is_throttled else "account.unthrottled"
            log.info(event, account=self._account.name, for_s=round(pace.throttled_s, 1))
        return pace.throttled_s

    async def _paused_for_s(self, pace: Pace, outlook: Outlook) -> float:
        if outlook.paused is None:
            self._forget(pace)
            return 0.0
        pace.hold()
        self._edge(outlook.paused)
        if outlook.probe_in_s is None:
            return _LOOK_S
        if outlook.probe_in_s > 0 and not self._is_eager:
            return min(outlook.probe_in_s, _LOOK_S)
        if not await self._is_ours_to_probe():
            return _LOOK_S
        reason = await self.probe()
        if reason is None:
            await self._lift(pace)
            return 0.0
        least_s, most_s = self._limits.probe_s, self._limits.probe_max_s
        async with self._store.begin() as connection:
            await account_states.postpone_probe(
                connection, self._account.id, least_s=least_s, most_s=most_s, reason=reason
            )
        return min(least_s, _LOOK_S)

    async def _is_ours_to_probe(self) -> bool:
        is_early, self._is_eager = self._is_eager, False
        hold_s = self._limits.conversation_s + _LOOK_S
        async with self._store.begin() as connection:
            return await account_pace.take_canary(connection, self._account.id, hold_s=hold_s, is_early=is_early)

    async def _lift(self, pace: Pace) -> None:
        async with self._store.begin() as connection:
            if await account_states.resume(connection, self._account.id):
                self._forget(pace)

    def _forget(self, pace: Pace) -> None:
        """The pause was lifted, by the canary or by a person."""
        self._edge(None)
        pace.reopen(is_lifted=True)

    async def probe(self) -> str | None:
        """Read something safe; return None when the account works, else why not."""
        trouble = await ask_after(self._line, self._limits.conversation_s)
        return None if trouble is None else trouble.reason

    def _edge(self, paused: str | None) -> None:
        """Log a pause once when it begins and once when it ends."""
        if paused is not None and self.paused is None:
            log.warning("account.paused", account=self._account.name, reason=paused)
        elif paused is None and self.paused is not None:
            log.info("account.resumed", account=self._account.name)
        self.paused = paused


def _suspension(operation: str, reason: str) -> Incident:
    summary = f"{operation} is not sent, and tried again now and then: {reason}"
    return Incident(IncidentKind.BREAKER, _OPERATION + operation, summary[:500], {"example": reason})
