"""Canary: may the account be asked for anything now, and if not, is it our turn to find out whether it works?

A pause and an open breaker stand in the account's row, for pulls and deliveries alike. One safe read lifts either, and
whoever takes the right to send it is alone with it for a while: drainers and pulls must not both knock on a door that
was shut a moment ago. It must never lift an operator's pause, nor what was written by somebody else meanwhile.
"""

from __future__ import annotations

from syncd.inbound.context import Context
from syncd.policy.breaker import Breaker, BreakerState
from syncd.providers.contract import Answered, Delivered, Proof
from syncd.store import account_pace, account_states
from syncd.store.account_pace import Breaking
from syncd.store.account_states import Outlook

# The read has so long to be answered; the right to it is kept a little longer.
_READ_S, _HOLD_S = 30.0, 35.0
_BROKEN = "the account is left alone after failures in a row, until the CRM answers a read"
_SLOW_DOWN = "the CRM asked us to slow down"
_DELIVERED = frozenset(proof.value for proof in Proof)


async def held(context: Context) -> str | None:
    """Return why nothing may be asked for now. A canary that is due, and that nobody else has taken, is sent first."""
    async with context.store.begin() as connection:
        outlook = await account_states.look(connection, context.account.id)
    if outlook.paused is not None and not await _is_lifted(context, outlook):
        return f"the account is paused: {outlook.paused}"
    if outlook.breaker_state != BreakerState.CLOSED and not await _is_closed(context, outlook):
        return _BROKEN
    return _SLOW_DOWN if outlook.throttled_s > 0 else None


async def _is_lifted(context: Context, outlook: Outlook) -> bool:
    if outlook.probe_in_s is None or outlook.probe_in_s > 0:
        return False
    account_id, policy = context.account.id, context.policy
    async with context.store.begin() as connection:
        if not await account_pace.take_canary(connection, account_id, hold_s=_HOLD_S):
            return False
    reason = await _trouble(context)
    async with context.store.begin() as connection:
        if reason is None:
            return await account_states.resume(connection, account_id)
        await account_states.postpone_probe(
            connection, account_id, least_s=policy.probe_s, most_s=policy.probe_max_s, reason=reason
        )
    return False


async def _is_closed(context: Context, outlook: Outlook) -> bool:
    """Close the breaker on trial, as a drainer would; what its streak killed is taken back with it."""
    known = account_pace.read_limits(outlook.limits).breaking or Breaking()
    if known.probe_at > outlook.at:
        return False
    account_id = context.account.id
    async with context.store.begin() as connection:
        breaking = await account_pace.take_probe(connection, account_id, hold_s=_HOLD_S)
    if breaking is None:
        return False
    reason = await _trouble(context)
    async with context.store.begin() as connection:
        if reason is None:
            await account_pace.close_breaker(connection, account_id)
            if breaking.kind is not None:
                await account_pace.revive_refused(connection, account_id, breaking.kind, delivered=_DELIVERED)
            return True
        again = _opened_again(context, breaking)
        await account_pace.reopen_breaker(
            connection, account_id, openings=again.openings, pause_s=again.opening_pause_s
        )
    return False


def _opened_again(context: Context, breaking: Breaking) -> Breaker:
    breaker = Breaker(1, context.policy.breaker_pause_s, context.policy.breaker_pause_max_s)
    return breaker.following(is_broken=True, is_on_trial=False, openings=breaking.openings).probed(is_well=False)


async def _trouble(context: Context) -> str | None:
    """Read something safe; return None when the account works, else why not."""
    request = context.provider.probe()
    answer = await context.transport.send(request, timeout_s=_READ_S)
    if not isinstance(answer, Answered):
        return f"{request.operation}: {answer.reason}"
    outcome = context.provider.judge_whole(answer.response, request.operation)
    return None if outcome is None or isinstance(outcome, Delivered) else outcome.reason
