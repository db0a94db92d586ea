"""Names that begin with a dollar in updates, upserts and replacements: the server's answer and its code, by every
operator, at every kind of path; and which of several faults of a replacement comes first."""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pymongo
import pytest
import pytest_asyncio
from bson import Regex

from shadow import Shadow
from shadow.model.phase import StoreName
from tests.compat.cases import Case, Server, ask_engine, verdict
from tests.support.shims import settings_for
from tests.support.surface import Seen
from tests.support.topologies import drop, root_client, root_url

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTS: Final[list[dict[str, Any]]] = [
    {"_id": 1, "a": 1, "l": [{"x": 1}, {"x": 2}], "o": {"p": 1}, "n": [1, 2]},
    {"_id": 1, "$a": 1, "b": 2},
    {"_id": 1, "$a": {"b": 1}, "l": [1]},
    {"_id": 1, "$a": [{"b": 1}], "a": 2},
    {"_id": 1, "$ref": "x", "$id": 1},
    {"_id": 1, "$ref": "x", "$id": 1, "$db": "d"},
    {"_id": 1, "$ref": "x"},
    {"_id": 1, "$id": 1},
    {"_id": 1, "$ref": 3, "$id": 1},
]
OPERANDS: Final[dict[str, Any]] = {
    "$set": "y", "$inc": 1, "$mul": 1, "$min": 0, "$max": 9, "$unset": 1, "$setOnInsert": 1, "$push": 1,
    "$addToSet": 1, "$pull": {"b": 1}, "$pullAll": [1], "$pop": 1, "$bit": {"and": 1},
}  # fmt: skip
TOP: Final = ["$a", "$a.b", "$a.0.b", "$ref", "$id", "$db", "$[x"]
BELOW: Final = ["b.$a", "o.$a", "l.0.$a", "n.0.$a", "l.$[].$a", "z.$ref", "o.$id", "o.$x.y", "a.$[x", "$", "$[]"]
NAMES: Final = [*TOP, *BELOW, "_id", "_id.$x"]
UPDATES: Final[list[Any]] = [
    *({name: {path: operand}} for name, operand in OPERANDS.items() for path in TOP),
    *({"$rename": {"a": path}} for path in NAMES),
    *({"$rename": {path: "zz"}} for path in NAMES),
    {"$set": {"$ref": "y", "$id": 2}},
    {"$set": {"$ref": "y", "$db": "z"}},
    {"$set": {"$id": 2, "$db": "z", "$ref": "y"}},
    {"$set": {"$a": 1}},
    {"$set": {"$a": 1.0, "a": 2}},
    {"$set": {"b": 1}, "$unset": {"$a": 1}},
]
PIPELINES: Final[list[list[dict[str, Any]]]] = [
    [{"$set": {"z": {"a.b": 1}}}],
    [{"$set": {"z": {"": 1}}}],
    [{"$set": {"z": {"q": {"a.b": 1}}}}],
    [{"$set": {"z": {"$a.b": 1}}}],
    [{"$set": {"z": {"b": 1, "$a": 1}}}],
    [{"$set": {"z": [{"a.b": 1}]}}],
    [{"$set": {"z": {"$literal": {"a.b": 1, "$a": 2}}}}],
    [{"$set": {"$a": 1}}],
    [{"$set": {"o.$a": 1}}],
    [{"$unset": "$a"}],
    [{"$replaceWith": {"$literal": {"$a": 1, "x": 2}}}],
]


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[Server]:
    name = f"compat_{uuid.uuid4().hex[:12]}"
    yield Server(root_client(mongo_url)[name])
    drop(mongo_url, name)


def _cases() -> Iterator[Case]:
    filter = {"_id": 1}
    for document, update in itertools.product(DOCUMENTS, UPDATES):
        yield Case("update", [document], {"filter": filter, "update": update})
    for name, path in itertools.product(OPERANDS, BELOW):
        yield Case("update", DOCUMENTS[:1], {"filter": filter, "update": {name: {path: OPERANDS[name]}}})
    for update in UPDATES:
        if "$ref" not in repr(update):  # the driver reads what is inserted in another order
            yield Case("upsert", [], {"filter": filter, "update": update})
    for pipeline in PIPELINES:
        yield Case("pipeline_update", DOCUMENTS[:1], {"filter": filter, "update": pipeline})


@pytest.mark.takes_turns
async def test_an_update_with_a_dollar_in_a_name_has_the_servers_answer(server: Server) -> None:
    different = []
    for case in _cases():
        theirs, ours = server.ask(case), ask_engine(case)
        if verdict(case, theirs, ours) != "equal":
            different.append(f"{case}\n  mongod: {theirs}\n  engine: {ours}")
    assert not different, f"{len(different)} differ\n" + "\n".join(different[:5])


REPLACEMENTS: Final[list[dict[str, Any]]] = [
    {"a": 1, "$a": 1},
    {"a": 1, "$set": {"a": 1}},
    {"a": 1, "$ref": "q", "$id": 2},
    {"a": 1, "$id": 2},
    {"a": {"$b": 1}},
    {"_id": {"$a": 1}},
    {"_id": [1]},
    {"_id": Regex("a")},
    {"_id": 5},
    {"_id": 1.0, "a": 1},
    {"_id": 3, "$a": 1},
    {"_id": 1, "$a": 1},
    {"_id": {"k": 1}, "a": 1},
]
FILTERS: Final[list[dict[str, Any]]] = [{"_id": 1}, {"a": 1}, {"_id": 404}, {"a": 404}]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName), ids=lambda each: f"{each}-answers")
async def sides(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Any, Any]]:
    """The driver's collection, and the same of a Shadow."""
    name = f"t{uuid.uuid4().hex[:12]}"
    folder = tmp_path_factory.mktemp("journal")
    settings = settings_for(folder, mongo_url, dynamodb_local_url, name, ["things"], primary=request.param)
    client: Any = pymongo.AsyncMongoClient(root_url(mongo_url))
    async with Shadow(settings) as shadow:
        await shadow.prepare()
        yield client[f"{name}bare"]["things"], shadow["things"]
    await client.close()
    drop(mongo_url, name, f"{name}bare")


@pytest.mark.takes_turns
@pytest.mark.drawn_over("sides", reason="the same calls, on either primary")
async def test_a_replacement_with_faults_has_the_servers_first_error(sides: tuple[Any, Any]) -> None:
    different = []
    for filter, replacement, upsert in itertools.product(FILTERS, REPLACEMENTS, (False, True)):
        seen = []
        for things in sides:
            see = Seen()
            await things.delete_many({})
            await things.insert_many([{"_id": 1, "a": 1}, {"_id": {"k": 1}, "a": 3}])
            await see(things.replace_one(filter, copy.deepcopy(replacement), upsert=upsert))
            await see(things.find_one({"_id": 1}))
            seen.append(see)
        if seen[0].answers != seen[1].answers:
            different.append(f"{filter} {replacement} {upsert}: {seen[1].said(0)} instead of {seen[0].said(0)}")
    assert not different, "\n".join(different)
