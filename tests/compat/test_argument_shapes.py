"""Whatever an operator is given, it answers as a real mongod does, or refuses with the server's code, or by its name.

Nothing else will do: no TypeError out of the middle, no other answer, no answer where the server refuses.
`amount` says how many cases are generated, and where the generator starts.
"""

from __future__ import annotations

import collections
import uuid
from collections.abc import Iterator
from typing import Any, Final

import bson
import pymongo
import pytest
from bson import DBRef
from bson.errors import InvalidDocument

from shadow.model.values import normalise, normalise_value
from tests.compat.amount import CASES, SEED, is_rare
from tests.compat.cases import Answer, Case, Server, ask_engine, verdict
from tests.compat.shapes import DOCUMENTS, OTHERS, Shapes
from tests.compat.test_stores_against_mongod import Asked
from tests.support.topologies import root_url

SHARES: Final = {
    "filter": 0.15,
    "projection": 0.15,
    "update": 0.15,
    "upsert": 0.1,
    "expression": 0.2,
    "group": 0.1,
    "stage": 0.15,
}
OF_THE_STORE: Final = 0.1
"""The share of the cases that is asked of the DynamoDB store too."""

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def server(mongo_url: str) -> Iterator[Server]:
    with pymongo.MongoClient(root_url(mongo_url)) as client:
        name = f"shapes_{uuid.uuid4().hex[:12]}"
        yield Server(client[name])
        client.drop_database(name)


@pytest.fixture(scope="module")
def store(dynamodb_local_url: str) -> Iterator[Asked]:
    side = Asked(dynamodb_local_url, uuid.uuid4().hex)
    yield side
    side.close()


def _cases(kind: str, count: int, seed: int) -> Iterator[Case]:
    shapes = Shapes(seed)
    documents, others = [normalise(d) for d in DOCUMENTS], [normalise(d) for d in OTHERS]
    for _ in range(count):
        try:
            case = _case(shapes, kind, documents, others)
            bson.encode({"": case.operation})
        except InvalidDocument:
            continue  # a name with a zero byte: no driver sends it
        yield case


def _case(shapes: Shapes, kind: str, documents: list[Any], others: list[Any]) -> Case:
    match kind:
        case "filter":
            return Case(kind, documents, normalise(shapes.filter()))
        case "projection":
            return Case(kind, documents, normalise(shapes.projection()))
        case "update" | "upsert":
            return _update(shapes, kind, documents)
        case "expression":
            stages = shapes.expression_pipeline()
        case "group":
            stages = shapes.group_pipeline()
        case _:
            stages = [shapes.stage()]
            while any(isinstance(operand, DBRef) for operand in stages[0].values()):
                stages = [shapes.stage()]  # its parts would be fields of the answer, which no driver reads as one
    # Of two sorts in a row the server drops the earlier one, and what the later one holds for equal has any order.
    between = [{"$match": {}}] if "$sort" in stages[0] else []
    return Case("pipeline", documents, normalise_value([{"$sort": {"_id": 1}}, *between, *stages]), others)


def _update(shapes: Shapes, kind: str, documents: list[Any]) -> Case:
    update, filters = shapes.update()
    key = shapes.random.randrange(len(documents))
    filter = {"_id": key, **({"a": 1} if ".$" in repr(update) and shapes.chance(0.5) else {})}
    operation = {"filter": filter, "update": normalise_value(update), "array_filters": normalise_value(filters)}
    return Case(kind, [] if kind == "upsert" else [documents[key]], operation)


def _tally(cases: Iterator[Case], server: Server, ask: Any, seed: int) -> collections.Counter[str]:
    """Counts what the answers came to. Fails for each that is neither the server's nor a refusal."""
    found: collections.Counter[str] = collections.Counter()
    different: list[str] = []
    for case in cases:
        theirs, ours = server.ask(case), ask(case)
        outcome = verdict(case, theirs, ours)
        if outcome == "different" and _fails_on_some(case, theirs, ours):
            outcome = "known 1"
        if outcome == "different" and _is_drawn(case, theirs, ours):
            outcome = "by chance"
        found[outcome] += 1
        if outcome == "different":
            different.append(f"seed {seed}: {_shown(case)}\n  mongod: {theirs}\n  here: {ours}")
    total = sum(found.values())
    assert not different, f"{len(different)} of {total} cases differ\n" + "\n".join(different[:8])
    return found


def _fails_on_some(case: Case, theirs: Answer, ours: Answer) -> bool:
    """Whether one side has an error that can come from evaluating an expression of a projection."""
    one_error = (theirs.code is None) is not (ours.code is None) and not (theirs.crash or ours.crash)
    fields = case.operation.values() if case.kind == "projection" else ()
    return one_error and any(isinstance(value, dict | list | str) for value in fields)


def _is_drawn(case: Case, theirs: Answer, ours: Answer) -> bool:
    """Whether both answered what each draws for itself."""
    return "'$rand'" in repr(case.operation) and theirs.code is ours.code is None


def _shown(case: Case) -> str:
    return f"{case.kind}: {case.operation!r}"


@pytest.mark.parametrize("kind", SHARES)
def test_any_argument_is_answered_as_the_server_answers_or_refused(server: Server, kind: str) -> None:
    found = _tally(_cases(kind, round(CASES * SHARES[kind]), SEED), server, ask_engine, SEED)
    print(f"seed {SEED}, {kind}: {dict(found)}")
    total = sum(found.values())
    assert is_rare(total - found["equal"], 0.15, total), f"too little is answered as the server does: {found}"
    assert is_rare(found["known 5"], 0.05, total), f"too many codes differ: {found}"
    assert is_rare(found["known 1"], 0.02, total), f"too much is excused: {found}"


@pytest.mark.parametrize("kind", SHARES)
def test_the_store_refuses_what_the_server_refuses(server: Server, store: Asked, kind: str) -> None:
    """Through the planner, the codec and the conditional writes."""
    count = round(CASES * SHARES[kind] * OF_THE_STORE)

    def ask(case: Case) -> Answer:
        return store.ask(case)

    found = _tally(_cases(kind, count, SEED + 1), server, ask, SEED + 1)
    print(f"seed {SEED + 1}, {kind}: {dict(found)}")
