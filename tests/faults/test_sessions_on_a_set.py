"""Sessions on a set of three members: a transaction that the server ends because it lasts too long, and reads that see
the session's own writes on a member that lags. Each call answers as the bare driver's."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo.errors import PyMongoError

from shadow import Shadow
from tests.contract.test_sessions import in_secondary, listed, session_of, shown, start
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import ReplicaSet, drop, root_client

pytestmark = pytest.mark.takes_turns

_LABELS: Final = ("TransientTransactionError", "UnknownTransactionCommitResult")


async def _said(call: Callable[[], Any]) -> Any:
    """What a call answers, or its error: class, code and labels."""
    try:
        answer = call()
        return shown(await answer if inspect.isawaitable(answer) else answer)
    except PyMongoError as error:
        labels = [each for each in _LABELS if error.has_error_label(each)]
        return type(error).__name__, getattr(error, "code", None), labels


@pytest.fixture(params=["motor", "pymongo"])
async def shadow(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    own_replica_set: ReplicaSet,
    dynamodb_local_url: str,
    fresh_name: str,
) -> AsyncIterator[Shadow]:
    """Its reads go to one secondary."""
    tag = own_replica_set.tag_of(own_replica_set.secondaries()[0])
    url = f"{own_replica_set.url}&readPreference=secondary&readPreferenceTags={tag}:yes"
    settings = settings_for(tmp_path, url, dynamodb_local_url, fresh_name, ["things"], driver=request.param)
    async with Shadow.from_settings(settings) as made:
        await made.prepare()
        yield made
    drop(own_replica_set.url, fresh_name)


@pytest.mark.takes_turns
async def test_a_transaction_that_the_server_ends(own_replica_set: ReplicaSet, shadow: Shadow) -> None:
    admin = root_client(own_replica_set.primary.url).admin
    limit = {"setParameter": 1, "transactionLifetimeLimitSeconds": 1}
    answers: dict[str, Any] = {}
    for name, target in (("bare", shadow._engine.driver()["bare"]), ("things", shadow["things"])):
        await target.insert_many([{"_id": 1, "n": 1}, {"_id": 2, "n": 2}])
        for end in ("statement", "commit"):
            admin.command(limit)
            try:
                async with session_of(shadow) as session:
                    aborted = admin.command("serverStatus")["transactions"]["totalAborted"]
                    await start(session)
                    await target.update_one({"_id": 1}, {"$inc": {"n": 10}}, session=session)
                    await target.insert_one({"_id": "new"}, session=session)
                    await target.delete_one({"_id": 2}, session=session)
                    async with asyncio.timeout(60):
                        while admin.command("serverStatus")["transactions"]["totalAborted"] == aborted:  # noqa: ASYNC110
                            await asyncio.sleep(0.1)
                    said = []
                    if end == "statement":
                        said.append(await _said(lambda: target.insert_one({"_id": "late"}, session=session)))  # noqa: B023
                    said.append(await _said(lambda: session.commit_transaction()))
            finally:
                admin.command({**limit, "transactionLifetimeLimitSeconds": 60})
            answers[f"{name} {end}"] = said
    assert answers["things commit"] == answers["bare commit"] == [("OperationFailure", 251, [_LABELS[0]])]
    assert answers["things statement"][0] == answers["bare statement"][0] == answers["bare commit"][0]
    assert answers["things statement"][1][0] == answers["bare statement"][1][0] == "OperationFailure"
    await assert_level(shadow)
    assert await in_secondary(shadow) == {1: {"_id": 1, "n": 1}, 2: {"_id": 2, "n": 2}}


async def test_a_session_reads_its_own_writes_on_a_member_that_lags(
    own_replica_set: ReplicaSet, shadow: Shadow
) -> None:
    things, bare = shadow["things"], shadow._engine.driver()["bare"]
    for target in (things, bare):
        await target.insert_many([{"_id": n, "n": 0} for n in range(3)])
    assert await shadow.settled(60)
    own_replica_set.wait_until_whole()
    reads: dict[str, Callable[[Any, Any, int], Any]] = {
        "find_one": lambda c, s, ms: c.find_one({"_id": 1}, session=s, max_time_ms=ms),
        "find": lambda c, s, ms: c.find({"n": 7}, session=s, max_time_ms=ms).to_list(None),
        "count": lambda c, s, ms: c.count_documents({"n": 7}, session=s, maxTimeMS=ms),
        "distinct": lambda c, s, ms: c.distinct("n", session=s, maxTimeMS=ms),
        "aggregate": lambda c, s, ms: listed(c.aggregate([{"$match": {"n": 7}}], session=s, maxTimeMS=ms)),
    }
    async with session_of(shadow, causal_consistency=True) as session:
        with own_replica_set.lagging(own_replica_set.secondaries()[0]):
            for target in (things, bare):
                await target.update_one({"_id": 1}, {"$set": {"n": 7}}, session=session)
            for name, read in reads.items():
                said = [await _said(lambda: read(target, session, 300)) for target in (bare, things)]  # noqa: B023
                assert said[0] == said[1], name
                assert said[0][:2] == ("ExecutionTimeout", 50), (name, said)
            assert await things.find_one({"_id": 1}) == await bare.find_one({"_id": 1}) == {"_id": 1, "n": 0}
        for name, read in reads.items():
            said = [await _said(lambda: read(target, session, 30_000)) for target in (bare, things)]  # noqa: B023
            assert said[0] == said[1], name
            assert "7" in str(said[0]) or said[0] == 1, (name, said)
    await assert_level(shadow)
