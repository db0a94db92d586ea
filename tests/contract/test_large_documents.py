"""Ten megabytes through DynamoDB: whole at every moment, wherever its writer dies."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
import pytest_asyncio

from shadow.model.operation import Change, Delete, Insert, Query, Replace, Update
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.version import ABSENT, Document, Image, fresh_id
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.dynamo.write.writes import SWEEP_MARK

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPEC: Final = CollectionSpec("docs", (IndexSpec("user-index", "user"),))
WRITES: Final = frozenset({"put_item", "delete_item", "update_item", "transact_write_items", "batch_execute_statement"})
KEY: Final = {"_id": "k"}
PARTS: Final = 2
"""How many parts the documents of the crash tests have; the steps of each change follow from it."""


class Killed(BaseException):
    """The process is gone: no `except Exception` on the way can clean up after it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(dynamodb_local_url: str) -> AsyncIterator[DynamoStore]:
    settings = DynamoSettings(
        endpoint_url=dynamodb_local_url, table_prefix=f"{fresh_id()}-", access_key_id="local", secret_access_key="local"
    )
    made = DynamoStore(settings, {"docs": SPEC})
    await made.prepare([SPEC])
    # The mark of a table with large documents is made once, before the first of them: no step of the changes below.
    await do(made, Insert("first", {"_id": "first", "data": noise(900_000, 0)}, "b"))
    await do(made, Delete("first", {}, "t"))
    yield made
    await made.drop("docs")
    await made.close()


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def auxiliary(store: DynamoStore) -> list[str]:
    name = store._table("docs").name
    request: dict[str, Any] = {"TableName": name, "ConsistentRead": True, "ProjectionExpression": "#i"}
    found: list[str] = []
    while True:
        answer = await store._gateway.call("scan", name, ExpressionAttributeNames={"#i": "_id"}, **request)
        texts = (item["_id"]["S"] for item in answer["Items"])
        found += [text for text in texts if text.startswith("~") and text != SWEEP_MARK]
        if not answer.get("LastEvaluatedKey"):
            return found
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


async def do(store: DynamoStore, change: Change) -> Any:
    return await store.apply("docs", change, fresh_id())


async def found(store: DynamoStore, filter: Document, **more: Any) -> list[Document]:
    return [hit.document async for page in store.find("docs", Query(filter, **more)) for hit in page]


async def test_ten_megabytes_are_one_document(store: DynamoStore) -> None:
    """Inserted, changed by one field, found by key, index and scan, projected, counted, deleted without a rest."""
    document = {"_id": "ten", "user": "u", "n": 1, "data": [noise(1_000_000, n) for n in range(10)], "end": "z"}
    await do(store, Insert("ten", document, fresh_id()))
    await do(store, Insert("small", {"_id": "small", "user": "u"}, fresh_id()))
    applied = await do(store, Update("ten", {"_id": "ten", "n": 1}, {"$set": {"n": 2}}, fresh_id()))
    changed = {**document, "n": 2}
    assert applied.post.document == changed
    assert await found(store, {"_id": "ten"}) == [changed]
    assert await found(store, {"user": "u", "n": {"$gt": 1}}) == [changed]
    assert await found(store, {"end": "z"}) == [changed]
    assert await found(store, {"user": "u"}, projection={"n": 1, "end": 1}, sort=(("n", -1),), limit=1) == [
        {"_id": "ten", "n": 2, "end": "z"}
    ]
    assert await store.count("docs", {}) == 2
    assert await store.count("docs", {"user": "u"}) == 2
    assert len(await auxiliary(store)) == 26
    assert (await do(store, Delete("ten", {"_id": "ten"}, "t"))).pre.document == changed
    assert await found(store, {}) == [{"_id": "small", "user": "u"}]
    assert await auxiliary(store) == []
    await do(store, Delete("small", {}, "t"))


def dying(store: DynamoStore, monkeypatch: pytest.MonkeyPatch, step: int, *, after: bool) -> Callable[[], int]:
    """Lets the writer die at its `step`th writing request, before or after it has been made; what it is in the middle
    of then is never answered. Answers a function that tells how many there were."""
    call, made = store._gateway.call, 0
    dead = False

    async def until_dead(verb: str, table: str, **parameters: Any) -> Any:
        nonlocal made, dead
        if verb not in WRITES:
            return await call(verb, table, **parameters)
        made += 1
        if dead or (made - 1 == step and not after):
            dead = True
            raise Killed
        answer = await call(verb, table, **parameters)
        if made - 1 >= step:
            dead = True
            raise Killed
        return answer

    monkeypatch.setattr(store._gateway, "call", until_dead)
    return lambda: made


OLD: Final = {"_id": "k", "user": "u", "n": 1, "data": noise(500_000, 1)}
NEW: Final = {"_id": "k", "user": "v", "n": 2, "data": noise(550_000, 2)}
CHANGES: Final[dict[str, tuple[Document | None, Change, Document | None, int]]] = {
    "insert": (None, Insert("k", OLD, "b"), OLD, PARTS + 1),
    "insert over a small tombstone's place": (None, Replace("k", KEY, OLD, "b", upsert=True), OLD, PARTS + 1),
    "set": (OLD, Update("k", KEY, {"$set": {"n": 5}}, "b"), {**OLD, "n": 5}, 2 * PARTS + 1),
    "replace": (OLD, Replace("k", KEY, NEW, "b"), NEW, 2 * PARTS + 1),
    "shrink": (OLD, Replace("k", KEY, {"_id": "k", "n": 1}, "b"), {"_id": "k", "n": 1}, PARTS + 1),
    "grow": ({"_id": "k", "n": 1}, Replace("k", KEY, NEW, "b"), NEW, PARTS + 1),
    "delete": (OLD, Delete("k", KEY, "t"), None, PARTS + 1),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_writer_that_dies_at_any_step_leaves_the_old_or_the_new_document(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Before and after every writing request of every kind of change: what is read is the one or the other, whole; the
    next change works on it; and `sweep` leaves nothing but the parts of what is there."""
    before, change, after, steps = CHANGES[name]
    seen: set[str] = set()
    for step in range(steps):
        for late in (False, True):
            if before is not None:
                await do(store, Insert("k", before, fresh_id()))
            with monkeypatch.context() as patched:
                dying(store, patched, step, after=late)
                with pytest.raises(Killed):
                    await do(store, change)
            image = await store.image("docs", "k")
            assert image.document in (before, after), (step, late)
            seen.add("old" if image.document == before else "new")
            assert await found(store, {"_id": "k"}) == ([image.document] if image.present else [])
            assert await store.count("docs", {}) == int(image.present)
            await store.sweep("docs", dt.timedelta(seconds=-5))
            assert await store.image("docs", "k") == image
            is_large = image.document is not None and "data" in image.document
            assert len(await auxiliary(store)) == (PARTS if is_large else 0)
            if image.present:
                again = await do(store, Update("k", KEY, {"$set": {"again": 1}}, fresh_id()))
                assert again.post.document == {**(image.document or {}), "again": 1}
                await do(store, Delete("k", KEY, "t"))
            assert await store.image("docs", "k") == Image(ABSENT)
            assert await auxiliary(store) == []
    assert seen == {"old", "new"}


@pytest.mark.parametrize("name", CHANGES)
async def test_the_steps_above_are_all_there_are(
    store: DynamoStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A change that took another request would have a step at which nobody has let it die."""
    before, change, _, steps = CHANGES[name]
    if before is not None:
        await do(store, Insert("k", before, fresh_id()))
    with monkeypatch.context() as patched:
        made = dying(store, patched, 1_000, after=False)
        await do(store, change)
        assert made() == steps
    await do(store, Delete("k", {}, "t"))
