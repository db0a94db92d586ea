"""Many inserts on DynamoDB: in transactions if ordered, in PartiQL batches if not, and what each does at a refusal."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pymongo import errors as pm

from shadow.embedded.servers import FaultProxy
from shadow.model.operation import Applied, Insert, Query
from shadow.model.outcome import Outcome, classify
from shadow.model.version import ABSENT, Document, Image, Tombstone, fresh_id
from shadow.stores.dynamo.client.gateway import Cancelled
from shadow.stores.dynamo.store import DynamoStore
from tests.contract.test_dynamo_specifics import (
    Capacity,
    capacity,
    counted,
    insert,
    opened,
    store,
    through,
    url,
    verbs_of,
)

__all__ = ["capacity", "counted", "store", "through", "url"]

Results = list[Applied | Exception | None]


async def many(
    store: DynamoStore, documents: list[Document], *, ordered: bool = True, collection: str = "docs"
) -> Results:
    inserts = [Insert(each["_id"], each, fresh_id()) for each in documents]
    return await store.insert_many(collection, inserts, [fresh_id() for _ in inserts], ordered=ordered)


def kinds(results: Results) -> list[str]:
    return ["-" if each is None else type(each).__name__ for each in results]


async def ids(store: DynamoStore, collection: str = "docs") -> set[Any]:
    return {hit.key async for page in store.find(collection, Query()) for hit in page}


async def test_ordered_inserts_travel_a_hundred_a_transaction(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = verbs_of(store, monkeypatch)
    results = await many(store, [{"_id": n, "user": "u", "f": n / 7} for n in range(250)])
    assert set(kinds(results)) == {"Applied"}
    assert verbs == ["transact_write_items"] * 3
    for n in (0, 99, 100, 249):
        result = results[n]
        assert isinstance(result, Applied)
        assert result.pre == Image(ABSENT)
        assert await store.image("docs", n) == result.post


@pytest.mark.parametrize("at", [0, 1, 57, 99, 100, 130])
async def test_nothing_behind_a_duplicate_is_written_and_all_before_it_is(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    await insert(store, "docs", {"_id": at, "old": 1})
    verbs = verbs_of(store, monkeypatch)
    results = await many(store, [{"_id": n} for n in range(131)])
    assert kinds(results) == ["Applied"] * at + ["DuplicateKeyError"] + ["-"] * (130 - at)
    error = results[at]
    assert isinstance(error, pm.DuplicateKeyError)
    assert error.details is not None
    assert error.details["keyValue"] == {"_id": at}
    assert len(verbs) <= 6, f"one request a document: {verbs}"
    monkeypatch.undo()
    assert await ids(store) == set(range(at + 1))


async def test_a_duplicate_of_a_document_of_the_same_list_ends_it_too(store: DynamoStore) -> None:
    results = await many(store, [{"_id": 1}, {"_id": 2}, {"_id": 1, "again": 1}, {"_id": 3}])
    assert kinds(results) == ["Applied", "Applied", "DuplicateKeyError", "-"]
    assert (await store.image("docs", 1)).document == {"_id": 1}
    assert await ids(store) == {1, 2}


async def test_what_cannot_be_stored_ends_it_where_it_stands(store: DynamoStore) -> None:
    results = await many(store, [{"_id": 1}, {"_id": 2, "n": 2**70}, {"_id": 3}])
    assert kinds(results) == ["Applied", "OverflowError", "-"]
    assert await ids(store) == {1}


async def test_large_documents_and_tombstones_among_ordered_inserts_are_taken_in_order(store: DynamoStore) -> None:
    noise = random.Random(5).randbytes(600_000)
    assert await store.put("docs", 2, Image(Tombstone("t")), ABSENT)
    results = await many(store, [{"_id": 1}, {"_id": 2}, {"_id": 3, "b": noise}, {"_id": 4}, {"_id": 5}])
    assert kinds(results) == ["Applied"] * 5
    assert (await store.image("docs", 3)).document == {"_id": 3, "b": noise}
    assert await ids(store) == {1, 2, 3, 4, 5}


async def test_more_bytes_than_one_transaction_holds_go_in_several(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = verbs_of(store, monkeypatch)
    results = await many(store, [{"_id": n, "t": "x" * 200_000} for n in range(30)])
    assert set(kinds(results)) == {"Applied"}
    assert verbs == ["transact_write_items"] * 2


@pytest.mark.parametrize("ordered", [True, False])
async def test_unique_values_hold_among_many_inserts(store: DynamoStore, ordered: bool) -> None:
    """The first of two that want one value has it, in the list and against what stands."""
    await insert(store, "users", {"_id": 0, "email": "taken"})
    rows: list[Document] = [{"_id": n, "email": f"e{n}"} for n in range(1, 60)]
    results = await many(store, [*rows, {"_id": 60, "email": "e7"}, {"_id": 61}], ordered=ordered, collection="users")
    assert kinds(results) == ["Applied"] * 59 + ["DuplicateKeyError", "-" if ordered else "Applied"]
    results = await many(store, [{"_id": 70}, {"_id": 71, "email": "taken"}, {"_id": 72}], collection="users")
    assert kinds(results) == ["Applied", "DuplicateKeyError", "-"]
    error = results[1]
    assert isinstance(error, pm.DuplicateKeyError)
    assert error.details is not None
    assert error.details["keyPattern"] == {"email": 1}
    again = await many(store, [{"_id": 80, "email": "free"}, {"_id": 81, "email": "e60"}], collection="users")
    assert kinds(again) == ["Applied", "Applied"]


async def test_an_answer_lost_on_the_way_costs_nothing_for_the_transaction_is_the_same(
    store: DynamoStore, through: FaultProxy, fresh_name: str
) -> None:
    async with opened(through.url, fresh_name) as shaky:
        await shaky.ping()
        through.set("cut", only=b".TransactWriteItems", times=1)
        assert kinds(await many(shaky, [{"_id": n} for n in range(10)])) == ["Applied"] * 10
        assert through.faults == 1
    assert await ids(store) == set(range(10))


async def test_without_any_answer_every_document_of_the_transaction_is_unknown_and_none_behind_it_is_tried(
    store: DynamoStore, through: FaultProxy, fresh_name: str
) -> None:
    """None may be called unattempted: their intents would be closed, and the server may have them all."""
    async with opened(through.url, fresh_name, max_attempts=1) as shaky:
        await shaky.ping()
        through.set("cut", only=b".TransactWriteItems")
        results = await many(shaky, [{"_id": n} for n in range(130)])
    first = results[:100]
    assert all(isinstance(each, Exception) and classify(each) is Outcome.UNKNOWN for each in first), kinds(results)
    assert results[100:] == [None] * 30
    assert await ids(store) in (set(), set(range(100)))


async def test_a_conflict_with_other_writers_is_waited_out(store: DynamoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that was cancelled for a conflict has written nothing, and is made again."""
    cancelled: list[str] = []
    call = store._gateway.call

    async def conflicting(verb: str, table: str, **parameters: Any) -> dict[str, Any]:
        if verb == "transact_write_items" and len(cancelled) < 3:
            cancelled.append(parameters["ClientRequestToken"])
            raise Cancelled([("TransactionConflict", None)], retried=False)
        return await call(verb, table, **parameters)

    monkeypatch.setattr(store._gateway, "call", conflicting)
    assert kinds(await many(store, [{"_id": n} for n in range(10)])) == ["Applied"] * 10
    assert len(set(cancelled)) == 3, "a token names one transaction, and that one is over"


async def test_the_setting_goes_without_transactions_and_without_their_price(
    counted: DynamoStore, capacity: Capacity, dynamodb_local_url: str, fresh_name: str
) -> None:
    documents: list[Document] = [{"_id": n, "v": "x" * 500} for n in range(40)]
    async with opened(dynamodb_local_url, fresh_name, capacity, transactional_inserts=False) as plain:
        assert kinds(await many(plain, [*documents, {"_id": 3}, {"_id": 50}])) == [
            *["Applied"] * 40,
            "DuplicateKeyError",
            "-",
        ]
    assert capacity.taken() == {("", "put_item"): 40.0}
    await many(counted, [{**each, "_id": f"t{each['_id']}"} for each in documents])
    assert set(capacity.taken()) == {("", "transact_write_items")}


async def test_what_a_write_costs_in_an_index_is_counted_under_the_index(
    counted: DynamoStore, capacity: Capacity
) -> None:
    await insert(counted, "docs", {"_id": 1, "user": "u", "v": "x" * 2_500})
    assert capacity.taken() == {("", "put_item"): 3.0, ("user-index", "put_item"): 3.0}
    await many(counted, [{"_id": n, "user": "u"} for n in (2, 3)])
    assert set(capacity.taken()) == {("", "transact_write_items"), ("user-index", "transact_write_items")}


async def test_of_two_with_one_key_the_first_stays_though_it_is_too_large_for_a_batch(store: DynamoStore) -> None:
    """Unordered: it goes alone, after the batch, and must not find its place taken by the one behind it."""
    large = {"_id": 1, "b": random.Random(6).randbytes(600_000)}
    results = await many(store, [large, {"_id": 2}, {"_id": 1, "small": 1}, {"_id": 3}], ordered=False)
    assert kinds(results) == ["Applied", "Applied", "DuplicateKeyError", "Applied"]
    assert (await store.image("docs", 1)).document == large


async def test_of_two_with_one_key_the_second_is_made_if_the_first_is_refused(store: DynamoStore) -> None:
    results = await many(store, [{"_id": 1, "n": 2**70}, {"_id": 2}, {"_id": 1, "small": 1}], ordered=False)
    assert kinds(results) == ["OverflowError", "Applied", "Applied"]
