"""One table's stream: its shards, each with the record that was read last.

A stream is cut into shards, which follow each other: a shard ends after some hours or when its partition splits, and
its children go on. A child is read when its parent has been read to the end. Records are kept for 24 hours.

The cursor has the sequence number of the last record of each shard. A shard of which nothing was read yet is read from
its beginning after a restart, although it was begun at its end: that is at most some hours of records that are read
twice. Source: the developer guide of DynamoDB, "Change data capture for DynamoDB Streams".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from shadow.stores.dynamo.client.streams import ExpiredIterator, StreamClient, TrimmedStream

__all__ = ["AT_ONCE", "StreamRecords", "TableStream"]

_LIMIT: Final = 200
"""Records of one request: each of them may have two images of 400 KB, and a response has up to 1 MB."""
_SURELY_MORE: Final = 500_000
"""Bytes of records in a response above which more may be waiting."""
AT_ONCE: Final = 8
"""Shards that are read at once."""


@dataclass(slots=True)
class _Shard:
    parent: str = ""
    after: str = ""
    done: bool = False
    iterator: str | None = None
    at_end: bool = False
    """Whether it is begun at its end: only what is written from now on is wanted."""


StreamRecords: TypeAlias = tuple[list[Mapping[str, Any]], bool]
"""Records in the order of their shard, and whether there may be more."""


class TableStream:
    """Not for concurrent use. Every method raises `TrimmedStream` if the stream no longer has what follows the cursor,
    and PyMongo's errors."""

    def __init__(self, client: StreamClient, table: str, arn: str, cursor: Mapping[str, Any] | None = None) -> None:
        """`cursor`: what `cursor` returned; None: what is written from now on."""
        self._client = client
        self._table = table
        self.arn: Final = arn
        self._from_now = cursor is None
        self._shards: dict[str, _Shard] = {}
        for id, parent, after, done in [] if cursor is None else cursor["shards"]:
            self._shards[str(id)] = _Shard(str(parent), str(after), bool(done))

    def cursor(self) -> dict[str, Any]:
        """The place in the stream, as JSON can hold it."""
        shards = [[id, each.parent, each.after, each.done] for id, each in self._shards.items()]
        return {"arn": self.arn, "shards": shards}

    async def refresh(self) -> None:
        """Looks for shards that have begun or are no more."""
        listed = await self._listed()
        for id, shard in list(self._shards.items()):
            if id not in listed:
                if not shard.done:
                    raise TrimmedStream("a shard that was not read to its end is no more")
                del self._shards[id]
        for id, each in listed.items():
            if id not in self._shards:
                ended = "EndingSequenceNumber" in each.get("SequenceNumberRange", {})
                old = self._from_now and ended
                self._shards[id] = _Shard(each.get("ParentShardId", ""), done=old, at_end=self._from_now)
        self._from_now = False

    async def _listed(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        more: dict[str, str] = {}
        while True:
            answer = await self._client.call("describe_stream", self._table, StreamArn=self.arn, **more)
            described = answer["StreamDescription"]
            found.update((each["ShardId"], each) for each in described.get("Shards", ()))
            last = described.get("LastEvaluatedShardId")
            if not last:
                return found
            more = {"ExclusiveStartShardId": last}

    async def read(self, take: Callable[[StreamRecords], None], gate: asyncio.Semaphore) -> bool:
        """Gives `take` the next records of each shard that can be read; whether a shard has ended, so that `refresh`
        may find its children."""

        async def one(id: str, shard: _Shard) -> bool:
            async with gate:
                return await self._read(id, shard, take)

        ready = [(id, each) for id, each in self._shards.items() if not each.done and self._may_begin(each)]
        return any(await _all(one(id, shard) for id, shard in ready))

    def _may_begin(self, shard: _Shard) -> bool:
        parent = self._shards.get(shard.parent)
        return parent is None or parent.done

    async def _read(self, id: str, shard: _Shard, take: Callable[[StreamRecords], None]) -> bool:
        if shard.iterator is None:
            shard.iterator = await self._iterator(id, shard)
            shard.at_end = False
        try:
            answer = await self._client.call("get_records", self._table, ShardIterator=shard.iterator, Limit=_LIMIT)
        except ExpiredIterator:
            shard.iterator = None
            return False
        records = answer.get("Records", [])
        size = sum(int(each["dynamodb"].get("SizeBytes", 0)) for each in records)
        take((records, len(records) >= _LIMIT or size > _SURELY_MORE))
        if records:
            shard.after = str(records[-1]["dynamodb"]["SequenceNumber"])
        shard.iterator = answer.get("NextShardIterator")
        shard.done = shard.iterator is None
        return shard.done

    async def _iterator(self, id: str, shard: _Shard) -> str:
        if shard.after:
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": shard.after}
        else:
            start = {"ShardIteratorType": "LATEST" if shard.at_end else "TRIM_HORIZON"}
        answer = await self._client.call("get_shard_iterator", self._table, StreamArn=self.arn, ShardId=id, **start)
        return str(answer["ShardIterator"])


async def _all(work: Any) -> list[bool]:
    """The results, once all have ended; the first error is raised then."""
    tasks: list[Awaitable[bool]] = list(work)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException):
            raise each
    return [bool(each) for each in results]
