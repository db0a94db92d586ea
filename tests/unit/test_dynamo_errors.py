"""One table from DynamoDB's errors to PyMongo's, and nothing that DynamoDB may say is missing from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import botocore.session
import pytest
from botocore import exceptions as bc
from bson import Decimal128, Int64, ObjectId
from pymongo import errors as pm

import shadow.stores.dynamo as package
from shadow.model.outcome import Outcome, classify
from shadow.stores.dynamo.client.errors import (
    BEFORE_SENDING,
    ERRORS,
    NEVER_OF_A_REQUEST,
    UNANSWERED,
    duplicate_key,
    translate,
)
from shadow.stores.dynamo.client.streams import EXPIRED, TRIMMED
from shadow.stores.dynamo.client.wire import _explained
from tests.support.cases import each_of

SOURCE = "".join(path.read_text() for path in Path(str(package.__file__)).parent.rglob("*.py"))
CALLED = sorted(set(re.findall(r'\.call\(\s*"([a-z_]+)"', SOURCE)) | {"put_item", "delete_item"})


def client_error(code: str, status: int = 400, message: str = "about secret@example.org") -> bc.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "r1"},
    }
    return bc.ClientError(response, "Op")


def test_every_error_of_every_operation_that_we_call_is_in_the_table() -> None:
    """Fails when botocore's model of an operation gains an error that the table does not know."""
    session = botocore.session.get_session()
    models = [session.get_service_model(name) for name in ("dynamodb", "dynamodbstreams")]
    assert {"get_item", "put_item", "delete_item", "query", "scan", "get_records"} <= set(CALLED)
    operations = {botocore.xform_name(name): each.operation_model(name) for each in models for name in
                  each.operation_names}  # fmt: skip
    shapes = [shape for verb in CALLED for shape in operations[verb].error_shapes]
    codes = {shape.metadata.get("error", {}).get("code", shape.name) for shape in shapes}
    assert ({shape.name for shape in shapes} | codes) - set(ERRORS) == {EXPIRED, TRIMMED}, (
        "the stream's reader has these"
    )


EXPECTED: list[tuple[str, type[Exception], int | None, Outcome]] = [
    ("ProvisionedThroughputExceededException", pm.OperationFailure, 262, Outcome.UNKNOWN),
    ("ThrottlingException", pm.OperationFailure, 262, Outcome.UNKNOWN),
    ("RequestLimitExceeded", pm.OperationFailure, 262, Outcome.UNKNOWN),
    ("TransactionInProgressException", pm.OperationFailure, 262, Outcome.UNKNOWN),
    ("InternalServerError", pm.AutoReconnect, None, Outcome.UNKNOWN),
    ("ServiceUnavailable", pm.AutoReconnect, None, Outcome.UNKNOWN),
    ("ValidationException", pm.WriteError, 2, Outcome.REFUSED),
    ("ItemCollectionSizeLimitExceededException", pm.WriteError, 2, Outcome.REFUSED),
    ("AccessDeniedException", pm.OperationFailure, 13, Outcome.REFUSED),
    ("ExpiredTokenException", pm.OperationFailure, 18, Outcome.REFUSED),
    ("ResourceNotFoundException", pm.OperationFailure, 26, Outcome.REFUSED),
]


@each_of(("code", "kind", "number", "outcome"), EXPECTED)
def test_a_code_becomes_the_drivers_exception(
    code: str, kind: type[Exception], number: int | None, outcome: Outcome
) -> None:
    """And says by its class and code whether the write may have been done."""
    error = translate(client_error(code), "put_item", "users")
    assert type(error) is kind
    assert getattr(error, "code", None) == number
    assert classify(error) is outcome


@each_of("code", sorted(ERRORS))
def test_no_error_text_quotes_what_aws_says_about_an_item(code: str) -> None:
    """AWS's sentence may hold values of the document."""
    for verb in ("put_item", "get_item", "transact_write_items", "query", "batch_execute_statement"):
        error = translate(client_error(code), verb, "users")
        assert "secret@example.org" not in f"{error} {error!r} {getattr(error, 'details', '')}"
        assert code in str(error)


def test_a_missing_table_says_what_to_do() -> None:
    """The hint is the command that makes the tables."""
    assert "shadow tables create" in str(translate(client_error("ResourceNotFoundException"), "get_item", "users"))


@each_of(
    ("raised", "kind"),
    [
        (bc.ReadTimeoutError(endpoint_url="x"), pm.NetworkTimeout),
        (bc.ConnectTimeoutError(endpoint_url="x"), pm.ServerSelectionTimeoutError),
        (bc.EndpointConnectionError(endpoint_url="x"), pm.ServerSelectionTimeoutError),
        (bc.ConnectionClosedError(endpoint_url="x"), pm.AutoReconnect),
        (bc.HTTPClientError(error="x"), pm.AutoReconnect),
        (TimeoutError(), pm.NetworkTimeout),
        (ConnectionResetError(), pm.AutoReconnect),
    ],
)
def test_a_lost_connection_is_unknown(raised: Exception, kind: type[Exception]) -> None:
    """All of them are subclasses of AutoReconnect, as the driver's are."""
    error = translate(raised, "put_item", "users")
    assert type(error) is kind
    assert isinstance(error, pm.AutoReconnect)
    assert classify(error) is Outcome.UNKNOWN


def test_missing_credentials_are_a_refusal() -> None:
    """Code 18, as from a server that does not know the user."""
    error = translate(bc.NoCredentialsError(), "get_item", "users")
    assert isinstance(error, pm.OperationFailure)
    assert error.code == 18


@each_of("status", [0, 400, 403, 408, 429, 500, 503])
def test_a_code_that_nobody_knows_is_unknown_whatever_its_status(status: int) -> None:
    """It may be that of something on the way, which gave up waiting for DynamoDB."""
    assert classify(translate(client_error("New", status), "put_item", "users")) is Outcome.UNKNOWN


@pytest.mark.parametrize("verb", ["put_item", "update_item", "delete_item", "transact_write_items", "batch_write_item"])
def test_a_refusal_of_a_later_attempt_says_nothing_of_the_earlier_ones(verb: str) -> None:
    """The first may have been applied without an answer; only the last one's answer is to be had."""

    def of_a_later_attempt(code: str) -> Outcome:
        error = client_error(code)
        error.response["ResponseMetadata"]["RetryAttempts"] = 1
        return classify(translate(error, verb, "users"))

    assert len(ERRORS) > 20
    assert [code for code in sorted(ERRORS) if of_a_later_attempt(code) is not Outcome.UNKNOWN] == []


def sdk_classes() -> list[type[bc.BotoCoreError]]:
    def below(kind: type[Any]) -> list[type[Any]]:
        return [each for one in kind.__subclasses__() for each in (one, *below(one))]

    return [bc.BotoCoreError, *(each for each in below(bc.BotoCoreError) if each.__module__ == bc.__name__)]


def test_every_class_of_the_sdk_is_in_the_table() -> None:
    """Fails when botocore gains one. A class that is in no row, and below none, is unknown all the same."""
    rows = (*BEFORE_SENDING, *(kind for kind, _ in UNANSWERED))
    named = {kind for kind in sdk_classes() if {base.__name__ for base in kind.__mro__[:-4]} & NEVER_OF_A_REQUEST}
    named |= {bc.BotoCoreError, *(kind for kind in sdk_classes() if issubclass(kind, rows))}
    missing = {kind.__name__ for kind in sdk_classes()} - {kind.__name__ for kind in named}
    assert missing == set()
    assert len(sdk_classes()) > 80


@each_of("kind", sdk_classes(), ids=lambda kind: kind.__name__)
def test_every_class_of_the_sdk_is_refused_only_if_nothing_was_sent(kind: type[bc.BotoCoreError]) -> None:
    """Whatever else it raises, the request may have arrived."""
    made = kind.__new__(kind)
    Exception.__init__(made, "x")
    error = translate(made, "put_item", "users")
    assert isinstance(error, pm.PyMongoError)
    expected = Outcome.REFUSED if issubclass(kind, BEFORE_SENDING) else Outcome.UNKNOWN
    assert classify(error) is expected


def aiohttp_classes() -> list[type[Exception]]:
    found = [each for each in vars(aiohttp.client_exceptions).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, aiohttp.ClientError)]


@each_of("kind", [*aiohttp_classes(), TimeoutError, OSError], ids=lambda kind: kind.__name__)
def test_every_error_of_the_connections_is_unknown(kind: type[Exception]) -> None:
    """By way of botocore's, whose rules for another attempt know no others."""
    plain: Any = type(kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: "x"})
    error = translate(_explained(plain(), "http://x"), "put_item", "users")
    assert isinstance(error, pm.PyMongoError)
    assert classify(error) is Outcome.UNKNOWN


def test_what_is_not_of_the_network_stays_what_it_is() -> None:
    """A bug of ours is no network error."""
    bug = KeyError("x")
    assert translate(bug, "put_item", "users") is bug


def test_a_duplicate_key_reads_as_the_servers() -> None:
    """Text and details are MongoDB's: applications parse both."""
    error = duplicate_key("db.users", "email_1", {"email": 1}, {"email": "x@y"})
    assert error.details is not None
    assert error.details["errmsg"] == (
        'E11000 duplicate key error collection: db.users index: email_1 dup key: { email: "x@y" }'
    )
    assert error.details["keyPattern"] == {"email": 1}
    assert error.details["keyValue"] == {"email": "x@y"}
    assert error.code == 11000


@each_of(
    ("value", "shown"),
    [
        (ObjectId("5ca4bbc7a2dd94ee5816238c"), "ObjectId('5ca4bbc7a2dd94ee5816238c')"),
        (5, "5"),
        (Int64(5), "5"),
        (5.0, "5.0"),
        (Decimal128("1.50"), "1.50"),
        (None, "null"),
        (True, "true"),
        ({"a": 1, "b": "x"}, '{ a: 1, b: "x" }'),
        ([1, "x"], '[ 1, "x" ]'),
    ],
)
def test_values_in_a_duplicate_key_read_as_the_servers(value: Any, shown: str) -> None:
    """As mongod prints them."""
    assert f"dup key: {{ v: {shown} }}" in str(duplicate_key("db.c", "v_1", {"v": 1}, {"v": value}))
