"""Finalize: removes versions and tombstones from one store of a collection whose migration is over.

    a document with a version    loses the version and stays as it is otherwise, at version ("", 0)
    a tombstone                  is deleted

Both on the condition that it still is as it was read: a write that comes in between is not lost, and its result is read
again. The job is idempotent, so it can be killed anywhere and started again.

What was written a moment ago waits. A client may send a write twice, and the second one may be late; it does no harm as
long as it finds a version other than the one that it expects. Were a version removed too early, a late write that
expects none, or a late insert, would apply to a later state of the document.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, Final

from bson import ObjectId
from bson.errors import InvalidId

from shadow.control.members import Member
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import Jobs
from shadow.jobs.target import JobRefused, JobTarget
from shadow.jobs.work import Handled
from shadow.model.phase import Phase, StoreName
from shadow.model.version import Document, Tombstone, Version
from shadow.stores.ranges import Batch
from shadow.stores.stamps import Stamp, Stamped, Stamps

__all__ = ["Finalize", "finalize_kind", "may_finalize"]

_ATTEMPTS: Final = 8
_YOUNG: Final = "young"
_MOVING: Final = "moving"


async def may_finalize(sides: JobTarget, store: StoreName, fleet: Iterable[Member] = ()) -> None:
    """Raises `JobRefused` unless the collection is no longer replicated: its phase is off in every process of the
    fleet, and the journal holds nothing of it."""
    name = sides.collection
    twice = [row.name for row in fleet if not row.tool and _writes_twice(row, name)]
    if twice:
        raise JobRefused(
            f"{name}: {', '.join(twice)} still writes to both stores, and the versions on {store} are needed",
            hint=f"end dual writes in every process first: shadow complete {name}",
        )
    if sides.start.phase is not Phase.OFF:
        raise JobRefused(
            f"{name}: in phase {sides.start.phase} the versions on {store} are needed",
            hint="finalize is for the end: set its phase to off in every process first",
        )
    stats = await sides.journal.stats()
    waiting = stats.open_by_collection.get(name, 0) + stats.deferred_by_collection.get(name, 0)
    if waiting:
        raise JobRefused(
            f"{name}: the journal holds {waiting} keys of it",
            hint="repair them first: shadow journal heal --apply",
        )


def _writes_twice(row: Member, name: str) -> bool:
    standing = row.standing.get(name)
    return standing is not None and standing.phase is not Phase.OFF


def finalize_kind(store: StoreName, *, apply: bool) -> str:
    """The kind of the job: each store has its own, and so has a dry run, so that none resumes another's."""
    return f"finalize-{store}" if apply else f"finalize-{store}-dry"


class Finalize:
    """The task. `apply`: else it only counts. `older_than`: seconds that must have passed since a document was written.
    Counts: `versions`, `tombstones`, `later` (written a moment ago, or all the time)."""

    def __init__(self, sides: JobTarget, store: StoreName, *, apply: bool, older_than: float | None = None) -> None:
        held = sides.stores[store]
        if not isinstance(held, Stamped):
            raise JobRefused(f"{sides.collection}: {store} cannot be finalized")
        # The job is about one store: it waits for no other, and none has to be there.
        self.sides = dataclasses.replace(
            sides, stores=dict.fromkeys(StoreName, held), ranges=dict.fromkeys(StoreName, sides.ranges[store])
        )
        self.kind = finalize_kind(store, apply=apply)
        self._apply = apply
        self._stamps: Stamps = held.stamps
        # Twice: the hosts' clocks, which are in the ids of their operations, may differ.
        self._older_than = 2 * sides.limits.operation if older_than is None else older_than

    def options(self) -> Mapping[str, Any]:
        return {}

    async def doubts(self) -> str:
        return ""

    async def split(self, parts: int) -> tuple[list[Document], int]:
        name = self.sides.collection
        return await self.sides.source.cut(name, parts), await self.sides.source.estimate(name)

    def scan(self, within: Document, cursor: Document | None, size: int) -> AsyncGenerator[Batch, None]:
        return self._stamps.walk(self.sides.collection, within, cursor, size=size)

    async def handle(self, within: Document, batch: Batch) -> Handled:
        handled = Handled()
        await self._strip([stamp for stamp, _ in batch.images], handled)
        return handled

    async def _strip(self, stamps: Sequence[Stamp], handled: Handled) -> None:
        """Removes what can be removed; the rest becomes issues."""
        name, left = self.sides.collection, list(stamps)
        async with self.sides.steady():
            for _ in range(_ATTEMPTS):
                left = self._old_enough(left, handled)
                done = [True] * len(left) if not self._apply else await self._stamps.strip(name, left)
                for stamp, one in zip(left, done, strict=True):
                    handled.counts[_count(stamp)] += one
                left = [stamp for stamp, one in zip(left, done, strict=True) if not one]
                if not left:
                    return
                again = await self._stamps.look(name, [stamp.key for stamp in left])
                left = [stamp for stamp in again if stamp is not None]
        _postpone(left, _MOVING, "changed all the time", handled)

    def _old_enough(self, stamps: Sequence[Stamp], handled: Handled) -> list[Stamp]:
        before = time.time() - self._older_than
        young = [stamp for stamp in stamps if _written(stamp) > before]
        _postpone(young, _YOUNG, f"written in the last {self._older_than:g} s", handled)
        return [stamp for stamp in stamps if _written(stamp) <= before]

    async def conclude(self, jobs: Jobs, job: int) -> str:
        """Retries once what was written a moment ago; it may be old enough by now."""
        pages = jobs.issues(job)
        while issues := await asyncio.to_thread(next, pages, None):
            keys = [each.key for each in issues]
            found = await self._stamps.look(self.sides.collection, keys)
            handled = Handled()
            await self._strip([stamp for stamp in found if stamp is not None], handled)
            del handled.counts["later"]  # they are counted so already
            await asyncio.to_thread(jobs.tried_again, job, keys, handled.counts, handled.issues)
        if (await asyncio.to_thread(jobs.count_issues, job)).issues:
            return "incomplete"
        if self._apply:
            await self._stamps.clear(self.sides.collection)
        return "complete"


def _postpone(stamps: Sequence[Stamp], kind: str, reason: str, handled: Handled) -> None:
    handled.counts["later"] += len(stamps)
    handled.issues += [Issue(stamp.key, kind, reason) for stamp in stamps]


def _count(stamp: Stamp) -> str:
    return "tombstones" if isinstance(stamp.state, Tombstone) else "versions"


def _written(stamp: Stamp) -> float:
    """When it was written, in epoch seconds by the writer's clock, as far as its ids say; else 0."""
    ids = [stamp.writer]
    match stamp.state:
        case Version(born, _):
            ids.append(born)
        case Tombstone(id_):
            ids.append(id_)
    return max(map(_moment, ids))


def _moment(id_: str) -> float:
    try:
        return ObjectId(id_).generation_time.timestamp()
    except InvalidId:
        return 0.0
