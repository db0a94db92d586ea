"""Window functions that add up have the server's last digit in every window: what leaves a window is taken out of a sum
again as the server does it, with the rounding that this leaves."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pymongo
import pytest
from bson import Decimal128
from pymongo.errors import OperationFailure

from shadow.model.values import CANONICAL, normalise, normalise_value
from shadow.mongoql import compile_pipeline
from tests.compat.amount import CASES, SEED
from tests.compat.test_sums_against_mongod import number, plain
from tests.support.topologies import root_url

pytestmark = pytest.mark.timeout(3600)

SUMS: Final = ("$sum", "$avg", "$stdDevPop", "$stdDevSamp")
PAIRS: Final = ("$covariancePop", "$covarianceSamp")
WINDOWS: Final[list[dict[str, Any]]] = [
    *({"documents": each} for each in (
        [-1, 0], [-2, 1], [0, 2], [1, 2], [-3, -1], ["current", "unbounded"], [-1, "unbounded"], [-20, 20], [4, 6],
        ["unbounded", "current"], ["unbounded", 1], ["unbounded", "unbounded"],
    )),
    *({"range": each} for each in (
        [-1, 1], [-3, -2], [2, 3], [0, "unbounded"], [-2, "current"], ["unbounded", 1], [0.5, 4],
    )),
]  # fmt: skip
OTHERS: Final = [None, "x", [1, 2], True]
ALL: Final = "filds"
"""Kinds of numbers with which covariances are not compared (difference 450)."""


@pytest.fixture(scope="module")
def collection(mongo_url: str) -> Iterator[Any]:
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        name = f"windows_{uuid.uuid4().hex[:12]}"
        yield client[name].get_collection("documents", codec_options=CANONICAL)
        client.drop_database(name)


def answers(collection: Any, documents: list[dict[str, Any]], output: dict[str, Any]) -> tuple[Any, Any]:
    """What the server answers, and the library; of an error the code."""
    pipeline = [
        {"$setWindowFields": {"sortBy": {"t": 1}, "output": output}},
        {"$project": dict.fromkeys(output, 1)},
    ]
    made: list[Any] = []
    for run in (
        lambda: collection.aggregate(pipeline),
        lambda: compile_pipeline(normalise_value(pipeline)).run(map(normalise, documents), lambda name: []),
    ):
        try:
            made.append([normalise_value(each) for each in run()])
        except OperationFailure as error:
            made.append(error.code)
    return made[0], made[1]


def _of(answer: Any, name: str) -> Any:
    """A field of each document, in bytes; of an error the code."""
    return [plain({"o": each.get(name)}) for each in answer] if type(answer) is list else answer


def drawn(chance: random.Random, kinds: str) -> list[dict[str, Any]]:
    """Documents in an order of `t`, which leaves gaps; some values are no numbers."""
    places = sorted(chance.sample(range(14), chance.randint(1, 9)))
    made = []
    for at, place in enumerate(places):
        document = {"_id": at, "t": place, "n": number(chance, kinds)}
        for name in ("a", "b"):
            if not (chance.random() < 0.06 and kinds != "fil"):
                other = kinds != "fil" and chance.random() < 0.1
                document[name] = (
                    chance.choice([*OTHERS, Decimal128("NaN")] if kinds == ALL else OTHERS)
                    if other
                    else number(chance, kinds)
                )
        made.append(document)
    return made


@pytest.mark.parametrize("kinds", ["f", "l", "fil", "fils", "fild", "ls", ALL])
def test_every_window_has_the_servers_last_digit(collection: Any, kinds: str) -> None:
    chance = random.Random(f"{SEED} windows {kinds}")
    for _ in range(max(20, CASES // 15)):
        documents = drawn(chance, kinds)
        collection.delete_many({})
        collection.insert_many(documents)
        output: dict[str, Any] = {}
        for at in range(3):
            for name in (*SUMS, *(PAIRS if kinds != ALL else ()), "$integral"):
                operand: Any = ["$a", "$b"] if name in PAIRS else {"input": "$n"} if name == "$integral" else "$a"
                output[f"{name[1:]}{at}"] = {name: operand, "window": chance.choice(WINDOWS)}
        theirs, ours = answers(collection, documents, output)
        wrong = {name: each for name, each in output.items() if _of(ours, name) != _of(theirs, name)}
        assert not wrong, f"seed {SEED}: {wrong} over {documents}: {ours} for {theirs}"


SHAPES: Final[list[dict[str, Any]]] = [
    {"$integral": {"input": "$a"}, "window": {"documents": [-1, 0]}},
    {"$integral": {"input": "$a"}, "window": {"documents": [4, 6]}},
    {"$integral": {"input": "$n", "unit": "second"}, "window": {"documents": [-1, 0]}},
    {"$covariancePop": "$a"},
    {"$covariancePop": "$l", "window": {"documents": [-1, 0]}},
    {"$covarianceSamp": ["$n"], "window": {"documents": [-1, 0]}},
    {"$covarianceSamp": ["$n", "$n", "$n"], "window": {"documents": [-1, 0]}},
    {"$covarianceSamp": {"a": "$n"}},
    {"$covarianceSamp": ["$n", "$n"], "window": {"documents": [1, -1]}},
    {"$covariancePop": [1, 2], "window": {"documents": [-1, 0]}},
    {"$covariancePop": ["$n", "$$nothing"]},
    {"$covariancePop": ["$n", "$n"], "more": 1},
    {"$sum": ["$n", "$n"], "window": {"documents": [-1, 0]}},
    {"$stdDevPop": ["$n"], "window": {"documents": [-1, 0]}},
    {"$avg": ["$n"]},
]


def test_operands_of_other_shapes_are_answered_alike(collection: Any) -> None:
    documents = [
        {"_id": at, "t": at, "a": value, "n": 0.1 * at, "l": [at, 2.5]} for at, value in enumerate([1, 2.5, "x"])
    ]
    collection.delete_many({})
    collection.insert_many(documents)
    for output in SHAPES:
        theirs, ours = answers(collection, documents, {"o": output})
        assert _of(ours, "o") == _of(theirs, "o"), output
