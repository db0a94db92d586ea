"""The end of a pipeline, `$out` or `$merge`: its result is written to a collection.

Into a configured collection the library writes, by the same verbs as the application: with intents, versions and
replication. Into another one MongoDB writes by its own stage: at the end of its own pipeline, or over the documents
that DynamoDB has answered.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import bson
import pymongo
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.values import CANONICAL
from shadow.model.version import Document
from shadow.mongoql import cached_update
from shadow.mongoql.pipeline.outputs import Merge, Out, Output
from shadow.mongoql.values.failures import failure
from shadow.surface.calls.fixing import clock, fixed_pipeline

__all__ = ["Writer", "check_no_transaction", "sent_to_mongo"]

_TOGETHER: Final = 1000
"""Documents of one bulk write."""
_BYTES: Final = 8_000_000
"""Bytes of documents that one command has at most; the server's limit is 16 MB."""
_DUPLICATE: Final = 11000
_NO_MATCH: Final = "$merge could not find a matching document in the target collection for at least one document"


def check_no_transaction(session: Any, name: str) -> None:
    """Raises OperationFailure 263 for a stage that writes, in a transaction."""
    if session is not None and session.in_transaction:
        raise failure(263, f"{name} cannot be used in a transaction")


class Writer:
    """Writes a result to a configured collection, `target`, by its verbs. `options`: those of each call."""

    def __init__(self, target: Any, options: Mapping[str, Any]) -> None:
        self._target = target
        self._options = options

    async def check(self, output: Output) -> None:
        """Raises OperationFailure, before anything is computed, for a `$merge` that has no unique index for its `on`,
        and for what is wrong in its `let`."""
        if isinstance(output, Out):
            return
        if output.on != ("_id",) and not any(
            index.get("unique")
            and {path for path, _ in index["key"]} == set(output.on)
            and "partialFilterExpression" not in index
            for index in (await self._target.index_information()).values()
        ):
            raise failure(51183, "Cannot find index to verify that join fields will be unique")
        output.check_let()

    async def write(self, output: Output, documents: Sequence[Document]) -> None:
        """Raises OperationFailure with the server's codes. What was written before an error stays."""
        made = output.keyed(documents)
        if made and isinstance(output, Merge) and not isinstance(output.matched, str):
            cached_update(_stages(output, dict.fromkeys(output.names())))
        for document in made:
            if any(name.startswith("$") for name in document):
                raise UnsupportedOperation(output.name, "with a document whose name of a field begins with a dollar")
        if isinstance(output, Out):
            await self._replace_all(made)
        elif isinstance(output.matched, str):
            await self._merge(output, made)
        else:
            await self._merge_by_pipeline(output, made)

    # --- $out ---------------------------------------------------------------------------------------------------

    async def _replace_all(self, documents: Sequence[Document]) -> None:
        """New documents first, so that what is in both never lacks; then what is not in the result is deleted. Only a
        document that a unique value of a deleted one keeps out comes last."""
        blocked = await self._put(documents)
        wanted = {bson.encode({"": each["_id"]}) for each in documents}
        standing = self._target.find({}, {"_id": 1}, **self._options)
        keys = [each["_id"] for each in await standing.to_list(None)]
        stale = [key for key in keys if bson.encode({"": key}) not in wanted]
        for start in range(0, len(stale), _TOGETHER):
            await self._target.delete_many({"_id": {"$in": stale[start : start + _TOGETHER]}}, **self._options)
        if blocked:
            for error in (await self._put(blocked, errors=True))[:1]:
                raise _raised(error)

    async def _put(self, documents: Sequence[Document], *, errors: bool = False) -> list[Any]:
        """The documents that a unique value keeps out; with `errors`, their errors. Raises any other error."""
        found: list[Any] = []
        for start in range(0, len(documents), _TOGETHER):
            part = documents[start : start + _TOGETHER]
            requests = [pymongo.ReplaceOne({"_id": {"$eq": each["_id"]}}, each, upsert=True) for each in part]
            try:
                await self._target.bulk_write(requests, ordered=False, **self._options)
            except BulkWriteError as error:
                for each in error.details["writeErrors"]:
                    if each["code"] != _DUPLICATE:
                        raise _raised(each) from error
                    found.append(each if errors else part[each["index"]])
        return found

    # --- $merge -------------------------------------------------------------------------------------------------

    async def _merge(self, output: Merge, documents: Sequence[Document]) -> None:
        upsert = output.unmatched == "insert"
        for start in range(0, len(documents), _TOGETHER):
            part = documents[start : start + _TOGETHER]
            requests = [_request(output, each, upsert=upsert) for each in part]
            try:
                result = await self._target.bulk_write(requests, ordered=False, **self._options)
            except BulkWriteError as error:
                raise _raised(error.details["writeErrors"][0]) from error
            if output.unmatched == "fail" and result.matched_count < len(part):
                raise failure(13113, _NO_MATCH)

    async def _merge_by_pipeline(self, output: Merge, documents: Sequence[Document]) -> None:
        first: Exception | None = None
        for document in documents:
            try:
                await self._merge_one(output, document)
            except OperationFailure as error:
                first = first or error
        if first is not None:
            raise _as_command(first)

    async def _merge_one(self, output: Merge, document: Document) -> None:
        stages = _stages(output, output.variables(document))
        filter = output.filter(document)
        while not (await self._target.update_one(filter, stages, **self._options)).matched_count:
            if output.unmatched == "fail":
                raise failure(13113, _NO_MATCH)
            if output.unmatched == "discard":
                return
            try:
                await self._target.insert_one(dict(document), **self._options)
            except DuplicateKeyError:
                if await self._target.find_one(filter, **self._options) is None:
                    raise
            else:
                return


def _stages(output: Merge, variables: Mapping[str, Any]) -> list[Any]:
    """The pipeline for one document, in which its variables have their values."""
    return fixed_pipeline(output.matched, {**clock(), **variables}) or [{"$replaceWith": "$$ROOT"}]


def _request(output: Merge, document: Document, *, upsert: bool) -> Any:
    filter = output.filter(document)
    match output.matched:
        case "replace":
            return pymongo.ReplaceOne(filter, document, upsert=upsert)
        case "merge":
            return pymongo.UpdateOne(filter, {"$set": document}, upsert=upsert)
        case "keepExisting":
            return pymongo.UpdateOne(filter, {"$setOnInsert": document}, upsert=upsert)
        case _:
            return pymongo.InsertOne(dict(document))


def _raised(error: Mapping[str, Any]) -> OperationFailure:
    """One error of a bulk write, as the driver raises that of a command."""
    code, text = error["code"], str(error["errmsg"])
    details = {"ok": 0.0, "code": code, "errmsg": text}
    if code == _DUPLICATE:
        return DuplicateKeyError(text, code, details)
    return OperationFailure(text, code, details)


def _as_command(error: Exception) -> Exception:
    if isinstance(error, UnsupportedOperation) or not isinstance(error, OperationFailure):
        return error
    return _raised({"code": error.code, "errmsg": str(error)})


# --- into a collection that is MongoDB's alone -------------------------------------------------------------------


async def sent_to_mongo(database: Any, stage: Document, output: Output, documents: Sequence[Document]) -> None:
    """Has MongoDB's own stage write documents that were computed here. `database`: the driver's."""
    database = database.with_options(codec_options=CANONICAL)
    parts = list(_parts(documents))
    if len(parts) == 1 or isinstance(output, Merge):
        for part in parts:
            await _ended(database.aggregate([{"$documents": {"$literal": part}}, stage]))
        return
    # The stage replaces the collection at once, so all of its documents must be there before.
    name = f"tmp.shadow-out.{uuid.uuid4().hex}"
    try:
        for part in parts:
            await _ended(database.aggregate([{"$documents": {"$literal": part}}, {"$merge": {"into": name}}]))
        await _ended(database[name].aggregate([stage]))
    finally:
        await database[name].drop()


async def _ended(made: Any) -> None:
    made = await made if inspect.isawaitable(made) else made
    await made.to_list(None)


def _parts(documents: Sequence[Document]) -> Sequence[list[Document]]:
    parts: list[list[Document]] = [[]]
    size = 0
    for document in documents:
        bytes_of_it = len(bson.encode(document))
        if parts[-1] and (size + bytes_of_it > _BYTES or len(parts[-1]) >= 10 * _TOGETHER):
            parts.append([])
            size = 0
        parts[-1].append(document)
        size += bytes_of_it
    return parts
