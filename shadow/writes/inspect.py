"""The journal for people: what it holds, what is known of one key, and healing on request.

Nothing here needs a running application, and nothing disturbs one: looking changes nothing, and a heal is the
replicator's own, under the same claims and conditions. What an operation of a living process has open is left to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pymongo.errors import PyMongoError

from shadow.compare.diff import explain
from shadow.compare.equality import agree
from shadow.errors import JournalError, NotFollowed, ShadowError, StoreUnavailable, UnreadableDocument
from shadow.journal.base import Due, Pending, undecided_op
from shadow.model.keys import queue_key
from shadow.model.outcome import refusal_of
from shadow.model.phase import Route
from shadow.model.stored import is_copyable
from shadow.model.verdict import HEALED, Difference, Healing
from shadow.model.version import ABSENT, Image, Key, State, Version
from shadow.stores.base import CopyingMany
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
RepairMany = Callable[[str, Sequence[Key]], Awaitable[list[Healing | None]]]

_TOGETHER: Final = 100
"""Keys that are repaired in one batch."""


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
    """`repair` and `repair_many` are the replicator's; `now` returns epoch seconds."""

    def __init__(
        self,
        context: LoopContext,
        repair: Repair,
        repair_many: RepairMany,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._stores = context.stores
        self._routes = context.routes
        self._journal = context.journal
        self._limits = context.limits
        self._hasher = context.hasher
        self._repair = repair
        self._repair_many = repair_many
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
            left = await self._in_batches(keys, report, failures) if apply else keys
            work = (self._one(name, each, gate, report, failures) for name, each in left)
            # All of them to their end, whatever one of them raises: none may run on behind a caller that has gone.
            for result in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
            progress(report.seen)
            if failures.too_many:
                report.stopped = True
                break
        return report

    # --- many keys ----------------------------------------------------------------------------------------------

    async def _in_batches(
        self, keys: Sequence[tuple[str, Key]], report: HealReport, failures: _Failures
    ) -> list[tuple[str, Key]]:
        """Repairs what can be repaired together, and returns the keys that are to be repaired alone."""
        alone: list[tuple[str, Key]] = []
        together: dict[str, list[Key]] = {}
        for name, key in keys:
            if undecided_op(key) is not None or not self._routes[name].dual_write:
                alone.append((name, key))
            else:
                together.setdefault(name, []).append(key)
        for name, those in together.items():
            for start in range(0, len(those), _TOGETHER):
                batch = those[start : start + _TOGETHER]
                left = batch if len(batch) == 1 else await self._batch(name, batch, report, failures)
                alone += [(name, key) for key in left]
        return alone

    async def _batch(
        self, collection: str, keys: Sequence[Key], report: HealReport, failures: _Failures
    ) -> Sequence[Key]:
        """Repairs and settles keys of one collection under claims. What was not repaired is returned, without one."""
        claims = (self._journal.claim(collection, key, self._limits.operation) for key in keys)
        found = await asyncio.gather(*claims, return_exceptions=True)
        dues = [due for due in found if isinstance(due, Due)]
        left = dues
        try:
            for each in found:
                if isinstance(each, BaseException):
                    raise each
            made = await self._healed_together(collection, dues)
            ended = await asyncio.gather(*map(self._end, dues, made))
            left = [due for due, ending in zip(dues, ended, strict=True) if ending is None]
        finally:
            # A claim must not outlive the attempt: somebody else may follow at once.
            for due in left:
                self._journal.give_back(due)
        for key, each in zip(keys, found, strict=True):
            if each is None:
                report.add(collection, key, Healing.IN_FLIGHT, "")
        for due, ending in zip(dues, ended, strict=True):
            if ending is not None:
                report.add(collection, due.key, ending, "")
                failures.count(failed=False)
        return [due.key for due in left]

    async def _end(self, due: Due, result: Healing | None) -> Healing | None:
        """Settles the claim of a key that was repaired, or may not be."""
        if result is Healing.REVERSED:
            await self._journal.postpone(due, 0)
        elif result is not None and not await self._journal.settle(due):
            return Healing.UNSETTLED
        return result

    async def _healed_together(self, collection: str, dues: Sequence[Due]) -> list[Healing | None]:
        """What came of each; None: it is to be repaired alone, which also finds out why."""
        route = self._routes[collection]
        primary, secondary = self._stores[route.primary], self._stores[route.secondary]
        results: list[Healing | None] = [None] * len(dues)
        if not isinstance(primary, CopyingMany) or not isinstance(secondary, CopyingMany):
            return results
        if len(dues) < 2 or secondary.copies_at_once(collection) < 2:
            return results
        keys = [due.key for due in dues]
        with contextlib.suppress(PyMongoError, ShadowError, TimeoutError):
            async with within(self._limits.operation / 2):
                there = await secondary.lasting_images(collection, keys)
                here = await primary.lasting_images(collection, keys)
            actions = list(map(_action, here, there))
            places = [place for place, action in enumerate(actions) if action is not Action.REFUSE]
            healed = await self._repair_many(collection, [keys[place] for place in places])
            results = [Healing.REVERSED if action is Action.REFUSE else None for action in actions]
            for place, result in zip(places, healed, strict=True):
                results[place] = result
        return results

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
