"""The options of a table besides its keys and indexes: compared, and changed in place. No item is touched.

    billing and capacity, protection      UpdateTable
    a stream of both images               UpdateTable, where there is no stream
    expiry of tombstones                  UpdateTimeToLive, where nothing expires yet
    point-in-time recovery                UpdateContinuousBackups
    tags                                  TagResource; other tags stay

Only requested options are read. A server that does not support a request (DynamoDB Local has neither recovery nor tags)
does not have the feature; that is reported, and is not an error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pymongo.errors import OperationFailure

from shadow.model.schema import Billing, TableSpec
from shadow.stores.dynamo.client.gateway import Gateway
from shadow.stores.dynamo.tables.spec import TableDefinition, billing_of, capacity_of, streaming, units, view_of

__all__ = ["IN_USE", "FoundTable", "Step", "describe_table", "is_stream", "look", "steps", "take"]

IN_USE: Final = 48
_NAMESPACE_NOT_FOUND: Final = 26
_UNAUTHORIZED: Final = 13
_UNKNOWN: Final = "UnknownOperationException"
_EXPIRY: Final = "expiry of tombstones"
_RECOVERY: Final = "point-in-time recovery"
_TAGS: Final = "tags"

Step: TypeAlias = tuple[str, dict[str, Any]]
"""One change in place: the client's method, and its parameters."""


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table as it is. `description` is DynamoDB's (None: there is no table), `ttl` its description of the expiry;
    None for options that were not read. `lacking` lists the options that could not be read, and why."""

    description: dict[str, Any] | None
    ttl: dict[str, Any] | None = None
    recovery: bool | None = None
    tags: dict[str, str] | None = None
    lacking: list[str] = field(default_factory=list)


async def describe_table(gateway: Gateway, table: str) -> dict[str, Any] | None:
    """DynamoDB's description of the table; None if there is none."""
    try:
        described: dict[str, Any] = (await gateway.call("describe_table", table, TableName=table))["Table"]
    except OperationFailure as error:
        if error.code == _NAMESPACE_NOT_FOUND:
            return None
        raise
    return described


async def look(gateway: Gateway, wanted: TableDefinition, *, strict: bool = True) -> FoundTable:
    """The table as it is. Without `strict`, options that the credentials may not read count as unsupported, instead
    of an error."""
    description = await describe_table(gateway, wanted.name)
    if description is None:
        return FoundTable(None)
    lacking: list[str] = []

    async def feature(name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await ask()
        except OperationFailure as error:
            if (error.details or {}).get("awsCode") == _UNKNOWN:
                lacking.append(f"{name}: this server does not support it")
            elif error.code == _UNAUTHORIZED and not strict:
                lacking.append(f"{name}: the credentials may not read it")
            else:
                raise
            return None

    table = wanted.table
    return FoundTable(
        description,
        await feature(_EXPIRY, lambda: _ttl(gateway, wanted.name)) if wanted.ttl else None,
        await feature(_RECOVERY, lambda: _recovery(gateway, wanted.name))
        if table.point_in_time_recovery is not None
        else None,
        await feature(_TAGS, lambda: _tags(gateway, wanted.name, description["TableArn"])) if table.tags else None,
        lacking,
    )


async def _ttl(gateway: Gateway, table: str) -> dict[str, Any]:
    answer = await gateway.call("describe_time_to_live", table, TableName=table)
    return dict(answer.get("TimeToLiveDescription", {}))


async def _recovery(gateway: Gateway, table: str) -> bool:
    answer = await gateway.call("describe_continuous_backups", table, TableName=table)
    described = answer.get("ContinuousBackupsDescription", {}).get("PointInTimeRecoveryDescription", {})
    return bool(described.get("PointInTimeRecoveryStatus") == "ENABLED")


async def _tags(gateway: Gateway, table: str, arn: str) -> dict[str, str]:
    found: dict[str, str] = {}
    more: dict[str, str] = {}
    while True:
        answer = await gateway.call("list_tags_of_resource", table, ResourceArn=arn, **more)
        found.update((each["Key"], each["Value"]) for each in answer.get("Tags", []))
        if not answer.get("NextToken"):
            return found
        more = {"NextToken": answer["NextToken"]}


# --- the changes ------------------------------------------------------------------------------------------------


def steps(wanted: TableDefinition, found: FoundTable) -> list[Step]:
    """The steps that change an existing table to match its definition, as far as that is possible in place."""
    if found.description is None:
        return []
    name, table = {"TableName": wanted.name}, wanted.table
    made: list[Step] = []
    capacity = _capacity(table, found.description)
    if capacity:
        made.append(("update_table", {**name, **capacity}))
    protected = bool(found.description.get("DeletionProtectionEnabled"))
    if table.deletion_protection not in (None, protected):
        made.append(("update_table", {**name, "DeletionProtectionEnabled": table.deletion_protection}))
    if table.stream and not view_of(found.description):
        made.append(("update_table", {**name, **streaming()}))
    if found.ttl is not None and found.ttl.get("TimeToLiveStatus", "DISABLED") == "DISABLED":
        ttl = {"Enabled": True, "AttributeName": wanted.ttl}
        made.append(("update_time_to_live", {**name, "TimeToLiveSpecification": ttl}))
    if found.recovery not in (None, table.point_in_time_recovery):
        recovery = {"PointInTimeRecoveryEnabled": table.point_in_time_recovery}
        made.append(("update_continuous_backups", {**name, "PointInTimeRecoverySpecification": recovery}))
    other = [] if found.tags is None else [each for each in table.tags if found.tags.get(each[0]) != each[1]]
    if other:
        tags = [{"Key": key, "Value": value} for key, value in other]
        made.append(("tag_resource", {"ResourceArn": found.description["TableArn"], "Tags": tags}))
    return made


def _capacity(table: TableSpec, found: dict[str, Any]) -> dict[str, Any]:
    """The part of UpdateTable for billing and capacity; empty if they match. It contains only what changes: DynamoDB
    rejects unchanged figures."""
    if table.billing is None:
        return {}
    if table.billing is Billing.ON_DEMAND:
        return {} if billing_of(found) is Billing.ON_DEMAND else {"BillingMode": "PAY_PER_REQUEST"}
    wanted = units(table)
    changes: dict[str, Any] = {}
    if billing_of(found) is not Billing.PROVISIONED:
        changes["BillingMode"] = "PROVISIONED"
    if changes or capacity_of(found) != wanted:
        changes["ProvisionedThroughput"] = wanted
    indexes = [
        {"Update": {"IndexName": each["IndexName"], "ProvisionedThroughput": wanted}}
        for each in found.get("GlobalSecondaryIndexes", [])
        if capacity_of(each) != wanted
    ]
    return {**changes, **({"GlobalSecondaryIndexUpdates": indexes} if indexes else {})}


async def take(gateway: Gateway, wanted: TableDefinition, step: Step, pause: Callable[[], Awaitable[Any]]) -> None:
    """Executes one of `steps`, unless another process has done so. `pause` waits while the table is being changed."""
    verb, parameters = step
    while True:
        try:
            await gateway.call(verb, wanted.name, **parameters)
        except OperationFailure as error:
            if not _still(step, steps(wanted, await look(gateway, wanted, strict=False))):
                return
            if error.code != IN_USE:
                raise
        else:
            return
        await pause()


def is_stream(step: Step) -> bool:
    """Whether it switches a stream on."""
    return "StreamSpecification" in step[1]


def _still(step: Step, left: list[Step]) -> bool:
    """Whether a change is still to be made, at least partly."""
    verb, parameters = step
    names = _names(parameters)
    return any(verb == other and names & _names(more) for other, more in left)


def _names(parameters: Mapping[str, Any]) -> set[str]:
    return set(parameters) - {"TableName", "ResourceArn"}
