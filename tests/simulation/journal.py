"""The real journal logic (`Ledger`) driven step by step: a queue, a commit at a drawn moment, an answer at another."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shadow.errors import JournalError
from shadow.host.process import Owner
from shadow.journal.base import Due, Entry, JournalStats, Pending
from shadow.journal.sqlite.tables import JournalTask, Ledger, Work
from shadow.model.version import Key
from tests.simulation.conditions import LATE, LIMIT, Conditions

if TYPE_CHECKING:
    from tests.simulation.world import Process

__all__ = ["SimulatedJournal"]


@dataclass(slots=True)
class _Job(JournalTask):
    future: asyncio.Future[Any] | None = None
    lasting: bool = False
    """Whether it is tried again until it is done. What ends an intent is not, or no crash would ever lose it."""


class SimulatedJournal:
    """The journal as one process has it, over a connection that all processes share.

    A crash takes what is queued; what was answered is in the database.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        process: Process,
        conditions: Conditions,
        known_dead: Callable[[Owner], bool],
        rng: random.Random,
    ) -> None:
        self._process = process
        self._conditions = conditions
        self._rng = rng
        self._queue: list[_Job] = []
        self._at_work = False
        self.healthy = False
        self._doubted: dict[str, float] = {}
        self._ledger = Ledger(db, process.owner, limit=LIMIT, clock=process.now, known_dead=known_dead)
        self._ledger.late = LATE if conditions.overdue else 0.0
        self._ledger.enter()

    # --- the contract -------------------------------------------------------------------------------------------

    async def open(self, entries: Sequence[Entry]) -> None:
        asked = self._process.now()
        await self._run(lambda ledger: ledger.open(entries, ledger.at(asked)))
        self._process.note(f"intents {[(each.op_id[-4:], each.key) for each in entries]} are open")

    def decide(self, op_id: str, key: Key) -> None:
        self._process.note(f"decide {op_id[-4:]}: {key}")
        self._submit(_Job(lambda ledger: ledger.decide(op_id, key)))

    def close(self, op_id: str) -> None:
        self._process.note(f"close {op_id[-4:]}")
        self._submit(_Job(lambda ledger: ledger.close(op_id)))

    def defer(self, op_id: str, *, unknown: bool = False) -> None:
        self._process.note(f"defer {op_id[-4:]} {'unknown' if unknown else ''}")
        self._submit(_Job(lambda ledger: ledger.defer(op_id, unknown=unknown)))

    async def has_open(self, collection: str, key: Key) -> bool:
        return bool(await self._run(lambda ledger: ledger.has_open(collection, key)))

    async def due(self, limit: int, lease: float) -> list[Due]:
        found: list[Due] = await self._run(lambda ledger: ledger.due(limit, lease))
        if found:
            self._process.note(f"due {[(each.key, each.generation) for each in found]}")
        return found

    async def settle(self, due: Due) -> bool:
        done = bool(await self._run(lambda ledger: ledger.settle(due)))
        self._process.note(f"settle {due.key} generation {due.generation}: {done}")
        return done

    async def postpone(self, due: Due, delay: float, refused: str = "") -> None:
        await self._run(lambda ledger: ledger.postpone(due, delay, refused))

    def give_back(self, due: Due) -> None:
        self._process.note(f"give back {due.key}")
        self._submit(_Job(lambda ledger: ledger.give_back(due)))

    async def claim(self, collection: str, key: Key, lease: float) -> Due | None:
        found: Due | None = await self._run(lambda ledger: ledger.claim(collection, key, lease))
        return found

    async def entries(
        self, limit: int, *, collection: str | None = None, after: Pending | None = None
    ) -> list[Pending]:
        found: list[Pending] = await self._run(lambda ledger: ledger.entries(limit, collection, after))
        return found

    async def explain(self, collection: str, key: Key) -> list[Pending]:
        found: list[Pending] = await self._run(lambda ledger: ledger.explain(collection, key))
        return found

    def doubt(self, collection: str) -> None:
        self._process.note(f"doubt {collection}")
        since = self._doubted[collection] = self._process.now()
        self._submit(_Job(lambda ledger: ledger.doubt(collection, since), lasting=True))

    @property
    def doubted(self) -> Mapping[str, float]:
        return dict(self._doubted)

    async def doubts(self, collection: str) -> str:
        return str(await self._run(lambda ledger: ledger.doubts(collection)))

    async def trust(self, collection: str, doubts: str) -> None:
        await self._run(lambda ledger: ledger.trust(collection, doubts))

    async def primaries(self, configured: Mapping[str, str]) -> Mapping[str, str]:
        found: Mapping[str, str] = await self._run(lambda ledger: ledger.primaries(configured))
        return found

    async def set_primary(self, collection: str, primary: str) -> None:
        await self._run(lambda ledger: ledger.set_primary(collection, primary))

    async def stats(self) -> JournalStats:
        doubted = self.doubted
        found: JournalStats = await self._run(Ledger.stats)
        # In order: what was doubted before has been written before.
        for name, since in doubted.items():
            if self._doubted.get(name) == since:
                del self._doubted[name]
        return found

    async def flush(self) -> None:
        await self._run(lambda ledger: None)

    async def probe(self) -> None:
        await self._run(Ledger.probe)

    def shut(self) -> None:
        if not self._process.dead:
            self._ledger.commit(self._queue)
            self._queue = []
            self._ledger.leave()

    # --- the writer ---------------------------------------------------------------------------------------------

    async def _run(self, work: Work) -> Any:
        self._process.step()
        future = asyncio.get_running_loop().create_future()
        self._submit(_Job(work, future=future))
        result = await future
        self._process.step()
        return result

    def _submit(self, job: _Job) -> None:
        if self._process.dead:
            return
        self._queue.append(job)
        if not self._at_work:
            self._begin()

    def _begin(self) -> None:
        self._at_work = True
        rng = self._rng
        slow = not self.healthy and rng.random() < self._conditions.journal_slow
        delay = rng.random() * LIMIT * 1.5 if slow else rng.choice((0.0, 0.002)) * rng.random()
        self._process.loop.call_later(delay, self._commit)

    def _commit(self) -> None:
        self._at_work = False
        jobs, self._queue = self._queue, []
        if self._process.dead:
            return
        fails = not self.healthy and self._rng.random() < self._conditions.journal_failing
        # A disk that is full refuses the transaction; one that fails while it answers may have kept it.
        if not fails or self._rng.random() < 0.2:
            self._ledger.commit(jobs)
        if fails:
            self._process.note(f"the journal fails for {len(jobs)} jobs")
            for job in jobs:
                job.error = JournalError("the disk is full in the simulation")
            again = [job for job in jobs if job.lasting]
            self._queue[:0] = again
            if again and not self._at_work:
                self._begin()
        self._process.loop.call_later(self._rng.random() * 0.002, lambda: _answer(jobs))


def _answer(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future is None or job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
