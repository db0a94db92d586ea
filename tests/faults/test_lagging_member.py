"""A member that lags, and an application that reads from secondary members: a write finds its documents all the same,
on the member that takes writes, as the server's own would."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Secondary

from shadow import Shadow
from shadow.model.limits import Limits
from shadow.model.phase import Phase, StoreName
from tests.support.shims import settings_for
from tests.support.topologies import ReplicaSet

DOCUMENTS: Final = 12
"""Each is looked for by itself: by chance none of the looks would come to the member that lags."""


@pytest.fixture(scope="module")
def replica_set(own_replica_set: ReplicaSet) -> ReplicaSet:
    """Nobody else's, for a member of it lags."""
    return own_replica_set


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_writes_look_their_documents_up_where_they_are_written(
    replica_set: ReplicaSet, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    url = f"{replica_set.url}&readPreference=secondaryPreferred"
    settings = settings_for(
        tmp_path, url, dynamodb_local_url, fresh_name, ["things"], phase=Phase.DUAL_WRITE, driver=driver
    )
    assert settings.defaults.primary is StoreName.MONGO
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_one({"_id": "before"})
        replica_set.wait_until_whole()
        with replica_set.lagging(replica_set.secondaries()[0]):
            await things.insert_many([{"_id": n, "k": n, "n": 0} for n in range(DOCUMENTS)])
            for n in range(DOCUMENTS):
                assert (await things.update_one({"k": n}, {"$set": {"n": 1}})).matched_count == 1
                assert (await things.update_many({"k": n}, {"$inc": {"n": 1}})).matched_count == 1
                assert (await things.update_one({"k": n}, {"$inc": {"n": 1}}, upsert=True)).upserted_id is None
                if n % 2:
                    assert (await things.delete_one({"k": n})).deleted_count == 1
                else:
                    assert (await things.delete_many({"k": n})).deleted_count == 1
        assert await shadow.settled(90)


QUICK: Final = Limits(recover_every=0.05, settle=0.05, minimum_age=0.3, index_age=0.3, loop_lag=0)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.parametrize("primary", list(StoreName))
async def test_what_a_lagging_member_answers_is_never_a_mismatch(
    replica_set: ReplicaSet,
    dynamodb_local_url: str,
    fresh_name: str,
    tmp_path: Path,
    driver: str,
    primary: StoreName,
) -> None:
    behind = replica_set.secondaries()[0]
    url = f"{replica_set.url}&readPreference=secondary&readPreferenceTags={replica_set.tag_of(behind)}:yes"
    settings = settings_for(
        tmp_path, url, dynamodb_local_url, fresh_name, ["things"], primary=primary, driver=driver, limits=QUICK
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        things = shadow["things"]
        await things.insert_many([{"_id": n, "n": 0} for n in range(4)])
        assert await shadow.settled(90)
        replica_set.wait_until_whole()
        with replica_set.lagging(behind):
            await things.update_one({"_id": 1}, {"$set": {"n": 1}})
            await things.insert_one({"_id": 9, "n": 9})
            await things.delete_one({"_id": 2})
            for _ in range(2):
                answers = [
                    await things.find_one({"_id": 9}),
                    await things.find({"n": 0}).sort("_id", 1).to_list(None),
                    await things.count_documents({}),
                    sorted(await things.distinct("n")),
                    await things.aggregate([{"$group": {"_id": None, "sum": {"$sum": "$n"}}}]).to_list(None),
                ]
            stale = primary is StoreName.MONGO
            assert (answers[0] is None, answers[3]) == (stale, [0] if stale else [0, 1, 9])
            assert await shadow.settled(90)
            totals = (await shadow.admin.status())["totals"]
            assert shadow.admin.findings.groups() == []
            assert sum(totals["kinds"].values()) == 0
            assert totals["verdicts"].get("transient", 0) > 0


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_two_answers_that_lack_the_same_write_are_not_equal(
    replica_set: ReplicaSet, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    """A read by `with_options` of a member that lags: what both stores answer is compared where it is the newest. So
    it is no mismatch that DynamoDB has more, and it is one that DynamoDB has lost what that member lacks too."""
    behind = replica_set.secondaries()[0]
    settings = settings_for(
        tmp_path, replica_set.url, dynamodb_local_url, fresh_name, ["things"], driver=driver, limits=QUICK
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        lagging = shadow.client.get_database(
            fresh_name,
            read_preference=Secondary(tag_sets=[{replica_set.tag_of(behind): "yes"}]),
            read_concern=ReadConcern("local"),
        )["things"]
        await lagging.insert_many([{"_id": n, "n": 0} for n in range(3)])
        assert await shadow.settled(90)
        replica_set.wait_until_whole()
        dynamo = shadow._engine.runtime().stores[StoreName.DYNAMO]
        before = await dynamo.image("things", 1)
        with replica_set.lagging(behind):
            await lagging.update_one({"_id": 1}, {"$set": {"n": 1}})
            for _ in range(2):
                assert (await lagging.find_one({"_id": 1}))["n"] == 0
                assert await lagging.find({"n": 0}).sort("_id").to_list(2) == [{"_id": n, "n": 0} for n in range(2)]
                assert await lagging.count_documents({"n": 1}) == 0
                assert await lagging.distinct("n") == [0]
            assert await shadow.settled(90)
            assert shadow.admin.findings.groups() == []
            after = await dynamo.image("things", 1)
            assert await dynamo.put("things", 1, before, after.state)
            equal = (await shadow.admin.status())["totals"]["verdicts"]["match"]
            assert (await lagging.find_one({"_id": 1}))["n"] == 0
            assert await lagging.count_documents({"n": 1}) == 0
            assert await shadow.settled(90)
            totals = (await shadow.admin.status())["totals"]
            assert totals["verdicts"]["match"] == equal
            assert totals["verdicts"]["mismatch"] == 2
