"""The manual's tables of failures, row by row: one test for each row, and no test for a row that is not there.

A test brings the row about and answers the Shadow that saw it; the counters that the row names must have risen in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    DuplicateKeyError,
    NetworkTimeout,
    OperationFailure,
    WriteConcernError,
)

from shadow import Shadow
from shadow.embedded.servers import FaultProxy, Mode
from shadow.errors import JournalError, SecondaryWriteError
from shadow.host.failpoints import Point
from shadow.model.background import Background
from shadow.model.phase import StoreName
from shadow.model.version import Image, Version
from tests.support import manual
from tests.support.faulty import Gate, apply_and_lose, hang, lose, refuse
from tests.support.memory import Place, counted
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site
from tests.support.writer import crash_at, spawn

Row = tuple[str, ...]
Test = Callable[..., Awaitable[Shadow]]

TESTS: dict[Row, list[str]] = {}
"""The rows that have a test: their cells before `the caller sees`, and the tests' names."""

SEEN = "the caller sees"


def rows() -> Iterator[tuple[Row, str]]:
    """Each row of the manual's section: its first cells, and the cell of what is counted."""
    split = 0
    for line in manual.section("failure-modes", "What happens when").splitlines():
        if not line.startswith("|") or line.startswith("|---"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if SEEN in cells:
            split = cells.index(SEEN)
        else:
            yield tuple(cells[:split]), cells[split + 1]


def counters(cell: str) -> Iterator[tuple[str, dict[str, str]]]:
    for name, labels in re.findall(r"`(shadow_\w+_(?:total|sum))(?:\{(.*?)\})?`", cell):
        yield name, dict(re.findall(r'(\w+)="(\w+)"', labels))


def row(*cells: str) -> Callable[[Test], Callable[..., Awaitable[None]]]:
    """The test of the row that begins with these cells."""

    def mark(test: Test) -> Callable[..., Awaitable[None]]:
        TESTS.setdefault(cells, []).append(test.__name__)

        @functools.wraps(test)
        async def held(*arguments: Any, **options: Any) -> None:
            shadow = await test(*arguments, **options)
            for name, labels in counters(dict(rows())[cells]):
                assert counted(shadow, name, **labels) > 0, f"{name} {labels} has not risen"

        return held

    return mark


def test_every_row_has_exactly_one_test_and_every_test_a_row() -> None:
    told = [cells for cells, _ in rows()]
    assert len(told) == len(set(told)) > 20
    assert sorted(TESTS) == sorted(told)
    assert {cells: names for cells, names in TESTS.items() if len(names) != 1} == {}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def writes(shadow: Shadow, count: int = 1) -> None:
    for number in range(count):
        await shadow[COLLECTION].insert_one({"_id": number, "n": number})


async def left(shadow: Shadow) -> int:
    """Intents and deferred keys in the journal."""
    status = (await shadow.admin.status())["journal"]
    return int(sum(status["open"].values()) + sum(status["deferred"].values()))


def up(shadow: Shadow) -> float:
    return counted(shadow, "shadow_secondary_up", store="dynamo")


# --- primary x secondary x journal --------------------------------------------------------------------------------

TAKES = "takes the write"
UNKNOWN = 2.0
"""`limits.operation`, where a test waits for it to be over."""


@row(TAKES, "refuses it, or the connection breaks", "up")
async def test_secondary_fails(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        place.secondary.on("replay", refuse)
        place.secondary.on("replay", lose)
        await writes(shadow, 2)
        await place.level(shadow)
        assert place.secondary.calls["put"] == 2
    return shadow


@row(TAKES, "hangs: longer than `limits.write_deadline`", "up")
async def test_secondary_hangs(place: Place) -> Shadow:
    async with place.shadow(write_deadline=0.3) as shadow:
        place.secondary.on("replay", hang)
        await writes(shadow)
        assert not place.held(StoreName.DYNAMO), "answered although the secondary had not"
        await place.level(shadow)
    return shadow


@row(TAKES, "down: five failures in a row", "up")
async def test_secondary_is_down(place: Place) -> Shadow:
    async with place.shadow(write_workers=1) as shadow:
        place.secondary.on_all(lose)
        await writes(shadow, 5)
        await until(lambda: up(shadow) == 0)
        asked = place.secondary.calls["replay"]
        await shadow[COLLECTION].insert_many([{"_id": number} for number in range(100, 200)])
        await until(lambda: counted(shadow, "shadow_deferred_writes_total") >= 105)
        assert place.secondary.calls["replay"] <= asked + 3, "a probe now and then"
        place.secondary.clear()
        await place.level(shadow)
        assert up(shadow) == 1
    return shadow


@row(TAKES, "takes it, and its answer is lost", "up")
async def test_the_secondarys_answer_is_lost(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        place.secondary.on("replay", apply_and_lose)
        await writes(shadow)
        await place.level(shadow)
        assert place.secondary.calls["put"] == 0
    return shadow


@row(TAKES, "has another result", "up")
async def test_the_secondary_comes_to_something_else(place: Place) -> Shadow:
    async def wrongly(call: Callable[[], Awaitable[Any]]) -> Any:
        image = await call()
        wrong = Image(image.state, {**image.document, "n": -1})
        key = image.document["_id"]
        assert await place.inner[StoreName.DYNAMO].put(COLLECTION, key, wrong, image.state)
        return wrong

    async with place.shadow() as shadow:
        place.secondary.on("replay", wrongly)
        await writes(shadow)
        await place.level(shadow)
        assert len(shadow.admin.findings.groups()) == 1
    return shadow


@row(TAKES, "slow: more writes than the work queue holds", "up")
async def test_the_lane_is_full(place: Place) -> Shadow:
    """What has no room leaves nothing behind in memory, and is healed in order of age."""
    healed: list[Any] = []
    async with place.shadow(write_queue=5, write_workers=1) as shadow:
        gate = Gate()
        place.secondary.on("replay", gate)
        for number in range(5):
            await shadow[COLLECTION].insert_one({"_id": f"lane-{number}"})
        await gate.reached.wait()
        runtime = shadow._engine.runtime()
        await hold_heals(shadow)
        for number in range(60):
            await shadow[COLLECTION].insert_one({"_id": number})
            assert runtime.writes.depth <= 5
            assert len(runtime.replicator._following) <= 5
        assert await left(shadow) == 65
        note_heals(place, healed)
        gate.opened.set()
        release_heals(shadow)
        await place.level(shadow)
    assert healed == list(range(60)), "oldest first"
    return shadow


async def hold_heals(shadow: Shadow) -> None:
    """Ends the recovery of this runtime until `release_heals`."""
    (task,) = (task for task in shadow._engine.runtime()._tasks if task.get_name() == "shadow-recovery")
    task.cancel()
    await asyncio.wait([task], timeout=90)


def release_heals(shadow: Shadow) -> None:
    """Recovery again, one key at a time: with several under way the order of their ends is not that of their age."""
    runtime = shadow._engine.runtime()
    runtime.keep(Background.RECOVERY, runtime.replicator.recover_forever)


def note_heals(place: Place, healed: list[Any]) -> None:
    real = place.inner[StoreName.DYNAMO].put

    async def put(collection: str, key: Any, *rest: Any) -> bool:
        healed.append(key)
        return await real(collection, key, *rest)

    place.inner[StoreName.DYNAMO].put = put  # type: ignore[method-assign, assignment]


@row(f"{TAKES}, `writes: sync`", "fails", "up")
async def test_sync_and_the_secondary_fails(place: Place) -> Shadow:
    async with place.shadow(writes="sync") as shadow:
        await writes(shadow)
        assert len(place.held(StoreName.DYNAMO)) == 1, "answered when the secondary had it"
        place.secondary.on("replay", lose)
        await shadow[COLLECTION].update_one({"_id": 0}, {"$inc": {"n": 1}})
        await place.level(shadow)
    return shadow


@row(f"{TAKES}, `writes: strict`", "fails", "up")
async def test_strict_and_the_secondary_fails(place: Place) -> Shadow:
    async with place.shadow(writes="strict") as shadow:
        place.secondary.on("replay", lose)
        with pytest.raises(SecondaryWriteError):
            await writes(shadow)
        assert len(place.held(StoreName.MONGO)) == 1
        await place.level(shadow)
    return shadow


@row("refuses it (duplicate key, validation)", "not asked", "up")
async def test_the_primary_refuses(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        await writes(shadow)
        await place.level(shadow)
        asked = place.secondary.calls.copy()
        with pytest.raises(DuplicateKeyError):
            await writes(shadow)
        await place.level(shadow)
        assert place.secondary.calls == asked
    return shadow


@row("connection breaks: it may have the write or not", "not asked", "up")
async def test_the_primarys_connection_breaks(place: Place) -> Shadow:
    async with place.shadow(operation=UNKNOWN) as shadow:
        began = time.time()
        place.primary.on("apply", lose)
        place.primary.on("apply", apply_and_lose)
        for number in range(2):
            with pytest.raises(AutoReconnect):
                await shadow[COLLECTION].insert_one({"_id": number})
        await place.level(shadow)
        assert time.time() - began >= UNKNOWN, "settled before the operation must have ended"
        assert place.secondary.calls["replay"] == 0
        assert list(place.held(StoreName.MONGO)) == [1]
    return shadow


@row("takes the write, with a write concern error", "not asked", "up")
async def test_the_primary_takes_it_and_may_lose_it(place: Place) -> Shadow:
    async def doubtful(call: Any) -> Any:
        await call()
        raise WriteConcernError("waiting for replication timed out", 64)

    async with place.shadow(operation=UNKNOWN) as shadow:
        place.primary.on("apply", doubtful)
        with pytest.raises(WriteConcernError):
            await writes(shadow)
        await place.level(shadow)
        assert list(place.held(StoreName.DYNAMO)) == [0]
    return shadow


@row("slow, but answers", "up", "up")
async def test_the_primary_is_slow(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        gate = Gate()
        place.primary.on("apply", gate)
        call = asyncio.ensure_future(shadow[COLLECTION].insert_one({"_id": 1}))
        await gate.reached.wait()
        assert await left(shadow) == 1, "the intent comes first"
        gate.opened.set()
        assert (await call).inserted_id == 1
        await place.level(shadow)
        assert counted(shadow, "shadow_deferred_writes_total") == 0
    return shadow


@row("no answer within half of `limits.operation`", "not asked", "up")
async def test_the_primary_does_not_answer(place: Place) -> Shadow:
    async with place.shadow(operation=UNKNOWN) as shadow:
        place.primary.on("apply", hang)
        with pytest.raises(NetworkTimeout):
            await writes(shadow)
        assert place.secondary.calls["replay"] == 0
        await place.level(shadow)
    return shadow


@row("applies the write long after its caller has given up (a request that was held up on its way)", "not asked", "up")
async def test_the_primary_applies_it_long_after(place: Place) -> Shadow:
    held: list[Callable[[], Awaitable[Any]]] = []

    async def hold_up(call: Callable[[], Awaitable[Any]]) -> Any:
        held.append(call)
        raise AutoReconnect("connection closed")

    async with place.shadow(operation=UNKNOWN) as shadow:
        place.primary.on("apply", hold_up)
        with pytest.raises(AutoReconnect):
            await writes(shadow)
        await place.level(shadow)
        await held[0]()
        await until(lambda: counted(shadow, "shadow_heals_total", result="copied"))
        await place.level(shadow)
        assert (await shadow.admin.status())["journal"]["late"] == {COLLECTION: 1}
    return shadow


@row("down", "down", "up")
async def test_both_are_down(place: Place) -> Shadow:
    async with place.shadow(operation=UNKNOWN) as shadow:
        await writes(shadow)
        await place.level(shadow)
        for store in place.stores.values():
            store.on_all(lose)
        with pytest.raises(AutoReconnect):
            await shadow[COLLECTION].update_one({"_id": 0}, {"$inc": {"n": 1}})
        await until(lambda: counted(shadow, "shadow_heals_total", result="failed"))
        ready, checks = await shadow.admin.ready()
        assert not ready, checks
        assert await left(shadow) == 1
        for store in place.stores.values():
            store.clear()
        await place.level(shadow)
        assert (await shadow.admin.ready())[0]
    return shadow


@row("not asked", "not asked", "cannot be written: full disk, no rights")
async def test_the_journal_cannot_be_written(place: Place) -> Shadow:
    place.journal.parent.write_text("a file where the folder should be")
    async with place.shadow() as shadow:
        with pytest.raises(JournalError):
            await writes(shadow)
        assert place.primary.calls["apply"] == place.secondary.calls["replay"] == 0
        assert await shadow[COLLECTION].find_one({"_id": 0}) is None, "reads go on"
        await until(lambda: counted(shadow, "shadow_internal_failures_total", part="journal"))
        ready, checks = await shadow.admin.ready()
        assert not ready
        assert checks["journal"] != "ok"
        place.journal.parent.unlink()
        await written_again(shadow)
        assert (await shadow.admin.ready())[0]
        await place.level(shadow)
    return shadow


async def written_again(shadow: Shadow) -> None:
    """Writes go on by themselves; what was found out about the journal is kept for a moment."""
    async with asyncio.timeout(90):
        while True:
            try:
                await writes(shadow)
            except JournalError:
                await asyncio.sleep(0.05)
            else:
                return


@row("not asked", "not asked", "unreachable, or slower than a quarter of `limits.operation`, three times")
async def test_the_journal_is_too_slow(place: Place) -> Shadow:
    async with place.shadow(operation=UNKNOWN) as shadow:
        real, slow = shadow._engine.parts.journal.open, 3

        async def opening(entries: Any) -> None:
            nonlocal slow
            await real(entries)
            if slow:
                slow -= 1
                await asyncio.sleep(UNKNOWN / 3)

        shadow._engine.parts.journal.open = opening  # type: ignore[method-assign]
        with pytest.raises(JournalError):
            await writes(shadow)
        assert place.primary.calls["apply"] == place.secondary.calls["replay"] == 0
        assert await shadow.settled(90), "none of the intents that came too late is left"
        await written_again(shadow)
        await place.level(shadow)
    return shadow


@row(TAKES, "asked before the answer", "cannot be written, and `journal.on_failure` is `sync`")
async def test_the_journal_cannot_be_written_and_both_stores_are(place: Place) -> Shadow:
    place.journal.parent.write_text("a file where the folder should be")
    async with place.shadow(on_failure="sync", write_deadline=1.0) as shadow:
        await writes(shadow)
        assert place.held(StoreName.MONGO).keys() == place.held(StoreName.DYNAMO).keys() == {0}
        place.secondary.on("replay", lose, None)
        await shadow[COLLECTION].insert_one({"_id": 1})
        assert counted(shadow, "shadow_unjournaled_writes_total", result="doubted") == 1
        place.secondary.clear()
        place.journal.parent.unlink()
        async with asyncio.timeout(90):
            while COLLECTION not in (await shadow.admin.status())["journal"]["verify_since"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await shadow.admin.heal(COLLECTION, 1)
        await place.level(shadow)
    return shadow


# --- and besides --------------------------------------------------------------------------------------------------


@pytest.fixture
def site(mongo_url: str, mongo_database: str, dynamodb_local_url: str, fresh_name: str, tmp_path: Path) -> Site:
    return Site(
        mongo_url,
        mongo_database,
        dynamodb_local_url,
        f"{fresh_name}-",
        str(tmp_path / "shadow.db"),
        limits={"operation": UNKNOWN},
    )


async def in_transaction(shadow: Shadow, ends: Callable[[Any], Awaitable[Any]]) -> None:
    """A transaction that changes the document 0, and its end."""
    async with shadow.client.start_session() as session:
        await session.start_transaction()
        await shadow[COLLECTION].update_one({"_id": 0}, {"$inc": {"n": 1}}, session=session)
        await ends(session)


@row("the commit of a transaction has no answer")
async def test_a_commit_has_no_answer(site: Site, new_proxy: Callable[[str], FaultProxy]) -> Shadow:
    proxy = new_proxy(site.mongo_url)

    async def lost(session: Any) -> None:
        proxy.set(Mode.HANG, only=b"commitTransaction")
        with pytest.raises(ConnectionFailure) as caught:
            await session.commit_transaction()
        assert caught.value.has_error_label("UnknownTransactionCommitResult")
        proxy.clear()

    async with site.but(mongo_url=proxy.url).shadow() as shadow:
        await shadow.prepare()
        await writes(shadow)
        await site.level(shadow)
        await in_transaction(shadow, lost)
        assert await left(shadow) == 1
        await site.level(shadow)
    return shadow


@row("a transaction is aborted, or ends with its session")
async def test_a_transaction_is_aborted(site: Site) -> Shadow:
    async def as_it_is(session: Any) -> None: ...

    async with site.shadow() as shadow:
        await shadow.prepare()
        await writes(shadow)
        await in_transaction(shadow, as_it_is)
        await in_transaction(shadow, lambda session: session.abort_transaction())
        await site.level(shadow)
        assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 0}
    return shadow


@row("a transaction is open while the phase changes")
async def test_a_transaction_is_open_while_the_phase_changes(site: Site) -> Shadow:
    async def flips(session: Any) -> None:
        done = await shadow.admin.flip(COLLECTION, StoreName.DYNAMO, "a test")
        assert done["done"], done
        with pytest.raises(OperationFailure) as caught:
            await session.commit_transaction()
        assert caught.value.code == 251
        assert caught.value.has_error_label("TransientTransactionError")

    # Nothing but the transaction keeps the flip from being made.
    site = site.but(limits={"operation": 20.0, "write_deadline": 20.0, "drain": 12.0}, patience=20.0)
    async with site.shadow() as shadow:
        await shadow.prepare()
        await writes(shadow)
        await site.level(shadow)
        await in_transaction(shadow, flips)
        assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 0}
        await site.but(primary="dynamo").level(shadow)
    return shadow


@row("the process is killed, at any point")
async def test_the_process_is_killed(site: Site, tmp_path: Path) -> Shadow:
    """One point stands for all here; `test_crash` has the others."""
    async with site.shadow() as shadow:
        await shadow.prepare()
        await shadow[COLLECTION].insert_one({"_id": "inc", "n": 0})
        await site.level(shadow)
    patient = site.but(limits={"operation": 60.0, "write_deadline": 20.0}, patience=20.0)
    process = spawn(crash_at, patient, "inc", Point.AFTER_PRIMARY, str(tmp_path / "log"))
    await asyncio.to_thread(process.join, 90)
    assert process.exitcode == -signal.SIGKILL
    async with site.shadow() as shadow:
        await shadow._engine.runtime().refresh()
        assert counted(shadow, "shadow_journal_open_intents") >= 1
        await site.level(shadow)
    return shadow


@row("the operating system crashes (`synchronous: NORMAL`)")
async def test_the_operating_system_crashes(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        await writes(shadow)
        await place.level(shadow)
        before = shadow._engine.parts.journal
        # As another start of the system would find it: the owner is of an earlier one, and has not left in order.
        await before._ask(_of_an_earlier_boot)  # type: ignore[attr-defined]
    async with place.shadow() as shadow:
        await until_verify_is_wanted(shadow)
        await shadow.admin.trust(COLLECTION)
        assert (await shadow.admin.status())["journal"]["verify_since"] == {}
        await place.level(shadow)
    return shadow


def _of_an_earlier_boot(ledger: Any) -> None:
    host, _, rest = ledger._owner.place.partition("/")
    place = f"{host}/another-boot/{rest.partition('/')[2]}"
    earlier = dataclasses.replace(ledger._owner, place=place)
    ledger._db.execute("INSERT INTO owners VALUES (?, ?, ?, ?)", (earlier.id, place, earlier.pid, earlier.started))
    ledger._db.execute("INSERT INTO written VALUES (?, ?)", (earlier.id, COLLECTION))


async def until_verify_is_wanted(shadow: Shadow) -> None:
    async with asyncio.timeout(90):
        while COLLECTION not in (await shadow.admin.status())["journal"]["verify_since"]:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.01)


@pytest.mark.takes_turns
@row("the journal's file is damaged")
async def test_the_journal_is_damaged(place: Place) -> Shadow:
    async with place.shadow(drain=0.1) as shadow:
        place.secondary.on_all(lose)
        await writes(shadow, 5)
    place.secondary.clear()
    whole = place.journal.read_bytes()
    assert len(whole) > 4096
    place.journal.write_bytes(whole[:100] + bytes(100) + whole[200:])
    async with place.shadow() as shadow:
        await writes_more(shadow)
        await until(lambda: list(place.journal.parent.glob("*.damaged-*")))
        assert COLLECTION in (await shadow.admin.status())["journal"]["verify_since"]
        for number in range(5):
            await shadow.admin.heal(COLLECTION, number)
        await place.level(shadow)
    return shadow


async def writes_more(shadow: Shadow) -> None:
    await shadow[COLLECTION].insert_one({"_id": "more"})


@row("`primary` was edited while nothing ran, and the journal is not empty")
async def test_another_primary_at_the_start(place: Place) -> Shadow:
    async with place.shadow(drain=0.1) as shadow:
        place.secondary.on_all(lose)
        await writes(shadow)
    place.secondary.clear()
    async with place.shadow(primary="dynamo") as shadow:
        assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 0}
        await until(lambda: shadow.admin.routes()[COLLECTION].primary is StoreName.DYNAMO)
        await place.level(shadow)
        assert place.held(StoreName.DYNAMO).keys() == {0}
    return shadow


@row("the application's event loop is late by more than `limits.loop_lag`")
async def test_the_loop_is_late(place: Place) -> Shadow:
    async with place.shadow(loop_lag=0.2) as shadow:
        await writes(shadow)
        await place.level(shadow)
        await until(lambda: not shadow._engine.runtime().lag.late)
        time.sleep(0.5)
        assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 0}
        assert counted(shadow, "shadow_comparisons_total", verdict="match", verb="find_one") == 0
    return shadow


@row("the time for an answer is over, or a reader is cancelled")
async def test_a_reader_goes_away(site: Site, new_proxy: Callable[[str], FaultProxy]) -> Shadow:
    proxy = new_proxy(site.mongo_url)
    async with site.but(mongo_url=proxy.url).shadow() as shadow:
        await shadow.prepare()
        proxy.set(Mode.HANG, only=b"find")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await shadow[COLLECTION].find_one({"_id": 1})
        proxy.clear()
        assert await shadow[COLLECTION].find_one({"_id": 1}) is None
    return shadow


@pytest.mark.takes_turns
@row("a client answers nothing any more, not even a ping")
async def test_a_client_is_stuck(site: Site) -> Shadow:
    async with site.but(limits={"operation": 1.0}).shadow() as shadow:
        await shadow.prepare()
        client: Any = shadow._engine.runtime().stores[StoreName.MONGO].client  # type: ignore[attr-defined]
        await client._get_topology()
        await client._topology._lock.acquire()  # which it never gets back
        with pytest.raises(AutoReconnect):
            await shadow[COLLECTION].find_one({"_id": 1})
        assert await shadow[COLLECTION].find_one({"_id": 1}) is None
    return shadow


@row("the caller is cancelled (client disconnect)")
async def test_the_caller_is_cancelled(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        gate = Gate()
        place.primary.on("apply", gate)
        caller = asyncio.ensure_future(shadow[COLLECTION].insert_one({"_id": 1}))
        await gate.reached.wait()
        caller.cancel()
        await asyncio.wait([caller], timeout=90)
        assert caller.cancelled()
        gate.opened.set()
        await until(lambda: place.held(StoreName.DYNAMO))
        await place.level(shadow)
    return shadow


@row("shutdown, and `limits.drain` is over first")
async def test_the_drain_is_cut_short(place: Place) -> Shadow:
    place.secondary.on("replay", hang, None)
    async with place.shadow(drain=0.1) as shadow:
        await writes(shadow, 3)
    place.secondary.clear()
    assert len(place.held(StoreName.MONGO)) == 3
    assert not place.held(StoreName.DYNAMO)
    async with place.shadow() as following:
        await place.level(following)
    return shadow


@row("a shadow read differs, and still does after settling")
async def test_a_shadow_read_differs(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        await writes(shadow)
        await place.level(shadow)
        image = await place.inner[StoreName.DYNAMO].image(COLLECTION, 0)
        assert isinstance(image.state, Version)
        assert await place.inner[StoreName.DYNAMO].put(
            COLLECTION, 0, Image(image.state, {"_id": 0, "n": 9}), image.state
        )
        found = await shadow[COLLECTION].find_one({"_id": 0})
        assert found is not None
        assert found["n"] == 0
        await until(lambda: shadow.admin.findings.groups())
        await shadow.admin.heal(COLLECTION, 0)
        await place.level(shadow)
    return shadow


@row("a shadow read finds the secondary hanging or down")
async def test_shadow_reads_of_a_secondary_that_hangs(place: Place) -> Shadow:
    async with place.shadow(read_deadline=0.3) as shadow:
        await writes(shadow)
        await place.level(shadow)
        place.secondary.on_all(hang)
        async with asyncio.timeout(90):
            while not counted(shadow, "shadow_shed_total", reason="secondary_down"):
                assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 0}
                await asyncio.sleep(0.01)
        assert counted(shadow, "shadow_comparisons_total", verdict="match", verb="find_one") == 0
        place.secondary.clear()
        await place.level(shadow)
    return shadow


@row("more shadow reads than their queue holds")
async def test_more_shadow_reads_than_their_lane_holds(place: Place) -> Shadow:
    async with place.shadow(read_queue=1, read_workers=1) as shadow:
        await writes(shadow)
        await place.level(shadow)
        gate = Gate()
        for method in ("image", "images", "find_one", "find"):
            place.secondary.on(method, gate, None)
        async with asyncio.timeout(90):
            while not counted(shadow, "shadow_shed_total", reason="lane_full"):
                assert await shadow[COLLECTION].find({}).to_list(None) == [{"_id": 0, "n": 0}]
                await asyncio.sleep(0.01)
        gate.opened.set()
        await place.level(shadow)
    return shadow


@pytest.mark.takes_turns
@row("a read of the share in `reads`, and the secondary fails, hangs or is down")
async def test_a_routed_read_of_a_secondary_that_fails(place: Place) -> Shadow:
    async with place.shadow(reads={"dynamo": "100%"}, routed_read=0.2) as shadow:
        await writes(shadow)
        await place.level(shadow)
        await until(lambda: not shadow._engine.runtime()._doubted(COLLECTION))

        async def right(reason: str) -> None:
            """A secondary that hangs never answers: that the read ends is the bound. A machine that is busy may make
            a read slow before the secondary has said anything."""
            async with asyncio.timeout(90):
                while not counted(shadow, "shadow_routed_reads_total", store="mongo", reason=reason):
                    assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 0}

        for fault, reason in ((refuse, "secondary_error"), (hang, "secondary_slow")):
            # Every one, for the read of before is compared in the shadow as well.
            place.secondary.on("find_one", fault, None)
            await right(reason)
            place.secondary.clear()
        breaker = shadow._engine.runtime().breakers[StoreName.DYNAMO]
        for _ in range(5):
            breaker.failed()
        await right("secondary_down")
        breaker.succeeded()
        await place.level(shadow)
    return shadow


@row("a read of the share in `reads`, and a write is still open")
async def test_a_routed_read_beside_an_open_write(place: Place) -> Shadow:
    async with place.shadow(reads={"dynamo": "100%"}, routed_read=10.0) as shadow:
        await writes(shadow)
        await place.level(shadow)
        await until(lambda: not shadow._engine.runtime()._doubted(COLLECTION))
        gate = Gate()
        place.secondary.on("replay", gate)
        await shadow[COLLECTION].update_one({"_id": 0}, {"$set": {"n": 1}})
        await gate.reached.wait()
        assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 1}
        assert await shadow[COLLECTION].count_documents({"n": 1}) == 1
        gate.opened.set()
        await place.level(shadow)
        assert await shadow[COLLECTION].find_one({"_id": 0}) == {"_id": 0, "n": 1}
    return shadow


@row("the configuration file is broken")
async def test_the_configuration_is_broken(place: Place) -> Shadow:
    async with place.shadow() as shadow:
        before = shadow.admin.routes()
        for text in ("collections: [", yaml.safe_dump({"collections": {COLLECTION: {"phase": "no such phase"}}})):
            assert await shadow.admin.reload(text)
        assert shadow.admin.routes() == before
        await writes(shadow)
        await place.level(shadow)
    return shadow
