"""Read preferences and concerns of `with_options` and `get_database`, over two stores: while MongoDB is the primary its
commands carry them, to the member that the bare driver would ask; DynamoDB satisfies them, or refuses by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, Secondary

from shadow import Shadow
from shadow.config import CollectionSettings
from shadow.errors import UnsupportedOperation
from shadow.model.phase import Phase, StoreName, Unsupported
from tests.support.shims import assert_level, settings_for
from tests.support.topologies import ReplicaSet, drop
from tests.support.trail_of_commands import READS, Commands

pytestmark = pytest.mark.plain_options(reason="it asks for options of its own, of a client with a listener")

DOCUMENTS: Final = [{"_id": n, "n": n % 2} for n in range(4)]


async def listed(cursor: Any) -> Any:
    cursor = await cursor if inspect.isawaitable(cursor) else cursor
    return await cursor.to_list(None)


CALLS: Final[dict[str, Callable[..., Any]]] = {
    "find_one": lambda c, **o: c.find_one({"n": 1}, sort=[("_id", 1)], **o),
    "find": lambda c, **o: c.find({"n": 1}, **o).sort("_id").to_list(None),
    "count_documents": lambda c, **o: c.count_documents({"n": 1}, **o),
    "distinct": lambda c, **o: c.distinct("n", **o),
    "aggregate": lambda c, **o: listed(c.aggregate([{"$group": {"_id": "$n"}}, {"$sort": {"_id": 1}}], **o)),
    "by key": lambda c, **o: c.find_one({"_id": 1}, **o),
    # What only MongoDB can do carries them too.
    "find by $where": lambda c, **o: listed(c.find({"$where": "this.n == 1"}, **o).sort("_id")),
    "count by a collation": lambda c, **o: c.count_documents({"n": 1}, collation={"locale": "sv"}, **o),
}
OPTIONS: Final[list[dict[str, Any]]] = [
    {"read_preference": ReadPreference.SECONDARY},
    {"read_preference": Nearest(tag_sets=[{"m0": "yes"}], max_staleness=120)},
    {"read_preference": ReadPreference.PRIMARY_PREFERRED, "read_concern": ReadConcern("majority")},
    {"read_concern": ReadConcern("available")},
    {"read_concern": ReadConcern("linearizable")},
    {"read_concern": ReadConcern("snapshot")},
]
ALONE: Final = frozenset({"linearizable", "snapshot"})


def asked(commands: Commands) -> list[tuple[Any, ...]]:
    """Of each read of the collection: its name, the member, and the options. The library has reads of its own."""
    return [
        (each.name, each.member, each.body.get("readConcern", {}).get("level"), each.body.get("$readPreference"))
        for each in commands.take(READS)
        if each.body.get(each.name) == "things"
    ]


async def outcome(call: Callable[..., Any], target: Any, **options: Any) -> Any:
    try:
        return await call(target, **options)
    except PyMongoError as error:
        if isinstance(error, UnsupportedOperation):
            raise
        return type(error), getattr(error, "code", None)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_reads_of_mongodb_carry_them(
    replica_set: ReplicaSet, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str
) -> None:
    commands = Commands()
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient

        client: Any = AsyncIOMotorClient(replica_set.url, event_listeners=[commands])
    else:
        client = AsyncMongoClient(replica_set.url, event_listeners=[commands])
    settings = settings_for(
        tmp_path, replica_set.url, dynamodb_local_url, fresh_name, ["things"], phase=Phase.DUAL_WRITE, driver=driver
    )
    async with Shadow.from_settings(settings, mongo_client=client) as shadow:
        await shadow.prepare()
        bare = client[f"{fresh_name}bare"]["things"]
        for each in (shadow["things"], bare):
            await each.insert_many([dict(each) for each in DOCUMENTS])
        assert await shadow.settled(60)
        replica_set.wait_until_whole()
        for given in OPTIONS:
            made = [
                shadow["things"].with_options(**given),
                shadow.get_collection("things", **given),
                shadow.client.get_database(fresh_name, **given)["things"],
            ]
            for things, (name, call) in zip(made * len(CALLS), CALLS.items(), strict=False):
                commands.take()
                expected, theirs = await outcome(call, bare.with_options(**given)), asked(commands)
                found, ours = await outcome(call, things), asked(commands)
                assert found == expected, (name, given)
                nearest = given.get("read_preference") == ReadPreference.SECONDARY
                # Of two secondaries the driver takes any.
                assert [each[nearest * 2 :] for each in ours] == [each[nearest * 2 :] for each in theirs], (name, given)
                assert len(theirs) == 1
                if nearest:
                    assert ours[0][1][1] != replica_set.primary.port, name
        # What the server refuses, its caller hears.
        odd = {"read_preference": ReadPreference.SECONDARY, "read_concern": ReadConcern("linearizable")}
        expected = await outcome(CALLS["by key"], bare.with_options(**odd))
        assert await outcome(CALLS["by key"], shadow["things"].with_options(**odd)) == expected
        assert isinstance(expected, tuple)
        await in_sessions(shadow, bare, commands)
        portable = (await shadow.admin.status())["not_portable"]["things"]["operators"]
        assert "read_concern" in portable
        await assert_level(shadow)
    closed = client.close()
    if inspect.isawaitable(closed):
        await closed
    drop(replica_set.url, fresh_name, f"{fresh_name}bare")


async def in_sessions(shadow: Shadow, bare: Any, commands: Commands) -> None:
    """In a session a read carries them, and what keeps it causally consistent; in a transaction those of the
    transaction are in their place, as with the drivers."""
    options: dict[str, Any] = {
        "read_preference": ReadPreference.SECONDARY_PREFERRED,
        "read_concern": ReadConcern("majority"),
    }
    for target in (bare, shadow["things"]):
        begun = shadow.client.start_session()
        async with await begun if inspect.isawaitable(begun) else begun as session:
            await target.update_one({"_id": 1}, {"$inc": {"seen": 1}}, session=session)
            for name, call in CALLS.items():
                commands.take()
                assert await outcome(call, target.with_options(**options), session=session), name
                sent = [each for each in commands.take(READS) if each.collection == "things"]
                assert {each.body["$readPreference"]["mode"] for each in sent} == {"secondaryPreferred"}, name
                assert all({"level", "afterClusterTime"} <= set(each.body["readConcern"]) for each in sent), name
            started = session.start_transaction()
            if inspect.isawaitable(started):
                await started
            commands.take()
            odd = target.with_options(read_concern=ReadConcern("snapshot"), read_preference=Secondary())
            assert await odd.find_one({"n": 1}, session=session)
            (sent_one,) = [each for each in commands.take(READS) if each.collection == "things"]
            assert "$readPreference" not in sent_one.body
            assert "level" not in sent_one.body.get("readConcern", {})
            await session.abort_transaction()


async def test_reads_of_dynamodb_satisfy_them_or_are_refused_by_name(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    settings = settings_for(
        tmp_path, mongo_url, dynamodb_local_url, fresh_name, ["things"], primary=StoreName.DYNAMO, phase=Phase.SHADOW
    )
    async with Shadow.from_settings(settings) as shadow:
        await shadow.prepare()
        await shadow["things"].insert_many([dict(each) for each in DOCUMENTS])
        plain = {name: await outcome(call, shadow["things"]) for name, call in list(CALLS.items())[:6]}
        for given in OPTIONS:
            things = shadow.client.get_database(fresh_name, **given)["things"]
            assert (await things.insert_one({"_id": "other"})).acknowledged
            assert (await things.delete_many({"_id": "other"})).deleted_count == 1
            level = getattr(given.get("read_concern"), "level", None)
            for name, expected in plain.items():
                if level in ALONE and (level, name) != ("linearizable", "by key"):
                    with pytest.raises(UnsupportedOperation, match=f"read_concern {level}"):
                        await CALLS[name](things)
                else:
                    assert await outcome(CALLS[name], things) == expected, (name, given)
        await assert_level(shadow)
    drop(mongo_url, fresh_name)


async def test_they_can_be_refused_early(
    mongo_url: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    made = settings_for(tmp_path, mongo_url, dynamodb_local_url, fresh_name, [], phase=Phase.DUAL_WRITE)
    early: Mapping[str, Any] = {"things": CollectionSettings(unsupported=Unsupported.REFUSE)}
    async with Shadow.from_settings(made.model_copy(update={"collections": early})) as shadow:
        await shadow.prepare()
        with pytest.raises(UnsupportedOperation, match="read_concern snapshot"):
            await shadow["things"].with_options(read_concern=ReadConcern("snapshot")).find_one({})
        assert await shadow["things"].with_options(read_concern=ReadConcern("majority")).find_one({}) is None
    drop(mongo_url, fresh_name)
