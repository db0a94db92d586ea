"""Creates missing tables and indexes, and waits until they can be used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.errors import OperationFailure

from shadow.errors import StoreUnavailable
from shadow.model.schema import Billing
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.tables.options import IN_USE, describe_table, is_stream, look, steps, take
from shadow.stores.dynamo.tables.spec import TableDefinition, billing_of, capacity_of, creation, units

__all__ = ["Prepared", "TableState", "drop_table", "prepare_table", "state_of"]

_POLL_SECONDS: Final = 0.2
_NAMESPACE_NOT_FOUND: Final = 26
_UNAUTHORIZED: Final = 13
_ACTIVE: Final = "ACTIVE"
_MISSING: Final = "MISSING"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The result: whether the table is new, and which wanted options the server does not support."""

    is_new: bool
    lacking: list[str]


async def prepare_table(
    gateway: Gateway, wanted: TableDefinition, timeout: float, reindex: Callable[[], Awaitable[object]]
) -> Prepared:
    """Creates the table or missing indexes, changes options in place (`options`), and waits until everything is usable.
    Raises `StoreUnavailable` after `timeout` seconds. Existing keys, indexes and items are not changed. `reindex` is
    called before an index is added to an existing table: an index omits items whose attribute is not a string
    (DynamoDB Local never finishes building one over lists)."""
    deadline = time.monotonic() + timeout
    is_new = await describe_table(gateway, wanted.name) is None and await _create(gateway, wanted)
    await _change(gateway, wanted, deadline)
    await _add_indexes(gateway, wanted, timeout, reindex)
    # Once more: DynamoDB Local removes the protection with a change of capacity.
    return Prepared(is_new, await _change(gateway, wanted, time.monotonic() + timeout))


async def _change(gateway: Gateway, wanted: TableDefinition, deadline: float) -> list[str]:
    """Changes options in place; returns those that the server does not support."""
    await _active(gateway, wanted.name, deadline)
    found = await look(gateway, wanted, strict=False)
    lacking = list(found.lacking)
    for step in steps(wanted, found):
        try:
            await take(gateway, wanted, step, lambda: _pause(wanted.name, deadline))
        except OperationFailure as error:
            # Without a stream the table serves all calls; whoever needs it says what is missing.
            if error.code != _UNAUTHORIZED or not is_stream(step):
                raise
            lacking.append("a stream: the credentials may not switch it on")
        await _active(gateway, wanted.name, deadline)
    return lacking


async def _create(gateway: Gateway, wanted: TableDefinition) -> bool:
    try:
        await gateway.call("create_table", wanted.name, **creation(wanted))
    except OperationFailure as error:
        if error.code != IN_USE:
            raise
        return False  # another process has created it meanwhile
    return True


async def _add_indexes(
    gateway: Gateway, wanted: TableDefinition, timeout: float, reindex: Callable[[], Awaitable[object]]
) -> None:
    described = await _active(gateway, wanted.name, time.monotonic() + timeout)
    existing = {index["IndexName"] for index in described.get("GlobalSecondaryIndexes", [])}
    missing = [index for index in wanted.indexes if index["IndexName"] not in existing]
    if missing:
        await reindex()
    deadline = time.monotonic() + timeout
    for index in missing:
        await _add_index(gateway, wanted, {**index, **_capacity(wanted, described)})
        await _active(gateway, wanted.name, deadline)


def _capacity(wanted: TableDefinition, described: dict[str, Any]) -> dict[str, Any]:
    """The capacity of a new index of a table with provisioned capacity: the wanted one, or that of the table."""
    if billing_of(described) is Billing.ON_DEMAND:
        return {}
    own = wanted.table.billing is Billing.PROVISIONED
    return {"ProvisionedThroughput": units(wanted.table) if own else capacity_of(described)}


async def _add_index(gateway: Gateway, wanted: TableDefinition, index: dict[str, Any]) -> None:
    names = {each["AttributeName"] for each in index["KeySchema"]}
    try:
        await gateway.call(
            "update_table",
            wanted.name,
            TableName=wanted.name,
            AttributeDefinitions=[
                each for each in wanted.schema["AttributeDefinitions"] if each["AttributeName"] in names
            ],
            GlobalSecondaryIndexUpdates=[{"Create": index}],
        )
    except OperationFailure:
        described = await describe_table(gateway, wanted.name) or {}
        if index["IndexName"] not in {each["IndexName"] for each in described.get("GlobalSecondaryIndexes", [])}:
            raise
        # another process has started it meanwhile


# --- waiting ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableState:
    """DynamoDB's states of a table and its indexes; MISSING where there is none."""

    status: str
    indexes: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        return {self.status, *self.indexes.values()} == {_ACTIVE}


async def state_of(gateway: Gateway, wanted: TableDefinition) -> TableState:
    """The states of the table, and of each index that it has or should have."""
    described = await describe_table(gateway, wanted.name)
    names = [index["IndexName"] for index in wanted.indexes]
    if described is None:
        return TableState(_MISSING, dict.fromkeys(names, _MISSING))
    return TableState(described["TableStatus"], {**dict.fromkeys(names, _MISSING), **_index_states(described)})


def _index_states(described: dict[str, Any]) -> dict[str, str]:
    found = described.get("GlobalSecondaryIndexes", [])
    return {index["IndexName"]: str(index.get("IndexStatus", _ACTIVE)) for index in found}


async def _active(gateway: Gateway, table: str, deadline: float) -> dict[str, Any]:
    while True:
        described = await describe_table(gateway, table)
        if described is not None and {described["TableStatus"], *_index_states(described).values()} == {_ACTIVE}:
            return described
        await _pause(table, deadline)


async def _pause(table: str, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StoreUnavailable(
            f"the table {table} did not become ready in time", hint="see its status in the AWS console, then again"
        )
    await asyncio.sleep(_POLL_SECONDS)


async def drop_table(gateway: Gateway, table: str, timeout: float) -> None:
    """Deletes the table, if it exists, and waits until it is gone."""
    deadline = time.monotonic() + timeout
    try:
        await gateway.call("delete_table", table, TableName=table)
    except OperationFailure as error:
        if error.code == _NAMESPACE_NOT_FOUND:
            return
        raise
    while await describe_table(gateway, table) is not None:
        await _pause(table, deadline)
