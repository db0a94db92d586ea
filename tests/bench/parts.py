"""Parts alone: the comparison against DeepDiff, the DynamoDB store against the bare clients, and the import."""

from __future__ import annotations

import asyncio
import copy
import sys
from typing import Any

from deepdiff import DeepDiff

from shadow.compare.equality import compare_hits, same
from shadow.model.operation import Hit, Insert, Query
from shadow.model.schema import CollectionSpec
from shadow.model.version import Version, fresh_id
from shadow.stores.dynamo.store import DynamoStore
from tests.bench.harness import Bench, Closed, Contender, Line
from tests.bench.peers import PLAIN, Peers, document
from tests.bench.reads import key

__all__ = ["comparison", "imports", "store"]

_REPEATS = 200


def comparison(calls: int) -> Bench:
    """Two equal documents of ten fields, equal but not the same objects."""
    left, right = document(1), copy.deepcopy(document(1))
    version = Version(fresh_id(), 1)
    hits = [Hit("note-000001", version, left)], [Hit("note-000001", version, right)]
    query = Query({"_id": "note-000001"}, limit=1)

    async def documents(_: int) -> None:
        for _ in range(_REPEATS):
            same(left, right)

    async def answers(_: int) -> None:
        for _ in range(_REPEATS):
            compare_hits(query, *hits)

    async def deepdiff(_: int) -> None:
        for _ in range(_REPEATS):
            DeepDiff(left, right)

    return Bench(
        "comparison",
        [
            Contender("documents", documents),
            Contender("answers", answers),
            Contender("DeepDiff", deepdiff, share=0.2),
        ],
        Closed(max(10, calls // 20)),
        [
            Line(f"two equal documents, {_REPEATS} times", "p50", "DeepDiff", "documents", 50, at_least=True),
            Line(f"two equal answers of one document, {_REPEATS} times", "p50", "DeepDiff", "answers"),
        ],
    )


def imports(calls: int) -> Bench:
    """A process that imports and ends, against one that imports the two drivers."""

    def of(program: str) -> Contender:
        async def call(_: int) -> None:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
            if await process.wait():
                raise RuntimeError(f"{program}: exit status {process.returncode}")

        return Contender(program, call)

    drivers, package, named = "import motor, aioboto3", "import shadow", "from shadow import Shadow"
    return Bench(
        "import",
        [of(drivers), of(package), of(named)],
        Closed(max(3, calls // 60)),
        [
            Line("`import shadow`", "p50", package, drivers, 1.15),
            Line("`from shadow import Shadow`", "p50", named, drivers, 1.15),
        ],
    )


async def store(peers: Peers, made: DynamoStore, calls: int) -> list[Bench]:
    """One key read and one insert-or-replace: the store's own work around the client's call."""
    await made.prepare([CollectionSpec("single")])
    for number in range(50):
        note = document(number)
        await made.apply("single", Insert(note["_id"], note, fresh_id()), fresh_id())

    async def put(number: int) -> None:
        note: dict[str, Any] = document(10_000_000 + number)
        note["_id"] = fresh_id()
        await made.apply("single", Insert(note["_id"], note, fresh_id()), fresh_id())

    def other(number: int) -> Any:
        return peers.aiodynamo.get_item({"_id": key(number % 50)}, consistent_read=True)

    reads = [
        Contender("aioboto3", lambda number: peers.get_item(key(number % 50))),
        Contender("store", lambda number: made.find_one("single", Query({"_id": key(number % 50)}))),
        Contender("aiodynamo", other),
    ]
    writes = [Contender("aioboto3", lambda number: peers.put_item(document(number))), Contender("store", put)]
    return [
        Bench(
            "store read",
            reads,
            Closed(calls // 2),
            [
                Line(f"key read of the DynamoDB store ({PLAIN} get_item)", "p50", "store", "aioboto3"),
                Line("the same, processor time", "cpu", "store", "aioboto3"),
                Line("aiodynamo", "p50", "aiodynamo", "aioboto3"),
                Line("aiodynamo, processor time", "cpu", "aiodynamo", "aioboto3"),
            ],
        ),
        Bench(
            "store put",
            writes,
            Closed(calls // 2),
            [
                Line("insert of the DynamoDB store", "p50", "store", "aioboto3"),
                Line("the same, processor time", "cpu", "store", "aioboto3"),
            ],
        ),
    ]
