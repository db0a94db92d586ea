"""Simulated servers, and the clients through which the processes ask them.

A request takes effect at the server at a moment of its own, whatever has become of the client by then. That is how a
write without an answer, a cancelled caller and a dead process can all have been, or yet be, applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo.errors import (
    AutoReconnect,
    NetworkTimeout,
    NotPrimaryError,
    PyMongoError,
    WriteConcernError,
    WriteError,
)

from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Hit,
    Insert,
    Query,
    Replace,
    Update,
    UpsertGuard,
    Write,
    at_key,
)
from shadow.model.order import key_digest
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.model.stored import Damaged
from shadow.model.version import ABSENT, Document, Image, Key, State, Version
from shadow.stores import recurring
from shadow.stores.many import change_each, change_many
from shadow.stores.memory import MemoryStore
from shadow.stores.mongo.durability import Durability, Lasting
from shadow.stores.ranges import Batch
from shadow.stores.replays import copy_together, replay_together
from tests.simulation import alone, expiry
from tests.simulation.conditions import COLLECTION, LIMIT, OVERDUE, REQUEST, Conditions
from tests.simulation.history import WRONG, History
from tests.simulation.many import SimulatedMany
from tests.simulation.replays import SimulatedCopies, SimulatedReplays
from tests.simulation.replicas import Driver, Member, is_lasting
from tests.simulation.sessions import SessionClient

if TYPE_CHECKING:
    from tests.simulation.world import Process

__all__ = ["Batched", "Client", "Driven", "Server"]

T = TypeVar("T")

_LONGEST = int(1000 * LIMIT)
"""Milliseconds that a server may wait for a majority."""
Effect = Callable[[Member], T]


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, which is what every method of MemoryStore is."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a memory store never waits")


class Server:
    """One store as a server: its images, the faults it has, and the requests that have not yet landed."""

    def __init__(
        self,
        name: StoreName,
        memory: MemoryStore,
        history: History,
        conditions: Conditions,
        rng: random.Random,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[str], None],
    ) -> None:
        self.name = name
        self.member = Member(memory)
        self.deposed: Member | None = None
        self.replicated = conditions.replicas and name is StoreName.MONGO
        self.history = history
        self.primary = name is conditions.primary
        self.in_flight = 0
        self.healthy = False
        self.down = False
        self.chooses = conditions.choosing and name is StoreName.MONGO
        self.batches = conditions.batches
        self._conditions = conditions
        self._rng = rng
        self._loop = loop
        self._note = note

    @property
    def memory(self) -> MemoryStore:
        """What stands for good."""
        return self.member.memory

    def image(self, collection: str, key: Key) -> Image:
        return self.memory._image(collection, key)

    def divide(self) -> Member:
        """Elects another primary. What the old one is given from here on will be undone."""
        assert self.deposed is None
        self.deposed = self.member.divided()
        self._note(f"{self.name} has another primary")
        return self.deposed

    def reunite(self) -> None:
        """The old primary steps down, and undoes what it has alone."""
        if self.deposed is not None:
            self.deposed.gone, self.deposed = True, None
            self._note(f"{self.name} rolls back")

    def followed(self, member: Member, collection: str, key: Key, *, changed: bool) -> None:
        """A replay or a copy has landed here. What it did not change was held to the order when it came; of an era, the
        primary may have another state by the same name since."""
        if member.deposed or not changed:
            return
        if not self.primary:
            self.history.secondary_is(key, self.image(collection, key))
        else:
            self.history.broken(f"nothing is replayed or copied to the primary: {key}")

    def send(
        self,
        what: str,
        ask: Effect[T],
        *,
        write: bool,
        to: Member | None = None,
        lasting: bool = False,
        spent: float = 0.0,
    ) -> asyncio.Future[T]:
        """Sends a request. The future may never be done; what is still to land is counted by `in_flight`. `lasting`:
        answered only if a majority follows the member that it went to. `spent`: seconds of its time that an earlier
        request of the same operation has had."""
        answer: asyncio.Future[T] = self._loop.create_future()
        member = to or self.member
        if member.deposed and lasting:
            return self._send_in_vain(what, ask, answer, member)

        def effect() -> T:
            if member.gone:
                raise NotPrimaryError("it has stepped down in the simulation", {"code": 10107})
            return ask(member)

        rng = self._rng
        request = max(0.0, REQUEST - spent)
        there, back = self._latency(), self._latency()
        fault = "" if self.healthy else self._fault(write=write)
        self._note(f"{self.name} <- {what}{' !' + fault if fault else ''}")
        if fault == "refused":
            self._later(there + back, lambda: _fail(answer, WriteError("refused by the simulation", 121)))
        elif fault == "down":
            self._later(there, lambda: _fail(answer, AutoReconnect("down in the simulation")))
        elif fault == "lost":
            self._later(there + back, lambda: _fail(answer, NetworkTimeout("lost in the simulation")))
        elif fault in ("late", "unanswered", "overdue"):
            if fault != "unanswered":
                longest = OVERDUE if fault == "overdue" else request if self.primary else 2 * REQUEST
                there = rng.random() * longest
            self._later(there, lambda: self._land(what, effect))
            self._later(rng.random() * back * 2, lambda: _fail(answer, NetworkTimeout("no answer in the simulation")))
        elif fault == "half":
            self._later(there, lambda: self._land(what, _doubted(effect), answer, back))
        elif fault == "hung":
            if rng.random() < 0.5:
                self._later(rng.random() * request, lambda: self._land(what, effect))
            # Drivers wait long, but not for ever.
            self._later(2 * LIMIT, lambda: _fail(answer, NetworkTimeout("no answer for long in the simulation")))
        else:
            dawdling = self._conditions.dawdling if write and self.primary and not self.healthy else 0.0
            if dawdling and rng.random() < dawdling:
                there = rng.random() * request
            self._later(there, lambda: self._land(what, effect, answer, back))
        return answer

    def _send_in_vain(self, what: str, ask: Effect[T], answer: asyncio.Future[T], member: Member) -> asyncio.Future[T]:
        """The old primary does what it is asked to, and waits for a majority that does not follow it."""

        def arrive() -> None:
            if not member.gone:
                with contextlib.suppress(PyMongoError):
                    ask(member)

        self._note(f"{self.name} <- {what} !deposed")
        there = self._latency()
        self._later(there, arrive)
        errors = (WriteConcernError("waiting for replication timed out", 64), AutoReconnect("it has stepped down"))
        error = self._rng.choice(errors)
        self._later(there + self._rng.random() * LIMIT, lambda: _fail(answer, error))
        return answer

    def _fault(self, *, write: bool) -> str:
        if self.down:
            return "down" if self._rng.random() < 0.8 else "hung"
        conditions, chance = self._conditions, self._rng.random()
        for fault in ("refused", "lost", "unanswered", "late", "hung", "half", "overdue"):
            chance -= getattr(conditions, fault)
            if chance < 0:
                if fault == "overdue" and not self.primary:
                    fault = "late"
                return fault if write or fault == "hung" else "lost"
        return ""

    def errs(self) -> bool:
        """Whether it now makes of an operation something else than the primary did."""
        return not self.healthy and self._rng.random() < self._conditions.wrong

    def hides(self) -> bool:
        """Whether it now gives a document as one that nobody can read."""
        chance = 0.0 if self.healthy else self._conditions.unreadable
        return bool(chance) and self._rng.random() < chance

    def _latency(self) -> float:
        rng = self._rng
        if not self.healthy and rng.random() < self._conditions.slow:
            return rng.random()
        return rng.choice((0.0, 0.001, 0.01)) * rng.random()

    def _later(self, delay: float, event: Callable[[], object]) -> None:
        def happen() -> None:
            self.in_flight -= 1
            event()

        self.in_flight += 1
        self._loop.call_later(delay, happen)

    def _land(
        self, what: str, effect: Callable[[], T], answer: asyncio.Future[T] | None = None, back: float = 0.0
    ) -> None:
        try:
            result = effect()
        except Exception as error:
            refusal = error
            self._note(f"{self.name} -- {what}: {type(error).__name__}")
            if answer is not None:
                self._later(back, lambda: _fail(answer, refusal))
            return
        self._note(f"{self.name} -- {what}: {result}")
        if answer is not None:
            self._later(back, lambda: _resolve(answer, result))


def _doubted(effect: Callable[[], T]) -> Callable[[], T]:
    """Done, and answered with a write concern error; of many, each that was done."""
    doubt = WriteConcernError("the simulation may undo it", 64)

    def done() -> T:
        result = effect()
        if not isinstance(result, list):
            raise doubt
        return [doubt if isinstance(each, Applied) else each for each in result]  # type: ignore[return-value]

    return done


def _resolve(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class Client:
    """A store as one process has it: the contract of `shadow.stores.base.Store`."""

    def __init__(self, server: Server, process: Process, asked: str) -> None:
        """`asked`: the write concern of the application's client, a name of `replicas.CONCERNS`."""
        self.name = server.name
        self._server = server
        self._process = process
        self.seat = server.member
        """The member that the driver takes for the primary, as long as that is one."""
        self._driver = Driver(asked, lambda: self.primary, self._look, self._find_chosen)
        link: Any = self._driver
        self._durability = Durability(link, on_doubt=process.journal.doubt) if server.replicated else None
        self._reads = None if self._durability is None else Lasting(self._driver, self._durability, _LONGEST)

    @property
    def primary(self) -> Member:
        return self._server.member if self.seat.gone else self.seat

    def finds_primary(self) -> None:
        """The driver hears of the new primary."""
        self.seat = self._server.member

    async def _ask(
        self, what: str, effect: Effect[T], *, write: bool = False, lasting: bool = False, spent: float = 0.0
    ) -> T:
        self._process.step()
        name = f"{self._process.name} {what}"
        asked = self._server.send(name, effect, write=write, to=self.primary, lasting=lasting, spent=spent)
        answer = await asked
        self._process.step()
        return answer

    async def _acknowledged(
        self, collection: str, what: str, effect: Effect[T], spent: Callable[[], float] = lambda: 0.0
    ) -> tuple[T, PyMongoError | None]:
        """A write of the application, in the steps in which the store of MongoDB takes it; with the error that says
        that it may be undone. `spent`: see `Server.send`."""
        durability = self._durability
        if durability is None:
            return await self._ask(what, effect, write=True, spent=spent()), None
        concern = await durability.for_application()
        if not durability.unproven:
            return await self._ask(what, effect, write=True, lasting=is_lasting(concern), spent=spent()), None
        before, seat = durability.election(), self.primary
        result = await self._ask(what, effect, write=True, lasting=is_lasting(concern), spent=spent())
        if seat.deposed:
            self._process.world.weakly_acknowledged(self._process)
        try:
            await durability.prove(self._driver[collection], before, _LONGEST)
        except PyMongoError as error:
            return result, error
        return result, None

    async def _copied(self, what: str, effect: Effect[T]) -> T:
        """A write of what the other store holds."""
        concern = None if self._durability is None else await self._durability.for_copies()
        return await self._ask(what, effect, write=True, lasting=concern is not None and is_lasting(concern))

    def in_session(self, session: Any) -> Any:
        return SessionClient(self, session)

    async def make_lasting(self, session: Any) -> None:
        """Its transactions have one member alone."""

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        return await self._ask("find_one", lambda on: at_once(on.memory.find_one(collection, query)))

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        yield await self._ask("find", lambda on: on.memory._find(collection, query))

    def may_lag(self, collection: str, filter: Document) -> bool:
        return False

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        return await self._ask("count", lambda on: at_once(on.memory.count(collection, filter, skip, limit)))

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        return await self._ask("distinct", lambda on: at_once(on.memory.distinct(collection, path, filter)))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        return await self._ask("aggregate", lambda on: at_once(on.memory.aggregate(collection, pipeline)))

    async def image(self, collection: str, key: Key) -> Image:
        if self._reads is not None:
            found: Image = await self._reads.find_one(collection, key)
            return found
        return (await self._look([key], False))[0]

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        if self._reads is not None:
            return await self._reads.find(collection, {"_id": {"$in": list(keys)}}, None)
        return await self._look(keys, False)

    async def lasting_images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        return await self.images(collection, keys)

    async def _look(self, keys: Sequence[Key], lasting: bool) -> list[Image]:
        def look(on: Member) -> list[Image]:
            return [self._seen(at_once(on.memory.image(COLLECTION, key))) for key in keys]

        return await self._ask(f"image {' '.join(map(str, keys))}", look, lasting=lasting)

    def _seen(self, image: Image) -> Image:
        """An image as it comes: now and then as one that cannot be read."""
        if image.document is None or not self._server.hides():
            return image
        return Image(image.state, Damaged({"_id": image.document["_id"]}, {"": "unreadable in the simulation"}))

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        return None

    # --- writes -------------------------------------------------------------------------------------------------

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        what = f"{type(change).__name__} {change.key}"
        applied, doubt = await self._acknowledged(
            collection, what, lambda on: self._apply(on, collection, change, op_id)
        )
        if doubt is not None:
            raise doubt
        return applied

    def chooses(self, change: Change) -> bool:
        return self._server.chooses and self._server.memory.chooses(change)

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        return await self.primary.memory.guard(collection, change)

    async def chosen(self, collection: str, op_id: str) -> Key:
        if self._reads is None:
            found = await self._find_chosen(op_id, False)
        else:
            found = await self._reads.find(collection, {"op": op_id}, None)
        return next(iter(found), ANY)

    async def _find_chosen(self, op_id: str, lasting: bool) -> list[Key]:
        def find(on: Member) -> list[Key]:
            return [key for key in [at_once(on.memory.chosen(COLLECTION, op_id))] if key is not ANY]

        return await self._ask(f"chosen {op_id[-4:]}", find, lasting=lasting)

    def _made(self, on: Member, collection: str, change: Change, op_id: str) -> Applied | None:
        world, now = self._process.world, self._process.now()
        expired = expiry.seen(self._server, change, now) if world.conditions.expires else None
        if expired is None:
            return at_once(on.memory.apply(collection, change, op_id))
        return expiry.applied_over(on.memory, change, lambda: at_once(on.memory.apply(collection, change, op_id)))

    def _apply(self, on: Member, collection: str, change: Change, op_id: str) -> Applied | None:
        stated = change if change.key is ANY else alone.stated(change, on.memory._image(collection, change.key))
        if stated is None:
            return None
        applied = self._made(on, collection, stated, op_id)
        if applied is not None and isinstance(change, Replace) and change.key is not ANY:
            on.memory._chosen.pop((collection, key_digest(change.key)), None)
        if not self._server.primary:
            self._server.history.broken(f"nothing is asked of the store that is not primary: {change.key}")
        if applied is not None and not on.deposed:
            made = at_key(change, applied.key)
            self._server.history.primary_changed(made, self._server.image(collection, made.key))
        return applied

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        places, error = self._process.part_of(len(inserts))
        what = f"insert_many {[each.key for each in inserts][:places]}"

        def effect(on: Member) -> list[Applied | Exception | None]:
            results: list[Applied | Exception | None] = []
            for insert, op_id in zip(inserts[:places], op_ids, strict=False):
                try:
                    results.append(self._apply(on, collection, insert, op_id))
                except Exception as refusal:
                    results.append(refusal)
                    if ordered:
                        return results + [None] * (len(inserts) - len(results))
            if error is not None and not ordered:
                return results + [error] * (len(inserts) - len(results))
            if error is not None:
                raise error
            return results

        results, doubt = await self._acknowledged(collection, what, effect)
        return [doubt if doubt is not None and isinstance(each, Applied) else each for each in results]

    async def keys(self, collection: str, filter: Document) -> list[Key]:
        return [hit.key async for page in self.find(collection, Query(filter)) for hit in page]

    async def change_many(
        self, collection: str, changes: Sequence[Update | Delete], op_ids: Sequence[str]
    ) -> list[Applied | Exception | None]:
        if self.name is StoreName.MONGO:
            return await change_many(SimulatedMany(self, collection, changes, op_ids), len(changes))
        return await change_each(len(changes), lambda place: self.apply(collection, changes[place], op_ids[place]))

    async def replay(self, collection: str, write: Write) -> Image | None:
        if self._recurs() and write.pre == ABSENT and write.post.present:
            return write.post if await self.put(collection, write.key, write.post, ABSENT) else None
        what = f"replay {type(write.change).__name__} {write.key} at {write.pre}"
        server = self._server

        def effect(on: Member) -> Image | None:
            image = at_once(on.memory.replay(collection, write))
            if image is not None and (other := alone.misunderstood(write, image)) is not image:
                image = other
                on.memory._set(collection, write.key, image)
            if image is not None and image.document is not None and server.errs():
                image = Image(image.state, {**image.document, WRONG: True})
                on.memory._set(collection, write.key, image)
            server.followed(on, collection, write.key, changed=image is not None)
            return image

        return await self._copied(what, effect)

    def replays_at_once(self, collection: str) -> int:
        able = self._server.batches and self.name is StoreName.DYNAMO
        return len(self._process.world.keys) + len(self._process.world.counters) if able else 0

    async def replay_many(self, collection: str, writes: Sequence[Write]) -> list[Image | None]:
        try:
            return await replay_together(SimulatedReplays(self, collection), writes)
        except PyMongoError as error:
            if classify(error) is Outcome.UNKNOWN:
                raise
            return [None] * len(writes)

    def _replayed(self, collection: str, write: Write, before: Image) -> Image | None:
        """What a replay leaves where this stands."""
        memory = MemoryStore(self.name)
        if before.state != ABSENT:
            memory._set(collection, write.key, before)
        after = at_once(memory.replay(collection, write))
        if after is not None and after.document is not None and self._server.errs():
            return Image(after.state, {**after.document, WRONG: True})
        return after

    def _recurs(self) -> bool:
        """Whether a key may hold nothing again and again: MongoDB deletes by itself what has expired."""
        return self._process.world.conditions.expires and self.name is StoreName.MONGO

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        if expected == ABSENT and image.present and self._recurs():
            return await recurring.put_over_nothing(
                lambda image, expected: self._put(collection, key, image, expected), image
            )
        return await self._put(collection, key, image, expected)

    async def _put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        what = f"put {key} {image.state} at {expected}"
        server = self._server

        def effect(on: Member) -> bool:
            done = at_once(on.memory.put(collection, key, image, expected))
            server.followed(on, collection, key, changed=done)
            return done

        return await self._copied(what, effect)

    def copies_at_once(self, collection: str) -> int:
        return len(self._process.world.keys) + len(self._process.world.counters) if self._server.batches else 0

    async def copy_many(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> list[bool]:
        if self.name is StoreName.MONGO:
            answers = await asyncio.gather(*(self.put(collection, *each) for each in puts), return_exceptions=True)
            errors = [each for each in answers if isinstance(each, BaseException)]
            if any(not isinstance(each, Exception) or classify(each) is Outcome.UNKNOWN for each in errors):
                raise errors[0]
            return [each is True for each in answers]
        try:
            return await copy_together(SimulatedCopies(self, collection), puts)
        except PyMongoError as error:
            if classify(error) is Outcome.UNKNOWN:
                raise
            return [False] * len(puts)

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        server = self._server

        def effect(on: Member) -> bool | None:
            done = at_once(on.memory.put_all(collection, puts))
            for key, _, _ in puts:
                server.followed(on, collection, key, changed=bool(done))
            return done

        return await self._copied(f"put_all {[key for key, _, _ in puts]}", effect)

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        return await self._ask(f"holders {key}", lambda on: at_once(on.memory.holders(collection, key, document)))

    # --- the store itself ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """The server stays."""

    async def ping(self) -> None:
        await self._ask("ping", lambda on: None)

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        """Nothing to prepare."""

    async def drop(self, collection: str) -> None:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"kind": "simulated"}


class Driven(Client):
    """A client with a driver under it: see `fleets`."""

    client: Any = None
    driver: Any = None

    async def has_stamps(self, collection: str, patience: float) -> bool:
        def look(on: Member) -> bool:
            images = [image for _, image in on.memory._images.get(collection, {}).values()]
            return any(image.state != Version("", 0) for image in images)

        return await self._ask("has_stamps", look)


class Batched:
    """What a backfill needs of a client: `shadow.stores.ranges.Ranges`, but for the walk."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def look(self, collection: str, keys: Sequence[Key], *, whole: bool) -> list[Image]:
        return await self._client.images(collection, keys)

    async def put_absent(self, collection: str, images: Sequence[tuple[Key, Image]]) -> list[bool]:
        async def put(key: Key, image: Image) -> bool:
            try:
                return await self._client.put(collection, key, image, ABSENT)
            except PyMongoError:
                return False

        return await asyncio.gather(*(put(key, image) for key, image in images))

    async def estimate(self, collection: str) -> int:
        raise NotImplementedError

    async def cut(self, collection: str, parts: int) -> list[Document]:
        raise NotImplementedError

    def walk(
        self, collection: str, within: Document, place: Document | None, *, size: int, whole: bool, filter: Document
    ) -> AsyncGenerator[Batch, None]:
        raise NotImplementedError
