"""Asking a store what a read asks: the one place where reads become calls of the stores' contract."""

from __future__ import annotations

from typing import Any

from shadow.model.operation import Hit
from shadow.model.reads import Aggregate, Count, Distinct, DocumentRead, Find, FindOne, Read
from shadow.stores.base import AnswersReads, ApplicationStore

__all__ = ["TooManyDocuments", "ask_documents", "ask_refusal", "ask_store"]


class TooManyDocuments(Exception):
    """A `Find` has more documents than its caller takes."""


async def ask_store(store: ApplicationStore, collection: str, read: Read, *, at_most: int = 0) -> Any:
    """The store's answer, in the form that the read's class names. Raises what the store raises, and
    `TooManyDocuments` for a `Find` of more than `at_most` documents (0: no limit)."""
    if not isinstance(read, FindOne | Find) and (read.mongo_only is not None or read.read_options is not None):
        if isinstance(store, AnswersReads):
            return await store.answer_read(collection, read)
        if read.mongo_only is not None:
            raise read.mongo_only.refusal.fresh()
    match read:
        case FindOne(query):
            return await store.find_one(collection, query)
        case Find(query):
            found: list[Hit] = []
            async for page in store.find(collection, query):
                found.extend(page)
                if at_most and len(found) > at_most:
                    raise TooManyDocuments
            return found
        case Count(filter, skip, limit):
            return await store.count(collection, filter, skip, limit)
        case Distinct(path, filter):
            return await store.distinct(collection, path, filter)
        case Aggregate(pipeline):
            return await store.aggregate(collection, pipeline)


async def ask_documents(store: ApplicationStore, collection: str, read: DocumentRead) -> list[Hit]:
    """The store's answer as a list, in which a `FindOne` has one document at most. Raises what the store raises."""
    found = await ask_store(store, collection, read)
    if isinstance(read, FindOne):
        return [] if found is None else [found]
    return list(found)


async def ask_refusal(store: ApplicationStore, collection: str, read: Read) -> None:
    """Asks as much as shows whether the store refuses the read: of a `Find` the first page. Raises what the store
    raises."""
    if not isinstance(read, Find):
        await ask_store(store, collection, read)
        return
    async for _ in store.find(collection, read.query):
        return
