"""Every public attribute of the drivers' objects is there on what stands in for them, or is refused by a name that the
manual has: found by introspection of the installed drivers, in each phase."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import InvalidOperation

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.phase import Phase, StoreName
from shadow.stores.mongo.drivers import connect
from tests.support.shims import settings_for
from tests.support.topologies import drop, root_url

pytestmark = [
    pytest.mark.plain_options(reason="attributes do not depend on them"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

MANUAL: Final = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text("utf-8")
_OF_LATENT: Final = frozenset({"args", "kwargs", "start"})
"""What Motor's cursor of `aggregate` keeps of its call, in attributes that it does not document."""
WAYS: Final = [(Phase.OFF, StoreName.MONGO), (Phase.SHADOW, StoreName.MONGO), (Phase.SHADOW, StoreName.DYNAMO)]


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def bare(mongo_url: str, driver: str) -> AsyncIterator[Any]:
    client = connect(root_url(mongo_url), driver)
    yield client["bare"]
    ending = client.close()
    if inspect.isawaitable(ending):
        await ending


async def opened(cursor: Any, driver: str) -> Any:
    return await cursor if driver == "pymongo" else cursor


def public(thing: Any) -> set[str]:
    """The names that an object has, with those of its instances."""
    return {name for name in {*dir(type(thing)), *vars(thing)} if not name.startswith("_")} - _OF_LATENT


def found(thing: Any, name: str) -> Any:
    try:
        value = getattr(thing, name)
    except (AttributeError, UnsupportedOperation) as error:
        return error
    if inspect.iscoroutine(value):
        value.close()
    return value


def faults(what: str, ours: Any, theirs: Any, *, name_of: str) -> list[str]:
    wrong = []
    for name in sorted(public(theirs)):
        mine, expected = found(ours, name), found(theirs, name)
        if isinstance(mine, UnsupportedOperation):
            if f"`{name}`" not in MANUAL:
                wrong.append(f"{what}.{name} is refused, and the manual does not say so")
        elif isinstance(mine, AttributeError):
            if not isinstance(expected, AttributeError):
                wrong.append(f"{what}.{name} is missing: {mine}")
        elif name_of and str(getattr(mine, "full_name", "")).endswith(f".{name_of}.{name}"):
            wrong.append(f"{what}.{name} is taken for a collection")
    return wrong


async def test_each_is_there_or_refused_by_a_name_of_the_manual(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, driver: str, bare: Any
) -> None:
    wrong: list[str] = []
    for phase, primary in WAYS:
        name = f"t{uuid.uuid4().hex[:12]}"
        folder = tmp_path / name
        folder.mkdir()
        settings = settings_for(
            folder, mongo_url, dynamodb_local_url, name, ["things"], driver=driver, phase=phase, primary=primary
        )
        async with Shadow.from_settings(settings) as shadow:
            await shadow.prepare()
            things, theirs = shadow["things"], bare["things"]
            pairs = {
                "collection": (things, theirs, "things"),
                "cursor": (things.find(), theirs.find(), ""),
                "answer": (
                    await opened(things.aggregate([]), driver), await opened(theirs.aggregate([]), driver), ""
                ),
                "indexes": (
                    await opened(things.list_indexes(), driver), await opened(theirs.list_indexes(), driver), ""
                ),
                "database": (shadow, bare, ""),
                "client": (shadow.client, bare.client, ""),
                "collection beside": (shadow["beside"], theirs, "beside"),
            }  # fmt: skip
            for what, (mine, own, called) in pairs.items():
                wrong += [f"{phase} {primary}: {text}" for text in faults(what, mine, own, name_of=called)]
            await used(things, driver)
        drop(mongo_url, name)
    assert wrong == []


async def used(things: Any, driver: str) -> None:
    """What the attributes are good for."""
    await things.insert_many([{"_id": n, "n": n} for n in range(5)])
    for cursor in (things.find().sort("_id"), await opened(things.aggregate([{"$sort": {"_id": 1}}]), driver)):
        if driver == "motor":
            assert (cursor.started, cursor.closed) == (False, False)
            assert cursor.next_object() is None
            assert await cursor.fetch_next
            assert cursor.next_object() == {"_id": 0, "n": 0}
            assert cursor.started
            assert cursor.get_io_loop().is_running()
        else:
            assert await cursor.next() == {"_id": 0, "n": 0}
            assert not hasattr(cursor, "delegate")
        assert await cursor.to_list(2) == [{"_id": 1, "n": 1}, {"_id": 2, "n": 2}]
        if hasattr(cursor, "try_next"):
            assert await cursor.try_next() == {"_id": 3, "n": 3}
        await cursor.close()
        assert driver == "pymongo" or cursor.closed
    rewound = things.find({}, batch_size=2).sort("_id")
    assert len(await rewound.to_list(3)) == 3
    assert len(await rewound.to_list(3)) == 2
    with pytest.raises(InvalidOperation):
        rewound.limit(1)
    again = rewound.rewind()
    again = await again if inspect.isawaitable(again) else again
    assert [each["_id"] async for each in again.limit(2)] == [0, 1]
    with pytest.raises((IndexError, TypeError)):
        things.find()[1]


async def test_a_condition_in_javascript_is_mongodbs(
    tmp_path: Path, mongo_url: str, dynamodb_local_url: str, driver: str
) -> None:
    for primary in StoreName:
        name = f"t{uuid.uuid4().hex[:12]}"
        folder = tmp_path / name
        folder.mkdir()
        settings = settings_for(folder, mongo_url, dynamodb_local_url, name, ["things"], driver=driver, primary=primary)
        async with Shadow.from_settings(settings) as shadow:
            await shadow.prepare()
            await shadow["things"].insert_many([{"_id": n, "n": n} for n in range(5)])
            if primary is StoreName.MONGO:
                seen = await shadow["things"].find({"n": {"$gt": 1}}).where("this.n < 4").sort("_id").to_list(None)
                assert [each["_id"] for each in seen] == [2, 3]
            else:
                with pytest.raises(UnsupportedOperation, match="where"):
                    shadow["things"].find().where("this.n < 4")
        drop(mongo_url, name)


def test_what_a_driver_gets_later_is_seen() -> None:
    """The test above looks at the installed drivers, and not at a list."""
    assert {"find", "create_search_index"} <= public(AsyncMongoClient(connect=False)["a"]["b"])
    assert pymongo.version_tuple >= (4, 12)
