"""Callers that meet each other: what each scenario makes many of them do at once, and what bare MongoDB comes to.

A scenario is given a collection and how many callers there are; it answers how many of them were told that they had
changed something, and asserts what must hold of the documents afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pymongo import ReturnDocument, UpdateOne

from shadow.model.version import Document

__all__ = ["SCENARIOS", "SPARE", "Scenario"]

SPARE: Final = 10
"""Documents beyond one for each caller: a caller that is told "none" has been told wrongly."""

Things = Any
Scenario = Callable[[Things, int], Awaitable[None]]


async def jobs(things: Things, count: int) -> None:
    await things.insert_many([{"_id": f"job-{n:03}", "st": "new", "rank": n} for n in range(count)])


async def at_once(callers: int, call: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """What each caller was answered; an error is nobody's answer."""
    return list(await asyncio.gather(*(call(number) for number in range(callers))))


async def standing(things: Things, filter: Document) -> list[Document]:
    return list(await things.find(filter).to_list(None))


def each_has_another(answers: list[Document | None]) -> None:
    names = [answer["_id"] for answer in answers if answer is not None]
    assert len(names) == len(answers), f"{len(answers) - len(names)} of {len(answers)} were told that nothing matches"
    assert len(set(names)) == len(names), "two callers have the same document"


async def take(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(
        callers, lambda n: things.find_one_and_update({"st": "new"}, {"$set": {"st": "taken", "by": n}})
    )
    each_has_another(answers)
    assert sorted(each["by"] for each in await standing(things, {"st": "taken"})) == list(range(callers))


async def take_the_first(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(
        callers,
        lambda n: things.find_one_and_update(
            {"st": "new"}, {"$set": {"st": "taken"}}, sort=[("rank", -1)], return_document=ReturnDocument.AFTER
        ),
    )
    each_has_another(answers)
    assert {each["rank"] for each in answers} == set(range(SPARE, callers + SPARE)), "not the first in order"


async def take_by_pipeline(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(callers, lambda n: things.find_one_and_update({"st": "new"}, [{"$set": {"st": "taken"}}]))
    each_has_another(answers)


async def take_more_than_there_are(things: Things, callers: int) -> None:
    few = max(1, callers // 2)
    await jobs(things, few)
    answers = await at_once(callers, lambda n: things.find_one_and_update({"st": "new"}, {"$set": {"st": "taken"}}))
    each_has_another([answer for answer in answers if answer is not None])
    assert sum(answer is not None for answer in answers) == few


async def update_one(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(callers, lambda n: things.update_one({"st": "new"}, {"$set": {"st": "taken"}}))
    assert [(each.matched_count, each.modified_count) for each in answers] == [(1, 1)] * callers
    assert len(await standing(things, {"st": "taken"})) == callers


async def update_by_bulk(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(callers, lambda n: things.bulk_write([UpdateOne({"st": "new"}, {"$set": {"st": "taken"}})]))
    assert [each.modified_count for each in answers] == [1] * callers
    assert len(await standing(things, {"st": "taken"})) == callers


async def replace(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(callers, lambda n: things.find_one_and_replace({"st": "new"}, {"st": "done", "by": n}))
    each_has_another(answers)
    assert sorted(each["by"] for each in await standing(things, {"st": "done"})) == list(range(callers))


async def delete_one(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(callers, lambda n: things.delete_one({"st": "new"}))
    assert [each.deleted_count for each in answers] == [1] * callers
    assert len(await standing(things, {})) == SPARE


async def delete_the_first(things: Things, callers: int) -> None:
    await jobs(things, callers + SPARE)
    answers = await at_once(callers, lambda n: things.find_one_and_delete({"st": "new"}, sort=[("rank", 1)]))
    each_has_another(answers)
    assert {each["rank"] for each in await standing(things, {})} == set(range(callers, callers + SPARE))


async def delete_more_than_there_are(things: Things, callers: int) -> None:
    few = max(1, callers // 2)
    await jobs(things, few)
    answers = await at_once(callers, lambda n: things.find_one_and_delete({}))
    each_has_another([answer for answer in answers if answer is not None])
    assert sum(answer is not None for answer in answers) == few
    assert await standing(things, {}) == []


async def hot_key(things: Things, callers: int) -> None:
    await things.insert_one({"_id": "hot", "n": 0})
    await at_once(callers, lambda n: things.update_one({"_id": "hot"}, {"$inc": {"n": 1}}))
    assert await things.find_one({"_id": "hot"}) == {"_id": "hot", "n": callers}


async def hot_filter(things: Things, callers: int) -> None:
    await things.insert_one({"_id": "hot", "name": "counter", "n": 0})
    await at_once(callers, lambda n: things.update_one({"name": "counter"}, {"$inc": {"n": 1}, "$push": {"by": n}}))
    (document,) = await standing(things, {})
    assert document["n"] == callers
    assert sorted(document["by"]) == list(range(callers))


async def upsert_by_key(things: Things, callers: int) -> None:
    await at_once(callers, lambda n: things.update_one({"_id": "hot"}, {"$inc": {"n": 1}}, upsert=True))
    assert await standing(things, {}) == [{"_id": "hot", "n": callers}]


async def upsert_by_filter(things: Things, callers: int) -> None:
    """MongoDB itself may insert several where none is there and several look at once, and no increment is lost."""
    answers = await at_once(callers, lambda n: things.update_one({"name": "counter"}, {"$inc": {"n": 1}}, upsert=True))
    documents = await standing(things, {})
    assert sum(each["n"] for each in documents) == callers
    assert {each.upserted_id for each in answers} - {None} == {each["_id"] for each in documents}


async def upsert_by_filter_where_one_is(things: Things, callers: int) -> None:
    await things.insert_one({"_id": "hot", "name": "counter", "n": 0})
    await at_once(callers, lambda n: things.update_one({"name": "counter"}, {"$inc": {"n": 1}}, upsert=True))
    assert await standing(things, {}) == [{"_id": "hot", "name": "counter", "n": callers}]


SCENARIOS: Final[dict[str, Scenario]] = {
    made.__name__: made
    for made in (
        take,
        take_the_first,
        take_by_pipeline,
        take_more_than_there_are,
        update_one,
        update_by_bulk,
        replace,
        delete_one,
        delete_the_first,
        delete_more_than_there_are,
        hot_key,
        hot_filter,
        upsert_by_key,
        upsert_by_filter,
        upsert_by_filter_where_one_is,
    )
}
