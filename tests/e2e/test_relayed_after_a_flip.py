"""Before a flip a gate says whether the new primary would tell its changes, on real servers: a table without a stream,
and a MongoDB that is no replica set, which no relay of today's primary notices."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from shadow import Shadow
from shadow.fleet.health_gates import Gate, gates_of
from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool
from tests.support.topologies import Standalone, admit, drop, new_user, root_client, root_url


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    journal = str(tmp_path / "shadow.db")
    return Site(mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", journal, patience=20.0)


@contextlib.asynccontextmanager
async def relaying(site: Site) -> AsyncIterator[Shadow]:
    settings = site.settings()
    observe = settings.observe.model_copy(update={"follow_writers": True})
    shadow = Shadow(settings.model_copy(update={"observe": observe}))
    try:
        yield shadow
    finally:
        await shadow.close()


async def gate_of(shadow: Shadow, name: str) -> Gate:
    (found,) = [each for each in gates_of([await shadow._engine.figures()]) if each.name == name]
    return found


async def flip_of(tool: Tool, to: str) -> dict[str, str]:
    """The gates that a flip finds closed, and what each says."""
    said: dict[str, Any] = (await tool("flip", COLLECTION, "--to", to, "--dry-run", "--json")).json
    return {each["name"]: each["look_at"] for each in said["closed"]}


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await look():  # noqa: ASYNC110 - nobody says when it is so
            await asyncio.sleep(0.1)


async def until_the_gate(shadow: Shadow, name: str, *, opens: bool) -> Gate:
    found: list[Gate] = []

    async def looked() -> bool:
        found.append(await gate_of(shadow, name))
        return found[-1].ok is opens and "not asked yet" not in found[-1].said

    await eventually(looked)
    return found[-1]


async def test_a_table_without_a_stream_closes_the_gate_of_a_flip_to_dynamodb(site: Site, tmp_path: Path) -> None:
    async with site.but(options={"table": {"stream": False}}).shadow() as shadow:
        await shadow.prepare()
    tool = Tool(site, tmp_path, observe={"follow_writers": True})
    async with relaying(site.but(options={"table": {"stream": False}})) as shadow:
        await shadow.prepare()
        closed = await until_the_gate(shadow, "writers after", opens=False)
        table = f"the table {site.prefix}{COLLECTION} has no stream: `shadow tables create` switches it on"
        assert table in closed.said
        await until_the_gate(shadow, "writers", opens=True)
        await eventually(lambda: flip_is_told(tool, table))
        assert (await tool("tables", "create")).code == 0
        await until_the_gate(shadow, "writers after", opens=True)
        await eventually(lambda: flip_is_told(tool, ""))


async def flip_is_told(tool: Tool, text: str) -> bool:
    """Whether a flip to DynamoDB is refused for this; "": it is not, for the stream."""
    said = (await flip_of(tool, "dynamo")).get("writers after", "")
    return text in said if text else not said


async def test_a_mongodb_that_is_no_replica_set_closes_the_gate_of_a_flip_to_it(site: Site) -> None:
    with Standalone() as server:
        async with relaying(site.but(mongo_url=server.url, driver="pymongo", primary="dynamo")) as shadow:
            await shadow.prepare()
            closed = await until_the_gate(shadow, "writers after", opens=False)
            assert "no replica set" in closed.said
            assert "mongod --replSet" in closed.look_at
            assert COLLECTION in closed.look_at
            await until_the_gate(shadow, "writers", opens=True)


WITHOUT_STREAMS = (
    "collStats", "createCollection", "createIndex", "dbStats", "dropIndex", "find", "insert", "listCollections",
    "listIndexes", "remove", "update",
)  # fmt: skip


async def test_a_user_of_mongodb_without_the_right_closes_the_gate_until_it_is_granted(
    site: Site, least_role_url: str
) -> None:
    url = new_user(root_url(least_role_url))
    database, user = site.database, url.partition("://")[2].partition(":")[0]
    rights = {"resource": {"db": database, "collection": ""}, "actions": [*WITHOUT_STREAMS]}
    root_client(url)[database].command("createRole", "without_streams", privileges=[rights], roles=[])
    given = [{"role": "without_streams", "db": database}]
    root_client(url).admin.command("grantRolesToUser", user, roles=given)
    try:
        async with relaying(site.but(mongo_url=url, driver="pymongo", primary="dynamo")) as shadow:
            await shadow.prepare()
            closed = await until_the_gate(shadow, "writers after", opens=False)
            assert "OperationFailure 13: the user lacks `changeStream` or `find`" in closed.said
            assert "shadow config check --connect" in closed.look_at
            await until_the_gate(shadow, "writers", opens=True)
            admit(url, database)
            await until_the_gate(shadow, "writers after", opens=True)
    finally:
        root_client(url)[database].command("dropRole", "without_streams")
        drop(url, database)
