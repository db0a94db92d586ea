"""The watch over writers that go past the shim reads on where it was, and says when it cannot watch."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from shadow.journal.base import Entry
from shadow.model import events
from shadow.model.phase import Phase, Route, StoreName
from shadow.model.verdict import Bypass
from shadow.model.version import ABSENT, Image, Tombstone, Version
from shadow.reads import bypass_watch as writers
from shadow.reads.bypass_watch import WriterWatch
from shadow.routes.routes import Routes
from tests.support.pair import Pair, until

Seen = list[tuple[str, Bypass, Any, str]]


class Stream:
    """Change streams from a script: each opening gives its events, then its error, then waits for ever."""

    def __init__(self, *openings: tuple[list[tuple[Any, Bypass]], Exception | None]) -> None:
        self._openings = list(openings)
        self.tokens: list[Mapping[str, Any] | None] = []

    async def __call__(self, after: Mapping[str, Any] | None) -> AsyncIterator[Any]:
        self.tokens.append(after)
        events, error = self._openings.pop(0) if self._openings else ([], None)
        for key, kind in events:
            yield ("things", key, kind, f"event {key}"), {"_data": key}
        if error is not None:
            raise error
        await asyncio.Event().wait()


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writers, "_PAUSE", 0.001)
    async with Pair(tmp_path) as pair:
        yield pair


class Watching:
    """Runs a watch over a stream for a while."""

    def __init__(self, pair: Pair, stream: Stream, route: Route | None = None) -> None:
        self.seen: Seen = []
        self.failures: list[BaseException] = []
        self.stream = stream
        routes = pair.routes
        if route is not None:
            routes = Routes({"things": route}, on_change=lambda *_: None, on_unknown=lambda _: None)
        context = dataclasses.replace(pair.runtime.context, routes=routes, reporter=self)
        self.watch = WriterWatch(stream, context)

    def publish(self, event: events.Event) -> None:
        match event:
            case events.OutOfBandWriteSeen(collection, kind, key, name):
                self.seen.append((collection, kind, key, name))
            case events.ComponentFailed("watch", error):
                self.failures.append(error)

    async def __aenter__(self) -> Watching:
        self._task = asyncio.create_task(self.watch.run())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_it_reads_on_behind_the_last_event_after_an_error(pair: Pair) -> None:
    stream = Stream(
        ([("a", Bypass.CHANGED), ("b", Bypass.INSERTED)], AutoReconnect("gone")), ([("c", Bypass.REPLACED)], None)
    )
    async with Watching(pair, stream) as watching:
        await until(lambda: len(watching.seen) == 3)
    assert [each[2] for each in watching.seen] == ["a", "b", "c"]
    assert stream.tokens == [None, {"_data": "b"}]
    assert [type(each) for each in watching.failures] == [AutoReconnect]


async def test_where_the_history_is_lost_it_begins_anew(pair: Pair) -> None:
    stream = Stream(([("a", Bypass.CHANGED)], OperationFailure("lost", 286)), ([("b", Bypass.CHANGED)], None))
    async with Watching(pair, stream) as watching:
        await until(lambda: len(watching.seen) == 2)
    assert stream.tokens == [None, None]


async def test_without_a_replica_set_it_says_so_and_ends(pair: Pair) -> None:
    stream = Stream(([], OperationFailure("The $changeStream stage is only supported on replica sets", 40573)))
    async with Watching(pair, stream) as watching:
        await until(lambda: watching.watch.state != "on")
    assert watching.watch.state == "off: this MongoDB is no replica set"
    assert stream.tokens == [None]


async def test_a_collection_that_nothing_follows_may_be_written_by_anybody(pair: Pair) -> None:
    stream = Stream(([("a", Bypass.CHANGED), ("b", Bypass.DELETED)], AutoReconnect("")))
    async with Watching(pair, stream, Route(StoreName.MONGO, Phase.OFF)) as watching:
        await until(lambda: len(stream.tokens) == 2)
    assert watching.seen == []


async def test_a_delete_is_held_against_somebody_only_where_shadow_knows_nothing_of_it(pair: Pair) -> None:
    """The secondary still has the document, twice, and the journal holds nothing; a tombstone is shadow's own."""
    held = Image(Version("b", 1), {"_id": 0})
    for key in ("bare", "in flight", "again"):
        document = {"_id": key}
        assert await pair.secondary.put("things", key, Image(held.state, document), ABSENT)
    assert await pair.secondary.put("things", "ours", Image(Tombstone("t")), ABSENT)
    assert await pair.primary.put("things", "again", Image(held.state, {"_id": "again"}), ABSENT)
    await pair.journal.open([Entry("op", "things", "in flight")])
    events = [(key, Bypass.DELETED) for key in ("ours", "in flight", "again", "never copied", "bare")]
    stream = Stream((events, None))
    async with Watching(pair, stream) as watching:
        await until(lambda: watching.seen)
    assert watching.seen == [("things", Bypass.DELETED, "bare", "event bare")]
    assert watching.failures == []


async def test_deletes_on_a_mongodb_that_follows_are_tombstones_that_expire(pair: Pair) -> None:
    assert await pair.inner[StoreName.DYNAMO].put("things", "k", Image(Version("b", 1), {"_id": "k"}), ABSENT)
    stream = Stream(([("k", Bypass.DELETED), ("other", Bypass.CHANGED)], None))
    async with Watching(pair, stream, Route(StoreName.DYNAMO, Phase.SHADOW)) as watching:
        await until(lambda: watching.seen)
    assert [each[2] for each in watching.seen] == ["other"]
