"""`$natural`, and paths that name no field, wherever an order or a hint can be given: refused, with nothing changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo.errors import OperationFailure

from shadow import Shadow, UnsupportedOperation
from shadow.config import parse
from shadow.model.version import fresh_id
from tests.support.drawn import driver_of
from tests.support.topologies import admit, drop

NATURAL: Final = [("$natural", -1)]
SET: Final = {"$set": {"z": 1}}
Ask = Callable[[Any, Any], Awaitable[Any]]

SORTED: Final[dict[str, Ask]] = {
    "find": lambda users, sort: users.find({}, sort=sort).to_list(None),
    "find_one": lambda users, sort: users.find_one({}, sort=sort),
    "cursor": lambda users, sort: users.find({}).sort(sort).to_list(None),
    "find_one_and_update": lambda users, sort: users.find_one_and_update({}, SET, sort=sort),
    "find_one_and_replace": lambda users, sort: users.find_one_and_replace({}, {"z": 1}, sort=sort),
    "find_one_and_delete": lambda users, sort: users.find_one_and_delete({}, sort=sort),
    "update_one": lambda users, sort: users.update_one({}, SET, sort=dict(sort)),
    "replace_one": lambda users, sort: users.replace_one({}, {"z": 1}, sort=dict(sort)),
    "bulk_write": lambda users, sort: users.bulk_write(
        [pymongo.DeleteOne({"_id": 0}), pymongo.UpdateOne({}, SET, sort=dict(sort))]
    ),
}
OTHERWISE: Final[dict[str, Callable[[Any], Awaitable[Any]]]] = {
    "hint": lambda users: users.find({}, hint=NATURAL).to_list(None),
    "hint of a cursor": lambda users: users.find({}).hint(NATURAL).to_list(None),
    "hint of one": lambda users: users.find_one({}, hint={"$natural": 1}),
    "hint of an update": lambda users: users.update_one({}, SET, hint=NATURAL),
    "hint of a delete": lambda users: users.delete_one({}, hint=NATURAL),
    "hint of a count": lambda users: users.count_documents({}, hint=NATURAL),
    "hint of a find-and-modify": lambda users: users.find_one_and_delete({}, hint=NATURAL),
    "hint of a bulk": lambda users: users.bulk_write([pymongo.UpdateOne({}, SET, hint=NATURAL)]),
    "min": lambda users: users.find({}, min=[("$natural", 1)]).to_list(None),
    "max": lambda users: users.find({}, max=[("$natural", 1)]).to_list(None),
}


@pytest.fixture(params=["mongo", "dynamo"])
async def users(request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path: Path):
    name = fresh_id()
    admit(mongo_url, f"orders_{name}")
    settings = parse(
        f"""
        mongo: {{url: "{mongo_url}", database: orders_{name}, driver: {driver_of(mongo_url, "motor")}}}
        dynamo: {{endpoint_url: "{dynamodb_local_url}", table_prefix: "{name}-",
                  access_key_id: a, secret_access_key: b}}
        journal: {{url: "sqlite:///{tmp_path}/shadow.db"}}
        defaults: {{primary: {request.param}, phase: dual_write, unsupported: refuse}}
        collections: {{users: {{}}}}
        """,
        {},
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        users = shadow["users"]
        await users.insert_many([{"_id": n, "a": 3 - n} for n in range(3)])
        yield users
        assert [each async for each in users.find().sort("_id")] == [{"_id": n, "a": 3 - n} for n in range(3)]
    drop(mongo_url, f"orders_{name}")


async def test_natural_order_is_refused_by_name_wherever_it_can_be_asked_for(users: Any) -> None:
    for name, ask in SORTED.items():
        with pytest.raises(UnsupportedOperation, match="natural"):
            await ask(users, NATURAL)
        assert await users.count_documents({}) == 3, name
    for ask in OTHERWISE.values():
        with pytest.raises(UnsupportedOperation):
            await ask(users)
    with pytest.raises(OperationFailure):
        await users.aggregate([{"$sort": {"$natural": -1}}]).to_list(None)


@pytest.mark.parametrize(
    ("path", "code"), [("", 40352), ("a.", 40353), (".a", 15998), ("a..b", 15998), ("$a", 16410), ("a.$b", 16410)]
)
async def test_a_path_that_names_no_field_is_refused_with_the_servers_code(users: Any, path: str, code: int) -> None:
    for name in ("find", "find_one", "cursor", "find_one_and_update"):
        with pytest.raises(OperationFailure) as raised:
            await SORTED[name](users, [(path, 1)])
        assert raised.value.code == code
    with pytest.raises(OperationFailure) as raised:
        await users.distinct(path)
    assert raised.value.code == code


async def test_distinct_comes_in_mongodbs_order(users: Any) -> None:
    await users.insert_many([{"_id": f"d{n}", "v": v} for n, v in enumerate([5, "x", None, 10.0, [7, 2], True, 3])])
    try:
        assert await users.distinct("v") == [None, 2, 3, 5, 7, 10.0, "x", True]
    finally:
        await users.delete_many({"v": {"$exists": True}})
