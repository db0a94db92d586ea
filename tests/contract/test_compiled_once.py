"""A filter, an update, a projection or a pipeline of a call is compiled once, whichever store is the primary, though
the door, the primary, the secondary and the comparison need its compiled form."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import bson
import pytest
import pytest_asyncio

from shadow.mongoql import Filter, Pipeline, Updater, caching
from shadow.surface.collections.collection import Collection
from shadow.surface.collections.collection_base import Handle
from tests.support.backends import ROUTED, Backend, Routed, open_backend
from tests.support.drawn import Draws

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = Backend.shared


@pytest.fixture(scope="module", params=ROUTED)
def unopened_backend(request: pytest.FixtureRequest, draws: Draws) -> Backend:
    return open_backend(request.param, request.getfixturevalue, draws.of_node(request.node))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def things(backend: Backend) -> AsyncIterator[Collection]:
    """A collection of the application over the router."""
    assert isinstance(backend, Routed)
    yield Collection(backend.specs[NAME], cast(Handle, backend))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind was compiled."""
    counts = Counter[str]()

    def counting(kind: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            counts[kind] += 1
            return make(*arguments, **options)

        return counted

    for kind in (Filter, Updater, Pipeline):
        monkeypatch.setattr(kind, "__init__", counting(kind.__name__, kind.__init__))
    monkeypatch.setattr(caching._projections, "_compile", counting("Projection", caching._projections._compile))
    return counts


Call = Callable[[Collection, str], Awaitable[Any]]
"""A verb, with a value that no call before had: nothing is remembered of it."""

CALLS: dict[str, tuple[Call, dict[str, int]]] = {
    "find_one": (
        lambda things, new: things.find_one({"owner": new}, {f"a{new}": 1}),
        {"Filter": 1, "Projection": 1},
    ),
    "find": (lambda things, new: things.find({"owner": new}, {f"a{new}": 1}).to_list(), {"Filter": 1, "Projection": 1}),
    "count": (lambda things, new: things.count_documents({"owner": new}), {"Filter": 1}),
    "distinct": (lambda things, new: things.distinct("owner", {"owner": new}), {"Filter": 1}),
    "aggregate": (
        lambda things, new: things.aggregate([{"$group": {"_id": f"$a{new}", "n": {"$sum": 1}}}]).to_list(),
        {"Pipeline": 1},
    ),
    "update_one": (
        lambda things, new: things.update_one({"_id": "known", "n": {"$gt": 0}, new: None}, {"$set": {"was": new}}),
        {"Filter": 1, "Updater": 1},
    ),
    "update_one by a search": (
        lambda things, new: things.update_one({"n": {"$gt": 0}, new: None}, {"$set": {"was": new}}),
        {"Filter": 1, "Updater": 1},
    ),
    "an upsert": (
        lambda things, new: things.update_one({"owner": new}, {"$set": {"was": new}}, upsert=True),
        {"Filter": 1, "Updater": 1},
    ),
    "update_one by a pipeline": (
        lambda things, new: things.update_one({"_id": "known", new: None}, [{"$set": {"was": new}}]),
        {"Filter": 1, "Updater": 1, "Pipeline": 1},
    ),
    "find_one_and_update": (
        lambda things, new: things.find_one_and_update(
            {"_id": "known", new: None}, {"$set": {"was": new}}, projection={f"a{new}": 1}
        ),
        {"Filter": 1, "Updater": 1, "Projection": 1},
    ),
    "delete_one": (lambda things, new: things.delete_one({"_id": "none", "owner": new}), {"Filter": 1}),
}


@pytest.mark.parametrize("name", CALLS)
async def test_what_a_call_asks_is_compiled_once(
    things: Collection, backend: Routed, compiled: Counter[str], name: str
) -> None:
    await things.update_one({"_id": "known"}, {"$set": {"n": 1}}, upsert=True)
    call, expected = CALLS[name]
    for _ in range(2):  # the first time, what the stores themselves ask for is compiled too
        await backend.settled()
        compiled.clear()
        await call(things, f"x{uuid.uuid4().hex}")
    await backend.settled()
    assert compiled == expected


async def test_what_is_remembered_is_compared_by_the_object_itself() -> None:
    """Equal is not the same: `1` and `1.0` are equal in Python, and a filter or a document tells them apart."""
    by_whole, by_double = {"$set": {"n": 1}}, {"$set": {"n": 1.0}}
    for update in (by_whole, by_double):
        caching.remember_update(update, ())
    made = [caching.cached_update(update, ()).apply({}, None) for update in (by_whole, by_double)]
    assert [bson.encode(each) for each in made] == [bson.encode({"n": 1}), bson.encode({"n": 1.0})]


async def test_other_array_filters_are_another_update() -> None:
    update = {"$set": {"a.$[x]": 1}}
    small, large = ({"x": {"$lt": 5}},), ({"x": {"$gt": 5}},)
    caching.remember_update(update, small)
    assert caching.cached_update(update, large).apply({"a": [3, 7]}, None) == {"a": [3, 1]}
    assert caching.cached_update(update, small).apply({"a": [3, 7]}, None) == {"a": [1, 7]}


async def test_threads_may_remember_at_once() -> None:
    """Whoever asks gets the form of its own filter, whatever others put in its slot."""

    def work(number: int) -> bool:
        filters = [{"n": number * 1000 + each} for each in range(500)]
        return all(caching.remember_filter(each).matches(each) and not each.get("x") for each in filters) and all(
            caching.cached_filter(each).matches({"n": each["n"]}) for each in filters
        )

    assert all(await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(8))))


async def test_an_answer_may_be_changed_and_the_next_one_is_not(things: Collection) -> None:
    """A literal of a remembered pipeline goes out as a copy."""
    pipeline = [{"$match": {"_id": "known"}}, {"$project": {"given": {"$literal": [1, {"a": 2}]}}}]
    await things.update_one({"_id": "known"}, {"$set": {"n": 1}}, upsert=True)
    first = await things.aggregate(pipeline).to_list()
    first[0]["given"][1]["a"] = 3
    assert (await things.aggregate(pipeline).to_list())[0]["given"] == [1, {"a": 2}]
