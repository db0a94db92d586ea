"""Versions and tombstones are taken off a store: every document stays to the byte, and shadow goes on over it."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from pymongo.errors import DuplicateKeyError

from shadow import Shadow
from shadow.config import CollectionSettings, IndexSettings, Settings, UniqueSettings
from shadow.control.sqlite import SqliteRecords
from shadow.embedded.audit import dynamo_client
from shadow.embedded.servers import FaultProxy, Mode
from shadow.jobs.jobs import reasons_of
from shadow.jobs.target import JobRefused
from shadow.model.operation import Delete, Insert, Update
from shadow.model.phase import Phase, StoreName
from shadow.model.values import CANONICAL
from shadow.model.version import ABSENT, Document, Image, Key, Tombstone, Version, fresh_id
from shadow.stores.mongo.store import MongoStore
from tests.contract.test_odd_values import CASES, INDEX, RANGE
from tests.support import migration
from tests.support.shims import settings_for
from tests.support.topologies import drop

NAME = "things"
NOISE: Document = {"_id": "noise", "b": random.Random(1).randbytes(900_000), "n": 1}
LARGE: Document = {"_id": "compressed", "t": "é" * 300_000, "n": 1, "": "a name that no attribute can have"}
DOCUMENTS = [*CASES.values(), NOISE, LARGE]
UNTOUCHED = Version("", 0)

Raw = dict[str, Any]


class Place:
    """One store to finalize, and the other, empty, beside it."""

    def __init__(self, settings: Settings, store: StoreName, folder: Path) -> None:
        self.settings = settings
        self.store = store
        self.control = migration.OpenJobs(SqliteRecords(folder / "jobs.db"))

    def shadow(self, phase: Phase = Phase.OFF, primary: StoreName | None = None) -> Shadow:
        defaults = self.settings.defaults.model_copy(update={"phase": phase, "primary": primary or self.store})
        return Shadow(self.settings.model_copy(update={"defaults": defaults}))

    async def finalize(self, shadow: Shadow, **options: Any) -> Any:
        return await migration.finalize(shadow, self.control, self.store, collection=NAME, **options)

    def raw(self) -> dict[str, Raw]:
        """What the store holds, as it is, by the text of its key; the bookkeeping of unique values and parts too."""
        if self.store is StoreName.MONGO:
            with pymongo.MongoClient[Raw](self.settings.mongo.url.get_secret_value()) as client:
                found = client.get_database(self.settings.mongo.database, codec_options=CANONICAL)[NAME].find()
                return {str(bson.encode({"": each["_id"]})): each for each in found}
        pages = dynamo_client(str(self.settings.dynamo.endpoint_url)).get_paginator("scan")
        table = f"{self.settings.dynamo.table_prefix}{NAME}"
        items = [item for page in pages.paginate(TableName=table, ConsistentRead=True) for item in page["Items"]]
        return {item["_id"]["S"]: item for item in items}

    def documents(self) -> list[Raw]:
        return [raw for text, raw in self.raw().items() if not text.startswith("~constraint")]


@pytest.fixture(params=list(StoreName))
def place(request: pytest.FixtureRequest, mongo_url: str, dynamodb_local_url: str, tmp_path: Path) -> Iterator[Place]:
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = settings_for(tmp_path, mongo_url, dynamodb_local_url, name, [NAME])
    made = Place(settings.model_copy(update={"collections": {NAME: INDEXED}}), request.param, tmp_path)
    yield made
    made.control.close()
    drop(mongo_url, name)


INDEXED = CollectionSettings(
    indexes=(IndexSettings(name="both-index", hash=INDEX, range=RANGE), IndexSettings(name="one-index", hash=INDEX)),
    unique=(UniqueSettings(name="email-unique", fields=("email",), sparse=True),),
)


@pytest.fixture
async def shadow(place: Place) -> AsyncIterator[Shadow]:
    """Phase off, the tables made."""
    async with place.shadow() as made:
        await made.prepare()
        yield made


def store_of(shadow: Shadow, place: Place) -> Any:
    return shadow._engine.runtime().stores[place.store]


async def put(shadow: Shadow, place: Place, key: Key, image: Image) -> None:
    assert await store_of(shadow, place).put(NAME, key, image, ABSENT)


async def versioned(shadow: Shadow, place: Place, document: Document) -> None:
    """Inserts as a write to both stores does."""
    assert await store_of(shadow, place).apply(NAME, Insert(document["_id"], document, fresh_id()), fresh_id())


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_value_is_the_same_to_the_byte_afterwards(place: Place, shadow: Shadow) -> None:
    """Odd keys, odd index values, every type, compressed and split documents: nothing has gone but version and last
    operation, and the documents are found, changed and deleted as before."""
    store = store_of(shadow, place)
    for document in DOCUMENTS:
        await versioned(shadow, place, document)
    before = place.raw()

    job = await place.finalize(shadow)
    assert (job.outcome, job.counts["versions"], job.counts["later"]) == ("complete", len(DOCUMENTS), 0)
    bare = {text: _without_version(raw, place.store) for text, raw in before.items()}
    assert _comparable(place.raw(), place.store) == _comparable(bare, place.store)
    for document in DOCUMENTS:
        image = await store.image(NAME, document["_id"])
        assert image.state == UNTOUCHED
        assert bson.encode(image.document) == bson.encode(document)

    things = shadow[NAME].with_options(CANONICAL)
    for document in DOCUMENTS:
        query = {"_id": {"$eq": document["_id"]}}
        result = await things.update_one(query, {"$inc": {"n": 1}})
        assert (result.matched_count, result.modified_count) == (1, 1)
        assert bson.encode(await things.find_one(query)) == bson.encode({**document, "n": document["n"] + 1})
        assert (await things.delete_one(query)).deleted_count == 1
    assert await shadow[NAME].count_documents({}) == 0


def _comparable(raws: dict[str, Raw], store: StoreName) -> dict[str, Any]:
    """MongoDB's documents as bytes, in which NaN is NaN and the order of fields counts; an item has no order."""
    return {text: bson.encode(raw) if store is StoreName.MONGO else raw for text, raw in raws.items()}


def _without_version(raw: Raw, store: StoreName) -> Raw:
    if store is StoreName.MONGO:
        return {name: value for name, value in raw.items() if name != "_shadow"}
    shadow = raw.get("_shadow", {}).get("M", {})
    if "k" in shadow:
        return raw
    rest = {name: value for name, value in shadow.items() if name not in ("b", "r", "o")}
    return {
        **{name: value for name, value in raw.items() if name != "_shadow"},
        **({"_shadow": {"M": rest}} if rest else {}),
    }


@pytest.mark.timeout(120)
async def test_a_dry_run_counts_and_changes_nothing(place: Place, shadow: Shadow) -> None:
    """What it counts is what is then done; a second time there is nothing to do."""
    for number in range(30):
        await versioned(shadow, place, {"_id": number})
    for number in range(30, 37):
        await put(shadow, place, number, Image(Tombstone(fresh_id())))
    before = place.raw()
    dry = await place.finalize(shadow, apply=False, batch=7)
    assert (dry.outcome, dry.counts["versions"], dry.counts["tombstones"]) == ("complete", 30, 7)
    assert place.raw() == before
    done = await place.finalize(shadow, batch=7)
    assert (done.outcome, done.counts["versions"], done.counts["tombstones"]) == ("complete", 30, 7)
    assert len(place.documents()) == 30
    again = await place.finalize(shadow)
    assert (again.outcome, again.counts["seen"]) == ("complete", 0)


@pytest.mark.timeout(120)
async def test_a_copy_of_an_untouched_document_has_nothing_left_either(place: Place, shadow: Shadow) -> None:
    """It carries a stamp that says no version at all."""
    await put(shadow, place, "k", Image(UNTOUCHED, {"_id": "k", "when": bson.ObjectId()}))
    (before,) = place.documents()
    assert (await place.finalize(shadow)).counts["versions"] == 1
    (after,) = place.documents()
    assert after == _without_version(before, place.store) != before


@pytest.mark.timeout(120)
async def test_the_field_of_the_version_may_have_any_name(place: Place) -> None:
    settings = place.settings.model_copy(update={"collections": {NAME: CollectionSettings(reserved="_v")}})
    place.settings = settings
    async with place.shadow() as shadow:
        await shadow.prepare()
        await versioned(shadow, place, {"_id": "k", "_shadow": {"b": "the application's own"}})
        assert (await place.finalize(shadow)).counts["versions"] == 1
        assert await shadow[NAME].find_one({}) == {"_id": "k", "_shadow": {"b": "the application's own"}}
        (raw,) = place.documents()
        assert "_v" not in raw


@pytest.mark.timeout(120)
async def test_unique_values_stay_taken(place: Place, shadow: Shadow) -> None:
    """And are given up with their document."""
    things = shadow[NAME]
    for name in ("a", "b"):
        await things.insert_one({"_id": name, "email": f"{name}@x"})
    await place.finalize(shadow)
    with pytest.raises(DuplicateKeyError):
        await things.insert_one({"_id": "c", "email": "a@x"})
    with pytest.raises(DuplicateKeyError):
        await things.update_one({"_id": "a"}, {"$set": {"email": "b@x"}})
    await things.delete_one({"_id": "b"})
    await things.update_one({"_id": "a"}, {"$set": {"email": "b@x"}})
    await things.insert_one({"_id": "c", "email": "a@x"})
    assert await things.distinct("email") in (["a@x", "b@x"], ["b@x", "a@x"])


@pytest.mark.timeout(120)
async def test_shadow_goes_on_in_phase_off(place: Place, shadow: Shadow) -> None:
    """Every verb, on documents whose version is gone, and on keys whose tombstone is."""
    things, store = shadow[NAME], store_of(shadow, place)
    for key in ("a", "b", "c", "d"):
        await versioned(shadow, place, {"_id": key, "n": 1})
    await put(shadow, place, "gone", Image(Tombstone(fresh_id())))
    await place.finalize(shadow)
    assert (await things.update_one({"_id": "a"}, {"$inc": {"n": 1}})).modified_count == 1
    assert (await things.update_one({"_id": "a"}, [{"$set": {"m": "$n"}}])).modified_count == 1
    assert (await things.replace_one({"_id": "b"}, {"n": 7})).modified_count == 1
    assert (await things.delete_one({"_id": "c"})).deleted_count == 1
    assert (await things.update_one({"_id": "d"}, {"$set": {"n": 1}})).modified_count == 0
    assert (await things.update_one({"_id": "new"}, {"$set": {"n": 1}}, upsert=True)).upserted_id == "new"
    assert (await things.update_one({"_id": "gone"}, {"$set": {"n": 9}}, upsert=True)).upserted_id == "gone"
    assert sorted(await things.find({}).to_list(None), key=lambda each: str(each["_id"])) == [
        {"_id": "a", "n": 2, "m": 2},
        {"_id": "b", "n": 7},
        {"_id": "d", "n": 1},
        {"_id": "gone", "n": 9},
        {"_id": "new", "n": 1},
    ]
    state = (await store.image(NAME, "a")).state
    if place.store is StoreName.MONGO:
        assert state == UNTOUCHED, "no version begins where one store alone is written by the driver's own calls"
    else:
        assert isinstance(state, Version)
        assert state.rev == 1, "a version begins where there was none: an update by a pipeline leaves a fresh one"
        assert state.born


@pytest.mark.takes_turns
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.drawn_over("place", reason="the same way on from either store")
@pytest.mark.parametrize("both", [False, True])
async def test_a_later_migration_begins_where_this_one_ended(place: Place, both: bool) -> None:
    """The store left behind is stale, has what was deleted since, and has versions or not: after dual writes, backfill
    and verify both are equal."""
    other = place.store.other
    async with place.shadow(Phase.DUAL_WRITE) as shadow:
        await shadow.prepare()
        for number in range(40):
            await shadow[NAME].insert_one({"_id": number, "n": 0, "email": f"{number}@x"})
        await shadow[NAME].delete_one({"_id": 39})
        assert await shadow.settled(20)
    async with place.shadow() as shadow:
        await place.finalize(shadow)
        if both:
            await migration.finalize(shadow, place.control, other, collection=NAME)
        await shadow[NAME].update_many({"_id": {"$lt": 10}}, {"$inc": {"n": 1}})
        await shadow[NAME].delete_one({"_id": 11})
        await shadow[NAME].update_one({"_id": 12}, {"$set": {"email": "0@y"}})
        await shadow[NAME].insert_one({"_id": 39, "again": True})
        await place.finalize(shadow)

    async with place.shadow(Phase.DUAL_WRITE) as shadow:
        await shadow.prepare()
        await shadow[NAME].update_one({"_id": 1}, {"$inc": {"n": 1}})
        await shadow[NAME].update_one({"_id": 20}, {"$set": {"n": 5}})
        sides = shadow.admin.sides(NAME)
        job = await migration.Work(migration.Backfill(sides), place.control, migration.JobPace(workers=4)).run()
        assert job.outcome == "complete"
        assert await shadow.settled(20)
        work = migration.Work(migration.Verify(sides, migration.Scope()), place.control, migration.JobPace(workers=4))
        found = migration.summary(await work.run())
        # What was deleted in phase off stands in the store left behind: verify says so, as after any such pause.
        assert (found.missing, found.different, found.extra) == (0, 0, 1)
        await shadow.admin.heal(NAME, 11)
        work = migration.Work(migration.Verify(sides, migration.Scope()), place.control, migration.JobPace(workers=4))
        assert migration.summary(await work.run()).clean


@pytest.mark.timeout(120)
@pytest.mark.parametrize("phase", [Phase.DUAL_WRITE, Phase.SHADOW])
async def test_it_is_refused_while_there_is_anything_to_follow(place: Place, phase: Phase) -> None:
    """A dry run too: it would say what is not so."""
    async with place.shadow(phase) as shadow:
        await shadow.prepare()
        with pytest.raises(JobRefused, match=phase):
            await place.finalize(shadow, apply=False)


@pytest.mark.timeout(120)
async def test_a_key_in_the_journal_forbids_it(place: Place) -> None:
    """What waits there would be followed by the versions."""
    broken = place.settings.dynamo.model_copy(update={"table_prefix": f"{place.settings.dynamo.table_prefix}none-"})
    settings = place.settings
    place.settings = settings.model_copy(update={"dynamo": broken})
    async with place.shadow(Phase.DUAL_WRITE, StoreName.MONGO) as shadow:
        await shadow[NAME].insert_one({"_id": "k"})
        assert not await shadow.settled(1.0), "there is no such table"
    place.settings = settings
    async with place.shadow(Phase.OFF, StoreName.MONGO) as shadow:
        with pytest.raises(JobRefused, match="the journal holds 1 keys"):
            await place.finalize(shadow)


@pytest.mark.timeout(120)
async def test_what_was_written_just_now_waits(place: Place, shadow: Shadow) -> None:
    """A late copy of a request might still come; it is counted, left, and done by a later run."""
    await versioned(shadow, place, {"_id": "young"})
    await put(shadow, place, "gone", Image(Tombstone(fresh_id())))
    before = place.raw()
    job = await place.finalize(shadow, older_than=3600)
    assert (job.outcome, job.counts["versions"], job.counts["tombstones"], job.counts["later"]) == (
        "incomplete",
        0,
        0,
        2,
    )
    assert reasons_of(job) == {"young: written in the last 3600 s": 2}
    assert place.raw() == before
    assert (await place.finalize(shadow)).outcome == "complete"


@pytest.mark.timeout(120)
async def test_a_write_between_the_look_and_the_deed_is_not_lost(
    place: Place, shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update, a delete, an insert in the place of a tombstone: each comes exactly when the stamp has been seen."""
    store = store_of(shadow, place)
    for key in ("updated", "deleted", "left"):
        await versioned(shadow, place, {"_id": key, "n": 0})
    for key in ("inserted", "stands"):
        await put(shadow, place, key, Image(Tombstone(fresh_id())))
    changes = {
        "updated": Update("updated", {}, {"$inc": {"n": 1}}, fresh_id()),
        "deleted": Delete("deleted", {}, fresh_id()),
        "inserted": Insert("inserted", {"_id": "inserted", "n": 7}, fresh_id()),
    }
    strip = store.stamps.strip
    missed: set[str] = set()

    async def stripped(collection: str, stamps: Any) -> list[bool]:
        for stamp in stamps:
            if stamp.key in changes:
                await store.apply(NAME, changes.pop(stamp.key), fresh_id())
        done: list[bool] = await strip(collection, stamps)
        missed.update(stamp.key for stamp, one in zip(stamps, done, strict=True) if not one)
        return done

    monkeypatch.setattr(store.stamps, "strip", stripped)
    job = await place.finalize(shadow)
    assert job.outcome == "complete"
    found = {each["_id"]: each["n"] async for each in shadow[NAME].find({})}
    assert found == {"updated": 1, "inserted": 7, "left": 0}
    assert (await store.image(NAME, "updated")).state == UNTOUCHED, "it was looked at again"
    assert (await store.image(NAME, "inserted")).state == UNTOUCHED
    assert {key: (await store.image(NAME, key)).state for key in ("deleted", "stands")} == {
        "deleted": ABSENT,
        "stands": ABSENT,
    }
    assert {"updated", "inserted"} <= missed, "they were not as they had been seen"


@pytest.mark.timeout(120)
async def test_what_an_attempt_without_an_answer_has_removed_is_counted(
    mongo_url: str, dynamodb_local_url: str, new_proxy: Callable[[str], FaultProxy], tmp_path: Path, fresh_name: str
) -> None:
    """DynamoDB's client repeats the request, which then finds nothing to remove: of a version, of one beside what has
    to stay, and of a tombstone."""
    proxy = new_proxy(dynamodb_local_url)
    settings = settings_for(tmp_path, mongo_url, proxy.url, fresh_name, [NAME])
    place = Place(settings, StoreName.DYNAMO, tmp_path)
    try:
        async with place.shadow() as shadow:
            await shadow.prepare()
            for verb in (b"DynamoDB_20120810.UpdateItem", b"DynamoDB_20120810.DeleteItem"):
                await versioned(shadow, place, {"_id": verb, "n": 1})
                await versioned(shadow, place, {"_id": verb + b".", "at": dt.datetime(2026, 1, 1)})
                await put(shadow, place, verb + b"..", Image(Tombstone(fresh_id())))
                proxy.set(Mode.CUT, only=verb, times=1)
                job = await place.finalize(shadow)
                counts = {name: job.counts[name] for name in ("versions", "tombstones", "later")}
                assert (job.outcome, counts) == ("complete", {"versions": 2, "tombstones": 1, "later": 0})
            assert proxy.faults == 2
    finally:
        place.control.close()
        drop(mongo_url, fresh_name)


@pytest.mark.timeout(120)
async def test_the_index_of_the_expiry_goes_with_the_last_stamp(place: Place, shadow: Shadow, mongo_url: str) -> None:
    """From MongoDB's collection; the table's expiry serves a later migration. `prepare` makes it again."""
    if place.store is not StoreName.MONGO:
        assert await store_of(shadow, place).drift() == {f"{place.settings.dynamo.table_prefix}{NAME}": []}
        return
    with pymongo.MongoClient[Raw](mongo_url) as client:
        collection = client[place.settings.mongo.database][NAME]
        assert "_shadow_ttl" in collection.index_information()
        await place.finalize(shadow, apply=False)
        assert "_shadow_ttl" in collection.index_information()
        await place.finalize(shadow)
        assert set(collection.index_information()) == {"_id_", "email-unique"}
        await place.finalize(shadow)


async def test_an_insert_whose_tombstone_goes_under_it_is_made(mongo_url: str, mongo_database: str) -> None:
    """MongoDB refuses the insert for the tombstone, which is gone when its place is to be taken."""
    with pymongo.MongoClient[Raw](mongo_url) as client:
        target = client[mongo_database][NAME]
        driver = pymongo.AsyncMongoClient[Raw](mongo_url)
        store = MongoStore(driver, mongo_database, {}, owned=True)
        await store.put(NAME, "k", Image(Tombstone(fresh_id())), ABSENT)
        inner = store._collection(NAME)

        class Raced:
            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

            async def insert_one(self, raw: Raw) -> Any:
                try:
                    return await inner.insert_one(raw)
                finally:
                    target.delete_one({"_id": "k", "_shadow.t": {"$exists": True}})

        store._collections[NAME] = Raced()
        applied = await store.apply(NAME, Insert("k", {"_id": "k", "n": 1}, fresh_id()), fresh_id())
        assert applied is not None
        assert (await store.image(NAME, "k")).document == {"_id": "k", "n": 1}
        with pytest.raises(DuplicateKeyError):
            await store.apply(NAME, Insert("k", {"_id": "k", "n": 2}, fresh_id()), fresh_id())
        await store.close()
