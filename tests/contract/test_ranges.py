"""Ranges of both stores: together they hold every document once, of every type of key, and can be gone on with."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from bson import Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from shadow import Shadow
from shadow.model.order import key_digest
from shadow.model.phase import StoreName
from shadow.model.version import ABSENT, Image, Tombstone, Version
from shadow.stores.ranges import Ranges
from tests.support.shadows import Site

NAME = "things"

KEYS: list[Any] = [
    *(ObjectId() for _ in range(40)),
    *(f"k{number:03}" for number in range(40)),
    *range(40),
    *(number + 0.5 for number in range(10)),
    *({"a": number, "b": "x"} for number in range(10)),
    *(dt.datetime(2020, 1, 1 + day) for day in range(10)),
    *(bytes([number, 7]) for number in range(5)),
    *(Decimal128(f"{number}.25") for number in range(5)),
    None, True, False, Int64(2**40), Timestamp(7, 1), MinKey(), MaxKey(), "", "é" * 400,
]  # fmt: skip


def image(key: Any) -> Image:
    return Image(Version("b" * 24, 3), {"_id": key, "n": 1, "text": "x"})


@pytest.fixture(params=["mongo", "dynamo"])
async def stocked(
    request: pytest.FixtureRequest, mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str,
    tmp_path: Any,
) -> AsyncIterator[tuple[Shadow, StoreName, Ranges]]:  # fmt: skip
    """A store with a document under every key, put there in one call."""
    site = Site(
        mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"),
        limits={"operation": 30.0}, patience=10.0,
    )  # fmt: skip
    name = StoreName(request.param)
    async with site.shadow() as shadow:
        await shadow.prepare()
        sides = shadow.admin.sides(NAME)
        ranges = sides.ranges[name]
        for key, done in zip(KEYS, await ranges.put_absent(NAME, [(key, image(key)) for key in KEYS]), strict=True):
            assert done or await sides.stores[name].put(NAME, key, image(key), ABSENT)
        yield shadow, name, ranges


async def walked(ranges: Ranges, within: Any, place: Any = None, *, size: int = 7, whole: bool = True) -> list[Any]:
    keys = []
    walk = ranges.walk(NAME, within, place, size=size, whole=whole, filter={})
    async with aclosing(walk) as batches:
        async for batch in batches:
            keys += [key for key, _ in batch.images]
    return keys


def digests(keys: list[Any]) -> list[str]:
    return sorted(key_digest(key) for key in keys)


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("whole", [True, False])
async def test_every_document_is_in_exactly_one_range(stocked: Any, parts: int, whole: bool) -> None:
    _, _, ranges = stocked
    found = [key for within in await ranges.cut(NAME, parts) for key in await walked(ranges, within, whole=whole)]
    assert digests(found) == digests(KEYS)


async def test_a_range_can_be_gone_on_with_from_every_place(stocked: Any) -> None:
    _, _, ranges = stocked
    for within in await ranges.cut(NAME, 2):
        seen: list[Any] = []
        walk = ranges.walk(NAME, within, None, size=30, whole=True, filter={})
        async with aclosing(walk) as batches:
            async for batch in batches:
                seen += [key for key, _ in batch.images]
                rest = await walked(ranges, within, batch.place, size=30)
                assert digests(seen + rest) == digests(await walked(ranges, within))


async def test_one_document_at_a_time_comes_to_an_end(stocked: Any) -> None:
    _, _, ranges = stocked
    found = [key for within in await ranges.cut(NAME, 1) for key in await walked(ranges, within, size=1)]
    assert digests(found) == digests(KEYS)


async def test_places_outlive_the_document_that_they_name(stocked: Any) -> None:
    shadow, name, ranges = stocked
    (within,) = await ranges.cut(NAME, 1)
    walk = ranges.walk(NAME, within, None, size=20, whole=True, filter={})
    async with aclosing(walk) as batches:
        first = await anext(batches)
    last = first.images[-1][0]
    assert await shadow.admin.sides(NAME).stores[name].put(NAME, last, Image(Tombstone("t" * 24)), image(last).state)
    rest = await walked(ranges, within, first.place)
    assert digests([key for key, _ in first.images] + rest) == digests(KEYS)


async def test_a_look_answers_in_order_what_is_there(stocked: Any) -> None:
    _, _, ranges = stocked
    wanted = [*KEYS[::-1], "not there"]
    seen = await ranges.look(NAME, wanted, whole=True)
    assert [each.document for each in seen[:-1]] == [image(key).document for key in KEYS[::-1]]
    assert {each.state for each in seen[:-1]} == {Version("b" * 24, 3)}
    assert seen[-1].state == ABSENT
    quick = await ranges.look(NAME, wanted, whole=False)
    assert [each.state for each in quick] == [each.state for each in seen]


async def test_put_absent_meets_documents_and_tombstones(stocked: Any) -> None:
    shadow, name, ranges = stocked
    dead = Tombstone("d" * 24)
    store = shadow.admin.sides(NAME).stores[name]
    assert await store.put(NAME, "gone", Image(dead), ABSENT)
    stale = [(key, Image(Version("a" * 24, 1), {"_id": key, "n": 0})) for key in ("gone", "k001", "new one", "new two")]
    assert await ranges.put_absent(NAME, stale) == [False, False, True, True]
    seen = await ranges.look(NAME, ["gone", "k001", "new one"], whole=True)
    assert [each.state for each in seen] == [dead, Version("b" * 24, 3), Version("a" * 24, 1)]


async def test_a_walk_takes_a_filter_and_leaves_out_tombstones(stocked: Any) -> None:
    shadow, name, ranges = stocked
    assert await shadow.admin.sides(NAME).stores[name].put(NAME, "gone", Image(Tombstone("d" * 24)), ABSENT)
    found: list[Any] = []
    for within in await ranges.cut(NAME, 3):
        walk = ranges.walk(NAME, within, None, size=9, whole=False, filter={"_id": {"$gte": "k030"}})
        async with aclosing(walk) as batches:
            async for batch in batches:
                found += [key for key, _ in batch.images]
    assert digests(found) == digests([key for key in KEYS if isinstance(key, str) and key >= "k030"])
