"""The contract of `stores.base`: the application's writes. Every store is held to the same tests, and so is the router
over two of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from bson import ObjectId
from pymongo.errors import DuplicateKeyError, WriteError

from shadow.model.operation import Applied, Change, Delete, Insert, Replace, Update, version_after
from shadow.model.version import ABSENT, Document, Image, Key, Version, fresh_id
from tests.support.backends import BACKENDS, ROUTED, Backend, open_backend
from tests.support.drawn import Draws, in_one_deployment
from tests.support.images import (
    SHARED,
    apply,
    assert_duplicate_of_id,
    assert_image,
    buried,
    image,
    inserted,
    key_of,
    update,
    version_of,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), in_one_deployment("unopened_backend")]


@pytest.fixture(scope="module", params=(*BACKENDS, *ROUTED))
def unopened_backend(request: pytest.FixtureRequest, draws: Draws) -> Backend:
    return open_backend(request.param, request.getfixturevalue, draws.of_node(request.node))


# --- apply: insert ----------------------------------------------------------------------------------------------


async def test_an_insert_has_the_version_born_1_and_nothing_before_it(backend: Backend) -> None:
    document = {"_id": ObjectId(), "name": "Ada", "n": 1}
    change = Insert(document["_id"], document, fresh_id())
    applied = await apply(backend, change)
    assert applied is not None
    assert applied.pre == Image(ABSENT)
    assert_image(applied.post, Image(Version(change.born, 1), document))
    assert_image(await image(backend, document["_id"]), applied.post)


async def test_an_insert_over_a_document_is_refused_as_a_duplicate_and_changes_nothing(backend: Backend) -> None:
    standing = await inserted(backend, n=1)
    with pytest.raises(DuplicateKeyError) as caught:
        await apply(backend, Insert(key_of(standing), {"_id": key_of(standing), "n": 2}, fresh_id()))
    assert_duplicate_of_id(caught.value)
    assert_image(await image(backend, key_of(standing)), standing)


async def test_an_insert_takes_the_place_of_a_tombstone(backend: Backend) -> None:
    key = await buried(backend)
    applied = await apply(backend, Insert(key, {"_id": key, "n": 1}, fresh_id()))
    assert applied is not None
    assert applied.pre == Image(ABSENT)
    assert_image(await image(backend, key), applied.post)


async def test_the_stored_document_does_not_follow_later_changes_of_the_callers(backend: Backend) -> None:
    document: Document = {"_id": ObjectId(), "list": [1]}
    await apply(backend, Insert(document["_id"], document, fresh_id()))
    document["list"].append(2)
    assert (await image(backend, document["_id"])).document == {"_id": document["_id"], "list": [1]}


# --- apply: update ----------------------------------------------------------------------------------------------


async def test_an_update_answers_both_images_and_moves_the_version_by_one(backend: Backend) -> None:
    before = await inserted(backend, n=1, tags=["a"])
    change = {"$inc": {"n": 4}, "$push": {"tags": "b"}, "$set": {"sub.deep": True}}
    applied = await apply(backend, update(key_of(before), change))
    assert applied is not None
    after = {"_id": key_of(before), "n": 5, "tags": ["a", "b"], "sub": {"deep": True}}
    assert_image(applied.pre, before)
    assert_image(applied.post, Image(version_of(before).next(), after))
    assert_image(await image(backend, key_of(before)), applied.post)


async def test_an_update_that_leaves_the_document_as_it_was_moves_the_version_too(backend: Backend) -> None:
    before = await inserted(backend, n=1)
    applied = await apply(backend, update(key_of(before), {"$set": {"n": 1}}))
    assert applied is not None
    assert_image(applied.post, Image(version_of(before).next(), before.document))
    assert_image(await image(backend, key_of(before)), applied.post)


@pytest.mark.parametrize(
    "change",
    [
        lambda key, filter: Update(key, filter, {"$set": {"n": 9}}, fresh_id()),
        lambda key, filter: Update(key, filter, [{"$set": {"n": 9}}], fresh_id()),
        lambda key, filter: Replace(key, filter, {"_id": key, "n": 9}, fresh_id()),
        lambda key, filter: Delete(key, filter, fresh_id()),
    ],
    ids=["update", "pipeline", "replace", "delete"],
)
async def test_a_change_is_made_only_where_there_is_a_document_that_its_filter_matches(
    backend: Backend, change: Any
) -> None:
    standing = await inserted(backend, n=1, s="x")
    key = key_of(standing)
    for filter in ({"n": 2}, {"_id": key, "n": {"$gt": 1}}, {"$or": [{"n": 3}, {"s": "y"}]}):
        assert await apply(backend, change(key, filter)) is None
    assert_image(await image(backend, key), standing)
    for nothing in (ObjectId(), await buried(backend)):
        before = await image(backend, nothing)
        for filter in ({"_id": nothing}, {}, {"n": None}):
            assert await apply(backend, change(nothing, filter)) is None
        assert await image(backend, nothing) == before
    applied = await apply(backend, change(key, {"$or": [{"_id": key, "n": 1}, {"n": 7}]}))
    assert applied is not None
    assert_image(applied.pre, standing)


async def test_array_filters_and_the_positional_operator_hit_the_elements_that_match(backend: Backend) -> None:
    before = await inserted(backend, marks=[1, 5, 9])
    change = update(key_of(before), {"$set": {"marks.$[big]": 0}}, array_filters=({"big": {"$gt": 4}},))
    applied = await apply(backend, change)
    assert applied is not None
    assert applied.post.document is not None
    assert applied.post.document["marks"] == [1, 0, 0]
    assert_image(await image(backend, key_of(before)), applied.post)
    again = await apply(backend, update(key_of(before), {"$set": {"marks.$": 7}}, {"_id": key_of(before), "marks": 0}))
    assert again is not None
    assert again.post.document is not None
    assert again.post.document["marks"] == [1, 7, 0]
    assert_image(await image(backend, key_of(before)), again.post)


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ([{"$set": {"twice": {"$add": ["$n", "$n"]}}}, {"$unset": "n"}], {"s": "$n", "twice": 14}),
        ([{"$replaceWith": {"_id": "$_id", "only": "$n"}}], {"only": 7}),
        ([{"$set": {"s": {"$literal": "$$ROOT"}}}], {"n": 7, "s": "$$ROOT"}),
    ],
    ids=["set-unset", "replaceWith", "literal"],
)
async def test_an_update_by_pipeline_leaves_a_fresh_version_whatever_it_does_to_the_document(
    backend: Backend, pipeline: list[Document], expected: Document
) -> None:
    before = await inserted(backend, n=7, s="$n")
    change = update(key_of(before), pipeline)
    applied = await apply(backend, change)
    assert applied is not None
    assert applied.post.state == version_after(change, version_of(before)) == Version(change.born, 1)
    assert applied.post.document == {"_id": key_of(before), **expected}
    assert_image(await image(backend, key_of(before)), applied.post)


async def test_what_mongodb_refuses_is_refused_with_its_code_and_changes_nothing(backend: Backend) -> None:
    standing = await inserted(backend, s="text", n=1)
    for change, code in (
        ({"$inc": {"s": 1}}, 14),
        ({"$push": {"n": 1}}, 2),
        ({"$set": {"_id": ObjectId()}}, 66),
        ({"$set": {"n.deeper": 1}}, 28),
    ):
        with pytest.raises(WriteError) as caught:
            await apply(backend, update(key_of(standing), change))
        assert caught.value.code == code, change
    assert_image(await image(backend, key_of(standing)), standing)


async def test_updates_of_one_document_at_once_are_all_made_one_after_the_other(backend: Backend) -> None:
    before = await inserted(backend, n=0)
    key = key_of(before)
    made = await asyncio.gather(*(apply(backend, update(key, {"$inc": {"n": 1}})) for _ in range(12)))
    after = sorted((version_of(each.post).rev, each.post.document["n"]) for each in made if each and each.post.document)
    assert after == [(n + 1, n) for n in range(1, 13)]
    assert_image(await image(backend, key), Image(Version(version_of(before).born, 13), {"_id": key, "n": 12}))


# --- apply: upsert ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tombstone", [False, True], ids=["absent", "tombstone"])
@pytest.mark.parametrize("kind", ["update", "pipeline", "replace"])
async def test_an_upsert_inserts_where_there_is_no_document(backend: Backend, kind: str, tombstone: bool) -> None:
    key = await buried(backend) if tombstone else ObjectId()
    filter = {"_id": key, "owner": "ada"}
    change: Change
    if kind == "update":
        change = update(key, {"$set": {"n": 1}, "$setOnInsert": {"new": True}}, filter, upsert=True)
        expected = {"_id": key, "owner": "ada", "n": 1, "new": True}
    elif kind == "pipeline":
        change = update(key, [{"$set": {"n": 1}}], filter, upsert=True)
        expected = {"_id": key, "owner": "ada", "n": 1}
    else:
        change = Replace(key, filter, {"_id": key, "n": 1}, fresh_id(), upsert=True)
        expected = {"_id": key, "n": 1}
    applied = await apply(backend, change)
    assert applied is not None
    assert applied.pre == Image(ABSENT)
    assert_image(applied.post, Image(Version(change.born, 1), expected))
    assert_image(await image(backend, key), applied.post)


@pytest.mark.parametrize("filter", [{}, {"_id": {"$eq": "KEY"}}, {"owner": "ada"}, {"_id": "KEY", "owner": "ada"}])
async def test_what_an_upsert_inserted_is_a_document_like_any_other(backend: Backend, filter: Document) -> None:
    key = f"upserted-{ObjectId()}"
    named = {"$eq": key} if isinstance(filter.get("_id"), dict) else key
    change = update(key, {"$set": {"n": 1}}, {**filter, **({"_id": named} if "_id" in filter else {})}, upsert=True)
    applied = await apply(backend, change)
    assert applied is not None
    assert_image(await image(backend, key), applied.post)
    with pytest.raises(DuplicateKeyError):
        await apply(backend, Insert(key, {"_id": key}, fresh_id()))
    assert_image(await image(backend, key), applied.post)
    again = await apply(backend, update(key, {"$inc": {"n": 1}}))
    assert again is not None
    assert_image(again.pre, applied.post)


async def test_an_upsert_changes_the_document_that_its_filter_matches(backend: Backend) -> None:
    before = await inserted(backend, n=1)
    applied = await apply(backend, update(key_of(before), {"$inc": {"n": 1}, "$setOnInsert": {"x": 1}}, upsert=True))
    assert applied is not None
    assert_image(applied.pre, before)
    assert_image(applied.post, Image(version_of(before).next(), {"_id": key_of(before), "n": 2}))


@pytest.mark.parametrize("kind", ["update", "pipeline", "replace"])
async def test_an_upsert_is_a_duplicate_where_a_document_stands_that_its_filter_does_not_match(
    backend: Backend, kind: str
) -> None:
    standing = await inserted(backend, n=1)
    key = key_of(standing)
    filter = {"_id": key, "n": 2}
    changes: dict[str, Change] = {
        "update": update(key, {"$set": {"x": 1}}, filter, upsert=True),
        "pipeline": update(key, [{"$set": {"x": 1}}], filter, upsert=True),
        "replace": Replace(key, filter, {"_id": key, "x": 1}, fresh_id(), upsert=True),
    }
    with pytest.raises(DuplicateKeyError) as caught:
        await apply(backend, changes[kind])
    assert_duplicate_of_id(caught.value)
    assert_image(await image(backend, key), standing)


# --- apply: replace and delete ----------------------------------------------------------------------------------


async def test_a_replacement_is_a_new_document_at_the_version_born_1(backend: Backend) -> None:
    before = await inserted(backend, n=1, gone=True)
    key = key_of(before)
    change = Replace(key, {"n": 1}, {"_id": key, "m": 2}, fresh_id())
    applied = await apply(backend, change)
    assert applied is not None
    assert_image(applied.pre, before)
    assert_image(applied.post, Image(Version(change.born, 1), {"_id": key, "m": 2}))
    assert_image(await image(backend, key), applied.post)


@pytest.mark.parametrize(
    ("named", "kept"), [({}, 8), ({"_id": 8.0}, 8.0), ({"_id": 8}, 8)], ids=["none", "another type", "the same"]
)
async def test_a_replacement_keeps_the_key_that_stands_unless_it_names_an_equal_one(
    backend: Backend, named: Document, kept: Any
) -> None:
    collection = await backend.fresh()
    await backend.store.apply(collection, Insert(8, {"_id": 8, "n": 1}, fresh_id()), fresh_id())
    change = Replace(8.0, {"_id": 8.0}, {**named, "n": 2}, fresh_id())
    applied = await backend.store.apply(collection, change, fresh_id())
    assert applied is not None
    assert_image(applied.post, Image(Version(change.born, 1), {"_id": kept, "n": 2}))
    assert_image(await backend.store.image(collection, 8), applied.post)


async def test_a_delete_answers_the_image_before_it_and_leaves_nothing(backend: Backend) -> None:
    for filter in ({}, {"n": 1}):
        before = await inserted(backend, n=1)
        applied = await apply(backend, Delete(key_of(before), {"_id": key_of(before), **filter}, fresh_id()))
        assert applied is not None
        assert_image(applied.pre, before)
        assert applied.post == Image(ABSENT)
        assert await image(backend, key_of(before)) == Image(ABSENT)


# --- insert_many ------------------------------------------------------------------------------------------------


async def insert_many(backend: Backend, keys: list[Key], *, ordered: bool) -> list[Applied | Exception | None]:
    inserts = [Insert(key, {"_id": key, "place": place}, fresh_id()) for place, key in enumerate(keys)]
    op_ids = [fresh_id() for _ in keys]
    results = await backend.store.insert_many(SHARED, inserts, op_ids, ordered=ordered)
    for insert, result in zip(inserts, results, strict=True):
        if isinstance(result, Applied):
            assert result.pre == Image(ABSENT)
            assert_image(result.post, Image(Version(insert.born, 1), insert.document))
            assert_image(await image(backend, insert.key), result.post)
    return results


def kinds(results: list[Applied | Exception | None]) -> list[str]:
    return ["-" if each is None else type(each).__name__ for each in results]


async def test_many_inserts_are_all_made_each_at_its_first_version(backend: Backend) -> None:
    assert set(kinds(await insert_many(backend, [ObjectId() for _ in range(130)], ordered=True))) == {"Applied"}
    assert set(kinds(await insert_many(backend, [ObjectId() for _ in range(130)], ordered=False))) == {"Applied"}


async def test_ordered_inserts_end_at_the_first_refusal(backend: Backend) -> None:
    standing = await inserted(backend)
    keys = [ObjectId(), key_of(standing), ObjectId(), ObjectId()]
    results = await insert_many(backend, keys, ordered=True)
    assert kinds(results) == ["Applied", "DuplicateKeyError", "-", "-"]
    assert isinstance(results[1], DuplicateKeyError)
    assert_duplicate_of_id(results[1])
    assert_image(await image(backend, keys[1]), standing)
    assert await backend.store.images(SHARED, keys[2:]) == [Image(ABSENT), Image(ABSENT)]


async def test_unordered_inserts_go_on_after_a_refusal(backend: Backend) -> None:
    standing = await inserted(backend)
    keys = [key_of(standing), ObjectId(), key_of(standing), ObjectId()]
    results = await insert_many(backend, keys, ordered=False)
    assert kinds(results) == ["DuplicateKeyError", "Applied", "DuplicateKeyError", "Applied"]
    assert_image(await image(backend, key_of(standing)), standing)


@pytest.mark.parametrize("ordered", [True, False])
async def test_inserts_among_many_take_the_place_of_tombstones(backend: Backend, ordered: bool) -> None:
    standing = await inserted(backend)
    keys = [ObjectId(), await buried(backend), ObjectId(), await buried(backend), key_of(standing), ObjectId()]
    results = await insert_many(backend, keys, ordered=ordered)
    last = "-" if ordered else "Applied"
    assert kinds(results) == ["Applied"] * 4 + ["DuplicateKeyError", last]


async def test_the_same_key_twice_among_many_inserts_is_made_once(backend: Backend) -> None:
    key = ObjectId()
    assert kinds(await insert_many(backend, [key, ObjectId(), key], ordered=True)) == [
        "Applied",
        "Applied",
        "DuplicateKeyError",
    ]
    key = ObjectId()
    assert sorted(kinds(await insert_many(backend, [key, key], ordered=False))) == ["Applied", "DuplicateKeyError"]
