"""Writes that bypass a collection's validator: a copy has the content of the other store, and a tombstone is not a
document of the application, so the validator must not reject either.

A bypass needs the action `bypassDocumentValidation`, which `readWrite` does not have, and the server checks it as soon
as the option is set. So a write is sent without the option first, and with it only if a validator has rejected it.
Codes: MongoDB's error_codes.yml.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pymongo.errors import BulkWriteError, OperationFailure, WriteError

__all__ = ["VALIDATION_FAILED", "RefusedByValidator", "past_validator", "refused_by_validator"]

T = TypeVar("T")

VALIDATION_FAILED: Final = 121
"""DocumentValidationFailure."""
_UNAUTHORIZED: Final = 13


class RefusedByValidator(WriteError):
    """The validator rejects a copy, and the user may not bypass it; code 121, like the server's own. The secondary
    cannot hold the document: the journal, and a job's issues, name it with the remedy."""

    def __init__(self, collection: str) -> None:
        text = (
            f"the validator of {collection} rejects a document of the other store (or a tombstone), and the user of "
            "MongoDB may not bypass it: grant the action bypassDocumentValidation on the collection"
        )
        super().__init__(text, VALIDATION_FAILED, {"code": VALIDATION_FAILED, "errmsg": text})


async def past_validator(collection: str, write: Callable[[bool], Awaitable[T]]) -> T:
    """The result of `write`: called with False, and again with True (to bypass the validator) if the collection's
    validator has rejected something. Raises what the driver raises, and `RefusedByValidator` if the user may not bypass
    it."""
    try:
        return await write(False)
    except OperationFailure as error:
        if not refused_by_validator(error):
            raise
    try:
        return await write(True)
    except OperationFailure as error:
        if error.code != _UNAUTHORIZED:
            raise
        raise RefusedByValidator(collection) from error


def refused_by_validator(error: OperationFailure) -> bool:
    """Whether the validator of a collection has rejected the write, or one of many."""
    if isinstance(error, BulkWriteError):
        faults = (error.details or {}).get("writeErrors", ())
        return any(fault.get("code") == VALIDATION_FAILED for fault in faults)
    return error.code == VALIDATION_FAILED
