"""Sums and means have the server's last digit, whatever the types, the sizes and the order of their summands."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

import bson
import pymongo
import pytest
from bson import Decimal128, Int64

from shadow.model.values import CANONICAL, normalise, normalise_value
from shadow.mongoql import compile_pipeline
from tests.compat.amount import CASES, SEED
from tests.support.topologies import root_url

pytestmark = pytest.mark.timeout(3600)

DECIMALS: Final = ["0.1", "1.5", "-2.25", "1E+30", "1E-20", "9007199254740993", "Infinity", "-Infinity"]
DOUBLES: Final = [0.1, 0.2, 0.7, -0.0, 1e300, -1e300, 1e-300, 1e16, 1.0]
SPECIAL: Final = [math.nan, math.inf, -math.inf]
IN_ORDER: Final = {"$sort": {"_id": 1}}
PIPELINES: Final = (
    [IN_ORDER, {"$group": {"_id": None, "s": {"$sum": "$a"}, "m": {"$avg": "$a"}}}],
    [IN_ORDER, {"$group": {"_id": None, "l": {"$push": "$a"}}}, {"$set": {"s": {"$sum": "$l"}, "m": {"$avg": "$l"}}}],
)


def number(chance: random.Random, kinds: str) -> Any:
    match chance.choice(kinds):
        case "d":
            return Decimal128(chance.choice(DECIMALS))
        case "f":
            return chance.choice([chance.uniform(-1, 1) * 10 ** chance.randint(-18, 18), *DOUBLES])
        case "s":
            return chance.choice(SPECIAL)
        case "i":
            return chance.randint(-(2**31), 2**31 - 1)
        case _:
            return Int64(chance.choice([chance.randint(-(2**63), 2**63 - 1), -(2**63), 2**63 - 1, 5]))


@pytest.fixture(scope="module")
def collection(mongo_url: str) -> Iterator[Any]:
    with pymongo.MongoClient[dict[str, Any]](root_url(mongo_url)) as client:
        name = f"sums_{uuid.uuid4().hex[:12]}"
        yield client[name].get_collection("documents", codec_options=CANONICAL)
        client.drop_database(name)


@pytest.mark.parametrize("kinds", ["fil", "l", "ffil", "fils", "fild", "filds"])
def test_sums_have_the_servers_last_digit(collection: Any, kinds: str) -> None:
    chance = random.Random(f"{SEED} {kinds}")
    for _ in range(max(20, CASES // 20)):
        documents = [{"_id": at, "a": number(chance, kinds)} for at in range(chance.randint(1, 9))]
        collection.delete_many({})
        collection.insert_many(documents)
        for pipeline in PIPELINES:
            theirs = [plain(normalise_value(each)) for each in collection.aggregate(pipeline)]
            compiled = compile_pipeline(normalise_value(pipeline))
            ours = [plain(each) for each in compiled.run([normalise(each) for each in documents], lambda name: [])]
            assert ours == theirs, f"seed {SEED}: {pipeline} over {documents}"


def plain(document: dict[str, Any]) -> bytes:
    """Its bytes, but for the sign of a NaN (difference 17)."""
    return bson.encode({name: _unsigned(value) for name, value in document.items()})


def _unsigned(value: Any) -> Any:
    if isinstance(value, list):
        return [_unsigned(each) for each in value]
    return f"{type(value).__name__} NaN" if str(value).lower().lstrip("-") == "nan" else value
