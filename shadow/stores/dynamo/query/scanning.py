"""Scans: the responses of one table, from several segments in parallel if it is large.

A table whose first response is not complete counts as large, and is remembered as such; then its segments are read
in parallel. Each segment has at most one response waiting and one in flight, so memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from shadow.host.tasks import begin
from shadow.stores.dynamo.client.gateway import Gateway

__all__ = ["Scanner", "at_once"]

Answer: TypeAlias = dict[str, Any]
Answers: TypeAlias = AsyncGenerator[Answer, None]


class Scanner:
    """`segments` is the maximum number that are read in parallel; 1: no parallel reads."""

    def __init__(self, gateway: Gateway, segments: int) -> None:
        self._gateway = gateway
        self._segments = segments
        self._large: set[str] = set()

    async def answers(self, table: str, request: dict[str, Any], *, patient: bool = False) -> Answers:
        """The responses to a scan, each item once, in any order. `patient`: the caller may stop after the first
        response, so nothing else is read before it is used."""
        if self._segments == 1 or "Limit" in request:
            source = self.one_by_one(table, request)
        elif table in self._large and not patient:
            source = self._all(table, request)
        else:
            source = self._growing(table, request)
        async with aclosing(source) as answers:
            async for answer in answers:
                yield answer

    async def one_by_one(self, table: str, request: dict[str, Any]) -> Answers:
        """The responses of one segment, or of the whole table, each read after the previous one was used."""
        start: dict[str, Any] = {}
        while True:
            answer = await self._gateway.call("scan", table, **request, **start)
            yield answer
            if not answer.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def _growing(self, table: str, request: dict[str, Any]) -> Answers:
        """One response, and if there is more, all segments from their starts: where the first response ended within
        them is unknown."""
        first = await self._gateway.call("scan", table, **request)
        if not first.get("LastEvaluatedKey"):
            self._large.discard(table)
            yield first
            return
        self._large.add(table)
        counting = request.get("Select") == "COUNT"
        if not counting:
            yield first
        seen = {item["_id"]["S"] for item in first.get("Items", [])}
        async with aclosing(self._all(table, request)) as answers:
            async for answer in answers:
                left = [item for item in answer.get("Items", []) if item["_id"]["S"] not in seen]
                yield answer if counting else {**answer, "Items": left}

    async def _all(self, table: str, request: dict[str, Any]) -> Answers:
        total = self._segments
        sources = [self.one_by_one(table, {**request, "Segment": i, "TotalSegments": total}) for i in range(total)]
        answered = 0
        async with aclosing(at_once(sources)) as answers:
            async for answer in answers:
                answered += 1
                yield answer
        if answered <= total:
            self._large.discard(table)


async def at_once(sources: Sequence[Answers]) -> Answers:
    """Yields the items of all sources as they arrive. Closing it, or an error in one source, ends all of them."""
    pending = {begin(_next(source)): source for source in sources}
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = pending.pop(task)
                answer = task.result()
                if answer is None:
                    continue
                pending[begin(_next(source))] = source
                yield answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _next(source: Answers) -> Answer | None:
    return await anext(source, None)
