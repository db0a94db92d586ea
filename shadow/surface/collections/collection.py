"""The collection: Motor's surface. It turns a call into operations and results back into Motor's; ids, births and the
clock are fixed here, once, and inputs are copied on entry.

Methods accept Motor's arguments. An argument that would change the result on one of the stores is rejected by name,
before any store is accessed; one that changes no result is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NoReturn

import bson
from bson import SON
from bson.codec_options import CodecOptions
from pymongo.operations import IndexModel
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shadow.errors import UnsupportedOperation
from shadow.model.version import Document
from shadow.surface.calls.argument_table import VERBS, with_names
from shadow.surface.calls.options import RequestedConcerns
from shadow.surface.collections.bulk_verbs import BulkVerbs
from shadow.surface.collections.collection_base import Handle
from shadow.surface.collections.read_verbs import ReadVerbs
from shadow.surface.cursors.cursor import DocumentCursor
from shadow.surface.indexing import indexes

__all__ = ["Collection", "Handle"]

_LISTED: Final[CodecOptions[Any]] = CodecOptions(document_class=SON)


class Collection(ReadVerbs, BulkVerbs):
    """One collection of the application. Made by `Shadow.get_collection`; needs no event loop until it is used."""

    def with_options(
        self,
        codec_options: CodecOptions[Any] | None = None,
        read_preference: Any = None,
        write_concern: WriteConcern | None = None,
        read_concern: ReadConcern | None = None,
    ) -> Collection:
        """The same collection, decoding to `codec_options`.

        While MongoDB is the primary its reads have the preference and the concern. Reads of DynamoDB satisfy them all
        but the concerns `snapshot` and, for reads that are not by key, `linearizable`: those reads raise
        UnsupportedOperation.

        A write concern is accepted where it makes no difference: that of the client of MongoDB, and weaker ones (w=1,
        w=0), because DynamoDB writes with no weaker guarantees. Raises UnsupportedOperation for another: it would have
        to be set for the client, in `mongo.url`.
        """
        given = RequestedConcerns(read_preference, write_concern, read_concern)
        if given != RequestedConcerns():
            self._handle.kept().check(given)
        asked = {name: getattr(given, name) or getattr(self._concerns, name) for name in RequestedConcerns.__slots__}
        return Collection(
            self._spec, self._handle, options=codec_options or self._options, concerns=RequestedConcerns(**asked)
        )

    async def options(self, **options: Any) -> dict[str, Any]:
        """Empty: a collection has no options of its own here."""
        self._take.refuse("options", options)
        return {}

    # --- indexes and the collection itself ----------------------------------------------------------------------

    async def create_index(self, keys: Any, **options: Any) -> str:
        """The name of the index. While MongoDB is the primary the index, its name and any error are the server's
        (a unique one of the configuration keeps its name). With DynamoDB as primary they are what the server's would
        be: a unique one is created on both stores (DuplicateKeyError if there are duplicates), another one is recorded
        for every process, and created on MongoDB if that is written too. What DynamoDB has no counterpart for is
        reported. Raises UnsupportedOperation for a unique index that DynamoDB cannot enforce."""
        name, self._spec = await self._handle.indexes.create(self._spec, keys, options)
        return name

    async def create_indexes(self, indexes: Sequence[IndexModel], **options: Any) -> list[str]:
        """All are checked before one is created, as the server does. Raises what `create_index` does."""
        self._take.refuse("create_indexes", options)
        names, self._spec = await self._handle.indexes.create_all(self._spec, indexes, options)
        return names

    async def index_information(self, **options: Any) -> dict[str, Any]:
        """The indexes in PyMongo's shape: the server's while MongoDB is the primary, otherwise as it would list them.
        Those that only DynamoDB has are not among them: see `shadow tables`."""
        self._take.refuse("index_information", options)
        return indexes.as_information(await self._handle.indexes.listed(self._spec))

    def list_indexes(self, **options: Any) -> DocumentCursor:
        """The same as a cursor, in the shape of `listIndexes`."""

        async def documents() -> list[Document]:
            self._take.refuse("list_indexes", options)
            return await self._handle.indexes.listed(self._spec)

        return DocumentCursor(self, documents, _as_listed)

    async def drop_index(self, index_or_name: Any, **options: Any) -> None:
        """Drops an index that `create_index` has created, by name or by keys. Raises OperationFailure code 27 if there
        is none, UnsupportedOperation for a unique one that the configuration declares."""
        self._take.refuse("drop_index", options)
        self._spec = await self._handle.indexes.drop(self._spec, index_or_name, options)

    async def drop_indexes(self, **options: Any) -> None:
        """Drops every index that `drop_index` would drop."""
        self._take.refuse("drop_index", options)
        self._spec = await self._handle.indexes.drop_all(self._spec, options)

    async def drop(self, **options: Any) -> dict[str, Any]:
        """Deletes every document, on both stores, one by one with an intent each. The indexes end as by
        `drop_indexes`; tables stay. Returns the answer of the server's command."""
        self._take.refuse("drop", {name: value for name, value in options.items() if name != "encrypted_fields"})
        before = await self._handle.indexes.listed(self._spec)
        await self._delete_many({})
        self._spec = await self._handle.indexes.dropped(self._spec)
        return {"nIndexesWas": len(before), "ns": self.full_name, "ok": 1.0}

    async def rename(self, new_name: str, **options: Any) -> NoReturn:
        raise UnsupportedOperation("rename", "a DynamoDB table cannot be renamed", hint="copy, then drop")

    def watch(self, *arguments: Any, **options: Any) -> NoReturn:
        raise UnsupportedOperation("watch", "the two stores have different change streams")


def _as_listed(entry: Document) -> Any:
    """An index as the drivers give it, whatever the codec options of the collection."""
    return bson.decode(bson.encode(entry), codec_options=_LISTED)


for _verb in VERBS:
    setattr(Collection, _verb, with_names(_verb, getattr(Collection, _verb)))
