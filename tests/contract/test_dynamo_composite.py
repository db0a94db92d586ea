"""An index over several fields: what it finds, what it costs, and that it never hides a document."""

from __future__ import annotations

import bson
import pytest

from shadow.config import parse
from shadow.model.operation import Insert, Query, Update
from shadow.model.schema import CollectionSpec
from shadow.model.version import fresh_id
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.query.plan import QueryPlan, ScanPlan, plan
from shadow.stores.dynamo.store import DynamoContext, DynamoStore

TEXT = "collections: {jobs: {indexes: [{name: owner-status-index, hash: [owner, status], range: at}]}}"


def spec() -> CollectionSpec:
    return parse(TEXT, {}).specs()["jobs"]


@pytest.fixture
async def store(dynamodb_local_url: str):
    settings = DynamoSettings(
        endpoint_url=dynamodb_local_url, table_prefix=f"{fresh_id()}-", access_key_id="a", secret_access_key="b"
    )
    used: list[tuple[str, float]] = []
    context = DynamoContext(on_capacity=lambda table, index, verb, units: used.append((index, units)))
    store = DynamoStore(settings, {"jobs": spec()}, context=context)
    store.used = used  # type: ignore[attr-defined]
    await store.prepare([spec()])
    yield store
    await store.drop("jobs")
    await store.close()


async def insert(store: DynamoStore, *documents: dict) -> None:
    for each in documents:
        await store.apply("jobs", Insert(each["_id"], each, fresh_id()), fresh_id())


async def found(store: DynamoStore, filter: dict) -> list:
    return [hit.document["_id"] async for page in store.find("jobs", Query(filter, sort=(("_id", 1),))) for hit in page]


def test_a_filter_that_fixes_all_fields_uses_it_and_another_does_not() -> None:
    assert isinstance(plan({"owner": "a", "status": "new"}, spec()), QueryPlan)
    assert isinstance(plan({"owner": "a", "status": {"$in": ["new", "old"]}, "at": {"$gt": "1"}}, spec()), QueryPlan)
    assert isinstance(plan({"owner": "a"}, spec()), ScanPlan)
    assert isinstance(plan({"owner": "a", "status": None}, spec()), ScanPlan)


async def test_it_finds_what_a_scan_would_find(store: DynamoStore) -> None:
    await insert(
        store,
        {"_id": 1, "owner": "a", "status": "new", "at": "1"},
        {"_id": 2, "owner": "a", "status": "old"},
        {"_id": 3, "owner": ["a", "b"], "status": "new"},
        {"_id": 4, "owner": "a"},
        {"_id": 5, "owner": "a", "status": None},
        {"_id": 6, "owner": "an", "status": "ew"},
        {"_id": 7, "owner": 1, "status": 2.0},
        {"_id": 8, "owner": "a", "status": "new", "text": "x" * 500_000},
    )
    assert await found(store, {"owner": "a", "status": "new"}) == [1, 3, 8]
    assert await found(store, {"owner": "b", "status": "new"}) == [3]
    assert await found(store, {"owner": "a", "status": {"$in": ["new", "old"]}}) == [1, 2, 3, 8]
    assert await found(store, {"owner": "a", "status": None}) == [4, 5]
    assert await found(store, {"owner": 1.0, "status": 2}) == [7]


async def test_an_update_moves_a_document_within_it_and_its_bytes_come_back(store: DynamoStore) -> None:
    document = {"_id": 1, "status": "new", "owner": "a", "zz": 1, "b": 2.5}
    await insert(store, document)
    change = Update(1, {"_id": 1}, {"$set": {"status": "old"}}, fresh_id())
    await store.apply("jobs", change, fresh_id())
    assert await found(store, {"owner": "a", "status": "new"}) == []
    assert await found(store, {"owner": "a", "status": "old"}) == [1]
    image = await store.image("jobs", 1)
    assert image.document is not None
    assert bson.encode(image.document) == bson.encode({**document, "status": "old"})


async def test_it_costs_in_proportion_to_what_it_returns(store: DynamoStore) -> None:
    await insert(store, *({"_id": n, "owner": "a", "status": str(n), "text": "x" * 4000} for n in range(40)))
    store.used.clear()  # type: ignore[attr-defined]
    assert await found(store, {"owner": "a", "status": "7"}) == [7]
    assert sum(units for index, units in store.used if index == "owner-status-index") <= 2  # type: ignore[attr-defined]
    assert sum(units for index, units in store.used if index != "owner-status-index") <= 2  # type: ignore[attr-defined]


async def test_it_can_be_added_to_a_table_with_documents(roomy_dynamodb_local_url: str) -> None:
    settings = DynamoSettings(
        endpoint_url=roomy_dynamodb_local_url, table_prefix=f"{fresh_id()}-", access_key_id="a", secret_access_key="b"
    )
    plain = CollectionSpec("jobs")
    store = DynamoStore(settings, {"jobs": plain})
    await store.prepare([plain])
    await insert(store, {"_id": 1, "owner": "a", "status": "new"}, {"_id": 2, "owner": "a", "status": "old"})
    await store.prepare([spec()])
    assert await found(store, {"owner": "a", "status": "new"}) == [1]
    await store.drop("jobs")
    await store.close()
