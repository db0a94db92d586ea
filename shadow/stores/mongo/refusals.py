"""Rejections by the server as errors of the drivers, and the errors of single inserts in a bulk error."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import bson
from pymongo.errors import (
    DuplicateKeyError,
    OperationFailure,
    WriteConcernError,
    WriteError,
)

from shadow.model.outcome import TRANSIENT, Outcome, classify, marked
from shadow.model.version import Document
from shadow.stores.mongo.bytes import plain_errors

__all__ = ["done", "in_one_batch", "is_of_id", "is_of_write", "refusing", "write_concern_error", "write_error"]

_NOT_OF_THE_WRITE: Final = frozenset({13, 18, 59, 72, 115, 40324})
"""Codes of a command that the server did not run at all (Unauthorized, AuthenticationFailed, CommandNotFound,
InvalidOptions, CommandNotSupported, and an unknown stage of a pipeline; MongoDB's error_codes.yml)."""
_ILLEGAL: Final = 20
_NO_TRANSACTIONS: Final = "Transaction numbers are only allowed"
"""IllegalOperation, from a server that belongs to no replica set."""

_BATCH_COUNT: Final = 50_000
_BATCH_BYTES: Final = 24_000_000
"""Half of what servers accept in one message (`maxWriteBatchSize`, `maxMessageSizeBytes`): the driver splits larger
batches and sends them one after the other."""


async def refusing(call: Awaitable[Any]) -> Any:
    """Raises rejections of `findAndModify` as `WriteError`, like those of `update`: the drivers raise the former as a
    plain `OperationFailure`, its base class."""
    try:
        with plain_errors():
            return await call
    except OperationFailure as error:
        of_the_write = type(error) is OperationFailure and is_of_write(error)
        if not of_the_write or classify(error) is not Outcome.REFUSED:
            raise
        details = dict(error.details or {})
        raise WriteError(str(details.get("errmsg", "refused")), error.code, details) from error


def is_of_write(error: OperationFailure) -> bool:
    """Whether the server has refused one of a command's writes, and not the command, its user or its transaction."""
    if error.code == _ILLEGAL and _NO_TRANSACTIONS in str((error.details or {}).get("errmsg", error)):
        return False
    return error.code not in _NOT_OF_THE_WRITE and not error.has_error_label(TRANSIENT)


@contextmanager
def done() -> Iterator[None]:
    """For a write that the server has applied: an error while the response is read is not a rejection."""
    try:
        yield
    except Exception as error:
        marked(error, Outcome.UNKNOWN)
        raise


def is_of_id(error: WriteError) -> bool:
    """Whether a duplicate key is one of `_id`, and not of another unique index."""
    pattern = (error.details or {}).get("keyPattern")
    return pattern is None or dict(pattern) == {"_id": 1}


def write_error(fault: Mapping[str, Any]) -> WriteError:
    """One entry of a bulk error as the error that the single write would have raised."""
    kind = DuplicateKeyError if fault.get("code") in (11000, 11001, 12582) else WriteError
    return kind(fault.get("errmsg", ""), fault.get("code"), fault)


def write_concern_error(details: Mapping[str, Any]) -> WriteConcernError | None:
    """The first write concern error in the details of a bulk write: the writes are applied, and may be rolled back."""
    for each in details.get("writeConcernErrors") or ():
        return WriteConcernError(str(each.get("errmsg", "")), each.get("code"), dict(each))
    return None


def in_one_batch(raws: Sequence[Document]) -> bool:
    """Whether an error of the whole call applies to every document: nothing was sent before the batch that failed.
    False if earlier batches may have been sent, or that cannot be determined."""
    if len(raws) > _BATCH_COUNT:
        return False
    size = 0
    for raw in raws:
        try:
            size += len(bson.encode(raw))
        except Exception:
            # The driver stops at this document as well.
            return True
        if size > _BATCH_BYTES:
            return False
    return True
