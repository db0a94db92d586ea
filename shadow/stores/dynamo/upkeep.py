"""The tables of a DynamoDB store: creates, changes, compares and sweeps them."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from shadow.model.schema import CollectionSpec, ExpirySpec, UniqueSpec
from shadow.mongoql.expiry import MARGIN
from shadow.stores.dynamo.access import DynamoAccess
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.tables.options import describe_table
from shadow.stores.dynamo.tables.spec import TableDefinition, collection_table
from shadow.stores.dynamo.tables.tables import drop_table

__all__ = ["DynamoUpkeep"]

_EXPIRY_MARK: Final = "~expiry"
"""The item that keeps the rule by which the items of a table expire."""


class DynamoUpkeep(DynamoAccess):
    async def prepare(self, collections: Iterable[CollectionSpec]) -> None:
        await asyncio.gather(*(self._prepare(spec) for spec in collections))

    async def _prepare(self, spec: CollectionSpec) -> None:
        known = self._tables.get(spec.name)
        table = self._tables[spec.name] = self._made(spec)
        if known is not None and await self._lacks_constraints_alone(table, known.spec):
            await self._constraints.accept(table, is_new=False)
            return
        is_new = await self.manager.prepare(collection_table(table.name, spec), lambda: self.reindex(spec.name))
        await self._constraints.accept(table, is_new=is_new)
        if spec.expiry is not None:
            await self._expire(table, spec.expiry, is_new=is_new)

    async def _expire(self, table: CollectionTable, expiry: ExpirySpec, *, is_new: bool) -> None:
        """Existing documents get the time at which DynamoDB may delete them, after the rule has changed. For a day they
        get it with each call: until then a process of the earlier configuration may write by the earlier rule."""
        reserved, rule, now = table.spec.reserved, f"{expiry.field} {expiry.after}", time.time()
        found = await self._reader.get(table, _EXPIRY_MARK)
        stamp = {} if found is None else found.get(reserved, {}).get("M", {})
        known = stamp.get("rule", {}).get("S") == rule
        if not is_new and (not known or float(stamp["at"]["N"]) > now - MARGIN):
            await self.reindex(table.spec.name)
        if not known:
            mark = {"k": {"S": "expiry"}, "rule": {"S": rule}, "at": {"N": "0" if is_new else f"{now:.3f}"}}
            item = {"_id": {"S": _EXPIRY_MARK}, reserved: {"M": mark}}
            await self._gateway.call(
                "put_item", table.name, TableName=table.name, Item=item, ReturnConsumedCapacity="INDEXES"
            )

    async def _lacks_constraints_alone(self, table: CollectionTable, known: CollectionSpec) -> bool:
        """Whether the table exists and only unique constraints are to be added, which needs no right to create it."""
        added = table.spec.unique != known.unique and replace(table.spec, unique=known.unique) == known
        return added and await describe_table(self._gateway, table.name) is not None

    async def ensure_index(self, collection: str, keys: Any, name: str, **options: Any) -> bool:
        return False

    async def release(self, spec: CollectionSpec, ended: UniqueSpec) -> None:
        """No longer enforces a constraint. If it is wanted again, every document is checked first."""
        await self._constraints.end(self._table(spec.name), ended)
        self._tables[spec.name] = self._made(spec)

    async def drop(self, collection: str) -> None:
        table = self._table(collection)
        self._writer.forget_mark(table)
        await drop_table(self._gateway, table.name, self._settings.prepare_timeout)

    async def identity(self, collection: str) -> str:
        """The table's id; "" if there is no table. A backup is always restored into a new table. Source: the API's
        reference, `TableDescription` and `RestoreTableFromBackup`."""
        described = await describe_table(self._gateway, self._table(collection).name)
        return "" if described is None else str(described.get("TableId", ""))

    def tables(self) -> list[TableDefinition]:
        """The wanted tables of the collections that were described when the store was made."""
        return [collection_table(table.name, table.spec) for table in self._tables.values()]

    async def drift(self) -> dict[str, list[str]]:
        """How each of `tables` differs from what is wanted; an empty list where it does not."""
        return {name: differences for name, (differences, _) in (await self.manager.drift(self.tables())).items()}

    async def reindex(self, collection: str) -> int:
        """Rewrites documents that were written before an index was declared, so that the index has them; returns how
        many. `prepare` does so where it adds an index; needed by hand only where something else has added one."""
        table = self._table(collection)
        written = 0
        async for items in self._reader.item_pages(table):
            written += await self._writer.reindex(table, items)
        return written

    async def check_unique(self, collection: str) -> None:
        """Checks again that every document holds its unique values, in case a writer did not know of a constraint
        when it was accepted. Raises `DuplicateKeyError` as `prepare` does, without any value in it."""
        table = self._table(collection)
        await self._constraints.forget(table)
        await self._constraints.accept(table, is_new=False)

    async def sweep(
        self, collection: str, older_than: dt.timedelta = dt.timedelta(days=1), *, dry_run: bool = False
    ) -> int:
        """Deletes parts of large documents that a crash has left behind; returns how many. `older_than` must exceed
        the longest time that a write can take. `dry_run`: only counts them."""
        return await self._sweeper.sweep(self._table(collection), older_than, dry_run=dry_run)

    async def sweep_if_due(self, collection: str, every: float) -> int:
        """Calls `sweep` if nobody has done so for `every` seconds and the table has had large documents; returns how
        many parts were deleted."""
        return await self.sweep(collection) if await self._sweeper.is_due(self._table(collection), every) else 0
