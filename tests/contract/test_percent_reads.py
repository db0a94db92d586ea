"""Percent reads on real servers: with all reads given to the secondary, whichever store that is, the answers are those
of a bare Motor collection, and what each write has left is read back at once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shadow import Shadow
from shadow.config import ReadsSettings
from shadow.model.phase import StoreName, WriteMode
from shadow.reads.stickiness import place
from tests.contract.test_collection import SCENARIOS
from tests.support.shims import assert_level, settings_for, without_heartbeats
from tests.support.surface import Scenario, Seen, assert_same
from tests.support.topologies import drop

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALL = ReadsSettings(mongo="100%", dynamo="100%")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(StoreName))
async def shadow(
    request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shadow]:
    name = f"t{uuid.uuid4().hex[:12]}"
    made = settings_for(
        tmp_path_factory.mktemp("journal"), mongo_url, dynamodb_local_url, name, ["things"], primary=request.param
    )
    # `sync`, so that reads find few open writes and go where they are sent.
    defaults = made.defaults.model_copy(update={"reads": ALL, "writes": WriteMode.SYNC})
    limits = made.limits.model_copy(update={"routed_read": 10.0})
    made = without_heartbeats(made.model_copy(update={"defaults": defaults, "limits": limits}))
    async with Shadow.from_settings(made) as shadow:
        await shadow.prepare()
        yield shadow
    drop(mongo_url, name)


def answered(shadow: Shadow) -> dict[str, int]:
    """How many reads each store has answered."""
    counted = shadow.admin.metrics_registry.totals()["routed_reads"].get("things", {})
    return {store: sum(reasons.values()) for store, reasons in counted.items()}


READING = ["find_one", "find", "count_documents", "distinct", "aggregate", "update_one", "delete", "bulk_write"]


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name in READING])
async def test_answers_of_the_secondary_are_those_of_a_bare_collection(
    name: str, things: Any, bare: Any, shadow: Shadow
) -> None:
    run: Scenario = SCENARIOS[name]
    before = answered(shadow)
    ours, theirs = Seen(), Seen()
    await run(bare, theirs)
    await run(things, ours)
    assert_same(theirs, ours)
    await assert_level(shadow)
    secondary = str(shadow.admin.routes()["things"].secondary)
    assert answered(shadow).get(secondary, 0) > before.get(secondary, 0), "some reads found nothing open"


async def test_writers_that_read_back_what_they_wrote_never_see_less(things: Any, shadow: Shadow) -> None:
    """By key and by another field, in the middle of the writes of others, in the mode that waits for nobody."""
    route = shadow.admin.routes()["things"]
    shadow._engine.parts.routes.set("things", type(route)(route.primary, route.phase, reads=route.reads))

    async def writer(name: str) -> None:
        for count in range(1, 25):
            await things.update_one({"_id": name}, {"$set": {"count": count, "owner": name}}, upsert=True)
            assert (await things.find_one({"_id": name}))["count"] == count
            assert await things.count_documents({"owner": name, "count": count}) == 1
            if count % 8 == 0:
                await shadow.settled(30)

    await asyncio.gather(*(writer(f"w{n}") for n in range(4)))
    await shadow.settled(30)
    assert (await things.find_one({"_id": "w1"}))["count"] == 24
    shadow._engine.parts.routes.set("things", route)
    reasons = shadow.admin.metrics_registry.totals()["routed_reads"]["things"]
    assert reasons[str(route.primary)]["open_write"]
    assert reasons[str(route.secondary)]["share"]


async def test_a_share_is_the_same_keys_in_the_counters_and_in_the_stores(things: Any, shadow: Shadow) -> None:
    route = shadow.admin.routes()["things"]
    await things.insert_many([{"_id": f"k{n}"} for n in range(60)])
    assert await shadow.settled(30)
    shares = ReadsSettings(mongo=0.3, dynamo=0.3).shares()
    shadow._engine.parts.routes.set("things", type(route)(route.primary, route.phase, reads=shares))
    secondary = str(route.secondary)
    for _ in range(2):
        before = answered(shadow).get(secondary, 0)
        for number in range(60):
            assert await things.find_one({"_id": f"k{number}"}) == {"_id": f"k{number}"}
        expected = sum(place("things", {"_id": f"k{n}"}) < 0.3 for n in range(60))
        assert answered(shadow)[secondary] - before == expected
    shadow._engine.parts.routes.set("things", route)
    assert await shadow.settled(30)
