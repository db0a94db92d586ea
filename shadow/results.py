"""What goes out through the Motor surface: PyMongo's result objects and errors, with MongoDB's counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.errors import BulkWriteError, WriteError
from pymongo.results import DeleteResult, UpdateResult

from shadow.compare.equality import same
from shadow.model.operation import Applied, Insert
from shadow.model.outcome import Outcome, classify
from shadow.model.version import Document

__all__ = ["Tally", "deleted", "is_modified", "raise_for", "updated"]


def is_modified(applied: Applied) -> bool:
    """Whether a change of a standing document left it different. The version moves with every change, so the
    documents decide."""
    if applied.pre.document is None or applied.post.document is None:
        return False
    return not same(applied.pre.document, applied.post.document)


def updated(applied: Sequence[Applied]) -> UpdateResult:
    """The result of `update_one`, `update_many` or `replace_one` from what was applied."""
    upserted = next((each.post.document for each in applied if not each.pre.present), None)
    raw: dict[str, Any] = {
        "n": len(applied),
        "nModified": sum(map(is_modified, applied)),
        "ok": 1.0,
        "updatedExisting": bool(applied) and upserted is None,
    }
    if upserted is not None:
        raw["upserted"] = upserted["_id"]
    return UpdateResult(raw, acknowledged=True)


def deleted(count: int) -> DeleteResult:
    return DeleteResult({"n": count, "ok": 1.0}, acknowledged=True)


def raise_for(results: Sequence[Applied | Exception | None], changes: Sequence[Insert]) -> None:
    """Raises what `insert_many` raises: a BulkWriteError for refusals, the driver's error where the outcome is not
    known."""
    tally = Tally()
    for index, (result, change) in enumerate(zip(results, changes, strict=True)):
        if isinstance(result, Exception):
            tally.refused(index, result, change.document)
        elif result is not None:
            tally.inserted += 1
    tally.raise_refusals()


class Tally:
    """The counts of a bulk write, in the shape of PyMongo's details."""

    def __init__(self) -> None:
        self.inserted = self.matched = self.modified = self.removed = 0
        self._upserted: list[dict[str, Any]] = []
        self._errors: list[dict[str, Any]] = []

    def refused(self, index: int, error: Exception, operation: Document) -> None:
        """Notes a refusal. Raises `error` itself if it is none: then nobody knows what was written."""
        if not isinstance(error, WriteError) or classify(error) is Outcome.UNKNOWN:
            raise error
        details = {name: value for name, value in (error.details or {}).items() if name not in ("index", "op")}
        message = details.get("errmsg", str(error))
        self._errors.append({"index": index, "code": error.code, "errmsg": message, **details, "op": operation})

    def changed(self, index: int, applied: Sequence[Applied]) -> None:
        """Notes an update or a replacement."""
        for each in applied:
            if each.pre.present:
                self.matched += 1
                self.modified += is_modified(each)
            elif each.post.document is not None:
                self._upserted.append({"index": index, "_id": each.post.document["_id"]})

    @property
    def details(self) -> dict[str, Any]:
        return {
            "writeErrors": self._errors,
            "writeConcernErrors": [],
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

    def raise_refusals(self) -> None:
        if self._errors:
            raise BulkWriteError(self.details)
