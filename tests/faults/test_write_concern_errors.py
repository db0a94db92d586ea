"""An answer that is half a yes: the server has done the write and says that it may not last, or refuses a part of it.

Made by the server itself (`failCommand`), seen by the application as by the bare driver, and never taken for a refusal:
what stands on the primary reaches the secondary.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, DeleteOne, InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, PyMongoError

from shadow.embedded.servers import Mongod
from tests.support import services
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

WRITES = ["insert", "update", "delete", "findAndModify"]
INC = {"$inc": {"n": 1}}
Verb = Callable[[Any, str], Awaitable[Any]]
"""Of a collection, and the beginning of the keys that the call is about."""

VERBS: dict[str, Verb] = {
    "insert_one": lambda c, k: c.insert_one({"_id": f"{k}0"}),
    "insert_many": lambda c, k: c.insert_many([{"_id": f"{k}{n}"} for n in range(3)]),
    "insert_many, a duplicate": lambda c, k: c.insert_many([{"_id": f"{k}{n}"} for n in (0, "old", 2)]),
    "insert_many, unordered, a duplicate": lambda c, k: c.insert_many(
        [{"_id": f"{k}{n}"} for n in (0, "old", 2)], ordered=False
    ),
    "bulk_write, inserts": lambda c, k: c.bulk_write([InsertOne({"_id": f"{k}{n}"}) for n in range(2)]),
    "bulk_write": lambda c, k: c.bulk_write(
        [InsertOne({"_id": f"{k}0"}), UpdateOne({"_id": f"{k}old"}, INC), DeleteOne({"_id": f"{k}out"})]
    ),
    "update_one": lambda c, k: c.update_one({"_id": f"{k}old"}, INC),
    "update_one, a pipeline": lambda c, k: c.update_one({"_id": f"{k}old"}, [{"$set": {"n": 7}}]),
    "update_one, an upsert": lambda c, k: c.update_one({"_id": f"{k}0"}, INC, upsert=True),
    "update_many": lambda c, k: c.update_many({"of": k}, INC),
    "replace_one": lambda c, k: c.replace_one({"_id": f"{k}old"}, {"n": 5}),
    "replace_one, an upsert": lambda c, k: c.replace_one({"_id": f"{k}0"}, {"n": 5}, upsert=True),
    "delete_one": lambda c, k: c.delete_one({"_id": f"{k}old"}),
    "delete_many": lambda c, k: c.delete_many({"of": k}),
    "find_one_and_update": lambda c, k: c.find_one_and_update({"_id": f"{k}old"}, INC),
    "find_one_and_replace": lambda c, k: c.find_one_and_replace({"_id": f"{k}old"}, {"n": 5}),
    "find_one_and_delete": lambda c, k: c.find_one_and_delete({"_id": f"{k}old"}),
}
INSERTS = [verb for verb in VERBS if verb.startswith("insert") or verb == "bulk_write, inserts"]
DRIVERS = ["motor", "pymongo"]


def before(k: str) -> list[dict[str, Any]]:
    return [{"_id": f"{k}{name}", "of": k, "n": 1} for name in ("old", "out")]


@pytest.fixture(scope="module")
def failing() -> Iterator[Mongod]:
    """A server that takes orders on how to fail."""
    with services.start(lambda: Mongod(extra=("--setParameter", "enableTestCommands=1"))) as server:
        yield server


@contextmanager
def failpoint(url: str, namespace: str, data: dict[str, Any], mode: Any = "alwaysOn") -> Iterator[None]:
    point = {"configureFailPoint": "failCommand"}
    data = {"failCommands": WRITES, "namespace": namespace, **data}
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        client.admin.command({**point, "mode": mode, "data": data})
        try:
            yield
        finally:
            client.admin.command({**point, "mode": "off"})


async def said(call: Awaitable[Any]) -> tuple[str, Any]:
    """What the caller hears: the error's class, and for many writes what each of them came to."""
    try:
        await call
    except BulkWriteError as error:
        details = error.details or {}
        return "BulkWriteError", (
            details["nInserted"],
            [(each["index"], each["code"]) for each in details["writeErrors"]],
            sorted({each["code"] for each in details["writeConcernErrors"]}),
        )
    except PyMongoError as error:
        return type(error).__name__, getattr(error, "code", None)
    return "acknowledged", None


async def all_said(verbs: Sequence[str], things: Any, fails: AbstractContextManager[None]) -> dict[str, Any]:
    """What each verb came to under the fault, on documents of its own."""
    await things.insert_many([each for verb in verbs for each in before(verb)])
    with fails:
        heard = await asyncio.gather(*(said(VERBS[verb](things, verb)) for verb in verbs))
        return dict(zip(verbs, heard, strict=True))


@pytest.fixture
def site(failing: Mongod, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    journal = str(tmp_path / "shadow.db")
    return Site(failing.url, fresh_name, dynamodb_local_url, f"{fresh_name}-", journal, limits={"operation": 5.0})


HALF = {"BulkWriteError", "WriteConcernError", "NetworkTimeout", "ExecutionTimeout"}
"""The last two: after some codes the driver sends the write once more, until its time is over."""


@pytest.mark.takes_turns
@pytest.mark.parametrize(("driver", "code"), [("motor", 64), ("motor", 91), ("pymongo", 64), ("pymongo", 11600)])
async def test_a_write_concern_error_is_no_refusal(site: Site, driver: str, code: int) -> None:
    """For each verb: what the primary has done, the secondary gets."""
    namespace, data = f"{site.database}.{COLLECTION}", {"writeConcernError": {"code": code, "errmsg": "x"}}
    async with site.but(driver=driver).shadow() as shadow:
        await shadow.prepare()
        heard = await all_said(list(VERBS), shadow[COLLECTION], failpoint(site.mongo_url, namespace, data))
        assert {kind for kind, _ in heard.values()} <= HALF, heard
        await site.level(shadow)


@pytest.mark.takes_turns
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_write_concern_error_that_the_driver_is_to_send_once_more(site: Site, driver: str) -> None:
    """Servers that shut down label it so."""
    namespace = f"{site.database}.{COLLECTION}"
    data = {"writeConcernError": {"code": 11600, "errmsg": "x"}, "errorLabels": ["RetryableWriteError"]}
    async with site.but(driver=driver).shadow() as shadow:
        await shadow.prepare()
        heard = await all_said(list(VERBS), shadow[COLLECTION], failpoint(site.mongo_url, namespace, data))
        assert {kind for kind, _ in heard.values()} <= HALF, heard
        await site.level(shadow)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_many_inserts_with_a_write_concern_error_are_said_as_the_driver_says_them(
    site: Site, driver: str
) -> None:
    """The counts, the refusals by their place, and the write concern errors, side by side."""
    data = {"writeConcernError": {"code": 64, "errmsg": "x"}}
    make: Any = AsyncIOMotorClient if driver == "motor" else AsyncMongoClient
    client = make(site.mongo_url)
    fails = failpoint(site.mongo_url, f"{site.database}.bare", data)
    expected = await all_said(INSERTS, client[site.database]["bare"], fails)
    if (ending := client.close()) is not None:
        await ending
    async with site.but(driver=driver).shadow() as shadow:
        await shadow.prepare()
        fails = failpoint(site.mongo_url, f"{site.database}.{COLLECTION}", data)
        assert await all_said(INSERTS, shadow[COLLECTION], fails) == expected
        await site.level(shadow)


@pytest.mark.parametrize("code", [13, 121, 91, 11601, 424_242])
async def test_a_code_of_a_command_is_refused_or_leaves_the_intent(site: Site, code: int) -> None:
    """A command that fails as a whole, with codes of the table and others: the stores end level."""
    namespace = f"{site.database}.{COLLECTION}"
    async with site.shadow() as shadow:
        await shadow.prepare()
        fails = failpoint(site.mongo_url, namespace, {"errorCode": code})
        heard = await all_said(list(VERBS), shadow[COLLECTION], fails)
        assert "acknowledged" not in {kind for kind, _ in heard.values()}, heard
        await site.level(shadow)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_connection_that_is_closed_under_the_write(site: Site, driver: str) -> None:
    """Every attempt is cut off; the caller hears so, and the stores end level."""
    namespace = f"{site.database}.{COLLECTION}"
    async with site.but(driver=driver).shadow() as shadow:
        await shadow.prepare()
        fails = failpoint(site.mongo_url, namespace, {"closeConnection": True})
        heard = await all_said(list(VERBS), shadow[COLLECTION], fails)
        unanswered = {"AutoReconnect", "NetworkTimeout", "ServerSelectionTimeoutError", "ExecutionTimeout"}
        assert {kind for kind, _ in heard.values()} <= unanswered, heard
        await site.level(shadow)


@pytest.mark.takes_turns
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_shuts_down_in_the_middle(
    new_mongod: Callable[..., Mongod], dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    """Batches under way while mongod ends in order; whatever each heard, what is on the primary is on both."""
    server = new_mongod()
    site = Site(
        server.url,
        fresh_name,
        dynamodb_local_url,
        f"{fresh_name}-",
        str(tmp_path / "shadow.db"),
        driver=driver,
        limits={"operation": 2.0},
    )
    async with site.shadow() as shadow:
        await shadow.prepare()
        things, heard = shadow[COLLECTION], list[str]()

        async def insert(worker: int) -> None:
            for turn in range(10_000):
                batch = [{"_id": f"{worker}-{turn}-{n}"} for n in range(20)]
                kind, _ = await said(things.insert_many(batch))
                heard.append(kind)
                if kind != "acknowledged":
                    return

        workers = [asyncio.create_task(insert(worker)) for worker in range(8)]
        await until(lambda: len(heard) >= 20)
        os.kill(server.pid or 0, signal.SIGTERM)
        await asyncio.gather(*workers)
        assert len([kind for kind in heard if kind != "acknowledged"]) == 8
        await asyncio.to_thread(server.restart)
        await site.level(shadow)
