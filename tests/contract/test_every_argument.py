"""While MongoDB is the primary no argument of any verb is refused over two stores that the bare driver takes: every
argument of the driver's signatures, and every documented field of the commands, is given to both."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo.cursor_shared import CursorType

from shadow.model.phase import Phase
from shadow.stores.mongo.drivers import connect
from shadow.surface.calls.argument_table import VERBS, names_of
from tests.support.calls import DOCUMENTS, Call, calls
from tests.support.shims import assert_level, prepared
from tests.support.topologies import admit, allow_past_validators, drop

pytestmark = pytest.mark.plain_options(reason="the client of the bare collection is another one")

FIELDS: Final[dict[str, Any]] = {
    "allowDiskUse": True, "batchSize": 2, "bypassDocumentValidation": True, "collation": {"locale": "sv"},
    "comment": "why", "cursor": {"batchSize": 1}, "hint": "_id_", "let": {"a": 1}, "maxAwaitTimeMS": 5,
    "maxTimeMS": 60_000, "readConcern": {"level": "local"},
}  # fmt: skip
"""Fields of commands, for verbs whose driver takes any name."""
BOUNDS: Final = {"hint": "_id_", "max": [("_id", 3)], "min": [("_id", 1)]}
KINDS: Final = (CursorType.TAILABLE, CursorType.TAILABLE_AWAIT, CursorType.EXHAUST, 7)
OTHERWISE: Final = frozenset({
    ("update_one", "sort"), ("replace_one", "sort"),  # difference 16
    ("drop", ""), ("drop_indexes", ""), ("rename", ""), ("drop", "comment"), ("rename", "comment"),
    ("drop_indexes", "comment"),  # difference 510; `rename` is refused over two stores
})  # fmt: skip


def every_call() -> Iterator[Call]:
    yield from calls()
    for verb in VERBS:
        first = next(each for each in calls() if each.verb == verb)
        for name in names_of(verb) & FIELDS.keys():
            yield Call(verb, first.arguments, {name: FIELDS[name]})
    for verb in ("find", "find_one"):
        yield Call(verb, ({},), BOUNDS)
        yield from (Call(verb, ({},), {name: True}) for name in ("snapshot", "max_scan"))
        yield from (Call(verb, ({},), {"cursor_type": kind}) for kind in KINDS)


async def outcome(call: Call, collection: Any) -> Any:
    try:
        found = (await call.on(collection))[0]
    except Exception as error:
        return type(error), getattr(error, "code", None)
    return len(found) if isinstance(found, list) else type(found)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_no_argument_is_refused_that_the_driver_takes(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, driver: str
) -> None:
    options: dict[str, Any] = {"driver": driver, "phase": Phase.DUAL_WRITE}
    differing, verb = [], ""
    async with prepared(tmp_path, mongo_url, dynamodb_local_url, ["things"], **options) as shadow:
        admit(mongo_url, f"{shadow.name}bare")
        for database in (shadow.name, f"{shadow.name}bare"):
            allow_past_validators(mongo_url, database)
        client = connect(mongo_url, driver)
        bare = client[f"{shadow.name}bare"]["things"]
        for call in sorted(every_call(), key=lambda each: each.verb):
            if OTHERWISE & {(call.verb, name) for name in (*call.options, "")}:
                continue
            if verb != call.verb:
                for target in (bare, shadow["things"]):
                    await target.delete_many({})
                    await target.insert_many(copy.deepcopy(DOCUMENTS))
            verb = call.verb
            expected, found = await outcome(call, bare), await outcome(call, shadow["things"])
            if found != expected:
                differing.append((str(call), expected, found))
        assert differing == [], "\n".join(map(str, differing))
        await assert_level(shadow)
        closed = client.close()
        if inspect.isawaitable(closed):
            await closed
        drop(mongo_url, f"{shadow.name}bare")
