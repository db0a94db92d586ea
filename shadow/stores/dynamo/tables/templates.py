"""The tables in the formats of other tools: CloudFormation and Terraform. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from shadow.stores.dynamo.tables.spec import TableDefinition, creation

__all__ = ["cloudformation", "terraform"]

_KIND: Final = "aws_dynamodb_table"


def cloudformation(tables: Iterable[TableDefinition]) -> dict[str, Any]:
    """A template with one `AWS::DynamoDB::Table` per table. Tables are retained when the stack is deleted."""
    resources = {
        _logical(wanted.name): {
            "Type": "AWS::DynamoDB::Table",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": _properties(wanted),
        }
        for wanted in tables
    }
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}


def _properties(wanted: TableDefinition) -> dict[str, Any]:
    properties = creation(wanted)
    if wanted.table.stream:
        # Here a stream that is named is switched on.
        properties["StreamSpecification"] = {"StreamViewType": properties["StreamSpecification"]["StreamViewType"]}
    if wanted.ttl is not None:
        properties["TimeToLiveSpecification"] = {"AttributeName": wanted.ttl, "Enabled": True}
    recovery = wanted.table.point_in_time_recovery
    if recovery is not None:
        properties["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": recovery}
    return properties


def terraform(tables: Iterable[TableDefinition]) -> dict[str, Any]:
    """The same as `aws_dynamodb_table` resources in Terraform's JSON syntax (a file named *.tf.json). Terraform never
    destroys them."""
    return {"resource": {_KIND: {_logical(wanted.name): _resource(wanted) for wanted in tables}}}


def _resource(wanted: TableDefinition) -> dict[str, Any]:
    made = creation(wanted)
    resource: dict[str, Any] = {
        "name": wanted.name,
        "billing_mode": made["BillingMode"],
        **_keys(made["KeySchema"]),
        **_capacity(made),
        "attribute": [
            {"name": each["AttributeName"], "type": each["AttributeType"]} for each in made["AttributeDefinitions"]
        ],
        "lifecycle": {"prevent_destroy": True},
    }
    indexes = [_index(each) for each in made.get("GlobalSecondaryIndexes", ())]
    if indexes:
        resource["global_secondary_index"] = indexes
    if wanted.ttl is not None:
        resource["ttl"] = {"attribute_name": wanted.ttl, "enabled": True}
    table = wanted.table
    if table.point_in_time_recovery is not None:
        resource["point_in_time_recovery"] = {"enabled": table.point_in_time_recovery}
    if table.stream:
        resource["stream_enabled"] = True
        resource["stream_view_type"] = made["StreamSpecification"]["StreamViewType"]
    if table.deletion_protection is not None:
        resource["deletion_protection_enabled"] = table.deletion_protection
    if table.tags:
        resource["tags"] = dict(table.tags)
    return resource


def _index(index: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": index["IndexName"],
        **_keys(index["KeySchema"]),
        **_capacity(index),
        "projection_type": index["Projection"]["ProjectionType"],
    }


def _keys(schema: Sequence[dict[str, str]]) -> dict[str, str]:
    names = {"HASH": "hash_key", "RANGE": "range_key"}
    return {names[each["KeyType"]]: each["AttributeName"] for each in schema}


def _capacity(described: dict[str, Any]) -> dict[str, int]:
    units = described.get("ProvisionedThroughput")
    if units is None:
        return {}
    return {"read_capacity": units["ReadCapacityUnits"], "write_capacity": units["WriteCapacityUnits"]}


def _logical(table: str) -> str:
    """An alphanumeric name, as templates require, that differs for different tables."""
    return "Table" + "".join(each if each.isascii() and each.isalnum() else f"x{ord(each):x}x" for each in table)
