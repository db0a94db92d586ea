"""Simulated servers, and the clients through which the processes ask them.

A request takes effect at the server at a moment of its own, whatever has become of the client by then. That is how a
write without an answer, a cancelled caller and a dead process can all have been, or yet be, applied.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo.errors import AutoReconnect, NetworkTimeout, PyMongoError, WriteConcernError, WriteError

from shadow.model.operation import Applied, Change, Guard, Hit, Insert, Query, Replace, Update, Write, at_key
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.model.stored import Damaged
from shadow.model.version import ABSENT, Document, Image, Key, State
from shadow.stores.memory import MemoryStore
from shadow.stores.ranges import Batch
from tests.simulation.conditions import LIMIT, REQUEST, Conditions
from tests.simulation.history import WRONG, History

if TYPE_CHECKING:
    from tests.simulation.world import Process

__all__ = ["Batched", "Client", "Server"]

T = TypeVar("T")
Effect = Callable[[], T]


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
        self.memory = memory
        self.history = history
        self.primary = name is StoreName.MONGO
        self.in_flight = 0
        self.healthy = False
        self.down = False
        self.chooses = conditions.choosing and name is StoreName.MONGO
        self._conditions = conditions
        self._rng = rng
        self._loop = loop
        self._note = note

    def image(self, collection: str, key: Key) -> Image:
        return self.memory._image(collection, key)

    def followed(self, collection: str, key: Key, *, changed: bool) -> None:
        """A replay or a copy has landed here."""
        if not self.primary:
            self.history.secondary_is(key, self.image(collection, key))
        elif changed:
            self.history.broken(f"nothing is replayed or copied to the primary: {key}")

    def send(self, what: str, effect: Effect[T], *, write: bool) -> asyncio.Future[T]:
        """Sends a request. The future may never be done; what is still to land is counted by `in_flight`."""
        answer: asyncio.Future[T] = self._loop.create_future()
        rng = self._rng
        there, back = self._latency(), self._latency()
        fault = "" if self.healthy else self._fault(write=write)
        self._note(f"{self.name} <- {what}{' !' + fault if fault else ''}")
        if fault == "refused":
            self._later(there + back, lambda: _fail(answer, WriteError("refused by the simulation", 121)))
        elif fault == "down":
            self._later(there, lambda: _fail(answer, AutoReconnect("down in the simulation")))
        elif fault == "lost":
            self._later(there + back, lambda: _fail(answer, NetworkTimeout("lost in the simulation")))
        elif fault in ("late", "unanswered"):
            if fault == "late":
                there = rng.random() * (REQUEST if self.primary else 2 * REQUEST)
            self._later(there, lambda: self._land(what, effect))
            self._later(rng.random() * back * 2, lambda: _fail(answer, NetworkTimeout("no answer in the simulation")))
        elif fault == "half":
            self._later(there, lambda: self._land(what, _doubted(effect), answer, back))
        elif fault == "hung":
            if rng.random() < 0.5:
                self._later(rng.random() * REQUEST, lambda: self._land(what, effect))
            # Drivers wait long, but not for ever.
            self._later(2 * LIMIT, lambda: _fail(answer, NetworkTimeout("no answer for long in the simulation")))
        else:
            self._later(there, lambda: self._land(what, effect, answer, back))
        return answer

    def _fault(self, *, write: bool) -> str:
        if self.down:
            return "down" if self._rng.random() < 0.8 else "hung"
        conditions, chance = self._conditions, self._rng.random()
        for fault in ("refused", "lost", "unanswered", "late", "hung", "half"):
            chance -= getattr(conditions, fault)
            if chance < 0:
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

    def _land(self, what: str, effect: Effect[T], answer: asyncio.Future[T] | None = None, back: float = 0.0) -> None:
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


def _doubted(effect: Effect[T]) -> Effect[T]:
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

    def __init__(self, server: Server, process: Process) -> None:
        self.name = server.name
        self._server = server
        self._process = process

    async def _ask(self, what: str, effect: Effect[T], *, write: bool = False) -> T:
        self._process.step()
        answer = await self._server.send(f"{self._process.name} {what}", effect, write=write)
        self._process.step()
        return answer

    # --- reads --------------------------------------------------------------------------------------------------

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        memory = self._server.memory
        return await self._ask("find_one", lambda: at_once(memory.find_one(collection, query)))

    async def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        memory = self._server.memory
        yield await self._ask("find", lambda: memory._find(collection, query))

    def may_lag(self, collection: str, filter: Document) -> bool:
        return False

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        memory = self._server.memory
        return await self._ask("count", lambda: at_once(memory.count(collection, filter, skip, limit)))

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        memory = self._server.memory
        return await self._ask("distinct", lambda: at_once(memory.distinct(collection, path, filter)))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        memory = self._server.memory
        return await self._ask("aggregate", lambda: at_once(memory.aggregate(collection, pipeline)))

    async def image(self, collection: str, key: Key) -> Image:
        memory = self._server.memory
        return await self._ask(f"image {key}", lambda: self._seen(at_once(memory.image(collection, key))))

    async def images(self, collection: str, keys: Sequence[Key]) -> list[Image]:
        memory = self._server.memory
        return await self._ask("images", lambda: list(map(self._seen, at_once(memory.images(collection, keys)))))

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
        return await self._ask(what, lambda: self._apply(collection, change, op_id), write=True)

    def chooses(self, change: Change) -> bool:
        return self._server.chooses and self._server.memory.chooses(change)

    async def guard(self, collection: str, change: Update | Replace) -> tuple[Guard | None, Key]:
        return await self._server.memory.guard(collection, change)

    async def chosen(self, collection: str, op_id: str) -> Key:
        memory = self._server.memory
        return await self._ask(f"chosen {op_id[-4:]}", lambda: at_once(memory.chosen(collection, op_id)))

    def _apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        applied = at_once(self._server.memory.apply(collection, change, op_id))
        if applied is not None:
            made = at_key(change, applied.key)
            self._server.history.primary_changed(made, self._server.image(collection, made.key))
        return applied

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        places, error = self._process.part_of(len(inserts))
        what = f"insert_many {[each.key for each in inserts][:places]}"

        def effect() -> list[Applied | Exception | None]:
            results: list[Applied | Exception | None] = []
            for insert, op_id in zip(inserts[:places], op_ids, strict=False):
                try:
                    results.append(self._apply(collection, insert, op_id))
                except Exception as refusal:
                    results.append(refusal)
                    if ordered:
                        return results + [None] * (len(inserts) - len(results))
            if error is not None and not ordered:
                return results + [error] * (len(inserts) - len(results))
            if error is not None:
                raise error
            return results

        return await self._ask(what, effect, write=True)

    async def replay(self, collection: str, write: Write) -> Image | None:
        what = f"replay {type(write.change).__name__} {write.key} at {write.pre}"
        server = self._server

        def effect() -> Image | None:
            image = at_once(server.memory.replay(collection, write))
            if image is not None and image.document is not None and server.errs():
                image = Image(image.state, {**image.document, WRONG: True})
                server.memory._set(collection, write.key, image)
            server.followed(collection, write.key, changed=image is not None)
            return image

        return await self._ask(what, effect, write=True)

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        what = f"put {key} {image.state} at {expected}"
        server = self._server

        def effect() -> bool:
            done = at_once(server.memory.put(collection, key, image, expected))
            server.followed(collection, key, changed=done)
            return done

        return await self._ask(what, effect, write=True)

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        server = self._server

        def effect() -> bool | None:
            done = at_once(server.memory.put_all(collection, puts))
            for key, _, _ in puts:
                server.followed(collection, key, changed=bool(done))
            return done

        return await self._ask(f"put_all {[key for key, _, _ in puts]}", effect, write=True)

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        memory = self._server.memory
        return await self._ask(f"holders {key}", lambda: at_once(memory.holders(collection, key, document)))

    # --- the store itself ---------------------------------------------------------------------------------------

    async def close(self) -> None:
        """The server stays."""

    async def ping(self) -> None:
        await self._ask("ping", lambda: None)

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        """Nothing to prepare."""

    async def drop(self, collection: str) -> None:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"kind": "simulated"}


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
