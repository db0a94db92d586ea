"""The journal that a server keeps: group commit, order, heartbeats. See `journal.base.Journal` for the contract.

Two threads drive it in each process, whatever the number of its event loops. One opens: whatever is queued goes to the
server in one request, and all who wait are woken together. The other one closes and defers, in the background and in
order, and then passes to a small pool whatever is asked after that; so an answer knows every earlier close of this
process. What the server would not take is tried again until the intent has expired and any process may adopt it.

How a dead process is noticed: it ran on this host and is gone, or it has missed its heartbeats for half of
`limits.operation`. That it may be wrong is no harm: an adopted key is healed, and settled only when the operation must
have ended. One process at a time sweeps for orphans, so that none is adopted twice; a deferred key is claimed by one
process for the time of its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from shadow.errors import JournalError
from shadow.host.process import this_process
from shadow.host.supervisor import Supervisor
from shadow.journal.base import Due, Entry
from shadow.journal.claims import CHECK_EVERY
from shadow.journal.server.driver import Driver, NotReady
from shadow.journal.server.ledger import ServerLedger
from shadow.journal.server.records import IntentRow, digest_of, pack
from shadow.journal.threaded import Driven, ThreadedJournal, wake
from shadow.model.background import Background
from shadow.model.version import Key

__all__ = ["RemoteJournal", "patience"]

_BATCH: Final = 512
_ASKING: Final = 8
"""Threads for questions and settlements."""
_AGAIN: Final = 0.5
"""Seconds before closes that failed are tried again."""

Work: TypeAlias = Callable[[ServerLedger], Any]


def patience(limit: float) -> float:
    """The most seconds, about, that the journal waits for its server, for a `limit` of operations."""
    return min(5.0, max(2.0, limit / 4))


@dataclass(slots=True)
class _Job:
    """Somebody in an event loop who waits for a result."""

    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[Any] | None
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Opening(_Job):
    entries: Sequence[Entry] = ()


@dataclass(slots=True)
class _Asking(_Job):
    work: Work = lambda ledger: None


@dataclass(slots=True)
class _Ending:
    """The end of one intent: closed, or deferred with a moment before which it is not settled."""

    row: IntentRow
    settle_after: float | None = None


@dataclass(slots=True)
class _Return:
    """The end of a claim that was not made use of."""

    due: Due


@dataclass(kw_only=True)
class _Side(Driven):
    """What one process has of the journal on a server, which knows it by `name`."""

    name: str
    openings: queue.SimpleQueue[_Opening | None] = field(default_factory=queue.SimpleQueue)
    rest: queue.SimpleQueue[_Asking | _Ending | _Return | None] = field(default_factory=queue.SimpleQueue)
    rows: dict[str, IntentRow] = field(default_factory=dict)
    backlog: list[_Ending] = field(default_factory=list)
    returns: list[Due] = field(default_factory=list)
    ending: bool = False
    entering: threading.Lock = field(default_factory=threading.Lock)
    ledger: ServerLedger | None = None
    entered: bool = False
    attempts: int = 0
    failure: Exception | None = None
    last_beat: float = 0.0
    written: dict[str, float] = field(default_factory=dict)
    """The collections that have been written as unverified, with the moment."""


class RemoteJournal(ThreadedJournal[ServerLedger, _Side]):
    """Bound to no event loop; its threads start with the first use, and again after a fork.

    `connect`: makes the driver of its server, once a process. `place`: where the server is, for people, without
    credentials. `limit`: seconds after which an intent may be adopted; `late`: those within which a write of unknown
    outcome may take effect. A server that does not answer makes a call fail
    with `JournalError` within about `patience(limit)` seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Driver],
        *,
        place: str,
        limit: float = 30.0,
        late: float = 0.0,
        supervisor: Supervisor | None = None,
    ) -> None:
        super().__init__(limit, supervisor)
        self._late = late
        self.place = place
        self._connect = connect

    # --- the contract -------------------------------------------------------------------------------------------

    async def open(self, entries: Sequence[Entry]) -> None:
        side = self._alive()
        if any(entry.op_id in side.rows for entry in entries):
            raise ValueError("an intent with this op_id is open")
        loop = asyncio.get_running_loop()
        job = _Opening(loop, future := loop.create_future(), entries=tuple(entries))
        side.openings.put(job)
        await future

    def decide(self, op_id: str, key: Key) -> None:
        # It is written only if the key is deferred: most intents are closed within moments.
        side = self._alive()
        if (row := side.rows.get(op_id)) is not None:
            side.rows[op_id] = dataclasses.replace(row, decided=pack(key))

    def close(self, op_id: str) -> None:
        side = self._alive()
        if (row := side.rows.pop(op_id, None)) is not None:
            side.rest.put(_Ending(row))

    def defer(self, op_id: str, *, unknown: bool = False) -> None:
        side = self._alive()
        if (row := side.rows.pop(op_id, None)) is not None:
            side.rest.put(_Ending(row, row.expires if unknown else 0.0))

    def give_back(self, due: Due) -> None:
        self._alive().rest.put(_Return(due))
        self._claims.drop(due)

    def doubt(self, collection: str) -> None:
        # Each time is one more: a verification may have begun since the one before.
        self._doubted[collection] = time.time()
        self._alive()

    async def flush(self) -> None:
        await self._ask(lambda ledger: ledger.beat())

    async def probe(self) -> None:
        await self.flush()

    async def prepare(self, timeout: float = 300.0) -> None:
        """Creates the journal on its server and waits until it can be used. Raises `JournalError`."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return await self.flush()
            except JournalError as error:
                if not isinstance(error.__cause__, NotReady) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN)

    def shut(self) -> None:
        side = self._stop()
        if side is None:
            return
        opening, rest = side.threads
        # What is being opened first: what fails there is closed by the other thread.
        side.openings.put(None)
        opening.join(timeout=3 * patience(self.limit))
        side.rest.put(None)
        rest.join(timeout=3 * patience(self.limit))

    # --- the threads --------------------------------------------------------------------------------------------

    async def _ask(self, work: Work, *, reads: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        job = _Asking(loop, future := loop.create_future(), work=work)
        self._alive().rest.put(job)
        return await future

    def _prepared(self) -> _Side:
        owner = this_process()
        # One process may have several journals on one server, and each lives as long as it lives.
        side = _Side(pid=os.getpid(), owner=owner, name=f"{owner.id}/{secrets.token_hex(4)}")
        for name, serve in (("open", self._serve_openings), ("rest", self._serve_rest)):
            thread = threading.Thread(target=serve, args=(side,), name=f"shadow-journal-{name}", daemon=True)
            side.threads.append(thread)
        return side

    def _ready(self, side: _Side) -> ServerLedger:
        """The ledger, entered. The first thread enters; one that waited for it shares its failure, the next tries
        again."""
        if side.entered and side.ledger is not None:
            return side.ledger
        before = side.attempts
        with side.entering:
            if side.attempts != before and side.failure is not None:
                raise side.failure
            if side.ledger is None or not side.entered:
                self._enter(side)
            assert side.ledger is not None
            return side.ledger

    def _enter(self, side: _Side) -> None:
        side.attempts += 1
        try:
            if side.ledger is None:
                driver = self._connect()
                side.ledger = ServerLedger(driver, side.owner, side.name, limit=self.limit, late=self._late)
            side.ledger.enter()
        except Exception as error:
            side.failure = error
            raise
        side.last_beat = side.ledger.clock.latest()
        side.entered, side.failure = True, None

    # --- opening ------------------------------------------------------------------------------------------------

    def _serve_openings(self, side: _Side) -> None:
        turn = self._supervisor.turn(Background.JOURNAL)
        ending = False
        while not ending:
            jobs: list[_Opening] = []
            try:
                turn()
                jobs, ending = _take(side.openings)
                if jobs:
                    self._open(side, jobs)
            except Exception as error:
                self._break_off(side, jobs, error)
                time.sleep(turn.failed(error))
        turn.ended()

    def _break_off(self, side: _Side, jobs: Sequence[_Job], error: Exception) -> None:
        """The thread must go on: the callers would wait for ever."""
        explained = self._explain(side, error)
        for job in jobs:
            job.error = explained
        wake(jobs)

    def _open(self, side: _Side, jobs: list[_Opening]) -> None:
        rows: list[IntentRow] = []
        try:
            ledger = self._ready(side)
            rows = self._rows(side, ledger, jobs)
            ledger.open(rows)
        except Exception as error:
            for row in rows:
                # It may have been written; the primary will not be asked for it.
                side.rest.put(_Ending(row))
            # The callers that came meanwhile have waited long enough.
            late, ending = _take(side.openings, block=False)
            jobs += late
            if ending:
                side.openings.put(None)
            explained = self._explain(side, error)
            for job in jobs:
                job.error = explained
        else:
            side.rows.update((row.op_id, row) for row in rows)
        wake(jobs)

    def _rows(self, side: _Side, ledger: ServerLedger, jobs: Iterable[_Opening]) -> list[IntentRow]:
        opened, expires = ledger.clock.earliest(), ledger.clock.latest() + self.limit
        return [
            IntentRow(each.op_id, each.collection, digest_of(each.key), pack(each.key), opened, expires, side.name)
            for job in jobs
            for each in job.entries
        ]

    def _explain(self, side: _Side, error: Exception) -> JournalError:
        if isinstance(error, JournalError):
            return error
        what, next_step = type(error).__name__, "check journal.url and that its server can be reached"
        if isinstance(error, NotReady):
            what, next_step = str(error), "try again in some seconds; `shadow tables create` creates it and waits"
        elif side.ledger is not None:
            what, next_step = side.ledger.driver.explain_error(error)
        wrapped = JournalError(
            f"the journal {self.place} could not be written: {what}",
            hint=f"{next_step}; writes are refused until it can be written",
        )
        wrapped.__cause__ = error
        return wrapped

    # --- the rest -----------------------------------------------------------------------------------------------

    def _serve_rest(self, side: _Side) -> None:
        turn = self._supervisor.turn(Background.JOURNAL)
        with ThreadPoolExecutor(_ASKING, thread_name_prefix="shadow-journal-ask") as pool:
            while not side.ending:
                jobs: list[Any] = []
                try:
                    turn()
                    taken, side.ending = _take(side.rest, timeout=self._patience_of(side))
                    jobs += taken
                    self._serve_round(side, pool, jobs)
                except Exception as error:
                    self._break_off(side, [job for job in jobs if isinstance(job, _Asking)], error)
                    time.sleep(turn.failed(error))
        self._leave(side)
        turn.ended()

    def _serve_round(self, side: _Side, pool: ThreadPoolExecutor, jobs: Sequence[Any]) -> None:
        side.returns += [job.due for job in jobs if isinstance(job, _Return)]
        side.returns += self._claims.all() if side.ending else self._claims.ended()
        side.backlog += [job for job in jobs if isinstance(job, _Ending)]
        asking = [job for job in jobs if isinstance(job, _Asking)]
        try:
            if jobs or side.backlog or side.returns or side.entered or self._doubted:
                self._end(side, self._ready(side))
        except Exception as error:
            self._drop_expired(side)
            explained = self._explain(side, error)
            for job in asking:
                job.error = explained
            wake(asking)
        else:
            _forward(pool, self._answer, side, asking)

    def _patience_of(self, side: _Side) -> float:
        """Seconds for which nothing has to be done."""
        if side.backlog or side.returns:
            return _AGAIN
        return min(CHECK_EVERY, self._beat_every) if self._claims else self._beat_every

    def _end(self, side: _Side, ledger: ServerLedger) -> None:
        """Writes what has ended, and a heartbeat when it is time."""
        if deferred := [(each.row, each.settle_after) for each in side.backlog if each.settle_after is not None]:
            ledger.defer(deferred)
        if closed := [each.row for each in side.backlog if each.settle_after is None]:
            ledger.close(closed)
        side.backlog.clear()
        while side.returns:
            ledger.give_back(side.returns[-1])
            side.returns.pop()
        for name, since in self.doubted.items():
            if side.written.get(name) != since:
                ledger.doubt(name, since)
                side.written[name] = since
        now = ledger.clock.latest()
        if now - side.last_beat >= self._beat_every:
            ledger.beat()
            side.last_beat = now
            self._prune(side, now)

    def _drop_expired(self, side: _Side) -> None:
        """Drops what could not be closed in time: it expires, and any process adopts it."""
        ledger = side.ledger
        if ledger is None or not side.entered:
            side.backlog.clear()
            side.returns.clear()
            return
        now = ledger.clock.earliest()
        # The lease is no longer than an operation.
        side.returns[:] = [each for each in side.returns if each.claimed + self.limit > now]
        side.backlog[:] = [each for each in side.backlog if each.row.expires > now]

    def _prune(self, side: _Side, now: float) -> None:
        """Forgets intents that were not ended long after they expired: another process has adopted them."""
        for op_id, row in list(side.rows.items()):
            if row.expires + self.limit < now:
                side.rows.pop(op_id, None)

    def _answer(self, side: _Side, job: _Asking) -> None:
        try:
            job.result = job.work(self._ready(side))
        except Exception as error:
            job.error = self._explain(side, error)
        wake([job])

    def _leave(self, side: _Side) -> None:
        """A process that leaves intents stays registered, so that its end is noticed."""
        if side.ledger is None:
            return
        with contextlib.suppress(Exception):
            if side.entered and not side.rows and not side.backlog:
                side.ledger.leave()
        with contextlib.suppress(Exception):
            side.ledger.driver.release()

    @property
    def _beat_every(self) -> float:
        return min(3.0, self.limit / 10)


def _forward(
    pool: ThreadPoolExecutor, answer: Callable[[_Side, _Asking], None], side: _Side, jobs: Sequence[_Asking]
) -> None:
    for job in jobs:
        try:
            pool.submit(answer, side, job)
        except RuntimeError as error:
            # The interpreter is exiting.
            job.error = error
            wake([job])


def _take(jobs: queue.SimpleQueue[Any], *, block: bool = True, timeout: float | None = None) -> tuple[list[Any], bool]:
    """Waits for one job, then takes what else is queued; the flag says whether the end was requested."""
    batch: list[Any] = []
    while len(batch) < _BATCH:
        try:
            job = jobs.get(block=block, timeout=timeout)
        except queue.Empty:
            break
        if job is None:
            return batch, True
        batch.append(job)
        block = False
    return batch, False
