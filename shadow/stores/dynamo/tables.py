"""Tables: their description, and making the ones (and the indexes) that are missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.errors import StoreUnavailable
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.stores.dynamo.client import Gateway

__all__ = ["describe_table", "describe_ttl", "drop_table", "prepare_table", "table_description"]

_POLL_SECONDS: Final = 0.2
_NAMESPACE_NOT_FOUND: Final = 26
_NAMESPACE_EXISTS: Final = 48


def _definitions(indexes: Iterable[IndexSpec]) -> list[dict[str, str]]:
    names = {"_id": None}
    for index in indexes:
        names.update(dict.fromkeys(name for name in (index.hash, index.range) if name is not None))
    return [{"AttributeName": name, "AttributeType": "S"} for name in names]


def _index(index: IndexSpec) -> dict[str, Any]:
    schema = [{"AttributeName": index.hash, "KeyType": "HASH"}]
    if index.range is not None:
        schema.append({"AttributeName": index.range, "KeyType": "RANGE"})
    return {"IndexName": index.name, "KeySchema": schema, "Projection": {"ProjectionType": "ALL"}}


def table_description(table: str, spec: CollectionSpec) -> dict[str, Any]:
    """The parameters of CreateTable: key `_id`, a global index for each `IndexSpec`, billed by request."""
    description: dict[str, Any] = {
        "TableName": table,
        "KeySchema": [{"AttributeName": "_id", "KeyType": "HASH"}],
        "AttributeDefinitions": _definitions(spec.indexes),
        "BillingMode": "PAY_PER_REQUEST",
    }
    if spec.indexes:
        description["GlobalSecondaryIndexes"] = [_index(index) for index in spec.indexes]
    return description


async def describe_table(gateway: Gateway, table: str) -> dict[str, Any] | None:
    """DynamoDB's description of the table; None if there is none."""
    try:
        described: dict[str, Any] = (await gateway.call("describe_table", table, TableName=table))["Table"]
    except OperationFailure as error:
        if error.code == _NAMESPACE_NOT_FOUND:
            return None
        raise
    return described


async def describe_ttl(gateway: Gateway, table: str) -> dict[str, Any]:
    """DynamoDB's description of the table's time to live."""
    answer = await gateway.call("describe_time_to_live", table, TableName=table)
    described: dict[str, Any] = answer.get("TimeToLiveDescription", {})
    return described


async def prepare_table(
    gateway: Gateway, table: str, spec: CollectionSpec, timeout: float, reindex: Callable[[], Awaitable[object]]
) -> bool:
    """Makes the table or the indexes that are missing, turns on the time to live of tombstones, waits until all of it
    can be used; answers whether the table is new. Raises `StoreUnavailable` after `timeout` seconds. What is there is
    not changed.

    `reindex` is called before an index is added to a table that was there: an index leaves out items whose attribute
    is no string (DynamoDB Local never ends building one over lists).
    """
    deadline = time.monotonic() + timeout
    is_new = await describe_table(gateway, table) is None and await _create(gateway, table, spec)
    described = await _active(gateway, table, deadline)
    existing = {index["IndexName"] for index in described.get("GlobalSecondaryIndexes", [])}
    missing = [index for index in spec.indexes if index.name not in existing]
    if missing:
        await reindex()
        deadline = time.monotonic() + timeout
    for index in missing:
        await _add_index(gateway, table, index)
        await _active(gateway, table, deadline)
    await _enable_ttl(gateway, table, f"{spec.reserved}_ttl")
    return is_new


async def _create(gateway: Gateway, table: str, spec: CollectionSpec) -> bool:
    try:
        await gateway.call("create_table", table, **table_description(table, spec))
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
        return False  # another process has made it in the meantime
    return True


async def _add_index(gateway: Gateway, table: str, index: IndexSpec) -> None:
    try:
        await gateway.call(
            "update_table",
            table,
            TableName=table,
            AttributeDefinitions=_definitions([index]),
            GlobalSecondaryIndexUpdates=[{"Create": _index(index)}],
        )
    except OperationFailure:
        described = await describe_table(gateway, table) or {}
        if index.name not in {each["IndexName"] for each in described.get("GlobalSecondaryIndexes", [])}:
            raise
        # another process has begun it in the meantime


async def _active(gateway: Gateway, table: str, deadline: float) -> dict[str, Any]:
    while True:
        described = await describe_table(gateway, table)
        if described is not None:
            indexes = described.get("GlobalSecondaryIndexes", [])
            states = {described["TableStatus"], *(index.get("IndexStatus", "ACTIVE") for index in indexes)}
            if states == {"ACTIVE"}:
                return described
        await _pause(table, deadline)


async def _pause(table: str, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StoreUnavailable(
            f"the table {table} did not become ready in time", hint="see its status in the AWS console, then again"
        )
    await asyncio.sleep(_POLL_SECONDS)


async def _enable_ttl(gateway: Gateway, table: str, attribute: str) -> None:
    if await _has_ttl(gateway, table):
        return
    specification = {"Enabled": True, "AttributeName": attribute}
    try:
        await gateway.call("update_time_to_live", table, TableName=table, TimeToLiveSpecification=specification)
    except OperationFailure:
        if not await _has_ttl(gateway, table):
            raise
        # another process has turned it on in the meantime


async def _has_ttl(gateway: Gateway, table: str) -> bool:
    described = await describe_ttl(gateway, table)
    return bool(described.get("TimeToLiveStatus", "DISABLED") != "DISABLED")


async def drop_table(gateway: Gateway, table: str, timeout: float) -> None:
    """Deletes the table, if it is there, and waits until it is gone."""
    deadline = time.monotonic() + timeout
    try:
        await gateway.call("delete_table", table, TableName=table)
    except OperationFailure as error:
        if error.code == _NAMESPACE_NOT_FOUND:
            return
        raise
    while await describe_table(gateway, table) is not None:
        await _pause(table, deadline)
