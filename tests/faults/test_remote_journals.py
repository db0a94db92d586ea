"""A whole Shadow over a journal on a server: killed processes, two that recover at once, a server that is away."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest

from shadow import Shadow
from shadow.embedded.audit import dynamo_client
from shadow.embedded.servers import FaultProxy, Mode
from shadow.errors import JournalError
from shadow.host.failpoints import Point
from tests.support.pair import until
from tests.support.recoverer import increment, recover
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import STEPS, crash_at, notes, spawn

NewProxy = Callable[[str], FaultProxy]
KEYS = 60
LONG = os.environ.get("SHADOW_LONG") == "1"
SOON = 90.0
"""Seconds within which a call must have ended that the journal's server never answers; it takes two to ten, and what a
busy machine adds."""


def in_mongo(site: Site) -> Site:
    return site.but(journal="mongodb:///?journal=intents")


def in_dynamo(site: Site) -> Site:
    return site.but(journal=f"dynamodb://{site.prefix}journal")


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


async def ended(*processes: Any) -> list[int | None]:
    await asyncio.gather(*(asyncio.to_thread(process.join, 90) for process in processes))
    return [process.exitcode for process in processes]


CRASHES = [(in_mongo, Point.AFTER_INTENT), (in_dynamo, Point.AFTER_PRIMARY)] + LONG * [
    (in_dynamo, Point.AFTER_INTENT),
    (in_mongo, Point.AFTER_PRIMARY),
    (in_mongo, Point.AFTER_REPLAY),
    (in_dynamo, Point.AFTER_REPLAY),
]
AWAY = [("mongo", Mode.HANG), ("dynamo", Mode.REFUSE)] + LONG * [("mongo", Mode.REFUSE), ("dynamo", Mode.HANG)]


@pytest.mark.parametrize("mongo_url", ["auth"], indirect=True)
@pytest.mark.parametrize(("keep", "point"), CRASHES)
async def test_what_a_killed_process_left_is_healed_by_another(
    site: Site, tmp_path: Path, keep: Callable[[Site], Site], point: Point
) -> None:
    site = keep(site).but(limits={"operation": 3.0})
    async with site.shadow() as shadow:
        await site.prepared(shadow)
        await shadow[COLLECTION].insert_one({"_id": "inc", "n": 0})
        await site.level(shadow)
    log = tmp_path / "inc.log"
    assert await ended(spawn(crash_at, site, "inc", point, str(log))) == [-signal.SIGKILL]
    acked = sum(words[0] == "ack" for words in notes(log))
    async with site.shadow() as shadow:
        held = (await shadow.admin.status())["journal"]
        assert held["open"].get(COLLECTION, 0) + held["deferred"].get(COLLECTION, 0) >= 1, "it outlived its process"
        await site.level(shadow)
    (found,) = (await site.documents()).values()
    assert 1 <= acked <= found["n"] <= acked + 1 <= STEPS


@pytest.mark.parametrize(
    ("keep", "primary"),
    [(in_mongo, "mongo"), (in_dynamo, "dynamo")],
)
async def test_two_processes_that_recover_at_once_heal_each_key_once(
    site: Site, tmp_path: Path, keep: Callable[[Site], Site], primary: str
) -> None:
    site = keep(site).but(primary=primary, limits={"recover_batch": 4, "write_deadline": 20.0, "operation": 60.0})
    if primary == "mongo":
        site = site.but(
            journal=f"{site.mongo_url.partition('?')[0]}{site.database}?journal=intents&directConnection=true"
        )
    async with site.shadow() as shadow:
        await site.prepared(shadow)
    away = f"127.0.0.1:{closed_port()}"
    broken = (
        site.but(dynamo_url=f"http://{away}")
        if primary == "mongo"
        else site.but(mongo_url=f"mongodb://{away}/?directConnection=true&serverSelectionTimeoutMS=100")
    )
    broken = broken.but(limits={"operation": 60.0, "drain": 1.0})
    async with Shadow(broken.settings(), passive=True) as shadow:
        await shadow[COLLECTION].insert_many([{"_id": n} for n in range(KEYS)])
        await until(lambda: not shadow._engine.runtime().at_work, 90)
        status = (await shadow.admin.status())["journal"]
        assert status["open"].get(COLLECTION, 0) + status["deferred"].get(COLLECTION, 0) == KEYS
    logs, go = [tmp_path / f"{n}.log" for n in range(2)], tmp_path / "go"
    processes = [spawn(recover, site, str(go), str(log)) for log in logs]
    await until(lambda: all(log.exists() for log in logs), 90)
    go.touch()
    assert await ended(*processes) == [0, 0]
    healed = [log.read_text().count("heal") for log in logs]
    assert sum(healed) == KEYS, f"each key once, by whichever of them: {healed}"
    assert await site.disagreements() == []


@pytest.mark.parametrize(("keep", "fault"), AWAY)
async def test_without_the_journal_the_primary_is_not_asked_and_with_it_again_all_goes_on(
    site: Site, new_proxy: NewProxy, keep: str, fault: Mode
) -> None:
    if keep == "mongo":
        proxy = new_proxy(site.mongo_url)
        url = f"{proxy.url.partition('?')[0]}{site.database}?journal=intents&directConnection=true"
        site = site.but(journal=url)
    else:
        proxy = new_proxy(site.dynamo_url)
        site = in_dynamo(site).but(dynamo_url=proxy.url)
    async with site.shadow() as shadow:
        await site.prepared(shadow)
        await shadow[COLLECTION].insert_one({"_id": "before"})
        await until(lambda: not shadow._engine.runtime().at_work, SOON)
        proxy.set(fault)
        async with asyncio.timeout(SOON):
            with pytest.raises(JournalError, match=r"journal\.url|can reach|took longer than") as raised:
                await shadow[COLLECTION].insert_one({"_id": "meanwhile"})
        assert "meanwhile" not in str(raised.value)
        assert await shadow[COLLECTION].find_one({"_id": "meanwhile"}) is None
        ready, checks = await shadow.admin.ready()
        assert (ready, checks["journal"][:6]) == (False, "failed")
        proxy.clear()
        async with asyncio.timeout(90):
            while not await attempted(shadow[COLLECTION].insert_one({"_id": "after"})):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await shadow.settled(90)
    names = {document["_id"] for document in (await site.documents()).values()}
    assert names == {"before", "after"}
    assert await site.disagreements() == []


async def attempted(work: Any) -> bool:
    try:
        await work
    except JournalError:
        return False
    return True


@pytest.mark.takes_turns
@pytest.mark.parametrize("keep", [in_mongo, in_dynamo])
async def test_processes_that_write_the_same_keys_leave_both_stores_equal(
    site: Site, keep: Callable[[Site], Site]
) -> None:
    """Each `Shadow` has a journal, and so a client and an owner, of its own."""
    site = keep(site)
    shadows = [site.shadow() for _ in range(3)]
    await site.prepared(shadows[0])

    async def write(shadow: Any) -> None:
        for number in range(30):
            await shadow[COLLECTION].update_one({"_id": number % 5}, {"$inc": {"n": 1}}, upsert=True)

    for each in shadows:
        await each._engine.start()
    await asyncio.gather(*(write(shadow) for shadow in shadows))
    await site.level(shadows[0], 60)
    assert sum(document["n"] for document in (await site.documents()).values()) == 90
    for each in shadows:
        await each.close()


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="SHADOW_LONG=1: the same with the file is part of every run")
@pytest.mark.parametrize("keep", [in_mongo, in_dynamo])
async def test_killed_at_random_under_load(site: Site, tmp_path: Path, keep: Callable[[Site], Site]) -> None:
    site = keep(site).but(limits={"operation": 6.0})
    async with site.shadow() as shadow:
        await site.prepared(shadow)
    logs: list[Path] = []
    for _ in range(6):
        mine = [tmp_path / f"{len(logs) + n}.log" for n in range(2)]
        logs += mine
        processes = [spawn(increment, site, log.stem, str(log)) for log in mine]
        for process, log, enough in zip(processes, mine, (20, 35), strict=True):
            await until(lambda log=log, enough=enough: log.exists() and log.read_bytes().count(b"ack") >= enough, 90)
            process.kill()
        assert await ended(*processes) == [-signal.SIGKILL] * 2
    async with site.shadow() as shadow:
        await site.level(shadow)
    counts = {key: document.get("n", 0) for document in (await site.documents()).values() if (key := document["_id"])}
    started = Counter(words[1] for log in logs for words in notes(log) if words[0] == "start")
    acked = Counter(words[1] for log in logs for words in notes(log) if words[0] == "ack")
    assert acked.total() > 0
    for task, times in started.items():
        assert acked[task] <= counts.get(task, 0) <= times, "no acknowledged increment is lost, none is made twice"


async def test_prepare_makes_what_the_journal_is_kept_in(site: Site) -> None:
    async with in_dynamo(site).shadow() as shadow:
        await shadow.prepare()
        assert (await shadow.admin.status())["journal"]["path"] == f"dynamodb://{site.prefix}journal"
    described = dynamo_client(site.dynamo_url).describe_table(TableName=f"{site.prefix}journal")["Table"]
    assert {index["IndexName"] for index in described["GlobalSecondaryIndexes"]} == {"by_turn", "by_age"}
    async with in_mongo(site).shadow() as shadow:
        await shadow.prepare()
    with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
        database = client[site.database]
        assert {"intents.intents", "intents.deferred", "intents.owners"} <= set(database.list_collection_names())
        assert {"by_key", "by_turn", "by_age"} <= database["intents.deferred"].index_information().keys()
        assert {"by_key", "by_expiry"} <= database["intents.intents"].index_information().keys()


def test_one_shadow_over_a_journal_on_a_server_serves_event_loops_one_after_the_other(site: Site) -> None:
    site = in_mongo(site).but(limits={"operation": 6.0})
    shadow = site.shadow()

    async def task(number: int) -> None:
        if not number:
            await site.prepared(shadow)
        await shadow[COLLECTION].insert_one({"_id": number})

    async def end() -> None:
        async with shadow:
            await site.level(shadow)

    before = len(os.listdir("/proc/self/task"))
    for number in range(10):
        asyncio.run(task(number))
    asyncio.run(end())
    assert len(asyncio.run(site.documents())) == 10
    assert len(os.listdir("/proc/self/task")) <= before + 30, "its threads ended with it"
