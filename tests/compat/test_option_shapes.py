"""Whatever a keyword option of a verb is given, the verb answers as the bare driver does, or refuses by the driver's or
the server's class, or as UnsupportedOperation, before anything is written.

Nothing else will do: no TypeError out of the middle where the driver takes the value, no answer where the driver or the
server refuses it. `amount` says how many calls there are, and which.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bson
import pytest
from bson import Decimal128, ObjectId
from pymongo.operations import IndexModel, InsertOne

from shadow.errors import UnsupportedOperation
from shadow.model.phase import StoreName
from shadow.stores.mongo.drivers import call_signature
from tests.compat.amount import CASES, SEED
from tests.compat.test_surface_against_motor import pair

pytestmark = pytest.mark.timeout(3600)

DOCUMENTS: Final = [{"_id": n, "n": n, "s": str(n % 2)} for n in range(1, 5)]
ONE: Final = {"_id": 1}
SET: Final = {"$set": {"n": 7}}

VERBS: Final[dict[str, tuple[Any, ...]]] = {
    "find": ({"n": {"$gte": 1}},),
    "find_one": ({"n": {"$gte": 1}},),
    "count_documents": ({"n": {"$gte": 1}},),
    "estimated_document_count": (),
    "distinct": ("s",),
    "aggregate": ([{"$match": {"n": {"$gte": 2}}}],),
    "insert_one": ({"_id": 9},),
    "insert_many": ([{"_id": 9}, {"_id": 10}],),
    "update_one": (ONE, SET),
    "update_many": ({"s": "1"}, SET),
    "replace_one": (ONE, {"n": 7}),
    "delete_one": (ONE,),
    "delete_many": ({"s": "1"},),
    "find_one_and_update": (ONE, SET),
    "find_one_and_replace": (ONE, {"n": 7}),
    "find_one_and_delete": (ONE,),
    "bulk_write": ([InsertOne({"_id": 9})],),
    "create_index": ("a",),
    "create_indexes": ([IndexModel("a")],),
    "list_indexes": (),
    "index_information": (),
    "drop_index": ("none",),
}
"""A call of each verb that is good by itself."""

MORE: Final = (
    "maxTimeMS", "comment", "hint", "collation", "let", "allowDiskUse", "batchSize", "bypassDocumentValidation",
    "unknown", "unique", "sparse", "name", "expireAfterSeconds", "readConcern", "writeConcern",
)  # fmt: skip
"""What verbs take beside their named parameters, or forward to the server."""

VALUES: Final = (None, True, 0, 1, -1, 5, 1.5, "x", "", [], {}, [1], {"a": 1}, [("n", 1)], [("n", 1, 2)], b"x",
                 {"$x": 1}, ObjectId(), Decimal128("1"), 2**70, object, ("n",), [None], {1: 2})  # fmt: skip


UNKNOWN_FIELD: Final = 40415
"""IDLUnknownField: the server is older than the option (`sort` of an update of one document)."""
OTHER_NAME: Final = 85
"""IndexOptionsConflict: the configuration has the index on `a`, and an application may call it as it likes."""
TOO_LATE: Final = 50
"""MaxTimeMSExpired: a millisecond may do, or not."""
UNAUTHORIZED: Final = 13


@dataclass(frozen=True)
class Seen:
    """What a call came to: an answer in a form to compare, or the error, and whether the call itself raised it, before
    anything was awaited."""

    answer: Any = None
    error: BaseException | None = None
    at_once: bool = False


def options_of(verb: str) -> list[str]:
    named = [
        name
        for name, each in call_signature(verb).parameters.items()
        if each.kind is not inspect.Parameter.VAR_KEYWORD and name not in ("self", "collection")
    ]
    return sorted({*named[len(VERBS[verb]) :], *MORE})


def calls(count: int, seed: int) -> Iterator[tuple[str, str, Any]]:
    every = [(verb, name, value) for verb in VERBS for name in options_of(verb) for value in VALUES]
    # A path that begins with `$` is refused with the code of the aggregation's `$sort`, in `find` too.
    # A hint on the index of the configuration is one on an index that is not there to the bare collection.
    # Records have their own numbers in each collection. A bulk write sends its variables only with an update.
    odd = (("sort", {"$x": 1}), ("hint", {"a": 1}), ("show_record_id", True), ("let", {1: 2}))
    every = [each for each in every if each[1:] not in odd]
    return iter(random.Random(seed).sample(every, min(count, len(every))))


async def ask(collection: Any, verb: str, name: str, value: Any) -> Seen:
    at_once = True
    try:
        answer = getattr(collection, verb)(*VERBS[verb], **{name: value})
        at_once = False
        if inspect.isawaitable(answer):
            answer = await answer
        if hasattr(answer, "to_list"):
            answer = [each async for each in answer]
    except Exception as error:
        return Seen(error=error, at_once=at_once)
    return Seen(answer=shown(verb, answer))


def shown(verb: str, answer: Any) -> Any:
    if verb in ("list_indexes", "index_information", "create_index", "create_indexes"):
        return "indexes"  # what they are is compared elsewhere
    if verb == "find_one":
        return answer is not None  # any that matches will do
    if verb in ("find", "aggregate"):
        # Without an order each store has its own, and with a bound its own choice.
        return sorted(answer, key=repr) if len(answer) == len(DOCUMENTS) else len(answer)
    if hasattr(answer, "raw_result"):
        answer = answer.raw_result
    if hasattr(answer, "bulk_api_result"):
        answer = {name: each for name, each in answer.bulk_api_result.items() if name.startswith("n")}
    if hasattr(answer, "inserted_id") or hasattr(answer, "inserted_ids"):
        return getattr(answer, "inserted_id", None) or answer.inserted_ids
    if isinstance(answer, dict):
        return {name: each for name, each in answer.items() if name in ("n", "nModified", "upserted", "_id", "s")}
    return answer


def fault(bare: Seen, ours: Seen) -> str:
    """What is wrong with our answer; "" if nothing is."""
    if isinstance(ours.error, UnsupportedOperation) or TOO_LATE in {
        getattr(e.error, "code", None) for e in (bare, ours)
    }:
        return ""
    if getattr(bare.error, "code", None) in (UNKNOWN_FIELD, OTHER_NAME) and ours.error is None:
        return ""
    if bare.error is None and ours.error is None:
        return "" if repr(bare.answer) == repr(ours.answer) else "another answer"
    if bare.error is None:
        return "an error where the driver answers"
    if ours.error is None:
        return "an answer where the driver refuses"
    if not isinstance(ours.error, type(bare.error)) and not isinstance(bare.error, type(ours.error)):
        return "an error of another class"
    if bare.at_once != ours.at_once:
        return "an error at another moment"
    code = getattr(bare.error, "code", None)
    return "" if code in (UNKNOWN_FIELD, getattr(ours.error, "code", None)) else "an error of another code"


async def contents(collection: Any) -> list[bytes]:
    return sorted(bson.encode(each) for each in await collection.find().to_list(None))


@pytest.mark.parametrize("primary", list(StoreName))
async def test_any_value_of_any_option_is_answered_as_by_the_driver_or_refused(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, primary: StoreName
) -> None:
    wrong: list[str] = []
    async with pair(tmp_path, mongo_url, dynamodb_local_url, unique=False, primary=primary) as (both, shadow):
        await both.refill(DOCUMENTS)
        good = await contents(both.shim)
        for verb, name, value in calls(CASES // 2, SEED):
            bare, ours = await ask(both.bare, verb, name, value), await ask(both.shim, verb, name, value)
            said = fault(bare, ours)
            if name == "session" and isinstance(ours.error, ValueError):
                said = ""  # of some verbs the driver looks at it, of others its attributes are missing
            if name == "bypassDocumentValidation" and getattr(bare.error, "code", None) == UNAUTHORIZED:
                said = ""  # a right of its own, which `readWrite` does not have, and DynamoDB neither
            if verb.startswith("create_index"):
                await both.bare.drop_indexes()
                await both.shim.drop_indexes()
            now = await contents(both.shim)
            if not said and ours.error is not None and now != good:
                said = "written in spite of its error"
            if said:
                wrong.append(f"{said}: {verb}({name}={value!r})\n  bare: {bare}\n  here: {ours}")
            if now != good or await contents(both.bare) != good:
                await both.refill(DOCUMENTS)
        assert await shadow.settled(20)
    assert not wrong, f"seed {SEED}: {len(wrong)} calls\n" + "\n".join(wrong[:100])
