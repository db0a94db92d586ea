"""Races by name. Each is brought about with barriers, so that it happens every time, and each ends with equal stores.

Two pairs over the same stores and the same journal are two processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shadow.model.phase import StoreName, WriteMode
from shadow.model.verdict import Deferral
from shadow.model.version import Tombstone
from shadow.writes.heal import heal
from tests.support.faulty import Gate, lose
from tests.support.pair import Pair, until
from tests.support.shadows import COLLECTION, Site

KEY = "k"


@asynccontextmanager
async def two_processes(folder: Path, **options: Any) -> AsyncIterator[tuple[Pair, Pair]]:
    """Only the first recovers, so that a gate before its heal is always come to."""
    one = Pair(folder, **options)
    async with one, Pair(folder, beside=one, recovering=False, **options) as two:
        await one.things.insert_one({"_id": KEY, "n": 0})
        await one.settled()
        yield one, two
        await one.settled()
        await two.settled()
        one.assert_equal()


async def test_two_updates_that_arrive_in_the_other_order(tmp_path: Path) -> None:
    """A's update is first on the primary and second on the secondary: B's is fenced and healed, A's finds itself
    overtaken."""
    async with two_processes(tmp_path) as (a, b):
        gate = Gate()
        a.secondary.on("replay", gate)
        await a.things.update_one({"_id": KEY}, {"$inc": {"n": 1}})
        await gate.reached.wait()
        await b.things.update_one({"_id": KEY}, {"$inc": {"n": 10}})
        await until(lambda: b.report.healings.total() == 1)
        assert b.documents(StoreName.DYNAMO)[KEY]["n"] == 11
        gate.opened.set()
        await a.settled()
        assert a.documents(StoreName.DYNAMO)[KEY]["n"] == 11


async def test_a_delete_that_arrives_before_the_insert_that_it_deletes(tmp_path: Path) -> None:
    """A inserts, B deletes; the secondary sees B first and must not have the document when A's insert comes."""
    async with two_processes(tmp_path) as (a, b):
        gate = Gate()
        a.secondary.on("replay", gate)
        await a.things.insert_one({"_id": "short-lived"})
        await gate.reached.wait()
        await b.things.delete_one({"_id": "short-lived"})
        await until(lambda: not b.runtime.writes.depth)
        gate.opened.set()
        await a.settled()
        assert "short-lived" not in a.documents(StoreName.DYNAMO)


async def test_a_delete_and_re_insert_while_a_copy_is_under_way(tmp_path: Path) -> None:
    """A's heal has read the old document on both sides; before its put, B deletes and inserts anew."""
    async with two_processes(tmp_path) as (a, b):
        a.secondary.on("replay", lose)
        gate = Gate()
        a.secondary.on("put", gate)
        await a.things.update_one({"_id": KEY}, {"$inc": {"n": 1}})
        await gate.reached.wait()
        await b.things.delete_one({"_id": KEY})
        await b.things.insert_one({"_id": KEY, "born": "again"})
        await until(lambda: not b.runtime.writes.depth)
        gate.opened.set()
        await a.settled()
        assert a.documents(StoreName.DYNAMO)[KEY] == {"_id": KEY, "born": "again"}


async def test_a_stale_copy_after_a_delete_that_found_nothing_in_the_secondary(tmp_path: Path) -> None:
    """The copy was to go where there was nothing; the delete leaves a tombstone there although it found nothing."""
    async with two_processes(tmp_path) as (a, b):
        a.secondary.on("replay", lose)
        gate = Gate()
        a.secondary.on("put", gate)
        await a.things.insert_one({"_id": "new"})
        await gate.reached.wait()
        await b.things.delete_one({"_id": "new"})
        await until(lambda: not b.runtime.writes.depth)
        image = await b.inner[StoreName.DYNAMO].image("things", "new")
        assert isinstance(image.state, Tombstone)
        gate.opened.set()
        await a.settled()
        assert "new" not in a.documents(StoreName.DYNAMO)


async def test_a_heal_against_a_live_update(tmp_path: Path) -> None:
    """The heal has read both; an update goes through on both before it puts. It must not put the old image back."""
    async with two_processes(tmp_path) as (a, b):
        old = await a.inner[StoreName.DYNAMO].image("things", KEY)
        assert await a.inner[StoreName.DYNAMO].put("things", KEY, _damaged(old), old.state)
        gate = Gate()
        a.secondary.on("put", gate)
        healing = asyncio.create_task(heal(a.primary, a.secondary, "things", KEY))
        await gate.reached.wait()
        await b.things.update_one({"_id": KEY}, {"$set": {"n": 5}})
        await until(lambda: not b.runtime.writes.depth)
        gate.opened.set()
        await healing
        await b.settled()
        assert b.documents(StoreName.DYNAMO)[KEY]["n"] == 5


def _damaged(image: Any) -> Any:
    return type(image)(image.state, {**image.document, "n": -1})


async def test_the_end_of_a_heal_against_a_new_deferral_of_its_key(tmp_path: Path) -> None:
    """The key is deferred again after the heal has read the primary: what the heal settles must not be that."""
    async with two_processes(tmp_path) as (a, b):
        a.secondary.on("replay", lose)
        gate = Gate()
        a.secondary.on("put", gate)
        await a.things.update_one({"_id": KEY}, {"$inc": {"n": 1}})
        await gate.reached.wait()
        b.secondary.on("replay", lose)
        await b.things.update_one({"_id": KEY}, {"$inc": {"n": 10}})
        await until(lambda: b.report.deferrals[Deferral.SECONDARY_ERROR] == 1)
        gate.opened.set()
        await a.settled()
        assert a.documents(StoreName.DYNAMO)[KEY]["n"] == 11


async def test_a_replay_that_was_given_up_and_arrives_after_its_heal(tmp_path: Path) -> None:
    """The deadline passed, the key was healed and deleted, and then the first request is done after all."""
    async with two_processes(tmp_path) as (a, b):
        late: list[Any] = []

        async def kept(call: Any) -> Any:
            late.append(call)
            await asyncio.Event().wait()

        a.secondary.on("replay", kept)
        await a.things.insert_one({"_id": "late"})
        await until(lambda: a.report.deferrals[Deferral.DEADLINE] == 1)
        await a.settled()
        assert "late" in a.documents(StoreName.DYNAMO)
        await b.things.delete_one({"_id": "late"})
        await b.settled()
        assert await late[0]() is None, "fenced"
        assert "late" not in a.documents(StoreName.DYNAMO)


async def test_two_processes_that_recover_the_same_keys_at_once(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as (a, b):
        a.secondary.on("replay", lose, 20)
        await asyncio.gather(*(a.things.insert_one({"_id": n}) for n in range(20)))
        await asyncio.gather(a.runtime.replicator.recover(), b.runtime.replicator.recover())
        await a.settled()
        await b.settled()
        assert len(b.documents(StoreName.DYNAMO)) == 21


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_many_increments_of_one_key_through_two_shadows_on_one_journal(site: Site, primary: str) -> None:
    """On the real servers: the counter is exact on both sides."""
    site = site.but(primary=primary)
    async with site.shadow() as one, site.shadow() as two:
        await one.prepare()
        things = [one[COLLECTION], two[COLLECTION]]
        await things[0].insert_one({"_id": KEY, "n": 0})
        for _ in range(2):
            await asyncio.gather(*(things[n % 2].update_one({"_id": KEY}, {"$inc": {"n": 1}}) for n in range(20)))
        await site.level(one)
        await site.level(two)
        assert (await site.documents())[site.digest(KEY)]["n"] == 40


async def test_strict_writers_of_one_key_in_two_processes_never_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    async with two_processes(tmp_path, writes=WriteMode.STRICT) as (a, b):
        async with asyncio.timeout(90):
            for _ in range(10):
                await asyncio.gather(
                    a.things.update_one({"_id": KEY}, {"$inc": {"n": 1}}),
                    b.things.update_one({"_id": KEY}, {"$inc": {"n": 1}}),
                )
        assert a.documents(StoreName.MONGO)[KEY]["n"] == 20
