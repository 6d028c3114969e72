"""Watch: may the account be talked to at all, and if not, what would change that?

Refused credentials pause the account in the database, for every replica, and a canary read at growing intervals
clears the pause. An open breaker is closed by the same read. A throttle passes by itself. An operator's pause is
lifted by an operator. None of these costs an entry an attempt.
"""

from __future__ import annotations

from syncd.domain.account import Account
from syncd.log import get
from syncd.outbound.converse import Line
from syncd.outbound.limits import DrainLimits
from syncd.outbound.lookout import Lookout
from syncd.outbound.pace import Pace
from syncd.policy.breaker import BreakerState
from syncd.providers.contract import Answered
from syncd.store import Store, account_states
from syncd.store.account_states import Outlook

log = get("syncd.outbound")

# How often a paused account's row is looked at: an operator may have resumed it.
_LOOK_S = 1.0


class Watch:
    """One account's gate, between its row in the database and the pace of this drainer."""

    def __init__(
        self, store: Store, lookout: Lookout, line: Line, account: Account, limits: DrainLimits, *, is_eager: bool
    ) -> None:
        """``is_eager`` probes a pause at once, whenever its next probe is due: somebody is waiting for this drain."""
        self._store = store
        self._lookout = lookout
        self._provider = line.provider
        self._transport = line.transport
        self._clock = line.clock
        self._account = account
        self._limits = limits
        self._noted = BreakerState.CLOSED.value
        self._is_eager = is_eager
        self.paused: str | None = None

    async def gate(self, pace: Pace) -> tuple[Outlook, float]:
        """Return what there is to do and for how long nothing may be sent (zero: open). Probes if a probe is due."""
        await self._write_down_refusal(pace)
        outlook = await self._lookout.look()
        if pace.is_paused or outlook.paused is not None:
            return outlook, await self._paused_for_s(pace, outlook)
        self._edge(None)
        await self._note_breaker(pace)
        if pace.is_broken:
            return outlook, await self._broken_for_s(pace)
        return outlook, await self._throttled_for_s(pace, outlook)

    async def _write_down_refusal(self, pace: Pace) -> None:
        if pace.refused is None or self.paused is not None:
            return
        async with self._store.begin() as connection:
            await account_states.pause(connection, self._account.id, pace.refused, probe_in_s=self._limits.probe_s)
        self._edge(pace.refused)

    async def _throttled_for_s(self, pace: Pace, outlook: Outlook) -> float:
        """Hold to the longest throttle that any replica was told of."""
        if pace.throttled_s > outlook.throttled_s + 0.5:
            async with self._store.begin() as connection:
                await account_states.throttle(connection, self._account.id, pace.throttled_s)
        elif outlook.throttled_s > pace.throttled_s + 0.5:
            pace.throttled(outlook.throttled_s)
        pace.reopen()
        return pace.throttled_s

    async def _note_breaker(self, pace: Pace) -> None:
        state = pace.breaker.state.value
        if state == self._noted:
            return
        async with self._store.begin() as connection:
            await account_states.note_breaker(connection, self._account.id, state)
        if BreakerState.CLOSED.value in (state, self._noted):
            log.warning("breaker.moved", account=self._account.name, state=state)
        self._noted = state

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
        self._is_eager = False
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

    async def _lift(self, pace: Pace) -> None:
        async with self._store.begin() as connection:
            if await account_states.resume(connection, self._account.id):
                self._forget(pace)

    def _forget(self, pace: Pace) -> None:
        """The pause was lifted, by the canary or by a person."""
        self._edge(None)
        pace.reopen(is_lifted=True)

    async def _broken_for_s(self, pace: Pace) -> float:
        wait_s = pace.breaker.probe_wait_s(self._clock.monotonic())
        if wait_s > 0:
            return wait_s
        pace.breaker = pace.breaker.probing()
        pace.probed(await self.probe() is None)
        await self._note_breaker(pace)
        return 0.0 if pace.is_open else pace.breaker.probe_wait_s(self._clock.monotonic())

    async def probe(self) -> str | None:
        """Read something safe; return None when the account works, else why not."""
        request = self._provider.probe()
        answer = await self._transport.send(request, timeout_s=self._limits.conversation_s)
        if not isinstance(answer, Answered):
            return answer.reason
        outcome = self._provider.judge(answer.response, request.operation)
        return None if outcome is None else getattr(outcome, "reason", "the probe was not answered as a read")

    def _edge(self, paused: str | None) -> None:
        """Log a pause once when it begins and once when it ends."""
        if paused is not None and self.paused is None:
            log.warning("account.paused", account=self._account.name, reason=paused)
        elif paused is None and self.paused is not None:
            log.info("account.resumed", account=self._account.name)
        self.paused = paused
