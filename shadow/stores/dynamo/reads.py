"""Reads: items by key, by index, by scan; whole images from them. Base-table reads are strongly consistent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.model.operation import Query
from shadow.model.schema import CollectionSpec
from shadow.model.version import ABSENT, Image
from shadow.stores.dynamo.client import Gateway
from shadow.stores.dynamo.codec import Codec, Item, Parts
from shadow.stores.dynamo.expressions import Expression, hidden
from shadow.stores.dynamo.plan import KeyPlan, KeyRange, QueryPlan, ScanPlan, plan, pushed_text
from shadow.stores.dynamo.scans import ScanCounter

__all__ = ["Reader", "Table"]

BATCH_KEYS: Final = 100
_ATTEMPTS: Final = 8
_BODY_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Table:
    """One collection's table: its name, the codec of its items, and the name that error texts give it."""

    name: str
    namespace: str
    spec: CollectionSpec
    codec: Codec


class Reader:
    def __init__(self, gateway: Gateway, *, verify_index_reads: bool) -> None:
        self._gateway = gateway
        self._verify = verify_index_reads
        self.scans = ScanCounter()

    # ---- items ----

    async def get(self, table: Table, key_text: str) -> Item | None:
        """The item under a key, read consistently."""
        answer = await self._gateway.call(
            "get_item",
            table.name,
            TableName=table.name,
            Key={"_id": {"S": key_text}},
            ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL",
        )
        return answer.get("Item") or None

    async def get_many(self, table: Table, key_texts: Iterable[str]) -> dict[str, Item]:
        """The items under many keys, read consistently, by key text; absent ones are left out."""
        wanted = list(dict.fromkeys(key_texts))
        if len(wanted) == 1:
            item = await self.get(table, wanted[0])
            return {wanted[0]: item} if item is not None else {}
        chunks = [wanted[i : i + BATCH_KEYS] for i in range(0, len(wanted), BATCH_KEYS)]
        found: dict[str, Item] = {}
        for items in await asyncio.gather(*(self._batch(table, chunk) for chunk in chunks)):
            found.update((item["_id"]["S"], item) for item in items)
        return found

    async def _batch(self, table: Table, key_texts: Sequence[str]) -> list[Item]:
        request: dict[str, Any] = {
            table.name: {"Keys": [{"_id": {"S": text}} for text in key_texts], "ConsistentRead": True}
        }
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
            if not got:  # a full answer leaves keys over too (16 MB); only an empty one means throttling
                await asyncio.sleep(random.uniform(0, 0.05 * 2**attempt))
        raise OperationFailure(f"DynamoDB batch_get_item on {table.name}: keys left over", 262, {"code": 262})

    # ---- images ----

    async def image(self, table: Table, item: Item | None) -> Image:
        """The image in an item, with the parts of a large document; what is there now if they have been replaced."""
        for _ in range(_BODY_ATTEMPTS):
            if item is None:
                return Image(ABSENT)
            parts = table.codec.parts(item)
            if parts is None:
                return table.codec.decode(item)
            body = await self._body(table, parts)
            if body is not None:
                return await asyncio.to_thread(table.codec.decode, item, body)
            item = await self.get(table, item["_id"]["S"])
        raise OperationFailure(f"a document in {table.name} has lost parts of its body", 262, {"code": 262})

    async def _body(self, table: Table, parts: Parts) -> bytes | None:
        found = await self.get_many(table, parts.keys)
        pieces = [found.get(key) for key in parts.keys]
        return b"".join(bytes(piece["d"]["B"]) for piece in pieces if piece is not None) if all(pieces) else None

    async def images(self, table: Table, items: Sequence[Item]) -> list[Image]:
        codec = table.codec
        if not any(codec.parts(item) for item in items):
            return [codec.decode(item) for item in items]
        return [await self.image(table, item) for item in items]

    # ---- pages ----

    async def pages(self, table: Table, query: Query) -> AsyncIterator[list[Image]]:
        """Every document that may match the filter, and perhaps others, each once; no tombstones."""
        chosen = plan(query.filter, table.spec)
        match chosen:
            case KeyPlan():
                source = self._key_pages(table, chosen)
            case QueryPlan():
                source = self._query_pages(table, chosen)
            case ScanPlan():
                source = self._scan_pages(table, chosen, query)
        async for items in source:
            kept = [item for item in items if not table.codec.is_auxiliary(item)]
            yield [image for image in await self.images(table, kept) if image.present]

    async def _key_pages(self, table: Table, chosen: KeyPlan) -> AsyncIterator[list[Item]]:
        for start in range(0, len(chosen.texts), BATCH_KEYS):
            texts = chosen.texts[start : start + BATCH_KEYS]
            found = await self.get_many(table, texts)
            yield [found[text] for text in texts if text in found]

    async def _query_pages(self, table: Table, chosen: QueryPlan) -> AsyncIterator[list[Item]]:
        seen: set[str] = set()
        firsts = await asyncio.gather(*(self._query(table, chosen, one, None) for one in chosen.ranges))
        for one, first in zip(chosen.ranges, firsts, strict=True):
            answer = first
            while True:
                items = [item for item in answer.get("Items", []) if item["_id"]["S"] not in seen]
                seen.update(item["_id"]["S"] for item in items)
                yield await self._verified(table, items)
                start = answer.get("LastEvaluatedKey")
                if not start:
                    break
                answer = await self._query(table, chosen, one, start)

    async def _verified(self, table: Table, items: list[Item]) -> list[Item]:
        if not self._verify or not items:
            return items
        found = await self.get_many(table, [item["_id"]["S"] for item in items])
        return list(found.values())

    async def _query(
        self, table: Table, chosen: QueryPlan, one: KeyRange, start: dict[str, Any] | None
    ) -> dict[str, Any]:
        expression = Expression()
        condition = f"{expression.path(chosen.index.hash)} = {expression.value({'S': one.hash})}"
        if chosen.index.range is not None:
            condition += _range_condition(expression, chosen.index.range, one)
        parameters = {"ExclusiveStartKey": start} if start else {}
        return await self._gateway.call(
            "query",
            table.name,
            TableName=table.name,
            IndexName=chosen.index.name,
            KeyConditionExpression=condition,
            ReturnConsumedCapacity="TOTAL",
            **expression.parameters(),
            **parameters,
        )

    async def _scan_pages(self, table: Table, chosen: ScanPlan, query: Query) -> AsyncIterator[list[Item]]:
        counted = self.scans.begin(table.spec.name, query)
        request = _scan_request(table, chosen)
        if not query.filter and query.limit and not query.sort:
            request["Limit"] = query.limit + query.skip
        while True:
            answer = await self._gateway.call("scan", table.name, **request)
            items = answer.get("Items", [])
            self.scans.add(counted, read=int(answer.get("ScannedCount", 0)), returned=len(items))
            yield items
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def part_items(self, table: Table) -> list[Item]:
        """The parts of large documents, all of them, without their data."""
        expression = Expression()
        kind = expression.path(table.spec.reserved, "k")
        request: dict[str, Any] = {
            "TableName": table.name,
            "ConsistentRead": True,
            "FilterExpression": f"{kind} = {expression.value({'S': 'part'})}",
            "ProjectionExpression": f"{expression.path('_id')}, {expression.path(table.spec.reserved)}",
            **expression.parameters(),
        }
        items: list[Item] = []
        while True:
            answer = await self._gateway.call("scan", table.name, **request)
            items += answer.get("Items", [])
            if not answer.get("LastEvaluatedKey"):
                return items
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def item_pages(self, table: Table) -> AsyncIterator[list[Item]]:
        """The items of all documents; heads only, where a document is large."""
        request = _scan_request(table, ScanPlan())
        while True:
            answer = await self._gateway.call("scan", table.name, **request)
            yield answer.get("Items", [])
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def count_all(self, table: Table) -> int:
        """How many documents the table holds, counted by DynamoDB itself."""
        counted = self.scans.begin(table.spec.name, Query())
        request = {**_scan_request(table, ScanPlan()), "Select": "COUNT"}
        total = 0
        while True:
            answer = await self._gateway.call("scan", table.name, **request)
            total += int(answer["Count"])
            self.scans.add(counted, read=int(answer.get("ScannedCount", 0)))
            if not answer.get("LastEvaluatedKey"):
                return total
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _range_condition(expression: Expression, name: str, one: KeyRange) -> str:
    path = expression.path(name) if one.low is not None or one.high is not None else ""
    if one.low is not None and one.low == one.high:
        return f" AND {path} = {expression.value({'S': one.low})}"
    if one.low is not None and one.high is not None:
        return f" AND {path} BETWEEN {expression.value({'S': one.low})} AND {expression.value({'S': one.high})}"
    if one.low is not None:
        return f" AND {path} >= {expression.value({'S': one.low})}"
    return f" AND {path} <= {expression.value({'S': one.high})}" if one.high is not None else ""


def _scan_request(table: Table, chosen: ScanPlan) -> dict[str, Any]:
    expression = Expression()
    reserved = table.spec.reserved
    tests = [hidden(expression, reserved), *(pushed_text(one, expression, reserved) for one in chosen.pushed)]
    return {
        "TableName": table.name,
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        "FilterExpression": " AND ".join(tests),
        **expression.parameters(),
    }
