"""Writers past the shim are relayed from DynamoDB's streams, on real servers, while DynamoDB is the primary: whatever a
bare client writes to its tables reaches MongoDB, through restarts, a process that is killed, and flips there and
back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure

from shadow import Shadow
from shadow.control.sqlite import SqliteRecords
from shadow.embedded.audit import dynamo_client
from shadow.errors import UnsupportedOperation
from shadow.fleet.health_gates import gates_of
from shadow.model.phase import StoreName
from shadow.stores.dynamo.client.streams import ExpiredIterator
from tests.e2e.test_relayed_writers import becomes_unverified, control_file, level, relayed, total, unverified
from tests.support.bare import bare_writer
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.tool import Tool
from tests.support.writer import spawn


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    limits = {"read_deadline": 20.0, "write_deadline": 20.0, "operation": 60.0}
    journal = str(tmp_path / "shadow.db")
    return Site(
        mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", journal, primary="dynamo", limits=limits,
        patience=20.0,
    )  # fmt: skip


def opened(site: Site) -> Shadow:
    settings = site.settings()
    observe = settings.observe.model_copy(update={"follow_writers": True})
    return Shadow(settings.model_copy(update={"observe": observe}))


@contextlib.asynccontextmanager
async def relaying(site: Site) -> AsyncIterator[Shadow]:
    """A Shadow that relays, or is ready to: it has begun when it has looked at both seats."""
    shadow = opened(site)
    try:
        await shadow.prepare()
        await until(lambda: all(each["holder"] and not each["fault"] for each in relays(shadow).values()))
        yield shadow
    finally:
        await shadow.close()


def relays(shadow: Shadow) -> dict[str, dict[str, Any]]:
    found = {str(name): dataclasses.asdict(each.status()) for name, each in shadow._engine.relays.items()}
    assert found.keys() == {"mongo", "dynamo"}
    return found


def relay(shadow: Shadow) -> dict[str, Any]:
    return relays(shadow)["dynamo"]


async def begun(shadow: Shadow, site: Site) -> None:
    """Both streams are read, and what was unknown when that began has been verified."""
    records = SqliteRecords(control_file(site))

    def reads() -> bool:
        found = [records.get(f"relay/{store}") for store in ("mongo", "dynamo")]
        cursors = [each.value["value"].get("cursor") for each in found if each is not None]
        return all(cursors) and len(cursors) == 2 and any(each["name"] == COLLECTION for each in cursors[1]["streams"])

    await until(reads)
    records.close()
    await trust(shadow)


async def trust(shadow: Shadow) -> None:
    journal = shadow._engine.parts.journal
    await journal.trust(COLLECTION, await journal.doubts(COLLECTION))
    await shadow._engine.runtime().refresh()


class Bare:
    """A client that knows nothing of shadow, and its table."""

    def __init__(self, site: Site) -> None:
        self.table = f"{site.prefix}{COLLECTION}"
        self.client = dynamo_client(site.dynamo_url)

    def insert(self, key: str, **fields: Any) -> None:
        self.client.put_item(TableName=self.table, Item={"_id": {"S": key}, "by": {"S": "bare"}, **fields})

    def update(self, key: str) -> None:
        self.client.update_item(
            TableName=self.table,
            Key={"_id": {"S": key}},
            UpdateExpression="SET #f = :v",
            ExpressionAttributeNames={"#f": "by"},
            ExpressionAttributeValues={":v": {"S": "bare"}},
        )

    def delete(self, key: str) -> None:
        self.client.delete_item(TableName=self.table, Key={"_id": {"S": key}})

    def item(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_item(TableName=self.table, Key={"_id": {"S": key}})["Item"]
        return found

    def keep_stamp(self, key: str) -> None:
        """Reads an item and writes it back whole, with whatever it has found in it."""
        self.client.put_item(TableName=self.table, Item={**self.item(key), "by": {"S": "bare"}})

    def copy(self, key: str, to: str) -> None:
        self.client.put_item(TableName=self.table, Item={**self.item(key), "_id": {"S": to}})


async def bare(site: Site, work: Callable[[Bare], Any]) -> Any:
    return await asyncio.to_thread(lambda: work(Bare(site)))


LARGE = {"text": "x" * 500_000}


async def test_whatever_a_bare_client_writes_reaches_the_secondary_and_closes_nothing(site: Site) -> None:
    async with relaying(site) as shadow:
        await begun(shadow, site)
        things = shadow[COLLECTION]
        names = ("changed", "replaced", "deleted", "kept", "source", "gone", "back")
        await things.insert_many([{"_id": name, "n": 1, "data": b"\0\1"} for name in names])
        await things.update_one({"_id": "source"}, {"$set": {"n": 2}})
        await things.delete_one({"_id": "gone"})
        await things.insert_one({"_id": "ours", "n": 1, **LARGE})
        await things.update_one({"_id": "ours"}, {"$set": {"n": 2}})
        await things.replace_one({"_id": "ours"}, {"n": 2})
        await things.delete_one({"_id": "ours"})
        await things.update_one({"_id": "upserted"}, {"$set": {"n": 2}}, upsert=True)
        await site.level(shadow)
        await asyncio.sleep(3.0)
        assert total(shadow, "shadow_heals_total") == {}, "a write of the library itself is not healed"
        assert relayed(shadow) == {}

        def work(hand: Bare) -> None:
            hand.insert("new")
            hand.insert("gone")
            hand.update("changed")
            hand.insert("replaced")
            hand.delete("deleted")
            hand.delete("back")
            hand.insert("back")
            hand.keep_stamp("kept")
            hand.copy("source", "a copy")

        await bare(site, work)
        await level(site)
        assert await shadow.settled(60)
        await until(lambda: sum(relayed(shadow).values()) >= 8)
        counts = relayed(shadow)
        # Whether the delete of what is inserted at once again counts, depends on when it is looked at.
        assert counts.pop("deleted") in (1, 2)
        assert counts == {"changed": 2, "inserted": 4, "replaced": 1}
        assert total(shadow, "shadow_out_of_band_writes_total") == {}
        assert not await unverified(shadow)
        seen = (await shadow.admin.status())["relay"]["dynamo"]
        assert (seen["fault"], seen["unread"], seen["behind"] < 10) == ("", {}, True)
        (gate,) = [each for each in gates_of([await shadow._engine.figures()]) if each.name == "writers"]
        assert not gate.ok
        assert "still active" in gate.look_at


async def test_what_was_written_while_nobody_relayed_is_relayed_by_the_next(site: Site) -> None:
    """The place in each stream outlives the process, also one that is killed, and one that waits takes over."""
    async with relaying(site) as shadow:
        await begun(shadow, site)
        await shadow[COLLECTION].insert_many([{"_id": name, "n": 1} for name in ("a", "b", "c", "d")])
        await site.level(shadow)
        await asyncio.sleep(1.0)
    await bare(site, lambda hand: hand.update("a"))
    await bare(site, lambda hand: hand.delete("b"))
    async with relaying(site) as second, relaying(site) as third:
        assert relay(third)["holder"] == relay(second)["holder"]
        await level(site)
        assert not await unverified(second)
        await second.close()
        await bare(site, lambda hand: hand.update("c"))
        await level(site)
        assert relayed(third) == {"changed": 1}
        assert not await unverified(third)


def live(site: Site, ready: str) -> None:
    """A process that relays and writes, until it is killed."""

    async def run() -> None:
        async with relaying(site) as shadow:
            await begun(shadow, site)
            Path(ready).touch()
            await hammer(shadow[COLLECTION], random.Random(1), 1_000_000)

    asyncio.run(run())


async def hammer(things: Any, rng: random.Random, times: int) -> None:
    """The application's own writes."""
    for _ in range(times):
        key = f"k{rng.randrange(40)}"
        match rng.randrange(4):
            case 0:
                await things.delete_one({"_id": key})
            case 1:
                await things.replace_one({"_id": key}, {"n": rng.randrange(99)}, upsert=True)
            case _:
                await things.update_one({"_id": key}, {"$inc": {"n": 1}}, upsert=True)
        await asyncio.sleep(0.005)


def scribble(hand: Bare, rng: random.Random, times: int) -> None:
    """Whatever a bare client may do to the same keys."""
    for _ in range(times):
        key = f"k{rng.randrange(40)}"
        match rng.randrange(5):
            case 0:
                hand.delete(key)
            case 1:
                hand.insert(key, n={"N": str(rng.randrange(99))})
            case 2:
                with contextlib.suppress(KeyError):
                    hand.keep_stamp(key)
            case _:
                hand.update(key)


def roughen(shadow: Shadow, rng: random.Random) -> None:
    """Of its requests to the streams some fail, as they do on AWS."""
    store: Any = shadow._engine.runtime().stores[StoreName.DYNAMO]
    sent = store._streams.call
    faults = [ExpiredIterator(), OperationFailure("slow down", 262), AutoReconnect("gone")]

    async def call(verb: str, table: str, **parameters: Any) -> Any:
        if verb == "get_records" and rng.random() < 0.3:
            # One answer is lost on its way.
            await sent(verb, table, **parameters)
            raise rng.choice(faults)
        return await sent(verb, table, **parameters)

    store._streams.call = call


@pytest.mark.takes_turns
@pytest.mark.timeout(300)
async def test_under_load_a_process_that_is_killed_is_replaced_and_both_stores_end_equal(
    site: Site, tmp_path: Path
) -> None:
    # What a killed process has deferred waits for the longest time that its requests may last.
    site = site.but(limits={"read_deadline": 10.0, "write_deadline": 10.0, "operation": 10.0})
    rng = random.Random(11)
    ready = tmp_path / "ready"
    child = spawn(live, site, str(ready))
    try:
        await until(ready.exists, 60)
        async with relaying(site) as shadow:
            roughen(shadow, rng)
            await trust(shadow)
            assert relay(shadow)["holder"].endswith(f"pid {child.pid}")
            await bare(site, lambda hand: scribble(hand, rng, 30))
            child.kill()
            load = hammer(shadow[COLLECTION], rng, 60)
            await asyncio.gather(load, bare(site, lambda hand: scribble(hand, rng, 50)))
            await until(lambda: relayed(shadow), 60)
            assert not relay(shadow)["holder"].endswith(f"pid {child.pid}")
            await level(site, 120)
            assert await shadow.settled(60)
            assert await site.disagreements() == []
            assert not await unverified(shadow)
    finally:
        child.kill()


def switched_off_and_on(site: Site) -> None:
    hand = Bare(site)
    specified = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    hand.client.update_table(TableName=hand.table, StreamSpecification={"StreamEnabled": False})
    hand.client.update_table(TableName=hand.table, StreamSpecification=specified)


async def reads_the_new_stream(site: Site) -> None:
    """Returns when what is noted is of the table's present stream. A relay that sees the table while it has none says
    that twice: of the stream that has ended, and of the one that has begun meanwhile."""

    def noted() -> bool:
        hand = Bare(site)
        present = hand.client.describe_table(TableName=hand.table)["Table"]["LatestStreamArn"]
        records = SqliteRecords(control_file(site))
        held = records.get("relay/dynamo")
        records.close()
        cursor = None if held is None else held.value["value"].get("cursor")
        return cursor is not None and [each["arn"] for each in cursor["streams"]] == [present]

    async with asyncio.timeout(90):
        while not await asyncio.to_thread(noted):  # noqa: ASYNC110 - nobody tells when it is noted
            await asyncio.sleep(0.1)


def moved(site: Site, change: Callable[[list[Any]], list[Any]]) -> None:
    """Changes the place in the stream that the next process begins at."""
    records = SqliteRecords(control_file(site))
    held = records.get("relay/dynamo")
    assert held is not None
    (stream,) = held.value["value"]["cursor"]["streams"]
    cursor = {"streams": [{**stream, "shards": [change(each) for each in stream["shards"]]}]}
    value = {**held.value, "value": {**held.value["value"], "cursor": cursor}}
    assert records.put(held.key, value) is not None
    records.close()


def to_nowhere(site: Site) -> None:
    """A record that this shard never had, as one is that has been trimmed."""
    moved(site, lambda shard: [shard[0], shard[1], "000000000000000000001", *shard[3:]])


def by_a_day(site: Site) -> None:
    moved(site, lambda shard: [*shard[:4], shard[4] - 25 * 3600, shard[5]])


@pytest.mark.takes_turns
async def test_where_the_stream_does_not_tell_every_write_the_collection_is_unverified(site: Site) -> None:
    """And it relays on after it."""
    async with relaying(site) as shadow:
        await begun(shadow, site)
        await shadow[COLLECTION].insert_one({"_id": "ours"})
        await bare(site, lambda hand: hand.insert("first"))
        await level(site)
        await asyncio.to_thread(switched_off_and_on, site)
        await becomes_unverified(shadow)
        await reads_the_new_stream(site)
        await trust(shadow)
        await bare(site, lambda hand: hand.insert("second"))
        await level(site)
        assert not await unverified(shadow)
    for number, lose in enumerate((to_nowhere, by_a_day)):
        await asyncio.to_thread(lose, site)
        async with relaying(site) as shadow:
            await becomes_unverified(shadow)
            await trust(shadow)
            key = f"after {number}"
            await bare(site, lambda hand, key=key: hand.insert(key))  # type: ignore[misc]
            await level(site)
            assert not await unverified(shadow), lose.__name__


async def test_without_a_stream_it_says_what_to_do_and_closes_the_gate_until_there_is_one(
    site: Site, tmp_path: Path
) -> None:
    without = site.but(options={"table": {"stream": False}})
    async with without.shadow() as shadow:
        await shadow.prepare()
    tool = Tool(site, tmp_path, observe={"follow_writers": True})
    checked = await tool("config", "check", "--connect", "--json")
    assert checked.code == 0
    (text,) = checked.json["streams"]
    assert text.startswith(f"{COLLECTION}: the table {site.prefix}{COLLECTION} has no stream; `shadow tables create`")
    planned = await tool("tables", "plan")
    assert (planned.code, "has no stream" in planned.out) == (1, True)
    shadow = opened(without)
    try:
        with pytest.raises(UnsupportedOperation, match="has no stream") as raised:
            await shadow.prepare()
        assert "shadow tables create" in raised.value.hint
        await until(lambda: COLLECTION in relay(shadow)["unread"], 30)
        gates = gates_of([await shadow._engine.figures()])
        (gate,) = [each for each in gates if each.name == "writers"]
        assert not gate.ok
        assert "has no stream" in gate.look_at
        assert shadow._engine._relayed(COLLECTION) is False, "what reads find of such writes counts"
        assert (await tool("tables", "create")).code == 0
        await until(lambda: not relay(shadow)["unread"], 30)
        assert (await tool("config", "check", "--connect", "--json")).json["streams"] == []
        assert (await tool("tables", "plan")).code == 0
    finally:
        await shadow.close()


@pytest.mark.takes_turns
async def test_the_relay_changes_sides_with_a_flip_and_back(site: Site) -> None:
    site = site.but(primary="mongo")
    mongo = bare_writer(site)
    async with relaying(site) as shadow:
        await begun(shadow, site)
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": f"k{n}", "n": n} for n in range(20)])
        for number, to in enumerate((None, StoreName.DYNAMO, StoreName.MONGO)):
            if to is not None:
                done = await shadow.admin.flip(COLLECTION, to, "a test")
                assert done["done"], done
            await things.update_many({}, {"$inc": {"n": 1}})
            before = sum(relayed(shadow).values())
            if to is StoreName.DYNAMO:
                for each in range(3):
                    await bare(site, lambda hand, each=each: hand.insert(f"by hand {each}"))  # type: ignore[misc]
            else:
                for each in range(3):
                    await mongo.insert(f"mongo {number} {each}")
            await until(lambda before=before: sum(relayed(shadow).values()) >= before + 3, 60)  # type: ignore[misc]
            await level(site)
        assert relayed(shadow) == {"inserted": 9}
        assert total(shadow, "shadow_out_of_band_writes_total") == {}, "a copy to the secondary is nobody else's write"
        assert not await unverified(shadow)


@pytest.mark.takes_turns
async def test_what_dynamodb_deletes_by_itself_goes_from_the_secondary_and_nobody_is_accused(
    site: Site, roomy_dynamodb_local_url: str
) -> None:
    """DynamoDB Local needs some seconds for it, and minutes where it has the tables of all tests; the service, some
    days. One document expires by the rule of the configuration, and one by a time that somebody else has set."""
    site = site.but(dynamo_url=roomy_dynamodb_local_url, options={"expires": {"field": "at", "after": 60}})
    async with relaying(site) as shadow:
        await begun(shadow, site)
        long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=3)
        await shadow[COLLECTION].insert_many([{"_id": "by the rule", "at": long_ago}, {"_id": "stays", "at": None}])
        await site.level(shadow)
        await bare(site, lambda hand: hand.insert("by hand", _shadow_ttl={"N": str(int(long_ago.timestamp()))}))
        await until(lambda: relayed(shadow) == {"inserted": 1})

        def left(hand: Bare) -> set[str]:
            items = hand.client.scan(TableName=hand.table)["Items"]
            return {each["_id"]["S"] for each in items} - {"~expiry"}

        async with asyncio.timeout(90):
            while await bare(site, left) != {"stays"}:  # noqa: ASYNC110 - nobody says when it is done
                await asyncio.sleep(0.2)
        with MongoClient[dict[str, Any]](site.mongo_url) as client:
            things = client[site.database][COLLECTION]
            await until(lambda: not things.count_documents({"_id": "by hand", "_shadow.t": None}), 60)
        await asyncio.sleep(3.0)
        assert relayed(shadow) == {"inserted": 1}
        assert total(shadow, "shadow_out_of_band_writes_total") == {}
        assert not await unverified(shadow)
