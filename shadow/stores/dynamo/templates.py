"""What the tables ought to be, as other tools want it: drift from what is there, CloudFormation, Terraform, IAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from shadow.model.schema import CollectionSpec
from shadow.stores.dynamo.tables import table_description

__all__ = ["cloudformation", "drift", "iam_policy", "terraform"]

_DATA: Final = (
    "BatchGetItem", "BatchWriteItem", "ConditionCheckItem", "DeleteItem", "DescribeTable", "GetItem",
    "PartiQLInsert", "PutItem", "Query", "Scan", "UpdateItem",
)  # fmt: skip
"""What the running application and the jobs ask for. A transaction needs the rights of what is in it."""
_MAKING: Final = ("CreateTable", "DescribeTimeToLive", "UpdateTable", "UpdateTimeToLive")
"""What `shadow tables create` needs beside."""


def drift(table: str, spec: CollectionSpec, found: Mapping[str, Any] | None, ttl: Mapping[str, Any]) -> list[str]:
    """In what a table differs from what it ought to be, one sentence each; `found` and `ttl` are DynamoDB's
    descriptions of the table (None: there is none) and of its time to live."""
    if found is None:
        return ["is missing"]
    wanted = table_description(table, spec)
    said = [] if found["KeySchema"] == wanted["KeySchema"] else ["has another key than `_id`"]
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    said += [
        f"has {each['AttributeName']} as type {types[each['AttributeName']]} and not as {each['AttributeType']}"
        for each in wanted["AttributeDefinitions"]
        if types.get(each["AttributeName"], each["AttributeType"]) != each["AttributeType"]
    ]
    said += _index_drift(wanted.get("GlobalSecondaryIndexes", []), found.get("GlobalSecondaryIndexes", []))
    attribute = f"{spec.reserved}_ttl"
    if ttl.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING") or ttl.get("AttributeName") != attribute:
        said.append(f"does not expire tombstones by {attribute}")
    return said


def _index_drift(wanted: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> list[str]:
    there = {each["IndexName"]: each for each in found}
    said = []
    for index in wanted:
        other = there.pop(index["IndexName"], None)
        if other is None:
            said.append(f"lacks the index {index['IndexName']}")
        elif other["KeySchema"] != index["KeySchema"]:
            said.append(f"has the index {index['IndexName']} over other attributes")
        elif other["Projection"]["ProjectionType"] != "ALL":
            said.append(f"has the index {index['IndexName']} without all attributes")
    return [*said, *(f"has the index {name}, which the configuration does not name" for name in there)]


def cloudformation(specs: Mapping[str, CollectionSpec]) -> dict[str, Any]:
    """A template with one `AWS::DynamoDB::Table` for each table name. A table outlives its stack."""
    resources = {
        _logical(table): {
            "Type": "AWS::DynamoDB::Table",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                **table_description(table, spec),
                "TimeToLiveSpecification": {"AttributeName": f"{spec.reserved}_ttl", "Enabled": True},
            },
        }
        for table, spec in specs.items()
    }
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def terraform(specs: Mapping[str, CollectionSpec]) -> dict[str, Any]:
    """The same as `aws_dynamodb_table` resources in Terraform's JSON syntax (a file named *.tf.json)."""
    return {"resource": {"aws_dynamodb_table": {_logical(name): _resource(name, spec) for name, spec in specs.items()}}}


def _resource(table: str, spec: CollectionSpec) -> dict[str, Any]:
    wanted = table_description(table, spec)
    resource: dict[str, Any] = {
        "name": table,
        "billing_mode": wanted["BillingMode"],
        "hash_key": "_id",
        "attribute": [
            {"name": each["AttributeName"], "type": each["AttributeType"]} for each in wanted["AttributeDefinitions"]
        ],
        "ttl": {"attribute_name": f"{spec.reserved}_ttl", "enabled": True},
    }
    if spec.indexes:
        resource["global_secondary_index"] = [
            {
                "name": index.name,
                "hash_key": index.hash,
                **({} if index.range is None else {"range_key": index.range}),
                "projection_type": "ALL",
            }
            for index in spec.indexes
        ]
    return resource


def _logical(table: str) -> str:
    """A name of letters and digits, as templates want it, that differs for different tables."""
    return "Table" + "".join(each if each.isascii() and each.isalnum() else f"x{ord(each):x}x" for each in table)


def iam_policy(tables: Iterable[str], *, region: str, making: bool) -> dict[str, Any]:
    """The least that an identity needs for these tables and their indexes; `making`: also to make them."""
    arns = [f"arn:aws:dynamodb:{region}:*:table/{table}" for table in tables]
    actions = [f"dynamodb:{each}" for each in sorted((*_DATA, *(_MAKING if making else ())))]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "Tables",
                "Effect": "Allow",
                "Action": actions,
                "Resource": [*arns, *(f"{arn}/index/*" for arn in arns)],
            },
            {"Sid": "Reachable", "Effect": "Allow", "Action": "dynamodb:ListTables", "Resource": "*"},
        ],
    }
