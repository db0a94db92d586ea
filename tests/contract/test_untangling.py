"""Unique values that change hands while the secondary is away: every heal ends, and both stores are equal.

The primary is a store in memory that holds what it holds; the secondary is each of the stores, with unique constraints
of its own, and stands where it stood before the values moved.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError

from shadow.compare.equality import agree
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.events import Silent
from shadow.model.limits import Limits
from shadow.model.operation import Delete, Insert, Verb, Write
from shadow.model.order import key_digest
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Document, Image, Key, Tombstone, Version, fresh_id
from shadow.stores.base import Store
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.store import DynamoStore
from shadow.stores.memory import MemoryStore
from shadow.stores.mongo.drivers import connect
from shadow.stores.mongo.store import MongoStore
from shadow.writes.heal import heal
from shadow.writes.intents import Intents
from shadow.writes.untangle import Untangler
from tests.support.topologies import admit

pytestmark = pytest.mark.drawn_over(
    "secondary", alike=("mongo", "dynamo"), reason="one store, of either driver or server"
)

THINGS: Final = "things"
SPEC: Final = CollectionSpec(
    THINGS,
    unique=(
        UniqueSpec("mail", ("mail",)),
        UniqueSpec("place", ("row.at", "seat"), sparse=True),
        UniqueSpec("nick", ("nicks",), sparse=True),
    ),
)
SECONDARIES: Final = ("memory", "memory-together", "mongo-motor", "mongo-pymongo", "dynamo-local", "dynamo-ministack")
LIMITS: Final = Limits(operation=30.0)


class Site:
    """Both stores with a journal; `primary` and `secondary` hold what `stand` has put there."""

    def __init__(self, secondary: Store, journal: SqliteJournal) -> None:
        self.primary = MemoryStore(StoreName.MONGO)
        self.secondary = secondary
        self.journal = journal
        self.untangler = Untangler(Intents(journal, LIMITS, Silent()))
        self.keys: list[Key] = []

    async def stand(self, before: Mapping[Key, Document], now: Mapping[Key, Document]) -> None:
        """The secondary holds `before`, the primary `now`; what is the same in both has one version."""
        for key, document in before.items():
            assert await self.secondary.put(THINGS, key, _image(key, document, 1), ABSENT)
        for key, document in now.items():
            rev = 1 if before.get(key) == document else 2
            assert await self.primary.put(THINGS, key, _image(key, document, rev), ABSENT)
        self.keys = list({**before, **now})

    async def heal(self, key: Key) -> Healing:
        return await heal(self.primary, self.secondary, THINGS, key, untangles=self.untangler)

    async def recover(self) -> None:
        """What the recovery loop does, until the journal is empty."""
        for _ in range(len(self.keys) + 1):
            await self.journal.flush()
            found = await self.journal.due(100, 60.0)
            if not found:
                break
            for due in found:
                await self.heal(due.key)
                assert await self.journal.settle(due)
        assert (await self.journal.stats()).open == 0

    async def assert_equal(self) -> None:
        for key in self.keys:
            primary, secondary = await self.primary.image(THINGS, key), await self.secondary.image(THINGS, key)
            assert agree(primary, secondary), (key, primary, secondary)
            assert not (isinstance(secondary.state, Tombstone) and secondary.state.passing)


def _image(key: Key, document: Document, rev: int) -> Image:
    return Image(Version(f"born-{key_digest(key)[:8]}", rev), {"_id": key, **document})


def dynamo_at(url: str, prefix: str) -> DynamoStore:
    settings = DynamoSettings(
        endpoint_url=url, access_key_id="local", secret_access_key="local", table_prefix=f"{prefix}-"
    )
    return DynamoStore(settings, {THINGS: SPEC})


@pytest.fixture(params=SECONDARIES)
async def secondary(request: pytest.FixtureRequest, fresh_name: str) -> AsyncIterator[Store]:
    kind, _, how = request.param.partition("-")
    made: Store
    if kind == "memory":
        made = MemoryStore(StoreName.DYNAMO, SPEC.unique, together=how == "together")
    elif kind == "mongo":
        client = connect(request.getfixturevalue("mongo_url"), how)
        admit(request.getfixturevalue("mongo_url"), f"u{fresh_name}")
        made = MongoStore(client, f"u{fresh_name}", {THINGS: SPEC}, owned=True)
    else:
        url = request.getfixturevalue("dynamodb_local_url" if how == "local" else "ministack_url")
        made = dynamo_at(url, fresh_name)
    await made.prepare([SPEC])
    yield made
    await made.drop(THINGS)
    await made.close()


@pytest.fixture
async def site(secondary: Store, tmp_path: Path) -> AsyncIterator[Site]:
    journal = SqliteJournal(FileSettings(tmp_path / "shadow.db", limit=LIMITS.operation))
    yield Site(secondary, journal)
    journal.shut()


def mails(**held: str | None) -> dict[Key, Document]:
    """Documents by key with one mail each; None: it has none."""
    return {key: {} if mail is None else {"mail": mail} for key, mail in held.items()}


CASES: Final[dict[str, tuple[dict[Key, Document], dict[Key, Document]]]] = {
    "two trade": (mails(a="m1", b="m2"), mails(a="m2", b="m1")),
    "three in a circle": (mails(a="m1", b="m2", c="m3"), mails(a="m2", b="m3", c="m1")),
    "thirty in a circle": (
        {n: {"mail": f"m{n}"} for n in range(30)},
        {n: {"mail": f"m{(n + 1) % 30}"} for n in range(30)},
    ),
    "a chain of forty": (
        {n: {"mail": f"m{n}"} for n in range(40)},
        {n: {"mail": f"m{n + 1}"} for n in range(40)},
    ),
    "the holder is gone": (mails(a="m1", b="m2"), mails(b="m1")),
    "the holder is gone, and its successor is new": (mails(a="m1"), mails(b="m1")),
    "one comes into the circle": (mails(a="m1", b="m2"), mails(a="m2", b="m3", c="m1")),
    "one goes out of the circle": (mails(a="m1", b="m2", c="m3"), mails(a="m2", c="m1")),
    "one that the primary never had": (mails(a="m1", z="m9"), mails(a="m9")),
    "the place without a value": (mails(a=None, b="m2"), mails(a="m1", b=None)),
    "the place without a value, left by one that is gone": (mails(a=None), mails(b=None)),
    "one trades two values with two others": (
        {"a": {"mail": "m1", "nicks": ["n1", "n2"]}, "b": {"mail": "m2"}, "c": {"mail": "m3", "nicks": ["n3"]}},
        {"a": {"mail": "m2", "nicks": ["n3"]}, "b": {"mail": "m1", "nicks": ["n2"]}, "c": {"mail": "m3", "nicks": []}},
    ),
    "pairs of fields": (
        {"a": {"mail": 1, "row": {"at": 1}, "seat": 1}, "b": {"mail": 2, "row": {"at": 1}, "seat": 2}},
        {"a": {"mail": 1, "row": {"at": 1}, "seat": 2}, "b": {"mail": 2, "row": {"at": 1}, "seat": 1}},
    ),
    "an empty list is no missing value": (
        {"a": {"mail": []}, "b": {}, "c": {"mail": "m3"}},
        {"a": {}, "b": {"mail": []}, "c": {"mail": "m4", "nicks": []}},
    ),
    "one document is large": (
        {"a": {"mail": "m1", "body": "x" * 10}, "b": {"mail": "m2"}},
        {"a": {"mail": "m2", "body": random.Random(1).randbytes(700_000)}, "b": {"mail": "m1"}},
    ),
    "two documents are large": (
        {"a": {"mail": "m1", "body": random.Random(2).randbytes(600_000)}, "b": {"mail": "m2"}},
        {"a": {"mail": "m2"}, "b": {"mail": "m1", "body": random.Random(3).randbytes(900_000)}},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_values_that_changed_hands_are_put_right(site: Site, case: str) -> None:
    """Whichever key is healed first."""
    before, now = CASES[case]
    await site.stand(before, now)
    for key in site.keys:
        assert await site.heal(key) is not Healing.FAILED
    await site.recover()
    await site.assert_equal()


async def test_heals_of_all_keys_at_once_come_to_an_end(site: Site) -> None:
    before, now = CASES["thirty in a circle"]
    await site.stand(before, now)
    await asyncio.gather(*(site.heal(key) for key in site.keys))
    await site.recover()
    await site.assert_equal()


@pytest.mark.parametrize("seed", range(6))
async def test_any_two_ways_of_holding_the_values(site: Site, seed: int) -> None:
    """Documents come, go and trade at random, over three constraints."""
    chance = random.Random(seed)
    before, now = (_holding(chance) for _ in range(2))
    await site.stand(before, now)
    keys = chance.sample(site.keys, len(site.keys))
    await asyncio.gather(*(site.heal(key) for key in keys[::2]))
    for key in keys[1::2]:
        await site.heal(key)
    await site.recover()
    await site.assert_equal()


def _holding(chance: random.Random) -> dict[Key, Document]:
    """Documents whose unique values are all different, out of hardly more than are needed."""
    keys = chance.sample(range(10), 7)
    values: list[Any] = chance.sample(["m0", "m1", "m2", "m3", 4, 5.0, None, [], ["l0", "l1"], {"d": 1}], 7)
    nicks = chance.sample([f"n{n}" for n in range(16)], 14)
    seats = chance.sample([(row, seat) for row in range(3) for seat in range(3)], 7)
    made: dict[Key, Document] = {}
    for place, key in enumerate(keys):
        made[key] = {"mail": values[place], "nicks": nicks[2 * place : 2 * place + chance.randint(0, 2)]}
        if not made[key]["nicks"]:
            del made[key]["nicks"]
        if chance.random() < 0.7:
            made[key].update({"row": {"at": seats[place][0]}, "seat": seats[place][1]})
    return made


async def test_a_value_that_the_primary_has_twice_is_refused_and_nothing_is_touched(site: Site) -> None:
    """The secondary can hold it once: that is no circle, and nothing there is put right by it."""
    await site.stand(mails(a="m1", b="m2"), mails(a="m1", b="m1"))
    with pytest.raises(DuplicateKeyError):
        await site.heal("b")
    image = await site.secondary.image(THINGS, "a")
    assert image.document == {"_id": "a", "mail": "m1"}
    await site.journal.flush()
    assert (await site.journal.stats()).open == 0


async def test_tombstones_hold_no_value(site: Site) -> None:
    """A deleted document leaves a tombstone, which must not be the one that has no mail."""
    await site.stand(mails(a="m1", b="m2", c=None), {})
    for key in site.keys:
        assert await site.heal(key) is Healing.TOMBSTONED
    for key in ("d", "e"):  # replayed deletions of what never came leave tombstones as well
        delete = Delete(key, {"_id": key}, fresh_id())
        gone = Write(THINGS, Verb.DELETE_ONE, fresh_id(), delete, Version("x", 1), Image(ABSENT))
        assert await site.secondary.replay(THINGS, gone) is not None
    for key, document in (("f", {"_id": "f"}), ("g", {"_id": "g", "mail": []}), ("h", {"_id": "h", "mail": "m1"})):
        post = Image(Version("x", 1), document)
        new = Write(THINGS, Verb.INSERT_ONE, fresh_id(), Insert(key, document, "x"), ABSENT, post)
        assert await site.secondary.replay(THINGS, new) is not None
    assert (await site.secondary.image(THINGS, "f")).document == {"_id": "f"}


# --- MongoDB alone ----------------------------------------------------------------------------------------------


@pytest.fixture
async def mongo(mongo_url: str, mongo_database: str) -> AsyncIterator[MongoStore]:
    store = MongoStore(connect(mongo_url, "pymongo"), mongo_database, {THINGS: SPEC}, owned=True)
    yield store
    await store.close()


async def test_indexes_that_the_application_has_made_count_as_well(
    mongo: MongoStore, mongo_url: str, mongo_database: str, tmp_path: Path
) -> None:
    """Partial, with a collation, and made after the store has looked."""
    journal = SqliteJournal(FileSettings(tmp_path / "shadow.db", limit=LIMITS.operation))
    site = Site(mongo, journal)
    await mongo.prepare([CollectionSpec(THINGS)])
    await mongo.put(THINGS, "first", Image(Tombstone(fresh_id())), ABSENT)
    with MongoClient[dict[str, Any]](mongo_url) as bare:
        things = bare[mongo_database][THINGS]
        things.create_index("mail", unique=True, partialFilterExpression={"kind": "user"})
        things.create_index("name", unique=True, sparse=True, collation={"locale": "en", "strength": 2})
        things.create_index([("deep.down", 1)], unique=True)
    people = {
        "a": {"kind": "user", "mail": "m1", "name": "Ann", "deep": {"down": 1}},
        "b": {"kind": "user", "mail": "m2", "name": "Bob", "deep": {"down": 2}},
        "c": {"kind": "bot", "mail": "m1", "name": "Cy", "deep": {"down": 3}},
        "d": {"kind": "bot", "mail": "m1", "deep": {"down": 4}},
    }
    traded = {
        "a": {"kind": "user", "mail": "m2", "name": "BOB", "deep": {"down": 2}},
        "b": {"kind": "user", "mail": "m1", "name": "ann", "deep": {"down": 3}},
        "c": {"kind": "bot", "mail": "m1", "name": "Cy", "deep": {}},
        "d": {"kind": "bot", "mail": "m1", "deep": {"down": 1}},
    }
    await site.stand(people, traded)
    for key in site.keys:
        await site.heal(key)
    await site.recover()
    await site.assert_equal()
    journal.shut()


async def test_tombstones_of_before_are_moved_out_of_the_way(
    mongo: MongoStore, mongo_url: str, mongo_database: str
) -> None:
    """Two that lack the field would keep the index from being made, one would keep a document from being copied."""
    with MongoClient[dict[str, Any]](mongo_url) as bare:
        things = bare[mongo_database][THINGS]
        expiry = {"x": dt.datetime(2100, 1, 1)}
        things.insert_many([{"_id": key, "_shadow": {"t": fresh_id(), **expiry}} for key in ("a", "b")])
        things.insert_one({"_id": "c", "mail": "m3"})
        await mongo.prepare([SPEC])
        assert {"mail", "place", "nick"} <= set(things.index_information())
    assert await mongo.put(THINGS, "d", Image(Version("x", 1), {"_id": "d"}), ABSENT)
    assert (await mongo.image(THINGS, "a")).document is None
    assert await mongo.count(THINGS, {}) == 2


# --- DynamoDB alone ---------------------------------------------------------------------------------------------


async def test_a_value_of_a_document_that_does_not_hold_it_any_more_is_taken_over(
    dynamodb_local_url: str, fresh_name: str, tmp_path: Path
) -> None:
    """A writer that does not know of the constraint has changed its document, and the uniqueness item stayed."""
    store = dynamo_at(dynamodb_local_url, fresh_name)
    await store.prepare([SPEC])
    unaware = DynamoStore(
        DynamoSettings(
            endpoint_url=dynamodb_local_url,
            access_key_id="local",
            secret_access_key="local",
            table_prefix=f"{fresh_name}-",
        ),
        {},
    )
    journal = SqliteJournal(FileSettings(tmp_path / "shadow.db", limit=LIMITS.operation))
    site = Site(store, journal)
    await site.stand(mails(a="m1"), mails(a="m2", b="m1"))
    changed = await site.primary.image(THINGS, "a")
    assert await unaware.put(THINGS, "a", changed, (await store.image(THINGS, "a")).state)
    assert await site.heal("b") is Healing.COPIED
    await site.assert_equal()
    journal.shut()
    await store.drop(THINGS)
    await store.close()
    await unaware.close()
