"""Where shadow work runs: in the application's event loop, in a thread with a loop of its own, or in a process.

The work is the same everywhere: key reads that are near in time are gathered in the application's loop, 25 at most, and
handed over; the secondary is asked for all of them in one request, and each answer is compared. It leaves out what the
library does beside (counting, journal, second looks), so its figures compare the places and are not those of the shim.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

import bson

from shadow.compare.equality import same
from shadow.embedded.servers import CREDENTIALS
from shadow.model.schema import CollectionSpec
from shadow.model.values import CANONICAL
from shadow.reads.batching import Batcher
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from tests.bench.harness import Bench, Contender, Line, Paced
from tests.bench.peers import Peers
from tests.bench.reads import key
from tests.bench.sites import NOTES, PREFIX

__all__ = ["NAME", "lanes"]

NAME: Final = "lanes"
_MAX_WAIT: Final = 0.1
"""This and the next are those of `shadow.reads.batching`."""
_MAX_BATCH: Final = 25
_PATIENCE: Final = 30.0


class _Work:
    """The comparisons, on the loop on which `hand_over` is called."""

    def __init__(self, endpoint: str) -> None:
        settings = DynamoSettings(
            endpoint_url=endpoint,
            table_prefix=PREFIX,
            access_key_id=CREDENTIALS["aws_access_key_id"],
            secret_access_key=CREDENTIALS["aws_secret_access_key"],
        )
        self._store = DynamoStore(settings, {NOTES: CollectionSpec(NOTES)})
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = 0
        self.unequal = 0

    def hand_over(self, documents: list[dict[str, Any]]) -> None:
        task = asyncio.get_running_loop().create_task(self.compare(documents))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def compare(self, documents: Sequence[dict[str, Any]]) -> None:
        images = await self._store.images(NOTES, [each["_id"] for each in documents])
        for document, image in zip(documents, images, strict=True):
            self.unequal += image.document is None or not same(document, image.document)
            self._done += 1

    def done(self) -> int:
        if self.unequal:
            raise RuntimeError(f"{self.unequal} documents were not equal")
        return self._done

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)
        await self._store.close()


class _Place(Protocol):
    """Where the work is done."""

    def hand_over(self, documents: list[dict[str, Any]]) -> None: ...

    def done(self) -> int:
        """How many have been compared. Raises if one was not equal."""

    async def close(self) -> None: ...


class _OwnThread:
    def __init__(self, endpoint: str) -> None:
        self._work = _Work(endpoint)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def hand_over(self, documents: list[dict[str, Any]]) -> None:
        self._loop.call_soon_threadsafe(self._work.hand_over, documents)

    def done(self) -> int:
        return self._work.done()

    async def close(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._work.close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()


class _OwnProcess:
    """Documents go over a pipe as BSON; the other process answers how many it has compared."""

    def __init__(self, endpoint: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_served, args=(theirs, endpoint), daemon=True)
        self._process.start()
        theirs.close()
        self._done = 0

    def hand_over(self, documents: list[dict[str, Any]]) -> None:
        self._ours.send_bytes(bson.encode({"": documents}))

    def done(self) -> int:
        while self._ours.poll():
            count, unequal = self._ours.recv()
            if unequal:
                raise RuntimeError(f"{unequal} documents were not equal")
            self._done += count
        return self._done

    async def close(self) -> None:
        self._ours.send_bytes(b"")
        await asyncio.to_thread(self._process.join)


def _served(pipe: Connection, endpoint: str) -> None:
    async def serve() -> None:
        work = _Work(endpoint)
        while text := await asyncio.to_thread(pipe.recv_bytes):
            documents = bson.decode(text, codec_options=CANONICAL)[""]
            await work.compare(documents)
            pipe.send((len(documents), work.unequal))
        await work.close()

    asyncio.run(serve())


class _Reader:
    """Bare Motor's reads, each forwarded to a place."""

    def __init__(self, peers: Peers, place: _Place) -> None:
        self._peers = peers
        self._place = place
        self._offered = 0
        self._near: Batcher[dict[str, Any]] = Batcher(
            max_wait=_MAX_WAIT, max_size=_MAX_BATCH, hand_over=place.hand_over
        )

    async def call(self, number: int) -> None:
        document = await self._peers.motor.find_one({"_id": key(number)})
        self._offered += 1
        self._near.add("", document)

    async def settled(self) -> None:
        async with asyncio.timeout(_PATIENCE):
            while self._place.done() < self._offered:  # noqa: ASYNC110 - another process cannot set an event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def lanes(peers: Peers, endpoint: str, calls: int) -> AsyncIterator[Bench]:
    """The documents of `peers` must be in the secondary's table as well."""
    kinds: dict[str, Callable[[str], _Place]] = {
        "in the application's loop": _Work,
        "in a thread": _OwnThread,
        "in a process": _OwnProcess,
    }
    places = {name: make(endpoint) for name, make in kinds.items()}
    readers = {name: _Reader(peers, place) for name, place in places.items()}
    try:
        yield Bench(
            NAME,
            [
                Contender("motor", lambda number: peers.motor.find_one({"_id": key(number)})),
                *(Contender(name, reader.call, reader.settled) for name, reader in readers.items()),
            ],
            Paced(calls, 200.0),
            [
                Line(f"shadow work {name}, 200 calls/s", metric, name, "motor")
                for metric in ("p50", "p99", "cpu")
                for name in places
            ],
        )
    finally:
        for place in places.values():
            await place.close()
