"""The control store in one collection of MongoDB, through PyMongo's own synchronous client.

Writes are acknowledged by a majority and its disks, reads go to the primary with read concern majority: what a process
was acknowledged, every later read of any process shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import bson
from bson import Binary
from pymongo import MongoClient, ReadPreference, ReplaceOne
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from shadow.control.records import MISSING, Record, Value
from shadow.errors import ControlError
from shadow.model.values import CANONICAL
from shadow.model.version import fresh_id

__all__ = ["MongoRecords"]

_PATIENCE: Final = 5.0
"""Seconds for one request, in all its attempts."""
_NO_RIGHTS: Final = frozenset({13, 18, 8000})
"""Unauthorized, AuthenticationFailed (MongoDB's error_codes.yml), and Atlas' own code for both."""


class MongoRecords:
    """See `records.Records`. A document holds `_id` the key, `v` the value as BSON, `r` the revision. Connects on first
    use; `patience`: seconds for one request."""

    def __init__(self, url: str, database: str, collection: str, *, patience: float = _PATIENCE) -> None:
        self._url = url
        self._names = database, collection
        self._limit = int(patience * 1000)
        self._opened: Collection[dict[str, Any]] | None = None

    @property
    def place(self) -> str:
        return f"mongodb {'.'.join(self._names)}"

    def prepare(self) -> None:
        with self._using() as records:
            records.find_one({"_id": ""})

    def get(self, key: str) -> Record | None:
        with self._using() as records:
            found = records.find_one({"_id": key})
        return None if found is None else _record(found)

    def scan(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[Record]:
        chosen = {"_id": {"$regex": f"^{re.escape(prefix)}", "$gt": after}}
        with self._using() as records:
            return [_record(each) for each in records.find(chosen).sort("_id").limit(limit or 0)]

    def put(self, key: str, value: Value, *, expected: str | None = None) -> str | None:
        made = _document(key, value)
        with self._using() as records:
            if expected is None:
                records.replace_one({"_id": key}, made, upsert=True)
            elif expected == MISSING:
                try:
                    records.insert_one(made)
                except DuplicateKeyError:
                    return self._own(key, made)
            elif not records.replace_one({"_id": key, "r": expected}, made).matched_count:
                return self._own(key, made)
        return str(made["r"])

    def _own(self, key: str, made: Mapping[str, Any]) -> str | None:
        """The driver repeats a write whose answer was lost: what it meets may be its own first attempt."""
        found = self.get(key)
        return found.revision if found is not None and found.revision == made["r"] else None

    def put_many(self, values: Mapping[str, Value]) -> None:
        if values:
            writes = [ReplaceOne({"_id": key}, _document(key, value), upsert=True) for key, value in values.items()]
            with self._using() as records:
                records.bulk_write(writes, ordered=False)

    def delete(self, key: str, *, expected: str | None = None) -> bool:
        chosen = {"_id": key} if expected is None else {"_id": key, "r": expected}
        with self._using() as records:
            return records.delete_one(chosen).deleted_count > 0

    def delete_all(self, prefix: str) -> int:
        with self._using() as records:
            return records.delete_many({"_id": {"$regex": f"^{re.escape(prefix)}"}}).deleted_count

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.database.client.close()

    @contextmanager
    def _using(self) -> Iterator[Collection[dict[str, Any]]]:
        try:
            if self._opened is None:
                self._opened = self._open()
            yield self._opened
        except PyMongoError as error:
            raise _explained(error) from error

    def _open(self) -> Collection[dict[str, Any]]:
        client: MongoClient[dict[str, Any]] = MongoClient(
            self._url,
            serverSelectionTimeoutMS=self._limit,
            connectTimeoutMS=self._limit,
            timeoutMS=self._limit,
            maxPoolSize=8,
            appname="shadow-control",
        )
        database, name = self._names
        return client.get_database(database).get_collection(
            name,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )


def _document(key: str, value: Value) -> dict[str, Any]:
    return {"_id": key, "v": Binary(bson.encode(value)), "r": fresh_id()}


def _record(found: Mapping[str, Any]) -> Record:
    return Record(found["_id"], bson.decode(found["v"], codec_options=CANONICAL), found["r"])


def _explained(error: PyMongoError) -> ControlError:
    if isinstance(error, OperationFailure) and error.code in _NO_RIGHTS:
        return ControlError(
            f"MongoDB refused the control store (code {error.code})",
            hint="check the credentials in control.url: readWrite is needed",
        )
    if isinstance(error, ConnectionFailure) or error.timeout:
        return ControlError(
            f"the control store did not answer ({type(error).__name__})",
            hint="check that the server in control.url runs, has a primary, and can be reached",
        )
    return ControlError(
        f"the control store failed ({type(error).__name__})", hint="look into the log of the server in control.url"
    )
