"""Erasing: the sequence of ``syncd erase``, from looking to the receipt, beside a running daemon.

Whoever is in the way (a delivery of the person, an application, a pull that began before) is waited for, within
``wait_s``; then the command ends with "try again later", and the same command goes on from there. Nothing of the person
is ever logged from here, not even at debug.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from syncd.clock import Clock
from syncd.domain.errors import InfrastructureError, SyncdError, UserError
from syncd.policy.erasure import Invoices, Kind, Pseudonym
from syncd.store import Store, erasure
from syncd.store.accounts import account_ids
from syncd.store.erasure import Bearer, Busy, Goal, Opening, Person, Receipt
from syncd.store.shelf_remote import open_shelf

_PAUSE_S = 0.1
_GOES_ON = "run the same command again, it goes on from here"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for. ``account`` is a name, None for all. ``shelves`` are where accounts keep PDFs, by name."""

    email: str = field(repr=False)
    account: str | None
    invoices: Invoices
    actor: str
    may_drop: bool = False
    wait_s: float = 60
    shelves: Mapping[str, Path | str] = field(default_factory=dict)

    def by_hand(self, files: Sequence[str]) -> tuple[str, ...]:
        """Return those of the files that lie on no shelf of ours."""
        return tuple(path for path in files if _account(path) not in self.shelves)


@dataclass(frozen=True, slots=True)
class Found:
    """What is held of the person, before anything is removed. ``accounts`` are names by id."""

    person: Person
    accounts: Mapping[int, str]
    account_id: int | None
    was_erased: bool


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done. ``open_runs`` pulls that began before may still write a word about the person in their report."""

    receipt: Receipt
    open_runs: int


async def look(store: Store, order: Order) -> Found:
    """Return what is held. Raises UserError for an unknown account, SyncdError when nobody is known by the address."""
    async with store.begin() as connection:
        known = await account_ids(connection)
        if order.account is not None and order.account not in known:
            raise UserError(f"there is no account {order.account!r}; there are: {', '.join(known) or 'none'}")
        account_id = None if order.account is None else known[order.account]
        accounts = {int(id_): name for name, id_ in known.items() if account_id in (None, id_)}
        person = await erasure.survey(connection, order.email, accounts)
        is_kept = await erasure.is_kept(connection, person)
        earlier = await erasure.find_open(connection, store.erase_key, order.email, account_id, also_finished=True)
    if not (person.is_known or is_kept) and earlier is None:
        raise SyncdError("nobody with this address is known here; nothing was erased")
    return Found(person, accounts, account_id, earlier is not None and not (person.is_known or is_kept))


async def erase(store: Store, clock: Clock, order: Order, found: Found) -> Erased:
    """Erase whom ``look`` found. Raises UserError when undelivered changes forbid it, InfrastructureError when somebody
    was in the way for too long."""
    person = found.person
    if person.undelivered and not order.may_drop:
        raise UserError(erasure.refusal(len(person.undelivered)))
    patience = _Patience(clock, order.wait_s)
    await patience.until(lambda: _is_idle(store, person), "a change of this person is being sent to the CRM now")
    goal = await _open(store, order, found)
    async with store.begin() as connection:
        older = await erasure.older_writers(connection)
    await patience.until(lambda: _have_ended(store, older), "a pull that began before the erasure is still writing")
    await _remove(store, patience, order, found, goal)
    async with store.begin() as connection:
        receipt = await erasure.finish(connection, goal.erasure_id)
        return Erased(receipt, await erasure.open_runs(connection, goal.erasure_id))


async def _is_idle(store: Store, person: Person) -> bool:
    async with store.begin() as connection:
        return not await erasure.is_in_hand(connection, person.relation_ids)


async def _have_ended(store: Store, older: frozenset[str]) -> bool:
    async with store.begin() as connection:
        return not await erasure.still_writing(connection, older)


async def _open(store: Store, order: Order, found: Found) -> Goal:
    """Write the hashes and commit them: from here on nobody brings the person back."""
    opening = Opening(
        email=order.email,
        account_id=found.account_id,
        invoices=order.invoices,
        actor=order.actor,
        known=_known(found.person, order.invoices),
        by_hand=_to_do(order, found.person),
        is_afterthought=found.was_erased,
    )
    async with store.begin() as connection:
        erasure_id, hasher = await erasure.begin(connection, store.erase_key, opening)
    return Goal(erasure_id, Pseudonym(hasher.email(order.email)), order.invoices, found.person.mentions)


async def _remove(store: Store, patience: _Patience, order: Order, found: Found, goal: Goal) -> None:
    """Remove rows until none is left; each round looks anew, because a pull that began before may have brought some."""
    while True:
        async with store.begin() as connection:
            person = await erasure.survey(connection, order.email, found.accounts)
            known = _known(person, order.invoices)
            await erasure.extend(connection, store.erase_key, goal.erasure_id, found.account_id, known)
        await patience.through(partial(erasure.erase_orders, store, goal, person.orders))
        await _unshelve(order, person.files)  # before their rows: stopped in between, they are found again
        unshelve = partial(_unshelve, order)
        await patience.through(partial(erasure.erase_invoices, store, goal, person.invoices, unshelve))
        await patience.through(partial(erasure.erase_kept, store, goal, person))
        await patience.through(partial(erasure.erase_texts, store, goal, person.relation_ids))
        gone = [await _remove_relation(store, patience, order, goal, bearer) for bearer in person.bearers]
        if all(gone):
            return


async def _unshelve(order: Order, files: Sequence[str]) -> None:
    """Delete the files that lie on our shelves."""
    for path in files:
        if (root := order.shelves.get(_account(path))) is not None:
            await asyncio.to_thread(open_shelf(root).remove, path)


def _account(path: str) -> str:
    return path.partition("/")[0]


async def _remove_relation(store: Store, patience: _Patience, order: Order, goal: Goal, bearer: Bearer) -> bool:
    return await patience.through(lambda: erasure.erase_relation(store, goal, bearer, may_drop=order.may_drop))


def _known(person: Person, invoices: Invoices) -> Sequence[tuple[int, Kind, str]]:
    return (*person.known, *person.numbers) if invoices is Invoices.REMOVE else person.known


def _to_do(order: Order, person: Person) -> list[dict[str, object]]:
    """Return what is to be done elsewhere, in numbers alone: this is kept."""
    relations: dict[str, int] = {}
    for bearer in person.bearers:
        if bearer.remote_id is not None:
            relations[bearer.account] = relations.get(bearer.account, 0) + 1
    found: list[dict[str, object]] = [
        {"what": "delete relations in the CRM", "account": account, "count": count}
        for account, count in relations.items()
    ]
    if person.undelivered:
        found.append({"what": "local changes that were never sent", "count": len(person.undelivered)})
    if left := order.by_hand(person.files):
        found.append({"what": "delete files of invoices", "count": len(left)})
    return found


class _Patience:
    """Waits for whoever is in the way, all in all no longer than was allowed."""

    def __init__(self, clock: Clock, wait_s: float) -> None:
        self._clock, self._ends_at = clock, clock.monotonic() + wait_s

    async def until(self, is_so: Callable[[], Awaitable[bool]], why: str) -> None:
        while not await is_so():
            await self._pause(why)

    async def through(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step, again and again while somebody is in the way."""
        while True:
            try:
                return await step()
            except Busy as busy:
                why = str(busy)
            await self._pause(why)

    async def _pause(self, why: str) -> None:
        if self._clock.monotonic() >= self._ends_at:
            raise InfrastructureError(f"{why}; {_GOES_ON}")
        await self._clock.sleep(_PAUSE_S)
