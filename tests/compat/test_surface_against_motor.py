"""The whole Motor surface against Motor itself: random sequences of calls on a bare collection and through a Shadow
whose primary is DynamoDB or MongoDB, compared call by call, and byte by byte at the end.

Each seed is one sequence; `amount` says how many there are, and which is the first.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import bson
import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import BulkWriteError, OperationFailure, WriteError

from shadow import Shadow
from shadow.errors import UnsupportedOperation
from shadow.model.order import key_digest
from shadow.model.phase import StoreName
from shadow.model.values import CANONICAL
from tests.compat.amount import CASES, SEED
from tests.compat.cases import Answer, Case, verdict
from tests.compat.surface import Call, Caller
from tests.support.shims import audit_of, settings_for
from tests.support.surface import Seen
from tests.support.topologies import admit, drop, plain_url, root_url

pytestmark = pytest.mark.timeout(3600)

CALLS: Final = 300
SEQUENCES: Final = max(2, CASES // 500)
MOST_DOCUMENTS: Final = 40


class Pair:
    """The same collection twice: bare, and through a Shadow."""

    def __init__(self, bare: Any, shim: Any, *, unique: bool) -> None:
        self.bare = bare
        self.shim = shim
        self.unique = unique

    async def refill(self, documents: list[dict[str, Any]]) -> None:
        for side in (self.bare, self.shim):
            await side.delete_many({})
            with contextlib.suppress(BulkWriteError):
                await side.insert_many([dict(each) for each in documents], ordered=True)


@contextlib.asynccontextmanager
async def pair(
    folder: Path, mongo_url: str, dynamo_url: str, *, unique: bool, primary: StoreName = StoreName.DYNAMO
) -> AsyncIterator[tuple[Pair, Shadow]]:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(folder, mongo_url, dynamo_url, name, ["things", "others"], primary=primary)
    things = {"indexes": [{"name": "a-index", "hash": "a"}, {"name": "b-index", "hash": "b", "range": "c"}]}
    if unique:
        things["unique"] = [{"name": "u_1", "fields": ["u"], "sparse": True}]
    raw = settings.model_dump()
    raw["collections"] = {"things": things, "others": {}}
    settings = type(settings).model_validate(
        {**raw, "mongo": settings.mongo, "dynamo": settings.dynamo, "journal": settings.journal}
    )
    # MongoDB as primary asks what the application's user may do, and DynamoDB knows nothing of it.
    admit(mongo_url, f"{name}bare")
    url = plain_url(mongo_url) if primary is StoreName.MONGO else root_url(mongo_url)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(url)
    bare = client[f"{name}bare"]["things"]
    if unique:
        await bare.create_index("u", name="u_1", unique=True, sparse=True)
    try:
        async with Shadow.from_settings(settings) as shadow:
            await shadow.prepare()
            yield Pair(bare, shadow["things"], unique=unique), shadow
    finally:
        client.close()
        drop(mongo_url, name, f"{name}bare")


async def differences(pair: Pair, call: Call) -> tuple[str, str]:
    """A verdict ("equal", "known N", "refused", "different") and, if different, both answers."""
    bare, shim = Seen(), Seen()
    before = await pair.bare.find().to_list(None) if call.verb in ("aggregate", "find", "count_documents") else []
    await bare(lambda: call.on(pair.bare))
    await shim(lambda: call.on(pair.shim))
    theirs, ours = bare.errors.get(0), shim.errors.get(0)
    if isinstance(ours, UnsupportedOperation):
        return "refused", ""
    found = _compared(call, bare, shim, theirs, ours, before)
    return found, "" if found != "different" else f"{bare.said(0)}\n  shim: {shim.said(0)}"


def _compared(
    call: Call, bare: Seen, shim: Seen, theirs: Exception | None, ours: Exception | None, before: list[dict[str, Any]]
) -> str:
    if (theirs is None) != (ours is None):
        return "known 1" if _evaluates(call) else "different"
    if theirs is not None:
        if type(theirs) is type(ours) and bare.answers == shim.answers:
            return "equal"
        if call.torn and isinstance(theirs, WriteError) and isinstance(ours, WriteError):
            return "known 15"
        if type(theirs) is not type(ours):
            return "different"
        if isinstance(theirs, BulkWriteError):
            if _modified_less(call, bare.answers[0][1], shim.answers[0][1]):
                return "known 18"
            return "known 5" if _codeless(bare) == _codeless(shim) else "different"
        return "known 5" if isinstance(theirs, OperationFailure) else "different"
    left, right = bare.answers[0][1], shim.answers[0][1]
    if call.loose:
        left, right = (sorted(side, key=repr) for side in (left, right))
    if repr(left) == repr(right):  # a NaN equals itself here
        return "equal"
    if _modified_less(call, left, right):
        return "known 18"
    if call.verb == "aggregate":
        return verdict(Case("pipeline", before, call.arguments[0]), Answer(left), Answer(right))
    return "different"


def _modified_less(call: Call, theirs: Any, ours: Any) -> bool:
    """Whether all that differs is that the server counted more documents as modified, no more than can have been left
    as they were by a `$push` that cuts or sorts."""
    (left, counted), (right, count) = _uncounted(theirs), _uncounted(ours)
    return bool(left == right) and 0 < counted - count <= _cut_pushes(call)


def _uncounted(answer: Any) -> tuple[Any, int]:
    """What an update or a bulk write answered or refused, without how many it modified, and that."""
    match answer:
        case ("updated", matched, modified, *rest):
            return ("updated", matched, *rest), modified
        case ("bulk", counts, upserted):
            return ({**counts, "nModified": 0}, upserted), counts["nModified"]
        case (int() as inserted, upserts, matched, int() as modified, *rest):
            return (inserted, upserts, matched, *rest), modified
        case _:
            return answer, 0


def _cut_pushes(call: Call) -> int:
    """The most documents that a call pushes to with `$slice` or `$sort`."""
    if call.verb == "bulk_write":
        updates = [each._doc for each in call.arguments[0] if isinstance(each, pymongo.UpdateOne)]
        return sum(map(_cuts, updates))
    most = MOST_DOCUMENTS if call.verb == "update_many" else 1
    return most * any(map(_cuts, call.arguments[1:2]))


def _cuts(update: Any) -> bool:
    pushes = update.get("$push", {}).values() if isinstance(update, dict) else ()
    return any(isinstance(each, dict) and bool({"$slice", "$sort"} & set(each)) for each in pushes)


def _codeless(seen: Seen) -> Any:
    """The details of a BulkWriteError without the codes of its errors."""
    *counts, errors, upserted = seen.answers[0][1]
    return counts, [(index, *rest) for index, _, *rest in errors], upserted


def _evaluates(call: Call) -> bool:
    """Whether the one error there is can come from an expression, over a document that only one side looks at."""
    if call.verb in ("find", "find_one", "count_documents"):
        return "$" in repr(call.arguments[1:]) or "$expr" in repr(call.arguments)
    if call.verb.startswith("find_one_and_"):
        return "$" in repr(call.options.get("projection"))
    return call.verb == "aggregate"


async def _run(pair: Pair, seed: int) -> collections.Counter[str]:
    caller = Caller(seed, unique=pair.unique)
    found: collections.Counter[str] = collections.Counter()
    await pair.refill(caller.documents(12))
    for number in range(CALLS):
        call = caller.call()
        if call.one and not await _alone(pair, call):
            continue
        outcome, said = await differences(pair, call)
        found[outcome] += 1
        assert outcome != "different", f"seed {seed}, call {number}: {call}\n  bare: {said}"
        same = await _stored(pair.bare) == await _stored(pair.shim)
        torn = (call.torn or outcome == "refused") and not same
        assert same or torn, f"seed {seed}, call {number}: other documents after {call}"
        if torn or await pair.bare.count_documents({}) > MOST_DOCUMENTS:
            found["torn"] += torn
            await pair.refill(caller.documents(12))
    return found


async def _alone(pair: Pair, call: Call) -> bool:
    try:
        return await pair.bare.count_documents(call.arguments[0]) <= 1
    except OperationFailure:
        return True


async def _level(shadow: Shadow) -> None:
    """Both stores are equal and the journal is empty. A finding may only say that one store failed at an expression
    over a document that the other did not look at."""
    assert await shadow.settled(20), (await shadow.admin.status())["journal"]
    assert await asyncio.to_thread(audit_of(shadow.admin.settings).disagreements) == []
    kinds = {str(group["kind"]) for group in shadow.admin.findings.groups()}
    assert kinds <= {"error_primary_only", "error_secondary_only"}, shadow.admin.findings.groups()


async def _stored(collection: Any) -> dict[str, bytes]:
    return {key_digest(each["_id"]): bson.encode(each) for each in await collection.find().to_list(None)}


@pytest.mark.drawn_over("primary", reason="any sequence is as good as another: half go to either")
@pytest.mark.parametrize("primary", [StoreName.DYNAMO, StoreName.MONGO])
@pytest.mark.parametrize("seed", range(SEED, SEED + SEQUENCES))
async def test_a_random_sequence_of_calls_has_motors_answers(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, seed: int, primary: StoreName
) -> None:
    unique = seed % 2 == 1
    async with pair(tmp_path, mongo_url, dynamodb_local_url, unique=unique, primary=primary) as (both, shadow):
        found = await _run(both, seed)
        print(f"seed {seed}: {dict(found)}")
        await _level(shadow)
        mongo, dynamo = await asyncio.to_thread(audit_of(shadow.admin.settings).documents, "things")
        raw = await both.bare.with_options(codec_options=CANONICAL).find().to_list(None)
        expected = {key_digest(each["_id"]): bson.encode(each) for each in raw}
        assert {key: bson.encode(each) for key, each in dynamo.items()} == expected
        assert {key: bson.encode(each) for key, each in mongo.items()} == expected
        calls = sum(found.values())
        assert found["equal"] + found["torn"] >= 0.9 * calls, f"too little of it was compared: {found}"


async def test_a_pipeline_that_loses_the_key_has_modified_the_document(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    """The server puts the key back after it has counted."""
    pipelines: list[Any] = [
        [{"$unset": "_id"}],
        [{"$project": {"_id": 0, "a": 1}}],
        [{"$replaceWith": {"a": "$a"}}],
        [{"$replaceWith": {"_id": "$_id", "a": "$a"}}],
        [{"$set": {"a": "$a"}}],
        [{"$unset": "_id"}, {"$set": {"b": 1}}],
    ]
    async with pair(tmp_path, mongo_url, dynamodb_local_url, unique=False) as (both, _):
        for pipeline in pipelines:
            await both.refill([{"_id": 1, "a": 1}, {"_id": 2, "a": 2}])
            for verb, filter in (("update_many", {}), ("update_one", {"_id": 1}), ("update_one", {"a": 2})):
                outcome, said = await differences(both, Call(verb, (filter, pipeline)))
                assert outcome == "equal", f"{verb} {pipeline}: {said}"
                request = pymongo.UpdateOne(filter or {"_id": 2}, pipeline)
                outcome, said = await differences(both, Call("bulk_write", ([request],)))
                assert outcome == "equal", f"bulk {pipeline}: {said}"


BAD: dict[str, list[Any]] = {
    "filter": [{"a": {"$in": 1}}, {"a": {"$foo": 1}}],
    "sort": [[("a.", 1)], [("$x", 1)]],
    "update": [
        {"$set": {"a": 1, "a.b": 2}},
        {"$foo": {"a": 1}},
        {"$inc": {"s": 1}},
        [{"$set": {"z": {"$add": ["$s", 1]}}}],
    ],
    "projection": [
        {"a": 1, "b": 0},
        {"z": {"$foo": 1}},
        {"z": {"$add": ["x", 1]}},
        {"z": {"$cond": [1, 2, {"$ln": 0}]}},
    ],
    "array_filters": [[{"x": 1, "y": 2}], [{"e": {"$foo": 1}}], [{"e": 1}]],
}
"""Faults of a find-and-modify, by the argument: some of the call, some of a document or of a constant."""


def _calls_with_two_faults() -> list[Call]:
    made = []
    for (one, first), (other, second) in itertools.combinations(BAD.items(), 2):
        for a, b in itertools.product(first, second):
            given = {one: a, other: b}
            filter, update = given.pop("filter", {"a": 1}), given.pop("update", {"$set": {"n": 1}})
            if not (isinstance(update, list) and "array_filters" in given):
                made += [
                    Call("find_one_and_update", (filter, update), {**given, "upsert": True}),
                    Call("find_one_and_update", ({**filter, "_id": 404}, update), {**given, "upsert": True}),
                ]
            if not {"update", "array_filters"} & {one, other}:
                made.append(Call("find_one_and_replace", (filter, {"a": 1}), given))
                made.append(Call("find_one_and_delete", (filter,), given))
    return made


async def test_of_two_faults_of_a_find_and_modify_the_servers_comes_first(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    """In all pairs of arguments; and what fails has written nothing."""
    different = []
    async with pair(tmp_path, mongo_url, dynamodb_local_url, unique=False) as (both, _):
        await both.refill([{"_id": 1, "a": 1, "s": "t"}])
        for call in _calls_with_two_faults():
            outcome, said = await differences(both, call)
            if outcome != "equal":
                different.append(f"{call}: {outcome} {said}")
        assert await _stored(both.bare) == await _stored(both.shim)
    assert not different, f"{len(different)} differ\n" + "\n".join(different[:20])


PUSH: dict[str, Any] = {"$push": {"a": {"$each": [3], "$slice": 2}}}
CUT: list[Any] = [pymongo.UpdateOne({"_id": 1}, PUSH), pymongo.InsertOne({"_id": 1})]


@pytest.mark.parametrize(
    ("call", "theirs", "ours", "excused"),
    [
        (Call("update_one", ({"_id": 1}, PUSH)), ("updated", 1, 1, None, True), ("updated", 1, 0, None, True), True),
        (Call("update_one", ({"_id": 1}, PUSH)), ("updated", 1, 0, None, True), ("updated", 1, 1, None, True), False),
        (Call("update_one", ({}, {"$set": {"a": 1}})), ("updated", 1, 1, None, 1), ("updated", 1, 0, None, 1), False),
        (Call("bulk_write", (CUT[:1],)), ("bulk", {"nModified": 1}, {}), ("bulk", {"nModified": 0}, {}), True),
        (Call("bulk_write", (CUT[:1],)), ("bulk", {"nModified": 2}, {}), ("bulk", {"nModified": 0}, {}), False),
        (Call("bulk_write", (CUT[1:],)), ("bulk", {"nModified": 1}, {}), ("bulk", {"nModified": 0}, {}), False),
        (Call("bulk_write", (CUT,)), (0, 0, 1, 1, 0, [(1, 11000)], []), (0, 0, 1, 0, 0, [(1, 11000)], []), True),
        (Call("bulk_write", (CUT,)), (0, 0, 1, 1, 0, [(1, 11000)], []), (0, 0, 1, 0, 0, [(0, 11000)], []), False),
    ],
)
def test_difference_18_excuses_that_count_and_nothing_else(call: Call, theirs: Any, ours: Any, excused: bool) -> None:
    assert _modified_less(call, theirs, ours) is excused
