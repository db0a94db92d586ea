"""Reads of DynamoDB, by the contract of `stores.base`: with the full meaning of a filter, sorted, in pages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from shadow.errors import UnreadableDocument
from shadow.model.operation import (
    Hit,
    Query,
    Sort,
)
from shadow.model.order import sort_documents
from shadow.model.stored import Damaged, check_readable, is_readable
from shadow.model.version import ABSENT, Document, Image, Key, Version
from shadow.mongoql import Filter, cached_filter, cached_pipeline, cached_projection
from shadow.mongoql.match.values_at import distinct_values
from shadow.stores.dynamo.access import DynamoAccess
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.codec import whole
from shadow.stores.dynamo.query.fetching import Fetch, fetch_of, looked_at
from shadow.stores.dynamo.query.joins import partners
from shadow.stores.dynamo.query.ordered import first_in_order
from shadow.stores.dynamo.query.ordering import ordered_plan
from shadow.stores.dynamo.query.plan import ScanPlan, goes_by_index, plan
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.write.changes import depends, matcher

__all__ = ["DynamoReads"]

_SORTED_AT_ONCE: Final = 5_000


class DynamoReads(DynamoAccess):
    def scans(self) -> list[dict[str, Any]]:
        """The query shapes that needed a scan (see `ScanCounter.report`)."""
        return self._reader.scans.report()

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        first = Query(query.filter, query.projection, query.sort, query.skip, 1, mongo_only=query.mongo_only)
        async with aclosing(self._found_pages(collection, first)) as pages:
            async for page in pages:
                if page:
                    return page[0]
        return None

    def find(self, collection: str, query: Query) -> AsyncIterator[list[Hit]]:
        return self._found_pages(collection, query)

    async def _found_pages(
        self, collection: str, query: Query, fetch: Fetch | None = None
    ) -> AsyncGenerator[list[Hit], None]:
        """`fetch`: documents may have its fields only; allowed only for a query with nothing but a filter."""
        if query.mongo_only is not None:
            raise query.mongo_only.refusal.fresh()
        table = self._table(collection)
        filter = cached_filter(query.filter)  # what the server refuses is refused before anything is planned
        project = _projecting(query.projection, filter)
        fetch = fetch or fetch_of(query)
        if query.sort:
            ordered = await self._sorted(table, query, fetch)
            yield [_projected(hit, project) for hit in _window(ordered, query.skip, query.limit)]
            return
        first, last = query.skip, query.skip + query.limit if query.limit else sys.maxsize
        seen = 0
        async with aclosing(self._matching(table, query, fetch)) as pages:
            async for page in pages:
                kept = page[max(0, first - seen) : last - seen]
                seen += len(page)
                if kept:
                    yield [_projected(hit, project) for hit in kept]
                if seen >= last:
                    return

    async def _sorted(self, table: CollectionTable, query: Query, fetch: Fetch | None) -> list[Hit]:
        """The hits in order. With a limit, only those are kept that can still be among the first."""
        first = await self._first_of_index(table, query, fetch)
        if first is not None:
            return first
        wanted = query.skip + query.limit if query.limit else sys.maxsize
        hits: list[Hit] = []
        async for page in self._matching(table, query, fetch):
            _check_order(page, query.sort)
            hits += page
            if len(hits) > wanted + _SORTED_AT_ONCE:
                hits = sort_documents(hits, query.sort, key=lambda hit: hit.document)[:wanted]
        return sort_documents(hits, query.sort, key=lambda hit: hit.document)

    async def _first_of_index(self, table: CollectionTable, query: Query, fetch: Fetch | None) -> list[Hit] | None:
        """The first hits, read in the order of an index; None if no index provides it."""
        chosen = ordered_plan(query, table.spec)
        if chosen is None:
            return None
        matches = _may_match(query.filter)
        images = await first_in_order(self._reader, table, chosen, query.skip + query.limit, matches, fetch)
        if images is None or not all(is_readable(image.document) for image in images):
            return None
        return sort_documents([_hit(image) for image in images], query.sort, key=lambda hit: hit.document)

    async def _matching(
        self, table: CollectionTable, query: Query, fetch: Fetch | None = None
    ) -> AsyncGenerator[list[Hit], None]:
        matches = _may_match(query.filter)
        async with aclosing(self._reader.pages(table, query, fetch)) as pages:
            async for images in pages:
                yield [_hit(image) for image in images if matches(whole(image))]

    def may_lag(self, collection: str, filter: Document) -> bool:
        """Global secondary indexes are eventually consistent; reads by key or by scan are not."""
        return goes_by_index(plan(filter, self._table(collection).spec))

    async def count(self, collection: str, filter: Document, skip: int = 0, limit: int = 0) -> int:
        table = self._table(collection)
        if not filter:
            total = await self._reader.count_all(table)
        else:
            total = 0
            wanted, matches = Query(filter, skip=skip, limit=limit), matcher(filter)
            async with aclosing(self._matching(table, wanted, looked_at(filter))) as pages:
                async for page in pages:
                    for hit in page:
                        matches(hit.document)
                    total += len(page)
                    if limit and total >= skip + limit:
                        break
        counted = max(0, total - skip)
        return min(counted, limit) if limit else counted

    async def distinct(self, collection: str, path: str, filter: Document) -> list[Any]:
        fetch = looked_at(filter, path)
        return distinct_values(path, await self._all(collection, filter, fetch))

    async def aggregate(self, collection: str, pipeline: Sequence[Document]) -> list[Document]:
        compiled = cached_pipeline(pipeline)

        documents = await self._all(collection, compiled.leading_match or {})
        filters = partners(pipeline, documents)
        joined = {name: await self._joined(name, filters.get(name, {})) for name in sorted(compiled.collections)}
        return await asyncio.to_thread(compiled.run, documents, joined.__getitem__)

    async def _joined(self, collection: str, filter: Document) -> list[Document]:
        """All documents that a `$lookup` may find, in the order of their keys; the insertion order, which MongoDB
        mostly returns, is not stored here. Without a key or an index for `filter`, the stage filters."""
        served = not isinstance(plan(filter, self._table(collection).spec), ScanPlan)
        return sort_documents(await self._all(collection, filter if served else {}), [("_id", 1)])

    async def _all(self, collection: str, filter: Document, fetch: Fetch | None = None) -> list[Document]:
        """Raises `UnreadableDocument` where one of them cannot be read: a result computed from them would hide it."""
        pages = self._found_pages(collection, Query(filter), fetch)
        found = [hit.document async for page in pages for hit in page]
        for document in found:
            check_readable(document)
        return found

    async def image(self, collection: str, key: Key) -> Image:
        return (await self.found(self._table(collection), keys.key_text(key))).image

    async def images(self, collection: str, keys_: Sequence[Key]) -> list[Image]:
        table = self._table(collection)
        texts = [keys.key_text(key) for key in keys_]
        items = await self._reader.get_many(table, texts)
        present = list(items.values())
        images = dict(zip(items, await self._reader.images(table, present), strict=True))
        return [images.get(text, Image(ABSENT)) for text in texts]

    async def lasting_images(self, collection: str, keys_: Sequence[Key]) -> list[Image]:
        """Whatever DynamoDB has acknowledged is durable."""
        return await self.images(collection, keys_)


def _hit(image: Image) -> Hit:
    document = whole(image)
    version = image.state if isinstance(image.state, Version) else Version("", 0)
    return Hit(document["_id"], version, document)


def _projecting(projection: Document | None, filter: Filter) -> Callable[[Document], Document] | None:
    if not projection:
        return None
    project = cached_projection(projection)
    project.check(filter)
    return lambda document: project(document, filter)


def _projected(hit: Hit, project: Callable[[Document], Document] | None) -> Hit:
    if project is None or not is_readable(hit.document):
        return hit
    return Hit(hit.key, hit.version, project(hit.document))


def _may_match(filter: Document) -> Callable[[Document], bool]:
    """Whether a filter matches a document, or may match an unreadable one, which must be included."""
    matching = matcher(filter)

    def may(document: Document) -> bool:
        try:
            return matching(document)
        except UnreadableDocument:
            return True

    return may


def _check_order(hits: Sequence[Hit], sort: Sort) -> None:
    """Raises `UnreadableDocument` where the position of a document in a sort cannot be determined."""
    fields = frozenset(path.partition(".")[0] for path, _ in sort)
    for hit in hits:
        if isinstance(hit.document, Damaged) and depends(fields, hit.document):
            check_readable(hit.document)


def _window(hits: list[Hit], skip: int, limit: int) -> list[Hit]:
    return hits[skip : skip + limit] if limit else hits[skip:]
