"""The results of the Motor surface: PyMongo's result objects and errors, with MongoDB's counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, WriteConcernError, WriteError
from pymongo.results import DeleteResult, UpdateResult

from shadow.compare.equality import same_after
from shadow.model.batches import Made
from shadow.model.operation import Applied
from shadow.model.outcome import Outcome, classify, details_of
from shadow.model.version import Document
from shadow.mongoql import cached_update
from shadow.mongoql.values.failures import UnknownOperator
from shadow.mongoql.values.references import with_references
from shadow.stores.mongo.refusals import is_of_write

__all__ = [
    "BulkTally",
    "Many",
    "as_command",
    "as_inserted",
    "as_write",
    "by_pipeline",
    "deleted",
    "inserted_id",
    "inserted_ids",
    "is_modified",
    "show_values",
    "updated",
]

_OF_STATEMENT: Final = ("keyPattern", "keyValue", "errInfo")
"""What the error of a statement says besides its code and its text."""

Many: TypeAlias = Sequence[Applied] | Made
"""What one call has applied. `Made` are changes of documents that were there."""
Present = Callable[[Document], Any]
"""Shows a canonical document in the types of the application's codec options."""


def show_values(error: Exception, present: Present) -> None:
    """Puts the values of a duplicate key into the application's types, as the driver decodes the server's answer."""
    details = getattr(error, "details", None)
    if isinstance(details, MutableMapping) and "keyValue" in details:
        details["keyValue"] = present(with_references({"": details["keyValue"]}))[""]


@contextmanager
def as_inserted(present: Present) -> Iterator[None]:
    """Shows the values in the errors of an insert."""
    try:
        yield
    except OperationFailure as error:
        show_values(error, present)
        raise


@contextmanager
def as_write(present: Present) -> Iterator[None]:
    """Errors of the commands `update` and `delete` are errors of one of their writes, to the drivers a `WriteError`:
    for an invalid filter as well as for an invalid update."""
    try:
        yield
    except OperationFailure as error:
        show_values(error, present)
        if type(error) in (WriteError, DuplicateKeyError) and "index" not in (error.details or {"index": 0}):
            told = _of_statement(error)
            if told is error:
                raise
            raise told from error
        refused = type(error) in (OperationFailure, UnknownOperator) and classify(error) is Outcome.REFUSED
        if not refused or not is_of_write(error):
            raise
        text = _text(error)
        raise WriteError(text, error.code, {"index": 0, "code": error.code, "errmsg": text}) from error


@contextmanager
def as_command(present: Present) -> Iterator[None]:
    """Errors of `findAndModify` are errors of the command, to the drivers an `OperationFailure`, except for
    duplicates."""
    try:
        yield
    except WriteError as error:
        show_values(error, present)
        text, code = _text(error), error.code or 0
        if type(error) is DuplicateKeyError and "index" in (error.details or {}):
            parts = {name: value for name, value in (error.details or {}).items() if name != "index"}
            raise DuplicateKeyError(text, code, {**details_of(code, text), **parts}) from error
        if type(error) is not WriteError or classify(error) is not Outcome.REFUSED:
            raise
        raise OperationFailure(text, code, details_of(code, text)) from error


def _of_statement(error: OperationFailure) -> OperationFailure:
    """The error of `findAndModify`, which has made the write, as that of a statement."""
    if classify(error) is not Outcome.REFUSED or not is_of_write(error):
        return error
    parts = {name: value for name, value in (error.details or {}).items() if name in _OF_STATEMENT}
    return type(error)(_text(error), error.code or 0, {"index": 0, "code": error.code, "errmsg": _text(error), **parts})


def _text(error: OperationFailure) -> str:
    return str((error.details or {}).get("errmsg") or error)


def is_modified(applied: Applied) -> bool:
    """Whether a change of an existing document modified it. The version moves with every change, so the documents
    decide."""
    if applied.modified is not None:
        return applied.rewritten or applied.modified
    if applied.pre.document is None or applied.post.document is None:
        return False
    return applied.rewritten or not same_after(applied.pre.document, applied.post.document)


def by_pipeline(applied: Many, stages: Sequence[Document]) -> list[Applied]:
    """The result of a pipeline of updates. MongoDB restores an `_id` that the pipeline removed after it has determined
    that the document changed, so removing only the `_id` counts as modified."""
    update = cached_update(stages)

    def lost(each: Applied) -> bool:
        if each.pre.document is None or is_modified(each):
            return False
        return update.loses_key(dict(each.pre.document))

    return [dataclasses.replace(each, rewritten=True) if lost(each) else each for each in applied]


def _modified(applied: Many) -> int:
    return applied.modified(is_modified) if isinstance(applied, Made) else sum(map(is_modified, applied))


def updated(applied: Many, present: Present) -> UpdateResult:
    """The result of `update_one`, `update_many` or `replace_one` from what was applied."""
    upserted = None
    if not isinstance(applied, Made):
        upserted = next((each.post.document for each in applied if not each.pre.present), None)
    raw: dict[str, Any] = {
        "n": len(applied),
        **({} if upserted is None else {"upserted": present({"_id": upserted["_id"]})["_id"]}),
        "nModified": _modified(applied),
        "ok": 1.0,
        "updatedExisting": len(applied) > 0 and upserted is None,
    }
    return UpdateResult(raw, acknowledged=True)


def inserted_id(document: Any) -> Any:
    """The id that the drivers name of a document that was inserted: of raw bytes they know none."""
    return None if isinstance(document, RawBSONDocument) else document["_id"]


def inserted_ids(documents: Iterable[Any]) -> list[Any]:
    """Likewise of several."""
    return [each["_id"] for each in documents if not isinstance(each, RawBSONDocument)]


def deleted(count: int) -> DeleteResult:
    return DeleteResult({"n": count, "ok": 1.0}, acknowledged=True)


class BulkTally:
    """The counts of a bulk write, in the shape of PyMongo's details."""

    def __init__(self, present: Present) -> None:
        self._present = present
        self.inserted = self.matched = self.modified = self.removed = 0
        self._upserted: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []
        self._concerns: list[WriteConcernError] = []

    def failed(self, index: int, error: Exception, operation: Document) -> None:
        """Records the server's error for one write. Raises `error` itself if it is of another kind: then it is unknown
        what was written."""
        if not isinstance(error, WriteError):
            raise error
        details = {name: value for name, value in (error.details or {}).items() if name not in ("index", "op")}
        message = details.get("errmsg", str(error))
        self._errors.append({"index": index, "code": error.code, "errmsg": message, **details, "op": operation})
        self._errors.sort(key=lambda each: int(each["index"]))

    def unsafe(self, error: WriteConcernError) -> None:
        """Records a write concern error. One error of many writes is recorded once."""
        if error not in self._concerns:
            self._concerns.append(error)

    def made(self, index: int, applied: Many, *, removed: bool) -> None:
        """Records the result of an update, a replacement or a delete."""
        if removed:
            self.removed += len(applied)
            return
        if isinstance(applied, Made):
            self.matched += len(applied)
            self.modified += _modified(applied)
            return
        for each in applied:
            if each.pre.present:
                self.matched += 1
                self.modified += is_modified(each)
            elif each.post.document is not None:
                self._upserted.append({"index": index, "_id": self._key(each.post.document)})

    def _key(self, document: Document) -> Any:
        return self._present({"_id": document["_id"]})["_id"]

    @property
    def details(self) -> dict[str, Any]:
        return {
            "writeErrors": self._errors,
            "writeConcernErrors": [dict(each.details or {}) for each in self._concerns],
            "nInserted": self.inserted,
            "nUpserted": len(self._upserted),
            "nMatched": self.matched,
            "nModified": self.modified,
            "nRemoved": self.removed,
            "upserted": self._upserted,
        }

    @property
    def has_errors(self) -> bool:
        return bool(self._errors)

    def raise_errors(self) -> None:
        if self._errors or self._concerns:
            raise BulkWriteError(self.details)
