"""Adds unique constraints to a table that has documents: reports duplicates first, then claims every value.

A marker in the table records that a constraint has been accepted, so that this is done once. Writers that do not know
the constraint yet continue without it; if there were any, `DynamoStore.check_unique` checks every document again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from shadow.model.order import key_digest
from shadow.model.schema import UniqueSpec
from shadow.model.values import type_name
from shadow.model.version import Image, Key, Unknown
from shadow.stores.dynamo.client.gateway import ConditionFailed, Gateway
from shadow.stores.dynamo.items import keys, unique
from shadow.stores.dynamo.items.codec import whole
from shadow.stores.dynamo.query.reads import CollectionTable, Reader
from shadow.stores.dynamo.write.writes import Writer

__all__ = ["Constraints"]

_MOST_NAMED: Final = 10
_CLAIMS_AT_ONCE: Final = 90
_DUPLICATE: Final = 11_000


@dataclass(slots=True)
class _Duplicates:
    """The documents that share values under one constraint. Holds keys, never the values."""

    owners: dict[str, Key] = field(default_factory=dict)
    """The first document that holds a value, by the key of the value's item."""
    shared: dict[str, dict[str, Key]] = field(default_factory=dict)
    """For values held more than once: all their documents, by key text."""

    def add(self, item_key: str, key: Key) -> None:
        first = self.owners.setdefault(item_key, key)
        if keys.key_text(first) != keys.key_text(key):
            holders = self.shared.setdefault(item_key, {keys.key_text(first): first})
            holders[keys.key_text(key)] = key


class Constraints:
    def __init__(self, gateway: Gateway, reader: Reader, writer: Writer) -> None:
        self._gateway = gateway
        self._reader = reader
        self._writer = writer

    async def accept(self, table: CollectionTable, *, is_new: bool) -> None:
        """Enforces the unique constraints of a table for its existing documents. `is_new`: it has none. Raises
        `DuplicateKeyError` (code 11000) that names the constraint, the number of values and documents, and some of the
        documents by type and digest of their key; then no constraint was changed."""
        missing = [one for one in table.spec.unique if is_new or not await self._is_accepted(table, one)]
        if missing and not is_new:
            narrowed = replace(table, spec=replace(table.spec, unique=tuple(missing)))
            await self._refuse_duplicates(narrowed)
            async for images in self._pages(narrowed):
                await asyncio.gather(*(self._claim(narrowed, image) for image in images))
        for constraint in missing:
            await self._mark(table, constraint)

    async def forget(self, table: CollectionTable) -> None:
        """Removes the markers, so that the next `accept` checks every document again."""
        await self._writer.delete_keys(table, [_marker(constraint) for constraint in table.spec.unique])

    async def end(self, table: CollectionTable, constraint: UniqueSpec) -> None:
        """Removes the marker of one constraint."""
        await self._writer.delete_keys(table, [_marker(constraint)])

    async def _is_accepted(self, table: CollectionTable, constraint: UniqueSpec) -> bool:
        return await self._reader.get(table, _marker(constraint)) is not None

    async def _mark(self, table: CollectionTable, constraint: UniqueSpec) -> None:
        item = {"_id": {"S": _marker(constraint)}, table.spec.reserved: {"M": {"k": {"S": "constraint"}}}}
        await self._gateway.call(
            "put_item", table.name, TableName=table.name, Item=item, ReturnConsumedCapacity="INDEXES"
        )

    async def _pages(self, table: CollectionTable) -> AsyncIterator[list[Image]]:
        async for items in self._reader.item_pages(table):
            yield await self._reader.present(table, items)

    async def _refuse_duplicates(self, table: CollectionTable) -> None:
        found = {constraint.name: _Duplicates() for constraint in table.spec.unique}
        async for images in self._pages(table):
            for image in images:
                for item_key, claim in unique.claims(table.spec, image.document).items():
                    found[claim.constraint.name].add(item_key, whole(image)["_id"])
        for constraint in table.spec.unique:
            shared = found[constraint.name].shared
            if shared:
                raise _refusal(table, constraint, list(shared.values()))

    async def _claim(self, table: CollectionTable, image: Image) -> None:
        """Takes the claims of one document; if it has changed meanwhile, those of its current state. A document with an
        unreadable stamp gets its claims with the copy that repairs it."""
        while (document := image.document) is not None and not isinstance(image.state, Unknown):
            claims = unique.claims(table.spec, document)
            text = keys.key_text(document["_id"])
            try:
                for chunk in _chunks(list(claims)):
                    await self._writer.claim(table, text, image.state, {key: claims[key] for key in chunk})
            except ConditionFailed as failed:
                image = await self._reader.image(table, failed.item)
            except DuplicateKeyError as error:
                pattern = (error.details or {})["keyPattern"]
                constraint = next(one for one in table.spec.unique if list(one.fields) == list(pattern))
                raise _refusal(table, constraint, [{text: document["_id"]}]) from None
            else:
                return


def _chunks(item_keys: Sequence[str]) -> list[Sequence[str]]:
    return [item_keys[i : i + _CLAIMS_AT_ONCE] for i in range(0, len(item_keys), _CLAIMS_AT_ONCE)]


def _marker(constraint: UniqueSpec) -> str:
    collation = [] if constraint.collation is None else [constraint.collation.strength]
    meaning = key_digest([list(constraint.fields), constraint.sparse, *collation])
    return f"~constraint:{keys.short_name(constraint.name)}:{meaning}"


def _refusal(table: CollectionTable, constraint: UniqueSpec, shared: Sequence[dict[str, Key]]) -> DuplicateKeyError:
    holders = {text: key for one in shared for text, key in one.items()}
    named = ", ".join(f"{type_name(key)}:{key_digest(key)[:12]}" for key in list(holders.values())[:_MOST_NAMED])
    more = f" and {len(holders) - _MOST_NAMED} more" if len(holders) > _MOST_NAMED else ""
    text = (
        f"E11000 {constraint.name} on {table.namespace} cannot be unique: "
        f"{len(holders)} documents share {len(shared)} values: _id {named}{more}"
    )
    details: dict[str, Any] = {"code": _DUPLICATE, "keyPattern": dict.fromkeys(constraint.fields, 1)}
    return DuplicateKeyError(text, _DUPLICATE, {**details, "values": len(shared), "documents": len(holders)})
