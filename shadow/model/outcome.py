"""Outcomes: what became of a request to a store. Acked, refused, or unknown; a write without an answer is *unknown*."""

from __future__ import annotations

import enum

from bson.errors import BSONError
from pymongo import errors as pm

from shadow.errors import JournalError, UnsupportedOperation

__all__ = ["Outcome", "classify"]


class Outcome(enum.StrEnum):
    ACKED = "acked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


# Codes after which the server may still have done the write. Source: the retryable and network codes of MongoDB's
# retryable-writes specification, plus the write-concern and time-limit codes, which say nothing about the data.
UNKNOWN_CODES = frozenset(
    {6, 7, 50, 64, 79, 89, 91, 100, 189, 262, 317, 358, 9001, 10107, 10058, 11600, 11602, 13388, 13435, 13436, 24, 237}
)

_REFUSED = (
    UnsupportedOperation,
    JournalError,
    BSONError,
    pm.DuplicateKeyError,
    pm.WriteError,
    pm.DocumentTooLarge,
    pm.InvalidOperation,
    pm.InvalidName,
    pm.ConfigurationError,
    TypeError,
    ValueError,
    OverflowError,
)


def classify(error: BaseException) -> Outcome:
    """What `error`, raised by a store, says about the write. Anything that is not known to be a refusal is unknown."""
    if isinstance(error, pm.WTimeoutError | pm.WriteConcernError | pm.ExecutionTimeout):
        return Outcome.UNKNOWN
    if isinstance(error, pm.WriteError | pm.OperationFailure) and not isinstance(error, UnsupportedOperation):
        return Outcome.UNKNOWN if error.code is None or error.code in UNKNOWN_CODES else Outcome.REFUSED
    return Outcome.REFUSED if isinstance(error, _REFUSED) else Outcome.UNKNOWN
