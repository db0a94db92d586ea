"""What the application does in a run, what strikes it meanwhile, and what it heard."""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import PyMongoError

from shadow.control.epochs import proof_of
from shadow.errors import SecondaryWriteError, ShadowError
from shadow.jobs.backfill import Backfill
from shadow.jobs.verify import Scope, Verify
from shadow.model.operation import ANY, Applied, Change, Delete, Insert, Query, Replace, Update, Verb
from shadow.model.outcome import TRANSIENT, Outcome, classify
from shadow.model.phase import Phase, WriteMode
from shadow.model.version import Key
from shadow.stores.ranges import Batch
from shadow.writes import heal as healing
from tests.simulation import alone, expiry
from tests.simulation.conditions import COLLECTION, LIMIT
from tests.simulation.fleets import HEARTBEAT
from tests.simulation.history import mark_of
from tests.simulation.sessions import Session
from tests.simulation.world import Process, World

__all__ = ["Answer", "Heard", "Workload"]


_TRIES = 3
"""How often somebody tries to flip where something is in the way."""


class Heard(enum.Enum):
    DONE = "done"
    """Acknowledged, and it changed something."""
    NOTHING = "nothing"
    """Acknowledged, or refused: it changed nothing."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application heard of one attempt; `amount` is what it would add to a counter."""

    change: Change
    heard: Heard
    amount: int = 0


class Workload:
    """Callers, crashes, outages, backfill and repairs of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self.answers: list[Answer] = []
        self._asked: dict[str, tuple[Change, int]] = {}
        self._busy: list[asyncio.Task[Any]] = []

    def begin(self) -> None:
        world, conditions = self._world, self._world.conditions
        for number in range(conditions.callers):
            self._caller(world.processes[number % len(world.processes)], conditions.operations)
        for _ in range(conditions.crashes):
            self._at_some_time(self._crash)
        for _ in range(conditions.steps):
            self._at_some_time(self._world.step_clock)
        for _ in range(conditions.restarts):
            self._at_some_time(self._restart)
        for _ in range(conditions.loops):
            self._at_some_time(self._end_loop)
        for _ in range(conditions.secondary_down):
            self._outage(world.secondary)
        for _ in range(conditions.primary_down):
            self._outage(world.primary)
        for _ in range(conditions.repairs):
            self._at_some_time(self._repair)
        if conditions.seeded:
            self._at_some_time(self._backfill)
        for _ in range(conditions.flips):
            self._at_some_time(self._flip)
        for _ in range(conditions.changes):
            self._at_some_time(self._change_phase)
        for _ in range(conditions.control_down):
            self._outage(self._world.records)
        for _ in range(conditions.cut_off):
            self._at_some_time(self._cut_off)
        for _ in range(conditions.divisions):
            self._at_some_time(self._world.divide)
        for _ in range(conditions.verifications):
            self._at_some_time(self._verify)

    @property
    def done(self) -> bool:
        return all(task.done() for task in self._busy)

    def unheard(self) -> list[Answer]:
        """Attempts whose caller went before there was an answer, with its process or alone."""
        return [Answer(change, Heard.UNKNOWN, amount) for change, amount in self._asked.values()]

    def _start(self, process: Process, work: Coroutine[Any, Any, None]) -> None:
        self._busy.append(process.spawn(work))

    def _at_some_time(self, event: Callable[[], None]) -> None:
        def strike() -> None:
            if self._world.alive and not self._world.healed:
                event()

        self._world.loop.call_later(self._rng.random() * self._rng.choice((0.05, 0.5, 3.0)), strike)

    # --- callers ------------------------------------------------------------------------------------------------

    def _caller(self, process: Process, operations: int) -> None:
        self._start(process, self._call_in_turn(process, operations))

    async def _call_in_turn(self, process: Process, operations: int) -> None:
        for _ in range(operations):
            await self._pause()
            if process.dead:
                return
            await self._one(process)

    async def _pause(self) -> None:
        haste = self._world.conditions.haste
        await asyncio.sleep(self._rng.random() * haste * self._rng.choice((0, 1, 1, 1, 10)))

    async def _one(self, process: Process) -> None:
        rng, world = self._rng, self._world
        if world.conditions.transactions and rng.random() < world.conditions.transactions:
            await self._transact(process)
        elif rng.random() < world.conditions.reads:
            await self._read(process)
        elif world.conditions.many and rng.random() < world.conditions.many:
            await self._change_many(process)
        elif world.conditions.alone and rng.random() < world.conditions.alone / 3:
            await self._change_found(process)
        elif world.counters and rng.random() < 0.2:
            key, amount = rng.choice(world.counters), rng.randint(1, 9)
            await self._write(process, Verb.UPDATE_ONE, self._update(key, {"$inc": {"n": amount}}), amount)
        else:
            names, weights = zip(*world.conditions.verbs, strict=True)
            verb = rng.choices(names, weights)[0]
            if verb == "insert_many":
                await self._insert_many(process)
            else:
                await self._write(process, *getattr(self, f"_{verb}")(rng.choice(world.keys)))

    async def _write(self, process: Process, verb: Verb, change: Change, amount: int = 0) -> None:
        """One write, whose caller may be cancelled while it waits."""
        if self._world.conditions.alone and self._rng.random() < self._world.conditions.alone:
            change = alone.everywhere(change)
        mark = mark_of(change)
        self._asked[mark] = change, amount
        process.note(f"asks {verb} {change.key} {mark[-4:]}")
        call = process.spawn(process.write(verb, change))
        if not self._world.healed and self._rng.random() < self._world.conditions.cancelled:
            self._world.loop.call_later(self._rng.random() * 0.02, call.cancel)
        try:
            result = await call
        except asyncio.CancelledError:
            process.note(f"caller of {mark[-4:]} is cancelled")
            if process.dead or process.resting:
                raise
        except Exception as error:
            self._hear(process, change, error, amount)
        else:
            self._hear(process, change, result, amount)

    # --- transactions -------------------------------------------------------------------------------------------

    async def _transact(self, process: Process) -> None:
        """A transaction of a few statements, which is committed, aborted, or left to the end of its session."""
        rng = self._rng
        session = Session(process.stores[self._world.conditions.primary])
        process.sessions.append(session)
        session.start_transaction()
        made: list[tuple[Change, int, Applied | None]] = []
        process.note("begins a transaction")
        try:
            for _ in range(rng.randint(1, 4)):
                await self._state(process, session, made)
                await asyncio.sleep(rng.random() * self._world.conditions.lasting)
        except (PyMongoError, ShadowError) as error:
            process.note(f"a statement failed: {error!r}"[:160])
            if rng.random() < 0.8:
                await self._abort(process, session, made)
                return
            # Wrong, but it happens: the application does not care.
        if rng.random() < 0.8:
            await self._commit(process, session, made)
        elif rng.random() < 0.7:
            await self._abort(process, session, made)
        else:
            session.in_transaction, session.has_ended = False, True
            self._hear_all(process, made, Heard.NOTHING)

    async def _state(self, process: Process, session: Session, made: list[tuple[Change, int, Applied | None]]) -> None:
        rng, amount = self._rng, 0
        if self._world.counters and rng.random() < 0.3:
            amount = rng.randint(1, 9)
            verb, change = Verb.UPDATE_ONE, self._update(rng.choice(self._world.counters), {"$inc": {"n": amount}})
        else:
            name = rng.choice(("insert", "inc", "inc", "set", "replace", "upsert", "delete", "first", "delete_first"))
            verb, change = getattr(self, f"_{name}")(rng.choice(self._world.keys))
        mark = mark_of(change)
        self._asked[mark] = change, amount
        process.note(f"asks in a transaction {verb} {change.key} {mark[-4:]}")
        try:
            applied = await process.runtime.sessions.router(session).write(COLLECTION, verb, change)
        except (PyMongoError, ShadowError):
            made.append((change, amount, None))
            raise
        made.append((change, amount, applied))

    async def _commit(self, process: Process, session: Session, made: list[tuple[Change, int, Applied | None]]) -> None:
        """It is tried again, as `with_transaction` does, but not for long."""
        sent = False
        for _ in range(self._rng.randint(1, 3)):
            try:
                await session.commit_transaction()
            except SecondaryWriteError:
                self._hear_all(process, made, Heard.DONE)
                return
            except PyMongoError as error:
                process.note(f"the commit failed: {error!r}"[:160])
                sent = True
                if error.has_error_label(TRANSIENT):
                    self._hear_all(process, made, Heard.NOTHING)
                    return
            except ShadowError as error:
                process.note(f"nothing is committed: {error!r}"[:160])
            else:
                self._hear_all(process, made, Heard.DONE)
                return
            await asyncio.sleep(self._rng.random() * self._rng.choice((0.1, 2 * LIMIT)))
        self._hear_all(process, made, Heard.UNKNOWN if sent else Heard.NOTHING)
        session.in_transaction = False

    async def _abort(self, process: Process, session: Session, made: list[tuple[Change, int, Applied | None]]) -> None:
        await session.abort_transaction()
        self._hear_all(process, made, Heard.NOTHING)

    def _hear_all(self, process: Process, made: list[tuple[Change, int, Applied | None]], heard: Heard) -> None:
        process.note(f"hears of its transaction: {heard}")
        for change, amount, applied in made:
            self._asked.pop(mark_of(change))
            self.answers.append(Answer(change, Heard.NOTHING if applied is None else heard, amount))

    async def _insert_many(self, process: Process) -> None:
        inserts = [self._insert(key)[1] for key in self._rng.sample(self._world.keys, len(self._world.keys))]
        for insert in inserts:
            self._asked[insert.born] = insert, 0
        process.note(f"asks insert_many {[(each.key, each.born[-4:]) for each in inserts]}")
        try:
            results = await process.router.insert_many(COLLECTION, inserts, ordered=self._rng.random() < 0.5)
        except SecondaryWriteError:
            # It says nothing about the single documents of the batch.
            return
        except Exception as error:
            results = [error] * len(inserts)
        for insert, result in zip(inserts, results, strict=True):
            self._hear(process, insert, result, 0)

    async def _change_many(self, process: Process) -> None:
        """One batch of the router, whose results tell of each document."""
        keys = self._rng.sample(self._world.keys, len(self._world.keys))
        verb, changes = self._many_of(keys)
        for change in changes:
            self._asked[mark_of(change)] = change, 0
        process.note(f"asks {verb} {[(each.key, mark_of(each)[-4:]) for each in changes]}")
        router = process.router
        try:
            with router._work.held() as hold:
                work = functools.partial(router._change_many, COLLECTION, verb, changes, None)
                results = await router._running.answered(work, hold)
        except SecondaryWriteError:
            return
        except Exception as error:
            results = [error] * len(changes)
        if any(isinstance(each, Applied) and not each.counted for each in results):
            # Another one has deleted some of them, and the number does not say which.
            return
        # A caller hears the first error, and nothing of the others.
        whole = not any(isinstance(each, Exception) for each in results)
        for change, result in zip(changes, results, strict=True):
            self._hear(process, change, result, 0, strict=whole)

    async def _change_found(self, process: Process) -> None:
        """A write of many documents that only MongoDB can find; each change has a name of its own."""
        verb, change = Verb.UPDATE_MANY, Update(ANY, self._among(), {"$inc": {"n": 1}}, "", mongo_only=alone.ONLY)
        if self._rng.random() < 0.3:
            verb, change = Verb.DELETE_MANY, Delete(ANY, self._among(), "", mongo_only=alone.ONLY)
        process.note(f"asks {verb} of what MongoDB finds")
        try:
            await process.router.write_found(COLLECTION, verb, change)
        except (PyMongoError, ShadowError) as error:
            process.note(f"what MongoDB finds has not all been changed: {error!r}"[:160])

    def _many_of(self, keys: Sequence[Key]) -> tuple[Verb, list[Update | Delete]]:
        filter: dict[str, Any] = {"n": {"$lt": self._rng.randint(1, 4)}} if self._rng.random() < 0.3 else {}
        if self._rng.random() < 0.3:
            return Verb.DELETE_MANY, [Delete(key, filter, self._world.fresh_id()) for key in keys]
        update = {"$inc": {"n": 1}}
        return Verb.UPDATE_MANY, [Update(key, filter, update, self._world.fresh_id()) for key in keys]

    def _hear(
        self,
        process: Process,
        change: Change,
        result: Applied | Exception | bool | None,
        amount: int,
        *,
        strict: bool = True,
    ) -> None:
        mark = mark_of(change)
        self._asked.pop(mark)
        process.note(f"hears of {mark[-4:]}: {result!r}"[:160])
        if isinstance(result, Exception) and not isinstance(result, PyMongoError | ShadowError):
            self._world.broken(f"callers hear the drivers' errors and shadow's own: {result!r}")
        if isinstance(result, Applied | SecondaryWriteError) or result is True:
            heard = Heard.DONE
        elif isinstance(result, Exception) and classify(result) is Outcome.UNKNOWN:
            heard = Heard.UNKNOWN
        else:
            heard = Heard.NOTHING
        self.answers.append(Answer(change, heard, amount))
        strict = strict and self._world.conditions.mode is WriteMode.STRICT
        if strict and isinstance(result, Applied) and not isinstance(change, Insert):
            followed = self._world.history.has_followed(result.key, mark)
            self._world.check(followed, f"strict: {change.key} was acknowledged before the secondary had it")

    # --- verbs --------------------------------------------------------------------------------------------------

    def _insert(self, key: Key) -> tuple[Verb, Insert]:
        born = self._world.fresh_id()
        at = {"at": expiry.date(self._world)} if self._world.conditions.expires else {}
        return Verb.INSERT_ONE, Insert(key, {"_id": key, "n": 0, "by": born[-4:], **at}, born)

    def _update(self, key: Key, update: dict[str, Any], *, upsert: bool = False) -> Update:
        filter: dict[str, Any] = {"_id": key}
        if self._rng.random() < 0.1 and not upsert and key not in self._world.counters:
            filter["n"] = {"$lt": self._rng.randint(0, 9)}
        return Update(key, filter, update, self._world.fresh_id(), upsert)

    def _inc(self, key: Key) -> tuple[Verb, Update]:
        return Verb.UPDATE_ONE, self._update(key, {"$inc": {"n": 1}})

    def _set(self, key: Key) -> tuple[Verb, Update]:
        if self._world.conditions.expires:
            return Verb.UPDATE_ONE, self._update(key, {"$set": {"at": expiry.date(self._world)}})
        return Verb.UPDATE_ONE, self._update(key, {"$set": {"mark": self._rng.randint(0, 99)}})

    def _take(self, key: Key) -> tuple[Verb, Update]:
        """One of one value more than there are keys; refused while another document holds it."""
        value = self._rng.randint(0, self._world.conditions.keys)
        return Verb.UPDATE_ONE, self._update(key, {"$set": {"held": value}}, upsert=self._rng.random() < 0.9)

    def _drop(self, key: Key) -> tuple[Verb, Update]:
        return Verb.UPDATE_ONE, self._update(key, {"$unset": {"held": ""}})

    def _upsert(self, key: Key) -> tuple[Verb, Update]:
        return Verb.UPDATE_ONE, self._update(key, {"$inc": {"n": 1}}, upsert=True)

    def _replace(self, key: Key) -> tuple[Verb, Replace]:
        born = self._world.fresh_id()
        document = {"_id": key, "n": 0, "whole": born[-4:]}
        return Verb.REPLACE_ONE, Replace(key, {"_id": key}, document, born, self._rng.random() < 0.3)

    def _among(self) -> dict[str, Any]:
        """A filter without a key: no counter matches it, and few documents or many do."""
        return {"_id": {"$nin": list(self._world.counters)}, "n": {"$lt": self._rng.randint(1, 4)}}

    def _order(self) -> tuple[tuple[str, int], ...]:
        return self._rng.choice(((), (("n", 1),), (("n", -1), ("_id", 1))))

    def _first(self, key: Key) -> tuple[Verb, Update]:
        born = self._world.fresh_id()
        return Verb.UPDATE_ONE, Update(ANY, self._among(), {"$inc": {"n": 1}}, born, sort=self._order())

    def _upsert_first(self, key: Key) -> tuple[Verb, Update]:
        born, filter = self._world.fresh_id(), self._among()
        return Verb.UPDATE_ONE, Update(ANY, filter, {"$inc": {"n": 1}}, born, upsert=True, sort=self._order(), new=key)

    def _replace_first(self, key: Key) -> tuple[Verb, Replace]:
        born = self._world.fresh_id()
        upsert = self._rng.random() < 0.3
        whole = {"n": 0, "whole": born[-4:]}
        return Verb.REPLACE_ONE, Replace(ANY, self._among(), whole, born, upsert, self._order(), key)

    def _delete_first(self, key: Key) -> tuple[Verb, Delete]:
        return Verb.DELETE_ONE, Delete(ANY, self._among(), self._world.fresh_id(), self._order())

    def _delete(self, key: Key) -> tuple[Verb, Delete]:
        return Verb.DELETE_ONE, Delete(key, {"_id": key}, self._world.fresh_id())

    async def _read(self, process: Process) -> None:
        query = Query(filter={"_id": self._rng.choice(self._world.keys)})
        try:
            chance = self._rng.random()
            if chance < 0.7:
                await process.router.find_one(COLLECTION, query)
            elif chance < 0.9:
                async for _ in process.router.find(COLLECTION, Query()):
                    pass
            else:
                await process.router.count(COLLECTION, query.filter)
        except (PyMongoError, ShadowError):
            process.note("the read failed")

    # --- what strikes -------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        self._rng.choice(self._world.alive).crash()

    def _restart(self) -> None:
        """A process that ends in order, and one that follows it."""
        process = self._rng.choice(self._world.alive)
        self._start(process, self._end(process))
        self._caller(self._world.begin(), 2)

    def _end_loop(self) -> None:
        """Of a worker that calls `asyncio.run` for each job. The next one begins soon, or long after."""
        able = [process for process in self._world.alive if not process.ending]
        if able:
            self._busy.append(self._world.loop.create_task(self._next_loop(self._rng.choice(able))))

    async def _next_loop(self, process: Process) -> None:
        await process.rest()
        await asyncio.sleep(self._rng.random() * self._rng.choice((0.01, 0.5, 3.0)))
        if not process.dead:
            process.resume()
            self._caller(process, 3)

    async def _end(self, process: Process) -> None:
        process.note("ends")
        await process.end()
        process.note("has ended")
        # What its callers still do, and whoever else has it in hand, ends with it.
        process.dead = True
        self._world.buried.add(process.owner.pid)
        for task in process.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _outage(self, server: Any) -> None:
        def down() -> None:
            server.down = True

        def up() -> None:
            server.down = False

        begin = self._rng.random()
        self._world.loop.call_later(begin, down)
        self._world.loop.call_later(begin + self._rng.random() * LIMIT, up)

    # --- what runs beside ---------------------------------------------------------------------------------------

    def _repair(self) -> None:
        process = self._rng.choice(self._world.alive)
        keys = self._world.keys + self._world.counters
        key = self._rng.choice(keys)
        together = self._world.conditions.batches and self._rng.random() < 0.5
        self._start(process, self._heal_all(process, keys) if together else self._heal(process, key))

    async def _heal_all(self, process: Process, keys: Sequence[Key]) -> None:
        """As a job does: in a batch, and what that has not healed alone."""
        process.note("repairs all keys")
        try:
            made = await process.runtime.replicator.repair_many(COLLECTION, keys)
        except ShadowError as error:
            process.note(f"the repair of all keys failed: {error!r}")
            return
        for key, result in zip(keys, made, strict=True):
            if result is None:
                await self._heal(process, key)

    async def _heal(self, process: Process, key: Key) -> None:
        process.note(f"repairs {key}")
        try:
            await process.runtime.replicator.repair(COLLECTION, key)
        except (PyMongoError, ShadowError, TimeoutError, healing.HealContended) as error:
            process.note(f"the repair of {key} failed: {error!r}")

    def _flip(self) -> None:
        process = self._rng.choice(self._world.alive)
        self._start(process, self._flip_safely(process))

    async def _flip_safely(self, process: Process) -> None:
        try:
            for _ in range(_TRIES):
                if await process.flip():
                    return
                await asyncio.sleep(self._rng.random() * LIMIT)
        except ShadowError as error:
            process.note(f"the flip failed: {error!r}")
        except Exception as error:
            self._world.broken(f"a flip fails in order: {error!r}")

    def _backfill(self) -> None:
        process = self._rng.choice(self._world.alive)
        self._start(process, self.fill(process))

    async def fill(self, process: Process) -> None:
        """The real backfill, in batches of any size."""
        keys = self._world.keys + self._world.counters
        size = self._rng.randint(1, len(keys))
        for start in range(0, len(keys), size):
            await self._fill(process, keys[start : start + size])

    async def _fill(self, process: Process, keys: list[Key]) -> None:
        sides = process.sides()
        try:
            async with asyncio.timeout(LIMIT):
                images = await sides.primary.images(COLLECTION, keys)
                batch = Batch([(key, image) for key, image in zip(keys, images, strict=True) if image.document], {})
                handled = await Backfill(sides).handle({}, batch)
                process.note(f"has filled {keys}: {dict(handled.counts)}")
        except (PyMongoError, ShadowError, TimeoutError) as error:
            process.note(f"the backfill of {keys} failed: {error!r}")

    def _change_phase(self) -> None:
        world, phase = self._world, self._rng.choice((Phase.OFF, Phase.DUAL_WRITE))
        all_files = self._rng.random() < world.conditions.everywhere
        for process in world.alive if all_files else [self._rng.choice(world.alive)]:
            assert process.part is not None
            self._start(process, process.part.change(phase))

    def _cut_off(self) -> None:
        """One process loses the control store, for longer than the others wait for its word."""
        part = self._rng.choice(self._world.alive).part
        assert part is not None
        part.down = True

        def found() -> None:
            part.down = False

        self._world.loop.call_later(self._rng.random() * 5 * LIMIT, found)

    async def prove(self, process: Process) -> bool:
        """A verification, as a job makes it: what it finds counts in the epoch in which it began. What it would find
        is put right before."""
        world, part = self._world, process.part
        if part is None:
            return await self.verify(process)
        mark = await part.ask(lambda: proof_of(world.records, COLLECTION))
        if not mark or not process.both:
            return False
        for key in world.keys + world.counters:
            await process.runtime.replicator.repair(COLLECTION, key)
        clean = await self.verify(process)
        if clean:
            process.note(f"has proven epoch {mark[-4:]}")
            world.proof = mark
        return clean

    def _verify(self) -> None:
        process = self._rng.choice(self._world.alive)
        self._start(process, self._verify_safely(process))

    async def _verify_safely(self, process: Process) -> None:
        try:
            async with asyncio.timeout(3 * LIMIT):
                # Where processes write one store alone, somebody tries again.
                while not await self.prove(process) and process.part is not None:  # noqa: ASYNC110 - as people do
                    await asyncio.sleep(self._rng.random() * HEARTBEAT)
        except (PyMongoError, ShadowError, TimeoutError, healing.HealContended) as error:
            process.note(f"the verification failed: {error!r}")

    async def verify(self, process: Process) -> bool:
        """The real verification, each way in one batch; whether it found nothing but equal documents."""
        sides, world = process.sides(), self._world
        task, began = Verify(sides, Scope(patience=LIMIT)), world.loop.time()
        process.note("verifies")
        doubts = await task.doubts()
        keys, issues = world.keys + world.counters, []
        for side, ranges in (("primary", sides.source), ("secondary", sides.target)):
            images = zip(keys, await ranges.look(COLLECTION, keys, whole=True), strict=True)
            batch = Batch([(key, image) for key, image in images if image.document is not None], {})
            issues += (await task.handle({"side": side}, batch)).issues
        process.note(f"has verified, with {len(issues)} issues")
        if not issues:
            await sides.journal.trust(COLLECTION, doubts)
            world.verified = began
        return not issues
