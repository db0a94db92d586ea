"""Reads: items by key, by index, by scan; whole images from them. Base-table reads are strongly consistent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.model.operation import Query
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.model.version import ABSENT, Image
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.client.limits import MOST_KEYS, Budget, at_most
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.context import DEFAULTS, OnScan
from shadow.stores.dynamo.items.codec import BodyParts, Codec, Item
from shadow.stores.dynamo.items.expressions import Expression, hidden
from shadow.stores.dynamo.items.values import octets
from shadow.stores.dynamo.query.fetching import Fetch
from shadow.stores.dynamo.query.plan import KeyPlan, KeyRange, Plan, QueryPlan, ScanPlan, UnionPlan, plan
from shadow.stores.dynamo.query.pushdown import pushed_texts
from shadow.stores.dynamo.query.scanning import Scanner
from shadow.stores.dynamo.query.scans import ScanCounter

__all__ = ["CollectionTable", "Reader", "scan_request"]

_ATTEMPTS: Final = 8
_IN_ONE_GO: Final = 8
"""Items decoded without yielding to the event loop."""
_BODY_ATTEMPTS: Final = 5
_GROWTH: Final = 4
_AND: Final = " AND "


@dataclass(frozen=True, slots=True)
class CollectionTable:
    """One collection's table: its name, the codec of its items, and its name in error texts."""

    name: str
    namespace: str
    spec: CollectionSpec
    codec: Codec


class Reader:
    """With a `Fetch`, items may have only its attributes; an item for which these are not enough is read again,
    completely."""

    def __init__(self, gateway: Gateway, settings: DynamoSettings, on_scan: OnScan = DEFAULTS.on_scan) -> None:
        self._gateway = gateway
        self._verify = settings.verify_index_reads
        self._scanner = Scanner(gateway, settings.scan_segments)
        self._whole: set[str] = set()
        self.scans = ScanCounter(on_scan)

    # ---- items ----

    async def get(self, table: CollectionTable, key_text: str, fetch: Fetch | None = None) -> Item | None:
        """The item under a key, read consistently."""
        answer = await self._gateway.call(
            "get_item",
            table.name,
            TableName=table.name,
            Key={"_id": {"S": key_text}},
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
            **_projection(table, fetch),
        )
        return answer.get("Item") or None

    async def get_many(
        self, table: CollectionTable, key_texts: Iterable[str], fetch: Fetch | None = None
    ) -> dict[str, Item]:
        """The items under many keys, read consistently, by key text; absent ones are omitted."""
        wanted = list(dict.fromkeys(key_texts))
        if len(wanted) == 1:
            item = await self.get(table, wanted[0], fetch)
            return {wanted[0]: item} if item is not None else {}
        chunks = [wanted[i : i + MOST_KEYS] for i in range(0, len(wanted), MOST_KEYS)]
        found: dict[str, Item] = {}
        for items in await asyncio.gather(*(self._batch(table, chunk, fetch) for chunk in chunks)):
            found.update((item["_id"]["S"], item) for item in items)
        return found

    async def _batch(self, table: CollectionTable, key_texts: Sequence[str], fetch: Fetch | None) -> list[Item]:
        wanted = {"Keys": [{"_id": {"S": text}} for text in key_texts], "ConsistentRead": True}
        request: dict[str, Any] = {table.name: {**wanted, **_projection(table, fetch)}}
        items: list[Item] = []
        for attempt in range(_ATTEMPTS):
            answer = await self._gateway.call(
                "batch_get_item", table.name, RequestItems=request, ReturnConsumedCapacity="TOTAL"
            )
            got = answer.get("Responses", {}).get(table.name, [])
            items += got
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                return items
            if not got:  # a full response leaves keys unread too (16 MB); only an empty one means throttling
                await asyncio.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise OperationFailure(f"DynamoDB batch_get_item on {table.name}: keys left over", 262, {"code": 262})

    # ---- images ----

    async def image(self, table: CollectionTable, item: Item | None) -> Image:
        """The image in an item, with the parts of a large document; the current one if the parts have been replaced."""
        seen: str | None = None
        for _ in range(_BODY_ATTEMPTS):
            if item is None:
                return Image(ABSENT)
            parts = table.codec.parts(item)
            if parts is None:
                return table.codec.decode(item)
            if parts.generation == seen:
                # Parts are written before their head and deleted after it is replaced, so these are lost.
                return table.codec.damaged(item, "parts of the body are missing")
            body = await self._body(table, parts)
            if body is not None:
                return await asyncio.to_thread(table.codec.decode, item, body)
            seen = parts.generation
            item = await self.get(table, item["_id"]["S"])
        raise OperationFailure(f"a document in {table.name} is replaced faster than it can be read", 262, {"code": 262})

    async def _body(self, table: CollectionTable, parts: BodyParts) -> bytes | None:
        found = await self.get_many(table, parts.keys)
        pieces = [found.get(key, {}).get("d", {}).get("B") for key in parts.keys]
        whole = [octets(piece) for piece in pieces if piece is not None]
        return b"".join(whole) if len(whole) == len(pieces) else None

    async def images(self, table: CollectionTable, items: Sequence[Item]) -> list[Image]:
        codec, images = table.codec, list[Image]()
        for place, item in enumerate(items):
            # Yields to the event loop in between: a response may have a hundred documents.
            if place and place % _IN_ONE_GO == 0:
                await asyncio.sleep(0)
            images.append(codec.decode(item) if codec.parts(item) is None else await self.image(table, item))
        return images

    # ---- pages ----

    async def pages(
        self, table: CollectionTable, query: Query, fetch: Fetch | None = None
    ) -> AsyncGenerator[list[Image], None]:
        """Every document that may match the filter, and perhaps others, each once; no tombstones. With a `fetch`, the
        documents may have only its fields."""
        fetch = self.usable(table, fetch)
        async with aclosing(self._source(table, plan(query.filter, table.spec), query, fetch)) as source:
            async for items in source:
                yield await self.present(table, items, fetch)

    def usable(self, table: CollectionTable, fetch: Fetch | None) -> Fetch | None:
        """`fetch`, unless it was not enough for documents of this table earlier."""
        return None if fetch is not None and not fetch.is_certain and table.name in self._whole else fetch

    async def present(self, table: CollectionTable, items: Sequence[Item], fetch: Fetch | None = None) -> list[Image]:
        """The images of those items that are documents."""
        return [image for _, image in await self.documents(table, items, fetch)]

    async def documents(
        self, table: CollectionTable, items: Sequence[Item], fetch: Fetch | None = None
    ) -> list[tuple[Item, Image]]:
        """`present`, each with its item."""
        whole = await self._completed(table, items, fetch)
        kept = [item for item in whole if not table.codec.is_auxiliary(item)]
        images = await self.images(table, kept)
        return [(item, image) for item, image in zip(kept, images, strict=True) if image.present]

    async def _completed(self, table: CollectionTable, items: Sequence[Item], fetch: Fetch | None) -> Sequence[Item]:
        """The items; those whose fetched attributes do not give the order of their fields are read again."""
        if fetch is None:
            return items
        short = [item["_id"]["S"] for item in items if not fetch.is_enough(item, table.spec.reserved)]
        if not short:
            return items
        if not fetch.is_certain:
            self._whole.add(table.name)
        found = await self.get_many(table, short)
        again = set(short)
        whole = ((found.get(text) if (text := item["_id"]["S"]) in again else item) for item in items)
        return [item for item in whole if item is not None]

    def _source(
        self, table: CollectionTable, chosen: Plan, query: Query, fetch: Fetch | None
    ) -> AsyncGenerator[list[Item], None]:
        match chosen:
            case KeyPlan():
                return self._key_pages(table, chosen, fetch)
            case QueryPlan():
                return self._query_pages(table, chosen, query, fetch)
            case UnionPlan():
                return self._union_pages(table, chosen, query, fetch)
            case ScanPlan():
                return self._scan_pages(table, chosen, query, fetch)

    async def _key_pages(
        self, table: CollectionTable, chosen: KeyPlan, fetch: Fetch | None
    ) -> AsyncGenerator[list[Item], None]:
        for start in range(0, len(chosen.texts), MOST_KEYS):
            texts = chosen.texts[start : start + MOST_KEYS]
            found = await self.get_many(table, texts, fetch)
            yield [found[text] for text in texts if text in found]

    async def _union_pages(
        self, table: CollectionTable, chosen: UnionPlan, query: Query, fetch: Fetch | None
    ) -> AsyncGenerator[list[Item], None]:
        seen: set[str] = set()
        for part in chosen.parts:
            async with aclosing(self._source(table, part, query, fetch)) as source:
                async for items in source:
                    new = [item for item in items if item["_id"]["S"] not in seen]
                    seen.update(item["_id"]["S"] for item in new)
                    yield new

    async def _query_pages(
        self, table: CollectionTable, chosen: QueryPlan, query: Query, fetch: Fetch | None
    ) -> AsyncGenerator[list[Item], None]:
        """If only the first documents are wanted, reads no more than these; and increasingly more of them if conditions
        that the index cannot decide remove some."""
        most = query.skip + query.limit if query.limit and not query.sort else 0
        seen: set[str] = set()
        asked = (self.query(table, chosen.index, one, fetch=fetch, **at_most(most)) for one in chosen.ranges)
        firsts = await asyncio.gather(*asked)
        for one, first in zip(chosen.ranges, firsts, strict=True):
            answer, size = first, most
            while True:
                items = [item for item in answer.get("Items", []) if item["_id"]["S"] not in seen]
                seen.update(item["_id"]["S"] for item in items)
                yield await self.verified(table, items, fetch)
                start = answer.get("LastEvaluatedKey")
                if not start:
                    break
                size *= _GROWTH
                answer = await self.query(
                    table, chosen.index, one, fetch=fetch, ExclusiveStartKey=start, **at_most(size)
                )

    async def verified(self, table: CollectionTable, items: list[Item], fetch: Fetch | None = None) -> list[Item]:
        """The items of the table for those that an index has returned, if the settings ask for that; else `items`."""
        if not self._verify or not items:
            return items
        found = await self.get_many(table, [item["_id"]["S"] for item in items], fetch)
        return [found[text] for item in items if (text := item["_id"]["S"]) in found]

    async def query(
        self, table: CollectionTable, index: IndexSpec, one: KeyRange, *, fetch: Fetch | None = None, **more: Any
    ) -> dict[str, Any]:
        """One response of an index. `more` are parameters of Query."""
        expression = Expression()
        condition = f"{expression.path(index.hash)} = {expression.value({'S': one.hash})}"
        if index.range is not None:
            condition += _range_condition(expression, index.range, one)
        projection = {} if fetch is None else {"ProjectionExpression": fetch.text(expression, table.spec.reserved)}
        return await self._gateway.call(
            "query",
            table.name,
            TableName=table.name,
            IndexName=index.name,
            ReturnConsumedCapacity="TOTAL",
            **expression.parameters(KeyConditionExpression=condition, **projection),
            **more,
        )

    async def _scan_pages(
        self, table: CollectionTable, chosen: ScanPlan, query: Query, fetch: Fetch | None
    ) -> AsyncGenerator[list[Item], None]:
        counted = self.scans.begin(table.spec.name, query)
        request = scan_request(table, chosen, fetch)
        limited = query.limit and not query.sort
        if limited and not query.filter:
            request.update(at_most(query.limit + query.skip))
        async with aclosing(self._scanner.answers(table.name, request, patient=bool(limited))) as answers:
            async for answer in answers:
                items = answer.get("Items", [])
                self.scans.add(counted, read=int(answer.get("ScannedCount", 0)), returned=len(items))
                yield items

    async def part_pages(self, table: CollectionTable) -> AsyncIterator[list[Item]]:
        """The parts of large documents without their data, one response at a time. Eventually consistent, at half the
        price: the caller considers old parts only."""
        expression = Expression()
        kind = expression.path(table.spec.reserved, "k")
        request: dict[str, Any] = {
            "TableName": table.name,
            "ReturnConsumedCapacity": "TOTAL",
            **expression.parameters(
                FilterExpression=f"{kind} = {expression.value({'S': 'part'})}",
                ProjectionExpression=f"{expression.path('_id')}, {expression.path(table.spec.reserved)}",
            ),
        }
        async with aclosing(self._scanner.one_by_one(table.name, request)) as answers:
            async for answer in answers:
                yield answer.get("Items", [])

    async def item_pages(self, table: CollectionTable) -> AsyncIterator[list[Item]]:
        """The items of all documents; heads only, where a document is large."""
        async with aclosing(self._scanner.answers(table.name, scan_request(table, ScanPlan()))) as answers:
            async for answer in answers:
                yield answer.get("Items", [])

    async def count_all(self, table: CollectionTable) -> int:
        """How many documents the table holds, counted by DynamoDB itself."""
        counted = self.scans.begin(table.spec.name, Query())
        request = {**scan_request(table, ScanPlan()), "Select": "COUNT"}
        total = 0
        async for answer in self._scanner.answers(table.name, request):
            total += int(answer["Count"])
            self.scans.add(counted, read=int(answer.get("ScannedCount", 0)))
        return total


def _range_condition(expression: Expression, name: str, one: KeyRange) -> str:
    path = expression.path(name) if one.low is not None or one.high is not None else ""
    if one.low is not None and one.low == one.high:
        return f" AND {path} = {expression.value({'S': one.low})}"
    if one.low is not None and one.high is not None:
        return f" AND {path} BETWEEN {expression.value({'S': one.low})} AND {expression.value({'S': one.high})}"
    if one.low is not None:
        return f" AND {path} >= {expression.value({'S': one.low})}"
    return f" AND {path} <= {expression.value({'S': one.high})}" if one.high is not None else ""


def _projection(table: CollectionTable, fetch: Fetch | None) -> dict[str, Any]:
    if fetch is None:
        return {}
    expression = Expression()
    return expression.parameters(ProjectionExpression=fetch.text(expression, table.spec.reserved))


def scan_request(table: CollectionTable, chosen: ScanPlan, fetch: Fetch | None = None) -> dict[str, Any]:
    """The parameters of a consistent scan without tombstones and auxiliary items. Conditions that do not fit into
    one expression are left to the caller, which checks each document anyway."""
    expression, budget = Expression(), Budget()
    reserved = table.spec.reserved
    projection = {} if fetch is None else {"ProjectionExpression": fetch.text(expression, reserved)}
    shown = hidden(expression, reserved)
    budget.take(shown)
    tests = [shown, *pushed_texts(chosen.pushed, expression, reserved, budget, joint=_AND)]
    return {
        "TableName": table.name,
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        **expression.parameters(FilterExpression=_AND.join(tests), **projection),
    }
