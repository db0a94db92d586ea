"""The contract of `stores.base` for changes whose document the store finds by itself: one atomic step, and the
operation's id stays with the document."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import DuplicateKeyError, WriteError

from shadow.model.operation import ANY, Applied, Delete, Insert, Query, Replace, Update
from shadow.model.version import ABSENT, Document, Image, Key, Tombstone, Version, fresh_id
from tests.support.backends import Backend
from tests.support.drawn import in_one_deployment

pytestmark = [pytest.mark.asyncio(loop_scope="module"), in_one_deployment("unopened_backend")]


def an_update(filter: Document, update: Any, **options: Any) -> Update:
    return Update(ANY, filter, update, fresh_id(), new=ObjectId(), **options)


def a_replacement(filter: Document, replacement: Document, **options: Any) -> Replace:
    return Replace(ANY, filter, replacement, fresh_id(), new=ObjectId(), **options)


async def planted(backend: Backend, *documents: Document) -> str:
    collection = await backend.fresh()
    for each in documents:
        assert await backend.store.apply(collection, Insert(each["_id"], each, fresh_id()), fresh_id())
    return collection


def is_asked_to_choose(backend: Backend, change: Update | Replace | Delete) -> bool:
    """Stores that choose no document are held to saying so."""
    return backend.store.chooses(change)


async def documents(backend: Backend, collection: str) -> dict[Key, Document]:
    found = [hit async for page in backend.store.find(collection, Query(sort=(("_id", 1),))) for hit in page]
    return {hit.key: hit.document for hit in found}


async def test_dynamodb_chooses_nothing_and_no_store_chooses_what_to_delete(backend: Backend) -> None:
    changes = [an_update({"n": 1}, {"$inc": {"n": 1}}), a_replacement({"n": 1}, {"n": 2})]
    chooses = "dynamo" not in backend.store.describe()["kind"]
    assert [backend.store.chooses(each) for each in changes] == [chooses, chooses]
    assert not backend.store.chooses(Delete(ANY, {"n": 1}, fresh_id()))
    assert await backend.store.chosen(await backend.fresh(), fresh_id()) is ANY


async def test_the_first_document_in_the_order_asked_for_is_changed_and_found_by_the_operation(
    backend: Backend,
) -> None:
    change = an_update({"kind": "a"}, {"$set": {"taken": True}}, sort=(("n", -1),))
    if not is_asked_to_choose(backend, change):
        return
    collection = await planted(backend, *({"_id": f"k{n}", "kind": "ab"[n % 2], "n": n} for n in range(6)))
    op_id = fresh_id()
    applied = await backend.store.apply(collection, change, op_id)
    assert applied is not None
    assert applied.key == "k4"
    assert applied.post.document == {"_id": "k4", "kind": "a", "n": 4, "taken": True}
    assert await backend.store.image(collection, "k4") == applied.post
    assert await backend.store.chosen(collection, op_id) == "k4"
    assert await backend.store.chosen(collection, fresh_id()) is ANY


async def test_nothing_that_matches_is_nothing(backend: Backend) -> None:
    collection = await planted(backend, {"_id": "k", "n": 1})
    for change in (an_update({"n": 2}, {"$inc": {"n": 1}}), a_replacement({"n": 2}, {"n": 3})):
        if is_asked_to_choose(backend, change):
            assert await backend.store.apply(collection, change, fresh_id()) is None
    assert await documents(backend, collection) == {"k": {"_id": "k", "n": 1}}


async def test_a_tombstone_is_never_chosen(backend: Backend) -> None:
    change = an_update({"n": {"$exists": False}}, {"$set": {"n": 1}})
    if not is_asked_to_choose(backend, change):
        return
    collection = await backend.fresh()
    assert await backend.store.put(collection, "gone", Image(Tombstone(fresh_id())), ABSENT)
    assert await backend.store.apply(collection, change, fresh_id()) is None


PIPELINE = [{"$set": {"n": {"$add": [{"$ifNull": ["$n", 0]}, 1]}}}]


@pytest.mark.parametrize(
    ("update", "inserted", "changed"),
    [
        ({"$inc": {"n": 1}, "$setOnInsert": {"first": True}}, {"n": 1, "first": True}, {"n": 2, "first": True}),
        (PIPELINE, {"n": 1}, {"n": 2}),
    ],
    ids=["operators", "pipeline"],
)
async def test_an_upsert_inserts_under_the_new_key_once_and_changes_after_that(
    backend: Backend, update: Any, inserted: Document, changed: Document
) -> None:
    first, second = (an_update({"name": "x"}, update, upsert=True) for _ in range(2))
    if not is_asked_to_choose(backend, first):
        return
    collection, op_id = await backend.fresh(), fresh_id()
    applied = await backend.store.apply(collection, first, op_id)
    assert applied is not None
    assert applied.pre == Image(ABSENT)
    assert applied.post == Image(Version(first.born, 1), {"_id": first.new, "name": "x", **inserted})
    assert await backend.store.image(collection, first.new) == applied.post
    assert await backend.store.chosen(collection, op_id) == first.new

    again = await backend.store.apply(collection, second, fresh_id())
    assert again is not None
    assert again.post.document == {"_id": first.new, "name": "x", **changed}
    assert await documents(backend, collection) == {first.new: again.post.document}


@pytest.mark.parametrize("field", ["x", "a.b", "$x"], ids=["plain", "dotted", "dollar"])
async def test_a_replacement_by_filter_replaces_or_inserts(backend: Backend, field: str) -> None:
    whole = {"n": 1, "inner": {field: "$n"}}
    first, second = (a_replacement({"n": {"$lt": 5}}, whole, upsert=True) for _ in range(2))
    if not is_asked_to_choose(backend, first):
        return
    collection, op_id = await backend.fresh(), fresh_id()
    inserted = await backend.store.apply(collection, first, op_id)
    assert inserted is not None
    assert inserted.post == Image(Version(first.born, 1), {"_id": first.new, **whole})
    assert await backend.store.image(collection, first.new) == inserted.post
    assert await backend.store.chosen(collection, op_id) == first.new
    replaced = await backend.store.apply(collection, second, fresh_id())
    assert replaced is not None
    assert replaced.pre == inserted.post
    assert replaced.post == Image(Version(second.born, 1), {"_id": first.new, **whole})
    assert await backend.store.image(collection, first.new) == replaced.post


async def test_an_upsert_that_names_its_key_takes_a_tombstones_place(backend: Backend) -> None:
    change = an_update({"name": "x"}, {"$setOnInsert": {"_id": "named"}, "$inc": {"n": 1}}, upsert=True)
    if not is_asked_to_choose(backend, change):
        return
    collection, op_id = await backend.fresh(), fresh_id()
    if backend.store.describe()["kind"] == "mongo":
        assert await backend.store.put(collection, "named", Image(Tombstone(fresh_id())), ABSENT)
    applied = await backend.store.apply(collection, change, op_id)
    assert applied is not None
    assert applied.post.document == {"_id": "named", "name": "x", "n": 1}
    assert await backend.store.image(collection, "named") == applied.post
    assert await backend.store.chosen(collection, op_id) == "named"


async def test_an_upsert_that_names_the_key_of_a_document_that_does_not_match_is_refused(backend: Backend) -> None:
    change = an_update({"name": "x"}, {"$setOnInsert": {"_id": "named"}, "$inc": {"n": 1}}, upsert=True)
    if not is_asked_to_choose(backend, change):
        return
    collection = await planted(backend, {"_id": "named", "name": "y"})
    with pytest.raises(DuplicateKeyError):
        await backend.store.apply(collection, change, fresh_id())
    assert await documents(backend, collection) == {"named": {"_id": "named", "name": "y"}}


async def test_a_replacement_that_names_another_key_is_refused(backend: Backend) -> None:
    change = a_replacement({"n": 1}, {"_id": "other", "n": 2})
    if not is_asked_to_choose(backend, change) or backend.store.describe()["kind"] != "mongo":
        return
    collection = await planted(backend, {"_id": "k", "n": 1})
    with pytest.raises(WriteError) as refused:
        await backend.store.apply(collection, change, fresh_id())
    assert refused.value.code == 66


async def test_an_operation_is_forgotten_when_another_one_replaces_its_document(backend: Backend) -> None:
    change = an_update({"n": 1}, {"$inc": {"n": 1}})
    if not is_asked_to_choose(backend, change):
        return
    collection, op_id = await planted(backend, {"_id": "k", "n": 1}), fresh_id()
    assert await backend.store.apply(collection, change, op_id)
    assert await backend.store.apply(collection, Replace("k", {"_id": "k"}, {"n": 9}, fresh_id()), fresh_id())
    assert await backend.store.chosen(collection, op_id) is ANY


@pytest.mark.parametrize("callers", [8, 40])
async def test_many_at_once_each_take_another_document(backend: Backend, callers: int) -> None:
    """One step of the server: as many documents are taken as there are callers, none of them twice."""
    if not is_asked_to_choose(backend, an_update({}, {"$set": {"st": "taken"}})):
        return
    collection = await planted(backend, *({"_id": n, "st": "new"} for n in range(callers + 10)))
    taken: list[Applied | None] = await asyncio.gather(
        *(
            backend.store.apply(collection, an_update({"st": "new"}, {"$set": {"st": "taken"}}), fresh_id())
            for _ in range(callers)
        )
    )
    assert len({each.key for each in taken if each is not None}) == callers
    standing = (await documents(backend, collection)).values()
    assert sum(each["st"] == "taken" for each in standing) == callers
