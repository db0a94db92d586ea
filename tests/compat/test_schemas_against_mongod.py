"""`$jsonSchema` selects the documents that a real mongod selects, and is refused with its codes: over generated
schemas. So does what the server is asked for documents that carry versions."""

from __future__ import annotations

import collections
import uuid
from collections.abc import Iterator
from typing import Any

import bson
import pymongo
import pytest

from shadow.model.values import normalise, normalise_value
from shadow.stores.mongo.schema_filters import without_version
from tests.compat.amount import CASES, SEED, is_rare
from tests.compat.cases import Answer, Case, Server, ask_engine
from tests.compat.generators import Generator
from tests.compat.schemas import FAULTY, schema
from tests.support.topologies import root_url


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[Server]:
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        name = f"schemas_{uuid.uuid4().hex[:12]}"
        yield Server(client[name])
        client.drop_database(name)


def _documents(generator: Generator) -> list[dict[str, Any]]:
    drawn = [normalise(generator.document(i)) for i in range(80)]
    enumerated = [{"_id": 80 + i, "a": generator.value(2)} for i in range(20)]
    return [*drawn, *map(normalise, enumerated)]


def _schemas(generator: Generator, documents: list[dict[str, Any]]) -> Iterator[Any]:
    yield from FAULTY
    for _ in range(round(CASES * 0.6)):
        made = schema(generator)
        if generator.chance(0.1):  # what a document holds, with its fields in another order
            value = generator.pick(documents)
            made = {"anyOf": [made, {"enum": [_turned(value)]}]}
        yield made


def _placed(generator: Generator, filter: dict[str, Any]) -> dict[str, Any]:
    """The filter where it may stand in another one."""
    around = [{"$nor": [filter]}, {"$or": [filter, {"b": 1}]}, {"a": {"$elemMatch": filter}}, {**filter, "b": 1}]
    return generator.pick(around) if generator.chance(0.2) else filter


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _turned(value[name]) for name in reversed(value)}
    return [_turned(each) for each in value] if isinstance(value, list) else value


def test_schemas_select_what_the_server_selects(server: Server) -> None:
    generator = Generator(SEED)
    documents = _documents(generator)
    stamped = [{**each, "_v": {"b": "x", "r": 1}} for each in documents]
    server.database["stamped"].insert_many(stamped)
    found: collections.Counter[str] = collections.Counter()
    different: list[str] = []
    for made in _schemas(generator, documents):
        filter = normalise_value(_placed(generator, {"$jsonSchema": made}))
        case = Case("filter", documents, filter)
        theirs, ours = server.ask(case), ask_engine(case)
        outcome = _outcome(theirs, ours)
        found[outcome] += 1
        if outcome == "different":
            different.append(f"seed {SEED}: {made}\n  mongod: {theirs}\n  engine: {ours}")
        if theirs.documents is not None:
            hidden = without_version(filter, "_v")
            over = [bson.encode(each) for each in server.database["stamped"].find(hidden, {"_id": 1}).sort("_id")]
            if over != theirs.documents:
                different.append(f"seed {SEED}: {made}, with versions: {hidden}")
    total = sum(found.values())
    print(f"seed {SEED}: {dict(found)}")
    assert not different, f"{len(different)} of {total} differ\n" + "\n".join(different[:5])
    assert is_rare(found["refused"], 0.05, total), found
    assert found["some"] > total / 3, f"most of what is compared must select some of the documents: {found}"
    assert found["error"] >= len(FAULTY), found


def _outcome(theirs: Answer, ours: Answer) -> str:
    if ours.refused:
        return "refused"
    if theirs != ours:
        return "different"
    if theirs.documents is None:
        return "error"
    return "some" if 0 < len(theirs.documents) < 100 else "all or none"
