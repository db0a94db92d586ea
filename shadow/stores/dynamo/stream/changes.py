"""Out-of-band writes on DynamoDB, as the streams of its tables report them, with the place in all of them.

A table is read if it has a stream of both images, also while DynamoDB is the secondary: so that nothing is missing when
it becomes the primary. A stream that ends, or that another one has replaced, is reported as lost, and a table without a
stream as unread. One table's trouble does not stop the reading of the others.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from pymongo.errors import OperationFailure

from shadow.host.steady import steady
from shadow.stores.dynamo.client.streams import StreamClient, TrimmedStream
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.stream.records import UNNAMED, table_record
from shadow.stores.dynamo.stream.shards import AT_ONCE, Shard, StreamRecords, TableStream
from shadow.stores.dynamo.tables.spec import stream_of, without_stream
from shadow.stores.past import BEGUN, TOO_OLD, HistoryLost, PastPage, PastWrite, untold

__all__ = ["StreamReader"]

_EVERY: Final = 10.0
"""Seconds between two checks of the tables and their shards."""
_SOON: Final = 2.0
"""The same while a table cannot be read."""
_PAGE: Final = 1.0
"""The most seconds between two pages, also while nothing is asked: whoever takes them shows with each that it lives."""
_UNAUTHORIZED: Final = 13
_ENDED: Final = "the stream of its table was switched off, or replaced"

Describe = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""DynamoDB's description of a table by its name; None if there is none."""
_Of = Literal["table", "stream", "records"]
"""What cannot be read."""


class StreamReader:
    """One reading of the streams of some collections' tables, for `pages`. `table`: of a collection; `describe`: see
    `Describe`."""

    def __init__(
        self,
        client: StreamClient,
        describe: Describe,
        names: Iterable[str],
        table: Callable[[str], CollectionTable],
        *,
        every: float = _EVERY,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._describe = describe
        self._names = tuple(names)
        self._table = table
        self._every, self._sleep = every, sleep
        self._described: dict[str, Mapping[str, Any] | None] = {}
        self._streams: dict[str, TableStream] = {}
        self._elsewhere: list[Mapping[str, Any]] = []
        self._unread: dict[tuple[str, _Of], str] = {}
        self._page = _Page()

    async def pages(self, cursor: Mapping[str, Any] | None) -> AsyncIterator[PastPage]:
        """See `Streaming.past_writes`."""
        known = cursor is not None
        if cursor is not None:
            await self._resume(cursor)
        due = 0.0
        while True:
            if steady() >= due:
                await self._refresh(known=known)
                known, due = True, steady() + (_SOON if self._unread else self._every)
            ended = False
            ready = [(name, stream, each) for name, stream in self._streams.items() for each in stream.ready()]
            # A page for some shards each: it is held in memory until all of it is in the journal.
            for start in range(0, max(1, len(ready)), AT_ONCE):
                now = ready[start : start + AT_ONCE]
                await _all(self._read(*each) for each in now)
                ended = ended or any(shard.done for _, _, shard in now)
                yield self._made()
            if ended:
                due = 0.0  # its children
            else:
                next_ = min((stream.due() for stream in self._streams.values()), default=due)
                await self._sleep(max(0.0, min(next_, due, steady() + _PAGE) - steady()))

    def _made(self) -> PastPage:
        waiting = [at for each in self._streams.values() if (at := each.waiting()) is not None]
        page, self._page = self._page, _Page()
        streams = [{"name": name, **stream.cursor()} for name, stream in self._streams.items()]
        return PastPage(
            tuple(page.writes),
            # No mapping: the name of a collection may have dots.
            {"streams": [*streams, *self._elsewhere]},
            tuple(page.lost),
            min(waiting, default=0.0),
            quiet=not waiting,
            unread=tuple({name: reason for (name, _), reason in self._unread.items()}.items()),
        )

    async def _resume(self, cursor: Mapping[str, Any]) -> None:
        try:
            for each in cursor["streams"]:
                name = str(each["name"])
                if name in self._names:
                    self._streams[name] = TableStream(self._client, self._table(name).name, str(each["arn"]), each)
                else:
                    # Of a process with other collections, which may be the next to read.
                    self._elsewhere.append(dict(each))
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryLost("no cursor") from error

    # --- the tables -------------------------------------------------------------------------------------------------

    async def _refresh(self, *, known: bool) -> None:
        """Checks each table, and the shards of its stream. `known`: whether a stream that is not known is a loss;
        at the very beginning, whoever reads says so of all of them."""
        for name in self._names:
            if not await self._tried(name, "table", functools.partial(self._look, name)):
                continue
            described, there = self._described[name], self._streams.get(name)
            found = None if described is None else stream_of(described)
            missing = without_stream(self._table(name).name, described)
            if missing:
                self._unread[name, "stream"] = missing
            if there is not None and there.arn != found:
                # The last records of the stream that has ended are not waited for: the collection is unverified.
                del self._streams[name]
                self._page.lost.append((name, _ENDED))
            if found is None:
                continue
            if name in self._streams:
                await self._tried(name, "stream", self._streams[name].refresh)
            else:
                begun = await self._tried(name, "stream", functools.partial(self._begin, name, found))
                if begun and known and there is None:
                    self._page.lost.append((name, BEGUN))

    async def _look(self, name: str) -> None:
        self._described[name] = await self._describe(self._table(name).name)

    async def _begin(self, name: str, arn: str) -> None:
        stream = TableStream(self._client, self._table(name).name, arn)
        await stream.begin()
        self._streams[name] = stream

    async def _tried(self, name: str, of: _Of, work: Callable[[], Awaitable[Any]]) -> bool:
        """Does `work` on one stream, which may find that records are missing: then the stream is read from now on. A
        missing right makes the stream unread."""
        try:
            try:
                await work()
            except TrimmedStream:
                await self._lose(name)
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            self._unread[name, of] = untold(error)
            return False
        self._unread.pop((name, of), None)
        return True

    async def _lose(self, name: str) -> None:
        """Said only when the new iterators are there: what is verified from then on misses nothing in between."""
        stream = self._streams.pop(name, None)
        if stream is not None:
            with suppress(TrimmedStream):  # the stream is no more; the next look may find another one
                await self._begin(name, stream.arn)
        self._page.lost.append((name, TOO_OLD))

    # --- the records ------------------------------------------------------------------------------------------------

    async def _read(self, name: str, stream: TableStream, shard: Shard) -> None:
        async def read() -> None:
            self._page.add(self._table(name), await stream.read(shard))

        if self._streams.get(name) is stream:
            await self._tried(name, "records", read)


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Returns when all have ended; the first error is raised then."""
    for each in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(each, BaseException):
            raise each


class _Page:
    """What some shards have shown."""

    def __init__(self) -> None:
        self.writes: list[PastWrite] = []
        self.lost: list[tuple[str, str]] = []

    def add(self, table: CollectionTable, records: StreamRecords) -> None:
        for each in records:
            found = table_record(table, each)
            if found.write is not None:
                self.writes.append(found.write)
            if found.unnamed:
                self.lost.append((table.spec.name, UNNAMED))
