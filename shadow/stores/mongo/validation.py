"""Writes past a collection's validator: a copy holds what the other store holds, and a tombstone is no document of the
application, so neither is for a validator to judge.

To pass by one takes the action `bypassDocumentValidation`, which `readWrite` does not have, and the server wants it for
the mere option. So a write goes without the option first, and with it only where a validator has refused it.
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
    """The validator refuses a copy, and the user may not pass by it; code 121, as the server's own. So the document is
    one that the secondary refuses to hold: it is named in the journal, and in a job's issues, with what to do."""

    def __init__(self, collection: str) -> None:
        text = (
            f"the validator of {collection} refuses what the other store holds (or a tombstone), and the user of "
            "MongoDB may not pass by it: grant the action bypassDocumentValidation on the collection"
        )
        super().__init__(text, VALIDATION_FAILED, {"code": VALIDATION_FAILED, "errmsg": text})


async def past_validator(collection: str, write: Callable[[bool], Awaitable[T]]) -> T:
    """What `write` answers: called with False, and again with True (to pass by the validator) if the collection's
    validator has refused something. Raises what the driver raises, and `RefusedByValidator` where the user may not pass
    by it."""
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
    """Whether the validator of a collection has refused the write, or one of many."""
    if isinstance(error, BulkWriteError):
        faults = (error.details or {}).get("writeErrors", ())
        return any(fault.get("code") == VALIDATION_FAILED for fault in faults)
    return error.code == VALIDATION_FAILED
