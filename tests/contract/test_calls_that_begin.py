"""With Motor a call begins before it is awaited, with PyMongo when it is: in every phase, as with the bare driver."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import uuid
from collections import UserDict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from fastapi import BackgroundTasks
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from shadow import Shadow
from shadow.config import CollectionSettings
from shadow.model.phase import Phase, StoreName
from shadow.stores.mongo.drivers import COLLECTION_VERBS
from shadow.surface.calls.argument_table import VERBS
from shadow.surface.calls.futures import BegunCalls
from tests.support.shims import settings_for
from tests.support.topologies import drop

PHASES: Final = {
    "off": CollectionSettings(phase=Phase.OFF),
    "shadow": CollectionSettings(phase=Phase.SHADOW),
    "dynamo": CollectionSettings(phase=Phase.SHADOW, primary=StoreName.DYNAMO),
}
CALLS: Final[dict[str, Callable[[Any], Awaitable[Any]]]] = {
    "insert_one": lambda things: things.insert_one({"_id": "one"}),
    "insert_many": lambda things: things.insert_many([{"_id": "a"}, {"_id": "b"}]),
    "update_many": lambda things: things.update_many({}, {"$set": {"n": 2}}),
    "find_one": lambda things: things.find_one({"_id": 1}),
    "find_one_and_update": lambda things: things.find_one_and_update({"_id": 1}, {"$set": {"n": 3}}),
    "count_documents": lambda things: things.count_documents({}),
    "distinct": lambda things: things.distinct("n"),
    "to_list": lambda things: things.find().to_list(None),
    "close": lambda things: things.find().close(),
    "to_list of aggregate": lambda things: things.aggregate([]).to_list(None),
    "index_information": lambda things: things.index_information(),
    "create_index": lambda things: things.create_index("n"),
    "list_collection_names": lambda things: things.database.list_collection_names(),
    "command": lambda things: things.database.command("ping"),
    "drop": lambda things: things.drop(),
}


@pytest_asyncio.fixture(params=PHASES)
async def make(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> AsyncIterator[Callable[[str], Shadow]]:
    """Makes a Shadow with a driver, in one phase."""
    name = f"t{uuid.uuid4().hex[:12]}"

    def made(driver: str) -> Shadow:
        settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, name, [], driver=driver)
        entry = PHASES[request.param].model_copy(update={"forced": "a test"})
        return Shadow(settings.model_copy(update={"collections": {"things": entry}}))

    yield made
    drop(mongo_url, name)


async def until_there(things: Any, key: Any) -> None:
    async with asyncio.timeout(60):
        while await things.find_one({"_id": key}) is None:  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)


async def test_motor_gives_futures_of_calls_that_have_begun(make: Callable[[str], Shadow]) -> None:
    async with make("motor") as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_one({"_id": 1, "n": 1})
        for name, call in CALLS.items():
            made = call(things)
            assert asyncio.isfuture(made), name
            await made
        kept = things.insert_one({"_id": "unawaited"})  # as an application that looks at it later or never
        await until_there(things, "unawaited")
        await asyncio.wait([kept])
        calls = [things.find_one({"_id": "unawaited"}), things.count_documents({})]
        done, left = await asyncio.wait(calls)
        assert not left
        assert {repr(each.result()) for each in done} == {"1", "{'_id': 'unawaited'}"}


async def test_callbacks_errors_and_context_are_the_futures(make: Callable[[str], Shadow]) -> None:
    async with make("motor") as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_one({"_id": 1})
        told: list[Any] = []
        twice = things.insert_one({"_id": 1})
        twice.add_done_callback(lambda future: told.append(future.exception()))
        with pytest.raises(DuplicateKeyError):
            await twice
        await asyncio.sleep(0)
        assert [type(each) for each in told] == [DuplicateKeyError]
        with pytest.raises(StopAsyncIteration):
            await things.find({"none": 1}).next()
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody")
        seen = await contextvars.copy_context().run(_asked_by, variable, things)
        assert seen == "somebody"
        gone = things.find_one({"_id": 1})
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await things.find_one({"_id": 1}) == {"_id": 1}


def _asked_by(variable: contextvars.ContextVar[str], things: Any) -> Any:
    variable.set("somebody")

    class Document(UserDict[str, Any]):
        """Tells who asks for it while it is encoded."""

        asked = "nobody yet"

        def __getitem__(self, name: str) -> Any:
            Document.asked = variable.get()
            return super().__getitem__(name)

    async def asked(call: Awaitable[Any]) -> str:
        await call
        return Document.asked

    return asked(things.insert_one(Document(_id="context")))


async def test_close_and_settled_wait_for_what_nobody_awaits(make: Callable[[str], Shadow]) -> None:
    shadow = make("motor")
    async with shadow:
        await shadow.prepare()
        for number in range(20):
            shadow["things"].insert_one({"_id": number})
        assert await shadow.settled(60)
        assert await shadow["things"].count_documents({}) == 20
        for number in range(20, 40):
            shadow["things"].insert_one({"_id": number})
    async with shadow:
        assert await shadow["things"].count_documents({}) == 40


async def test_pymongo_gives_coroutines_that_begin_when_they_are_awaited(make: Callable[[str], Shadow]) -> None:
    async with make("pymongo") as shadow:
        await shadow.prepare()
        things = shadow["things"]
        call = things.insert_one({"_id": 1})
        assert inspect.iscoroutine(call)
        await asyncio.sleep(0.1)
        assert await things.find_one({"_id": 1}) is None
        await call
        assert await asyncio.create_task(things.find_one({"_id": 1})) == {"_id": 1}


async def test_calls_left_at_the_end_are_cancelled() -> None:
    calls = BegunCalls()

    async def forever() -> None:
        await asyncio.sleep(3600)

    left = calls.begin(forever())
    assert calls.running == 1
    await calls.ended(0.05)
    assert calls.running == 1
    await calls.cancel()
    assert isinstance(left, asyncio.Task)
    assert left.cancelled()
    assert calls.running == 0


def test_without_a_loop_the_call_is_a_coroutine() -> None:
    async def one() -> int:
        return 1

    assert asyncio.run(BegunCalls().begin(one())) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("name", ["things", "others"])
async def test_a_background_task_of_a_framework_writes(make: Callable[[str], Shadow], driver: str, name: str) -> None:
    """Starlette awaits what is a coroutine function, and calls anything else in a thread, without a look at what that
    gives."""
    async with make(driver) as shadow:
        await shadow.prepare()
        collection = shadow[name]
        await collection.insert_one({"_id": "first"})
        assert inspect.iscoroutinefunction(collection.insert_one) == (driver == "pymongo")
        tasks = BackgroundTasks()
        tasks.add_task(collection.insert_one, {"_id": "later"})
        await tasks()
        await until_there(collection, "later")


async def test_the_verbs_are_coroutine_functions_where_pymongos_are(make: Callable[[str], Shadow]) -> None:
    async with make("pymongo") as shadow:
        for name in ("things", "others"):
            for verb in sorted(COLLECTION_VERBS - {"aggregate", "list_indexes", "watch"}):
                own = getattr(AsyncCollection, verb)
                if inspect.iscoroutinefunction(own) and verb in VERBS:
                    assert inspect.iscoroutinefunction(getattr(shadow[name], verb)), f"{name}.{verb}"
