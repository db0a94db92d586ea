"""One table from the errors of DynamoDB, and of the connection to it, to the matching errors of PyMongo.

Texts contain the operation, the code and the request id. AWS's own message may quote values, so it is only shown for
operations on whole tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from botocore import exceptions as bc
from bson import Decimal128, Int64, ObjectId
from pymongo import errors as pm

from shadow.model.denied import denied
from shadow.model.outcome import Outcome, classify, marked

__all__ = [
    "BEFORE_SENDING",
    "ERRORS",
    "EXPECTED",
    "NEVER_OF_A_REQUEST",
    "UNANSWERED",
    "duplicate_key",
    "outcome_unknown",
    "translate",
]

Maker: TypeAlias = Callable[[str, dict[str, Any]], pm.PyMongoError]
"""Makes the exception from the text and the details."""


def _operation_failure(code: int) -> Maker:
    return lambda text, details: pm.OperationFailure(text, code, {"code": code, "errmsg": text, **details})


def _definite(code: int) -> Maker:
    """For codes that leave the outcome open in MongoDB, but not in DynamoDB: it signs and rejects each request as a
    whole."""
    make = _operation_failure(code)
    return lambda text, details: marked(make(text, details), Outcome.REFUSED)


def _write_error(text: str, details: dict[str, Any]) -> pm.PyMongoError:
    return pm.WriteError(text, 2, {"code": 2, "errmsg": text, **details})


def _reconnect(text: str, details: dict[str, Any]) -> pm.PyMongoError:
    return pm.AutoReconnect(text, details)


# MongoDB's codes, from its error_codes.yml: 13 Unauthorized, 18 AuthenticationFailed, 26 NamespaceNotFound,
# 48 NamespaceExists, 112 WriteConflict, 202 NetworkInterfaceExceededTimeLimit, 262 ExceededTimeLimit.
_throttled = _operation_failure(262)
_unauthorised = _operation_failure(13)
_unauthenticated = _definite(18)
_missing = _operation_failure(26)
_in_use = _operation_failure(48)
_conflict = _operation_failure(112)
_refused = _operation_failure(2)


def _unlisted(text: str, details: dict[str, Any]) -> pm.PyMongoError:
    return marked(_refused(text, details), Outcome.UNKNOWN)


ERRORS: Final[Mapping[str, Maker]] = {
    "AccessDeniedException": _unauthorised,
    "ConditionalCheckFailedException": _conflict,
    "ContinuousBackupsUnavailableException": _in_use,
    "DuplicateItemException": _conflict,
    "ExpiredTokenException": _unauthenticated,
    "IdempotentParameterMismatchException": _unlisted,  # a transaction of this token has been done
    "IncompleteSignatureException": _unauthenticated,
    "InternalServerError": _reconnect,
    "InternalServerErrorException": _reconnect,
    "InvalidEndpointException": _reconnect,
    "InvalidSignatureException": _unauthenticated,
    "ItemCollectionSizeLimitExceededException": _write_error,
    "LimitExceededException": _throttled,
    "MissingAuthenticationTokenException": _unauthenticated,
    "ProvisionedThroughputExceededException": _throttled,
    "ReplicatedWriteConflictException": _throttled,
    "RequestLimitExceeded": _throttled,
    "RequestTimeout": _reconnect,
    "ResourceInUseException": _in_use,
    "ResourceNotFoundException": _missing,
    "SerializationException": _refused,
    "ServiceUnavailable": _reconnect,
    "ServiceUnavailableException": _reconnect,
    "TableNotFoundException": _missing,
    "Throttling": _throttled,
    "ThrottlingException": _throttled,
    "TransactionCanceledException": _conflict,
    "TransactionConflictException": _throttled,
    "TransactionInProgressException": _throttled,
    "UnrecognizedClientException": _unauthenticated,
    "ValidationException": _write_error,
}
"""AWS error code to exception, whose class, code and mark give the outcome of a write (`model.outcome`). Codes from the
service model of DynamoDB and its guide's "Error handling". A code that is not listed is unknown, whatever its status:
it may come from a proxy."""

EXPECTED: Final = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})
"""Codes that the store itself asks for and handles; the table has them in case one escapes."""

_WITHOUT_CONTENT: Final = frozenset(
    {
        "create_table",
        "delete_table",
        "describe_continuous_backups",
        "describe_stream",
        "describe_table",
        "describe_time_to_live",
        "get_records",
        "get_shard_iterator",
        "list_tables",
        "list_tags_of_resource",
        "tag_resource",
        "update_continuous_backups",
        "update_table",
        "update_time_to_live",
    }
)

_DENIED: Final = "AccessDeniedException"
_HINTS: Final = {
    13: "grant it: `shadow tables export iam` prints the rights for each use (`--for`)",
    26: "create the tables first: shadow tables create",
}

UNANSWERED: Final[tuple[tuple[type[Exception], type[pm.PyMongoError]], ...]] = (
    (bc.ReadTimeoutError, pm.NetworkTimeout),
    (bc.ConnectTimeoutError, pm.ServerSelectionTimeoutError),
    (bc.EndpointConnectionError, pm.ServerSelectionTimeoutError),
    (bc.ConnectionError, pm.AutoReconnect),
    (bc.HTTPClientError, pm.AutoReconnect),
    (bc.ChecksumError, pm.AutoReconnect),
    (bc.FlexibleChecksumError, pm.AutoReconnect),
    (bc.IncompleteReadError, pm.AutoReconnect),
    (bc.AwsChunkedWrapperError, pm.AutoReconnect),
    (bc.CredentialRetrievalError, pm.AutoReconnect),
    (bc.MetadataRetrievalError, pm.AutoReconnect),
    (bc.TokenRetrievalError, pm.AutoReconnect),
    (bc.SSOError, pm.AutoReconnect),
    (bc.CapacityNotAvailableError, pm.AutoReconnect),
    (TimeoutError, pm.NetworkTimeout),
    (OSError, pm.AutoReconnect),
)
"""The SDK's errors without a response, or without a readable one: all unknown. Credentials are resolved before each
attempt, so they may fail after an attempt that was applied."""

_CREDENTIALS: Final = (bc.NoCredentialsError, bc.PartialCredentialsError, bc.NoAuthTokenError)
BEFORE_SENDING: Final[tuple[type[bc.BotoCoreError], ...]] = (
    *_CREDENTIALS,
    bc.BaseEndpointResolverError,
    bc.EndpointProviderError,
    bc.InvalidEndpointConfigurationError,
    bc.InvalidHostLabelError,
    bc.InvalidProxiesConfigError,
    bc.MissingParametersError,
    bc.ParamValidationError,
    bc.ServiceNotInRegionError,
    bc.UnknownRegionError,
    bc.UnknownSignatureVersionError,
    bc.UnsupportedSignatureVersionError,
    bc.ValidationError,
)
"""The SDK's errors before the first attempt: nothing was sent."""

NEVER_OF_A_REQUEST: Final = frozenset(
    {
        "ApiVersionNotFoundError",
        "ConfigNotFound",
        "ConfigParseError",
        "DataNotFoundError",
        "InvalidChecksumConfigError",
        "InvalidConfigError",
        "InvalidDNSNameError",
        "InvalidDefaultsMode",
        "InvalidEndpointDiscoveryConfigurationError",
        "InvalidExpressionError",
        "InvalidIMDSEndpointError",
        "InvalidIMDSEndpointModeError",
        "InvalidRetryConfigurationError",
        "InvalidS3AddressingStyleError",
        "InvalidS3UsEast1RegionalEndpointConfigError",
        "InvalidSTSRegionalEndpointsConfigError",
        "MD5UnavailableError",
        "MissingDependencyException",
        "OperationNotPageableError",
        "PaginationError",
        "ProfileNotFound",
        "RefreshWithMFAUnsupportedError",
        "StubResponseError",
        "UnknownClientMethodError",
        "UnknownCredentialError",
        "UnknownServiceStyle",
        "UnseekableStreamError",
        "UnsupportedOutpostResourceError",
        "UnsupportedS3AccesspointConfigurationError",
        "UnsupportedS3ArnError",
        "UnsupportedS3ConfigurationError",
        "UnsupportedS3ControlArnError",
        "UnsupportedS3ControlConfigurationError",
        "UnsupportedServiceProtocolsError",
        "WaiterConfigError",
        "WaiterError",
    }
)
"""The SDK's other classes, by name: of other services, of files, of creating a client. Unknown if one should occur."""

_WRITES: Final = frozenset(
    {
        "batch_execute_statement",
        "batch_write_item",
        "delete_item",
        "execute_statement",
        "put_item",
        "transact_write_items",
        "update_item",
    }
)


def translate(error: Exception, operation: str, table: str) -> Exception:
    """The PyMongo exception for an error of the client; `error` itself if it comes from neither AWS nor the network."""
    where = f"DynamoDB {operation} on {table}"
    if isinstance(error, bc.ClientError):
        made = _of_code(error, where, operation, table)
        attempts = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        if attempts and operation in _WRITES and classify(made) is Outcome.REFUSED:
            # The last attempt was rejected. The outcome of the earlier ones is unknown.
            marked(made, Outcome.UNKNOWN)
        return made
    if isinstance(error, _CREDENTIALS):
        return _unauthenticated(f"{where}: no usable credentials", {})
    for kind, known in UNANSWERED:
        if isinstance(error, kind):
            return known(f"{where}: {type(error).__name__}")
    if isinstance(error, bc.BotoCoreError):
        make = _refused if isinstance(error, BEFORE_SENDING) else _unlisted
        return make(f"{where}: {type(error).__name__}", {})
    return error


def _of_code(error: bc.ClientError, where: str, operation: str, table: str) -> pm.PyMongoError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    request = str(error.response.get("ResponseMetadata", {}).get("RequestId", ""))
    text = f"{where}: {code}" + (f" (request {request})" if request else "")
    said = str(error.response.get("Error", {}).get("Message", ""))
    if code == _DENIED:
        text += f": {denied(said, operation, table)}"
    elif operation in _WITHOUT_CONTENT:
        text += f": {said}"
    maker = ERRORS.get(code) or (_reconnect if status >= 500 or not status else _unlisted)
    made = maker(text, {"awsCode": code})
    hint = _HINTS.get(getattr(made, "code", None) or 0)
    return maker(f"{text}\n  hint: {hint}", {"awsCode": code}) if hint else made


def outcome_unknown(operation: str, table: str) -> pm.AutoReconnect:
    """A conditional write failed on a retry by the client, and an earlier attempt may have been applied."""
    return pm.AutoReconnect(f"DynamoDB {operation} on {table}: an attempt without an answer may have been applied")


def duplicate_key(
    namespace: str, index: str, pattern: Mapping[str, int], values: Mapping[str, Any]
) -> pm.DuplicateKeyError:
    """The server's E11000, with its text and details: applications parse both. The values are the application's own
    and are returned only to it."""
    shown = ", ".join(f"{name}: {_shell(value)}" for name, value in values.items())
    text = f"E11000 duplicate key error collection: {namespace} index: {index} dup key: {{ {shown} }}"
    details = {"index": 0, "code": 11000, "errmsg": text, "keyPattern": dict(pattern), "keyValue": dict(values)}
    return pm.DuplicateKeyError(text, 11000, details)


def _shell(value: Any) -> str:
    """A value as the server prints it in an E11000."""
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case str():
            return f'"{value}"'
        case ObjectId():
            return f"ObjectId('{value}')"
        case Int64() | int():
            return str(int(value))
        case float():
            return repr(value)
        case Decimal128():
            return str(value)
        case dict():
            inner = ", ".join(f"{name}: {_shell(element)}" for name, element in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list():
            inner = ", ".join(_shell(element) for element in value)
            return f"[ {inner} ]" if inner else "[]"
        case _:
            return str(value)
