"""Backfill: the documents that were there before the migration, copied beside live traffic.

A copy is an insert where the secondary has nothing at all, no tombstone either. While writes go to both stores, every
write that came after the document was read leaves its version or its tombstone in the secondary, so a stale copy finds
it and does nothing. Where the secondary holds another image, `heal` decides. A document that shadow has never written
is copied at version `Version("", 0)`, on which the fence of the first write holds: no write to the primary is needed.

Out-of-band writes leave nothing in the secondary. Each batch therefore reads the primary again after it was copied:
what has gone there, or is at another version, is healed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from shadow.compare.equality import agree
from shadow.jobs.issues import Issue
from shadow.jobs.jobs import Job, Jobs
from shadow.jobs.target import JobRefused, JobTarget, RouteChanged
from shadow.jobs.work import Handled, failed, fingerprint, patiently
from shadow.model.outcome import Outcome, classify
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Document, Image, Key
from shadow.stores.ranges import Batch
from shadow.writes.heal import HealContended

__all__ = ["Backfill", "retry"]

NAMELESS: Final = "unreadable"
"""The kind of issue of a document that cannot be read again, since no query can name its key."""

_AT_ONCE: Final = 16
_HEALED: Final = {Healing.EQUAL: "present", Healing.COPIED: "copied", Healing.TOMBSTONED: "gone"}

_Pair = tuple[Key, Image]


class Backfill:
    """The task. Counts: `copied`, `present` (the same image was there), `gone` (deleted meanwhile), `moved` (changed
    under the copy, and healed), `failed`."""

    kind = "backfill"

    def __init__(self, sides: JobTarget) -> None:
        sides.check_followed()
        self.sides = sides

    def options(self) -> Mapping[str, Any]:
        return {}

    async def doubts(self) -> str:
        return ""

    async def split(self, parts: int) -> tuple[list[Document], int]:
        name = self.sides.collection
        total = await self.sides.source.estimate(name)
        # A missing table is an error also where there is nothing to copy into it.
        await self.sides.target.look(name, [""], whole=False)
        return await self.sides.source.cut(name, parts), total

    def scan(self, within: Document, cursor: Document | None, size: int) -> AsyncGenerator[Batch, None]:
        return self.sides.source.walk(self.sides.collection, within, cursor, size=size, whole=True, filter={})

    async def handle(self, within: Document, batch: Batch) -> Handled:
        handled = Handled()
        async with self.sides.steady():
            other = await self._copy(batch.images, handled)
            changed = await self._changed_since(batch.images)
        # Outside: a heal checks the route itself.
        await self._heal(other, handled)
        await self._heal(changed, handled, "moved")
        for key, fault in batch.nameless:
            handled.counts["failed"] += 1
            handled.issues.append(Issue(key, NAMELESS, fault))
        return handled

    async def _copy(self, images: Sequence[_Pair], handled: Handled) -> list[Key]:
        """Inserts what the secondary lacks, counts what it has already, and returns the other keys."""
        name, target = self.sides.collection, self.sides.target
        if not images:  # a page of tombstones
            return []
        done = await target.put_absent(name, images)
        handled.counts["copied"] += sum(done)
        left = [pair for pair, one in zip(images, done, strict=True) if not one]
        if not left:
            return []
        there = await target.look(name, [key for key, _ in left], whole=True)
        alone = [pair for pair, seen in zip(left, there, strict=True) if seen.state == ABSENT]
        other = [
            key
            for (key, image), seen in zip(left, there, strict=True)
            if seen.state != ABSENT and not agree(image, seen)
        ]
        handled.counts["present"] += len(left) - len(alone) - len(other)
        return other + await self._put_alone(alone, handled)

    async def _put_alone(self, pairs: Sequence[_Pair], handled: Handled) -> list[Key]:
        """Inserts what no batch could take; returns the keys that the secondary has got meanwhile, or cannot take."""
        taken: list[Key] = []

        async def put(pair: _Pair) -> None:
            try:
                done = await self.sides.secondary.put(self.sides.collection, *pair, ABSENT)
            except DuplicateKeyError:
                done = False  # another document there has one of its unique values: a heal repairs both, if it can
            if done:
                handled.counts["copied"] += 1
            else:
                taken.append(pair[0])

        await self._each(pairs, lambda pair: self._guarded(pair[0], put(pair), handled))
        return taken

    async def _changed_since(self, images: Sequence[_Pair]) -> list[Key]:
        if not images:
            return []
        now = await self.sides.source.look(self.sides.collection, [key for key, _ in images], whole=False)
        return [key for (key, image), seen in zip(images, now, strict=True) if seen.state != image.state]

    async def _heal(self, keys: Sequence[Key], handled: Handled, count: str = "") -> None:
        async def heal(key: Key) -> None:
            healing = await self.sides.heal(key)
            handled.counts[count or _HEALED.get(healing, "failed")] += 1

        alone: list[Key] = []
        for key, healing in zip(keys, await self.sides.heal_many(keys) if keys else [], strict=True):
            if healing is None:
                alone.append(key)
            else:
                handled.counts[count or _HEALED.get(healing, "failed")] += 1
        await self._each(alone, lambda key: self._guarded(key, heal(key), handled))

    async def _each(self, items: Sequence[Any], work: Callable[[Any], Awaitable[None]]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(item: Any) -> None:
            async with gate:
                await work(item)

        results = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _guarded(self, key: Key, work: Awaitable[None], handled: Handled) -> None:
        """A document that is refused is an issue; a store that cannot be reached fails the whole batch."""
        try:
            await work
        except RouteChanged:
            raise
        except HealContended:
            handled.issues.append(Issue(key, "failed", "changed all the time"))
        except Exception as error:
            if classify(error) is not Outcome.REFUSED:
                raise
            handled.counts["failed"] += 1
            handled.issues.append(Issue(key, "failed", failed(error)))

    async def conclude(self, jobs: Jobs, job: int) -> str:
        """Retries once what could not be copied. Safe to repeat, also for a job that has ended."""
        pages = jobs.issues(job)
        while issues := await asyncio.to_thread(next, pages, None):
            handled = Handled()
            keys = [each.key for each in issues if each.kind != NAMELESS]
            await self._heal(keys, handled)
            del handled.counts["failed"]  # they are counted so already
            await asyncio.to_thread(jobs.tried_again, job, keys, handled.counts, handled.issues)
        left = await asyncio.to_thread(jobs.count_issues, job)
        return "incomplete" if left.issues else "complete"


async def retry(sides: JobTarget, jobs: Jobs, id: int, patience: float) -> Job:
    """Tries again to copy the documents that a backfill could not copy, and those alone; the job then has the outcome
    of that. `patience`: seconds for which a store may be unreachable.

    Raises `JobRefused` where the outcome would prove nothing, `StoreUnavailable`, and what a repair of a key raises.
    """
    job = await asyncio.to_thread(jobs.job, id)
    newest = await asyncio.to_thread(jobs.jobs, kind=Backfill.kind, collection=job.collection, limit=1)
    proof = await asyncio.to_thread(jobs.proof, job.collection)
    if job.kind != Backfill.kind:
        raise JobRefused(
            f"job {id} is no backfill but a {job.kind}", hint=f"shadow repair plan {job.collection} FILE repairs it"
        )
    again = f"shadow backfill {job.collection} copies what is missing"
    if job.finished is None:
        raise JobRefused(f"job {id} has not ended", hint=f"it tries again by itself at its end; {again}")
    if newest[0].id != id:
        raise JobRefused(f"job {id}: job {newest[0].id} is newer, and its documents alone are kept", hint=again)
    if (job.fingerprint, job.epoch) != (fingerprint(sides), proof):
        raise JobRefused(
            f"job {id}: since it ended, the stores or the primary have changed, or dual writes were interrupted",
            hint=again,
        )
    await patiently(sides.check_kind, patience)
    outcome = await patiently(lambda: Backfill(sides).conclude(jobs, id), patience)
    await asyncio.to_thread(jobs.amend, id, outcome)
    return await asyncio.to_thread(jobs.job, id)
