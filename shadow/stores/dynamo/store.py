"""DynamoDB as a document store, by the contract of `stores.base`."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, cast

import aioboto3
from pymongo.errors import OperationFailure, WriteError

from shadow.errors import UnreadableDocument, UnsupportedOperation
from shadow.model.bounds import check_outcome
from shadow.model.operation import (
    ANY,
    Applied,
    Change,
    Delete,
    Hit,
    Insert,
    Query,
    Replace,
    Sort,
    Update,
    UpsertGuard,
    Write,
)
from shadow.model.order import sort_documents
from shadow.model.phase import StoreName
from shadow.model.schema import CollectionSpec
from shadow.model.stored import Damaged, RawDocument, check_readable, is_readable
from shadow.model.version import ABSENT, Document, Image, Key, State, Tombstone, Unknown, Version, fresh_id
from shadow.mongoql import cached_filter, cached_pipeline, cached_projection
from shadow.mongoql.values_at import distinct_values
from shadow.stores.dynamo.client.errors import outcome_unknown
from shadow.stores.dynamo.client.gateway import ConditionFailed, Gateway, OnCapacity
from shadow.stores.dynamo.client.limits import RANGE_LIMIT
from shadow.stores.dynamo.client.settings import DynamoSettings
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import Codec
from shadow.stores.dynamo.query.fetching import Fetch, fetch_of, looked_at
from shadow.stores.dynamo.query.joins import partners
from shadow.stores.dynamo.query.ordered import first_in_order
from shadow.stores.dynamo.query.ordering import ordered_plan
from shadow.stores.dynamo.query.plan import ScanPlan, goes_by_index, plan
from shadow.stores.dynamo.query.ranges import DynamoRanges
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.query.scans import OnScan
from shadow.stores.dynamo.tables.constraints import Constraints
from shadow.stores.dynamo.tables.keeper import OnLacking, TableKeeper
from shadow.stores.dynamo.tables.options import describe_table
from shadow.stores.dynamo.tables.spec import TableDefinition, collection_table
from shadow.stores.dynamo.tables.tables import drop_table
from shadow.stores.dynamo.write.changes import Computation, computation, depends, matcher, names_only_key, whole
from shadow.stores.dynamo.write.direct import direct_request
from shadow.stores.dynamo.write.inserts import Inserter
from shadow.stores.dynamo.write.stamps import DynamoStamps
from shadow.stores.dynamo.write.sweeping import Sweeper
from shadow.stores.dynamo.write.together import Together
from shadow.stores.dynamo.write.upserts import guard_key, guard_of, last_inserted
from shadow.stores.dynamo.write.writes import NOTHING, VACANT, Expected, ExpectedStamp, FoundItem, Writer
from shadow.stores.turns import Turns

__all__ = ["DynamoStore"]

_PATIENCE: Final = 2
"""Lost races that are answered at once; each one after that waits, longer and longer, up to `_LONGEST`."""
_LONGEST: Final = 0.32
"""Seconds. Each process has one writer at a document at a time, so that as many processes as this holds round trips
come to their turn."""

_SORTED_AT_ONCE: Final = 5_000
_WRITE_CONFLICT: Final = 112


class DynamoStore:
    """One table a collection. Made for one event loop: the client is made inside it at first use.

    `specs` describes the collections that have more than a name; a `client` that is handed in (aioboto3's or
    aiobotocore's low-level client) is never closed; `database` stands in the texts of errors; `on_capacity` is called
    as (table, index, verb, units) for every answer.
    `on_scan` as (table, scans, items read, items returned) for every scan, `on_throttled` for every request that a
    client made here saw throttled, repeated ones too; `on_lacking` by `prepare`, and of a right that lacked.
    """

    name = StoreName.DYNAMO

    def __init__(
        self,
        settings: DynamoSettings,
        specs: Mapping[str, CollectionSpec],
        *,
        client: Any = None,
        database: str = "shadow",
        on_capacity: OnCapacity | None = None,
        on_scan: OnScan | None = None,
        on_throttled: Callable[[], None] | None = None,
        on_lacking: OnLacking | None = None,
        operation_limit: float = 30.0,
    ) -> None:
        """`operation_limit`: seconds that an operation may last; a write that goes on losing gives up after half."""
        self._settings = settings
        self._turns = Turns()
        self._longest = operation_limit / 2
        self._database = database
        self._gateway = Gateway(settings, client, on_capacity)
        if on_throttled is not None:
            self._gateway.on_throttled = on_throttled
        self.keeper = TableKeeper(self._gateway, settings.prepare_timeout, on_lacking)
        self._reader = Reader(
            self._gateway, verify_index_reads=settings.verify_index_reads, scan_segments=settings.scan_segments
        )
        self._writer = Writer(self._gateway, self._reader, on_lacking or (lambda table, text: None))
        self._together = Together(self._reader, self._writer)
        self._inserter = Inserter(self._gateway, self._writer, transactional=settings.transactional_inserts)
        self._sweeper = Sweeper(self._gateway, self._reader, self._writer)
        self._constraints = Constraints(self._gateway, self._reader, self._writer)
        self._tables = {name: self._made(spec) for name, spec in specs.items()}
        self.ranges = DynamoRanges(self._gateway, self._reader, self._table, self._copy_absent)
        self.stamps = DynamoStamps(self._gateway, self._reader, self._table)
        if on_scan is not None:
            self._reader.scans.on_scan = lambda name, *counts: on_scan(self._table(name).name, *counts)

    @property
    def link(self) -> Gateway:
        return self._gateway

    def _made(self, spec: CollectionSpec) -> CollectionTable:
        name = f"{self._settings.table_prefix}{spec.name}"
        return CollectionTable(name, f"{self._database}.{spec.name}", spec, Codec(spec))

    def _table(self, collection: str) -> CollectionTable:
        table = self._tables.get(collection)
        if table is None:
            table = self._tables[collection] = self._made(CollectionSpec(collection))
        return table

    # ---- the store itself ----

    async def close(self) -> None:
        await self._gateway.close()

    async def ping(self) -> None:
        await self._gateway.call("list_tables", "any table", Limit=1)

    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        await asyncio.gather(*(self._prepare(spec) for spec in collections))

    async def _prepare(self, spec: CollectionSpec) -> None:
        known = self._tables.get(spec.name)
        table = self._tables[spec.name] = self._made(spec)
        if known is not None and await self._lacks_constraints_alone(table, known.spec):
            await self._constraints.accept(table, is_new=False)
            return
        is_new = await self.keeper.prepare(collection_table(table.name, spec), lambda: self.reindex(spec.name))
        await self._constraints.accept(table, is_new=is_new)

    async def _lacks_constraints_alone(self, table: CollectionTable, known: CollectionSpec) -> bool:
        """Whether the table is there and only unique constraints are to be added, which takes no right to make it."""
        added = table.spec.unique != known.unique and replace(table.spec, unique=known.unique) == known
        return added and await describe_table(self._gateway, table.name) is not None

    async def ensure_index(self, collection: str, keys: Sort, name: str, *, sparse: bool = False) -> bool:
        return False

    async def drop(self, collection: str) -> None:
        table = self._table(collection)
        self._writer.forget_mark(table)
        await drop_table(self._gateway, table.name, self._settings.prepare_timeout)

    async def identity(self, collection: str) -> str:
        """The table's id; "" if there is no table. A backup is always restored into a new table. Source: the API's
        reference, `TableDescription` and `RestoreTableFromBackup`."""
        described = await describe_table(self._gateway, self._table(collection).name)
        return "" if described is None else str(described.get("TableId", ""))

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "dynamo",
            "driver": f"aioboto3 {aioboto3.__version__}",
            "endpoint": _without_credentials(self._settings.endpoint_url or f"AWS {self._settings.region}"),
            "region": self._settings.region,
            "table_prefix": self._settings.table_prefix,
        }

    def tables(self) -> list[TableDefinition]:
        """The tables of the collections that were described when the store was made, as they ought to be."""
        return [collection_table(table.name, table.spec) for table in self._tables.values()]

    async def drift(self) -> dict[str, list[str]]:
        """In what each of `tables` differs from what it ought to be; an empty list where it does not."""
        return {name: differences for name, (differences, _) in (await self.keeper.drift(self.tables())).items()}

    def scans(self) -> list[dict[str, Any]]:
        """The query shapes that needed a scan (see `ScanCounter.report`)."""
        return self._reader.scans.report()

    # ---- reads ----

    async def find_one(self, collection: str, query: Query) -> Hit | None:
        first = Query(query.filter, query.projection, query.sort, query.skip, 1)
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
        """With a `fetch`, which only goes with a query of a filter alone, documents may have its fields only."""
        table = self._table(collection)
        project = cached_projection(query.projection) if query.projection else None
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
        """The hits in order; with a limit no more of them are kept than can still be among the first."""
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
        """The first hits, read in the order of an index; None if none gives it."""
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
        """Global secondary indexes are eventually consistent; what is read by key or by scan is not."""
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
        """All documents that a `$lookup` may find, in the order of their keys: that of insertion, which MongoDB
        mostly shows, is not kept here. Without a key or an index for `filter` it is left to the stage."""
        served = not isinstance(plan(filter, self._table(collection).spec), ScanPlan)
        return sort_documents(await self._all(collection, filter if served else {}), [("_id", 1)])

    async def _all(self, collection: str, filter: Document, fetch: Fetch | None = None) -> list[Document]:
        """Raises `UnreadableDocument` where one of them cannot be read: what is made of them would not show it."""
        pages = self._found_pages(collection, Query(filter), fetch)
        found = [hit.document async for page in pages for hit in page]
        for document in found:
            check_readable(document)
        return found

    async def image(self, collection: str, key: Key) -> Image:
        return (await self._found(self._table(collection), keys.key_text(key))).image

    async def images(self, collection: str, keys_: Sequence[Key]) -> list[Image]:
        table = self._table(collection)
        texts = [keys.key_text(key) for key in keys_]
        items = await self._reader.get_many(table, texts)
        present = list(items.values())
        images = dict(zip(items, await self._reader.images(table, present), strict=True))
        return [images.get(text, Image(ABSENT)) for text in texts]

    async def _found(self, table: CollectionTable, key_text: str) -> FoundItem:
        item = await self._reader.get(table, key_text)
        return FoundItem(item, await self._reader.image(table, item))

    # ---- writes as the side that answers ----

    def chooses(self, change: Change) -> bool:
        """DynamoDB changes an item by its key."""
        return False

    async def chosen(self, collection: str, op_id: str) -> Key:
        return ANY

    async def guard(self, collection: str, change: Update | Replace) -> tuple[UpsertGuard | None, Key]:
        table, name = self._table(collection), guard_key(change.filter)
        item = await self._reader.get(table, name)
        found = NOTHING if item is None else await self._found(table, last_inserted(table, item))
        matches = found.image.present and cached_filter(change.filter).matches(whole(found.image))
        return guard_of(table, name, item), whole(found.image)["_id"] if matches else ANY

    async def apply(self, collection: str, change: Change, op_id: str) -> Applied | None:
        table = self._table(collection)
        text = keys.key_text(change.key)
        compute = computation(table.namespace, change)
        if isinstance(change, Insert):
            return await self._apply(table, text, change, compute, op_id, NOTHING)
        async with self._turns.turn((table.name, text)):
            found = await self._found(table, text)
            return await self._apply(table, text, change, compute, op_id, found)

    async def _apply(
        self, table: CollectionTable, text: str, change: Change, compute: Computation, op_id: str, found: FoundItem
    ) -> Applied | None:
        """Tries until it has won: to lose a race is no answer."""
        until = asyncio.get_running_loop().time() + self._longest
        for attempt in itertools.count():
            after = compute(found.image)
            if after is None:
                return None
            check_outcome(change, after.document, existed=found.image.present)
            expected = _expected(found)
            guard = change.guard if isinstance(change, Update | Replace) and not found.image.present else None
            try:
                await self._writer.commit(table, text, expected, found, after, op_id, guard)
            except ConditionFailed as failed:
                if self._is_own(table, failed, change, after, op_id):
                    return _applied(found, after)
                if asyncio.get_running_loop().time() > until:
                    break
                found = await self._after_lost_race(table, failed, change, attempt)
            else:
                return _applied(found, after)
        message = f"too many concurrent changes of one document in {table.name}"
        raise OperationFailure(message, _WRITE_CONFLICT, {"code": _WRITE_CONFLICT, "errmsg": message})

    def _is_own(
        self, table: CollectionTable, failed: ConditionFailed, change: Change, after: Image, op_id: str
    ) -> bool:
        """Whether what stands in the way is this very write, applied by an earlier attempt of the client."""
        if failed.item is None:
            return False
        state = table.codec.state(failed.item)
        if isinstance(change, Insert) and isinstance(state, Version) and state.born == change.born:
            return True  # and perhaps changed since then by someone else
        return state == after.state and table.codec.op_id(failed.item) == op_id

    async def _after_lost_race(
        self, table: CollectionTable, failed: ConditionFailed, change: Change, attempt: int
    ) -> FoundItem:
        if failed.retried and not isinstance(change, Insert):
            # An earlier attempt may have been applied and then overwritten; to compute again could apply it twice.
            raise outcome_unknown("delete_item" if isinstance(change, Delete) else "put_item", table.name)
        if attempt >= _PATIENCE:
            await asyncio.sleep(random.uniform(0, min(_LONGEST, 0.005 * 2.0 ** min(attempt - _PATIENCE, 10))))
        return FoundItem(failed.item, await self._reader.image(table, failed.item))

    def refusal(self, collection: str, change: Change, existed: bool, document: Document) -> Exception | None:
        table = self._table(collection)
        if "_id" in table.codec.ranges and (size := len(keys.key_text(document["_id"]).encode())) > RANGE_LIMIT:
            text = f"an _id of {size} bytes: it is the range of an index, and DynamoDB takes {RANGE_LIMIT} there"
            return WriteError(text, 2, {"index": 0, "code": 2, "errmsg": text})
        return unique.too_many(table.spec, document) if table.spec.unique else None

    async def insert_many(
        self, collection: str, inserts: Sequence[Insert], op_ids: Sequence[str], *, ordered: bool
    ) -> list[Applied | Exception | None]:
        table, pairs = self._table(collection), list(zip(inserts, op_ids, strict=True))

        async def alone(insert: Insert, op_id: str) -> Applied | None:
            return await self.apply(collection, insert, op_id)

        if ordered:
            return await self._inserter.ordered(table, pairs, alone)
        return await self._inserter.unordered(table, pairs, alone)

    # ---- writes as the side that follows ----

    async def replay(self, collection: str, write: Write) -> Image | None:
        table = self._table(collection)
        text = keys.key_text(write.key)
        if isinstance(write.change, Delete):
            return await self._replay_delete(table, text, write, write.change)
        compute = computation(table.namespace, write.change)
        if isinstance(write.pre, Version):
            request = direct_request(table, text, write.change, write.op_id, write.pre)
            if request is None:
                found = await self._found(table, text)
            else:
                tried = await self._replay_directly(table, text, request, compute)
                if isinstance(tried, Image):
                    return tried
                found = tried
            if found.image.state != write.pre:
                return self._own_image(table, found, write)
            if not is_readable(found.image.document):
                return None
            if isinstance(found.image.document, RawDocument) and isinstance(write.change, Update):
                raise UnsupportedOperation("update", "the driver's values do not say all of the document")
        else:
            found = NOTHING
        after = compute(found.image)
        if after is None:
            return None
        return await self._follow(table, text, found.image.state, found, after, write.op_id)

    async def _replay_directly(
        self, table: CollectionTable, text: str, request: dict[str, Any], compute: Computation
    ) -> Image | FoundItem:
        try:
            answer = await self._gateway.call("update_item", table.name, **request)
        except ConditionFailed as failed:
            return FoundItem(failed.item, await self._reader.image(table, failed.item))
        except WriteError:
            return await self._found(table, text)
        before = table.codec.decode(answer["Attributes"])
        if not is_readable(before.document) and isinstance(before.state, Version):
            return Image(before.state.next(), before.document)  # made, and still not to be read
        after = compute(before)
        assert after is not None
        return after

    def _own_image(self, table: CollectionTable, found: FoundItem, write: Write) -> Image | None:
        """The image that is there, if this very write has put it there before."""
        own = found.item is not None and table.codec.op_id(found.item) == write.op_id
        return found.image if own and found.image.state == write.post.state else None

    async def _replay_delete(self, table: CollectionTable, text: str, write: Write, change: Delete) -> Image | None:
        after = Image(Tombstone(change.tombstone))
        if not table.spec.unique and names_only_key(change.filter):
            return await self._follow(table, text, (write.pre, ABSENT), NOTHING, after, write.op_id)
        found = await self._found(table, text)
        if found.image.state == after.state:
            return after
        if found.image.state not in (write.pre, ABSENT):
            return None
        document = found.image.document
        if not is_readable(document) and not names_only_key(change.filter):
            return None
        if document is not None and not cached_filter(change.filter).matches(document):
            return None
        return await self._follow(table, text, found.image.state, found, after, write.op_id)

    async def _follow(
        self, table: CollectionTable, text: str, expected: Expected, found: FoundItem, after: Image, op_id: str
    ) -> Image | None:
        try:
            await self._writer.commit(table, text, expected, found, after, op_id)
        except ConditionFailed as failed:
            there = failed.item
            own = there is not None and table.codec.op_id(there) == op_id
            if there is None or not own or table.codec.state(there) != after.state:
                return None
        return after

    async def put(self, collection: str, key: Key, image: Image, expected: State) -> bool:
        return await self._put(collection, key, image, expected, fresh_id())

    async def put_many(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> list[bool | Exception]:
        """`put` for many (key, image, expected), in order; those onto nothing at all travel in batches."""
        op_ids = [fresh_id() for _ in puts]
        free = [place for place, (_, _, expected) in enumerate(puts) if expected == ABSENT]
        images = [puts[place][1] for place in free]
        inserted = await self._inserter.put_absent(
            self._table(collection), [puts[place][0] for place in free], images, [op_ids[place] for place in free]
        )
        done = dict(zip(free, inserted, strict=True))

        left = [place for place in range(len(puts)) if not done.get(place)]
        results: list[bool | Exception] = [True] * len(puts)
        alone = await asyncio.gather(
            *(self._put(collection, *puts[place], op_ids[place]) for place in left), return_exceptions=True
        )
        for place, result in zip(left, alone, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            results[place] = result
        return results

    async def put_all(self, collection: str, puts: Sequence[tuple[Key, Image, State]]) -> bool | None:
        return await self._together.put(self._table(collection), puts)

    async def holders(self, collection: str, key: Key, document: Document) -> list[Key]:
        return await self._together.holders(self._table(collection), keys.key_text(key), document)

    async def _copy_absent(self, collection: str, keys_: Sequence[Key], images: Sequence[Image]) -> list[bool]:
        """Puts, in batches, the images whose keys are free. False: not, or not known."""
        op_ids = [fresh_id() for _ in images]
        return await self._inserter.put_absent(self._table(collection), keys_, images, op_ids)

    async def _put(self, collection: str, key: Key, image: Image, expected: State, op_id: str) -> bool:
        if image.state == ABSENT:
            raise ValueError("only a document or a tombstone can be put")
        table = self._table(collection)
        text = keys.key_text(key)
        found, wanted = NOTHING, cast(Expected, expected)
        if isinstance(expected, Unknown) or (table.spec.unique and expected != ABSENT):
            found = await self._found(table, text)
            if found.image.state != expected:
                return False
            wanted = _expected(found) if isinstance(expected, Unknown) else expected
        return await self._follow(table, text, wanted, found, image, op_id) is not None

    # ---- upkeep ----

    async def reindex(self, collection: str) -> int:
        """Writes again the documents that were written before an index was declared, so that it finds them; answers
        how many. `prepare` does so where it adds an index; needed by hand only where something else has added it."""
        table = self._table(collection)
        written = 0
        async for items in self._reader.item_pages(table):
            written += await self._writer.reindex(table, items)
        return written

    async def check_unique(self, collection: str) -> None:
        """Makes sure once more that every document holds its unique values, for the case that a writer did not know of
        a constraint when it was accepted. Raises `DuplicateKeyError` as `prepare` does, without any value in it."""
        table = self._table(collection)
        await self._constraints.forget(table)
        await self._constraints.accept(table, is_new=False)

    async def sweep(
        self, collection: str, older_than: dt.timedelta = dt.timedelta(days=1), *, dry_run: bool = False
    ) -> int:
        """Deletes parts of large documents that a crash has left behind; answers how many. `older_than` must exceed
        the longest time that a write can take. `dry_run`: only counts them."""
        return await self._sweeper.sweep(self._table(collection), older_than, dry_run=dry_run)

    async def sweep_if_due(self, collection: str, every: float) -> int:
        """`sweep`, where nobody has done so for `every` seconds and there is any need; answers how many."""
        return await self.sweep(collection) if await self._sweeper.is_due(self._table(collection), every) else 0


def _without_credentials(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _applied(found: FoundItem, after: Image) -> Applied:
    return Applied(found.image if found.image.present else Image(ABSENT), after)


def _expected(found: FoundItem) -> Expected:
    """What a write that has read this expects to find."""
    if isinstance(found.image.state, Unknown) and found.item is not None:
        return ExpectedStamp(found.item)
    return found.image.state if found.image.present else VACANT


def _hit(image: Image) -> Hit:
    document = whole(image)
    version = image.state if isinstance(image.state, Version) else Version("", 0)
    return Hit(document["_id"], version, document)


def _projected(hit: Hit, project: Callable[[Document], Document] | None) -> Hit:
    if project is None or not is_readable(hit.document):
        return hit
    return Hit(hit.key, hit.version, project(hit.document))


def _may_match(filter: Document) -> Callable[[Document], bool]:
    """Whether a filter matches a document, or may match one that cannot be read: that must show."""
    matching = matcher(filter)

    def may(document: Document) -> bool:
        try:
            return matching(document)
        except UnreadableDocument:
            return True

    return may


def _check_order(hits: Sequence[Hit], sort: Sort) -> None:
    """Raises `UnreadableDocument` where the place of a document in an order cannot be told."""
    fields = frozenset(path.partition(".")[0] for path, _ in sort)
    for hit in hits:
        if isinstance(hit.document, Damaged) and depends(fields, hit.document):
            check_readable(hit.document)


def _window(hits: list[Hit], skip: int, limit: int) -> list[Hit]:
    return hits[skip : skip + limit] if limit else hits[skip:]
