"""The journal cannot be written: its disk is full, or a process' files may not grow.

`refuse` (the default) refuses writes and changes nothing; `sync` makes them on both stores and waits. Either way reads
go on, the journal is used again as soon as it can be written, and what was to be closed or deferred meanwhile is.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from shadow import Shadow
from shadow.embedded.servers import FaultProxy
from shadow.errors import JournalError
from shadow.journal.base import Entry
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.writes.intents import OnFailure
from tests.support.pair import until
from tests.support.shadows import COLLECTION, Site

LIMITS: Final = {"operation": 120.0}
"""Long: what is lost of closes and deferrals would show for as long."""


class TinyDisk:
    """A disk of six megabytes (tmpfs)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

    def free(self) -> None:
        self._filler.unlink()


class NoGrowth:
    """Where no disk can be mounted: no file of this process may grow beyond what a journal needs at its beginning."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.fixture(params=["tiny disk", "no growth"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyDisk | NoGrowth]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    mounted = request.param == "tiny disk" and subprocess.run(mount, capture_output=True).returncode == 0
    made = TinyDisk(folder) if mounted else NoGrowth(folder)
    try:
        yield made
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        else:
            made.free()


@pytest.fixture
def on_disk(site: Site, disk: TinyDisk | NoGrowth) -> Site:
    return site.but(journal=str(disk.folder / "shadow.db"), limits=LIMITS)


async def writes_until_refused(things: Any, first: int = 0) -> int:
    """How many inserts were made before the journal refused one: the log may have some room left."""
    for n in range(first, first + 5000):
        try:
            await things.insert_one({"_id": f"room-{n}"})
        except JournalError:
            return n
    raise AssertionError("the journal was never full")


async def test_refuse_changes_nothing_and_needs_no_restart(on_disk: Site, disk: TinyDisk | NoGrowth) -> None:
    async with on_disk.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "before"})
        await on_disk.level(shadow)
        disk.fill()
        refused = await writes_until_refused(things)
        for _ in range(20):
            with pytest.raises(JournalError):
                await things.insert_one({"_id": f"room-{refused}"})
        assert await things.find_one({"_id": "before"}) == {"_id": "before"}
        assert await things.find_one({"_id": f"room-{refused}"}) is None
        disk.free()
        await until_written(things, {"_id": "after"})
        await on_disk.level(shadow)
        assert len(await on_disk.documents()) == refused + 2


async def test_a_full_disk_makes_an_idle_application_unready_and_room_makes_it_ready(
    on_disk: Site, disk: TinyDisk | NoGrowth
) -> None:
    """Nothing waits to be written, and no write of the application has to be refused first."""
    async with on_disk.shadow() as shadow:
        await shadow.prepare()
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "before"})
        await on_disk.level(shadow)
        assert await shadow.admin.ready() == (True, {"primary_mongo": "ok", "journal": "ok", "background": "ok"})
        disk.fill()
        async with asyncio.timeout(90):
            while (await shadow.admin.ready())[0]:
                pass
        assert (await shadow.admin.ready())[1]["journal"] == "failed: JournalError"
        disk.free()
        async with asyncio.timeout(90):
            while not (await shadow.admin.ready())[0]:
                pass
        await until_written(things, {"_id": "after"})
        await on_disk.level(shadow)


async def until_written(things: Any, document: dict[str, Any]) -> None:
    async with asyncio.timeout(90):
        while True:
            try:
                return await things.insert_one(document)
            except JournalError:
                await asyncio.sleep(0.05)


async def test_what_was_to_be_closed_and_deferred_while_the_disk_was_full_is_not_lost(
    on_disk: Site, disk: TinyDisk | NoGrowth, new_proxy: Callable[[str], FaultProxy]
) -> None:
    proxy = new_proxy(on_disk.dynamo_url)
    behind = on_disk.but(dynamo_url=proxy.url, limits={**LIMITS, "write_deadline": 5.0}, patience=5.0)
    async with behind.shadow() as shadow:
        await on_disk_prepared(on_disk)
        things = shadow[COLLECTION]
        await things.insert_one({"_id": "first"})
        await behind.but(dynamo_url=on_disk.dynamo_url).level(shadow)
        proxy.mode = "hang"
        await asyncio.gather(*(things.insert_one({"_id": n}) for n in range(40)))
        disk.fill()
        await writes_until_refused(things)
        proxy.clear()
        runtime = shadow._engine.runtime()
        await until(lambda: runtime.writes.depth == 0, 90)
        disk.free()
        assert await shadow.settled(90), "they were not lost: they would stand for two minutes"
        assert await on_disk.disagreements() == []


async def on_disk_prepared(site: Site) -> None:
    async with site.shadow() as shadow:
        await shadow.prepare()


async def journal_works(shadow: Shadow, things: Any, number: int) -> bool:
    """Whether writes have intents again: none of them counts as made without one."""
    before = made_without(shadow)
    await things.insert_one({"_id": f"probe-{number}"})
    return made_without(shadow) == before


def made_without(shadow: Shadow) -> float:
    text = shadow.admin.metrics()[0].decode().splitlines()
    return sum(float(line.split()[-1]) for line in text if line.startswith("shadow_unjournaled_writes_total{"))


async def test_sync_makes_both_writes_and_says_what_the_secondary_did_not_take(
    on_disk: Site, disk: TinyDisk | NoGrowth, new_proxy: Callable[[str], FaultProxy]
) -> None:
    proxy = new_proxy(on_disk.dynamo_url)
    behind = on_disk.but(dynamo_url=proxy.url, journal_options={"on_failure": OnFailure.SYNC})
    async with behind.shadow() as shadow:
        await on_disk_prepared(on_disk)
        things = shadow[COLLECTION]
        disk.fill()
        for n in range(5000):
            await things.insert_one({"_id": f"room-{n}"})
            if made_without(shadow):
                break
        for n in range(20):
            await things.insert_one({"_id": n})
            mongo, dynamo = await asyncio.to_thread(on_disk.audit.documents, COLLECTION)
            assert Site.digest(n) in mongo
            assert Site.digest(n) in dynamo, "the caller waited for both"
        assert COLLECTION not in (await shadow.admin.status())["journal"]["verify_since"]
        assert (await shadow.admin.ready())[0]
        proxy.mode = "refuse"
        await things.update_one({"_id": 0}, {"$set": {"n": 1}})
        status = (await shadow.admin.status())["journal"]
        assert COLLECTION in status["verify_since"]
        proxy.clear()
        disk.free()
        number = 0
        async with asyncio.timeout(90):
            while not await journal_works(shadow, things, number):
                number += 1
        assert await shadow.settled(90)
        assert COLLECTION in (await shadow.admin.status())["journal"]["verify_since"]
        await shadow.admin.heal(COLLECTION, 0)
        await shadow.admin.trust(COLLECTION)
        await on_disk.level(shadow)
        assert COLLECTION not in (await shadow.admin.status())["journal"]["verify_since"]
    async with on_disk.shadow() as shadow:
        assert (await shadow.admin.status())["journal"]["verify_since"] == {}


async def test_a_bound_on_the_size_refuses_what_takes_room_and_takes_what_makes_room(tmp_path: Path) -> None:
    journal = SqliteJournal(FileSettings(tmp_path / "shadow.db", max_bytes=2**20))
    op_ids: list[str] = []

    async def fill() -> None:
        for n in range(100_000):
            await journal.open([Entry(f"op{n}", "things", f"key-{n}")])
            op_ids.append(f"op{n}")

    try:
        with pytest.raises(JournalError, match="full"):
            await fill()
        assert (tmp_path / "shadow.db").stat().st_size <= 2**20
        with pytest.raises(JournalError, match="full"):
            await journal.probe()
        assert (await journal.stats()).open == len(op_ids)
        for op_id in op_ids:
            journal.close(op_id)
        await journal.open([Entry("again", "things", "key")])
        await journal.flush()
        assert (await journal.stats()).open == 1
    finally:
        journal.shut()
