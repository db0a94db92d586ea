"""Outcomes: what became of a request to a store. Acked, refused, or unknown; a write without an answer is *unknown*."""

from __future__ import annotations

import enum

from bson.errors import BSONError
from pymongo import errors as pm

from shadow.errors import JournalError, UnsupportedOperation

__all__ = ["Outcome", "classify", "refusal_of"]


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


_OF_THE_DOCUMENT = (pm.WriteError, pm.DocumentTooLarge, BSONError, OverflowError, ValueError)
_DOCUMENT_CODES = frozenset({15, 52, 55, 10334, 17419})
"""Overflow (nested too deep), DollarPrefixedFieldName, InvalidDBRef, BSONObjectTooLarge, and a result over 16 MB:
said of a whole command where the document is in it (MongoDB's error_codes.yml; 17419 stands in its update code)."""


def refusal_of(error: BaseException) -> str:
    """With what a store refuses to hold a document, whoever asks and however often: the class of the error and its
    code. "" if the error is of another kind, which may pass: the store, its tables or the rights in it."""
    code = getattr(error, "code", None)
    of_the_document = isinstance(error, _OF_THE_DOCUMENT) or code in _DOCUMENT_CODES
    if not of_the_document or classify(error) is not Outcome.REFUSED:
        return ""
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"
