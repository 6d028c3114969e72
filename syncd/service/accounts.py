"""One runtime per account: its provider, transport, puller and drainer, built in one place and closed in one.

Credentials exist here and in the transport; nothing else in the process is given them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from syncd import log
from syncd.clock import Clock
from syncd.domain.account import Account
from syncd.domain.reports import DeliveryReport, RunReport
from syncd.inbound import Puller, PullPolicy
from syncd.outbound import Drainer, DrainLimits
from syncd.policy.guard import Guard
from syncd.policy.merge import Owner, Owners
from syncd.policy.rewrite import RewriteRule
from syncd.providers.contract import Provider
from syncd.service.cadences import rungs, window_rule
from syncd.service.pacing import PacedTransport, Pacer
from syncd.service.providers import build_provider
from syncd.settings import AccountConfig
from syncd.store import Store
from syncd.store.accounts import ensure_account
from syncd.store.outbox import set_first_guard
from syncd.store.shelf_remote import open_shelf
from syncd.transport import Transport, TransportLimits


class Reports(Protocol):
    """Who is told of every run and every delivery."""

    def run(self, report: RunReport) -> None: ...

    def delivery(self, report: DeliveryReport) -> None: ...


@dataclass(frozen=True, slots=True)
class AccountRuntime:
    """Everything one account needs while it runs."""

    config: AccountConfig
    store: Store
    account: Account
    provider: Provider
    transport: Transport
    puller: Puller
    drainer: Drainer
    pacer: Pacer | None = None

    def turns_taken(self) -> int:
        """Return how many requests have taken their turn so far, in both directions."""
        return self.pacer.taken if self.pacer else 0

    def has_free_turn(self) -> bool:
        """Tell whether nobody waits for a turn."""
        return self.pacer is None or self.pacer.is_free


@asynccontextmanager
async def opened_accounts(
    configs: Sequence[AccountConfig], store: Store, clock: Clock, reports: Reports
) -> AsyncIterator[tuple[AccountRuntime, ...]]:
    """Build a runtime for each account; their connections are closed when the block ends."""
    async with AsyncExitStack() as stack:
        yield tuple([await _opened(config, store, clock, reports, stack) for config in configs])


def open_transport(config: AccountConfig, provider: Provider, clock: Clock) -> PacedTransport:
    """Open the account's transport with its limits and its rate; no connection is made yet."""
    auth = provider.auth(config.credentials)
    log.add_secrets(auth.secrets() - {config.credentials.get("admin", "")})
    transport = PacedTransport.open(config.base_url, auth, limits=transport_limits(config), clock=clock)
    transport.pacer = Pacer(config.http.rate_per_s, clock)
    return transport


async def _opened(
    config: AccountConfig, store: Store, clock: Clock, reports: Reports, stack: AsyncExitStack
) -> AccountRuntime:
    provider = build_provider(config)
    if config.pull.invoice_files is not None:
        open_shelf(config.pull.invoice_files)  # what cannot be written to is told at the start
    transport = open_transport(config, provider, clock)
    stack.push_async_callback(transport.close)
    async with store.begin_remote() as connection:
        account = await ensure_account(connection, config.name, provider.name)
        await set_first_guard(connection, account.id, guard(config))
    return AccountRuntime(
        config,
        store,
        account,
        provider,
        transport,
        Puller(store, provider, transport, clock, account, pull_policy(config), reports.run),
        Drainer(
            store,
            provider,
            transport,
            clock,
            account,
            drain_limits(config),
            reports.delivery,
            on_share=transport.pacer.share if transport.pacer else lambda _: None,
        ),
        transport.pacer,
    )


def transport_limits(config: AccountConfig) -> TransportLimits:
    """Translate the settings into the transport's limits."""
    http = config.http
    return TransportLimits(
        total_timeout_s=http.request_timeout_s,
        connect_timeout_s=http.connect_timeout_s,
        read_timeout_s=http.read_timeout_s,
        download_timeout_s=http.download_timeout_s,
        download_bytes=http.response_max_mb << 20,
        connections=http.concurrency + 4,
    )


def drain_limits(config: AccountConfig) -> DrainLimits:
    """Translate the settings into the drainer's limits. The rate is the transport's to keep, for both directions."""
    send = config.send
    return DrainLimits(
        rate_per_s=config.http.rate_per_s,
        concurrency=config.http.concurrency,
        lease_s=send.send_lease_s,
        timeout_s=send.send_timeout_s,
        poll_interval_s=send.send_poll_s,
        backoff_s=send.send_backoff_s,
        backoff_max_s=send.send_backoff_max_s,
        max_attempts=send.send_attempts,
        max_age_s=send.send_age_days * 86400.0,
        settle_window_s=send.settle_window_s,
        read_back_share=send.read_back_share,
        guard=guard(config),
        owners=owners(config),
    )


def owners(config: AccountConfig) -> Owners:
    """Translate the settings into who owns which field, for both directions."""
    send = config.send
    return Owners(Owner(send.conflict_owner), {name: Owner(owner) for name, owner in send.conflict_owners.items()})


def guard(config: AccountConfig) -> Guard | None:
    """Translate the settings into the mass-change guard; None when it is switched off."""
    send = config.send
    if send.guard_relations == 0:
        return None
    return Guard(send.guard_relations, send.guard_share, send.guard_window_s)


def pull_policy(config: AccountConfig) -> PullPolicy:
    """Translate the settings into the puller's policy."""
    pull = config.pull
    return PullPolicy(
        window=window_rule(pull),
        ladder=rungs(pull),
        rewrite=RewriteRule(pull.rewrite_rows, pull.rewrite_share),
        absence_gap_s=pull.absence_gap_s,
        grace_s=config.send.settle_window_s,
        sweep_budget=pull.sweep_budget,
        proven_s=pull.audit_days * 86400.0,
        files=pull.invoice_files,
        unpaid_days=pull.unsettled_days,
        owners=owners(config),
    )
