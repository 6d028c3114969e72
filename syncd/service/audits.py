"""Auditing in the daemon: a slow rolling re-read of everything, with what live traffic leaves of the rate.

A round asks for a few rows of one kind, those proven longest ago first, through the ordinary pull. It begins only while
the account is in order (not paused, not told to wait, breaker closed), nothing is due to be delivered, and the last
minute left room for it; each call asks anew. It never writes to the CRM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from syncd import log
from syncd.clock import Clock
from syncd.domain.audits import AuditReport, Verdict
from syncd.domain.errors import ConfigurationError, InfrastructureError
from syncd.inbound import Inspection
from syncd.policy import auditing
from syncd.service.accounts import AccountRuntime
from syncd.service.lease import Lease
from syncd.service.schedule import Job
from syncd.store.account_states import look
from syncd.store.audit import due_again, read_standings

ROUND_EVERY_S = 60.0
REST_S = 86400.0  # what was proven within a day need not be asked for again


class AccountAudits:
    """One account's audits, as a job for the schedule. ``report`` is told of every round."""

    def __init__(
        self,
        runtime: AccountRuntime,
        lease: Lease,
        clock: Clock,
        report: Callable[[AuditReport], None],
        *,
        rest_s: float = REST_S,
    ) -> None:
        self._runtime, self._lease, self._clock, self._report, self._rest_s = runtime, lease, clock, report, rest_s
        self._log = log.get("syncd.service").bind(account=runtime.account.name)
        self._turn = asyncio.Lock()
        self._is_stopping = False
        self._looked_at, self._taken_before = clock.monotonic(), runtime.turns_taken()

    def jobs(self) -> tuple[Job, ...]:
        """Return the round; none while auditing is switched off."""
        every_s = ROUND_EVERY_S if self._runtime.config.pull.audit_share > 0 else 0.0
        return (Job(f"{self._runtime.account.name}/audit", every_s, self.round, every_s),)

    async def finish(self) -> None:
        """Begin no further call and wait for the one under way."""
        self._is_stopping = True
        async with self._turn:
            return

    async def round(self) -> None:
        """Audit a little. The boundary at which a crash ends; an absent database is told of elsewhere."""
        async with self._turn:
            try:
                if self._has_room() and await self._may_go_on():
                    await self._audit()
            except (InfrastructureError, ConfigurationError):
                return
            except Exception as error:  # noqa: BLE001 (one broken round must not end the daemon)
                self._log.error("audit.crashed", exc_info=error)

    async def _audit(self) -> None:
        """Ask for what is due of the kind whose turn it is, then see how all kinds stand."""
        store, account, pull = self._runtime.store, self._runtime.account, self._runtime.config.pull
        started = self._clock.monotonic()
        most = auditing.calls(self._runtime.config.http.rate_per_s, pull.audit_share, ROUND_EVERY_S, pull.sweep_budget)
        kinds = [kind for kind, stream in auditing.AUDITED.items() if stream in self._runtime.provider.streams]
        async with store.begin() as connection:
            due = await due_again(connection, account.id, kinds, most, self._rest_s)
        kind, run, verdicts = None, None, dict[Verdict, int]()
        if due is not None:
            kind, inspection = due[0], Inspection(due[0], due[1], self._may_go_on)
            run = await self._runtime.puller.inspect(auditing.AUDITED[kind], inspection)
            verdicts = dict(inspection.verdicts)
        async with store.begin() as connection:
            standings = await read_standings(connection, pull.audit_days * 86400.0, account.id)
        run_id, requests, reason = (run.run_id, run.requests, run.reason) if run else (None, 0, None)
        elapsed_s = self._clock.monotonic() - started
        self._report(AuditReport(account.name, kind, run_id, elapsed_s, requests, verdicts, standings, reason))

    def _has_room(self) -> bool:
        """Tell whether the time since the last round left the auditor its share."""
        now, taken = self._clock.monotonic(), self._runtime.turns_taken()
        elapsed_s, used = now - self._looked_at, taken - self._taken_before
        self._looked_at, self._taken_before = now, taken
        share, rate = self._runtime.config.pull.audit_share, self._runtime.config.http.rate_per_s
        return auditing.has_room(used, rate, share, elapsed_s)

    async def _may_go_on(self) -> bool:
        if self._is_stopping or not self._lease.is_held or not self._runtime.has_free_turn():
            return False
        async with self._runtime.store.begin() as connection:
            outlook = await look(connection, self._runtime.account.id)
        is_in_order = outlook.paused is None and outlook.throttled_s <= 0 and outlook.breaker_state == "closed"
        return is_in_order and not outlook.has_work
