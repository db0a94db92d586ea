"""What nobody can read, on either side: it stops no job and no read of others, it is named by key and kind, and where
the other side is whole it is repaired by copy."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import bson
import pymongo
import pytest
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from typer.testing import CliRunner

from shadow import Shadow
from shadow.cli import app
from shadow.embedded.audit import dynamo_client
from shadow.errors import UnreadableDocument
from shadow.jobs.plan_file import write_plan
from shadow.jobs.repair import apply_plan, undo
from shadow.model.phase import StoreName
from shadow.model.verdict import Healing, Kind
from shadow.model.version import Document, Image, Unknown
from shadow.stores.dynamo.items.keys import key_text
from tests.support.migration import OpenJobs, backfill, control_of, load, verify
from tests.support.raw_bson import ODD, UNREADABLE, document, element, int32, text
from tests.support.shadows import COLLECTION, Site

COUNT: Final = 150


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    return Site(
        mongo_url, mongo_database, dynamodb_local_url, f"{fresh_name}-", str(tmp_path / "shadow.db"),
        limits={"write_deadline": 5.0, "read_deadline": 5.0, "minimum_age": 0.05}, patience=5.0,
    )  # fmt: skip


@pytest.fixture
async def opened(site: Site) -> AsyncIterator[tuple[Shadow, OpenJobs]]:
    control = control_of(site)
    async with site.shadow() as shadow:
        await shadow.prepare()
        yield shadow, control
    control.close()


def items(site: Site) -> Items:
    return Items(site)


class Items:
    """The table past everything: what another hand does to it."""

    def __init__(self, site: Site) -> None:
        self._client = dynamo_client(site.dynamo_url)
        self._table = f"{site.prefix}{COLLECTION}"

    def set(self, key: Any, path: str, value: dict[str, Any]) -> None:
        names = {f"#{place}": name for place, name in enumerate(path.split("."))}
        self._client.update_item(
            TableName=self._table,
            Key={"_id": {"S": key_text(key)}},
            UpdateExpression=f"SET {'.'.join(names)} = :v",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={":v": value},
        )

    def put(self, text: str, **attributes: Any) -> None:
        self._client.put_item(TableName=self._table, Item={"_id": {"S": text}, **attributes})

    def lose_parts(self, key: Any) -> None:
        """Deletes a part of a large document's body."""
        head = self._client.get_item(TableName=self._table, Key={"_id": {"S": key_text(key)}})["Item"]
        generation = head["_shadow"]["M"]["g"]["S"]
        for page in self._client.get_paginator("scan").paginate(TableName=self._table):
            for item in page["Items"]:
                stamp = item["_shadow"]["M"]
                if "k" in stamp and stamp.get("g", {}).get("S") == generation:
                    self._client.delete_item(TableName=self._table, Key={"_id": item["_id"]})
                    return
        raise AssertionError("there is no part")


def plain(number: int) -> Document:
    import datetime as dt

    return {"_id": f"k{number}", "n": number, "at": dt.datetime(2024, 1, 1 + number % 28), "half": number + 0.5}


DAMAGES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "a date's text": ("at", {"S": "2024-01-08T00:00:00.000~"}),
    "another type under a hint": ("half", {"BOOL": True}),
    "a number under a date's hint": ("at", {"N": "20240108"}),
    "hints": ("_shadow.h", {"M": {"at": {"S": "?"}}}),
    "hints of another type": ("_shadow.h", {"L": [{"S": "x"}]}),
    "no birth": ("_shadow.b", {"N": "5"}),
    "a revision that is text": ("_shadow.r", {"S": "3"}),
    "a revision out of range": ("_shadow.r", {"N": "1.5"}),
    "a tombstone's mark": ("_shadow.t", {"N": "1"}),
    "a body": ("_shadow.z", {"B": b"no zlib"}),
    "a head without parts": ("_shadow.g", {"S": "nobody"}),
    "a value set aside": ("_shadow.a", {"M": {"at": {"L": [{"S": "x"}, {"S": "t"}]}}}),
    "no stamp at all": ("_shadow", {"NULL": True}),
}
"""What another hand may do to an item: a path of its attributes, and what it puts there."""


async def damaged(shadow: Shadow, site: Site) -> dict[str, str]:
    """Puts `COUNT` documents into both stores and damages one for each of `DAMAGES`, and the body of a large one; the
    kind of damage by key."""
    things = shadow[COLLECTION]
    await things.insert_many([plain(number) for number in range(COUNT)])
    await things.insert_one({"_id": "large", "body": os.urandom(900_000)})
    assert await shadow.settled(90)
    hand = items(site)
    by_key = {f"k{number}": name for number, name in enumerate(DAMAGES)}
    for key, name in by_key.items():
        await asyncio.to_thread(hand.set, key, *DAMAGES[name])
    await asyncio.to_thread(hand.lose_parts, "large")
    return {**by_key, "large": "a part of its body"}


def issues_of(control: OpenJobs) -> dict[Any, tuple[str, str]]:
    last = control.jobs(kind="verify", limit=1)[0]
    return {each.key: (each.kind, each.reason) for page in control.issues(last.id) for each in page}


# --- the secondary ------------------------------------------------------------------------------------------------


async def test_damaged_items_are_differences_like_others_and_a_plan_repairs_them(
    opened: tuple[Shadow, OpenJobs], site: Site, tmp_path: Path
) -> None:
    shadow, control = opened
    by_key = await damaged(shadow, site)
    hidden = {key for key, name in by_key.items() if name == "a tombstone's mark"}
    found = await verify(shadow, control)
    assert (found.outcome, found.compared) == ("different", COUNT + 1)
    issues = issues_of(control)
    assert set(issues) == set(by_key), "each of them, and no other"
    assert {key for key, (kind, _) in issues.items() if kind == "missing"} == hidden
    unreadable = {key for key, (_, reason) in issues.items() if reason.startswith(Kind.UNREADABLE)}
    assert set(by_key) - unreadable - hidden == {"k12"}, "without a stamp its values can be read, as another writer's"
    assert shadow.admin.findings.summary()["open"] == len(by_key)

    plan, log = tmp_path / "plan.jsonl", tmp_path / "undo.jsonl"
    with plan.open("w") as file:
        assert write_plan(file, control, control.jobs(kind="verify", limit=1)[0]) == len(by_key)
    dry = await apply_plan(shadow.admin.sides(COLLECTION), plan, log=None)
    assert dry == {"copied": len(by_key)}
    with log.open("w") as file:
        assert await apply_plan(shadow.admin.sides(COLLECTION), plan, log=lambda: file) == {"copied": len(by_key)}
    assert (await verify(shadow, control)).clean
    assert await site.disagreements() == []
    back = await undo(shadow.admin.sides(COLLECTION), log)
    assert back["unreadable"] == len(by_key) - back["restored"]
    assert back["restored"] <= 2, "what could not be read cannot be put back"


@pytest.mark.parametrize("full", [True, False], ids=["contents", "versions"])
async def test_an_item_under_no_key_is_named_and_stops_nothing(
    opened: tuple[Shadow, OpenJobs], site: Site, *, full: bool
) -> None:
    shadow, control = opened
    await shadow[COLLECTION].insert_many([plain(number) for number in range(20)])
    assert await shadow.settled(90)
    await asyncio.to_thread(items(site).put, "~foo:bar", n={"N": "1"})
    found = await verify(shadow, control, full=full)
    assert (found.outcome, found.unreadable, found.missing, found.extra) == ("different", 1, 0, 0)
    ((kind, reason),) = issues_of(control).values()
    assert (kind, reason) == ("unreadable", "a key that is not a key text")


@pytest.mark.parametrize("name", DAMAGES)
async def test_heal_copies_over_what_cannot_be_read(opened: tuple[Shadow, OpenJobs], site: Site, name: str) -> None:
    shadow, _ = opened
    await shadow[COLLECTION].insert_one(plain(1))
    assert await shadow.settled(90)
    await asyncio.to_thread(items(site).set, "k1", *DAMAGES[name])
    assert await shadow.admin.heal(COLLECTION, "k1") is Healing.COPIED
    assert await site.disagreements() == []
    await asyncio.to_thread(items(site).set, "k1", *DAMAGES[name])
    with pymongo.MongoClient[Document](site.mongo_url) as client:
        client[site.database][COLLECTION].delete_one({"_id": "k1"})
    assert await shadow.admin.heal(COLLECTION, "k1") is Healing.TOMBSTONED
    assert await site.disagreements() == []


async def test_a_copy_over_what_cannot_be_read_depends_on_what_stood_there(
    opened: tuple[Shadow, OpenJobs], site: Site
) -> None:
    """A stamp that cannot be read is a fence as any version is: what has changed since is not copied over."""
    shadow, _ = opened
    await shadow[COLLECTION].insert_one(plain(1))
    assert await shadow.settled(90)
    store, hand = shadow._engine.runtime().stores[StoreName.DYNAMO], items(site)
    await asyncio.to_thread(hand.set, "k1", "_shadow.r", {"S": "3"})
    seen = await store.image(COLLECTION, "k1")
    assert isinstance(seen.state, Unknown)
    wanted = await shadow._engine.runtime().stores[StoreName.MONGO].image(COLLECTION, "k1")
    await asyncio.to_thread(hand.set, "k1", "_shadow.r", {"S": "4"})
    assert not await store.put(COLLECTION, "k1", wanted, seen.state)
    again = await store.image(COLLECTION, "k1")
    assert await store.put(COLLECTION, "k1", wanted, again.state)
    assert not await store.put(COLLECTION, "k1", wanted, again.state)
    with pytest.raises(UnreadableDocument):
        await store.put(COLLECTION, "k1", seen_damaged(seen), wanted.state)


def seen_damaged(seen: Image) -> Image:
    from shadow.model.stored import Damaged

    return Image(seen.state, Damaged({"_id": "k1"}, {"at": "it was damaged"}))


@pytest.mark.parametrize("name", DAMAGES)
async def test_live_writes_heal_what_they_meet(opened: tuple[Shadow, OpenJobs], site: Site, name: str) -> None:
    """An update, a replacement and a delete of a document whose item cannot be read: acknowledged, followed, equal."""
    shadow, _ = opened
    things, hand = shadow[COLLECTION], items(site)
    await things.insert_many([plain(number) for number in range(4)])
    assert await shadow.settled(90)
    for number in range(4):
        await asyncio.to_thread(hand.set, f"k{number}", *DAMAGES[name])
    assert (await things.update_one({"_id": "k0"}, {"$set": {"n": 77}})).modified_count == 1
    assert (await things.update_one({"_id": "k1"}, {"$push": {"list": 1}})).modified_count == 1
    assert (await things.replace_one({"_id": "k2"}, {"n": 78})).modified_count == 1
    assert (await things.delete_one({"_id": "k3", "n": 3})).deleted_count == 1
    await site.level(shadow)


@pytest.mark.parametrize("name", list(StoreName))
async def test_stamps_that_no_writer_has_made_are_left_where_they_are(
    opened: tuple[Shadow, OpenJobs], site: Site, name: StoreName
) -> None:
    """What finalize takes off is shadow's own; the rest is told and stops nothing."""
    shadow, _ = opened
    await shadow[COLLECTION].insert_many([plain(number) for number in range(6)])
    assert await shadow.settled(90)
    hand = items(site)
    await asyncio.to_thread(hand.set, "k1", *DAMAGES["a revision that is text"])
    await asyncio.to_thread(hand.set, "k2", *DAMAGES["a tombstone's mark"])
    with pymongo.MongoClient[Document](site.mongo_url) as client:
        things = client[site.database][COLLECTION]
        things.update_one({"_id": "k1"}, {"$set": {"_shadow.r": "x"}})
        things.update_one({"_id": "k2"}, {"$set": {"_shadow.t": 1}})
    store: Any = shadow._engine.runtime().stores[name]
    found = []
    for within in await store.ranges.cut(COLLECTION, 1):
        async for batch in store.stamps.walk(COLLECTION, within, None, size=4):
            found += [stamp for stamp, _ in batch.images]
    taken = dict(zip([each.key for each in found], await store.stamps.strip(COLLECTION, found), strict=True))
    assert taken == {f"k{number}": number not in (1, 2) for number in range(6)}


async def test_shadow_reads_name_the_document_that_cannot_be_read(site: Site) -> None:
    """By key, by keys that are read near to each other, by filter and in order; the application's answers are whole."""
    async with site.but(phase="shadow").shadow() as shadow:
        await shadow.prepare()
        things, hand = shadow[COLLECTION], items(site)
        await things.insert_many([plain(number) for number in range(10)])
        assert await shadow.settled(90)
        await asyncio.to_thread(hand.set, "k7", *DAMAGES["a date's text"])
        await asyncio.to_thread(hand.set, "k8", *DAMAGES["a revision that is text"])

        async def read() -> None:
            assert await things.find_one({"_id": "k7"}) == plain(7)
            near = await asyncio.gather(*(things.find_one({"_id": f"k{number}"}) for number in range(10)))
            assert [each["n"] for each in near] == list(range(10))
            assert len(await things.find({}).to_list(None)) == 10
            assert len(await things.find({"n": {"$gte": 0}}).sort("n", 1).to_list(None)) == 10
            assert await things.count_documents({"at": {"$exists": True}}) == 10

        await read()
        async with asyncio.timeout(90):
            while (await shadow.admin.status())["totals"]["kinds"].get(Kind.UNREADABLE, 0) < 2:
                await read()
                await asyncio.sleep(0.1)


# --- the primary --------------------------------------------------------------------------------------------------


def raws() -> list[RawBSONDocument]:
    odd = [document(element(2, "_id", text(f"odd {name}")), fields) for name, fields in ODD.items()]
    bad = [document(element(2, "_id", text(f"bad {name}")), fields) for name, fields in UNREADABLE.items()]
    keys = [
        document(element(2, "_id", text(b"\xe9")), element(16, "n", int32(1))),
        document(element(3, "_id", document(element(16, "a", int32(1)), element(16, "a", int32(2))))),
        document(element(3, "_id", document(element(16, "a", int32(2)), element(16, "a", int32(2))))),
    ]
    return [RawBSONDocument(raw) for raw in (*odd, *bad, *keys)]


async def test_backfill_and_verify_of_documents_that_cannot_be_read(
    opened: tuple[Shadow, OpenJobs], site: Site
) -> None:
    """Everything else is copied, to the byte where the driver's values say less; what is not copied is named, and the
    gates stay shut until it is mended."""
    shadow, control = opened
    load(site, [plain(number) for number in range(COUNT)])
    load(site, raws())  # type: ignore[arg-type]
    job = await backfill(shadow, control, batch=7)
    bad = len(UNREADABLE) + 3
    assert job.outcome == "incomplete"
    assert job.counts["copied"] == COUNT + len(ODD)
    assert sum(job.issues.values()) == bad
    reasons = {each.key: each.reason for page in control.issues(job.id) for each in page}
    assert len(reasons) == bad
    assert reasons["bad text"] == "text that is not UTF-8"
    found = await verify(shadow, control, batch=7)
    assert (found.outcome, found.unreadable, found.missing, found.different) == ("different", bad, 0, 0)
    assert found.compared == COUNT + len(ODD) + bad
    assert found.equal == COUNT + len(ODD)
    assert found.secondary_documents == COUNT + len(ODD)
    dynamo = shadow._engine.runtime().stores[StoreName.DYNAMO]
    for name, fields in ODD.items():
        kept = (await dynamo.image(COLLECTION, f"odd {name}")).document
        assert bson.encode(kept) == document(element(2, "_id", text(f"odd {name}")), fields)
    with pymongo.MongoClient[Any](site.mongo_url) as client:
        things = client[site.database][COLLECTION]
        things.delete_many({"_id": {"$type": "object"}})
        things.delete_many({"_id": {"$in": [f"bad {name}" for name in UNREADABLE]}})
        things.delete_one({"_id": {"$type": "string"}, "n": 1, "half": {"$exists": False}})
    assert (await verify(shadow, control, batch=7)).clean


def test_assess_counts_them_by_kind_and_names_the_first(site: Site) -> None:
    """Also where they stand on a page of their own; what is odd is told apart from what cannot be read."""
    load(site, [{"_id": number, "n": number} for number in range(1200)])
    bad = [document(element(2, "_id", text(f"bad {n}")), element(2, "n", text(b"\xe9"))) for n in range(1200)]
    load(site, [*map(RawBSONDocument, bad), *raws()])  # type: ignore[arg-type]
    called = ["assess", "--mongo-url", site.mongo_url, "--database", site.database, "--watch", "0", "--whole", "--json"]
    result = CliRunner(env={"COLUMNS": "200", "SHADOW_CONFIG": ""}).invoke(app, called)
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    (one,) = said["collections"]
    assert one["looked_at"] == 1200 + len(ODD)
    (remark,) = [each for each in said["remarks"] if each["kind"] == "unreadable"]
    assert remark["text"].startswith(f"{1200 + len(UNREADABLE) + 3} documents cannot be read")
    assert f"{1200 + len(UNREADABLE)} text that is not UTF-8" in remark["text"]
    assert "2 a key with a name given twice" in remark["text"]
    assert "keys: " in remark["text"]
    assert "bad" not in remark["text"], "by their hashes"
    (kept,) = [each for each in said["remarks"] if each["kind"] == "kept as BSON" and "to the byte" in each["text"]]
    assert "undefined" in kept["text"]
    sizes = one["sizes"]
    assert (sizes["unnamed"], sizes["compressed"]) == (0, 0), "they are neither large nor oddly named"


async def test_a_document_that_cannot_be_read_is_no_deletion(opened: tuple[Shadow, OpenJobs], site: Site) -> None:
    """Its copy in the secondary, made while it was whole, stays; neither heal nor a plan takes it away."""
    shadow, control = opened
    await shadow[COLLECTION].insert_one({"_id": "k", "n": "abcd"})
    assert await shadow.settled(90)
    with pymongo.MongoClient[Any](site.mongo_url) as client:
        things = client[site.database].get_collection(
            COLLECTION, codec_options=bson.CodecOptions(document_class=RawBSONDocument)
        )
        raw = bytes(things.find_one({"_id": "k"}).raw).replace(b"abcd", b"ab\xe9d")
        things.delete_one({"_id": "k"})
        things.insert_one(RawBSONDocument(raw))
    with pytest.raises(UnreadableDocument):
        await shadow.admin.heal(COLLECTION, "k")
    found = await verify(shadow, control)
    assert (found.outcome, found.unreadable) == ("different", 1)
    there = await shadow._engine.runtime().stores[StoreName.DYNAMO].image(COLLECTION, "k")
    assert there.document == {"_id": "k", "n": "abcd"}
    with pytest.raises(InvalidBSON):
        await shadow[COLLECTION].find_one({"_id": "k"})


async def test_odd_documents_are_changed_on_the_server_and_followed_to_the_byte(
    opened: tuple[Shadow, OpenJobs], site: Site
) -> None:
    shadow, control = opened
    load(site, raws()[: len(ODD)])  # type: ignore[arg-type]
    await backfill(shadow, control)
    things = shadow[COLLECTION]
    for name, fields in ODD.items():
        key = f"odd {name}"
        assert (await things.update_one({"_id": key}, {"$set": {"more": 1}})).modified_count == 1
        assert (await things.update_one({"_id": key}, {"$set": {"more": 1}})).modified_count == 0
        assert (await things.update_one({"_id": key}, [{"$set": {"more": 2}}])).modified_count == 1
        shown = await things.find_one_and_update({"_id": key}, {"$inc": {"more": 1}}, return_document=True)
        assert shown["more"] == 3
        assert await shadow.settled(90)
        wanted = document(element(2, "_id", text(key)), fields, element(16, "more", int32(3)))
        for store in shadow._engine.runtime().stores.values():
            assert bson.encode((await store.image(COLLECTION, key)).document) == wanted
    assert (await verify(shadow, control)).clean
    assert shadow.admin.findings.groups() == []


# --- the other direction -------------------------------------------------------------------------------------------


async def test_backfill_towards_mongodb_of_items_that_cannot_be_read(site: Site) -> None:
    async with site.but(primary="dynamo").shadow() as shadow:
        await shadow.prepare()
        hand, things = items(site), shadow[COLLECTION]
        await things.insert_many([plain(number) for number in range(COUNT)])
        assert await shadow.settled(90)
        with pymongo.MongoClient[Any](site.mongo_url) as client:
            client[site.database][COLLECTION].delete_many({})
        await asyncio.to_thread(hand.set, "k7", *DAMAGES["a date's text"])
        await asyncio.to_thread(hand.set, "k8", *DAMAGES["a revision that is text"])
        await asyncio.to_thread(hand.put, "~foo:bar", n={"N": "1"})
        control = control_of(site)
        job = await backfill(shadow, control, batch=20)
        assert (job.outcome, job.counts["copied"], sum(job.issues.values())) == ("incomplete", COUNT - 2, 3)
        found = await verify(shadow, control, batch=20)
        assert (found.outcome, found.unreadable, found.equal) == ("different", 3, COUNT - 2)
        with pytest.raises(UnreadableDocument):
            await shadow.admin.heal(COLLECTION, "k7")
        with pytest.raises(InvalidBSON):
            await things.find_one({"_id": "k7"})
        with pytest.raises(InvalidBSON):
            await things.update_one({"_id": "k7"}, {"$set": {"n": 1}})
        assert await things.find_one({"_id": "k9"}) == plain(9)
        assert await things.count_documents({"n": {"$lt": 10}}) == 11, "what it asks for can be read"
        await things.replace_one({"_id": "k7"}, plain(7))
        await things.replace_one({"_id": "k8"}, plain(8))
        assert await shadow.settled(90)
        found = await verify(shadow, control, batch=20)
        assert (found.unreadable, found.equal) == (1, COUNT)
        control.close()


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_a_page_without_a_living_document_is_no_end(site: Site, primary: str) -> None:
    """Tombstones alone stand in a part of the primary: as after a flip of a collection that was emptied."""
    async with site.shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many([{"_id": number} for number in range(120)])
        await shadow[COLLECTION].delete_many({"_id": {"$lt": 115}})
        await site.level(shadow)
    if primary == "dynamo":
        async with site.shadow() as shadow:
            await shadow.admin.flip(COLLECTION, StoreName.DYNAMO, "a test")
    async with site.but(primary=primary).shadow() as shadow:
        control = control_of(site)
        job = await backfill(shadow, control, batch=10)
        assert (job.outcome, job.counts["seen"], job.counts["present"]) == ("complete", 5, 5)
        assert (await verify(shadow, control, batch=10)).clean
        control.close()
