"""Processes that change between writes of one store and of both while others write, and that flip.

Each process has the product's own `Fleet`, `Participant` and `StartupPrimary` beside its `Runtime`, and its callers
come by way of its `Forwarder`. What they share is a control store: each question to it is one step, at a moment of
its own, and may get no answer. (`epochs` takes the same records step by step, with the order of a process's steps
written out.)

A flip is made by the product's own coordinator, in a thread of one of the processes: there each record that it reads
or writes is a step of its own, and so is each of those that another process reads and writes meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeVar
from unittest import mock

from pymongo.errors import DuplicateKeyError

from shadow.control import flip_record as routing
from shadow.control import members
from shadow.control.flip_record import FlipKind
from shadow.control.records import MISSING, Record
from shadow.errors import ControlError, ShadowError
from shadow.fleet import coordinator, flip_part, membership
from shadow.fleet.context import FleetContext
from shadow.fleet.coordinator import Aborted
from shadow.fleet.fleet import Fleet
from shadow.fleet.flip import FlipPlan, FlipRequest
from shadow.fleet.participant import Participant
from shadow.host.process import Owner
from shadow.host.supervisor import Turn
from shadow.model.background import Background
from shadow.model.operation import Change, Delete, Insert, Update, Verb
from shadow.model.order import key_digest
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.version import ABSENT, Document, Image, Key, Tombstone, Version
from shadow.mongoql import cached_filter
from shadow.mongoql.caching import cached_update
from shadow.routes.forwarder import Passage
from shadow.routes.startup import StartupContext, StartupPrimary
from shadow.surface.calls.arguments import Arguments
from shadow.surface.direct.stamping import Stamping
from tests.simulation.conditions import COLLECTION, LIMIT
from tests.simulation.loop import PROCESS
from tests.simulation.replicas import Member
from tests.simulation.threads import SimulatedLock, SimulatedThread

if TYPE_CHECKING:
    from shadow.runtime import Runtime
    from tests.simulation.world import Process, World

__all__ = ["HEARTBEAT", "Part", "SharedRecords", "patched_fleet"]

T = TypeVar("T")

HEARTBEAT: Final = 0.5
_LOOKS: Final = 0.15
"""Seconds between two looks while a flip is under way."""
_BETWEEN: Final = 0.3
"""How often something comes before a read of a thread."""
_STEP_BY_STEP: Final = 0.1
"""How often a question takes its steps one by one. One that may have to wait for a flip always does."""
_JOINING: ContextVar[bool] = ContextVar("joining", default=False)
RESERVED: Final = "_shadow"


class SharedRecords:
    """The control store."""

    place = "memory"

    def __init__(self, on_put: Callable[[str], None] = lambda key: None) -> None:
        """`on_put`: told of each record as soon as it stands."""
        self.down = False
        self._on_put = on_put
        self._held: dict[str, Record] = {}
        self._number = 0

    def prepare(self) -> None: ...

    def close(self) -> None: ...

    def get(self, key: str) -> Record | None:
        return self._held.get(key)

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        return [self._held[key] for key in sorted(self._held) if key.startswith(prefix) and key > after][:limit]

    def put(self, key: str, value: Mapping[str, Any], *, expected: str | None = None) -> str | None:
        held = self._held.get(key)
        if expected is not None and (MISSING if held is None else held.revision) != expected:
            return None
        self._number += 1
        self._held[key] = Record(key, dict(value), str(self._number))
        self._on_put(key)
        return str(self._number)

    def put_many(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        for key, value in values.items():
            self.put(key, value)

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        return self._held.pop(key, None) is not None

    def delete_all(self, prefix: str) -> int:
        return sum(self.delete(key) for key in list(self._held) if key.startswith(prefix))


class _SteppedRecords:
    """The control store as one process has it. In a thread, each write is a step that may get no answer, done or not,
    and so are some of the reads: to let all of them be steps would cost too much time."""

    place = SharedRecords.place

    def __init__(self, part: Part, shared: SharedRecords) -> None:
        self._part = part
        self._shared = shared

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._shared, name)
        if name in ("prepare", "close"):
            return act

        def call(*arguments: Any, **options: Any) -> Any:
            if SimulatedThread.current() is None:
                return act(*arguments, **options)  # the whole question is one step: see `Part.ask`
            writes = name in ("put", "delete")
            if writes or self._part.dawdles():
                self._part.pause()
            answer = act(*arguments, **options)
            if writes:
                self._part.pause()
            return answer

        return call


class _Vouched:
    """Journal and stores are those of before: in a run nobody puts back a backup."""

    silent: frozenset[str] = frozenset()

    async def tokens(self, collections: Any, *, fresh: bool = False) -> set[str]:
        return set()

    async def identities(self, collections: Any) -> set[str]:
        return set()


class Part:
    """One process's part in the fleet. `phase`: what its configuration asks for as it begins."""

    def __init__(self, process: Process, phase: Phase) -> None:
        self._process = process
        self._world = process.world
        self.down = False
        """Whether it alone does not reach the control store."""
        self._in_steps = 0
        """How many questions are under way of which each step is one of its own."""
        runtime = process.runtime
        parts = runtime.parts
        self.records: Any = _SteppedRecords(self, self._world.records)
        context = FleetContext(
            self.records,
            parts,
            current=lambda: process.runtime,
            figures=_no_figures,
            journal="the journal of the simulation",
            heartbeat=HEARTBEAT,
        )
        self.fleet = Fleet(context, {COLLECTION: self._route(phase)})
        vouched: Any = _Vouched()
        self.fleet._vouching = vouched
        self._roles = StartupPrimary(
            StartupContext(
                parts.journal,
                parts.routes,
                self.fleet.kept,
                join=self.fleet.join,
                renew=self.fleet.participant.renew,
                patience=LIMIT / 4,
                configured=self._configured,
            )
        )
        self._keep(runtime)

    async def learn(self, *, writing: bool) -> None:
        await self._roles.learn(writing=writing)

    def begin_loop(self) -> None:
        """In the next runtime of its process."""
        self._keep(self._process.runtime)

    def _keep(self, runtime: Runtime) -> None:
        runtime.keep(Background.FLEET, self._belong)

    def _route(self, phase: Phase) -> Route:
        return Route(self._world.conditions.primary, phase, self._world.conditions.mode)

    async def _configured(self) -> Mapping[str, Route]:
        return self.fleet.configured()

    async def _belong(self, turn: Turn) -> None:
        """As a Shadow does it."""
        part, routes = self.fleet.participant, self._process.runtime.parts.routes
        try:
            while not (part.joined and routes.known):
                turn()
                with suppress(ShadowError):
                    await routes.learnt(writing=True)
                await asyncio.sleep(0 if part.joined and routes.known else HEARTBEAT)
            await part.run(turn)
        except asyncio.CancelledError:
            if self._process.resting and not self._process.dead:
                routes.forget()
                await part.leave()
            raise

    async def ask(self, question: Callable[[], T]) -> T:
        """One step of the control store."""
        world, rng = self._world, self._world.rng
        await asyncio.sleep(self._latency())
        self._arrive()
        in_steps = self._in_steps or (_JOINING.get() and world.flipping)
        if in_steps or (world.conditions.flips and rng.random() < _STEP_BY_STEP):
            return await asyncio.to_thread(self._step_by_step, question)
        answer = question()
        await asyncio.sleep(rng.random() * 0.01)
        self._process.step()
        return answer

    def _step_by_step(self, question: Callable[[], T]) -> T:
        self._in_steps += 1
        try:
            return question()
        finally:
            self._in_steps -= 1

    def dawdles(self) -> bool:
        """Whether the others come between now."""
        return self._world.rng.random() < _BETWEEN

    def pause(self) -> None:
        """One step of a thread."""
        self._world.loop.sleep(self._latency())
        self._arrive()

    def _latency(self) -> float:
        world = self._world
        return world.rng.choice((0.0, 0.001, 0.3 if world.conditions.slow and not world.healed else 0.01))

    def _arrive(self) -> None:
        world = self._world
        self._process.step()
        if (world.records.down or self.down) and not world.healed:
            raise ControlError("the control store is down in the simulation")

    async def flip(self) -> str:
        """As an operator makes it by this process, where the gates are open: why it was not made; "" if it was."""
        return await asyncio.to_thread(self._flip)

    def _flip(self) -> str:
        world, limit = self._world, self._process.runtime.parts.limits.drain
        seen = routing.load(self.records)
        if not world.may_flip(seen):
            return "a gate is closed"
        to = seen.placed[COLLECTION].primary.other
        request = FlipRequest(self.records, FlipKind.FLIP, [COLLECTION], to, HEARTBEAT, limit)
        plan = FlipPlan(seen, members.prune(self.records, members.members(self.records)), ())
        try:
            flipped = request.make(plan, reason="", forced=False, by=self._process.name)
        except Aborted as error:
            return str(error)
        return flipped.said

    async def change(self, phase: Phase) -> None:
        """A new file, as a Shadow takes it."""
        self._process.note(f"its file asks for {phase}")
        self.fleet.wishes({COLLECTION: self._route(phase)}, {})
        done = await self.fleet.change(COLLECTION, self._route(phase))
        self._process.note(f"{phase} is {'' if done else 'not yet '}in force")

    async def leave(self) -> None:
        await self._roles.end(LIMIT)
        await self.fleet.participant.leave()

    async def write(self, collection: str, verb: Verb, change: Change) -> Any:
        """As a configured collection makes it: the driver's own call, or by the router."""
        passage, answer = await self._process.runtime.forwarder.write(
            COLLECTION, verb, lambda passage: self._driven(passage, verb, change)
        )
        if passage is Passage.VERSIONED:
            return await self._process.router.write(COLLECTION, verb, change)
        return answer

    async def _driven(self, passage: Passage, verb: Verb, change: Change) -> Any:
        assert not self._world.conditions.flips, "both stores are written all the time"
        own = DriverCollection(self._process, change)
        given: Document
        match change:
            case Insert():
                given = {"document": dict(change.document)}
            case Update():
                given = {"filter": dict(change.filter), "update": change.update}
            case Delete():
                given = {"filter": dict(change.filter)}
            case _:
                raise NotImplementedError(verb)
        if passage is Passage.OWN:
            return await getattr(own, verb)(**given)
        stamping = Stamping(RESERVED, self.fleet.era(COLLECTION), Arguments(RESERVED, None))
        return await stamping.write(own, verb, (), given)


class DriverCollection:
    """The driver's own collection, for one call of the application: whoever makes `change` is known by it."""

    def __init__(self, process: Process, change: Change) -> None:
        self._client = process.stores[StoreName.MONGO]
        self._process = process
        self._change = change

    async def insert_one(self, document: Document) -> bool:
        stored, state = _split(document)
        key = stored["_id"]

        def effect(on: Member) -> bool:
            if on.memory._image(COLLECTION, key).state != ABSENT:
                details = {"code": 11000, "keyPattern": {"_id": 1}, "keyValue": {"_id": key}}
                raise DuplicateKeyError("E11000 duplicate key error: index: _id_", 11000, details)
            return self._made(on, key, Image(state or Version("", 0), stored))

        return await self._client._ask(f"insert {key} bare", effect, write=True)

    async def update_one(self, filter: Document, update: Document) -> bool:
        sets, state = _split(update.get("$set", {}))
        plain = {**update, "$set": sets} if sets else {name: each for name, each in update.items() if name != "$set"}
        key = filter["_id"]

        def effect(on: Member) -> bool:
            seen = on.memory._image(COLLECTION, key)
            if seen.document is None or not cached_filter(filter).matches(seen.document):
                return False
            return self._made(on, key, Image(state or seen.state, cached_update(plain, ()).apply(seen.document, None)))

        return await self._client._ask(f"update {key} bare", effect, write=True)

    async def delete_one(self, filter: Document) -> bool:
        key = filter["_id"]

        def effect(on: Member) -> bool:
            seen = on.memory._image(COLLECTION, key)
            if seen.document is None or not cached_filter(filter).matches(seen.document):
                return False
            return self._made(on, key, Image(ABSENT))

        return await self._client._ask(f"delete {key} bare", effect, write=True)

    async def delete_many(self, filter: Document) -> int:
        def effect(on: Member) -> int:
            states = {key: on.memory._image(COLLECTION, key).state for key in filter["_id"]["$in"]}
            keys = [key for key, state in states.items() if isinstance(state, Tombstone)]
            for key in keys:
                _remove(on, key)
            return len(keys)

        return await self._client._ask("clear tombstones", effect, write=True)

    def _made(self, on: Member, key: Key, image: Image) -> bool:
        world = self._process.world
        placed = routing.load(world.records).placed.get(COLLECTION)
        if placed is not None and placed.both:
            world.broken(f"no bare write lands while both stores are written: {key} of {self._process.name}")
        _remove(on, key)
        if image.present:
            on.memory._set(COLLECTION, key, image)
        world.history.primary_changed_bare(self._change, image)
        return True


def _remove(on: Member, key: Key) -> None:
    on.memory._images[COLLECTION].pop(key_digest(key), None)


def _split(document: Mapping[str, Any]) -> tuple[Document, Version | None]:
    """What is stored, and the version that goes with it."""
    stamp = document.get(RESERVED)
    stored = {name: value for name, value in document.items() if name != RESERVED}
    return stored, None if stamp is None else Version(stamp["b"], stamp["r"])


async def _no_figures() -> Mapping[str, Any]:
    return {}


@contextmanager
def patched_fleet(world: World) -> Iterator[None]:
    """The process that asks, and the death of others, are those of the run; nobody sleeps in a thread."""

    async def ask(self: Participant, question: Callable[[], T]) -> T:
        process: Any = PROCESS.get()
        return await process.part.ask(question)  # type: ignore[no-any-return]

    own_join = Participant.join

    async def join(self: Participant, *arguments: Any) -> Any:
        token = _JOINING.set(True)
        try:
            return await own_join(self, *arguments)
        finally:
            _JOINING.reset(token)

    def this_process() -> Owner:
        process: Any = PROCESS.get()
        return process.owner  # type: ignore[no-any-return]

    with ExitStack() as stack:
        for target, name, instead in (
            (Participant, "_ask", ask),
            (Participant, "join", join),
            (membership, "this_process", this_process),
            (membership, "threading", SimpleNamespace(Lock=lambda: SimulatedLock(world.loop.sleep))),
            (membership, "_RAISED", float("-inf")),
            (membership, "_QUICK", _LOOKS),
            (flip_part, "_QUICK", _LOOKS),
            (coordinator, "_QUICK", _LOOKS),
            (Owner, "known_dead", lambda owner: world.known_dead(owner)),
        ):
            stack.enter_context(mock.patch.object(target, name, instead))
        yield
