"""Names that begin with a dollar, as a pipeline makes them, are the server's on both primaries, and on both stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from shadow.model.phase import StoreName
from tests.support.shims import assert_level, prepared


def _field(name: str, value: Any = 1) -> dict[str, Any]:
    return {"$replaceWith": {"$setField": {"field": {"$literal": name}, "value": value, "input": "$$ROOT"}}}


UPDATES: Final[list[Any]] = [
    [_field("$a")],
    [_field("$a"), {"$set": {"v": 2}}],
    [{"$set": {"x": 1}}, _field("$id")],
    [_field("$ref", "r")],
    [_field("a.b")],
    [_field("$a", {"$literal": {"$b": {"$c": 1}}})],
    [{"$replaceWith": {"$literal": {"_id": 1, "$q": {"$r": [1]}}}}],
    [_field("$a", {"$literal": None}), _field("$a", "$$REMOVE")],
    {"$set": {"z": 1}},
]
VERBS: Final[dict[str, Any]] = {
    "update_one": lambda c, u: c.update_one({"_id": 1}, u),
    "update_many": lambda c, u: c.update_many({"n": 0}, u),
    "bulk_write": lambda c, u: c.bulk_write([UpdateOne({"_id": 1}, u)]),
    "find_one_and_update": lambda c, u: c.find_one_and_update({"_id": 1}, u, return_document=True),
    "upsert": lambda c, u: c.update_one({"_id": 1, "m": 3}, u, upsert=True),
}


async def _left(target: Any, verb: str, update: Any, before: dict[str, Any]) -> Any:
    await target.delete_many({})
    if verb != "upsert":
        await target.insert_one(before)
    try:
        answer = await VERBS[verb](target, update)
    except PyMongoError as error:
        return type(error), getattr(error, "code", None)
    counts = [getattr(answer, name, None) for name in ("matched_count", "modified_count")]
    return counts, await target.find({}).to_list(None)


@pytest.mark.takes_turns
@pytest.mark.parametrize("primary", list(StoreName))
async def test_names_that_begin_with_a_dollar(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, primary: StoreName
) -> None:
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], primary=primary) as shadow:
        bare = shadow._engine.driver()["bare"]
        for before in ({"_id": 1, "n": 0}, {"_id": 1, "n": 0, "$a": 5}):
            for update in UPDATES:
                for verb in VERBS:
                    expected = await _left(bare, verb, update, dict(before))
                    assert await _left(shadow["things"], verb, update, dict(before)) == expected, (update, verb)
            await assert_level(shadow)
