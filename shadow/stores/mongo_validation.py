"""Writes past a collection's validator: a copy holds what the other store holds, and a tombstone is no document of the
application, so neither is for a validator to judge.

To pass by one takes the action `bypassDocumentValidation`, which `readWrite` does not have, and the server wants it for
the mere option. So a write goes without the option first, and with it only where a validator has refused it.
Codes: MongoDB's error_codes.yml.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pymongo.errors import BulkWriteError, OperationFailure

__all__ = ["VALIDATION_FAILED", "past_validator", "refused_by_validator"]

T = TypeVar("T")

VALIDATION_FAILED: Final = 121
"""DocumentValidationFailure."""
_UNAUTHORIZED: Final = 13


async def past_validator(collection: str, write: Callable[[bool], Awaitable[T]]) -> T:
    """What `write` answers: called with False, and again with True (to pass by the validator) if the collection's
    validator has refused something. Raises what the driver raises; OperationFailure, code 13, with the missing right in
    its text where the user may not pass by it."""
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
        raise OperationFailure(
            f"the validator of {collection} refuses what the other store holds (or a tombstone), and the user of "
            "MongoDB may not pass by it: grant the action bypassDocumentValidation on the collection",
            _UNAUTHORIZED,
            error.details,
        ) from error


def refused_by_validator(error: OperationFailure) -> bool:
    """Whether the validator of a collection has refused the write, or one of many."""
    if isinstance(error, BulkWriteError):
        faults = (error.details or {}).get("writeErrors", ())
        return any(fault.get("code") == VALIDATION_FAILED for fault in faults)
    return error.code == VALIDATION_FAILED
