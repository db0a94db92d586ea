"""Out-of-band writes on DynamoDB, as the streams of its tables report them, with the place in all of them.

A table is followed if it has a stream of both images, also while DynamoDB is the secondary: so that nothing is missing
when it becomes the primary. A stream that ends, or that another one has replaced, is reported as lost.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from shadow.host.steady import steady
from shadow.stores.dynamo.client.streams import StreamClient, TrimmedStream
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.stream.records import UNNAMED, table_record
from shadow.stores.dynamo.stream.shards import AT_ONCE, StreamRecords, TableStream
from shadow.stores.dynamo.tables.spec import stream_of
from shadow.stores.past import BEGUN, TOO_OLD, HistoryLost, PastPage, PastWrite

__all__ = ["StreamReader"]

_KEPT: Final = 23 * 3600.0
"""Seconds for which a stream surely still has its records: of the 24 hours, one is for clocks that differ."""
_EVERY: Final = 10.0
"""Seconds between two looks at the tables and their shards."""
_PAUSE: Final = 0.5
"""Seconds before the next requests, where nothing is waiting."""
_ENDED: Final = "the stream of its table was switched off"

Describe = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""DynamoDB's description of a table by its name; None if there is none."""


class StreamReader:
    """One reading of the streams of `tables`, for `pages`."""

    def __init__(self, client: StreamClient, describe: Describe, tables: Iterable[CollectionTable]) -> None:
        self._client = client
        self._describe = describe
        self._tables = {each.spec.name: each for each in tables}
        self._streams: dict[str, TableStream] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._page = _Page()
        self._known = True

    async def pages(self, cursor: Mapping[str, Any] | None) -> AsyncIterator[PastPage]:
        """See `Streaming.past_writes`. Raises what `TableStream` does, but `TrimmedStream`."""
        self._known = cursor is not None
        if cursor is not None:
            self._resume(cursor)
        due = 0.0
        while True:
            if steady() >= due:
                await self._refresh()
                due = steady() + _EVERY
            ended = await self._round()
            self._known = True
            page, self._page = self._page, _Page()
            yield page.made({"seen": time.time(), "streams": self._cursors()})
            if ended:
                due = 0.0  # its children
            elif not page.more:
                await asyncio.sleep(_PAUSE)

    def _cursors(self) -> list[dict[str, Any]]:
        # No mapping: the name of a collection may have dots.
        return [{"name": name, **stream.cursor()} for name, stream in self._streams.items()]

    def _resume(self, cursor: Mapping[str, Any]) -> None:
        try:
            if time.time() - float(cursor["seen"]) > _KEPT:
                raise HistoryLost("no process has read the streams for a day")
            for each in cursor["streams"]:
                if each["name"] in self._tables:
                    table = self._tables[each["name"]]
                    self._streams[each["name"]] = TableStream(self._client, table.name, str(each["arn"]), each)
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryLost("no cursor") from error

    async def _refresh(self) -> None:
        """Looks at each table, and at the shards of its stream."""
        for name, table in self._tables.items():
            described = await self._describe(table.name)
            found, there = None if described is None else stream_of(described), self._streams.get(name)
            if there is not None and there.arn != found:
                # The last records of the stream that has ended are not waited for: the collection is unverified.
                del self._streams[name]
                self._page.lost.append((name, _ENDED))
            if found is not None and name not in self._streams:
                if self._known and there is None:
                    self._page.lost.append((name, BEGUN))
                self._streams[name] = TableStream(self._client, table.name, found)
            if name in self._streams:
                await self._kept(name, self._streams[name].refresh)

    async def _kept(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does `work`, which may find that records are missing: then the stream is read from now on."""
        try:
            return await work()
        except TrimmedStream:
            self._page.lost.append((name, TOO_OLD))
            self._streams[name] = TableStream(self._client, self._tables[name].name, self._streams[name].arn)
            return True

    async def _round(self) -> bool:
        """Reads on in each stream; whether shards have ended."""
        ended = False
        for name, stream in list(self._streams.items()):
            read = functools.partial(stream.read, functools.partial(self._page.add, self._tables[name]), self._gate)
            ended = await self._kept(name, read) or ended
        return ended


class _Page:
    """What a round has found."""

    def __init__(self) -> None:
        self.writes: list[PastWrite] = []
        self.lost: list[tuple[str, str]] = []
        self.at = 0.0
        self.more = False

    def add(self, table: CollectionTable, said: StreamRecords) -> None:
        records, more = said
        self.more = self.more or more
        for each in records:
            found = table_record(table, each)
            self.at = max(self.at, found.at)
            if found.write is not None:
                self.writes.append(found.write)
            if found.unnamed:
                self.lost.append((table.spec.name, UNNAMED))

    def made(self, cursor: Mapping[str, Any]) -> PastPage:
        return PastPage(tuple(self.writes), cursor, tuple(self.lost), self.at, quiet=not self.more)
