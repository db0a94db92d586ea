"""Looking at the journal: everything it holds is shown, once, oldest first; a heal on request touches nothing that is
somebody else's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from shadow.errors import StoreUnavailable
from shadow.journal.base import Entry, Pending
from shadow.model.phase import StoreName
from shadow.model.stored import Damaged
from shadow.model.verdict import Healing
from shadow.model.version import Image, Version
from shadow.writes import inspect as inspection
from shadow.writes.inspect import Action, Inspector, Waits
from tests.support.faulty import lose, raising
from tests.support.pair import Pair, until


@pytest.fixture
async def pair(tmp_path: Path):
    async with Pair(tmp_path, recovering=False) as pair:
        yield pair


def inspector(pair: Pair, **options: Any) -> Inspector:
    replicator = pair.runtime.replicator
    return Inspector(pair.runtime.context, replicator.repair, replicator.repair_many, **options)


async def owe(pair: Pair, *keys: Any) -> None:
    """Leaves an insert of each key to the journal, one after the other."""
    pair.secondary.on("replay", lose, None)
    pair.secondary.on("put", lose, None)
    for key in keys:
        await pair.things.insert_one({"_id": key, "n": 1})
    await until(lambda: not pair.runtime.writes.depth)
    await pair.journal.flush()
    pair.secondary.clear()


async def test_entries_are_shown_oldest_first_and_page_by_page_without_gap_or_repeat(pair: Pair) -> None:
    await pair.journal.open([Entry(f"op{n}", "things", n) for n in range(7)])
    await pair.journal.open([Entry("other", "others", "x")])
    for n in (1, 3):
        pair.journal.defer(f"op{n}")
    whole = await pair.journal.entries(100)
    assert [each.since for each in whole] == sorted(each.since for each in whole)
    paged: list[Pending] = []
    while page := await pair.journal.entries(3, after=paged[-1] if paged else None):
        paged += page
    assert paged == whole
    assert len({(each.collection, each.key) for each in whole}) == 8
    assert {each.key for each in whole if each.deferred} == {1, 3}
    assert [each.key for each in await pair.journal.entries(100, collection="others")] == ["x"]


async def test_a_key_is_explained_with_everything_that_is_held_of_it(pair: Pair) -> None:
    await pair.journal.open([Entry("a", "things", "k"), Entry("b", "things", "k"), Entry("c", "things", "other")])
    pair.journal.defer("a")
    found = await inspector(pair).explain("things", "k")
    assert [(each.op_id, each.deferred) for each in found.pending] in (
        [("", True), ("b", False)],
        [("b", False), ("", True)],
    )
    assert (found.waits, found.action) == (Waits.IN_FLIGHT, Action.TOMBSTONE)


async def test_looking_changes_nothing(pair: Pair) -> None:
    await owe(pair, "k")
    before = await pair.journal.entries(10)
    report = await inspector(pair).heal()
    await inspector(pair).explain("things", "k")
    assert report.endings == {Healing.COPIED: 1}
    assert report.remaining == 1
    assert await pair.journal.entries(10) == before
    assert pair.documents(pair.secondary.name) == {}


async def test_a_heal_claims_heals_and_settles_every_key(pair: Pair) -> None:
    await owe(pair, *range(5))
    seen: list[int] = []
    report = await inspector(pair).heal(apply=True, workers=2, progress=seen.append)
    assert (report.endings, report.remaining, seen) == ({Healing.COPIED: 5}, 0, [5])
    assert not (await pair.stats()).open
    assert len(pair.documents(pair.secondary.name)) == 5


async def test_a_run_ends_though_new_writes_keep_coming(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at what was there when it began, in pages of any size."""
    monkeypatch.setattr(inspection, "PAGE", 2)
    await owe(pair, *range(7))
    clock = (await pair.journal.entries(100))[-1].since
    await owe(pair, "later")
    report = await inspector(pair, now=lambda: clock).heal(apply=True)
    assert report.seen == 7
    assert [each.key for each in await pair.journal.entries(100)] == ["later"]


async def test_a_key_with_an_intent_and_a_deferral_is_taken_once(pair: Pair) -> None:
    await owe(pair, "k")
    await pair.journal.open([Entry("op", "things", "k")])
    report = await inspector(pair).heal(apply=True)
    assert report.endings == {Healing.COPIED: 1}
    assert [each.op_id for each in await pair.journal.entries(10)] == ["op"]


async def test_what_fails_is_given_back_and_named_without_its_text(pair: Pair) -> None:
    await owe(pair, "secret")
    pair.secondary.on("put", raising(AutoReconnect("secret")), None)
    report = await inspector(pair).heal(apply=True)
    assert report.left == [("things", "secret", Healing.FAILED, "AutoReconnect")]
    (entry,) = await pair.journal.entries(10)
    assert entry.attempts == 1
    pair.secondary.clear()
    assert (await inspector(pair).heal(apply=True)).remaining == 0


async def test_a_run_stops_when_one_heal_after_the_other_fails(pair: Pair) -> None:
    await owe(pair, *range(40))
    pair.secondary.on("put", raising(AutoReconnect("gone")), None)
    report = await inspector(pair).heal(apply=True, workers=1)
    assert report.stopped
    assert report.seen == inspection.IN_A_ROW


async def test_a_store_that_is_away_ends_the_run_before_it_begins(pair: Pair) -> None:
    await owe(pair, "k")
    pair.secondary.on("ping", raising(AutoReconnect("gone")), None)
    with pytest.raises(StoreUnavailable):
        await inspector(pair).heal(apply=True)
    assert [each.attempts for each in await pair.journal.entries(10)] == [0]


async def test_a_cancelled_heal_gives_its_claim_back(pair: Pair) -> None:
    await owe(pair, "k")
    gate = asyncio.Event()

    async def stuck(collection: str, key: Any) -> Any:
        gate.set()
        await asyncio.Event().wait()

    looking = inspector(pair)
    looking._repair = stuck
    task = asyncio.create_task(looking.heal(apply=True))
    await gate.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [each.key for each in await pair.journal.due(10, 1.0)] == ["k"]


async def test_a_secondary_that_is_ahead_is_refused(pair: Pair) -> None:
    await owe(pair, "k")
    primary = await pair.primary.image("things", "k")
    assert isinstance(primary.state, Version)
    ahead = Image(primary.state.next(), {"_id": "k", "n": 2})
    seen = await pair.secondary.image("things", "k")
    assert await pair.secondary.put("things", "k", ahead, seen.state)
    report = await inspector(pair).heal(apply=True)
    assert report.endings == {Healing.REVERSED: 1}
    assert (await pair.secondary.image("things", "k")).document == {"_id": "k", "n": 2}


async def test_a_collection_that_nothing_follows_is_left_alone(pair: Pair) -> None:
    await pair.journal.open([Entry("op", "unheard of", "k")])
    pair.journal.defer("op")
    for apply in (False, True):
        assert (await inspector(pair).heal(apply=apply)).endings == {Healing.NOT_FOLLOWED: 1}
    assert [each.deferred for each in await pair.journal.entries(10)] == [True]


async def test_documents_that_cannot_be_read_are_named_and_end_no_run(pair: Pair) -> None:
    """However many there are: they say nothing about the store. What can be healed is healed."""
    await owe(pair, *range(inspection.IN_A_ROW + 5), "whole")
    memory = pair.inner[StoreName.MONGO]
    for key in range(inspection.IN_A_ROW + 5):
        seen = await memory.image("things", key)
        memory._set("things", key, Image(seen.state, Damaged({"_id": key}, {"n": "text that is no UTF-8"})))
    found = await inspector(pair).explain("things", 0)
    assert (found.action, found.equal) == (Action.UNREADABLE, False)
    for apply in (False, True):
        report = await inspector(pair).heal(apply=apply, workers=1)
        assert not report.stopped
        assert report.endings == {Healing.FAILED: inspection.IN_A_ROW + 5, Healing.COPIED: 1}
    assert {error for _, _, _, error in report.left} == {"text that is no UTF-8"}
    assert list(pair.documents(StoreName.DYNAMO)) == ["whole"], "and nothing was taken for deleted"
