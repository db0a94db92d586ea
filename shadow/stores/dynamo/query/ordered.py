"""The first documents of a sort, read in the order of an index: only as many as needed (see `ordering`).

If the order is not certain, it gives up, and the caller reads and sorts everything that matches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.version import Document, Image
from shadow.stores.dynamo.client.limits import at_most
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.codec import Item, whole
from shadow.stores.dynamo.query.fetching import Fetch
from shadow.stores.dynamo.query.ordering import KeyTextKind, OrderedPlan, doubt, kind_of
from shadow.stores.dynamo.query.plan import KeyRange
from shadow.stores.dynamo.query.reads import CollectionTable, Reader

__all__ = ["first_in_order"]

_MOST_DOUBTS: Final = 8
_LEAST_PAGE: Final = 100

Answer = dict[str, Any]


@dataclass(slots=True)
class _Reading:
    """One such read: what it has found so far."""

    reader: Reader
    table: CollectionTable
    chosen: OrderedPlan
    wanted: int
    matches: Callable[[Document], bool]
    fetch: Fetch | None
    texts: list[str] = field(default_factory=list)
    """Of each index entry that was read."""
    found: list[tuple[str, Image]] = field(default_factory=list)
    """Those that match, with their texts."""

    async def ask(self, one: KeyRange, **more: Any) -> Answer:
        return await self.reader.query(self.table, self.chosen.index, one, fetch=self.fetch, **more)

    async def ask_in_order(self, limit: int, **more: Any) -> Answer:
        return await self.ask(self.chosen.main, ScanIndexForward=self.chosen.forward, **at_most(limit), **more)

    async def other_end(self) -> str | None:
        """The text at the other end of the main range; None if it does not matter."""
        if self.chosen.typed:
            return None
        answer = await self.ask(self.chosen.main, ScanIndexForward=not self.chosen.forward, Limit=1)
        return self.text(answer["Items"][0]) if answer["Items"] else None

    def text(self, item: Item) -> str:
        assert self.chosen.index.range is not None
        return str(item[self.chosen.index.range]["S"])

    async def matching(self, items: list[Item]) -> list[tuple[str, Image]]:
        texts = {item["_id"]["S"]: self.text(item) for item in items}
        read = await self.reader.verified(self.table, items, self.fetch)
        images = await self.reader.present(self.table, read, self.fetch)
        kept = (image for image in images if self.matches(whole(image)))
        # An unreadable one may have no key; the caller then determines the order another way.
        return [(texts.get(keys.key_text(whole(image)["_id"]), ""), image) for image in kept]

    async def side_is_empty(self, answer: Answer) -> bool:
        return not answer.get("LastEvaluatedKey") and not await self.matching(answer["Items"])

    async def take(self, answer: Answer) -> None:
        self.texts += [self.text(item) for item in answer["Items"]]
        self.found += await self.matching(answer["Items"])

    def has_enough(self) -> bool:
        """Whether everything that can be among the first has been read."""
        if len(self.found) < self.wanted:
            return False
        return not self.chosen.ties or self.texts[-1] != self.found[self.wanted - 1][0]

    async def is_in_order(self, end: str | None) -> bool:
        """Whether the results so far, though not everything has been read, are in the order of the sort and before all
        the rest."""
        if self.chosen.typed:
            kinds = {kind_of(text) for text, _ in self.found}
            return len(kinds) == 1 and KeyTextKind.OTHER not in kinds
        kinds = {kind_of(text) for text in (*self.texts, *([end] if end is not None else []))}
        if kinds == {KeyTextKind.DATE}:
            return True
        return kinds == {KeyTextKind.STRING} and end is not None and await self._are_strings(self.texts[-1], end)

    async def _are_strings(self, last: str, end: str) -> bool:
        """Whether all texts between these two are strings that represent themselves."""
        at, until = min(last, end), max(last, end)
        for _ in range(_MOST_DOUBTS):
            dubious = doubt(at)
            if dubious is None or dubious > until:
                return True
            answer = await self.ask(KeyRange(self.chosen.main.hash, dubious), Limit=1)
            if not answer["Items"]:
                return True
            at = self.text(answer["Items"][0])
            if kind_of(at) is not KeyTextKind.STRING:
                return False
        return False


async def first_in_order(
    reader: Reader,
    table: CollectionTable,
    chosen: OrderedPlan,
    wanted: int,
    matches: Callable[[Document], bool],
    fetch: Fetch | None,
) -> list[Image] | None:
    """Images that include the first `wanted` matches, in no particular order; None if the index is not sufficient."""
    reading = _Reading(reader, table, chosen, wanted, matches, reader.usable(table, fetch))
    limit = wanted + 1 if chosen.ties else wanted
    answer, end, sides = await asyncio.gather(
        reading.ask_in_order(limit),
        reading.other_end(),
        asyncio.gather(*(reading.ask(side) for side in chosen.sides)),
    )
    if not all([await reading.side_is_empty(side) for side in sides]):
        return None
    while True:
        await reading.take(answer)
        if not answer.get("LastEvaluatedKey"):
            return [image for _, image in reading.found]
        if reading.has_enough():
            return [image for _, image in reading.found] if await reading.is_in_order(end) else None
        limit = max(2 * limit, _LEAST_PAGE)
        answer = await reading.ask_in_order(limit, ExclusiveStartKey=answer["LastEvaluatedKey"])
