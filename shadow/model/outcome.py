"""Outcomes of a request to a store: acknowledged, refused, or unknown. A write without an answer is *unknown*.

The table `CLASSES` gives the outcome for every class of the drivers' errors; for errors with a server code,
`REFUSED_CODES` and `ASSERTIONS` do. **Anything that is not in the table is unknown**, which is always safe: the intent
stays, and a repair finds out. "Refused" closes the intent, so a row has it only if the write cannot have been done,
neither now nor by an earlier attempt of the driver (which retries a write after a lost connection).

A write concern error is unknown too: the write was done, at least on the primary member, and may be rolled back.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from bson import errors as bs
from pymongo import errors as pm

from shadow.errors import JournalError, UnreadableDocument, UnsupportedOperation
from shadow.model.intervals import Interval

__all__ = [
    "ASSERTIONS",
    "CLASSES",
    "REFUSED_CODES",
    "TRANSIENT",
    "UNKNOWN_COMMIT",
    "Outcome",
    "classify",
    "details_of",
    "is_denied",
    "marked",
    "refusal_of",
    "transient",
]

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
    139: "JSInterpreterFailure",
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
"""Codes with which the server refuses a statement without doing any of it. Names and numbers are from its
error_codes.yml. AuthenticationFailed is not included: it may come from a reconnect after an attempt without an
answer."""

ASSERTIONS: Final = (
    Interval(15_000, 18_000),
    Interval(28_500, 29_000),
    Interval(31_000, 35_000),
    Interval(40_000, 41_000),
    Interval(50_500, 52_000),
    Interval(3_000_000, 13_000_000),
)
"""Numbers ("Location16872") of server assertions without a name in error_codes.yml: those of its parsers and
expressions, which all fail before the statement changes anything. Newer ones derive from issue numbers, hence the last
range."""

CLASSES: Final[Mapping[type[BaseException], Outcome | None]] = {
    # shadow's own: raised before the store is asked.
    UnsupportedOperation: _REFUSED,
    JournalError: _REFUSED,
    UnreadableDocument: _REFUSED,
    # A value that cannot be encoded, so nothing was sent. UnicodeDecodeError comes from an answer.
    TypeError: _REFUSED,
    ValueError: _REFUSED,
    OverflowError: _REFUSED,
    UnicodeDecodeError: _UNKNOWN,
    bs.BSONError: _UNKNOWN,
    bs.InvalidBSON: _UNKNOWN,  # the answer cannot be decoded: the write was done
    bs.InvalidDocument: _REFUSED,
    bs.InvalidId: _REFUSED,
    bs.InvalidStringData: _REFUSED,
    # The driver's own.
    pm.PyMongoError: _UNKNOWN,
    pm.ProtocolError: _UNKNOWN,
    pm.ConnectionFailure: _UNKNOWN,
    pm.AutoReconnect: _UNKNOWN,
    pm.NetworkTimeout: _UNKNOWN,
    pm.NotPrimaryError: _UNKNOWN,
    # Raised before anything is sent, but perhaps in a retry: the first attempt may have been done.
    pm.ServerSelectionTimeoutError: _UNKNOWN,
    pm.WaitQueueTimeoutError: _UNKNOWN,
    pm.ConfigurationError: _UNKNOWN,
    pm.InvalidURI: _UNKNOWN,
    pm.InvalidOperation: _UNKNOWN,
    pm.InvalidName: _REFUSED,
    pm.CollectionInvalid: _REFUSED,
    pm.DocumentTooLarge: _REFUSED,
    pm.EncryptionError: _UNKNOWN,  # perhaps from the answer
    pm.EncryptedCollectionError: _UNKNOWN,
    # The server's. None: the code decides.
    pm.OperationFailure: None,
    pm.WriteError: None,
    pm.DuplicateKeyError: _REFUSED,
    pm.CursorNotFound: _UNKNOWN,
    pm.ExecutionTimeout: _UNKNOWN,
    pm.WriteConcernError: _UNKNOWN,
    pm.WTimeoutError: _UNKNOWN,
    # For several writes: see `_of_many`.
    pm.BulkWriteError: None,
    pm.ClientBulkWriteException: _UNKNOWN,
}
"""The outcome by class. Every public class of `pymongo.errors` and `bson.errors` has a row, which a test checks. A
class without a row, for example of a newer driver, is unknown."""

_DRIVERS: Final = ("pymongo.", "bson.", "motor.")
_MARK: Final = "_shadow_outcome"


def marked(error: E, outcome: Outcome) -> E:
    """`error`, marked with an outcome by code that knows more than the class of the error says."""
    error.__dict__[_MARK] = outcome
    return error


TRANSIENT: Final = "TransientTransactionError"
"""The drivers' label of an error after which the whole transaction may be tried again (transactions specification)."""
UNKNOWN_COMMIT: Final = "UnknownTransactionCommitResult"
"""Likewise, after which the commit may be tried again."""
_NO_SUCH_TRANSACTION: Final = 251


def transient(text: str) -> pm.OperationFailure:
    """The error of a transaction that has not been committed and never will be: the server's of one that it does not
    know any more."""
    code = _NO_SUCH_TRANSACTION
    details = {"errorLabels": [TRANSIENT], "ok": 0.0, "errmsg": text, "code": code, "codeName": "NoSuchTransaction"}
    return marked(pm.OperationFailure(text, code, details), Outcome.REFUSED)


def classify(error: BaseException) -> Outcome:
    """What `error`, raised by a store, means for the write. Anything that is not known to be a refusal is unknown."""
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
    """Refused only if every write was refused and none was done; the details give the single outcomes."""
    done = any(details.get(name) for name in ("nInserted", "nUpserted", "nMatched", "nModified", "nRemoved"))
    faults = details.get("writeErrors")
    if done or not faults or details.get("writeConcernErrors"):
        return _UNKNOWN
    return _REFUSED if all(_of_code(each.get("code")) is _REFUSED for each in faults) else _UNKNOWN


def _of_code(code: object) -> Outcome:
    refused = isinstance(code, int) and (code in REFUSED_CODES or any(code in numbers for numbers in ASSERTIONS))
    return _REFUSED if refused else _UNKNOWN


_NAMES: Final = {**REFUSED_CODES, 263: "OperationNotSupportedInTransaction"}


def details_of(code: int, text: str) -> dict[str, Any]:
    """The server's answer to a command that it refuses with this code, as an error of the driver has it."""
    return {"ok": 0.0, "errmsg": text, "code": code, "codeName": _NAMES.get(code, f"Location{code}")}


_OF_THE_DOCUMENT = (pm.WriteError, pm.DocumentTooLarge, bs.BSONError, OverflowError, ValueError)
_DENIED: Final = frozenset({13, 26, 59, 115, 224, 238})
"""Unauthorized, NamespaceNotFound, CommandNotFound, CommandNotSupported (also `UnsupportedOperation`),
QueryFeatureNotAllowed, NotImplemented."""


def is_denied(error: BaseException) -> bool:
    """Whether a store refuses for a reason of its own: it lacks a right, a table or a feature. The same call may work
    on another store, and no other document would help."""
    return getattr(error, "code", None) in _DENIED and classify(error) is Outcome.REFUSED


_DOCUMENT_CODES = frozenset({15, 52, 55, 10334, 17419})
"""Overflow (nested too deep), DollarPrefixedFieldName, InvalidDBRef, BSONObjectTooLarge, and a result over 16 MB. The
server refuses the whole command that contains the document (error_codes.yml; 17419 is in its update code)."""


def refusal_of(error: BaseException) -> str:
    """Why a store permanently refuses to hold a document: the class of the error and its code. "" for any other error,
    which may be temporary: of the store, its tables or its rights."""
    code = getattr(error, "code", None)
    of_the_document = isinstance(error, _OF_THE_DOCUMENT) or code in _DOCUMENT_CODES
    if not of_the_document or classify(error) is not Outcome.REFUSED:
        return ""
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"
