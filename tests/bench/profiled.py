"""Where the time of a call goes: `python -m tests.bench.profiled [phase] [calls]` prints cProfile's two tables.

In the phase `dual_write` the call is an `update_one`, else a `find_one`, both by `_id` and one after the other.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
import tempfile
from pathlib import Path

from shadow.embedded.servers import DynamoDBLocal, Mongod
from tests.bench.peers import document
from tests.bench.reads import COUNT, key
from tests.bench.sites import NOTES, Sites
from tests.support import dynamodb_local

_ROWS = 60


async def _profiled(mongo_url: str, endpoint: str, folder: Path, phase: str, calls: int) -> cProfile.Profile:
    async with Sites(mongo_url, "profiled", endpoint, folder) as sites:
        await sites.plant([document(number) for number in range(COUNT)])
        shadow = await sites.shadow("motor", phase)
        notes, profile = shadow[NOTES], cProfile.Profile()
        for turn in range(2):
            if turn:
                profile.enable()
            for number in range(calls):
                if phase == "dual_write":
                    await notes.update_one({"_id": key(number)}, {"$set": {"views": number}})
                else:
                    await notes.find_one({"_id": key(number)})
            await shadow.settled(60)
        profile.disable()
        return profile


def main() -> None:
    phase = sys.argv[1] if len(sys.argv) > 1 else "shadow"
    calls = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    with tempfile.TemporaryDirectory() as folder, Mongod() as mongo, DynamoDBLocal(dynamodb_local.home()) as dynamo:
        profile = asyncio.run(_profiled(mongo.url, dynamo.url, Path(folder), phase, calls))
    stats = pstats.Stats(profile)
    for order in ("tottime", "cumtime"):
        stats.sort_stats(order).print_stats(_ROWS)


if __name__ == "__main__":
    main()
