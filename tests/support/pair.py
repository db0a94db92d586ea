"""The whole way of the data over two stores in memory, each with faults before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from shadow.compare.diff import Hasher
from shadow.compare.rules import Excuses, Rule
from shadow.control.sqlite import SqliteRecords
from shadow.errors import UnsupportedOperation
from shadow.fleet.made_indexes import SharedIndexes
from shadow.host.failpoints import Failpoints, no_failpoint
from shadow.journal.base import JournalStats
from shadow.journal.sqlite.file import FileSettings
from shadow.journal.sqlite.journal import SqliteJournal
from shadow.model.events import RouteChanged
from shadow.model.limits import Limits, Watch
from shadow.model.operation import Query
from shadow.model.phase import NO_SHARES, Phase, ReadShares, Route, StoreName, WriteMode
from shadow.model.schema import CollectionSpec
from shadow.model.version import Document, Key
from shadow.reads.unconfirmed import MemoryUnconfirmed, UnconfirmedMismatches
from shadow.router import Router
from shadow.routes.routes import Learn, Routes, RouteSource
from shadow.runtime import Runtime, RuntimeContext
from shadow.stores.memory import MemoryStore
from shadow.surface.calls.options import ClientDefaults, kept_by_url
from shadow.surface.collections.collection import Collection
from shadow.surface.indexing.index_report import IndexReport
from shadow.surface.indexing.index_upkeep import IndexUpkeep
from shadow.traces.spans import NO_TRACES
from tests.support.faulty import FaultyStore
from tests.support.recorder import Recorder

__all__ = ["QUICK", "Pair", "until"]

QUICK = Limits(
    operation=2.0,
    write_deadline=0.4,
    read_deadline=0.4,
    settle=0.02,
    recover_every=0.02,
    drain=2.0,
    loop_lag=0.0,
    minimum_age=0.0,
    index_age=0.0,
)
"""Limits under which a test need not wait long for what production gives seconds."""


async def until(condition: Callable[[], Any], timeout: float = 90.0) -> None:
    """Waits until `condition` holds; the test fails if it does not within `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - the condition belongs to somebody else
            await asyncio.sleep(0.002)


class Pair:
    """`async with Pair(folder) as pair`: `pair.things` is a collection over `pair.primary` and `pair.secondary`.

    Several pairs with the same folder share the journal's file; with `beside=other` they share the stores as well, as
    two processes would; one that is not `recovering` leaves what is deferred to the others.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writes: WriteMode = WriteMode.BACKGROUND,
        phase: Phase = Phase.DUAL_WRITE,
        limits: Limits = QUICK,
        reach: Failpoints = no_failpoint,
        beside: Pair | None = None,
        shadow_reads: float = 1.0,
        reads: ReadShares = NO_SHARES,
        recovering: bool = True,
        rules: Sequence[Rule] = (),
        watch: Watch | None = None,
        unconfirmed: UnconfirmedMismatches | None = None,
        learn: Learn | None = None,
    ) -> None:
        self._recovering = recovering
        self.report = Recorder()
        inner = beside.inner if beside is not None else {name: MemoryStore(name) for name in StoreName}
        self.inner = inner
        self.stores = {name: FaultyStore(store) for name, store in inner.items()}
        self.primary, self.secondary = self.stores[StoreName.MONGO], self.stores[StoreName.DYNAMO]
        self.route = Route(StoreName.MONGO, phase, writes, shadow_reads, reads)
        self.journal = SqliteJournal(FileSettings(folder / "shadow.db", limit=limits.operation))
        self.routes = Routes(
            {"things": self.route},
            on_change=lambda name, route: self.report.publish(RouteChanged(name, route)),
            on_unknown=lambda name: None,
            source=None if learn is None else RouteSource(learn),
        )
        self._parts = RuntimeContext(
            self.journal,
            self.routes,
            limits,
            self.report,
            Hasher(b"test"),
            reach,
            lambda name, up: None,
            excuses=Excuses({"things": rules}),
            watch=watch or Watch(),
            unconfirmed=unconfirmed or MemoryUnconfirmed(),
        )
        self.indexes = IndexUpkeep(
            {"things": CollectionSpec("things")},
            dict,
            lambda name: self.routes[name],
            lambda: self.stores,
            IndexReport(self.report, lambda name: ()),
            SharedIndexes(SqliteRecords(folder / "control.db"), self.report),
        )
        self.things = self.get_collection("things")
        self.runtime: Runtime

    async def __aenter__(self) -> Self:
        self.runtime = Runtime(asyncio.get_running_loop(), self._parts, self.stores)
        if not self._recovering:
            for task in self.runtime._tasks:
                if task.get_name() == "shadow-recovery":
                    task.cancel()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.runtime.close()
        self.journal.shut()

    @property
    def database_name(self) -> str:
        return "memory"

    def current(self) -> Router:
        return self.runtime.router

    traces = NO_TRACES

    def kept(self) -> ClientDefaults:
        return kept_by_url("mongodb://127.0.0.1/")

    def is_on_mongo(self, collection: str) -> bool:
        """Never: a store in memory can do nothing that another one cannot."""
        return False

    def refused(self, collection: str, refusal: UnsupportedOperation) -> None: ...

    def get_collection(self, name: str) -> Collection:
        return Collection(CollectionSpec(name), self)

    async def stats(self) -> JournalStats:
        await self.journal.flush()
        return await self.journal.stats()

    async def settled(self, timeout: float = 90.0) -> None:
        """Waits until no write is under way, no comparison is undecided and the journal is empty."""
        async with asyncio.timeout(timeout):
            while self.runtime.at_work or (await self.stats()).open:  # noqa: ASYNC110 - a file cannot wake us
                await asyncio.sleep(0.005)

    def documents(self, name: StoreName) -> dict[Key, Document]:
        """What a store holds, past every fault."""
        hits = self.inner[name]._find("things", Query())
        return {hit.key: hit.document for hit in hits}

    def versions(self, name: StoreName) -> dict[Key, Any]:
        hits = self.inner[name]._find("things", Query())
        return {hit.key: hit.version for hit in hits}

    def assert_equal(self) -> None:
        assert self.documents(StoreName.MONGO) == self.documents(StoreName.DYNAMO)
        assert self.versions(StoreName.MONGO) == self.versions(StoreName.DYNAMO)
