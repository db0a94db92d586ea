"""The driver that never comes back: stores that go away and return under hundreds of callers, with either driver.

Whoever stops waiting leaves the driver's call alone; a client whose lock is taken for good all the same is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, PyMongoError

from shadow import Shadow
from shadow.embedded.servers import FaultProxy, Mode
from shadow.model.operation import Query
from shadow.model.phase import StoreName
from shadow.stores.calls import Calls
from shadow.stores.mongo.calls import MongoLink
from shadow.stores.mongo.store import MongoStore
from tests.support.memory import counted
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.topologies import root_client

CALLERS = 80
Proxies = dict[StoreName, FaultProxy]


@pytest.fixture
def proxies(site: Site, new_proxy: Callable[[str], FaultProxy]) -> Proxies:
    return {StoreName.MONGO: new_proxy(site.mongo_url), StoreName.DYNAMO: new_proxy(site.dynamo_url)}


@pytest.fixture
def troubled(site: Site, proxies: Proxies) -> Site:
    """Both stores behind a proxy; every time limit of the library is over many times while a store is away."""
    return site.but(
        mongo_url=proxies[StoreName.MONGO].url,
        dynamo_url=proxies[StoreName.DYNAMO].url,
        phase="shadow",
        limits={"operation": 1.0, "write_deadline": 0.2, "read_deadline": 0.1},
    )


class Crowd:
    """Callers that write and read without a pause, each for as long as the block lasts; every third goes away now and
    then in the middle of a call."""

    def __init__(self, shadow: Shadow) -> None:
        self._things = shadow[COLLECTION]
        self.answered = 0
        self._callers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crowd:
        self._callers = [asyncio.create_task(self._caller(number)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for each in self._callers:
            each.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)

    async def _caller(self, number: int) -> None:
        chance = random.Random(number)
        while True:
            patience = chance.uniform(0.0, 0.3) if number % 3 == 0 else 30.0
            with contextlib.suppress(PyMongoError, TimeoutError):
                async with asyncio.timeout(patience):
                    await self._call(chance)
                self.answered += 1
            await asyncio.sleep(chance.uniform(0.0, 0.4))

    async def _call(self, chance: random.Random) -> None:
        key = chance.randrange(100)
        if chance.random() < 0.4:
            await self._things.update_one({"_id": key}, {"$inc": {"n": 1}})
        elif chance.random() < 0.6:
            await self._things.find_one({"_id": key})
        else:
            await self._things.find({"_id": {"$lt": key}}).to_list(None)

    async def goes_on(self) -> None:
        """As many calls as there are callers are answered from now on."""
        wanted = self.answered + CALLERS
        await until(lambda: self.answered >= wanted, 90)


@pytest.mark.takes_turns
@pytest.mark.drawn_over("primary", "driver", of=2, reason="the same stores that come and go")
@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_a_store_that_is_away_again_and_again_is_used_again_when_it_is_back(
    troubled: Site, site: Site, proxies: Proxies, driver: str, primary: str
) -> None:
    """Refusing and hanging, one store and the other; no client had to be given up for it."""
    async with site.but(primary=primary, patience=30.0).shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many([{"_id": key, "n": 0} for key in range(100)])
        assert await shadow.settled(90)
    async with troubled.but(driver=driver, primary=primary).shadow() as shadow:
        async with Crowd(shadow) as crowd:
            await crowd.goes_on()
            for store in StoreName:
                for mode in (Mode.REFUSE, Mode.HANG):
                    proxies[store].set(mode)
                    await asyncio.sleep(1.5)  # how long the store is away
                    proxies[store].clear()
                    await crowd.goes_on()
        assert all(counted(shadow, "shadow_clients_stuck_total", store=store) == 0 for store in StoreName)
        assert await shadow.settled(90)
    assert await site.but(primary=primary).disagreements() == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is asked for a sign of life soon."""
    monkeypatch.setattr("shadow.stores.mongo.calls.LEAST_PATIENCE", 0.5)


async def cancelling(self: Calls, task: asyncio.Task[Any]) -> Any:
    """`Calls.wait` without what it is for: whoever goes away takes the driver's call along."""
    return await task


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "let_through",
    [False, pytest.param(True, marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="`wait_for` has no task"))],
    ids=["as it is", "let through"],
)
async def test_a_cancellation_while_the_driver_takes_its_lock_back(
    mongo_url: str, new_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch, let_through: bool
) -> None:
    """What a crowd comes to by chance, step by step: a caller waits for a server that is away, somebody else has the
    client's lock, and the caller is cancelled. As it is, the client is well when its server is back; with cancellations
    let through, it is stuck, which is the proof that the test above can fail."""
    proxy = new_proxy(mongo_url)
    proxy.set(Mode.REFUSE)
    before: AsyncMongoClient[Any] = AsyncMongoClient(proxy.url)
    link = MongoLink(before, lambda: AsyncMongoClient(mongo_url), patience=0.5)
    admin, topology = link.database("admin"), before._topology
    with monkeypatch.context() as patch:
        if let_through:
            patch.setattr(Calls, "wait", cancelling)
        caller = asyncio.create_task(admin.command("hello"))
        await until(lambda: topology._condition._waiters, 90)
    await topology._lock.acquire()
    waiting = set(topology._condition._waiters)
    caller.cancel()
    if let_through:
        await until(lambda: waiting.isdisjoint(topology._condition._waiters), 90)
        caller.cancel()
    await asyncio.wait([caller])
    if let_through:
        await until(topology._lock.locked)
    else:
        topology._lock.release()
    proxy.clear()
    if let_through:
        with pytest.raises(AutoReconnect, match="given up"):
            await admin.command("ping")
    assert (await admin.command("ping"))["ok"] == 1
    assert (link.client is before) == (not let_through)
    await link.close(owned=True)


# --- a client that is stuck all the same ------------------------------------------------------------------------


def store_of(shadow: Shadow) -> MongoStore:
    store = shadow._engine.runtime().stores[StoreName.MONGO]
    assert isinstance(store, MongoStore)
    return store


async def take_for_good(client: Any) -> None:
    """The lock of PyMongo's async client, which every call of it needs."""
    await client._get_topology()
    await client._topology._lock.acquire()


@pytest.mark.usefixtures("impatient")
async def test_a_client_of_our_own_that_is_stuck_is_replaced(site: Site) -> None:
    """Whoever waits hears that the outcome is unknown; calls after it are answered, on cursors and all."""
    async with site.but(limits={"operation": 1.0}).shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": 1, "n": 0})
        before = store_of(shadow).client
        await take_for_good(before)
        with pytest.raises(AutoReconnect):
            await things.find_one({"_id": 1})
        assert store_of(shadow).client is not before
        assert counted(shadow, "shadow_clients_stuck_total", store="mongo") == 1
        await things.update_one({"_id": 1}, {"$inc": {"n": 1}})
        assert [each async for each in things.find({})] == [{"_id": 1, "n": 1}]
        await site.level(shadow)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_was_handed_in_is_said_to_be_stuck_and_kept(site: Site) -> None:
    """It is not ours to close; what it answers later is heard."""
    client: AsyncMongoClient[Any] = AsyncMongoClient(site.mongo_url)
    limited = site.but(limits={"operation": 1.0})
    async with client, Shadow.from_settings(limited.settings(), mongo_client=client) as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": 1})
        await take_for_good(client)
        reading = asyncio.ensure_future(shadow[COLLECTION].find_one({"_id": 1}))
        await until(lambda: counted(shadow, "shadow_clients_stuck_total", store="mongo") == 1)
        client._topology._lock.release()
        assert await reading == {"_id": 1}
        assert store_of(shadow).client is client


# --- who goes away ----------------------------------------------------------------------------------------------


async def test_a_reader_that_goes_away_leaves_its_call_alone(troubled: Site, proxies: Proxies) -> None:
    """The call ends when the store answers, and is counted; the next one is answered."""
    async with troubled.but(limits={"operation": 30.0}).shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": 1})
        assert await shadow.settled(90)
        before = counted(shadow, "shadow_calls_abandoned_total", store="mongo")
        proxies[StoreName.MONGO].set(Mode.HANG, only=b"find")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await shadow[COLLECTION].find_one({"_id": 1})
        # A check of the library's own may hang and be given up on as well.
        assert counted(shadow, "shadow_calls_abandoned_total", store="mongo") >= before + 1
        assert store_of(shadow).link.calls.abandoned >= 1
        proxies[StoreName.MONGO].clear()
        assert await shadow[COLLECTION].find_one({"_id": 1}) == {"_id": 1}
        await until(lambda: store_of(shadow).link.calls.abandoned == 0)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_a_cursor_that_is_left_in_the_middle_of_a_page_is_closed_on_the_server(
    site: Site, troubled: Site, proxies: Proxies, driver: str
) -> None:
    """After the page has come, by which the server names it."""
    async with troubled.but(driver=driver, limits={"operation": 30.0}).shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many([{"_id": key} for key in range(1000)])
        assert await shadow.settled(90)

        async def first() -> None:
            async with aclosing(shadow._engine.current().find(COLLECTION, Query({}, batch_size=10))) as pages:  # type: ignore[type-var]
                async for _ in pages:
                    return

        async def open_cursors() -> int:
            """Idle ones, and those that a command is busy with."""
            of_the_test = {"ns": f"{site.database}.{COLLECTION}", "cursor": {"$exists": True}}
            pipeline = [{"$currentOp": {"idleCursors": True}}, {"$match": of_the_test}]
            return len(await asyncio.to_thread(lambda: list(root_client(site.mongo_url).admin.aggregate(pipeline))))

        async with aclosing(shadow._engine.current().find(COLLECTION, Query({}, batch_size=10))) as pages:  # type: ignore[type-var]
            await anext(aiter(pages))
            assert await open_cursors() == 1, "so they are counted"
        proxies[StoreName.MONGO].set(Mode.DELAY, seconds=0.5, only=b"find")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await first()
        proxies[StoreName.MONGO].clear()
        if driver == "pymongo":
            await until(lambda: store_of(shadow).link.calls.abandoned == 0)
        await first()
        async with asyncio.timeout(90):
            while await open_cursors():  # noqa: ASYNC110 - the server wakes nobody
                await asyncio.sleep(0.05)


@pytest.mark.drawn_over("driver", "store", of=2, reason="the same end, of whatever hangs")
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("store", list(StoreName))
async def test_close_ends_although_a_store_hangs_and_no_task_outlives_it(
    troubled: Site, proxies: Proxies, driver: str, store: StoreName
) -> None:
    """With calls of every kind under way."""
    before = asyncio.all_tasks()
    site = troubled.but(driver=driver, limits={"operation": 1.0, "drain": 0.5})
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": 1})
        proxies[store].set(Mode.HANG)
        calls = [asyncio.ensure_future(each) for each in (things.find_one({"_id": 1}), things.delete_one({"_id": 1}))]
        await until(lambda: proxies[store].faults >= 1)
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    # While it still hangs: a client that waits for it to take its leave would go on watching it.
    await until(lambda: not (asyncio.all_tasks() - before))


async def test_a_client_with_sessions_on_a_server_that_hangs_is_closed_with_its_monitors(
    troubled: Site, proxies: Proxies
) -> None:
    """PyMongo ends the sessions first, by a request that has no answer."""
    before = asyncio.all_tasks()
    async with troubled.but(driver="pymongo", limits={"drain": 0.5}).shadow() as shadow:
        await shadow.prepare()
        await asyncio.gather(*(shadow[COLLECTION].find_one({"_id": n}) for n in range(8)))
        assert await shadow.settled(90)
        proxies[StoreName.MONGO].set(Mode.HANG)
        await store_of(shadow).close()
        await until(lambda: not [each for each in asyncio.all_tasks() - before if "pymongo" in each.get_name()])
