"""Outcomes: what became of a request to a store. Acked, refused, or unknown; a write without an answer is *unknown*.

One table, `CLASSES`, says it for every class of the drivers' errors; for those that carry a code of the server,
`REFUSED_CODES` and `ASSERTIONS` do. **What is not in the table is unknown**, which is always safe: the intent stays,
and a heal finds out. "Refused" ends the intent, so a row says it only where the write cannot have been done, neither
now nor by an earlier attempt of the driver's own (it sends a write once more after a lost connection).

A write concern error is unknown too: the write has been done, on the primary member at least, and may be rolled back.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from bson import errors as bs
from pymongo import errors as pm

from shadow.errors import JournalError, UnreadableDocument, UnsupportedOperation

__all__ = ["ASSERTIONS", "CLASSES", "REFUSED_CODES", "Outcome", "classify", "marked", "refusal_of"]

E = TypeVar("E", bound=BaseException)


class Outcome(enum.StrEnum):
    ACKED = "acked"
    REFUSED = "refused"
    UNKNOWN = "unknown"


_REFUSED, _UNKNOWN = Outcome.REFUSED, Outcome.UNKNOWN

REFUSED_CODES: Final[Mapping[int, str]] = {
    2: "BadValue",
    4: "NoSuchKey",
    5: "GraphContainsCycle",
    9: "FailedToParse",
    13: "Unauthorized",
    14: "TypeMismatch",
    15: "Overflow",
    16: "InvalidLength",
    20: "IllegalOperation",
    22: "InvalidBSON",
    26: "NamespaceNotFound",
    27: "IndexNotFound",
    28: "PathNotViable",
    29: "NonExistentPath",
    30: "InvalidPath",
    34: "CannotBackfillArray",
    40: "ConflictingUpdateOperators",
    47: "NoMatchingDocument",
    48: "NamespaceExists",
    52: "DollarPrefixedFieldName",
    53: "InvalidIdField",
    54: "NotSingleValueField",
    55: "InvalidDBRef",
    56: "EmptyFieldName",
    57: "DottedFieldName",
    59: "CommandNotFound",
    61: "ShardKeyNotFound",
    66: "ImmutableField",
    67: "CannotCreateIndex",
    68: "IndexAlreadyExists",
    72: "InvalidOptions",
    73: "InvalidNamespace",
    84: "DuplicateKeyValue",
    85: "IndexOptionsConflict",
    86: "IndexKeySpecsConflict",
    97: "NoProjectionFound",
    112: "WriteConflict",
    115: "CommandNotSupported",
    116: "DocTooLargeForCapped",
    121: "DocumentValidationFailure",
    146: "ExceededMemoryLimit",
    159: "DurationOverflow",
    165: "ViewDepthLimitExceeded",
    166: "CommandNotSupportedOnView",
    167: "OptionNotSupportedOnView",
    168: "InvalidPipelineOperator",
    169: "CommandOnShardedViewNotSupportedOnMongod",
    171: "CannotIndexParallelArrays",
    197: "InvalidIndexSpecificationOption",
    224: "QueryFeatureNotAllowed",
    238: "NotImplemented",
    241: "ConversionFailure",
    291: "NoQueryExecutionPlans",
    292: "QueryExceededMemoryLimitNoDiskUseAllowed",
    10334: "BSONObjectTooLarge",
    11000: "DuplicateKey",
    11001: "DuplicateKey, of old",
    12582: "DuplicateKey, of old, from a router",
}
"""Codes with which the server refuses a statement: none of it is done. Names and numbers from its error_codes.yml.
AuthenticationFailed is not among them: it comes from a connection made again, after an attempt that had no answer."""

ASSERTIONS: Final = (
    range(15_000, 18_000),
    range(28_500, 29_000),
    range(31_000, 35_000),
    range(40_000, 41_000),
    range(50_500, 52_000),
    range(3_000_000, 13_000_000),
)
"""The numbers ("Location16872") under which the server's assertions stand that name no code of error_codes.yml: of its
parsers and expressions, all of which come before the statement has changed anything. Newer ones are made of the number
of an issue, hence the last range."""

CLASSES: Final[Mapping[type[BaseException], Outcome | None]] = {
    # Of this library: raised before the store is asked.
    UnsupportedOperation: _REFUSED,
    JournalError: _REFUSED,
    UnreadableDocument: _REFUSED,
    # A value that cannot be encoded, so nothing was sent; UnicodeDecodeError is of an answer.
    TypeError: _REFUSED,
    ValueError: _REFUSED,
    OverflowError: _REFUSED,
    UnicodeDecodeError: _UNKNOWN,
    bs.BSONError: _UNKNOWN,
    bs.InvalidBSON: _UNKNOWN,  # the answer cannot be decoded: the write was done
    bs.InvalidDocument: _REFUSED,
    bs.InvalidId: _REFUSED,
    bs.InvalidStringData: _REFUSED,
    # Of the driver, by itself.
    pm.PyMongoError: _UNKNOWN,
    pm.ProtocolError: _UNKNOWN,
    pm.ConnectionFailure: _UNKNOWN,
    pm.AutoReconnect: _UNKNOWN,
    pm.NetworkTimeout: _UNKNOWN,
    pm.NotPrimaryError: _UNKNOWN,
    # These are raised before anything is sent, of a second attempt too: the first may have been done.
    pm.ServerSelectionTimeoutError: _UNKNOWN,
    pm.WaitQueueTimeoutError: _UNKNOWN,
    pm.ConfigurationError: _UNKNOWN,
    pm.InvalidURI: _UNKNOWN,
    pm.InvalidOperation: _UNKNOWN,
    pm.InvalidName: _REFUSED,
    pm.CollectionInvalid: _REFUSED,
    pm.DocumentTooLarge: _REFUSED,
    pm.EncryptionError: _UNKNOWN,  # of the answer, perhaps
    pm.EncryptedCollectionError: _UNKNOWN,
    # Of the server. None: its code decides.
    pm.OperationFailure: None,
    pm.WriteError: None,
    pm.DuplicateKeyError: _REFUSED,
    pm.CursorNotFound: _UNKNOWN,
    pm.ExecutionTimeout: _UNKNOWN,
    pm.WriteConcernError: _UNKNOWN,
    pm.WTimeoutError: _UNKNOWN,
    # Of many writes: see `_of_many`.
    pm.BulkWriteError: None,
    pm.ClientBulkWriteException: _UNKNOWN,
}
"""Class to outcome. Every public class of `pymongo.errors` and `bson.errors` has a row (a test says so); a class
without one, a driver's newer one too, is unknown."""

_DRIVERS: Final = ("pymongo.", "bson.", "motor.")
_MARK: Final = "_shadow_outcome"


def marked(error: E, outcome: Outcome) -> E:
    """`error`, which from now on counts as `outcome`: for whoever raises it and knows more than its class says."""
    error.__dict__[_MARK] = outcome
    return error


def classify(error: BaseException) -> Outcome:
    """What `error`, raised by a store, says about the write. Anything that is not known to be a refusal is unknown."""
    mark: Outcome | None = error.__dict__.get(_MARK)
    if mark is not None:
        return mark
    for kind in type(error).__mro__:
        if kind in CLASSES:
            outcome = CLASSES[kind]
            return _of_server(error) if outcome is None else outcome
        if kind.__module__.startswith(_DRIVERS):
            return _UNKNOWN
    return _UNKNOWN


def _of_server(error: BaseException) -> Outcome:
    assert isinstance(error, pm.OperationFailure)
    if isinstance(error, pm.BulkWriteError):
        return _of_many(error.details or {})
    if error.has_error_label("RetryableWriteError"):
        return _UNKNOWN
    return _of_code(error.code)


def _of_many(details: Mapping[str, Any]) -> Outcome:
    """Refused only if each of the writes was, and none was done; what they came to one by one, the details say."""
    done = any(details.get(name) for name in ("nInserted", "nUpserted", "nMatched", "nModified", "nRemoved"))
    faults = details.get("writeErrors")
    if done or not faults or details.get("writeConcernErrors"):
        return _UNKNOWN
    return _REFUSED if all(_of_code(each.get("code")) is _REFUSED for each in faults) else _UNKNOWN


def _of_code(code: object) -> Outcome:
    refused = isinstance(code, int) and (code in REFUSED_CODES or any(code in numbers for numbers in ASSERTIONS))
    return _REFUSED if refused else _UNKNOWN


_OF_THE_DOCUMENT = (pm.WriteError, pm.DocumentTooLarge, bs.BSONError, OverflowError, ValueError)
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
