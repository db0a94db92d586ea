"""A member that lags, and an application that reads from secondary members: a write finds its documents all the same,
on the member that takes writes, as the server's own would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from shadow import Shadow
from shadow.model.phase import Phase, StoreName
from tests.support.shims import settings_for
from tests.support.topologies import ReplicaSet

DOCUMENTS: Final = 12
"""Each is looked for by itself: by chance none of the looks would come to the member that lags."""


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_writes_look_their_documents_up_where_they_are_written(
    new_replica_set: Callable[..., ReplicaSet], dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    members = new_replica_set()
    url = f"{members.url}&readPreference=secondaryPreferred"
    settings = settings_for(
        tmp_path, url, dynamodb_local_url, fresh_name, ["things"], phase=Phase.DUAL_WRITE, driver=driver
    )
    assert settings.defaults.primary is StoreName.MONGO
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_one({"_id": "before"})
        with members.lagging(members.secondaries()[0]):
            await things.insert_many([{"_id": n, "k": n, "n": 0} for n in range(DOCUMENTS)])
            for n in range(DOCUMENTS):
                assert (await things.update_one({"k": n}, {"$set": {"n": 1}})).matched_count == 1
                assert (await things.update_many({"k": n}, {"$inc": {"n": 1}})).matched_count == 1
                assert (await things.update_one({"k": n}, {"$inc": {"n": 1}}, upsert=True)).upserted_id is None
                if n % 2:
                    assert (await things.delete_one({"k": n})).deleted_count == 1
                else:
                    assert (await things.delete_many({"k": n})).deleted_count == 1
        assert await shadow.settled(60)
