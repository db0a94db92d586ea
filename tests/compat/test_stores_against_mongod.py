"""The DynamoDB store answers as a real mongod does: the same generated cases, asked of the store itself, so that the
codec, the planner, the indexes, the push-down and the conditional writes are in it, and read back from it afterwards.

`amount` says how many cases are generated, and where the generator starts.
"""

from __future__ import annotations

import asyncio
import collections
import pathlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import bson
import pymongo
import pytest
from bson import json_util
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Delete, Insert, Query, Update
from shadow.model.order import key_digest
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.values import normalise_value
from shadow.model.version import fresh_id
from shadow.mongoql.match.values_at import distinct_values
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from tests.compat.amount import CASES, SEED, is_rare
from tests.compat.cases import KINDS, Answer, Case, Server, verdict
from tests.compat.generators import Generator
from tests.compat.test_matching_against_mongod import EXAMPLES, SHARES, _cases, _example, _report
from tests.support.topologies import root_url

pytestmark = pytest.mark.timeout(3600)

INDEXES = (
    IndexSpec("a-index", "a"),
    IndexSpec("b-index", "b", "c"),
    IndexSpec("a-b-index", "_shadow_by_a-b-index", None, ("a", "b")),
)


class Asked:
    """The DynamoDB store's side. Runs its own event loop, so that cases can be asked one after the other."""

    def __init__(self, url: str, prefix: str) -> None:
        settings = DynamoSettings(
            endpoint_url=url, table_prefix=f"{prefix}-", access_key_id="local", secret_access_key="local"
        )
        self.specs = {
            "documents": CollectionSpec("documents", INDEXES),
            "others": CollectionSpec("others"),
            "updated": CollectionSpec("updated", INDEXES),
        }
        self.runner = asyncio.Runner()
        self.store = self.runner.run(self._made(settings))
        self.held: dict[str, Any] = {}

    async def _made(self, settings: DynamoSettings) -> DynamoStore:
        store = DynamoStore(settings, self.specs)
        await store.prepare(self.specs.values())
        return store

    def close(self) -> None:
        async def end() -> None:
            for name in self.specs:
                await self.store.drop(name)
            await self.store.close()

        self.runner.run(end())
        self.runner.close()

    def ask(self, case: Case) -> Answer:
        return self.runner.run(_answer(lambda: self._ask(case)))

    async def _ask(self, case: Case) -> list[dict[str, Any]]:
        if case.kind in ("update", "upsert", "pipeline_update"):
            return await self._update(case)
        await self._fill("documents", case.documents)
        await self._fill("others", case.others)
        match case.kind:
            case "filter":
                return await self._find(Query(case.operation, {"_id": 1}, (("_id", 1),)))
            case "sort":
                return await self._find(Query(sort=tuple(tuple(pair) for pair in case.operation)))
            case "projection":
                return await self._find(Query(projection=case.operation, sort=(("_id", 1),)))
            case "positional":
                filter, projection = case.operation
                return await self._find(Query(filter, projection, (("_id", 1),)))
            case _:
                answer = await self.store.aggregate("documents", [{"$sort": {"_id": 1}}, *case.operation])
                return [normalise_value(each) for each in answer]

    async def _find(self, query: Query) -> list[dict[str, Any]]:
        return [hit.document async for page in self.store.find("documents", query) for hit in page]

    async def _fill(self, name: str, documents: list[dict[str, Any]]) -> None:
        if self.held.get(name) is documents:
            return
        await self.store.drop(name)
        await self.store.prepare([self.specs[name]])
        inserts = [Insert(each["_id"], each, fresh_id()) for each in documents]
        results = await self.store.insert_many(name, inserts, [fresh_id() for _ in inserts], ordered=False)
        assert not [each for each in results if isinstance(each, Exception)]
        self.held[name] = documents

    async def _update(self, case: Case) -> list[dict[str, Any]]:
        key = case.operation["filter"]["_id"]
        await self.store.apply("updated", Delete(key, {"_id": key}, fresh_id()), fresh_id())
        for each in case.documents:
            await self.store.apply("updated", Insert(key, each, fresh_id()), fresh_id())
        change = Update(
            key,
            case.operation["filter"],
            case.operation["update"],
            fresh_id(),
            case.kind == "upsert",
            tuple(case.operation.get("array_filters") or ()),
        )
        await self.store.apply("updated", change, fresh_id())
        image = await self.store.image("updated", key)
        return [] if image.document is None else [image.document]


async def _answer(ask: Callable[[], Awaitable[list[dict[str, Any]]]]) -> Answer:
    try:
        return Answer([bson.encode(document) for document in await ask()])
    except UnsupportedOperation as error:
        return Answer(refused=error.name)
    except OperationFailure as error:
        return Answer(code=error.code)


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[Server]:
    with pymongo.MongoClient(root_url(mongo_url)) as client:
        name = f"compat_{fresh_id()}"
        yield Server(client[name])
        client.drop_database(name)


@pytest.fixture(scope="module")
def asked(dynamodb_local_url: str) -> Iterator[Asked]:
    side = Asked(dynamodb_local_url, fresh_id())
    yield side
    side.close()


@pytest.mark.parametrize("kind", KINDS)
def test_generated_cases_have_the_servers_answer(server: Server, asked: Asked, kind: str) -> None:
    found: collections.Counter[str] = collections.Counter()
    different: list[str] = []
    for case in _cases(kind, round(CASES * SHARES[kind]), SEED + 1):
        theirs, ours = server.ask(case), asked.ask(case)
        outcome = verdict(case, theirs, ours)
        found[outcome] += 1
        if outcome == "different":
            different.append(_report(case, theirs, ours, SEED + 1))
    print(f"seed {SEED + 1}, {kind}: {dict(found)}")
    total = sum(found.values())
    assert not different, f"{len(different)} of {total} cases differ\n" + "\n".join(different[:5])
    assert is_rare(found["refused"], 0.05, total), f"refusals hide what is compared: {found}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_cases_that_once_differed_stay_equal(server: Server, asked: Asked, path: pathlib.Path) -> None:
    for number, raw in enumerate(json_util.loads(path.read_text(), json_options=json_util.CANONICAL_JSON_OPTIONS)):
        case = _example(path.stem, raw)
        theirs, ours = server.ask(case), asked.ask(case)
        assert verdict(case, theirs, ours) == "equal", f"example {number}: {_report(case, theirs, ours, 0)}"


def test_distinct_has_the_servers_values(server: Server) -> None:
    """`distinct` over generated documents: the same values, in any order."""
    for seed in range(SEED, SEED + 8):
        generator = Generator(seed)
        case = next(_cases("filter", 1, seed))
        collection = server._collection("documents", case.documents)
        for path in {generator.path() for _ in range(30)}:
            theirs = {key_digest(each) for each in collection.distinct(path)}
            ours = {key_digest(each) for each in distinct_values(path, case.documents)}
            assert ours == theirs, f"seed {seed}, path {path}: {case.documents!r}"
