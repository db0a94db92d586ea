"""The contract of `stores.base`: what replication needs of a store beside the application's calls (replays, puts,
images), and a store's life. Every store is held to the same tests."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, Final

import pytest
from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from shadow.model.operation import Change, Delete, Insert, Query, Replace, Update, Verb, Write, version_after
from shadow.model.schema import CollectionSpec
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Version, fresh_id
from shadow.stores.base import CopyingMany, ReplayingMany
from tests.support.backends import Backend
from tests.support.drawn import in_one_deployment
from tests.support.images import (
    SHARED,
    apply,
    assert_image,
    buried,
    image,
    inserted,
    key_of,
    put,
    update,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), in_one_deployment("unopened_backend")]


# --- replay -----------------------------------------------------------------------------------------------------

BORN: Final = fresh_id()
AT: Final = Version(BORN, 3)
"""The version before the write, on the primary."""
AFTER: Final = Version(fresh_id(), 7)
STATES: Final[dict[str, State]] = {
    "absent": ABSENT,
    "at the version before": AT,
    "an older version": Version(BORN, 2),
    "a newer version": Version(BORN, 4),
    "another birth": Version(fresh_id(), 3),
    "no version": Version("", 0),
    "a tombstone": Tombstone(fresh_id()),
}


async def standing_at(backend: Backend, state: State) -> tuple[Key, Image]:
    """A key that holds `state`, and the image of it."""
    key = ObjectId()
    wanted = Image(state, {"_id": key, "n": 1} if isinstance(state, Version) else None)
    if state != ABSENT:
        await put(backend, key, wanted)
    return key, wanted


def a_write(change: Change, pre: State, post: Image) -> Write:
    verbs = {Insert: Verb.INSERT_ONE, Update: Verb.UPDATE_ONE, Replace: Verb.REPLACE_ONE, Delete: Verb.DELETE_ONE}
    return Write(SHARED, verbs[type(change)], fresh_id(), change, pre, post)


def writes(key: Key) -> dict[str, tuple[Write, set[str]]]:
    """Kind of write to the write, made by the primary, and the states of the secondary that let it in."""
    born = fresh_id()
    insert = Insert(key, {"_id": key, "n": 1}, born)
    by_key = {"_id": key}
    by_pipeline = update(key, [{"$set": {"n": {"$add": ["$n", 1]}}}])
    return {
        "insert": (a_write(insert, ABSENT, Image(Version(born, 1), insert.document)), {"absent"}),
        "update": (
            a_write(update(key, {"$inc": {"n": 1}}), AT, Image(AT.next(), {"_id": key, "n": 2})),
            {"at the version before"},
        ),
        "pipeline": (
            a_write(by_pipeline, AT, Image(version_after(by_pipeline, AT), {"_id": key, "n": 2})),
            {"at the version before"},
        ),
        "upsert that changed": (
            a_write(update(key, {"$inc": {"n": 1}}, upsert=True), AT, Image(AT.next(), {"_id": key, "n": 2})),
            {"at the version before"},
        ),
        "upsert that inserted": (
            a_write(
                Update(key, {"_id": key, "o": "a"}, {"$inc": {"n": 1}}, born, upsert=True),
                ABSENT,
                Image(Version(born, 1), {"_id": key, "o": "a", "n": 1}),
            ),
            {"absent"},
        ),
        "replace": (
            a_write(
                Replace(key, by_key, {"_id": key, "m": 1}, born), AT, Image(Version(born, 1), {"_id": key, "m": 1})
            ),
            {"at the version before"},
        ),
        "replacing upsert that inserted": (
            a_write(
                Replace(key, by_key, {"_id": key, "m": 1}, born, upsert=True),
                ABSENT,
                Image(Version(born, 1), {"_id": key, "m": 1}),
            ),
            {"absent"},
        ),
        "delete": (a_write(Delete(key, by_key, fresh_id()), AT, Image(ABSENT)), {"absent", "at the version before"}),
        "delete by more": (
            a_write(Delete(key, {"_id": key, "n": 1}, fresh_id()), AT, Image(ABSENT)),
            {"absent", "at the version before"},
        ),
    }


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", list(writes(None)))
async def test_a_replay_changes_the_store_exactly_where_its_fence_holds(
    backend: Backend, kind: str, state: str
) -> None:
    key, before = await standing_at(backend, STATES[state])
    write, lets_in = writes(key)[kind]
    answer = await backend.store.replay(SHARED, write)
    after = await image(backend, key)
    if state not in lets_in:
        assert answer is None
        assert_image(after, before)
        return
    expected = Image(Tombstone(write.change.tombstone)) if isinstance(write.change, Delete) else write.post
    assert_image(answer, expected)
    assert_image(after, expected)


async def test_many_replays_each_have_the_fence_of_one(backend: Backend, request: pytest.FixtureRequest) -> None:
    """Every kind of write at every state in one batch: each is made where it would be alone, or nothing of it is. What
    was made is made no second time, and what was not can be made alone."""
    store = backend.store
    if not isinstance(store, ReplayingMany):
        pytest.skip("this store replays one write at a time")
    standing = [(kind, state, *await standing_at(backend, STATES[state])) for kind in writes(None) for state in STATES]
    made = [writes(key)[kind] for kind, _, key, _ in standing]
    assert len(made) <= store.replays_at_once(SHARED)
    answers = await store.replay_many(SHARED, [write for write, _ in made])
    able = "dynamo-local" in request.node.name  # ministack cannot parse an UPDATE by a nested path
    for (kind, state, key, before), (write, lets_in), answer in zip(standing, made, answers, strict=True):
        after = await image(backend, key)
        expected = Image(Tombstone(write.change.tombstone)) if isinstance(write.change, Delete) else write.post
        if state not in lets_in:
            assert answer is None, (kind, state)
            assert_image(after, before)
            continue
        assert answer is not None or not able, (kind, state)
        if answer is not None:
            assert_image(answer, expected)
            assert_image(after, expected)
        assert_image(await store.replay(SHARED, write), expected)
        assert_image(await image(backend, key), expected)


async def test_of_many_replays_those_that_a_statement_cannot_make_are_left(backend: Backend) -> None:
    """A long document, one whose names a statement would have to escape, a second write of one key, and a filter that
    matches nothing; the others of the batch are made."""
    store = backend.store
    if not isinstance(store, ReplayingMany):
        pytest.skip("this store replays one write at a time")
    plain, large, named, other = ObjectId(), ObjectId(), ObjectId(), ObjectId()
    texts = {large: {"text": random.Random(3).randbytes(500_000)}, named: {'a"b': 1}}
    posts = {}
    for key in (plain, large, named, other):
        await put(backend, key, Image(AT, {"_id": key, "n": 1, "gone": [1, {"a": 2}], **texts.get(key, {})}))
        posts[key] = Image(AT.next(), {"_id": key, "n": 2, **texts.get(key, {})})
    posts[named] = Image(AT.next(), {"_id": named, "n": 2})
    step = {"$inc": {"n": 1}, "$unset": {"gone": ""}}
    steps = {plain: step, large: step, named: {**step, "$unset": {"gone": "", 'a"b': ""}}}
    sent = [a_write(update(key, each), AT, posts[key]) for key, each in steps.items()]
    sent.append(a_write(update(plain, step), AT.next(), Image(AT.next().next(), {"_id": plain, "n": 3})))
    sent.append(a_write(update(other, step, {"n": 5}), AT, posts[other]))
    answers = await store.replay_many(SHARED, sent)
    assert answers[1:] == [None] * 4
    if answers[0] is not None:
        assert_image(answers[0], posts[plain])
        assert_image(await image(backend, plain), posts[plain])
    for key in (large, named, other):
        assert (await image(backend, key)).state == AT
    for write in sent[:3]:
        assert_image(await store.replay(SHARED, write), write.post)


async def test_many_copies_each_have_the_condition_of_one(backend: Backend, request: pytest.FixtureRequest) -> None:
    """Documents, long and odd ones too, and tombstones, over every state and on the condition of every state, in one
    batch: what is put is what would be put alone, and what is not can be put alone."""
    store = backend.store
    if not isinstance(store, CopyingMany):
        pytest.skip("this store puts one image at a time")
    plain, long, odd = {"n": 2}, {"text": random.Random(3).randbytes(500_000)}, {'a"b': 1, "": None}
    wanted: dict[str, Document | None] = {"plain": plain, "long": long, "odd": odd, "deleted": None}
    cases = [(state, expected, "plain") for state in STATES.values() for expected in STATES.values()]
    cases += [(state, state, kind) for state in STATES.values() for kind in wanted]
    puts, before = [], []
    for state, expected, kind in cases:
        key, stands = await standing_at(backend, state)
        document = wanted[kind]
        image_of = Image(Tombstone(fresh_id())) if document is None else Image(AFTER, {"_id": key, **document})
        puts.append((key, image_of, expected))
        before.append(stands)
    able = "ministack" not in request.node.name  # it cannot parse an UPDATE by a nested path
    assert len(puts) <= store.copies_at_once(SHARED) or not able
    made = await store.copy_many(SHARED, puts)
    found = await store.lasting_images(SHARED, [key for key, _, _ in puts])
    for case, (key, image_of, expected), stands, done, now in zip(cases, puts, before, made, found, strict=True):
        assert_image(now, image_of if done else stands)
        assert_image(await image(backend, key), now)
        if case[0] != expected:
            assert not done
            assert not await store.put(SHARED, key, image_of, expected)
            continue
        by_batch = expected in (ABSENT, AT) and case[2] in ("plain", "deleted")
        assert done or not (able and by_batch), case
        assert done or await store.put(SHARED, key, image_of, expected)
        assert_image(await image(backend, key), image_of)


async def test_many_lasting_images_come_in_the_order_of_their_keys(backend: Backend) -> None:
    store = backend.store
    if not isinstance(store, CopyingMany):
        pytest.skip("this store is read one image at a time")
    keys = [(await standing_at(backend, state))[0] for state in STATES.values()]
    asked = [*reversed(keys), ObjectId(), keys[0], keys[1]]
    for key, found in zip(asked, await store.lasting_images(SHARED, asked), strict=True):
        assert_image(found, await image(backend, key))


@pytest.mark.parametrize(
    "change",
    [
        lambda key: update(key, {"$set": {"n": 2}}, {"n": 5}),
        lambda key: Replace(key, {"n": 5}, {"_id": key}, fresh_id()),
        lambda key: Delete(key, {"_id": key, "n": 5}, fresh_id()),
    ],
    ids=["update", "replace", "delete"],
)
async def test_a_replay_whose_filter_does_not_match_changes_nothing(backend: Backend, change: Any) -> None:
    key, before = await standing_at(backend, AT)
    write = a_write(change(key), AT, Image(AT.next(), {"_id": key, "n": 2}))
    assert await backend.store.replay(SHARED, write) is None
    assert_image(await image(backend, key), before)


async def test_a_replay_answers_the_image_that_this_store_came_to_and_not_the_primarys(backend: Backend) -> None:
    key = ObjectId()
    await put(backend, key, Image(AT, {"_id": key, "n": 10}))
    write = a_write(update(key, {"$inc": {"n": 1}}), AT, Image(AT.next(), {"_id": key, "n": 2}))
    assert_image(await backend.store.replay(SHARED, write), Image(AT.next(), {"_id": key, "n": 11}))


async def test_a_replay_of_a_document_without_a_version_is_fenced_on_that(backend: Backend) -> None:
    key = f"planted-{ObjectId()}"
    await backend.plant(SHARED, {"_id": key, "n": 1})
    write = a_write(update(key, {"$inc": {"n": 1}}), Version("", 0), Image(Version("", 1), {"_id": key, "n": 2}))
    assert_image(await backend.store.replay(SHARED, write), write.post)
    assert_image(await image(backend, key), write.post)


# --- put --------------------------------------------------------------------------------------------------------

ACTUAL: Final[dict[str, State]] = {
    "absent": ABSENT,
    "version": AT,
    "another version": Version(BORN, 4),
    "no version": Version("", 0),
    "tombstone": Tombstone("a" * 24),
    "another tombstone": Tombstone("b" * 24),
}
EXPECTED: Final[dict[str, State]] = {name: ACTUAL[name] for name in ("absent", "version", "no version", "tombstone")}


@pytest.mark.parametrize("copied", ["document", "tombstone"])
@pytest.mark.parametrize("actual", ACTUAL)
@pytest.mark.parametrize("expected", EXPECTED)
async def test_a_put_copies_the_image_exactly_where_the_store_is_at_the_expected_state(
    backend: Backend, expected: str, actual: str, copied: str
) -> None:
    key, before = await standing_at(backend, ACTUAL[actual])
    copy = Image(Version(fresh_id(), 7), {"_id": key, "copied": True})
    if copied == "tombstone":
        copy = Image(Tombstone(fresh_id()))
    assert await backend.store.put(SHARED, key, copy, EXPECTED[expected]) is (expected == actual)
    assert_image(await image(backend, key), copy if expected == actual else before)


async def test_a_put_over_a_document_without_a_version_gives_it_one(backend: Backend) -> None:
    key = f"planted-{ObjectId()}"
    await backend.plant(SHARED, {"_id": key, "n": 1})
    copy = Image(Version(fresh_id(), 2), {"_id": key, "n": 2})
    assert not await backend.store.put(SHARED, key, copy, ABSENT)
    assert await backend.store.put(SHARED, key, copy, Version("", 0))
    assert_image(await image(backend, key), copy)


async def test_of_many_puts_with_the_same_expectation_one_is_made(backend: Backend) -> None:
    key, before = await standing_at(backend, AT)
    copies = [Image(Version(fresh_id(), 1), {"_id": key, "n": n}) for n in range(8)]
    made = await asyncio.gather(*(backend.store.put(SHARED, key, copy, before.state) for copy in copies))
    assert made.count(True) == 1
    assert_image(await image(backend, key), copies[made.index(True)])


# --- documents without a version --------------------------------------------------------------------------------


async def test_a_document_without_a_version_is_read_at_the_version_of_nobody(backend: Backend) -> None:
    key = f"planted-{ObjectId()}"
    document = {"_id": key, "owner": "ada", "tags": ["x"]}
    await backend.plant(SHARED, document)
    assert_image(await image(backend, key), Image(Version("", 0), document))
    hit = await backend.store.find_one(SHARED, Query({"_id": key}))
    assert hit is not None
    assert (hit.key, hit.version, hit.document) == (key, Version("", 0), document)
    with pytest.raises(DuplicateKeyError):
        await apply(backend, Insert(key, {"_id": key}, fresh_id()))


async def test_changes_of_a_document_without_a_version_start_to_count(backend: Backend) -> None:
    key = f"planted-{ObjectId()}"
    await backend.plant(SHARED, {"_id": key, "n": 1})
    applied = await apply(backend, update(key, {"$inc": {"n": 1}}))
    assert applied is not None
    assert applied.pre.state == Version("", 0)
    assert applied.post.state == Version("", 1)
    assert_image(await image(backend, key), applied.post)
    applied = await apply(backend, update(key, {"$set": {"n": 9}}))
    assert applied is not None
    assert applied.post.state == Version("", 2)
    assert_image(await image(backend, key), applied.post)
    assert await apply(backend, Delete(key, {"_id": key, "n": 9}, fresh_id())) is not None


# --- images -----------------------------------------------------------------------------------------------------


async def test_images_come_in_the_order_of_the_keys_whatever_is_under_them(backend: Backend) -> None:
    documents = [await inserted(backend, n=n) for n in range(3)]
    tombstone = await buried(backend)
    nothing = ObjectId()
    keys = [key_of(documents[2]), nothing, key_of(documents[0]), tombstone, key_of(documents[2]), key_of(documents[1])]
    images = await backend.store.images(SHARED, keys)
    expected = [documents[2], Image(ABSENT), documents[0], None, documents[2], documents[1]]
    for found, wanted in zip(images, expected, strict=True):
        if wanted is None:
            assert isinstance(found.state, Tombstone)
            assert found.document is None
        else:
            assert_image(found, wanted)
    assert await backend.store.images(SHARED, []) == []


async def test_images_of_more_keys_than_one_request_can_name(backend: Backend) -> None:
    keys = [f"many-{fresh_id()}-{n}" for n in range(250)]
    for start in range(0, 250, 2):
        await put(backend, keys[start], Image(Version(BORN, 1), {"_id": keys[start]}))
    images = await backend.store.images(SHARED, keys)
    assert [found.present for found in images] == [n % 2 == 0 for n in range(250)]
    assert all(found.document == {"_id": key} for key, found in zip(keys, images, strict=True) if found.present)


async def test_images_of_keys_of_different_types_do_not_get_mixed_up(backend: Backend) -> None:
    mark = fresh_id()
    keys: list[Any] = [mark, ObjectId(mark), {"k": mark}, {"k": ObjectId(mark)}, int(mark[-6:], 16)]
    for key in keys[:-1]:
        await put(backend, key, Image(Version(BORN, 1), {"_id": key}))
    images = await backend.store.images(SHARED, keys)
    assert [found.document for found in images] == [*({"_id": key} for key in keys[:-1]), None]


# --- the life of a store ----------------------------------------------------------------------------------------


async def test_preparing_again_changes_nothing(backend: Backend) -> None:
    collection = await backend.fresh()
    await backend.store.apply(collection, Insert(1, {"_id": 1, "owner": "ada"}, BORN), fresh_id())
    await backend.store.prepare([CollectionSpec(collection)])
    await backend.store.prepare([CollectionSpec(collection)])
    assert_image(await backend.store.image(collection, 1), Image(Version(BORN, 1), {"_id": 1, "owner": "ada"}))


async def test_dropping_removes_everything_and_the_collection_can_be_made_again(backend: Backend) -> None:
    collection = await backend.fresh()
    await backend.store.apply(collection, Insert(1, {"_id": 1}, BORN), fresh_id())
    await backend.store.put(collection, 2, Image(Tombstone(fresh_id())), ABSENT)
    await backend.store.drop(collection)
    await backend.store.drop(collection)
    await backend.store.prepare([CollectionSpec(collection)])
    assert await backend.store.images(collection, [1, 2]) == [Image(ABSENT), Image(ABSENT)]
    assert await backend.store.count(collection, {}) == 0


async def test_a_ping_comes_back_and_the_description_is_plain_and_keeps_the_credentials(backend: Backend) -> None:
    await backend.store.ping()
    described = backend.store.describe()
    assert {"kind"} <= described.keys()
    assert "secret" not in json.dumps(described)
