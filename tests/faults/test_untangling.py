"""Unique values that change hands while the secondary is away, through the whole library; and a process that dies while
it puts them right."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest

from shadow import Shadow
from shadow.embedded.servers import FaultProxy, Mode
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.events import Silent
from shadow.model.limits import Limits
from shadow.model.operation import Update, Verb, Write
from shadow.model.phase import StoreName
from shadow.model.schema import UniqueSpec
from shadow.model.verdict import Healing
from shadow.model.version import ABSENT, Document, Image, Key, Tombstone, Version
from shadow.stores.memory import MemoryStore
from shadow.writes.heal import HealContended, heal
from shadow.writes.intents import Intents
from shadow.writes.untangle import Untangler
from tests.support.faulty import FaultyStore, Gate
from tests.support.migration import backfill, control_of
from tests.support.shadows import COLLECTION, Site
from tests.support.tangled import die_aside
from tests.support.writer import spawn

UNIQUE: Final[dict[str, Any]] = {"unique": ["mail", "nick"]}


async def _trade(things: Any) -> None:
    """A and B trade their mails by way of a third one; C leaves its nick to a newcomer, and D goes."""
    await things.update_one({"_id": "A"}, {"$set": {"mail": "m9"}})
    await things.update_one({"_id": "B"}, {"$set": {"mail": "m1"}})
    await things.update_one({"_id": "A"}, {"$set": {"mail": "m2"}})
    await things.update_one({"_id": "C"}, {"$set": {"nick": "n9"}})
    await things.insert_one({"_id": "E", "mail": "m5", "nick": "n3"})
    await things.delete_one({"_id": "D"})
    await things.update_one({"_id": "C"}, {"$set": {"mail": "m4"}})


@pytest.mark.parametrize("primary", ["mongo", "dynamo"])
async def test_the_journal_empties_by_itself_once_the_secondary_is_back(
    mongo_url: str, dynamodb_local_url: str, site: Site, primary: str
) -> None:
    """No key stays deferred, and nothing keeps the journal's gate closed."""
    with FaultProxy.before(dynamodb_local_url if primary == "mongo" else mongo_url) as proxy:
        through = {"dynamo_url": proxy.url} if primary == "mongo" else {"mongo_url": proxy.url}
        site = site.but(primary=primary, options=UNIQUE)
        async with site.but(**through).shadow() as shadow:
            await shadow.prepare()
            things = shadow[COLLECTION]
            await things.insert_many(
                [{"_id": key, "mail": f"m{n}", "nick": f"n{n}"} for n, key in enumerate("ABCD", 1)]
            )
            assert await shadow.settled(90)
            proxy.set(Mode.REFUSE)
            await _trade(things)
            proxy.clear()
            await site.level(shadow)
            gates = {each["name"]: each for each in (await shadow.admin.status())["verdict"]["gates"]}
            assert gates["journal"]["ok"], gates["journal"]


async def test_a_backfill_puts_right_what_stands_in_its_way(site: Site) -> None:
    """Somebody has traded the values past the library, and a newcomer has one of a document that is gone."""
    site = site.but(options=UNIQUE)
    async with site.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_many([{"_id": key, "mail": f"m{key}", "nick": f"n{key}"} for key in "ABC"])
        await site.level(shadow)
        with pymongo.MongoClient[dict[str, Any]](site.mongo_url) as client:
            bare = client[site.database][COLLECTION]
            bare.update_one({"_id": "A"}, {"$set": {"mail": "none"}})
            bare.update_one({"_id": "B"}, {"$set": {"mail": "mA"}})
            bare.update_one({"_id": "A"}, {"$set": {"mail": "mB"}})
            bare.delete_one({"_id": "C"})
            bare.insert_one({"_id": "D", "mail": "mD", "nick": "nC"})
        with contextlib.closing(control_of(site)) as control:
            job = await backfill(shadow, control)
        assert (job.outcome, job.issues) == ("complete", {})
        await site.level(shadow)


@pytest.mark.takes_turns
@pytest.mark.parametrize("times", [1, 2])
async def test_a_process_that_dies_with_a_document_set_aside(site: Site, times: int) -> None:
    """Nothing in the journal knew of these documents before: the next process heals every one that was touched."""
    site = site.but(primary="dynamo", options=UNIQUE)
    before = {key: {"_id": key, "mail": f"m{n}", "nick": f"n{n}"} for n, key in enumerate("ABC")}
    async with site.shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_many(list(before.values()))
        await site.level(shadow)
        # Past the library: mails go one way round, nicks the other.
        for turn, key in enumerate("ABC"):
            moved = {"_id": key, "mail": f"m{(turn + 1) % 3}", "nick": f"n{(turn + 2) % 3}"}
            await _stand(shadow, key, moved)
    process = spawn(die_aside, site, "A", times)
    await asyncio.to_thread(process.join, 90)
    assert process.exitcode == -signal.SIGKILL
    assert await site.disagreements() != []
    async with site.shadow() as shadow:
        await site.level(shadow)


async def _stand(shadow: Shadow, key: Key, document: Document) -> None:
    """Puts a document into the primary alone, with its unique values taken from whoever holds them."""
    primary = shadow._engine.runtime().stores[StoreName.DYNAMO]
    seen = await primary.image(COLLECTION, key)
    assert isinstance(seen.state, Version)
    holders = {
        other: await primary.image(COLLECTION, other) for other in await primary.holders(COLLECTION, key, document)
    }
    out = [(other, _without(image), image.state) for other, image in holders.items()]
    assert await primary.put_all(COLLECTION, [*out, (key, Image(seen.state.next(), document), seen.state)])


def _without(image: Image) -> Image:
    assert image.document is not None
    assert isinstance(image.state, Version)
    key = image.document["_id"]
    return Image(image.state.next(), {"_id": key, "mail": f"none {key}", "nick": f"none {key}"})


async def test_a_replay_that_lands_before_its_document_is_set_aside(tmp_path: Path) -> None:
    """The heal of A is about to set B aside when B's own write arrives: B keeps what that has made of it."""
    journal = SqliteJournal(FileSettings(tmp_path / "shadow.db", limit=30.0))
    unique = (UniqueSpec("mail", ("mail",)),)
    primary, inner = MemoryStore(StoreName.MONGO), MemoryStore(StoreName.DYNAMO, unique)
    secondary = FaultyStore(inner)
    for key, mail in (("A", "m1"), ("B", "m2")):
        assert await inner.put(COLLECTION, key, Image(Version(key, 1), {"_id": key, "mail": mail}), ABSENT)
    for key, mail in (("A", "m2"), ("B", "m1")):
        assert await primary.put(COLLECTION, key, Image(Version(key, 2), {"_id": key, "mail": mail}), ABSENT)
    untangler = Untangler(Intents(journal, Limits(), Silent()))
    gate = Gate()

    async def by_now(call: Any) -> Any:
        return await call()

    # The put of A, of B in its turn, and then that which sets A aside for B.
    secondary.on("put", by_now, 2)
    secondary.on("put", gate)
    healing = asyncio.create_task(heal(primary, secondary, COLLECTION, "A", untangles=untangler))
    await gate.reached.wait()
    change = Update("A", {"_id": "A"}, {"$set": {"mail": "m3"}}, "")
    post = Image(Version("A", 2), {"_id": "A", "mail": "m3"})
    assert await inner.replay(COLLECTION, Write(COLLECTION, Verb.UPDATE_ONE, "o", change, Version("A", 1), post))
    gate.opened.set()
    assert await healing in (Healing.COPIED, Healing.EQUAL)
    await heal(primary, secondary, COLLECTION, "B", untangles=untangler)
    for key in "AB":
        assert await inner.image(COLLECTION, key) == await primary.image(COLLECTION, key)
    assert secondary.calls["put"] > 3
    journal.shut()


async def test_a_primary_that_has_set_a_document_aside_is_not_believed() -> None:
    """A flip by force in the middle of it: what the other store has is not deleted."""
    primary, secondary = MemoryStore(StoreName.MONGO), MemoryStore(StoreName.DYNAMO)
    await primary.put(COLLECTION, "A", Image(Tombstone.in_passing("x")), ABSENT)
    kept = Image(Version("A", 1), {"_id": "A"})
    await secondary.put(COLLECTION, "A", kept, ABSENT)
    with pytest.raises(HealContended):
        await heal(primary, secondary, COLLECTION, "A")
    assert await secondary.image(COLLECTION, "A") == kept
