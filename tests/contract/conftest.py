"""Every store in turn, each made once a module; every control store; and a collection twice, through the Shadow of a
module and bare."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from motor.motor_asyncio import AsyncIOMotorClient

from shadow import Shadow
from shadow.control.dynamo import DynamoRecords
from shadow.control.mongo import MongoRecords
from shadow.control.records import Records
from shadow.control.sqlite import SqliteRecords
from shadow.journal.server.dynamo_table import Access
from shadow.surface.collections.collection import Collection
from tests.support.backends import BACKENDS, Backend, open_backend
from tests.support.drawn import Draws
from tests.support.topologies import DEPLOYMENTS, admit

_CONTROL_STORES: Final = ("sqlite", "mongo", "mongo-replicas", "mongo-auth", "dynamo-local", "dynamo-ministack")


@pytest.fixture(scope="module", params=BACKENDS)
def unopened_backend(request: pytest.FixtureRequest, draws: Draws) -> Backend:
    return open_backend(request.param, request.getfixturevalue, draws.of_node(request.node))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(unopened_backend: Backend) -> AsyncIterator[Backend]:
    """One of the stores, with its collection `shared` ready."""
    await unopened_backend.open()
    yield unopened_backend
    await unopened_backend.close()


@pytest.fixture(params=_CONTROL_STORES)
def open_records(
    request: pytest.FixtureRequest, draws: Draws, tmp_path: Path, fresh_name: str
) -> Iterator[Callable[[], Records]]:
    """Opens the same store again, as another process would."""
    opened: list[Records] = []

    def make() -> Records:
        if request.param == "sqlite":
            return SqliteRecords(tmp_path / "folder" / "control.db")
        if request.param.startswith("mongo"):
            deployment = request.param.partition("-")[2] or "one"
            url = draws.of_node(request.node)(deployment).url(request.getfixturevalue(DEPLOYMENTS[deployment]))
            admit(url, fresh_name)
            return MongoRecords(url, fresh_name, "control")
        local = request.param == "dynamo-local"
        url = request.getfixturevalue("dynamodb_local_url" if local else "ministack_url")
        return DynamoRecords(Access("us-east-1", url, "local", "local"), f"{fresh_name}-control")

    def open_() -> Records:
        opened.append(make())
        opened[-1].prepare()
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


@pytest_asyncio.fixture(loop_scope="module")
async def things(shadow: Shadow) -> Collection:
    """Of the module's `shadow`. Empty; what was in it before has left tombstones."""
    await shadow["things"].delete_many({})
    return shadow["things"]


@pytest_asyncio.fixture(loop_scope="module")
async def bare(mongo_url: str, mongo_database: str) -> AsyncIterator[Any]:
    """Motor's, in an empty database."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongo_url)
    yield client[mongo_database]["things"]
    client.close()
