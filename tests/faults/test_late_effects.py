"""A request that the primary gets when its caller has long given up, and its journal entry is settled.

No time limit of a client calls back what it has sent. Here a proxy holds back every write for longer than
`limits.operation`: the callers give up, what became of their writes is read from the primary (nothing), the journal is
empty. Then the requests go through after all. DynamoDB's client waits for ten seconds, which is longer, too.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import DeleteOne, InsertOne, UpdateOne, WriteConcern

from shadow import Shadow
from shadow.embedded.servers import FaultProxy, Mode
from shadow.model.phase import StoreName
from tests.support.shadows import COLLECTION, Site
from tests.support.worker import Worker

LIMIT: Final = 1.2
LATEST: Final = 60.0
"""Seconds within which what comes late must have been found, on however busy a machine."""
WRITES: Final = {
    "mongo": (b"\x02insert\0", b"\x02update\0", b"\x02delete\0", b"\x02findAndModify\0", b"\x10commitTransaction\0"),
    "dynamo": (b".PutItem", b".UpdateItem", b".DeleteItem", b".TransactWriteItems", b".BatchExecuteStatement"),
}
Things = Any
VERBS: Final[dict[str, Callable[[Things, str], Awaitable[Any]]]] = {
    "insert_one": lambda t, k: t.insert_one({"_id": f"{k}-new", "n": 1}),
    "insert_many": lambda t, k: t.insert_many([{"_id": f"{k}-{n}", "n": n} for n in range(3)]),
    "update_one": lambda t, k: t.update_one({"_id": k}, {"$inc": {"n": 1}}),
    "update_one by a filter": lambda t, k: t.update_one({"name": k}, {"$set": {"x": "late"}}),
    "upsert": lambda t, k: t.update_one({"_id": f"{k}-new"}, {"$inc": {"n": 1}}, upsert=True),
    "upsert by a filter": lambda t, k: t.update_one({"name": f"{k}-new"}, {"$inc": {"n": 1}}, upsert=True),
    "update_many": lambda t, k: t.update_many({"name": k}, {"$inc": {"n": 1}}),
    "replace_one": lambda t, k: t.replace_one({"_id": k}, {"n": 9}),
    "delete_one": lambda t, k: t.delete_one({"_id": k}),
    "delete_one by a filter": lambda t, k: t.delete_one({"name": k}),
    "delete_many": lambda t, k: t.delete_many({"name": k}),
    "find_one_and_update": lambda t, k: t.find_one_and_update({"name": k}, {"$inc": {"n": 1}}),
    "find_one_and_replace": lambda t, k: t.find_one_and_replace({"_id": k}, {"n": 9}),
    "find_one_and_delete": lambda t, k: t.find_one_and_delete({"_id": k}),
    "bulk_write of an insert": lambda t, k: t.bulk_write([InsertOne({"_id": f"{k}-new"})]),
    "bulk_write of an update": lambda t, k: t.bulk_write([UpdateOne({"_id": k}, {"$inc": {"n": 1}})]),
    "bulk_write of a delete": lambda t, k: t.bulk_write([DeleteOne({"_id": k})]),
    "insert_one, w=0": lambda t, k: t.with_options(write_concern=WriteConcern(w=0)).insert_one({"_id": f"{k}-new"}),
}
TRANSACTED: Final = "transaction"
UNSENT: Final = {"mongo": {"upsert"}, "dynamo": set[str]()}
"""MongoDB is asked for the document first, and to insert one only once it has answered."""


@dataclasses.dataclass
class Primary:
    """`site`: the stores as the application reaches them, the primary by way of `proxy`; `bare`: past it."""

    site: Site
    bare: Site
    proxy: FaultProxy

    def hold(self) -> None:
        self.proxy.set(Mode.HANG, only=WRITES[self.site.primary])

    async def documents(self) -> Any:
        return await self.bare.documents()

    async def until_equal(self) -> None:
        async with asyncio.timeout(LATEST):
            while await self.bare.disagreements():  # noqa: ASYNC110 - nobody says so
                await asyncio.sleep(0.1)


async def write_all(shadow: Shadow, hold: Callable[[], None]) -> dict[str, Any]:
    """What came of each verb, each on documents of its own, once `hold` was called."""
    things = shadow[COLLECTION]
    async with await _session(shadow) as session:
        await _begun(session.start_transaction())
        await things.insert_one({"_id": f"{TRANSACTED}-new"}, session=session)
        await things.update_one({"_id": TRANSACTED}, {"$inc": {"n": 1}}, session=session)
        await asyncio.to_thread(hold)
        calls = [call(things, name) for name, call in VERBS.items()]
        results = await asyncio.gather(*calls, session.commit_transaction(), return_exceptions=True)
    return dict(zip((*VERBS, TRANSACTED), results, strict=True))


async def _session(shadow: Shadow) -> Any:
    return await _begun(shadow.client.start_session())


async def _begun(made: Any) -> Any:
    return await made if asyncio.iscoroutine(made) or asyncio.isfuture(made) else made


def write_and_wait(site: Site, ready: Path, held: Path) -> None:
    """Of a process that is killed while its requests are held back."""

    def hold() -> None:
        ready.touch()
        while not held.exists():
            time.sleep(0.01)

    async def run() -> None:
        async with site.shadow() as shadow:
            await write_all(shadow, hold)
            await asyncio.sleep(LATEST)

    asyncio.run(run())


@pytest.fixture
def behind(request: pytest.FixtureRequest, site: Site):
    """The site, with a proxy before the primary that the test's first parameter names."""
    primary, driver = request.param
    url = site.mongo_url if primary == "mongo" else site.dynamo_url
    limits = {"operation": LIMIT, "in_flight_timeout": 0.1}
    bare = site.but(primary=primary, driver=driver, limits=limits)
    with FaultProxy.before(url) as proxy:
        through = {f"{primary}_url": proxy.url}
        yield Primary(bare.but(**through), bare, proxy)


BOTH = pytest.mark.parametrize(
    "behind", [("mongo", "pymongo"), ("mongo", "motor"), ("dynamo", "pymongo")], indirect=True, ids="-".join
)


async def prepare(shadow: Shadow) -> None:
    await shadow.prepare()
    await shadow[COLLECTION].insert_many([{"_id": name, "name": name, "n": 1} for name in (*VERBS, TRANSACTED)])
    assert await shadow.settled(LATEST)


@BOTH
@pytest.mark.parametrize("flips", [False, True], ids=["", "after a flip"])
async def test_what_takes_effect_after_it_was_settled_is_found_again(behind: Primary, flips: bool) -> None:
    async with behind.site.shadow() as shadow:
        await prepare(shadow)
        before = await behind.documents()
        results = await write_all(shadow, behind.hold)
        answered = {name for name, result in results.items() if not isinstance(result, Exception)}
        assert answered <= {"insert_one, w=0"}, "nobody can have an answer"
        assert await shadow.settled(LATEST)
        assert (await shadow.admin.status())["journal"]["late"][COLLECTION] >= len(VERBS)
        assert await behind.documents() == before, "settled, for nothing has been done"
        if flips:
            to = StoreName.DYNAMO if behind.site.primary == "mongo" else StoreName.MONGO
            assert (await shadow.admin.flip(COLLECTION, to, "a test"))["done"]
        await asyncio.to_thread(behind.proxy.clear)
        await _done(behind, before, flips=flips)
        await behind.until_equal()
        if flips:
            behind.bare = behind.bare.but(primary=str(to))
            assert await behind.documents() == before, "what a store does as the secondary counts for nothing"


@pytest.mark.parametrize("behind", [("mongo", "pymongo"), ("dynamo", "pymongo")], indirect=True, ids="-".join)
async def test_so_is_what_a_killed_process_has_sent(behind: Primary, tmp_path: Path) -> None:
    ready, held = tmp_path / "ready", tmp_path / "held"
    async with behind.bare.shadow() as shadow:
        await prepare(shadow)
    before = await behind.documents()
    worker = Worker(tmp_path / "said", write_and_wait, behind.site, ready, held)
    try:
        async with asyncio.timeout(LATEST):
            while not ready.exists():
                assert worker.process.exitcode is None, worker.last_words()
                await asyncio.sleep(0.02)
            await asyncio.to_thread(behind.hold)
            held.touch()
            while behind.proxy.faults <= len(VERBS):  # noqa: ASYNC110 - and of another thread
                await asyncio.sleep(0.01)
    finally:
        worker.process.kill()
        await asyncio.to_thread(worker.process.join, LATEST)
    async with behind.bare.shadow() as shadow:
        assert await shadow.settled(LATEST)
        assert await behind.documents() == before, "settled, for nothing has been done"
        await asyncio.to_thread(behind.proxy.clear)
        await _done(behind, before, flips=False)
        await behind.until_equal()


async def _done(behind: Primary, before: Any, *, flips: bool) -> None:
    """Returns when what was held back has been done. After a flip it may be undone at once, and Motor has a thread for
    each call, of which there are few: then that some of it has been done is enough."""
    expected = {*VERBS, TRANSACTED} - UNSENT[behind.site.primary]
    some = flips or behind.site.driver == "motor"
    made: set[str] = set()
    async with asyncio.timeout(LATEST):
        while not (made if some else made >= expected):
            made |= _verbs_of(before, await behind.documents())
            await asyncio.sleep(0.01)


def _verbs_of(before: Any, after: Any) -> set[str]:
    """Those that have changed anything."""
    changed = [
        before.get(key) or after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    ]
    names = [str(each.get("name", each["_id"])) for each in changed]
    return {verb for verb in (*VERBS, TRANSACTED) for name in names if name in _NAMES_OF[verb]}


_NAMES_OF: Final = {verb: {verb, *(f"{verb}-{n}" for n in ("new", 0, 1, 2))} for verb in (*VERBS, TRANSACTED)}
