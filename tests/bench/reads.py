"""Reads: what a phase adds to a call, and how that grows."""

from __future__ import annotations

from typing import Any, Final

from tests.bench.harness import Bench, Closed, Contender, Line, Paced
from tests.bench.peers import Peers, document
from tests.bench.sites import NOTES, Sites, of

__all__ = ["COUNT", "SIZES", "benches", "many"]

COUNT: Final = 500
"""Documents of ordinary size; keys are asked for in turn."""

SIZES: Final = {"0.2 KB": 0, "2 KB": 2_000, "20 KB": 20_000, "300 KB": 300_000}
_PER_SIZE: Final = 4
RESULTS: Final = (1, 10, 100, 1_000)
"""Documents in an answer; for each there is a user who has as many."""


def key(number: int) -> str:
    return f"note-{number % COUNT:06}"


def sized(number: int, size: int) -> str:
    """The key of a document of the size at that place in `SIZES`."""
    return f"note-{COUNT + size * _PER_SIZE + number % _PER_SIZE:06}"


def keys_of_sizes() -> dict[int, int]:
    """Number of the document to its size in bytes."""
    return {
        COUNT + place * _PER_SIZE + each: size for place, size in enumerate(SIZES.values()) for each in range(_PER_SIZE)
    }


def many() -> list[dict[str, Any]]:
    """The documents for answers of many, in the order of their keys."""
    return [
        {**document(10_000 * (1 + place) + number), "user_id": f"with-{size}"}
        for place, size in enumerate(RESULTS)
        for number in range(size)
    ]


def bare(name: str, collection: Any) -> Contender:
    return Contender(name, lambda number: collection.find_one({"_id": key(number)}))


async def find_one(sites: Sites, name: str, driver: str, phase: str, shadow_reads: float = 1.0) -> Contender:
    shadow = await sites.shadow(driver, phase, shadow_reads)
    notes = shadow[NOTES]
    return of(shadow, name, lambda number: notes.find_one({"_id": key(number)}))


async def benches(peers: Peers, sites: Sites, calls: int) -> list[Bench]:
    motor, pymongo = bare("motor", peers.motor), bare("pymongo", peers.pymongo)
    off = await find_one(sites, "shadow off", "motor", "off")
    shadowing = await find_one(sites, "shadow", "motor", "shadow")
    on_pymongo = await find_one(sites, "shadow on pymongo", "pymongo", "shadow")
    off_pymongo = await find_one(sites, "shadow off on pymongo", "pymongo", "off")
    naive = Contender("naive shim", lambda number: peers.naive_find_one(peers.motor, key(number)), share=0.5)
    each_time = Contender(
        "client per call", lambda number: peers.session_find_one(peers.motor, key(number)), share=0.02
    )
    laboratory = Contender("laboratory", lambda number: peers.laboratory_find_one(key(number)), share=0.5)
    return [
        Bench(
            "find_one off",
            [motor, off, pymongo, off_pymongo],
            Closed(calls),
            [
                Line("find_one, phase off", "p50", off.name, motor.name, 1.05),
                Line("the same, processor time", "cpu", off.name, motor.name),
                Line("find_one, phase off, on PyMongo async", "p50", off_pymongo.name, pymongo.name),
                Line("bare Motor", "p50", motor.name, pymongo.name),
            ],
        ),
        Bench(
            "find_one shadow",
            [motor, shadowing, naive, each_time, laboratory, pymongo, on_pymongo],
            Closed(calls),
            [
                Line("find_one, every read shadowed", "cpu", shadowing.name, motor.name, 1.5),
                Line("naive shim", "cpu", naive.name, motor.name),
                Line("a client for each call", "cpu", each_time.name, motor.name),
                Line("laboratory, around blocking clients in a thread", "cpu", laboratory.name, motor.name),
                Line("laboratory, around blocking clients in a thread", "p50", laboratory.name, motor.name),
                Line("find_one, every read shadowed, on PyMongo async", "cpu", on_pymongo.name, pymongo.name),
                Line("the same against bare Motor", "cpu", on_pymongo.name, motor.name),
                Line("find_one, every read shadowed", "p50", shadowing.name, motor.name),
                Line("naive shim", "p50", naive.name, motor.name),
            ],
        ),
        Bench(
            "find_one paced",
            [motor, shadowing, naive],
            Paced(calls, 200.0),
            [
                Line("every read shadowed, 200 calls/s", "p50", shadowing.name, motor.name, 1.10),
                Line("every read shadowed, 200 calls/s", "p99", shadowing.name, motor.name, 1.25),
                Line("every read shadowed, 200 calls/s", "cpu", shadowing.name, motor.name),
                Line("naive shim, 200 calls/s", "p50", naive.name, motor.name),
                Line("naive shim, 200 calls/s", "p99", naive.name, motor.name),
                Line("naive shim, 200 calls/s", "cpu", naive.name, motor.name),
            ],
        ),
        await _find_twenty(peers, sites, calls),
        await _sampling(peers, sites, calls),
        *[_concurrency(tasks, motor, shadowing, naive, calls) for tasks in (1, 4, 16, 64, 256)],
        *[await _result_set(peers, sites, size, calls) for size in RESULTS],
        await _first_of_many(peers, sites, calls),
        *[await _size(peers, sites, place, name, calls) for place, name in enumerate(SIZES)],
    ]


async def _find_twenty(peers: Peers, sites: Sites, calls: int) -> Bench:
    def query(number: int) -> dict[str, str]:
        return {"user_id": f"user-{number % 25}"}

    async def of_shadow(name: str, phase: str) -> Contender:
        shadow = await sites.shadow("motor", phase)
        notes = shadow[NOTES]
        return of(shadow, name, lambda number: notes.find(query(number)).sort("_id", 1).limit(20).to_list(20))

    off, shadowing = await of_shadow("shadow off", "off"), await of_shadow("shadow", "shadow")
    motor = Contender(
        "motor", lambda number: peers.motor.find(query(number)).sort("_id", 1).limit(20).to_list(length=20)
    )
    return Bench(
        "find of 20",
        [motor, off, shadowing],
        Closed(calls // 4),
        [
            Line("find of 20 by an index, phase off", "p50", off.name, motor.name),
            Line("find of 20 by an index, shadowed", "cpu", shadowing.name, motor.name),
        ],
    )


async def _result_set(peers: Peers, sites: Sites, size: int, calls: int) -> Bench:
    shadow = await sites.shadow("motor", "shadow")
    notes, query = shadow[NOTES], {"user_id": f"with-{size}"}
    motor = Contender("motor", lambda _: peers.motor.find(query).sort("_id", 1).to_list(length=size))
    shadowing = of(shadow, "shadow", lambda _: notes.find(query).sort("_id", 1).to_list(size))
    return Bench(
        f"result set {size}",
        [motor, shadowing],
        Paced(max(10, calls // (4 if size <= 10 else 10 if size <= 100 else 40)), 50.0 if size <= 10 else 5.0),
        [
            Line(f"find of {size:,}, every read shadowed", "cpu", shadowing.name, motor.name),
            Line(f"find of {size:,}, every read shadowed", "p50", shadowing.name, motor.name),
        ],
    )


async def _first_of_many(peers: Peers, sites: Sites, calls: int) -> Bench:
    """The first by an order that the secondary's index does not keep: the secondary reads all to answer one."""
    shadow = await sites.shadow("motor", "shadow")
    notes, query = shadow[NOTES], {"user_id": f"with-{RESULTS[-1]}"}
    motor = Contender("motor", lambda _: peers.motor.find(query).sort("_id", 1).limit(1).to_list(length=1))
    shadowing = of(shadow, "shadow", lambda _: notes.find(query).sort("_id", 1).limit(1).to_list(1))
    return Bench(
        "first of many",
        [motor, shadowing],
        Paced(max(10, calls // 40), 5.0),
        [
            Line(f"the first of {RESULTS[-1]:,}, in no index's order", "cpu", shadowing.name, motor.name),
            Line(f"the first of {RESULTS[-1]:,}, in no index's order", "p50", shadowing.name, motor.name),
        ],
    )


async def _sampling(peers: Peers, sites: Sites, calls: int) -> Bench:
    shares = {"0 %": 0.0, "1 %": 0.01, "10 %": 0.1, "50 %": 0.5, "100 %": 1.0}
    motor = bare("motor", peers.motor)
    made = [await find_one(sites, f"shadow {name}", "motor", "shadow", share) for name, share in shares.items()]
    return Bench(
        "sampling",
        [motor, *made],
        Closed(calls),
        [
            Line(f"{name} of reads shadowed", "cpu", each.name, motor.name)
            for name, each in zip(shares, made, strict=True)
        ],
    )


def _concurrency(tasks: int, motor: Contender, shadowing: Contender, naive: Contender, calls: int) -> Bench:
    return Bench(
        f"concurrency {tasks}",
        [motor, shadowing, naive],
        Closed(calls, tasks),
        [
            Line(f"every read shadowed, {tasks} at once", "cpu", shadowing.name, motor.name),
            Line(f"every read shadowed, {tasks} at once", "p50", shadowing.name, motor.name),
            Line(f"naive shim, {tasks} at once", "cpu", naive.name, motor.name),
        ],
    )


async def _size(peers: Peers, sites: Sites, place: int, name: str, calls: int) -> Bench:
    shadow = await sites.shadow("motor", "shadow")
    notes = shadow[NOTES]
    calls = calls if place < 2 else calls // 4
    motor = Contender("motor", lambda number: peers.motor.find_one({"_id": sized(number, place)}))
    shadowing = of(shadow, "shadow", lambda number: notes.find_one({"_id": sized(number, place)}))
    return Bench(
        f"size {name}",
        [motor, shadowing],
        Closed(calls) if place < 3 else Paced(calls // 4, 50.0),
        [
            Line(f"documents of {name}, every read shadowed", "cpu", shadowing.name, motor.name),
            Line(f"documents of {name}, every read shadowed", "p50", shadowing.name, motor.name),
        ],
    )
