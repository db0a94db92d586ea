"""ODMs name fields by classes of `str` of their own; Beanie's call each comparison true, since it makes a condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.pair import Pair


class Expression(str):
    """Like the fields of Beanie's documents."""

    def __eq__(self, other: object) -> Any:
        return {"$eq": other}

    def __ne__(self, other: object) -> Any:
        return {"$ne": other}

    __hash__ = str.__hash__


N = Expression("n")
NAME = Expression("name")


@pytest.mark.parametrize(
    "sort", [[(N, -1)], {N: -1}, [(NAME, 1), (N, 1)], [NAME]], ids=["pairs", "mapping", "two", "names"]
)
async def test_a_sort_by_such_names_is_one_by_plain_names(tmp_path: Path, sort: Any) -> None:
    async with Pair(tmp_path) as pair:
        await pair.things.insert_many([{"_id": n, "n": n, "name": "ab"[n % 2]} for n in range(4)])
        items = list(sort.items()) if isinstance(sort, dict) else sort
        plain = [str.__str__(each) if isinstance(each, str) else (str.__str__(each[0]), each[1]) for each in items]
        wanted = await pair.things.find({}, sort=plain).to_list(None)
        assert await pair.things.find({}, sort=sort).to_list(None) == wanted
        assert await pair.things.find_one({}, sort=sort) == wanted[0]


async def test_one_such_name_orders_too(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        await pair.things.insert_many([{"_id": n, "n": -n} for n in range(3)])
        assert [each["_id"] async for each in pair.things.find({}).sort(N, 1)] == [2, 1, 0]
        assert [each["_id"] async for each in pair.things.find({}).sort(N)] == [2, 1, 0]


async def test_every_other_argument_takes_such_names(tmp_path: Path) -> None:
    async with Pair(tmp_path) as pair:
        await pair.things.insert_one({N: 1, NAME: "x", "_id": 1})
        assert await pair.things.find_one({N: 1}, [NAME]) == {"_id": 1, "name": "x"}
        assert await pair.things.find_one({N: {"$gt": 0}}, {N: 0}) == {"_id": 1, "name": "x"}
        assert await pair.things.distinct(NAME, {N: 1}) == ["x"]
        await pair.things.update_one({NAME: "x"}, {"$inc": {N: 4}, "$rename": {NAME: Expression("title")}})
        assert await pair.things.find_one({}) == {"_id": 1, "n": 5, "title": "x"}
        grouped = pair.things.aggregate([{"$group": {"_id": Expression("$title"), "sum": {"$sum": Expression("$n")}}}])
        assert await grouped.to_list(None) == [{"_id": "x", "sum": 5}]
        await pair.settled()
        pair.assert_equal()
