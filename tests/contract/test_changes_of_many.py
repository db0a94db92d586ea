"""MongoDB's one command for many documents: every document comes to what it would have come to alone, whatever other
writers do between its steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio
from bson import ObjectId
from pymongo.errors import DuplicateKeyError, OperationFailure, WriteConcernError, WriteError

from shadow.assess.measure import is_stamp as assessed_as_stamp
from shadow.model.operation import ANY, Applied, Change, Delete, Insert, Query, Replace, Update
from shadow.model.outcome import Outcome, classify
from shadow.model.version import ABSENT, Document, Image, Key, Version, fresh_id
from shadow.stores.base import Batching
from shadow.stores.mongo import changes_of_many
from shadow.stores.mongo.changes_of_many import MongoMany
from shadow.stores.mongo.durability import Durability
from shadow.surface.direct.stamping import is_stamp as hidden_as_stamp
from tests.support.backends import Backend, open_backend
from tests.support.drawn import Draws, in_one_deployment
from tests.support.images import assert_image

pytestmark = [pytest.mark.asyncio(loop_scope="module"), in_one_deployment("mongo_backend")]

Step = Callable[[], Awaitable[Any]]
Result = Applied | Exception | None
INC = {"$inc": {"n": 1}}


@pytest.fixture(scope="module", params=["mongo-one", "mongo-replicas"])
def mongo_backend(request: pytest.FixtureRequest, draws: Draws) -> Backend:
    return open_backend(request.param, request.getfixturevalue, draws.of_node(request.node))


@pytest_asyncio.fixture(loop_scope="module")
async def things(mongo_backend: Backend) -> AsyncIterator[Things]:
    await mongo_backend.open()
    yield Things(mongo_backend, await mongo_backend.fresh())


class Things:
    """A collection of one's own."""

    def __init__(self, backend: Backend, collection: str) -> None:
        self.backend = backend
        self.store = backend.store
        self.collection = collection

    async def planted(self, count: int) -> list[Key]:
        """Documents at several versions, some of them without any."""
        keys = [f"k{n:03}" for n in range(count)]
        for place, key in enumerate(keys):
            if place % 5 == 4:
                await self.backend.plant(self.collection, {"_id": key, "n": place})
                continue
            await self.apply(Insert(key, {"_id": key, "n": place}, fresh_id()))
            for _ in range(place % 3):
                await self.apply(Update(key, {}, {"$set": {"seen": place}}, ""))
        return keys

    async def apply(self, change: Change) -> Applied | None:
        return await self.store.apply(self.collection, change, fresh_id())

    async def many(self, changes: Sequence[Change]) -> list[Result]:
        assert isinstance(self.store, Batching)
        return list(await self.store.change_many(self.collection, changes, [fresh_id() for _ in changes]))

    async def images(self, keys: Sequence[Key]) -> list[Image]:
        return await self.store.images(self.collection, keys)


def updates(keys: Sequence[Key], update: Any, filter: Document | None = None) -> list[Update]:
    born = fresh_id if isinstance(update, list) else str
    filter = {} if filter is None else filter
    return [Update(key, filter, update, born()) for key in keys]


def deletes(keys: Sequence[Key], filter: Document | None = None) -> list[Delete]:
    filter = {} if filter is None else filter
    return [Delete(key, filter, fresh_id()) for key in keys]


def no_document_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def alone(self: MongoMany, place: int) -> Applied | None:
        raise AssertionError(f"{self.changes[place].key} was changed alone")

    monkeypatch.setattr(MongoMany, "alone", alone)


def before_and_after(monkeypatch: pytest.MonkeyPatch, before: Step | None = None, after: Step | None = None) -> None:
    """What other writers do before the command, when the versions have been read, and after it."""
    real = MongoMany.change

    async def change(self: MongoMany, images: Mapping[int, Image]) -> int:
        monkeypatch.undo()
        if before is not None:
            await before()
        changed = await real(self, images)
        if after is not None:
            await after()
        return changed

    monkeypatch.setattr(MongoMany, "change", change)


# --- alone in the world -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "update", [INC, {"$set": {"n": 3}, "$push": {"list": "x"}}, [{"$set": {"n": {"$add": ["$n", 1]}}}]], ids=str
)
async def test_many_updates_come_to_what_each_would_come_to_alone(
    things: Things, monkeypatch: pytest.MonkeyPatch, update: Any
) -> None:
    keys = await things.planted(23)
    before = await things.images(keys)
    no_document_alone(monkeypatch)
    changes = updates([*keys, "missing"], update, {"n": {"$ne": 7}})
    results = await things.many(changes)
    assert [place for place, each in enumerate(results) if each is None] == [7, 23]
    for change, pre, result, now in zip(changes, before, results, await things.images(keys), strict=False):
        if result is None:
            assert_image(now, pre)
            continue
        assert isinstance(result, Applied)
        assert_image(result.pre, pre)
        assert isinstance(pre.state, Version)
        assert result.post.state == (Version(change.born, 1) if change.born else pre.state.next())
        assert_image(now, result.post)


async def test_what_a_batch_leaves_in_a_document_is_known_as_a_version(things: Things) -> None:
    """It is hidden where the driver's own calls are used, and a survey does not take it for the application's."""
    keys = await things.planted(3)
    await things.many(updates(keys, INC))
    driver: Any = things.store
    stamps = [each["_shadow"] async for each in driver.driver[things.collection].find()]
    assert len(stamps) == 3
    assert all("m" in each and assessed_as_stamp(each) and hidden_as_stamp(each) for each in stamps)


async def test_many_deletes(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = await things.planted(12)
    before = await things.images(keys)
    no_document_alone(monkeypatch)
    results = await things.many(deletes(keys, {"_id": {"$ne": "k003"}}))
    assert [place for place, each in enumerate(results) if each is None] == [3]
    for pre, result, now in zip(before, results, await things.images(keys), strict=True):
        if isinstance(result, Applied):
            assert result.pre.state == pre.state
            assert result.key == pre.document["_id"]  # and nothing else of it: only the version was read
            assert (result.post, now) == (Image(ABSENT), Image(ABSENT))
            assert result.counted


async def test_an_array_is_changed_where_the_filter_or_an_array_filter_matches(things: Things) -> None:
    for key in "ab":
        await things.apply(Insert(key, {"_id": key, "list": [{"n": 1}, {"n": 2}]}, fresh_id()))
    by_place = updates("ab", {"$set": {"list.$.hit": True}}, {"list.n": 2})
    filters = ({"each.n": 1},)
    filter: Document = {}
    by_filter = [
        Update(each, filter, by_place[0].update | {"$set": {"list.$[each].low": True}}, "", array_filters=filters)
        for each in "ab"
    ]
    by_filter = [Update(each.key, filter, by_filter[0].update, "", array_filters=filters) for each in by_filter]
    for changes in (by_place, by_filter):
        for result, now in zip(await things.many(changes), await things.images("ab"), strict=True):
            assert isinstance(result, Applied)
            assert_image(now, result.post)
    assert (await things.images("a"))[0].document == {
        "_id": "a",
        "list": [{"n": 1, "low": True}, {"n": 2, "hit": True}],
    }


async def test_keys_of_every_kind(things: Things) -> None:
    keys: list[Key] = [1, True, 2.5, "1", None, b"1", ObjectId(), {"a": 1}, {"a": 1.5}, float("nan")]
    for place, key in enumerate(keys):
        await things.apply(Insert(key, {"_id": key, "place": place}, fresh_id()))
    results = await things.many(updates(keys, INC))
    places = [each.post.document["place"] for each in results if isinstance(each, Applied) and each.post.document]
    assert places == list(range(len(keys)))


async def test_large_documents_are_read_and_changed_in_parts(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes_of_many, "_MOST_BYTES", 600)
    monkeypatch.setattr(changes_of_many, "_PAGE", 3)
    keys = await things.planted(25)
    before = await things.images(keys)
    results = await things.many(updates(keys, INC))
    for pre, result in zip(before, results, strict=True):
        assert isinstance(result, Applied)
        assert_image(result.pre, pre)


# --- among others -----------------------------------------------------------------------------------------------


async def test_what_changes_before_the_command_is_changed_as_it_is_then(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await things.planted(9)
    inc, replaced, gone, out, again = keys[:5]

    async def others() -> None:
        await things.apply(Update(inc, {}, {"$inc": {"n": 100}}, ""))
        await things.apply(Replace(replaced, {}, {"_id": replaced, "n": 500}, fresh_id()))
        await things.apply(Delete(gone, {}, fresh_id()))
        await things.apply(Update(out, {}, {"$set": {"n": -1}}, ""))
        await things.apply(Delete(again, {}, fresh_id()))
        await things.apply(Insert(again, {"_id": again, "n": 700}, fresh_id()))

    before_and_after(monkeypatch, others)
    results = await things.many(updates(keys, INC, {"n": {"$gte": 0}}))
    now = await things.images(keys)
    assert [None if each.document is None else each.document["n"] for each in now] == [
        101, 501, None, -1, 701, 6, 7, 8, 9,
    ]  # fmt: skip
    for result, image in zip(results, now, strict=True):
        if image.document is None or image.document["n"] == -1:
            assert result is None
        else:
            assert isinstance(result, Applied)
            assert_image(result.post, image)


async def test_what_changes_after_the_command_was_changed_by_it(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One other writer before the command makes it look; those after it hide nothing that it did."""
    keys = await things.planted(6)
    before = await things.images(keys)

    async def first() -> None:
        await things.apply(Update(keys[0], {}, {"$inc": {"n": 100}}, ""))

    async def then() -> None:
        await things.apply(Update(keys[1], {}, {"$inc": {"n": 100}}, ""))
        await things.apply(Update(ANY, {"_id": keys[2]}, {"$inc": {"n": 100}}, "", new=ObjectId()))
        await things.apply(Delete(keys[3], {}, fresh_id()))

    before_and_after(monkeypatch, first, then)
    results = await things.many(updates(keys, INC))
    for pre, result in zip(before[1:], results[1:], strict=True):
        assert isinstance(result, Applied)
        assert_image(result.pre, pre)
        assert isinstance(pre.state, Version)
        assert result.post.state == pre.state.next()
    assert isinstance(results[0], Applied)
    assert results[0].post.document is not None
    assert results[0].post.document["n"] == 101
    found = {hit.key: hit.document["n"] async for page in things.store.find(things.collection, Query()) for hit in page}
    assert found == {keys[0]: 101, keys[1]: 102, keys[2]: 103, keys[4]: 5, keys[5]: 6}


async def test_what_nobody_can_tell_is_unknown_and_is_not_changed_again(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replacement comes before the command here, and after it there: its number alone does not say where it has
    changed something."""
    keys = await things.planted(6)

    async def replace(key: Key) -> None:
        await things.apply(Replace(key, {}, {"_id": key, "n": 500}, fresh_id()))

    before_and_after(monkeypatch, lambda: replace(keys[0]), lambda: replace(keys[1]))
    results = await things.many(updates(keys, INC))
    for each in results[:2]:
        assert isinstance(each, OperationFailure)
        assert classify(each) is Outcome.UNKNOWN
    assert all(isinstance(each, Applied) for each in results[2:])
    now = await things.images(keys[:2])
    assert [each.document and each.document["n"] for each in now] == [500, 500]


async def test_deletes_beside_other_deletes_are_counted_and_all_replicated(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await things.planted(8)

    async def others() -> None:
        await things.apply(Delete(keys[0], {}, fresh_id()))
        await things.apply(Delete(keys[1], {}, fresh_id()))
        await things.apply(Update(keys[2], {}, INC, ""))

    before_and_after(monkeypatch, others)
    results = await things.many(deletes(keys))
    assert await things.images(keys) == [Image(ABSENT)] * len(keys)
    made = [each for each in results if isinstance(each, Applied)]
    assert len(made) == len(keys)
    assert sum(each.counted for each in made) == len(keys) - 2


async def test_what_may_be_rolled_back_is_asked_for_and_its_outcome_is_unknown(
    things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a write concern that proves nothing, and where the driver knows no term of the primary."""
    keys = await things.planted(3)
    asked: list[Any] = []

    async def prove(self: Durability, collection: Any, before: Any, limit_ms: int) -> None:
        asked.append(before)
        raise WriteConcernError("a majority is not known to have it", 64)

    monkeypatch.setattr(Durability, "unproven", True)
    monkeypatch.setattr(Durability, "election", lambda self: None)
    monkeypatch.setattr(Durability, "prove", prove)
    results = await things.many(updates([*keys, "missing"], INC))
    assert asked == [None]
    assert results.pop() is None
    assert all(isinstance(each, WriteConcernError) for each in results)


# --- refused ----------------------------------------------------------------------------------------------------


async def test_a_refusal_is_that_of_the_document_alone_and_ends_the_batch(things: Things) -> None:
    keys = await things.planted(5)
    await things.store.ensure_index(things.collection, (("n", 1),), "by-n")
    await unique(things, "once")
    results = await things.many(updates(keys, {"$set": {"once": 1}, "$inc": {"n": 1}}))
    now = await things.images(keys)
    changed = [place for place, each in enumerate(now) if each.document and "once" in each.document]
    assert len(changed) == 1
    assert [place for place, each in enumerate(results) if isinstance(each, Applied)] == changed
    errors = [each for each in results if isinstance(each, Exception)]
    assert errors
    assert all(
        isinstance(each, DuplicateKeyError) and dict((each.details or {})["keyPattern"]) == {"once": 1}
        for each in errors
    )


async def test_an_update_that_the_server_refuses_changes_nothing(things: Things) -> None:
    keys = await things.planted(3)
    before = await things.images(keys)
    results = await things.many(updates(keys, {"$set": {"n.deeper": 1}}))
    assert all(isinstance(each, WriteError) and each.code == 28 for each in results if each is not None)
    assert any(results)
    assert await things.images(keys) == before


async def unique(things: Things, field: str) -> None:
    driver: Any = things.store
    await driver.driver[things.collection].create_index(field, unique=True, sparse=True)
