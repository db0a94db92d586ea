"""Twenty differences of eight kinds, planted in the secondary under heavy writes: all are found with the right kind and
path, nothing else is, also while the secondary lags, goes away and comes back; and a comparison that is broken on
purpose never says that all is well.

The long form: SHADOW_COMPARISONS=100000.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from bson import ObjectId
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pymongo.errors import ConnectionFailure

from shadow import Shadow
from shadow.config import Settings
from shadow.embedded.audit import Audit
from shadow.embedded.servers import FaultProxy
from shadow.model.events import Event, MismatchConfirmed
from shadow.model.phase import StoreName
from shadow.model.verdict import Kind, Mismatch
from shadow.model.version import Image, Version
from tests.support.memory import counted
from tests.support.shadows import LIMITS

COMPARISONS: Final = int(os.environ.get("SHADOW_COMPARISONS", "1000"))
BUSY: Final = 24
"""Documents that are written and read all the time."""
PAUSE: Final = 0.02
"""Seconds between two reads of one reader. The writers make none."""
WITHIN: Final = 600.0
"""Seconds: far more than it takes, for a loaded machine."""


pytestmark = pytest.mark.timeout(1800)


def settings(mongo_url: str, database: str, dynamo_url: str, folder: Path, **limits: Any) -> Settings:
    return Settings(
        mongo={"url": mongo_url, "database": database, "driver": "pymongo"},
        dynamo={
            "endpoint_url": dynamo_url,
            "table_prefix": f"{database}-",
            "access_key_id": "local",
            "secret_access_key": "local",
            "connect_timeout": 5.0,
            "read_timeout": 5.0,
            "max_attempts": 1,
        },
        journal={"url": f"sqlite:///{folder / 'shadow.db'}"},
        # With more reads than can be compared the queue is full, and its length is time.
        limits={**LIMITS, "read_deadline": 3.0, "minimum_age": 0.3, "index_age": 1.0, "read_queue": 100, **limits},
        observe={"holdout": 0.0, "noise_share": 0.05, "canary_every": 1.0, "canary_within": 5.0},
        collections={
            "busy": {"indexes": [{"name": "group-index", "hash": "group"}]},
            "quiet": {"indexes": [{"name": "group-index", "hash": "group"}]},
            "counted": {},
        },
    )


class Site:
    """One Shadow over real servers, with a proxy before DynamoDB, and everything that it has confirmed."""

    def __init__(self, shadow: Shadow, audit: Audit, proxy: FaultProxy) -> None:
        self.shadow = shadow
        self.audit = audit
        self.proxy = proxy
        self.confirmed: list[Mismatch] = []
        self.heard_at: list[float] = []
        self.unanswered = 0
        report = shadow.admin.report
        publish = report.publish

        def noting(event: Event) -> None:
            if isinstance(event, MismatchConfirmed):
                self.confirmed.append(event.found)
                self.heard_at.append(time.monotonic())
            publish(event)

        report.publish = noting  # type: ignore[method-assign]

    def compared(self) -> int:
        return sum(
            count for name, count in self.shadow.admin.metrics_registry.totals()["verdicts"].items() if name != "shed"
        )

    async def fill(self) -> None:
        await self.shadow["busy"].insert_many([{"_id": f"b{n}", "n": 0, "group": "g"} for n in range(BUSY)])
        quiet = [{"_id": f"q{n}", "n": n, "group": f"g{n}", "list": [1, 2, 3], "deep": {"a": 1}} for n in range(40)]
        await self.shadow["quiet"].insert_many(quiet)
        await self.shadow["counted"].insert_many([{"_id": f"c{n}", "n": n} for n in range(10)])
        assert await self.shadow.settled(WITHIN)

    @contextlib.asynccontextmanager
    async def traffic(self, seed: int = 1, more: int = 0) -> AsyncIterator[None]:
        """Writers and readers of the busy documents, and readers of the quiet ones; `more` readers by key of both."""
        stop = asyncio.Event()
        chance = random.Random(seed)
        acts = [self._write, self._write, self._read, self._read_quiet, *([self._read_by_key] * more)]
        tasks = [asyncio.create_task(self._live(act, stop, chance)) for act in acts]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def _live(
        self, act: Callable[[random.Random], Awaitable[Any]], stop: asyncio.Event, chance: random.Random
    ) -> None:
        while not stop.is_set():
            try:
                await act(chance)
            except ConnectionFailure:
                # A primary that is starved for so long is the machine's fault; what came of the write has to be found.
                self.unanswered += 1
            await asyncio.sleep(0)

    async def _write(self, chance: random.Random) -> None:
        busy, key = self.shadow["busy"], f"b{chance.randrange(BUSY)}"
        match chance.randrange(6):
            case 0:
                await busy.delete_one({"_id": key})
            case 1:
                await busy.replace_one({"_id": key}, {"n": 0, "group": "g"}, upsert=True)
            case _:
                await busy.update_one({"_id": key}, {"$inc": {"n": 1}, "$set": {"group": "g"}}, upsert=True)

    async def _read(self, chance: random.Random) -> None:
        busy = self.shadow["busy"]
        await asyncio.sleep(PAUSE)
        match chance.randrange(8):
            case 0:
                await busy.find({"group": "g"}).sort("n", -1).limit(5).to_list(None)
            case 1:
                await busy.count_documents({"n": {"$gt": 2}})
            case 2:
                await busy.aggregate([{"$group": {"_id": "$group", "n": {"$sum": "$n"}}}]).to_list(None)
            case _:
                await busy.find_one({"_id": f"b{chance.randrange(BUSY)}"})

    async def _read_quiet(self, chance: random.Random) -> None:
        quiet = self.shadow["quiet"]
        await asyncio.sleep(PAUSE)
        if chance.randrange(4):
            await quiet.find_one({"_id": f"q{chance.randrange(40)}"})
        else:
            await quiet.find({"group": f"g{chance.randrange(40)}"}).to_list(None)

    async def _read_by_key(self, chance: random.Random) -> None:
        if chance.randrange(8):
            await self.shadow["quiet"].find_one({"_id": f"q{chance.randrange(40)}"})
        else:
            await self.shadow["busy"].find_one({"_id": f"b{chance.randrange(BUSY)}"})

    async def until(
        self, condition: Callable[[], Any], what: Callable[[], str], act: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        end = time.monotonic() + WITHIN
        while not condition():
            assert time.monotonic() < end, what()
            if act is not None:
                await act()
            await asyncio.sleep(0.05)


@pytest.fixture
async def site(
    mongo_url: str,
    mongo_database: str,
    dynamodb_local_url: str,
    new_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
) -> AsyncIterator[Site]:
    proxy = new_proxy(dynamodb_local_url)
    made = settings(mongo_url, mongo_database, proxy.url, tmp_path)
    async with Shadow(made) as shadow:
        await shadow.prepare()
        audit = Audit(mongo_url, mongo_database, dynamodb_local_url, f"{mongo_database}-", made.specs())
        site = Site(shadow, audit, proxy)
        await site.fill()
        yield site


PLANTED: Final[list[tuple[str, Kind, str]]] = [
    *((f"q{n}", Kind.VALUE, path) for n, path in enumerate(("n", "deep.a", "list.1", "list.3"))),
    *((f"q{n}", Kind.TYPE, path) for n, path in ((4, "n"), (5, "deep.a"), (6, "group"))),
    *((f"q{n}", Kind.MISSING, "") for n in (7, 8, 9)),
    *((f"x{n}", Kind.EXTRA, "") for n in (10, 11, 12)),
    ("q13", Kind.VALUE, "list"),
    ("q14", Kind.ORDER, ""),
    *((f"q{n}", Kind.VERSION_LOST, "n") for n in (15, 16)),
    ("q17", Kind.WRITE_RESULT, "smuggled"),
    ("", Kind.COUNT, ""),
    ("q18", Kind.VALUE, "smuggled"),
]
"""Twenty: key, kind, and a path that the differences name ("" for none)."""

assert len(PLANTED) == 20
assert len({kind for _, kind, _ in PLANTED}) == 8


async def plant(site: Site) -> None:
    """Changes the secondary behind the shim."""
    runtime = site.shadow._engine.runtime()
    dynamo, mongo = runtime.stores[StoreName.DYNAMO], runtime.stores[StoreName.MONGO]

    async def put(key: str, change: Callable[[dict[str, Any]], dict[str, Any]], version: Version | None = None) -> None:
        seen = await dynamo.image("quiet", key)
        assert seen.document is not None
        image = Image(version or seen.state, change(dict(seen.document)))
        assert await dynamo.put("quiet", key, image, seen.state)

    await put("q0", lambda d: {**d, "n": -1})
    await put("q1", lambda d: {**d, "deep": {"a": 2}})
    await put("q2", lambda d: {**d, "list": [1, 9, 3]})
    await put("q3", lambda d: {**d, "list": [1, 2, 3, 4]})
    await put("q4", lambda d: {**d, "n": float(d["n"])})
    await put("q5", lambda d: {**d, "deep": {"a": "1"}})
    await put("q6", lambda d: {**d, "group": 6})
    for key in ("q7", "q8", "q9"):
        await asyncio.to_thread(site.audit.remove, "quiet", key)
    for number in (10, 11, 12):
        extra = {"_id": f"x{number}", "n": 0, "group": f"g{number}"}
        await asyncio.to_thread(site.audit.plant, "quiet", extra)
    await put("q13", lambda d: {**d, "list": [3, 1, 2]})
    await put("q14", lambda d: dict(reversed(d.items())))
    for key in ("q15", "q16"):
        seen = await mongo.image("quiet", key)
        assert seen.document is not None
        lost = Image(Version("before", 7), {**seen.document, "n": -5})
        assert await dynamo.put("quiet", key, lost, (await dynamo.image("quiet", key)).state)
    await put("q17", lambda d: {**d, "smuggled": True})
    await put("q18", lambda d: {**d, "smuggled": True})
    await asyncio.to_thread(site.audit.remove, "counted", "c3")


def is_it(found: Mismatch, key: str, kind: Kind, path: str) -> bool:
    at_path = not path or path in {difference.path for difference in found.differences}
    return found.kind is kind and found.key == (key or None) and at_path


def found(site: Site, key: str, kind: Kind, path: str) -> bool:
    return any(is_it(each, key, kind, path) for each in site.confirmed)


def seconds_until_found(site: Site, began: float) -> dict[str, float]:
    """By planted difference, in the order in which they were found; all of them must be."""
    took = {
        f"{kind} {key} {path}".strip(): next(
            at - began for at, each in zip(site.heard_at, site.confirmed, strict=True) if is_it(each, key, kind, path)
        )
        for key, kind, path in PLANTED
    }
    return dict(sorted(took.items(), key=lambda each: each[1]))


def missing(site: Site) -> list[tuple[str, Kind, str]]:
    return [each for each in PLANTED if not found(site, *each)]


def false_alarms(site: Site) -> list[str]:
    known = {(key, kind) for key, kind, _ in PLANTED}
    # A document is read in more than one way: the write that meets q17 heals it, whatever a read said of it before.
    also = {("q17", Kind.VALUE)}
    return [
        f"{each.collection} {each.verb} {each.kind} {each.key}"
        for each in site.confirmed
        if (each.key or "", each.kind) not in known | also
    ]


async def search(site: Site) -> None:
    """What an application would do sooner or later: it reads everything, in each way, at the same time."""
    quiet = site.shadow["quiet"]

    async def by_key() -> None:
        for number in range(40):
            await quiet.find_one({"_id": f"q{number}"})

    async def by_index() -> None:
        for number in range(40):
            await quiet.find({"group": f"g{number}"}).to_list(None)

    await asyncio.gather(by_key(), by_index(), site.shadow["counted"].count_documents({}))


async def write_again(site: Site) -> None:
    """A write that the secondary was too slow for, on a crowded machine, is healed and not compared: planted anew."""
    if ("q17", Kind.WRITE_RESULT, "smuggled") not in missing(site):
        return
    dynamo = site.shadow._engine.runtime().stores[StoreName.DYNAMO]
    seen = await dynamo.image("quiet", "q17")
    if seen.document is not None and not await site.shadow.admin.lagging("quiet", "q17"):
        image = Image(seen.state, {**seen.document, "smuggled": True})
        if await dynamo.put("quiet", "q17", image, seen.state):
            await site.shadow["quiet"].update_one({"_id": "q17"}, {"$inc": {"n": 1}})


async def heal(site: Site) -> None:
    """Everything that was planted."""
    for key in sorted({key for key, _, _ in PLANTED if key}):
        await site.shadow.admin.heal("quiet", key)
    await site.shadow.admin.heal("counted", "c3")


@pytest.mark.takes_turns
@pytest.mark.timeout(7200 if COMPARISONS > 10_000 else 1800)
async def test_all_planted_differences_are_found_under_writes_and_nothing_else_is(site: Site) -> None:
    async with site.traffic():
        began = time.monotonic()
        await plant(site)
        await site.shadow["quiet"].update_one({"_id": "q17"}, {"$inc": {"n": 1}})
        planted = time.monotonic()

        async def look() -> None:
            await search(site)
            await write_again(site)

        await site.until(lambda: not missing(site), lambda: f"not found: {missing(site)}", look)
        took = seconds_until_found(site, planted)
        print(f"planted within {planted - began:.1f} s; found, from the last one on:")
        print("\n".join(f"{seconds:6.2f} s  {what}" for what, seconds in took.items()))
    await heal(site)
    # How long one takes is not asked any more: a longer queue compares more.
    site.shadow._engine.runtime().reads.capacity = 500
    async with site.traffic(seed=3, more=8):
        end = time.monotonic() + WITHIN * max(1, COMPARISONS // 1000)
        while (compared := site.compared()) < COMPARISONS:
            assert time.monotonic() < end, f"{compared} comparisons"
            print(f"{time.monotonic() - began:.0f} s: {compared} comparisons, {len(site.confirmed)} mismatches")
            await asyncio.sleep(COMPARISONS / 5000)
    assert await site.shadow.settled(WITHIN)
    status = await site.shadow.admin.status()
    print(f"{site.unanswered} calls without an answer of the primary")
    print(f"{site.compared()} comparisons in {time.monotonic() - began:.0f} s: {status['totals']['verdicts']}")
    assert false_alarms(site) == []
    assert site.audit.disagreements() == []
    assert set(status["totals"]["noise"]) >= {"match"}
    assert status["totals"]["noise"]["mismatch"] == 0
    assert all(each["working"] for each in status["comparison"].values())


@pytest.mark.takes_turns
async def test_a_secondary_that_lags_throttles_and_goes_away_makes_no_false_alarm_and_hides_nothing(site: Site) -> None:
    async with site.traffic(seed=2):
        await plant(site)
        site.proxy.set("delay", seconds=0.05)
        await asyncio.sleep(1.0)
        site.proxy.mode = "throttle"
        await site.until(lambda: throttled(site) >= 5, lambda: f"throttled: {throttled(site)}")
        site.proxy.mode = "refuse"
        await site.until(lambda: not working(site), lambda: "the comparison is said to work without a secondary")
        site.proxy.clear()
        await site.shadow["quiet"].update_one({"_id": "q17"}, {"$inc": {"n": 1}})
        sought = [each for each in PLANTED if each[1] is not Kind.WRITE_RESULT]
        await site.until(
            lambda: not [each for each in sought if not found(site, *each)],
            lambda: f"not found: {missing(site)}",
            lambda: search(site),
        )
        await site.until(lambda: working(site), lambda: "the comparison does not recover")
    assert await site.shadow.settled(WITHIN), site.shadow._engine.runtime().stats
    assert false_alarms(site) == []


def throttled(site: Site) -> float:
    return counted(site.shadow, "shadow_dynamo_throttled_requests_total")


def working(site: Site) -> bool:
    return all(site.shadow._engine.runtime().reader.canaries.working().values())


# --- broken on purpose ------------------------------------------------------------------------------------------


RESTING_ON_COMPARISONS: Final = ("comparison works", "findings", "writers", "compared", "shed")


async def says_all_is_well(shadow: Shadow) -> list[str]:
    """Every place that says so of the collection `quiet`."""
    app = FastAPI()
    app.include_router(shadow.admin_router())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1") as client:
        status = (await client.get("/status")).json()
        ready = (await client.get("/readyz")).json()
        metrics = (await client.get("/metrics")).text
        console = (await client.get("/console")).text
    said = []
    if status["comparison"]["quiet"]["working"]:
        said.append("status")
    if ready["parts"]["comparison_quiet"] == "ok":
        said.append("readyz")
    if 'shadow_comparison_working{collection="quiet"} 1.0' in metrics:
        said.append("metrics")
    if status["verdict"]["safe"]:
        said.append("verdict")
    if "Not safe to flip" not in console:
        said.append("console")
    said += [
        f"gate {gate['name']}"
        for gate in status["verdict"]["gates"]
        if gate["collection"] == "quiet" and gate["name"] in RESTING_ON_COMPARISONS and gate["ok"]
    ]
    assert ready["ready"], "a comparison that does not work must not take the application out of service"
    return said


async def never_well(shadow: Shadow, rounds: int = 4) -> None:
    """After a canary's time, and for some rounds more, nothing says that all is well."""
    end = time.monotonic() + WITHIN
    while await says_all_is_well(shadow):
        assert time.monotonic() < end, json.dumps((await shadow.admin.status())["comparison"])
        await asyncio.sleep(0.2)
    sought = canaries(shadow)
    while canaries(shadow) < sought + rounds:
        assert await says_all_is_well(shadow) == []
        await asyncio.sleep(0.2)


def canaries(shadow: Shadow) -> int:
    return int(shadow._engine.runtime().reader.canaries.status()["quiet"]["canary"]["injected"])


async def works(shadow: Shadow) -> None:
    end = time.monotonic() + WITHIN
    while not shadow._engine.runtime().reader.canaries.working()["quiet"]:
        assert time.monotonic() < end, shadow._engine.runtime().reader.canaries.status()
        await asyncio.sleep(0.1)


@pytest.mark.takes_turns
async def test_a_secondary_whose_reads_fail_is_never_all_is_well(site: Site) -> None:
    await works(site.shadow)
    site.proxy.mode = "refuse"
    for number in range(20):
        await site.shadow["quiet"].find_one({"_id": f"q{number}"})
    await never_well(site.shadow)


@pytest.mark.takes_turns
async def test_a_lane_that_is_always_full_is_never_all_is_well(site: Site) -> None:
    await works(site.shadow)
    site.shadow._engine.runtime().reads.capacity = 0
    await site.shadow["quiet"].find_one({"_id": "q1"})
    await never_well(site.shadow)
    assert site.shadow.admin.metrics_registry.totals()["shed"]["lane_full"] > 0


async def test_sampling_at_zero_is_never_all_is_well(
    mongo_url: str, mongo_database: str, dynamodb_local_url: str, tmp_path: Path
) -> None:
    made = settings(mongo_url, mongo_database, dynamodb_local_url, tmp_path)
    made = made.model_copy(update={"defaults": made.defaults.model_copy(update={"shadow_reads": 0.0})})
    async with Shadow(made) as shadow:
        await shadow.prepare()
        await shadow["quiet"].insert_one({"_id": str(ObjectId())})
        for _ in range(5):
            assert await says_all_is_well(shadow) == []
            await asyncio.sleep(0.3)
        assert "sampling is 0" in (await shadow.admin.status())["comparison"]["quiet"]["why_not"]
