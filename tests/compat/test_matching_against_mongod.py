"""`shadow.mongoql` answers as a real mongod does, over generated cases and over every case that once differed.

`amount` says how many cases are generated, and where the generator starts.
"""

from __future__ import annotations

import collections
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from bson import json_util

from shadow.model.values import normalise, normalise_value
from tests.compat.amount import CASES, SEED, is_rare
from tests.compat.cases import KINDS, Answer, Case, Server, ask_engine, verdict
from tests.compat.generators import Generator
from tests.support.topologies import root_url

SHARES = {
    "filter": 0.3,
    "sort": 0.1,
    "projection": 0.12,
    "positional": 0.08,
    "update": 0.2,
    "upsert": 0.08,
    "pipeline_update": 0.06,
    "pipeline": 0.14,
}
BATCH = 250
EXAMPLES = sorted((pathlib.Path(__file__).parent / "examples").glob("*.json"))

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[Server]:
    with pymongo.MongoClient(root_url(mongo_url)) as client:
        name = f"compat_{uuid.uuid4().hex[:12]}"
        yield Server(client[name])
        client.drop_database(name)


def _cases(kind: str, count: int, seed: int) -> Iterator[Case]:
    generator = Generator(seed, plain=kind == "pipeline")
    while count > 0:
        documents = [normalise(generator.document(i)) for i in range(24)]
        others = [normalise(generator.document(i)) for i in range(8)]
        for _ in range(min(count, BATCH)):
            yield _case(generator, kind, documents, others)
        count -= BATCH


def _case(generator: Generator, kind: str, documents: list[Any], others: list[Any]) -> Case:
    match kind:
        case "filter":
            return Case(kind, documents, normalise(generator.filter()))
        case "sort":
            return Case(kind, generator.random.sample(documents, 4), generator.sort())
        case "projection":
            return Case(kind, documents, normalise(generator.projection()))
        case "positional":
            shown = [normalise(generator.object_filter()), normalise(generator.positional())]
            return Case(kind, generator.documents_of(documents), shown)
        case "pipeline":
            return Case(kind, documents, normalise_value(generator.pipeline()), others)
        case _:
            return _update_case(generator, kind)


def _update_case(generator: Generator, kind: str) -> Case:
    key = generator.random.randrange(2**31)
    update = normalise_value(generator.update_pipeline() if kind == "pipeline_update" else generator.update())
    filter = {"_id": key}
    if kind == "upsert" or ".$'" in repr(update) or ".$." in repr(update) or generator.chance(0.2):
        filter.update(generator.filter(1))
    operation = {"filter": normalise(filter), "update": update}
    if kind != "pipeline_update":
        operation["array_filters"] = normalise_value(generator.array_filters(update))
    return Case(kind, [] if kind == "upsert" else [normalise(generator.document(key))], operation)


def _report(case: Case, theirs: Answer, ours: Answer, seed: int) -> str:
    return f"seed {seed}: {case}\n  mongod: {theirs}\n  engine: {ours}"


@pytest.mark.parametrize("kind", KINDS)
def test_generated_cases_have_the_servers_answer(server: Server, kind: str) -> None:
    """Documents are equal by their bytes, errors are errors on both sides; what is excused stays rare."""
    found: collections.Counter[str] = collections.Counter()
    different: list[str] = []
    for case in _cases(kind, round(CASES * SHARES[kind]), SEED):
        theirs, ours = server.ask(case), ask_engine(case)
        outcome = verdict(case, theirs, ours)
        found[outcome] += 1
        if outcome == "different":
            different.append(_report(case, theirs, ours, SEED))
    total = sum(found.values())
    print(f"seed {SEED}, {kind}: {dict(found)}")
    assert not different, f"{len(different)} of {total} cases differ\n" + "\n".join(different[:5])
    assert is_rare(found["refused"], 0.03, total), f"refusals hide what is compared: {found}"
    assert is_rare(found["known 5"], 0.04, total), f"too many codes differ: {found}"
    excused = sum(count for name, count in found.items() if name in ("known 1", "known 3", "known 4", "known 6"))
    assert is_rare(excused, 0.06, total), f"too much is excused: {found}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_cases_that_once_differed_stay_equal(server: Server, path: pathlib.Path) -> None:
    """Every example is equal outright, no known difference excuses it."""
    for number, raw in enumerate(json_util.loads(path.read_text(), json_options=json_util.CANONICAL_JSON_OPTIONS)):
        case = _example(path.stem, raw)
        theirs, ours = server.ask(case), ask_engine(case)
        assert verdict(case, theirs, ours) == "equal", f"example {number}: {_report(case, theirs, ours, 0)}"


def _example(kind: str, raw: dict[str, Any]) -> Case:
    documents = [normalise(d) for d in raw["documents"]]
    others = [normalise(d) for d in raw.get("others", [])]
    return Case(kind, documents, normalise_value(raw["operation"]), others)
