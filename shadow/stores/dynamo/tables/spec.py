"""Definitions of tables: what CreateTable accepts, and the other options. Pure.

Every table that shadow uses has a `TableDefinition`: those of the collections, the journal's, and the control store's.
So the same code creates, compares, awaits and exports them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shadow.model.schema import Billing, CollectionSpec, IndexSpec, TableSpec

__all__ = [
    "TableDefinition",
    "attributes_of",
    "billing_of",
    "capacity_of",
    "collection_table",
    "creation",
    "index_of",
    "plain_table",
    "stream_of",
    "streaming",
    "units",
    "view_of",
    "without_stream",
]

_ON_DEMAND: Final = "PAY_PER_REQUEST"
_PROVISIONED: Final = "PROVISIONED"
_BOTH_IMAGES: Final = "NEW_AND_OLD_IMAGES"


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """`schema`: KeySchema, AttributeDefinitions and GlobalSecondaryIndexes, as CreateTable takes them; `ttl`: the
    attribute by which its items expire."""

    name: str
    schema: dict[str, Any]
    table: TableSpec = field(default_factory=TableSpec)
    ttl: str | None = None

    @property
    def indexes(self) -> list[dict[str, Any]]:
        return list(self.schema.get("GlobalSecondaryIndexes", ()))


def collection_table(name: str, spec: CollectionSpec) -> TableDefinition:
    """The table of a collection: key `_id`, and a global index for each `IndexSpec`."""
    schema: dict[str, Any] = {
        "KeySchema": [{"AttributeName": "_id", "KeyType": "HASH"}],
        "AttributeDefinitions": attributes_of(spec.indexes, "_id"),
    }
    if spec.indexes:
        schema["GlobalSecondaryIndexes"] = [index_of(index) for index in spec.indexes]
    return TableDefinition(name, schema, spec.table, f"{spec.reserved}_ttl")


def plain_table(description: dict[str, Any], table: TableSpec) -> TableDefinition:
    """A table of small records, given by the parameters of its CreateTable. It is billed on demand; it gets the tags
    and the protection of `table`."""
    schema: dict[str, Any] = {
        name: description[name]
        for name in ("KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes")
        if name in description
    }
    own = TableSpec(deletion_protection=table.deletion_protection, tags=table.tags)
    return TableDefinition(description["TableName"], schema, own)


def creation(wanted: TableDefinition) -> dict[str, Any]:
    """The parameters of CreateTable. They are also the properties of CloudFormation's resource."""
    table = wanted.table
    provisioned = table.billing is Billing.PROVISIONED
    parameters: dict[str, Any] = {
        "TableName": wanted.name,
        **wanted.schema,
        "BillingMode": _PROVISIONED if provisioned else _ON_DEMAND,
    }
    if provisioned:
        capacity = {"ProvisionedThroughput": units(table)}
        parameters |= capacity
        if wanted.indexes:
            parameters["GlobalSecondaryIndexes"] = [{**index, **capacity} for index in wanted.indexes]
    if table.stream:
        parameters |= streaming()
    if table.deletion_protection is not None:
        parameters["DeletionProtectionEnabled"] = table.deletion_protection
    if table.tags:
        parameters["Tags"] = [{"Key": name, "Value": value} for name, value in table.tags]
    return parameters


def streaming() -> dict[str, Any]:
    """The parameters of CreateTable and UpdateTable for a stream."""
    return {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": _BOTH_IMAGES}}


def units(table: TableSpec) -> dict[str, int]:
    return {"ReadCapacityUnits": table.read, "WriteCapacityUnits": table.write}


def attributes_of(indexes: Iterable[IndexSpec], *more: str) -> list[dict[str, str]]:
    names = dict.fromkeys(more)
    for index in indexes:
        names.update(dict.fromkeys(name for name in (index.hash, index.range) if name is not None))
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]


def index_of(index: IndexSpec) -> dict[str, Any]:
    schema = [{"AttributeName": index.hash, "KeyType": "HASH"}]
    if index.range is not None:
        schema.append({"AttributeName": index.range, "KeyType": "RANGE"})
    return {"IndexName": index.name, "KeySchema": schema, "Projection": {"ProjectionType": "ALL"}}


# --- DynamoDB's descriptions -------------------------------------------------------------------------------------


def billing_of(description: dict[str, Any]) -> Billing:
    """The billing mode; a table that was never billed on demand has no summary."""
    mode = description.get("BillingModeSummary", {}).get("BillingMode", _PROVISIONED)
    return Billing.ON_DEMAND if mode == _ON_DEMAND else Billing.PROVISIONED


def capacity_of(description: dict[str, Any]) -> dict[str, int]:
    """The provisioned units of a table or an index as described."""
    found = description.get("ProvisionedThroughput", {})
    return {name: int(found.get(name, 0)) for name in ("ReadCapacityUnits", "WriteCapacityUnits")}


def stream_of(description: Mapping[str, Any]) -> str | None:
    """The ARN of the table's stream, if it has one with both images that is switched on."""
    return str(description["LatestStreamArn"]) if view_of(description) == _BOTH_IMAGES else None


def view_of(description: Mapping[str, Any]) -> str:
    """What the records of the table's stream show, in DynamoDB's words; "" if no stream is switched on."""
    found = description.get("StreamSpecification") or {}
    return str(found.get("StreamViewType", "")) if found.get("StreamEnabled") else ""


def without_stream(table: str, description: Mapping[str, Any] | None) -> str:
    """Why the table has no stream that can be read, and what to do; "" if it has one."""
    if description is None:
        return f"there is no table {table}: shadow tables create"
    if stream_of(description) is not None:
        return ""
    view = view_of(description)
    if view:
        return (
            f"the stream of the table {table} has {view} and not {_BOTH_IMAGES}: switch it off where nothing else "
            "reads it, then `shadow tables create`"
        )
    return f"the table {table} has no stream: `shadow tables create` switches it on (right dynamodb:UpdateTable)"
