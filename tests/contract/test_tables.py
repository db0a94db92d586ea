"""What is said of tables that differ from the configuration, and what other tools are given, by a real DynamoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shadow.embedded.audit import dynamo_client
from shadow.journal.server.clock import ServerClock
from shadow.journal.server.dynamo_table import Access, JournalTable
from shadow.model.schema import CollectionSpec, IndexSpec, UniqueSpec
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.dynamo.tables.templates import cloudformation

INDEXES = (IndexSpec("email-index", "email"), IndexSpec("team-index", "team", "joined"))
USERS = CollectionSpec("users", INDEXES, (UniqueSpec("email-unique", ("email",)),))


@pytest.fixture
async def store(dynamodb_local_url: str, fresh_name: str) -> AsyncIterator[DynamoStore]:
    settings = DynamoSettings(
        endpoint_url=dynamodb_local_url, table_prefix=f"{fresh_name}-", access_key_id="local", secret_access_key="local"
    )
    made = DynamoStore(settings, {"users": USERS})
    yield made
    await made.close()


def name_of(store: DynamoStore) -> str:
    (wanted,) = store.tables()
    return wanted.name


@pytest.mark.timeout(300)
@pytest.mark.parametrize("url", ["dynamodb_local_url", "ministack_url"])
async def test_workers_that_start_together_make_the_tables_together(
    url: str, fresh_name: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(url)
    # An index is added to a table that is there on ministack alone: a DynamoDB Local with many tables takes minutes.
    bare = CollectionSpec("users", INDEXES[:1]) if url == "ministack_url" else USERS
    for number, first in enumerate([bare, USERS, USERS]):
        settings = DynamoSettings(
            endpoint_url=address,
            table_prefix=f"{fresh_name}{number}-",
            access_key_id="local",
            secret_access_key="local",
        )
        stores = [DynamoStore(settings, {"users": USERS}) for _ in range(4)]
        await asyncio.gather(*(each.prepare([first]) for each in stores))
        await asyncio.gather(*(each.prepare([USERS]) for each in stores))
        assert await stores[0].drift() == {name_of(stores[0]): []}
        await asyncio.gather(*(each.close() for each in stores))


async def test_a_table_that_is_missing_and_one_as_it_ought_to_be(store: DynamoStore) -> None:
    assert await store.drift() == {name_of(store): ["is missing"]}
    await store.prepare([USERS])
    assert await store.drift() == {name_of(store): []}


async def test_each_way_to_differ_is_said(store: DynamoStore, dynamodb_local_url: str) -> None:
    dynamo_client(dynamodb_local_url).create_table(
        TableName=name_of(store),
        KeySchema=[{"AttributeName": "_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": "S"} for each in ("_id", "team", "old")]
        + [{"AttributeName": "email", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
        GlobalSecondaryIndexes=[
            index("team-index", "team", "ALL"),
            index("email-index", "email", "KEYS_ONLY"),
            index("old-index", "old", "ALL"),
        ],
    )
    (said,) = (await store.drift()).values()
    assert sorted(said) == [
        "does not expire tombstones by _shadow_ttl",
        "has email as type N and not as S",
        "has the index email-index without all attributes",
        "has the index old-index, which the configuration does not name",
        "has the index team-index over other attributes",
    ]


def index(name: str, field: str, projection: str) -> dict[str, Any]:
    return {
        "IndexName": name,
        "KeySchema": [{"AttributeName": field, "KeyType": "HASH"}],
        "Projection": {"ProjectionType": projection},
    }


async def test_the_exported_table_is_the_one_that_is_wanted(store: DynamoStore, dynamodb_local_url: str) -> None:
    """The properties of the template are what CreateTable takes; made from them, the table does not differ."""
    (resource,) = cloudformation(store.tables())["Resources"].values()
    properties = dict(resource["Properties"])
    ttl = properties.pop("TimeToLiveSpecification")
    client = dynamo_client(dynamodb_local_url)
    client.create_table(**properties)
    client.update_time_to_live(TableName=name_of(store), TimeToLiveSpecification=ttl)
    assert await store.drift() == {name_of(store): []}
    assert resource["DeletionPolicy"] == "Retain", "deleting the stack must not delete the data"


async def test_keys_of_ones_own_work_though_a_profile_is_named_that_is_not_there(
    dynamodb_local_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "none-of-this-name")
    gateway = Gateway(DynamoSettings(endpoint_url=dynamodb_local_url, access_key_id="A", secret_access_key="S"), None)
    try:
        assert "TableNames" in await gateway.call("list_tables", "")
    finally:
        await gateway.close()
    table = JournalTable(Access("us-east-1", dynamodb_local_url, "A", "S"), "nothing", ServerClock(), 5.0)
    assert "TableNames" in table._client.list_tables()
    table.release()
