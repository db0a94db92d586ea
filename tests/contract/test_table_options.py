"""What a table is beside its keys: made so, changed in place without touching an item, held against the settings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from shadow.control.dynamo import control_description
from shadow.embedded.audit import dynamo_client
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Insert
from shadow.model.schema import Billing, CollectionSpec, IndexSpec, TableSpec
from shadow.model.version import fresh_id
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoContext, DynamoStore
from shadow.stores.dynamo.tables.spec import plain_table
from shadow.stores.dynamo.tables.templates import cloudformation

EMAIL = IndexSpec("email-index", "email")
BARE = CollectionSpec("users", (EMAIL,))
ON_DEMAND = TableSpec(Billing.ON_DEMAND, 0, 0, False, False, (("team", "b"),))
FULL = TableSpec(Billing.PROVISIONED, 7, 8, True, True, (("env", "test"), ("team", "a")), stream=True)


@pytest.fixture(params=["dynamodb_local_url", "ministack_url"])
def address(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@contextlib.asynccontextmanager
async def opened(address: str, name: str, table: TableSpec = TableSpec()) -> AsyncIterator[DynamoStore]:  # noqa: B008
    settings = DynamoSettings(
        endpoint_url=address, table_prefix=f"{name}-", access_key_id="local", secret_access_key="local"
    )
    lacking: list[str] = []
    store = DynamoStore(
        settings,
        {"users": replace(BARE, table=table)},
        context=DynamoContext(on_lacking=lambda _, text: lacking.append(text)),
    )
    store.lacking = lacking  # type: ignore[attr-defined]
    try:
        yield store
    finally:
        await store.close()


async def prepare(store: DynamoStore) -> None:
    await store.prepare([store._table("users").spec])


async def drifts(store: DynamoStore) -> tuple[list[str], list[str]]:
    ((said, lacking),) = (await store.manager.drift(store.tables())).values()
    return said, lacking


def described(address: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = dynamo_client(address).describe_table(TableName=f"{name}-users")["Table"]
    return found


def capacities(found: dict[str, Any]) -> list[tuple[int, int]]:
    each = [found, *found["GlobalSecondaryIndexes"]]
    return [(u["ReadCapacityUnits"], u["WriteCapacityUnits"]) for u in (one["ProvisionedThroughput"] for one in each)]


@pytest.mark.timeout(240)
async def test_a_table_is_made_with_all_that_was_asked_for(address: str, fresh_name: str) -> None:
    """Capacity for the index too. What the server has not is said each time, and is neither an error nor a
    difference."""
    async with opened(address, fresh_name, FULL) as store:
        await prepare(store)
        found = described(address, fresh_name)
        assert capacities(found) == [(7, 8), (7, 8)]
        assert found["DeletionProtectionEnabled"] is True
        said, lacking = await drifts(store)
        assert said == []
        if ":table/" in found["TableArn"] and "ddblocal" in found["TableArn"]:
            assert lacking == [
                "point-in-time recovery: this server does not support it",
                "tags: this server does not support it",
            ]
        else:
            assert lacking == []
            tags = dynamo_client(address).list_tags_of_resource(ResourceArn=found["TableArn"])["Tags"]
            assert {each["Key"]: each["Value"] for each in tags} == {"env": "test", "team": "a"}
        assert store.lacking == lacking  # type: ignore[attr-defined]
    await unprotect(address, fresh_name)


async def unprotect(address: str, name: str) -> None:
    dynamo_client(address).update_table(TableName=f"{name}-users", DeletionProtectionEnabled=False)


@pytest.mark.timeout(240)
async def test_each_difference_is_said_and_changed_in_place_there_and_back(address: str, fresh_name: str) -> None:
    """The item stays, and so does a tag that nobody has named."""
    async with opened(address, fresh_name) as store:
        await prepare(store)
        await store.apply("users", Insert("k", {"_id": "k", "email": "e"}, fresh_id()), fresh_id())
        assert await drifts(store) == ([], []), "nothing was asked of it, so nothing is otherwise"
    arn = described(address, fresh_name)["TableArn"]
    local = "ddblocal" in arn
    if not local:
        dynamo_client(address).tag_resource(ResourceArn=arn, Tags=[{"Key": "owner", "Value": "x"}])

    async with opened(address, fresh_name, FULL) as store:
        said, _ = await drifts(store)
        beside = [] if local else ["lacks point-in-time recovery", "lacks the tag env", "lacks the tag team"]
        assert said == [
            "is billed on demand and not for provisioned capacity",
            "is not protected against deletion",
            "has no stream",
            *beside,
        ]
        await prepare(store)
        assert (await drifts(store))[0] == []
        assert capacities(described(address, fresh_name)) == [(7, 8), (7, 8)]

    more = replace(FULL, read=9)
    async with opened(address, fresh_name, more) as store:
        assert (await drifts(store))[0] == [
            "has 7 read units and not 9",
            "has the index email-index with 7 read units and not 9",
        ]
        await prepare(store)
        assert capacities(described(address, fresh_name)) == [(9, 8), (9, 8)]

    async with opened(address, fresh_name, ON_DEMAND) as store:
        said, _ = await drifts(store)
        beside = [] if local else ["has point-in-time recovery", "has the tag team with another value"]
        assert said == [
            "is billed for provisioned capacity and not on demand",
            "is protected against deletion",
            *beside,
        ]
        await prepare(store)
        assert (await drifts(store))[0] == []
        assert (await store.image("users", "k")).document == {"_id": "k", "email": "e"}
    if not local:
        tags = dynamo_client(address).list_tags_of_resource(ResourceArn=arn)["Tags"]
        assert {each["Key"] for each in tags} == {"env", "owner", "team"}


@pytest.mark.timeout(120)
async def test_the_exported_table_is_the_one_that_is_wanted(ministack_url: str, fresh_name: str) -> None:
    """The properties of the template, handed to the requests that take them, leave no difference."""
    async with opened(ministack_url, fresh_name, FULL) as store:
        (resource,) = cloudformation(store.tables())["Resources"].values()
        properties = dict(resource["Properties"])
        later = {name: properties.pop(name) for name in ("TimeToLiveSpecification", "PointInTimeRecoverySpecification")}
        client, table = dynamo_client(ministack_url), properties["TableName"]
        # CloudFormation has no word for it: a stream that is named is switched on.
        stream = {"StreamEnabled": True, **properties.pop("StreamSpecification")}
        client.create_table(**properties, StreamSpecification=stream)
        client.update_time_to_live(TableName=table, TimeToLiveSpecification=later["TimeToLiveSpecification"])
        client.update_continuous_backups(
            TableName=table, PointInTimeRecoverySpecification=later["PointInTimeRecoverySpecification"]
        )
        assert await drifts(store) == ([], [])


@pytest.mark.timeout(240)
async def test_what_is_not_asked_for_stays(address: str, fresh_name: str) -> None:
    """A table that somebody has protected and given capacity is neither said to differ nor changed."""
    async with opened(address, fresh_name, FULL) as store:
        await prepare(store)
    async with opened(address, fresh_name) as store:
        assert (await drifts(store)) == ([], [])
        await prepare(store)
    found = described(address, fresh_name)
    assert (capacities(found), found["DeletionProtectionEnabled"]) == ([(7, 8), (7, 8)], True)
    await unprotect(address, fresh_name)


@pytest.mark.timeout(240)
async def test_workers_that_start_together_change_a_table_together(address: str, fresh_name: str) -> None:
    """There and back, with no failure of any of them."""
    async with contextlib.AsyncExitStack() as stack:
        for table in (ON_DEMAND, FULL, replace(FULL, write=9), ON_DEMAND):
            stores = [await stack.enter_async_context(opened(address, fresh_name, table)) for _ in range(4)]
            await asyncio.gather(*(prepare(store) for store in stores))
            assert (await drifts(stores[0]))[0] == []


@pytest.mark.timeout(240)
async def test_an_index_is_added_to_a_table_with_capacity(ministack_url: str, fresh_name: str) -> None:
    """With the capacity that the table has, where none is named."""
    dynamo_client(ministack_url).create_table(
        TableName=f"{fresh_name}-users",
        KeySchema=[{"AttributeName": "_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "_id", "AttributeType": "S"}],
        BillingMode="PROVISIONED",
        ProvisionedThroughput={"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
    )
    async with opened(ministack_url, fresh_name) as store:
        await prepare(store)
        assert capacities(described(ministack_url, fresh_name)) == [(3, 4), (3, 4)]


async def test_a_stream_of_something_else_is_left_as_it_is_and_named(dynamodb_local_url: str, fresh_name: str) -> None:
    """Somebody may read it. And a stream that is there is not switched off where nobody asks for one."""
    client, table = dynamo_client(dynamodb_local_url), f"{fresh_name}-users"

    def view() -> str | None:
        found: str | None = (
            described(dynamodb_local_url, fresh_name).get("StreamSpecification", {}).get("StreamViewType")
        )
        return found

    wanted = TableSpec(stream=True)
    async with opened(dynamodb_local_url, fresh_name) as store:
        await prepare(store)
        assert view() is None
    client.update_table(TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})
    async with opened(dynamodb_local_url, fresh_name, wanted) as store:
        await prepare(store)
        assert view() == "KEYS_ONLY"
        assert await drifts(store) == (["has a stream of KEYS_ONLY and not of both images"], [])
        with pytest.raises(UnsupportedOperation, match="KEYS_ONLY") as raised:
            await store.check_stream(["users"])
        assert "shadow tables create" in raised.value.hint
        client.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})
        with pytest.raises(UnsupportedOperation, match="has no stream"):
            await store.check_stream(["users"])
        await prepare(store)
        assert (view(), await drifts(store)) == ("NEW_AND_OLD_IMAGES", ([], []))
        await store.check_stream(["users"])
    async with opened(dynamodb_local_url, fresh_name) as store:
        await prepare(store)
        assert view() == "NEW_AND_OLD_IMAGES"


async def test_a_missing_right_to_switch_a_stream_on_stops_nothing_else(
    dynamodb_local_url: str, fresh_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(dynamodb_local_url, fresh_name) as store:
        await prepare(store)
    async with opened(dynamodb_local_url, fresh_name, TableSpec(stream=True)) as store:
        sent = store.link.call

        async def denied(verb: str, table: str, **parameters: Any) -> Any:
            if verb == "update_table":
                raise OperationFailure("denied", 13)
            return await sent(verb, table, **parameters)

        monkeypatch.setattr(store.link, "call", denied)
        await prepare(store)
        assert store.lacking[0] == "a stream: the credentials may not switch it on"  # type: ignore[attr-defined]
        with pytest.raises(UnsupportedOperation, match="has no stream"):
            await store.check_stream(["users"])


@pytest.mark.timeout(120)
async def test_a_table_of_a_control_store_is_made_and_looked_at_like_the_others(address: str, fresh_name: str) -> None:
    wanted = plain_table(
        control_description(f"{fresh_name}-control"), TableSpec(deletion_protection=False, tags=(("team", "a"),))
    )
    async with opened(address, fresh_name) as store:
        assert (await store.manager.drift([wanted]))[wanted.name][0] == ["is missing"]
        assert await store.manager.prepare(wanted)
        assert not await store.manager.prepare(wanted)
        assert (await store.manager.drift([wanted]))[wanted.name][0] == []
    found = dynamo_client(address).describe_table(TableName=wanted.name)["Table"]
    keys = [(each["AttributeName"], each["KeyType"]) for each in found["KeySchema"]]
    assert keys == [("pk", "HASH"), ("sk", "RANGE")]


async def test_where_a_table_is_on_its_way_is_said(dynamodb_local_url: str, fresh_name: str) -> None:
    """A table or an index that is not there yet is awaited like one that is being made."""
    async with opened(dynamodb_local_url, fresh_name) as store:
        (state,) = (await store.manager.states(store.tables())).values()
        assert (state.status, state.indexes, state.is_ready) == ("MISSING", {"email-index": "MISSING"}, False)
        await prepare(store)
        (state,) = (await store.manager.states(store.tables())).values()
        assert (state.status, state.indexes, state.is_ready) == ("ACTIVE", {"email-index": "ACTIVE"}, True)
        store._tables["users"] = store._made(CollectionSpec("users", (EMAIL, IndexSpec("team-index", "team"))))
        (state,) = (await store.manager.states(store.tables())).values()
        assert (state.indexes["team-index"], state.is_ready) == ("MISSING", False)
