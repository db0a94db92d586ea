"""The verbs that write: a call becomes changes as data (`model.operation`), and their outcome a result of Motor.

Ids, births and the clock are fixed here, once, above both stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import pymongo
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.results import DeleteResult, InsertOneResult, UpdateResult

from shadow.errors import UnsupportedOperation
from shadow.model.batches import AlikeChanges
from shadow.model.operation import ANY, Applied, Delete, Insert, MongoOnly, Replace, Update, Verb
from shadow.model.stored import RawDocument, with_id
from shadow.model.values import snapshot
from shadow.model.version import Document, Image, fresh_id, fresh_ids
from shadow.mongoql import cached_filter, cached_projection, cached_update
from shadow.mongoql.expressions.chance import chance_in, chance_in_filter
from shadow.mongoql.expressions.constants import check_constants
from shadow.mongoql.update.updates import check_upsert
from shadow.mongoql.upserts import with_key
from shadow.mongoql.values.collation import is_collated
from shadow.mongoql.values.failures import UnknownOperator, failure
from shadow.surface.calls.arguments import Arguments, key_in
from shadow.surface.calls.verb_options import check_modify, order_of_one
from shadow.surface.collections.collection_base import CollectionBase
from shadow.surface.collections.results import (
    Many,
    as_command,
    as_inserted,
    as_write,
    by_pipeline,
    deleted,
    inserted_id,
    updated,
)

__all__ = ["WriteVerbs", "filter_of"]

_DRAWN: Final = "draw in the application, and name the documents, or the values"


class WriteVerbs(CollectionBase):
    """The verbs that write one document, and `update_many` and `delete_many`."""

    # --- inserts ------------------------------------------------------------------------------------------------

    async def insert_one(self, document: Any, **options: Any) -> InsertOneResult:
        """Inserts, and adds an `_id` to the caller's document if it has none, as the drivers do."""
        self._take.refuse("insert_one", options)
        with as_inserted(self._present_reply):
            await self._router.write(self._name, Verb.INSERT_ONE, self._insert(document))
        return InsertOneResult(inserted_id(document), acknowledged=True)

    def _insert(self, document: Any) -> Insert:
        whole = self._whole(document)
        return Insert(whole["_id"], with_key(whole, whole["_id"]), fresh_id())

    def _whole(self, document: Any) -> Document:
        """The document to insert. One of raw bytes, which cannot be changed, has its `_id` from the server if it names
        none, so from here; any other is given one, as by the drivers."""
        if isinstance(document, RawBSONDocument):
            whole = self._take.document(document)
            return whole if "_id" in whole else with_id(whole, ObjectId())
        if not isinstance(document, MutableMapping):
            raise TypeError(f"document must be an instance of a mutable mapping, not {type(document).__name__}")
        if "_id" not in document:
            document["_id"] = ObjectId()
        return self._take.document(document)

    # --- changes of one document --------------------------------------------------------------------------------

    async def update_one(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        *,
        array_filters: Any = None,
        sort: Any = None,
        **options: Any,
    ) -> UpdateResult:
        take = self._door("update_one", options)
        sort = order_of_one(sort)
        with as_write(self._present_reply):
            applied = await self._update(
                Verb.UPDATE_ONE, filter, update, array_filters, upsert=upsert, sort=sort or None, take=take
            )
        return updated(applied, self._present_reply)

    async def replace_one(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        upsert: bool = False,
        *,
        sort: Any = None,
        **options: Any,
    ) -> UpdateResult:
        take = self._door("replace_one", options)
        sort = order_of_one(sort)
        with as_write(self._present_reply):
            applied = await self._replace(Verb.REPLACE_ONE, filter, replacement, upsert=upsert, sort=sort, take=take)
        return updated(applied, self._present_reply)

    async def delete_one(self, filter: Mapping[str, Any], **options: Any) -> DeleteResult:
        take = self._door("delete_one", options)
        with as_write(self._present_reply):
            return deleted(len(await self._delete(Verb.DELETE_ONE, filter, take=take)))

    async def find_one_and_update(
        self,
        filter: Mapping[str, Any],
        update: Any,
        projection: Any = None,
        sort: Any = None,
        upsert: bool | None = False,
        return_document: bool = pymongo.ReturnDocument.BEFORE,
        array_filters: Any = None,
        **options: Any,
    ) -> Any:
        """The document before the update, or after it; None if there was none."""
        take = self._door("find_one_and_update", options)
        check_modify(sort, return_document)
        verb = Verb.FIND_ONE_AND_UPDATE
        with as_command(self._present_reply):
            # Only here does the driver drop a None.
            upsert = False if upsert is None else upsert
            change = self._built_update(
                filter, update, array_filters, upsert=upsert, sort=sort, take=take, after=return_document
            )
            shape = self._shape(take, projection, filter, after=return_document)
            return self._shown(await self._updated(verb, change), shape, after=return_document)

    async def find_one_and_replace(
        self,
        filter: Mapping[str, Any],
        replacement: Mapping[str, Any],
        projection: Any = None,
        sort: Any = None,
        upsert: bool | None = False,
        return_document: bool = pymongo.ReturnDocument.BEFORE,
        **options: Any,
    ) -> Any:
        """The document before the replacement, or after it; None if there was none."""
        take = self._door("find_one_and_replace", options)
        check_modify(sort, return_document)
        verb = Verb.FIND_ONE_AND_REPLACE
        with as_command(self._present_reply):
            upsert = False if upsert is None else upsert
            change = self._built_replace(filter, replacement, upsert=upsert, sort=sort, take=take)
            shape = self._shape(take, projection, filter, after=return_document)
            return self._shown(await self._replaced(verb, change), shape, after=return_document)

    async def find_one_and_delete(
        self, filter: Mapping[str, Any], projection: Any = None, sort: Any = None, **options: Any
    ) -> Any:
        """The deleted document, or None."""
        take = self._door("find_one_and_delete", options)
        check_modify(sort)
        with as_command(self._present_reply):
            change = self._built_delete(filter, sort=sort, take=take)
            shape = self._shape(take, projection, filter, after=False)
            return self._shown(await self._write(Verb.FIND_ONE_AND_DELETE, change), shape, after=False)

    def _shape(
        self, take: Arguments, projection: Any, filter: Any, *, after: bool
    ) -> Callable[[Document], Document] | None:
        """What the projection makes of the document that the filter found."""
        try:
            wanted = (take if take.mongo_only is None else self._take).projection(projection)
        except UnknownOperator as error:
            raise error.as_of_the_driver() from error
        if not wanted:
            return None
        project = cached_projection(wanted)
        check_constants(wanted)
        if project.positional is None:
            return project
        if after:
            raise failure(2, "cannot use a positional projection and return the new document")
        if take.mongo_only is not None:
            raise UnsupportedOperation("projection.$", "which element MongoDB alone has matched is not known here")
        matched = cached_filter(filter_of(self._take, filter))
        project.check(matched)
        return lambda document: project(document, matched)

    def _shown(self, applied: Sequence[Applied], shape: Callable[[Document], Document] | None, *, after: bool) -> Any:
        image: Image | None = (applied[0].post if after else applied[0].pre) if applied else None
        if image is None or image.document is None:
            return None
        document = image.document
        if type(document) is not dict and not (shape and isinstance(document, RawDocument)):
            shown = self._present(document)  # which holds more than its values do
            return shape(shown) if shape else shown
        return self._present(snapshot(shape(dict(document)) if shape else document))

    async def _update(
        self,
        verb: Verb,
        filter: Any,
        update: Any,
        array_filters: Any,
        *,
        upsert: bool,
        sort: Any = None,
        take: Arguments | None = None,
    ) -> list[Applied]:
        change = self._built_update(filter, update, array_filters, upsert=upsert, sort=sort, take=take)
        return await self._updated(verb, change)

    def _built_update(
        self,
        filter: Any,
        update: Any,
        array_filters: Any,
        *,
        upsert: bool,
        sort: Any = None,
        take: Arguments | None = None,
        after: bool = False,
    ) -> Update:
        """The update, with its faults in the server's order: array filters, update, filter, sort."""
        upsert = self._take.upsert(upsert)

        def build(take: Arguments) -> Update:
            check_filter(filter)
            change, filters = take.update(update, array_filters)
            wanted, order = filter_of(take, filter, upsert=upsert), take.sort(sort)
            only = take.mongo_only
            _check_change(wanted, change, filters, only)
            # By a collation, even an equality on `_id` may mean another key.
            key = key_in(wanted) if only is None else ANY
            only = only and dataclasses.replace(only, after=after)
            born = fresh_id() if upsert or isinstance(change, list) else ""
            new = ObjectId() if upsert else None
            return Update(key, wanted, change, born, upsert, filters, order, new, mongo_only=only)

        return self._built(take or self._take, build)

    async def _updated(self, verb: Verb, change: Update) -> list[Applied]:
        applied = await self._write(verb, change)
        if isinstance(change.update, list) and change.mongo_only is None:
            return by_pipeline(applied, change.update)
        return applied

    async def _replace(
        self,
        verb: Verb,
        filter: Any,
        replacement: Any,
        *,
        upsert: bool,
        sort: Any = None,
        take: Arguments | None = None,
    ) -> list[Applied]:
        change = self._built_replace(filter, replacement, upsert=upsert, sort=sort, take=take)
        return await self._replaced(verb, change)

    def _built_replace(
        self,
        filter: Any,
        replacement: Any,
        *,
        upsert: bool,
        sort: Any = None,
        take: Arguments | None = None,
    ) -> Replace:
        upsert = self._take.upsert(upsert)

        def build(take: Arguments) -> Replace:
            wanted, whole, order = (
                filter_of(take, filter, upsert=upsert),
                take.replacement(replacement),
                take.sort(sort),
            )
            key = key_in(wanted) if take.mongo_only is None else ANY
            if "_id" in whole:
                whole = with_id(whole, key)
            new = ObjectId() if upsert else None
            return Replace(key, wanted, whole, fresh_id(), upsert, order, new, mongo_only=take.mongo_only)

        return self._built(take or self._take, build)

    async def _replaced(self, verb: Verb, change: Replace) -> list[Applied]:
        applied = await self._write(verb, change)
        return [dataclasses.replace(each, rewritten="_id" not in change.replacement) for each in applied]

    async def _delete(self, verb: Verb, filter: Any, *, take: Arguments | None = None) -> list[Applied]:
        return await self._write(verb, self._built_delete(filter, take=take))

    def _built_delete(self, filter: Any, *, sort: Any = None, take: Arguments | None = None) -> Delete:
        def build(take: Arguments) -> Delete:
            wanted, order = filter_of(take, filter), take.sort(sort)
            key = key_in(wanted) if take.mongo_only is None else ANY
            return Delete(key, wanted, fresh_id(), order, take.mongo_only)

        return self._built(take or self._take, build)

    async def _write(self, verb: Verb, change: Update | Replace | Delete) -> list[Applied]:
        """Applies the change: to the document that the filter names by its key, or to the first match, which the
        primary finds. At most one is applied."""
        if not isinstance(change, Delete) and change.upsert and change.mongo_only is None:
            check_upsert(cached_filter(change.filter))
        applied = await self._router.write(self._name, verb, change)
        return [] if applied is None else [applied]

    # --- changes of many documents ------------------------------------------------------------------------------

    async def update_many(
        self,
        filter: Mapping[str, Any],
        update: Any,
        upsert: bool = False,
        array_filters: Any = None,
        **options: Any,
    ) -> UpdateResult:
        """Finds the matching documents on the primary first, and changes them in batches with the filter still
        attached. An error stops it, and changes that were made remain, as in MongoDB."""
        take = self._door("update_many", options)
        with as_write(self._present_reply):
            applied = await self._update_many(filter, update, array_filters, upsert=upsert, take=take)
        return updated(applied, self._present_reply)

    async def _update_many(
        self, filter: Any, update: Any, array_filters: Any, *, upsert: bool, take: Arguments | None = None
    ) -> Many:
        upsert = self._take.upsert(upsert)

        def build(take: Arguments) -> Update:
            wanted = filter_of(take, filter, upsert=upsert)
            change, filters = take.update(update, array_filters)
            _check_change(wanted, change, filters, take.mongo_only)
            return Update(ANY, wanted, change, "", False, filters, mongo_only=take.mongo_only)

        found = self._built(take or self._take, build)
        wanted, change, filters = found.filter, found.update, found.array_filters
        if found.mongo_only is not None:
            applied = await self._router.write_found(self._name, Verb.UPDATE_MANY, found)
            if not applied and upsert:
                take = self._passing(found.mongo_only.refusal)
                take.mongo_only = found.mongo_only
                return await self._update(Verb.UPDATE_MANY, filter, update, array_filters, upsert=True, take=take)
            return applied
        if upsert:
            check_upsert(cached_filter(wanted))
        keys = await self._router.keys_of(self._name, wanted)
        if not keys and upsert:
            return await self._update(Verb.UPDATE_MANY, filter, update, array_filters, upsert=True)
        births = fresh_ids(len(keys)) if isinstance(change, list) else ()
        changes = AlikeChanges(Update(ANY, wanted, change, "", False, filters), keys, births)
        made = await self._router.change_many(self._name, Verb.UPDATE_MANY, changes)
        return by_pipeline(made, change) if isinstance(change, list) else made

    async def delete_many(self, filter: Mapping[str, Any], **options: Any) -> DeleteResult:
        take = self._door("delete_many", options)
        with as_write(self._present_reply):
            return deleted(len(await self._delete_many(filter, take=take)))

    async def _delete_many(self, filter: Any, *, take: Arguments | None = None) -> Many:
        found = self._built(
            take or self._take, lambda take: Delete(ANY, filter_of(take, filter), "", mongo_only=take.mongo_only)
        )
        if found.mongo_only is not None:
            return await self._router.write_found(self._name, Verb.DELETE_MANY, found)
        keys = await self._router.keys_of(self._name, found.filter)
        changes = AlikeChanges(Delete(ANY, found.filter, ""), keys, fresh_ids(len(keys)))
        return await self._router.change_many(self._name, Verb.DELETE_MANY, changes)


def check_filter(filter: Any) -> None:
    """Raises TypeError for a filter of a write that is no mapping."""
    if not isinstance(filter, (dict, Mapping)):
        raise TypeError(f"filter must be an instance of a mapping, not {type(filter).__name__}")


def filter_of(take: Arguments, filter: Any, *, upsert: bool = False) -> Document:
    """The filter of a write. Raises TypeError, and what its arguments refuse."""
    check_filter(filter)
    wanted = take.filter(filter)
    if take.mongo_only is None and (name := chance_in_filter(wanted)):
        raise UnsupportedOperation(name, "in the filter of a write: each store would draw other documents", hint=_DRAWN)
    if upsert and is_collated(wanted):
        raise UnsupportedOperation("collation with an upsert", "DynamoDB compares by bytes")
    return wanted


def _check_change(filter: Document, update: Any, filters: Sequence[Document], only: MongoOnly | None) -> None:
    """Raises UnsupportedOperation, before anything is written, where the element for `$` is not known here, and for an
    update that draws values."""
    if only is None and cached_update(update, filters).positional:
        cached_filter(filter).check_positional()
    if only is None and isinstance(update, list) and (name := chance_in(update)):
        raise UnsupportedOperation(name, "in an update: the other store would draw other values", hint=_DRAWN)
