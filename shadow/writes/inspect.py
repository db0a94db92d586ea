"""The journal for people: what it holds, what is known of one key, and healing on request.

Nothing here needs a running application, and nothing disturbs one: looking changes nothing, and a heal is the
replicator's own, under the same claims and conditions. What an operation of a living process has open is left to it.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from shadow.compare.diff import explain
from shadow.compare.equality import agree
from shadow.errors import JournalError, NotFollowed, StoreUnavailable, UnreadableDocument
from shadow.journal.base import Due, Pending, undecided_op
from shadow.model.keys import queue_key
from shadow.model.outcome import refusal_of
from shadow.model.phase import Route
from shadow.model.stored import is_copyable
from shadow.model.verdict import HEALED, Difference, Healing
from shadow.model.version import ABSENT, Image, Key, State, Version
from shadow.stores.within import within
from shadow.writes.context import LoopContext
from shadow.writes.heal import HealContended, decided

__all__ = ["Action", "Explanation", "HealReport", "Inspector", "Waits"]

PAGE: Final = 500
"""Entries that are read from the journal at once."""

IN_A_ROW: Final = 20
"""Heals that fail one after the other before the rest is left: a store is down, and each costs its time limit."""

MOST_LEFT: Final = 100
"""Keys that a report names one by one; the others are counted."""

Repair = Callable[[str, Key], Awaitable[Healing]]


class Action(enum.StrEnum):
    """What a heal of a key would do to the secondary."""

    NOTHING = "nothing"
    COPY = "copy"
    TOMBSTONE = "tombstone"
    REFUSE = "refuse"
    UNREADABLE = "unreadable"
    """None: what the primary holds cannot be read, so there is nothing to copy and nothing was deleted."""


class Waits(enum.StrEnum):
    """Why the journal's entry of a key cannot be settled yet."""

    NOTHING_HELD = "nothing_held"
    IN_FLIGHT = "in_flight"
    UNKNOWN_OUTCOME = "unknown_outcome"
    NOT_FOLLOWED = "not_followed"
    REVERSED = "reversed"
    REFUSED = "refused"


_WOULD: Final = {
    Action.NOTHING: Healing.EQUAL,
    Action.COPY: Healing.COPIED,
    Action.TOMBSTONE: Healing.TOMBSTONED,
    Action.REFUSE: Healing.REVERSED,
    Action.UNREADABLE: Healing.FAILED,
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of one key, without values: what the journal holds of it, what each store shows, where they
    differ, what a heal would do, and whether its entry could be settled now (`waits` is None) or why not. `refused`:
    the error with which the secondary refused the primary's document at the last heal.

    `differences` are of the two documents; empty where one has none. `settles_at` is in epoch seconds, 0.0 with
    nothing in the journal.
    """

    collection: str
    key: Key
    route: Route
    pending: tuple[Pending, ...]
    primary: State
    secondary: State
    equal: bool
    differences: tuple[Difference, ...]
    action: Action
    waits: Waits | None
    settles_at: float

    @property
    def refused(self) -> str:
        return next((each.refused for each in self.pending if each.refused), "")


@dataclass(slots=True)
class HealReport:
    """What a run over the journal came to. `left`: the first keys that stay in the journal, and why; `stopped`: the
    run ended early, for heals failed in a row."""

    applied: bool
    endings: Counter[Healing] = field(default_factory=Counter)
    by_collection: dict[str, Counter[Healing]] = field(default_factory=dict)
    left: list[tuple[str, Key, Healing, str]] = field(default_factory=list)
    stopped: bool = False

    @property
    def seen(self) -> int:
        return self.endings.total()

    @property
    def remaining(self) -> int:
        """Keys that are still in the journal, as far as this run saw it."""
        return self.seen - sum(self.endings[each] for each in HEALED if self.applied)

    def add(self, collection: str, key: Key, ending: Healing, error: str) -> None:
        self.endings[ending] += 1
        self.by_collection.setdefault(collection, Counter())[ending] += 1
        if ending not in HEALED and len(self.left) < MOST_LEFT:
            self.left.append((collection, key, ending, error))


def _named(error: Exception) -> str:
    """Its class, and the code of the server if there is one."""
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


class Inspector:
    """`repair` is the replicator's; `now` returns epoch seconds."""

    def __init__(self, context: LoopContext, repair: Repair, *, now: Callable[[], float] = time.time) -> None:
        self._stores = context.stores
        self._routes = context.routes
        self._journal = context.journal
        self._limits = context.limits
        self._hasher = context.hasher
        self._repair = repair
        self._now = now

    def key_hash(self, key: Key) -> str:
        """The hash of a key, as log lines and findings show it."""
        return self._hasher.hash_key(key)

    async def entries(self, limit: int, collection: str | None = None) -> list[Pending]:
        """Up to `limit` intents and deferrals, oldest first. Raises `JournalError`."""
        return await self._journal.entries(limit, collection=collection)

    async def explain(self, collection: str, key: Key) -> Explanation:
        """What is known of one key; changes nothing. Raises `JournalError` and what the stores raise."""
        route = self._routes[collection]
        pending = tuple(await self._journal.explain(collection, key))
        primary, secondary = await self._images(collection, key, route)
        action = _action(primary, secondary)
        if undecided_op(key) is not None and not primary.present and not secondary.present:
            action = Action.NOTHING
        differences: tuple[Difference, ...] = ()
        if primary.document is not None and secondary.document is not None:
            differences = explain(primary.document, secondary.document, hasher=self._hasher)
        return Explanation(
            collection,
            key,
            route,
            pending,
            primary.state,
            secondary.state,
            agree(primary, secondary),
            differences,
            action,
            self._waits(route, pending, action),
            max((each.settle_after for each in pending), default=0.0),
        )

    async def heal(
        self,
        *,
        collection: str | None = None,
        key: Key = None,
        apply: bool = False,
        workers: int = 8,
        progress: Callable[[int], None] = lambda done: None,
    ) -> HealReport:
        """Heals what the journal held when the run began: all of it, one collection, or one `key` of it (with
        `collection`). Without `apply` it says what that would do. `progress` is called with how many keys are done.

        Raises `StoreUnavailable` if a store does not answer at the start, and `JournalError`.
        """
        report, failures = HealReport(applied=apply), _Failures()
        gate = asyncio.Semaphore(workers)
        async for keys in self._pages(collection, key):
            if not report.seen:
                await self._check_stores()
            work = (self._one(name, each, gate, report, failures) for name, each in keys)
            # All of them to their end, whatever one of them raises: none may run on behind a caller that has gone.
            for result in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
            progress(report.seen)
            if failures.too_many:
                report.stopped = True
                break
        return report

    # --- one key ------------------------------------------------------------------------------------------------

    async def _one(
        self, collection: str, key: Key, gate: asyncio.Semaphore, report: HealReport, failures: _Failures
    ) -> None:
        async with gate:
            if failures.too_many:
                return
            # One that cannot be read says nothing about the store, so it ends no run.
            counted = True
            try:
                ending, error = await (self._heal if report.applied else self._foresee)(collection, key)
            except JournalError:
                raise
            except UnreadableDocument as failure:
                ending, error, counted = Healing.FAILED, failure.reason, False
            except Exception as failure:
                ending, error = Healing.FAILED, _named(failure)
            report.add(collection, key, ending, error)
            failures.count(failed=counted and ending is Healing.FAILED)

    async def _foresee(self, collection: str, key: Key) -> tuple[Healing, str]:
        """What `_heal` would come to now."""
        found = await self.explain(collection, key)
        match found.waits:
            case Waits.NOT_FOLLOWED:
                return Healing.NOT_FOLLOWED, ""
            case Waits.IN_FLIGHT:
                return Healing.IN_FLIGHT, ""
            case Waits.UNKNOWN_OUTCOME:
                return Healing.UNSETTLED, ""
            case Waits.REFUSED:
                return Healing.REFUSED, found.refused
        if found.action is Action.UNREADABLE:
            raise UnreadableDocument("what the primary holds cannot be read")
        return _WOULD[found.action], ""

    async def _heal(self, collection: str, key: Key) -> tuple[Healing, str]:
        """Heals and settles one key under a claim. Raises what the stores raise, with the claim given back."""
        if not self._routes[collection].dual_write:
            return Healing.NOT_FOLLOWED, ""
        due = await self._journal.claim(collection, key, self._limits.operation)
        if due is None:
            return Healing.IN_FLIGHT, ""
        try:
            return await self._heal_claimed(due)
        except asyncio.CancelledError:
            # The claim must not outlive the attempt: somebody else may follow at once.
            self._journal.give_back(due)
            raise
        except (HealContended, NotFollowed) as error:
            await self._journal.postpone(due, self._limits.recover_every)
            return Healing.CONTENDED if isinstance(error, HealContended) else Healing.NOT_FOLLOWED, ""
        except Exception as error:
            refused = refusal_of(error)
            await self._journal.postpone(due, self._limits.recover_every, refused)
            if refused and not isinstance(error, UnreadableDocument):
                return Healing.REFUSED, refused
            raise

    async def _heal_claimed(self, due: Due) -> tuple[Healing, str]:
        images = await self._images(due.collection, due.key, self._routes[due.collection])
        if _action(*images) is Action.REFUSE:
            await self._journal.postpone(due, 0)
            return Healing.REVERSED, ""
        result = await self._repair(due.collection, due.key)
        settled = await self._journal.settle(due)
        return result if settled else Healing.UNSETTLED, ""

    async def _images(self, collection: str, key: Key, route: Route) -> tuple[Image, Image]:
        """The primary's and the secondary's; the secondary is read first, as every heal does."""
        async with within(self._limits.operation / 2):
            keys = await decided(self._stores.values(), collection, key)
            if not keys:  # an operation that has changed nothing, or whose document another one has changed since
                return Image(ABSENT), Image(ABSENT)
            secondary = await self._stores[route.secondary].image(collection, keys[0])
            return await self._stores[route.primary].image(collection, keys[0]), secondary

    def _waits(self, route: Route, pending: tuple[Pending, ...], action: Action) -> Waits | None:
        if not pending:
            return Waits.NOTHING_HELD
        if not route.dual_write:
            return Waits.NOT_FOLLOWED
        if action is Action.REFUSE:
            return Waits.REVERSED
        now = self._now()
        if any(not each.deferred and not each.owner_dead and each.settle_after > now for each in pending):
            return Waits.IN_FLIGHT
        if any(each.settle_after > now for each in pending):
            return Waits.UNKNOWN_OUTCOME
        return Waits.REFUSED if action is Action.COPY and any(each.refused for each in pending) else None

    # --- many ---------------------------------------------------------------------------------------------------

    async def _pages(self, collection: str | None, key: Key) -> AsyncIterator[list[tuple[str, Key]]]:
        """The keys that the journal held when this began, each once, in pages, oldest first."""
        if collection is not None and key is not None:
            if await self._journal.explain(collection, key):
                yield [(collection, key)]
            return
        began, last, seen = self._now(), None, set[int]()
        while True:
            page = await self._journal.entries(PAGE, collection=collection, after=last)
            keys: list[tuple[str, Key]] = []
            for each in page:
                # Only the hash: a run over millions of keys keeps all of them.
                place = hash(queue_key(each.collection, each.key))
                if each.since <= began and place not in seen:
                    seen.add(place)
                    keys.append((each.collection, each.key))
            if keys:
                yield keys
            if len(page) < PAGE or page[-1].since > began:
                return
            last = page[-1]

    async def _check_stores(self) -> None:
        """Better one error at the start than one for each key."""
        for name, store in self._stores.items():
            try:
                async with within(min(10.0, self._limits.operation)):
                    await store.ping()
            except Exception as error:
                raise StoreUnavailable(
                    f"{name} does not answer ({type(error).__name__}), so nothing was healed",
                    hint="both stores are needed for it; look at the address and the credentials",
                ) from error


@dataclass(slots=True)
class _Failures:
    """Heals that failed without one in between that did not."""

    in_a_row: int = 0

    def count(self, *, failed: bool) -> None:
        self.in_a_row = self.in_a_row + 1 if failed else 0

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= IN_A_ROW


def _action(primary: Image, secondary: Image) -> Action:
    """What a heal would do. It refuses what the primary holds and nobody can read, and where the secondary is ahead of
    the primary: revisions of one birth only ever rise on the primary, so the roles are not those under which the
    writes were made."""
    if not is_copyable(primary):
        return Action.UNREADABLE
    ahead = (
        isinstance(primary.state, Version)
        and isinstance(secondary.state, Version)
        and primary.state.born == secondary.state.born
        and primary.state.rev < secondary.state.rev
    )
    if ahead:
        return Action.REFUSE
    if primary.document is None:
        return Action.TOMBSTONE
    return Action.NOTHING if agree(primary, secondary) else Action.COPY
