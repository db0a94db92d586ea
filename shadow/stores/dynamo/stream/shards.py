"""One table's stream: its shards, each with the record that was read last.

A stream is divided into shards, which follow each other: a shard ends after some hours or when its partition splits,
and its children go on. A child is read when its parent has been read to the end. Records are kept for 24 hours.

The cursor has the sequence number of the last record of each shard that is not yet behind: a shard whose child is known
has been read to its end. Of a shard that was begun at its end, and showed no record since, it has the time: after a
restart such a shard is read from its beginning, without the records from before that time. Source: the developer guide
of DynamoDB, "Change data capture for DynamoDB Streams".
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pymongo.errors import OperationFailure

from shadow.host.steady import steady
from shadow.stores.dynamo.client.streams import ExpiredIterator, StreamClient, TrimmedStream

__all__ = ["AT_ONCE", "Shard", "StreamRecords", "TableStream", "made_at"]

_LIMIT: Final = 500
"""Records of one request. A response ends at 1 MB; with `_SPACING` this is twice what a partition can be written."""
_SPACING: Final = 0.25
"""Seconds between two requests of a shard while more may be waiting: DynamoDB answers five a second, of all readers
together."""
_IDLE: Final = (0.5, 2.0)
"""Seconds between two requests of a shard that has told all: the first time after a record, and at most. They double
with each answer without a record."""
_SURELY_MORE: Final = 500_000
"""Bytes of records in a response above which more may be waiting."""
AT_ONCE: Final = 8
"""Shards that are read at once."""
_KEPT: Final = 23 * 3600.0
"""Seconds for which a stream surely still has its records: of the 24 hours, one is for clocks that differ."""
_CLOCKS: Final = 120.0
"""Seconds by which the time of a record may differ from this clock: it is approximate, and some servers round it."""
_THROTTLED: Final = 262
_FROM_THE_HORIZON: Final = 3
"""Attempts to read a shard from its oldest record, if its iterator was refused before there was a record."""
_PAUSES: Final = (0.5, 10.0)
"""Seconds before a throttled shard is asked again, the first time and at most."""


@dataclass(slots=True)
class Shard:
    """`after`: the sequence number of the last record that was read; `seen`: when the shard was last read, or found,
    epoch seconds; `since`: records from before are not wanted, epoch seconds; `upto`: the time of the newest record
    that was read, epoch seconds; `behind`: whether more may be waiting; `due`: when it may be asked again, `pause` and
    `idle`: the last wait after it was throttled, and after it had no records."""

    id: str
    parent: str = ""
    after: str = ""
    done: bool = False
    seen: float = field(default_factory=time.time)
    since: float = 0.0
    upto: float = 0.0
    behind: bool = False
    iterator: str | None = None
    attempts: int = 0
    pause: float = 0.0
    idle: float = 0.0
    due: float = 0.0

    def throttled(self) -> None:
        first, most = _PAUSES
        self.pause = min(most, max(first, 2 * self.pause))
        self.due = steady() + self.pause
        self.behind = True
        self.upto = self.upto or time.time()

    def answered(self, *, records: bool, more: bool, asked: float) -> None:
        """`more`: whether more may be waiting; `asked`: when it was asked."""
        first, most = _IDLE
        self.pause, self.behind = 0.0, more
        self.idle = 0.0 if more else first if records else min(most, max(first, 2 * self.idle))
        self.due = asked + max(_SPACING, self.idle)


StreamRecords: TypeAlias = list[Mapping[str, Any]]
"""Records in the order of their shard."""


class TableStream:
    """One request of a shard at a time; different shards may be read concurrently. Every method that asks raises
    `TrimmedStream` if the stream no longer has what follows the cursor, and PyMongo's errors."""

    def __init__(self, client: StreamClient, table: str, arn: str, cursor: Mapping[str, Any] | None = None) -> None:
        """`cursor`: what `cursor` returned; None: nothing, until `begin`. Raises `TypeError`, `ValueError` or
        `KeyError` for something else."""
        self._client = client
        self._table = table
        self.arn: Final = arn
        self._shards: dict[str, Shard] = {}
        for id, parent, after, done, seen, since in [] if cursor is None else cursor["shards"]:
            self._shards[str(id)] = Shard(str(id), str(parent), str(after), bool(done), float(seen), float(since))

    def cursor(self) -> dict[str, Any]:
        """The place in the stream, as JSON can hold it."""
        shards = [[each.id, each.parent, each.after, each.done, each.seen, each.since] for each in self._all()]
        return {"arn": self.arn, "shards": shards}

    def _all(self) -> list[Shard]:
        return list(self._shards.values())

    async def begin(self) -> None:
        """Starts at the end of each shard: whatever is written after this is read."""
        for id, each in (await self._listed()).items():
            ended = "EndingSequenceNumber" in each.get("SequenceNumberRange", {})
            shard = Shard(id, each.get("ParentShardId", ""), done=ended, since=time.time())
            self._shards[id] = shard
            if not ended:
                shard.iterator = await self._iterator(shard, from_end=True)
        self._forget_the_done()

    async def refresh(self) -> None:
        """Looks for shards that have begun or are no more."""
        listed = await self._listed()
        for shard in self._all():
            if shard.id not in listed:
                if not shard.done:
                    raise TrimmedStream("a shard that was not read to its end is no more")
                del self._shards[shard.id]
        read = self._ancestors({id: str(each.get("ParentShardId", "")) for id, each in listed.items()})
        for id, each in listed.items():
            if id not in self._shards and id not in read:
                self._shards[id] = Shard(id, str(each.get("ParentShardId", "")))
        self._forget_the_done()

    def _ancestors(self, parents: Mapping[str, str]) -> set[str]:
        """The shards that come before a known one."""
        found: set[str] = set()
        for shard in self._all():
            parent = shard.parent
            while parent and parent not in found:
                found.add(parent)
                parent = parents.get(parent, "")
        return found

    def _forget_the_done(self) -> None:
        """A shard is known to be done by its child, which keeps the cursor short."""
        parents = {each.parent for each in self._all()}
        for shard in self._all():
            if shard.done and shard.id in parents:
                del self._shards[shard.id]

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

    def ready(self) -> list[Shard]:
        """The shards that can be read now."""
        now = steady()
        return [each for each in self._all() if not each.done and self._may_begin(each) and each.due <= now]

    def due(self) -> float:
        """When the next shard can be read; infinite without any."""
        return min((each.due for each in self._all() if not each.done and self._may_begin(each)), default=math.inf)

    def waiting(self) -> float | None:
        """The time up to which everything was read, where more may be waiting, epoch seconds; else None."""
        return min((each.upto for each in self._all() if each.behind and not each.done), default=None)

    def _may_begin(self, shard: Shard) -> bool:
        parent = self._shards.get(shard.parent)
        return parent is None or parent.done

    async def read(self, shard: Shard) -> StreamRecords:
        """The next records of the shard. A shard that is throttled has none, and is not ready for a while. It is `done`
        where it has ended, so that `refresh` may find its children."""
        if time.time() - shard.seen > _KEPT:
            raise TrimmedStream("a shard was not read for a day")
        asked = steady()
        try:
            if shard.iterator is None:
                shard.iterator = await self._iterator(shard)
            answer = await self._records(shard)
        except ExpiredIterator:
            shard.iterator, shard.due = None, asked + _SPACING
            return []
        except OperationFailure as error:
            if error.code != _THROTTLED:
                raise
            shard.throttled()
            return []
        records = answer.get("Records", [])
        self._advance(shard, records, answer.get("NextShardIterator"), asked)
        return [each for each in records if not 0 < made_at(each) < shard.since - _CLOCKS]

    async def _records(self, shard: Shard) -> Mapping[str, Any]:
        try:
            return await self._client.call("get_records", self._table, ShardIterator=shard.iterator, Limit=_LIMIT)
        except TrimmedStream:
            # DynamoDB Local refuses an iterator of an empty shard once other tables have moved the number on that all
            # its streams share. No record was read, and a day has not passed: the horizon is before all of them.
            shard.attempts += 1
            if shard.after or shard.attempts > _FROM_THE_HORIZON:
                raise
            raise ExpiredIterator from None

    def _advance(self, shard: Shard, records: StreamRecords, following: str | None, asked: float) -> None:
        size = sum(int(each["dynamodb"].get("SizeBytes", 0)) for each in records)
        shard.seen, shard.attempts = time.time(), 0
        shard.answered(records=bool(records), more=len(records) >= _LIMIT or size > _SURELY_MORE, asked=asked)
        if records:
            shard.after = str(records[-1]["dynamodb"]["SequenceNumber"])
            shard.upto = made_at(records[-1]) or shard.seen
        shard.iterator = following
        shard.done = following is None

    async def _iterator(self, shard: Shard, *, from_end: bool = False) -> str:
        if shard.after:
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": shard.after}
        else:
            start = {"ShardIteratorType": "LATEST" if from_end else "TRIM_HORIZON"}
        answer = await self._client.call(
            "get_shard_iterator", self._table, StreamArn=self.arn, ShardId=shard.id, **start
        )
        return str(answer["ShardIterator"])


def made_at(record: Mapping[str, Any]) -> float:
    """When the write was made, epoch seconds; 0 if the record does not say."""
    made = record["dynamodb"].get("ApproximateCreationDateTime")
    return float(made.timestamp() if hasattr(made, "timestamp") else made or 0.0)
