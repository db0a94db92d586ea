"""Whatever the secondary does, the application's calls give the same results, as fast; and it is level afterwards."""

from __future__ import annotations

import asyncio
import sys
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

LASTS = 4.0
"""Seconds that a call takes if it waits for the secondary: the deadlines, and what a slow secondary takes. Without
waiting a call takes milliseconds; what lies between is room for a loaded machine."""

FAULTS: dict[str, tuple[Mode, float]] = {
    "refuses connections": (Mode.REFUSE, 0.0),
    "hangs": (Mode.HANG, 0.0),
    "takes seconds": (Mode.DELAY, LASTS),
    "cuts after applying": (Mode.CUT, 0.0),
    "throttles": (Mode.THROTTLE, 0.0),
    "answers 500": (Mode.ERROR, 0.0),
}
HTTP_ONLY = ("throttles", "answers 500")
CASES = (
    [("dynamodb_local_url", "mongo", fault) for fault in FAULTS]
    + [("dynamodb_local_url", "dynamo", fault) for fault in FAULTS if fault not in HTTP_ONLY]
    + [("ministack_url", "mongo", fault) for fault in ("hangs", "cuts after applying")]
)
"""Server, primary, and what its secondary does; MongoDB has no status codes to answer with."""
# A MongoDB driver watches its server on connections of its own; a fault there would be another one.
MONGO_WRITES = b"_shadow"

ROUNDS = 4

Took = dict[str, list[float]]
"""Seconds that each call took, by its name."""


async def workload(shadow: Shadow, tag: str, took: Took, collection: str = COLLECTION) -> list[Any]:
    """Every verb once or more: the results."""
    things = shadow[collection]
    results: list[Any] = []

    async def call(name: str, work: Any, read: Callable[[Any], Any]) -> None:
        started = time.perf_counter()
        found = await work
        took.setdefault(name, []).append(time.perf_counter() - started)
        results.append(read(found))

    async def found(cursor: Any) -> Any:
        return await cursor.to_list(None)

    key = f"{tag}-1"
    many = [{"_id": f"{tag}-m{n}", "tag": "many", "n": n} for n in range(3)]
    prefix = {"_id": {"$gte": f"{tag}-", "$lt": f"{tag}."}}
    await call("insert", things.insert_one({"_id": key, "n": 1, "tag": "one"}), lambda r: r.inserted_id.split("-")[1])
    await call("insert many", things.insert_many(many), lambda r: len(r.inserted_ids))
    await call("find one", things.find_one({"_id": key}), lambda r: (r["n"], r["tag"]))
    await call(
        "update",
        things.update_one({"_id": key}, {"$inc": {"n": 5}}),
        lambda r: (r.matched_count, r.modified_count, r.raw_result),
    )
    upsert = things.update_one({"_id": f"{tag}-u"}, {"$set": {"n": 1}}, upsert=True)
    await call("upsert", upsert, lambda r: r.matched_count)
    await call("replace", things.replace_one({"_id": key}, {"n": 7, "tag": "two"}), lambda r: r.modified_count)
    listed = found(things.find(prefix).sort("_id", 1))
    await call("find", listed, lambda r: [(d["_id"].split("-")[1], d.get("n")) for d in r])
    await call("count", things.count_documents(prefix), int)
    await call("delete", things.delete_one({"_id": f"{tag}-m0"}), lambda r: r.deleted_count)
    await call("find nothing", things.find_one({"_id": f"{tag}-m0"}), lambda r: r)
    return results


def through(site: Site, proxy: FaultProxy) -> Site:
    return site.but(mongo_url=proxy.url) if proxy.url.startswith("mongodb") else site.but(dynamo_url=proxy.url)


def always_ask(shadow: Shadow) -> None:
    """A secondary that is taken to be down is not asked at all; here it is to be asked at every call."""
    for breaker in shadow._engine.runtime().breakers.values():
        breaker._threshold = sys.maxsize


async def both(site: Site, proxy: FaultProxy, fault: str) -> Took:
    """The same calls of an application whose secondary is well and of one whose secondary is not: the same results.
    What the latter's calls took."""
    mode, seconds = FAULTS[fault]
    took: Took = {}
    async with AsyncExitStack() as stack:
        beside = site.but(journal=f"{site.journal}.healthy", prefix=f"{site.prefix}h-", collection="others")
        healthy = await stack.enter_async_context(beside.shadow())
        faulty = await stack.enter_async_context(through(site, proxy).shadow())
        await healthy.prepare()
        await faulty.prepare()
        always_ask(faulty)
        await workload(faulty, "warm", {})
        proxy.set(mode, seconds=seconds, only=MONGO_WRITES if proxy.url.startswith("mongodb") else b"")
        for number in range(ROUNDS):
            expected = await workload(healthy, f"h{number}", {}, "others")
            assert await workload(faulty, f"f{number}", took) == expected
        # Connections that are refused are no requests; the writes that were left to their intents tell of those.
        await until(lambda: proxy.faults or any(faulty.admin.metrics_registry.totals()["deferred"].values()), 90)
        proxy.clear()
        await site.level(faulty)
    return took


@pytest.mark.takes_turns
@pytest.mark.parametrize(("dynamo_url", "primary", "fault"), CASES, indirect=["dynamo_url"])
async def test_the_application_does_not_notice(site: Site, new_proxy: NewProxy, primary: str, fault: str) -> None:
    """A call that waits for the secondary waits each time, so it is the quickest of each that tells: the machine may
    be slow now and then."""
    limits = {"write_deadline": LASTS, "read_deadline": LASTS}
    site = site.but(primary=primary, phase="shadow", limits=limits, patience=10 * LASTS)
    proxy = new_proxy(site.dynamo_url if primary == "mongo" else site.mongo_url)
    took = await both(site, proxy, fault)
    waited = {name: min(seconds) for name, seconds in took.items() if min(seconds) >= LASTS}
    assert waited == {}, "these waited for the secondary"


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
        async with asyncio.timeout(90):
            await asyncio.gather(*(shadow[COLLECTION].insert_one({"_id": n}) for n in range(50)))
        proxy.clear()
        await site.level(shadow)
        assert len(await site.documents()) == 50
