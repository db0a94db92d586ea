"""Every write on MongoDB as primary ends on the server within the time that its operation has, inserts too."""

from __future__ import annotations

from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, monitoring

from shadow.model.operation import Delete, Insert, Replace, Update
from shadow.model.version import fresh_id
from shadow.stores.mongo.store import MongoContext, MongoStore

WRITES = {"insert", "update", "findAndModify", "delete"}


class Limits(monitoring.CommandListener):
    """The `maxTimeMS` of each write that was sent, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in WRITES:
            self.seen.append((event.command_name, event.command.get("maxTimeMS")))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.mark.parametrize("make", [AsyncIOMotorClient, AsyncMongoClient], ids=["motor", "pymongo"])
async def test_each_write_carries_what_is_left_of_its_time(make: Any, mongo_url: str, mongo_database: str) -> None:
    limits = Limits()
    store = MongoStore(
        make(mongo_url, event_listeners=[limits]),
        mongo_database,
        {},
        owned=True,
        context=MongoContext(operation_limit=20.0),
    )
    try:
        await store.apply("things", Insert(1, {"_id": 1}, fresh_id()), fresh_id())
        inserts = [Insert(n, {"_id": n}, fresh_id()) for n in (2, 3)]
        await store.insert_many("things", inserts, [fresh_id(), fresh_id()], ordered=True)
        await store.apply("things", Update(1, {"_id": 1}, {"$inc": {"n": 1}}, fresh_id(), upsert=False), fresh_id())
        await store.apply("things", Update(4, {"_id": 4}, {"$inc": {"n": 1}}, fresh_id(), upsert=True), fresh_id())
        await store.apply("things", Replace(1, {"_id": 1}, {"_id": 1}, fresh_id(), upsert=False), fresh_id())
        await store.apply("things", Delete(1, {"_id": 1}, fresh_id()), fresh_id())
    finally:
        await store.close()
    assert [name for name, _ in limits.seen].count("insert") == 3
    assert len(limits.seen) == 7
    for name, limit in limits.seen:
        assert 0 < (limit or 0) <= 10_000, name
