"""A right that an AWS identity lacks is named: the action and the resource, and nothing of a document."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pymongo.errors import OperationFailure

from shadow.journal.server.dynamo_table import explained
from shadow.model.denied import denied
from shadow.model.outcome import Outcome, classify
from shadow.stores.dynamo.client.errors import translate
from shadow.stores.dynamo.write.writes import Writer
from tests.support.cases import each_of

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/notes-users"
SENTENCE = (
    "User: arn:aws:sts::123456789012:assumed-role/app/i-1 is not authorized to perform: {action} on resource: {arn} "
    "because no identity-based policy allows the {action} action"
)


def refused(action: str, arn: str = ARN, operation: str = "TransactWriteItems") -> ClientError:
    said = SENTENCE.format(action=action, arn=arn)
    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": said}}, operation)


@each_of(
    ("action", "arn"),
    [
        ("dynamodb:ConditionCheckItem", ARN),
        ("dynamodb:Query", f"{ARN}/index/email-index"),
        ("dynamodb:PartiQLInsert", ARN),
        ("dynamodb:DescribeTimeToLive", ARN),
        ("dynamodb:TagResource", ARN),
        ("dynamodb:ListTables", "arn:aws:dynamodb:eu-west-1:123456789012:table/*"),
    ],
)
def test_action_and_resource_are_those_that_aws_names(action: str, arn: str) -> None:
    error = translate(refused(action, arn), "transact_write_items", "notes-users")
    assert isinstance(error, OperationFailure)
    assert (error.code, classify(error)) == (13, Outcome.REFUSED)
    assert f"the identity lacks {action} on {arn}" in str(error)
    assert "shadow tables export iam" in str(error)
    assert "assumed-role" not in str(error)
    what, hint = explained(refused(action, arn), "journal")
    assert f"lacks {action} on {arn}" in what
    assert "shadow tables export iam" in hint


@pytest.mark.parametrize("operation", ["put_item", "PutItem"])
def test_without_that_sentence_it_is_what_was_asked_for(operation: str) -> None:
    said = "explicit deny; the item holds sesame"
    assert denied(said, operation, "notes-users") == "the identity lacks dynamodb:PutItem on table notes-users"


async def test_a_right_that_lacks_where_no_write_fails_is_said_once_for_a_table() -> None:
    async def call(operation: str, table: str, **parameters: Any) -> Any:
        raise translate(refused("dynamodb:DeleteItem", operation="DeleteItem"), operation, table)

    said: list[tuple[str, str]] = []
    gateway: Any = SimpleNamespace(call=call)
    writer = Writer(gateway, None, lambda table, text: said.append((table, text)))  # type: ignore[arg-type]
    codec = SimpleNamespace(parts=lambda item: SimpleNamespace(keys=["a", "b"]))
    table: Any = SimpleNamespace(name="notes-users", codec=codec)
    for _ in range(2):
        await writer.delete_body(table, {})
    ((table_name, text),) = said
    assert table_name == "notes-users"
    assert f"dynamodb:DeleteItem on {ARN}" in text
