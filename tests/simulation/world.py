"""One run: the servers, the shared journal, and the processes, each with the real runtime of `shadow` in it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
import sqlite3
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from pymongo.errors import NetworkTimeout, PyMongoError

from shadow.compare.diff import Hasher
from shadow.errors import ShadowError
from shadow.migrate.sides import Sides
from shadow.model import version
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.reporter import Silent
from shadow.model.schema import UniqueSpec
from shadow.model.verdict import Healing, Kind, Mismatch
from shadow.model.version import Image, Key, Version
from shadow.replicate.apply import HealContended
from shadow.replicate.breaker import Breaker
from shadow.replicate.points import Point
from shadow.replicate.process import Owner
from shadow.replicate.routes import Routes
from shadow.replicate.suspects import MemorySuspects
from shadow.runtime import Parts, Runtime
from shadow.stores.memory import MemoryStore
from tests.simulation.conditions import LIMIT, SKEW, Conditions
from tests.simulation.history import Broken, History
from tests.simulation.journal import SimulatedJournal
from tests.simulation.loop import PROCESS, SimulatedClock, SimulatedLoop
from tests.simulation.stores import Batched, Client, Server

__all__ = ["COLLECTION", "Killed", "Process", "World"]

COLLECTION = "things"

_UNDER_TEST = ("shadow.router", "shadow.runtime", "tests.simulation.mutations")
"""Beside `shadow.replicate` and `shadow.host`: whose clock, chance and ids are the run's."""

_EXPECTED = (PyMongoError, ShadowError, TimeoutError, HealContended)
"""What may fail inside without being a fault of the code."""


class Killed(BaseException):
    """Unwinds what a dead process was doing; nothing that it does after this has an effect."""


class _Recorder(Silent):
    """Hears what the parts say, and objects to what must never be said."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def mismatch(self, found: Mismatch) -> None:
        self._process.note(f"MISMATCH {found.verb} {found.kind} {found.key}")
        world = self._process.world
        if found.kind is Kind.WRITE_RESULT and world.conditions.wrong:
            return
        if found.kind is Kind.UNREADABLE and world.conditions.unreadable:
            return
        if found.kind is Kind.ERROR_SECONDARY_ONLY and world.conditions.refused:
            return
        if not self._process.dead and not world.conditions.seeded:
            world.broken(f"no false alarm: {found.verb} called {found.key} {found.kind}")

    def failed(self, part: str, error: BaseException) -> None:
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
        self.skew = skew
        self.owner = Owner("simulation", number, 0.0)
        self.journal = SimulatedJournal(world.db, self, world.conditions, world.known_dead, world.rng)
        self.stores = {name: Client(server, self) for name, server in world.servers.items()}
        recorder = _Recorder(self)
        parts = Parts(
            journal=self.journal,
            routes=Routes({COLLECTION: world.route}, on_change=lambda *_: None, on_unknown=lambda _: None),
            limits=world.conditions.limits(),
            reporter=recorder,
            hasher=Hasher(b"simulation"),
            reach=self.reach,
            on_secondary=lambda *_: None,
            suspects=MemorySuspects(now=self.loop.time),
        )
        with self._inside():
            self.runtime = Runtime(self.loop, parts, self.stores)

    def sides(self) -> Sides:
        """For a job over the collection."""
        runtime, parts = self.runtime, self.runtime.parts

        async def repair(key: Key) -> Healing:
            return await runtime.follower.repair(COLLECTION, key)

        return Sides(
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

    async def flip(self) -> None:
        """Makes the other store primary, if that can be done in time."""
        routes = self.runtime.parts.routes

        def change() -> None:
            self.step()
            self.world.turn()
            routes.set(COLLECTION, self.world.route)

        self.note("flips")
        done = await self.runtime.change_primary(COLLECTION, change)
        self.note(f"has {'' if done else 'not '}flipped")

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
        self.route = Route(StoreName.MONGO, Phase.SHADOW, conditions.mode)
        self.buried: set[int] = set()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self.keys: list[Key] = [f"k{number}" for number in range(conditions.keys)]
        self.counters: list[Key] = [f"c{number}" for number in range(conditions.counters)]
        initial = self._initial()
        self.history = History(initial, self.broken)
        self.servers = {
            name: Server(name, self._memory(name), self.history, conditions, rng, loop, self.note) for name in StoreName
        }
        self._plant(initial)
        self.processes: list[Process] = []
        loop.set_exception_handler(self._unhandled)

    def end(self) -> None:
        """Drops what is left of a run that broke off, without a word."""
        self.failure = self.failure or ""
        for process in self.processes:
            process.dead = True
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

    def turn(self) -> None:
        """The other store is primary now."""
        self.route = dataclasses.replace(self.route, primary=self.route.secondary)
        for server in self.servers.values():
            server.primary = server.name is self.route.primary
        self.history.turn(lambda key: self.secondary.image(COLLECTION, key))
        self.note(f"--- {self.route.primary} is primary ---")

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.dead]

    def begin(self) -> Process:
        """A new process."""
        skew = (self.rng.random() - 0.5) * SKEW if self.conditions.skewed else 0.0
        process = Process(self, next(self._numbers), skew)
        process.journal.healthy = self.healed
        self.processes.append(process)
        process.note("begins")
        return process

    def step_clock(self) -> None:
        """Somebody sets the wall clock of the host."""
        step = self.rng.choice((-1, 1)) * self.rng.random() * 10 * LIMIT
        self.loop.stepped += step
        self.note(f"the clock is set by {step:+.3f} s")

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
            at_rest = initial if server.primary or not self.conditions.seeded else {}
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

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Clock, chance and ids of the modules under test become the run's own."""
        original = version.fresh_id
        swaps: dict[Any, Any] = {time: SimulatedClock(self.loop), random: self.rng, original: self.fresh_id}
        places = [
            (module, name, value)
            for path, module in list(sys.modules.items())
            if path in _UNDER_TEST or path.startswith(("shadow.replicate.", "shadow.host."))
            for name, value in vars(module).items()
            if any(value is each for each in swaps)
        ]
        defaults: Any = Breaker.__init__.__kwdefaults__
        clock = defaults["clock"]
        for module, name, value in places:
            setattr(module, name, swaps[value])
        defaults["clock"] = self.loop.time
        try:
            yield
        finally:
            defaults["clock"] = clock
            for module, name, value in places:
                setattr(module, name, value)
