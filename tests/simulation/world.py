"""One run: the servers, the shared journal, and the processes, each with the real runtime of `shadow` in it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import random
import sqlite3
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from pymongo.errors import NetworkTimeout, PyMongoError

from shadow.compare.diff import Hasher
from shadow.control import epochs
from shadow.control import flip_record as routing
from shadow.control.epochs import has_epoch
from shadow.control.flip_record import RouteRecord, Routing, WriteState
from shadow.errors import ShadowError
from shadow.host.failpoints import Point
from shadow.host.process import Owner
from shadow.host.steady import steady
from shadow.jobs.target import JobTarget
from shadow.model import version
from shadow.model.events import ComponentFailed, Event, MismatchConfirmed
from shadow.model.operation import Change, Verb
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.schema import UniqueSpec
from shadow.model.verdict import Healing, Kind, Mismatch
from shadow.model.version import Image, Key, Version
from shadow.reads.unconfirmed import MemoryUnconfirmed
from shadow.routes.forwarder import no_era
from shadow.routes.routes import Routes, RouteSource
from shadow.runtime import Runtime, RuntimeContext
from shadow.stores.breaker import Breaker
from shadow.stores.memory import MemoryStore
from shadow.writes.heal import HealContended
from tests.simulation import expiry
from tests.simulation.conditions import COLLECTION, LIMIT, SKEW, Conditions
from tests.simulation.fleets import Part, SharedRecords, patched_fleet
from tests.simulation.history import TWICE, Broken, Era, History
from tests.simulation.journal import SimulatedJournal
from tests.simulation.loop import PROCESS, SimulatedClock, SimulatedLoop
from tests.simulation.stores import Batched, Client, Driven, Server

__all__ = ["Killed", "Process", "World"]

_UNDER_TEST = (
    "shadow.fleet.flip_part",
    "shadow.fleet.gaps",
    "shadow.fleet.membership",
    "shadow.fleet.wishes",
    "shadow.routes.forwarder",
    "shadow.router",
    "shadow.runtime",
    "shadow.sessions",
    "shadow.mongoql.expiry",
    "shadow.surface.direct.stamping",
    "shadow.compare.comparer",
    "shadow.fleet.coordinator",
    "shadow.fleet.participant",
    "shadow.stores.breaker",
    "shadow.stores.within",
    "tests.simulation.flip_mutations",
    "tests.simulation.mutations",
)
"""Beside the packages below: whose clock, chance and ids are the run's."""
_PACKAGES = (
    "shadow.writes.",
    "shadow.reads.",
    "shadow.routes.",
    "shadow.journal.",
    "shadow.stores.within",
    "shadow.stores.breaker",
    "shadow.host.",
    "shadow.control.",
    "shadow.fleet.",
)

_EXPECTED = (PyMongoError, ShadowError, TimeoutError, HealContended)
"""What may fail inside without being a fault of the code."""


class Killed(BaseException):
    """Unwinds what a dead process was doing; nothing that it does after this has an effect."""


class _Recorder:
    """Hears what the parts say, and objects to what must never be said."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def publish(self, event: Event) -> None:
        match event:
            case MismatchConfirmed():
                self._mismatch(event.found)
            case ComponentFailed():
                self._failed(event.part, event.error)

    def _mismatch(self, found: Mismatch) -> None:
        self._process.note(f"MISMATCH {found.verb} {found.kind} {found.key}")
        world = self._process.world
        if found.kind is Kind.WRITE_RESULT and world.conditions.wrong:
            return
        if found.kind is not Kind.WRITE_RESULT and world.conditions.mixed:
            return  # what was written to one store alone is a difference, and is to be found
        if found.kind is Kind.UNREADABLE and world.conditions.unreadable:
            return
        if found.kind is Kind.ERROR_SECONDARY_ONLY and world.conditions.refused:
            return
        if not self._process.dead and (world.conditions.mixed or not world.conditions.seeded):
            world.broken(f"no false alarm: {found.verb} called {found.key} {found.kind}")

    def _failed(self, part: str, error: BaseException) -> None:
        self._process.note(f"{part} failed: {error!r}")
        if not isinstance(error, _EXPECTED) and not self._process.dead:
            self._process.world.broken(f"only what was simulated fails: {part}: {error!r}")


class Process:
    """One process: a clock of its own, an owner in the journal, and a `Runtime`."""

    def __init__(self, world: World, number: int, skew: float) -> None:
        self.world = world
        self.loop = world.loop
        self.name = f"p{number}"
        self.dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.sessions: list[Any] = []
        """Of its callers. None is collected during a run, at a moment that nobody knows."""
        self.skew = skew
        self.owner = Owner("simulation", number, 0.0)
        self.journal = SimulatedJournal(world.db, self, world.conditions, world.known_dead, world.rng)
        kind = Driven if world.conditions.fleet else Client
        self.stores = {name: kind(server, self, world.conditions.asked) for name, server in world.servers.items()}
        recorder = _Recorder(self)
        parts = RuntimeContext(
            journal=self.journal,
            routes=Routes(
                {COLLECTION: Route(world.conditions.primary, Phase.SHADOW, world.conditions.mode)},
                on_change=lambda _, route: self.note(f"is in phase {route.phase}"),
                on_unknown=lambda _: None,
                source=RouteSource(self._learn) if world.conditions.fleet else None,
                in_flight_timeout=LIMIT,
            ),
            limits=world.conditions.limits(),
            reporter=recorder,
            hasher=Hasher(b"simulation"),
            reach=self.reach,
            on_secondary=lambda *_: None,
            era=lambda name: no_era(name) if self.part is None else self.part.fleet.era(name),
            unconfirmed=MemoryUnconfirmed(now=self.loop.time),
            expiry=lambda name: expiry.EXPIRY if world.conditions.expires else None,
        )
        self.resting = False
        """Whether it is between two of its event loops."""
        self.ending = False
        with self._inside():
            self.runtime = Runtime(self.loop, parts, self.stores)
            self.part = Part(self, world.asked_phase()) if world.conditions.fleet else None

    async def _learn(self, *, writing: bool) -> None:
        assert self.part is not None
        await self.part.learn(writing=writing)

    async def write(self, verb: Verb, change: Change) -> Any:
        """What a caller asks for; True or False where the driver has answered that."""
        return await (self.router if self.part is None else self.part).write(COLLECTION, verb, change)

    async def rest(self) -> None:
        """Its event loop ends, as `asyncio.run` ends one: every task is cancelled, and waited for."""
        self.note("is at the end of its event loop")
        self.resting = True
        left = [task for task in self.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def resume(self) -> None:
        """The next event loop begins, as a Shadow begins it."""
        self.note("begins another event loop")
        with self._inside():
            self.runtime.abandon()
            self.runtime.parts.routes.forget()
            self.runtime = Runtime(self.loop, self.runtime.parts, self.stores)
            if self.part is not None:
                self.part.begin_loop()
        self.resting = False

    async def end(self) -> None:
        """In order."""
        self.ending = True
        await self.runtime.close()
        if self.part is not None:
            await self.part.leave()
        self.journal.shut()

    @property
    def both(self) -> bool:
        """Whether it writes both stores."""
        return self.runtime.parts.routes[COLLECTION].dual_write

    def sides(self) -> JobTarget:
        """For a job over the collection."""
        runtime, parts = self.runtime, self.runtime.parts

        async def repair(key: Key) -> Healing:
            return await runtime.replicator.repair(COLLECTION, key)

        return JobTarget(
            collection=COLLECTION,
            identity="simulation",
            start=parts.routes[COLLECTION],
            stores=self.stores,
            ranges={name: Batched(client) for name, client in self.stores.items()},
            routes=parts.routes,
            journal=parts.journal,
            limits=parts.limits,
            reporter=parts.reporter,
            hasher=parts.hasher,
            repair=repair,
            repair_many=functools.partial(runtime.replicator.repair_many, COLLECTION),
            expiry=expiry.EXPIRY if self.world.conditions.expires else None,
        )

    @property
    def router(self) -> Any:
        return self.runtime.router

    def now(self) -> float:
        return self.loop.time() + self.skew

    def note(self, text: str) -> None:
        self.world.note(f"{self.name} {text}")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        with self._inside():
            return self.loop.create_task(work)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        token = PROCESS.set(self)
        try:
            yield
        finally:
            PROCESS.reset(token)

    def step(self) -> None:
        """Every wait of the process begins and ends here; the dead go no further."""
        if self.dead:
            raise Killed

    def reach(self, point: Point) -> None:
        self.step()
        world = self.world
        if not world.healed and world.rng.random() < world.conditions.crash_at_point:
            self.note(f"dies {point}")
            self.crash()
            raise Killed

    def crash(self) -> None:
        """Drops all its tasks where they stand; what it had queued for the journal is lost."""
        if self.dead:
            return
        self.note("CRASHED")
        self.dead = True
        self.world.buried.add(self.owner.pid)
        for task in self.tasks:
            task.cancel()
        self.world.crashed(self)

    def part_of(self, count: int) -> tuple[int, Exception | None]:
        """How many of a batch arrive, and the error that the rest meets."""
        world = self.world
        if world.healed or world.rng.random() >= world.conditions.partial:
            return count, None
        return world.rng.randint(0, count), NetworkTimeout("a part of the batch has no answer in the simulation")

    async def flip(self) -> bool:
        """Makes the other store primary, if that can be done in time; whether it was."""
        assert self.part is not None
        self.note("flips")
        said = await self.part.flip()
        self.note("has flipped" if not said else f"has not flipped: {said}")
        return not said

    @property
    def standing(self) -> Route:
        return self.runtime.parts.routes[COLLECTION]

    @property
    def stands(self) -> bool:
        """Whether it has come to where the fleet stands."""
        route = self.world.route
        known = self.runtime.parts.routes.known
        return known and not self.world.flipping and (self.standing.primary, self.both) == (route.primary, True)

    @property
    def may_write(self) -> bool:
        """Whether a write that comes now would be made at once."""
        routes = self.runtime.parts.routes
        return routes.known and not self.ending and routes._gate(COLLECTION).held is None

    @property
    def quiet(self) -> bool:
        return not self.runtime.at_work


class World:
    """Everything of one run. `note` keeps the trace; `broken` ends the run."""

    def __init__(self, conditions: Conditions, rng: random.Random, loop: SimulatedLoop) -> None:
        self.conditions = conditions
        self.rng = rng
        self.loop = loop
        self.trace: list[tuple[float, str]] = []
        self.failure: str | None = None
        self.healed = False
        self.route = Route(conditions.primary, Phase.SHADOW, conditions.mode)
        """By which the primary is that of the fleet's record."""
        self.buried: set[int] = set()
        self.undone: list[tuple[float, Process]] = []
        """Acknowledgements that a process had of what was rolled back, each with its moment."""
        self.records = SharedRecords(self._recorded)
        self.proof = ""
        """The epoch of dual writes of that verification, where the processes are a fleet; as it begins level, the first
        one."""
        self.verified = 0.0
        """When the last verification began that came to nothing but equal documents."""
        self.db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self.keys: list[Key] = [f"k{number}" for number in range(conditions.keys)]
        self.counters: list[Key] = [f"c{number}" for number in range(conditions.counters)]
        initial = self._initial()
        self.history = History(initial, self.broken, self._era)
        self.servers = {
            name: Server(name, self._memory(name), self.history, conditions, rng, loop, self.note) for name in StoreName
        }
        self._plant(initial)
        if conditions.flips:
            self._begin_twice()
        self.processes: list[Process] = []
        if conditions.expires:
            expiry.begin(self)
        loop.set_exception_handler(self._unhandled)

    def end(self) -> None:
        """Drops what is left of a run that broke off, without a word."""
        self.failure = self.failure or ""
        for process in self.processes:
            process.dead = True
        self.loop.end_threads()
        for task in self.loop.made:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                # What a coroutine does on its way out happens now, and not when memory is collected.
                with contextlib.suppress(Exception, Killed):
                    task.get_coro().close()
        self.loop.close()
        self.db.close()

    # --- what is there ------------------------------------------------------------------------------------------

    @property
    def primary(self) -> Server:
        return self.servers[self.route.primary]

    @property
    def secondary(self) -> Server:
        return self.servers[self.route.secondary]

    def _begin_twice(self) -> None:
        """Both stores have been written for long, and are proven to be equal."""
        self.proof = "the beginning"
        placed = RouteRecord(self.route.primary, writing=WriteState.DUAL, dual=1, mark=self.proof)
        routing.save(self.records, Routing({COLLECTION: placed}))

    def _recorded(self, key: str) -> None:
        """A record has been written: the one that decides a flip does so now."""
        placed = self.placed if key == routing.KEY else None
        if placed is not None and placed.primary is not self.route.primary:
            self._turn()

    def _turn(self) -> None:
        """The other store is primary now; whatever has come to one of them has come to both."""
        self.check(not self.open(), f"a flip is decided with nothing on its way: the journal holds {self.open()}")
        free = [process.name for process in self.alive if process.may_write]
        self.check(not free, f"a flip is decided while all writes are held: {free} may write")
        self.route = dataclasses.replace(self.route, primary=self.route.secondary)
        for server in self.servers.values():
            server.primary = server.name is self.route.primary
        self.history.turn(lambda key: self.secondary.image(COLLECTION, key))
        self.note(f"--- {self.route.primary} is primary ---")

    @property
    def flipping(self) -> bool:
        """Whether a flip is under way."""
        flip = routing.load(self.records).flip
        return flip is not None and not flip.state.over

    def may_flip(self, seen: Routing) -> bool:
        """Whether the gates would let a flip pass."""
        return has_epoch(seen.placed.get(COLLECTION), self.proof) and not self.doubted

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.dead and not process.resting]

    def begin(self) -> Process:
        """A new process."""
        skew = (self.rng.random() - 0.5) * SKEW if self.conditions.skewed else 0.0
        process = Process(self, next(self._numbers), skew)
        process.journal.healthy = self.healed
        self.processes.append(process)
        process.note("begins")
        return process

    def asked_phase(self) -> Phase:
        """What the file of a process asks for that begins now."""
        if self.conditions.flips:
            return Phase.SHADOW
        if self.conditions.raised and len(self.processes) < self.conditions.processes:
            return Phase.DUAL_WRITE
        return self.rng.choice((Phase.OFF, Phase.DUAL_WRITE))

    def step_clock(self) -> None:
        """Somebody sets the wall clock of the host."""
        step = self.rng.choice((-1, 1)) * self.rng.random() * 10 * LIMIT
        self.loop.stepped += step
        self.note(f"the clock is set by {step:+.3f} s")

    def weakly_acknowledged(self, process: Process) -> None:
        self.undone.append((self.loop.time(), process))
        process.note("has heard of a write that will be rolled back")

    @property
    def placed(self) -> RouteRecord | None:
        """Where the fleet stands."""
        return routing.load(self.records).placed.get(COLLECTION)

    def _era(self) -> Era:
        placed = self.placed
        if placed is None:
            return (0, False) if self.conditions.mixed else TWICE
        return placed.dual, placed.writing in epochs.TWICE

    def divide(self) -> None:
        """Another member becomes primary; some processes do not know that yet."""
        server = self.servers[StoreName.MONGO]
        if server.deposed is not None:
            return
        old = server.divide()
        for process in self.alive:
            if self.rng.random() < 0.6:
                process.note("is left with the old primary")
                process.stores[StoreName.MONGO].seat = old
                self.loop.call_later(self.rng.random() * 4 * LIMIT, process.stores[StoreName.MONGO].finds_primary)
        self.loop.call_later(self.rng.random() * 3 * LIMIT, server.reunite)

    @property
    def doubted(self) -> bool:
        """Whether the collection counts as unverified, as far as the journal or a living process knows."""
        if any(process.journal.doubted for process in self.processes if not process.dead):
            return True
        return bool(self.db.execute("SELECT * FROM unclean").fetchall())

    def open(self) -> list[tuple[object, ...]]:
        """What the journal holds."""
        tables = ("intents", "deferred")
        return [row for table in tables for row in self.db.execute(f"SELECT * FROM {table}").fetchall()]

    def late(self) -> bool:
        """Whether the journal holds keys that it will look at again."""
        return bool(self.db.execute("SELECT * FROM late").fetchall())

    def known_dead(self, owner: Owner) -> bool:
        return self.conditions.deaths_known and owner.pid in self.buried

    def crashed(self, process: Process) -> None:
        """Something else takes its place, sooner or later."""

        def again() -> None:
            if not self.healed:
                self.begin()

        self.loop.call_later(self.rng.random() * 2.0, again)

    def _memory(self, name: StoreName) -> MemoryStore:
        unique = (UniqueSpec("held", ("held",), sparse=True),) if self.conditions.unique else ()
        return MemoryStore(name, unique, together=self.conditions.together)

    def _initial(self) -> dict[Key, Image]:
        """Counters begin at nought. A document that no writer of shadow has touched has the version ("", 0)."""
        untouched = Version("", 0)
        images = {key: Image(untouched, {"_id": key, "n": 0}) for key in self.counters}
        if self.conditions.seeded:
            images |= {key: Image(untouched, {"_id": key, "n": 0, "old": True}) for key in self.keys}
        return images

    def _plant(self, initial: dict[Key, Image]) -> None:
        for server in self.servers.values():
            both = not (self.conditions.seeded or self.conditions.mixed)
            at_rest = initial if server.primary or both else {}
            for key, image in initial.items():
                server.memory._images.setdefault(COLLECTION, {})
                if key in at_rest:
                    server.memory._set(COLLECTION, key, image)

    # --- what is said -------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.trace.append((self.loop.time(), text))

    def broken(self, text: str) -> None:
        """The run has shown what must not be; only the first counts."""
        if self.failure is None:
            self.failure = text
            self.note(f"BROKEN {text}")
            self.loop.stop()

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            self.broken(text)
            raise Broken(text)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Killed | Broken) and self.failure is None:
            self.broken(f"no error escapes: {context.get('message')} {error!r}")

    # --- what stands in for the outside -------------------------------------------------------------------------

    def fresh_id(self) -> str:
        """24 hex digits that begin with the clock of the process, as an ObjectId does."""
        process = PROCESS.get()
        now = process.now() if isinstance(process, Process) else self.loop.time()
        return f"{int(now * 1000):012x}{self.rng.getrandbits(24):06x}{next(self._ids):06x}"

    def fresh_ids(self, count: int) -> list[str]:
        return [self.fresh_id() for _ in range(count)]

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Clock, chance and ids of the modules under test become the run's own."""
        original = version.fresh_id
        swaps: dict[Any, Any] = {
            time: SimulatedClock(self.loop),
            random: self.rng,
            original: self.fresh_id,
            version.fresh_ids: self.fresh_ids,
            steady: self.loop.time,
        }
        places = [
            (module, name, value)
            for path, module in list(sys.modules.items())
            if path in _UNDER_TEST or path.startswith(_PACKAGES)
            for name, value in vars(module).items()
            if any(value is each for each in swaps)
        ]
        defaults: Any = Breaker.__init__.__kwdefaults__
        clock = defaults["clock"]
        for module, name, value in places:
            setattr(module, name, swaps[value])
        defaults["clock"] = self.loop.time
        try:
            with patched_fleet(self):
                yield
        finally:
            defaults["clock"] = clock
            for module, name, value in places:
                setattr(module, name, value)
