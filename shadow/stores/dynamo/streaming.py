"""How a DynamoDB store tells its changes, out-of-band writes among them, by the contract of `stores.past`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from shadow.errors import UnsupportedOperation
from shadow.stores.dynamo.access import DynamoAccess
from shadow.stores.dynamo.client.streams import TrimmedStream
from shadow.stores.dynamo.stream.changes import StreamReader
from shadow.stores.dynamo.tables.options import describe_table
from shadow.stores.dynamo.tables.spec import stream_of, without_stream
from shadow.stores.past import PastPage

__all__ = ["DynamoStreaming"]


class DynamoStreaming(DynamoAccess):
    async def check_stream(self, collections: Iterable[str]) -> None:
        """See `Streaming`: each of their tables has a stream, and the credentials may read it."""
        for name in collections:
            table = self._table(name).name
            described = await self._describe(table)
            arn, missing = None if described is None else stream_of(described), without_stream(table, described)
            try:
                if arn is not None:
                    await self._streams.call("describe_stream", table, StreamArn=arn, Limit=1)
            except TrimmedStream:
                missing = f"the stream of the table {table} is being replaced"
            if missing:
                raise UnsupportedOperation(
                    "observe.follow_writers",
                    missing.partition(": ")[0],
                    hint=f"{missing.partition(': ')[2] or 'try again'}; or set observe.follow_writers: false and move "
                    "every writer to shadow",
                )

    def past_writes(self, cursor: Mapping[str, Any] | None) -> AsyncIterator[PastPage]:
        """See `Streaming`. Reads the streams of the collections that the store was made with."""
        return StreamReader(self._streams, self._describe, self._names, self._table).pages(cursor)

    async def _describe(self, table: str) -> Mapping[str, Any] | None:
        return await describe_table(self._gateway, table)
