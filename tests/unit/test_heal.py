"""Heal and replay: every fence holds, and nothing is put where something else has come in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shadow.journal.base import Entry
from shadow.model.operation import Change, Delete, Insert, Replace, Update, Verb, Write
from shadow.model.phase import StoreName
from shadow.model.stored import Damaged
from shadow.model.verdict import Healing, Kind
from shadow.model.version import ABSENT, Image, State, Tombstone, Version
from shadow.stores.memory import MemoryStore
from shadow.writes.heal import HealContended, Replayed, heal, replay
from tests.support.cases import each_of
from tests.support.faulty import FaultyStore
from tests.support.pair import Pair, until

KEY = "k"
OLD, NEW = Version("a", 1), Version("a", 2)


def image(version: Version, value: int) -> Image:
    return Image(version, {"_id": KEY, "value": value})


STATES: dict[str, Image] = {
    "absent": Image(ABSENT),
    "tombstone": Image(Tombstone("t1")),
    "at the pre-version": image(OLD, 1),
    "ahead": image(NEW, 2),
    "another birth": image(Version("b", 1), 1),
}


async def holding(seen: Image, name: StoreName = StoreName.DYNAMO) -> MemoryStore:
    store = MemoryStore(name)
    if seen.state != ABSENT:
        assert await store.put("things", KEY, seen, ABSENT)
    return store


def a_write(change: Change, pre: State, post: Image) -> Write:
    return Write("things", Verb.UPDATE_ONE, "op", change, pre, post)


SET = {"$set": {"value": 2}}
WRITES: dict[str, tuple[Write, set[str]]] = {
    "insert": (a_write(Insert(KEY, {"_id": KEY, "value": 1}, "a"), ABSENT, image(OLD, 1)), {"absent"}),
    "upsert that inserted": (
        a_write(
            Update(KEY, {"_id": KEY}, SET, "a", upsert=True), ABSENT, Image(Version("a", 1), {"_id": KEY, "value": 2})
        ),
        {"absent"},
    ),
    "update": (a_write(Update(KEY, {"_id": KEY}, SET, "x"), OLD, image(NEW, 2)), {"at the pre-version"}),
    "replace": (
        a_write(Replace(KEY, {"_id": KEY}, {"_id": KEY, "value": 2}, "c"), OLD, image(Version("c", 1), 2)),
        {"at the pre-version"},
    ),
    "delete": (a_write(Delete(KEY, {"_id": KEY}, "t2"), OLD, Image(ABSENT)), {"at the pre-version", "absent"}),
}


@each_of("seen", STATES)
@each_of("verb", WRITES)
async def test_a_replay_is_taken_only_where_its_fence_holds(verb: str, seen: str) -> None:
    write, taken_at = WRITES[verb]
    store = await holding(STATES[seen])
    result, _ = await replay(store, write)
    after = await store.image("things", KEY)
    if seen in taken_at:
        assert result is Replayed.EQUAL
        expected = Tombstone("t2") if verb == "delete" else write.post.state
        assert after.state == expected
    else:
        assert result is Replayed.FENCED
        assert after == STATES[seen]


async def test_a_replay_that_comes_to_another_document_says_so() -> None:
    store = await holding(image(OLD, 1))
    write = a_write(Update(KEY, {"_id": KEY}, SET, "x"), OLD, image(NEW, 3))
    result, after = await replay(store, write)
    assert result is Replayed.DIFFERENT
    assert after == image(NEW, 2)


async def test_a_replay_whose_filter_does_not_match_over_there_changes_nothing() -> None:
    store = await holding(image(OLD, 7))
    write = a_write(Update(KEY, {"_id": KEY, "value": 1}, SET, "x"), OLD, image(NEW, 2))
    assert (await replay(store, write))[0] is Replayed.FENCED
    assert await store.image("things", KEY) == image(OLD, 7)


@pytest.mark.parametrize("seen", STATES)
async def test_heal_copies_the_primary_over_whatever_the_secondary_holds(seen: str) -> None:
    wanted = image(NEW, 2)
    primary, secondary = await holding(wanted, StoreName.MONGO), await holding(STATES[seen])
    result = await heal(primary, secondary, "things", KEY)
    assert result is (Healing.EQUAL if seen == "ahead" else Healing.COPIED)
    assert await secondary.image("things", KEY) == wanted


@pytest.mark.parametrize("seen", STATES)
async def test_heal_of_a_deleted_document_always_leaves_a_fresh_tombstone(seen: str) -> None:
    secondary = await holding(STATES[seen])
    assert await heal(MemoryStore(), secondary, "things", KEY) is Healing.TOMBSTONED
    after = await secondary.image("things", KEY)
    assert isinstance(after.state, Tombstone)
    assert after.state != Tombstone("t1"), "an old tombstone is touched, or a stale copy could still pass its condition"


async def test_heal_of_a_key_at_the_same_version_with_another_document_copies() -> None:
    primary, secondary = await holding(image(NEW, 2), StoreName.MONGO), await holding(image(NEW, 99))
    assert await heal(primary, secondary, "things", KEY) is Healing.COPIED
    assert await secondary.image("things", KEY) == image(NEW, 2)


async def test_heal_reads_the_secondary_before_the_primary() -> None:
    order: list[str] = []
    primary, secondary = FaultyStore(await holding(image(NEW, 2), StoreName.MONGO)), FaultyStore(MemoryStore())

    def noting(name: str) -> Any:
        async def fault(call: Any) -> Any:
            order.append(name)
            return await call()

        return fault

    primary.on("image", noting("primary"))
    secondary.on("image", noting("secondary"))
    await heal(primary, secondary, "things", KEY)
    assert order == ["secondary", "primary"]


async def test_heal_starts_over_when_the_secondary_moves_under_it() -> None:
    primary, inner = await holding(image(NEW, 2), StoreName.MONGO), await holding(image(OLD, 1))
    secondary = FaultyStore(inner)

    async def moved(call: Any) -> Any:
        assert await inner.put("things", KEY, Image(Tombstone("other")), OLD)
        return await call()

    secondary.on("put", moved)
    assert await heal(primary, secondary, "things", KEY, pause=_no_pause) is Healing.COPIED
    assert secondary.calls["put"] == 2
    assert await inner.image("things", KEY) == image(NEW, 2)


async def test_heal_gives_up_after_its_attempts_and_names_no_key() -> None:
    primary, secondary = await holding(image(NEW, 2), StoreName.MONGO), FaultyStore(await holding(image(OLD, 1)))

    async def never(call: Any) -> Any:
        return False

    secondary.on("put", never, None)
    with pytest.raises(HealContended) as caught:
        await heal(primary, secondary, "things", KEY, attempts=3, pause=_no_pause)
    assert secondary.calls["put"] == 3
    assert repr(KEY) not in str(caught.value)


async def test_a_stale_copy_fails_after_the_document_was_deleted_and_healed() -> None:
    """The copy that the touch is there for: read before the delete, put after it."""
    primary, secondary = await holding(image(NEW, 2), StoreName.MONGO), MemoryStore()
    seen, stale = await secondary.image("things", KEY), await primary.image("things", KEY)
    await primary.apply("things", Delete(KEY, {"_id": KEY}, "t"), "op")
    await heal(primary, secondary, "things", KEY)
    assert not await secondary.put("things", KEY, stale, seen.state)
    assert not (await secondary.image("things", KEY)).present


async def test_many_heals_of_one_key_at_once_all_end_equal() -> None:
    primary, secondary = await holding(image(NEW, 2), StoreName.MONGO), await holding(image(OLD, 1))
    results = await asyncio.gather(*(heal(primary, secondary, "things", KEY) for _ in range(8)))
    assert set(results) <= {Healing.COPIED, Healing.EQUAL}
    assert await secondary.image("things", KEY) == image(NEW, 2)


async def _no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


async def test_what_the_primary_holds_and_nobody_can_read_is_a_mismatch_and_no_deletion(tmp_path: Path) -> None:
    """Left to the journal, said once by its key, and settled when it can be read again."""
    async with Pair(tmp_path) as pair:
        await pair.things.insert_one({"_id": "k", "n": 1})
        await pair.settled()
        memory = pair.inner[StoreName.MONGO]
        seen = await memory.image("things", "k")
        memory._set("things", "k", Image(seen.state, Damaged({"_id": "k"}, {"n": "text that is no UTF-8"})))
        await pair.journal.open([Entry("an-operation", "things", "k")])
        pair.journal.defer("an-operation")
        await until(lambda: any(each.kind is Kind.UNREADABLE for each in pair.report.mismatches))
        assert [each.key for each in pair.report.mismatches] == ["k"]
        assert pair.documents(StoreName.DYNAMO) == {"k": {"_id": "k", "n": 1}}
        memory._set("things", "k", seen)
        await pair.settled()
