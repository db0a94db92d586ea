"""The event loop that most FastAPI applications run on in production: uvicorn takes uvloop where it is installed."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
import uvloop

from shadow import Shadow
from shadow.config import Settings
from shadow.model.phase import StoreName
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import drop

_WRITERS = 8
_WRITES = 12


async def _work(settings: Settings) -> None:
    assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        users = shadow["users"]
        await users.insert_many([{"_id": f"u{n}", "n": 0, "city": "x"} for n in range(4)])

        async def writer(number: int) -> None:
            for turn in range(_WRITES):
                await users.update_one({"_id": f"u{(number + turn) % 4}"}, {"$inc": {"n": 1}})
                assert (await users.find_one({"_id": f"u{turn % 4}"}))["city"] == "x"

        await asyncio.gather(*map(writer, range(_WRITERS)))
        # A caller that gives up ends nothing that has begun.
        given_up = asyncio.ensure_future(users.update_one({"_id": "u0"}, {"$inc": {"n": 1}}))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await assert_level(shadow)

        found = await users.find({"city": "x"}).sort("n", -1).limit(3).to_list(None)
        assert len(found) == 3
        (sums,) = [each async for each in users.aggregate([{"$group": {"_id": None, "n": {"$sum": "$n"}}}])]
        # The last one had not begun where its process asked first how the collection stands.
        assert sums["n"] - _WRITERS * _WRITES in (0, 1)
        await shadow.admin.flip("users", StoreName.DYNAMO, "a test")
        await users.delete_one({"_id": "u3"})
        assert await users.count_documents({}) == 3
        await assert_level(shadow)
        totals = shadow.admin.metrics_registry.totals()
        assert totals["verdicts"]["match"] > 0
        assert not totals["verdicts"]["mismatch"]
        # A machine that is busy enough lets the control store answer late, on any event loop.
        assert {name for name, count in totals["failures"].items() if count} <= {"control"}


@pytest.mark.takes_turns
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
def test_writes_reads_and_a_flip_on_uvloop(
    mongo_url: str, dynamodb_local_url: str, tmp_path: Path, driver: str
) -> None:
    name = f"uvloop{uuid.uuid4().hex[:8]}"
    uvloop.run(_work(settings_for(tmp_path, mongo_url, dynamodb_local_url, name, ["users"], driver=driver)))
    drop(mongo_url, name)
