"""Whatever the secondary does, the application's calls give the same results, as fast; and it is level afterwards."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shadow import Shadow
from shadow.embedded.servers import FaultProxy, Mode
from shadow.errors import SecondaryWriteError
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

NewProxy = Callable[[str], FaultProxy]

FAULTS: dict[str, tuple[Mode, float]] = {
    "refuses connections": (Mode.REFUSE, 0.0),
    "hangs": (Mode.HANG, 0.0),
    "takes a second": (Mode.DELAY, 1.0),
    "cuts after applying": (Mode.CUT, 0.0),
    "throttles": (Mode.THROTTLE, 0.0),
    "answers 500": (Mode.ERROR, 0.0),
}
CASES = [("mongo", fault) for fault in FAULTS] + [
    ("dynamo", fault) for fault in FAULTS if FAULTS[fault][0] not in (Mode.THROTTLE, Mode.ERROR)
]
"""Primary, and what its secondary does; MongoDB has no status codes to answer with."""
# A MongoDB driver watches its server on connections of its own; a fault there would be another one.
MONGO_WRITES = b"_shadow"

BUDGET = 0.010
"""Seconds that the median call may be slower than without the fault."""

ROUNDS = 4


async def workload(shadow: Shadow, tag: str, collection: str = COLLECTION) -> tuple[list[Any], list[float]]:
    """Every verb once or more: the results, and how long each call took."""
    things = shadow[collection]
    results: list[Any] = []
    took: list[float] = []

    async def call(work: Any, read: Callable[[Any], Any]) -> None:
        started = time.perf_counter()
        found = await work
        took.append(time.perf_counter() - started)
        results.append(read(found))

    async def found(cursor: Any) -> Any:
        return await cursor.to_list(None)

    key = f"{tag}-1"
    many = [{"_id": f"{tag}-m{n}", "tag": "many", "n": n} for n in range(3)]
    await call(things.insert_one({"_id": key, "n": 1, "tag": "one"}), lambda r: r.inserted_id.split("-")[1])
    await call(things.insert_many(many), lambda r: len(r.inserted_ids))
    await call(things.find_one({"_id": key}), lambda r: (r["n"], r["tag"]))
    await call(
        things.update_one({"_id": key}, {"$inc": {"n": 5}}), lambda r: (r.matched_count, r.modified_count, r.raw_result)
    )
    await call(things.update_one({"_id": f"{tag}-u"}, {"$set": {"n": 1}}, upsert=True), lambda r: r.matched_count)
    await call(things.replace_one({"_id": key}, {"n": 7, "tag": "two"}), lambda r: r.modified_count)
    prefix = {"_id": {"$gte": f"{tag}-", "$lt": f"{tag}."}}
    await call(found(things.find(prefix).sort("_id", 1)), lambda r: [(d["_id"].split("-")[1], d.get("n")) for d in r])
    await call(things.count_documents(prefix), int)
    await call(things.delete_one({"_id": f"{tag}-m0"}), lambda r: r.deleted_count)
    await call(things.find_one({"_id": f"{tag}-m0"}), lambda r: r)
    return results, took


async def run_interleaved(healthy: Shadow, faulty: Shadow, proxy: FaultProxy, fault: str) -> tuple[float, float]:
    """Medians without and with the fault, of rounds that took turns, so that noise hits both."""
    mode, seconds = FAULTS[fault]
    await workload(healthy, "warm1", "others")
    await workload(faulty, "warm2")
    without: list[float] = []
    with_it: list[float] = []
    proxy.set(mode, seconds=seconds, only=MONGO_WRITES if proxy.url.startswith("mongodb") else b"")
    for number in range(ROUNDS):
        expected, took = await workload(healthy, f"h{number}", "others")
        without += took
        given, took = await workload(faulty, f"f{number}")
        with_it += took
        assert given == expected
    return statistics.median(without), statistics.median(with_it)


def through(site: Site, proxy: FaultProxy) -> Site:
    return site.but(mongo_url=proxy.url) if proxy.url.startswith("mongodb") else site.but(dynamo_url=proxy.url)


async def one_attempt(site: Site, proxy: FaultProxy, fault: str) -> tuple[float, float]:
    async with AsyncExitStack() as stack:
        beside = site.but(journal=f"{site.journal}.healthy", prefix=f"{site.prefix}h-", collection="others")
        healthy = await stack.enter_async_context(beside.shadow())
        faulty = await stack.enter_async_context(through(site, proxy).shadow())
        await healthy.prepare()
        await faulty.prepare()
        without, with_it = await run_interleaved(healthy, faulty, proxy, fault)
        await until(lambda: any(faulty.metrics_registry.totals()["deferred"].values()))
        proxy.clear()
        await site.level(faulty)
    return without, with_it


@pytest.mark.parametrize(("primary", "fault"), CASES)
async def test_the_application_does_not_notice(site: Site, new_proxy: NewProxy, primary: str, fault: str) -> None:
    site = site.but(primary=primary, phase="shadow")
    proxy = new_proxy(site.dynamo_url if primary == "mongo" else site.mongo_url)
    without, with_it = await one_attempt(site, proxy, fault)
    assert with_it - without < BUDGET, f"{fault}: {with_it * 1000:.1f} ms against {without * 1000:.1f} ms"


@pytest.mark.parametrize("fault", ["refuses connections", "hangs", "answers 500"])
async def test_sync_waits_and_never_fails(site: Site, new_proxy: NewProxy, fault: str) -> None:
    proxy = new_proxy(site.dynamo_url)
    async with through(site.but(writes="sync"), proxy).shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": 0})
        assert await site.disagreements() == [], "the answer came when the secondary had the write"
        proxy.set(FAULTS[fault][0])
        for number in range(1, 4):
            await shadow[COLLECTION].insert_one({"_id": number})
        proxy.clear()
        await site.level(shadow)


@pytest.mark.parametrize("fault", ["refuses connections", "hangs", "cuts after applying"])
async def test_strict_raises_and_the_write_is_healed_later(site: Site, new_proxy: NewProxy, fault: str) -> None:
    proxy = new_proxy(site.dynamo_url)
    async with through(site.but(writes="strict"), proxy).shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": 0})
        proxy.set(FAULTS[fault][0])
        with pytest.raises(SecondaryWriteError):
            await shadow[COLLECTION].insert_one({"_id": 1, "text": "not to be shown"})
        proxy.clear()
        await site.level(shadow)
        assert site.digest(1) in await site.documents()


async def test_an_outage_at_the_start_delays_nothing_and_is_made_good(site: Site, new_proxy: NewProxy) -> None:
    """The secondary is away before the first operation, as after a deployment in the middle of its outage."""
    proxy = new_proxy(site.dynamo_url)
    async with site.shadow() as shadow:
        await shadow.prepare()
    proxy.mode = Mode.HANG
    async with through(site, proxy).shadow() as shadow:
        async with asyncio.timeout(10):
            await asyncio.gather(*(shadow[COLLECTION].insert_one({"_id": n}) for n in range(50)))
        proxy.clear()
        await site.level(shadow)
        assert len(await site.documents()) == 50
