"""How a table differs from its definition, one sentence each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shadow.model.schema import Billing, TableSpec
from shadow.stores.dynamo.tables.options import FoundTable
from shadow.stores.dynamo.tables.spec import TableDefinition, billing_of, capacity_of, stream_of, units, view_of

__all__ = ["drift"]

_BILLED = {Billing.ON_DEMAND: "on demand", Billing.PROVISIONED: "for provisioned capacity"}
_UNITS = {"ReadCapacityUnits": "read", "WriteCapacityUnits": "write"}


def drift(wanted: TableDefinition, found: FoundTable) -> list[str]:
    """Empty: the table is as defined, as far as the settings go."""
    if found.description is None:
        return ["is missing"]
    return [
        *_key_drift(wanted.schema, found.description),
        *_index_drift(wanted.indexes, found.description.get("GlobalSecondaryIndexes", [])),
        *_expiry_drift(wanted.ttl, found.ttl),
        *_billing_drift(wanted.table, found.description),
        *_option_drift(wanted.table, found),
    ]


def _key_drift(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    if found["KeySchema"] != wanted["KeySchema"]:
        names = " and ".join(f"`{each['AttributeName']}`" for each in wanted["KeySchema"])
        yield f"has another key than {names}"
    types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
    for each in wanted["AttributeDefinitions"]:
        name, kind = each["AttributeName"], each["AttributeType"]
        if types.get(name, kind) != kind:
            yield f"has {name} as type {types[name]} and not as {kind}"


def _index_drift(wanted: Iterable[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    there = {each["IndexName"]: each for each in found}
    for index in wanted:
        other = there.pop(index["IndexName"], None)
        if other is None:
            yield f"lacks the index {index['IndexName']}"
        elif other["KeySchema"] != index["KeySchema"]:
            yield f"has the index {index['IndexName']} over other attributes"
        elif other["Projection"]["ProjectionType"] != index["Projection"]["ProjectionType"]:
            every = index["Projection"]["ProjectionType"] == "ALL"
            yield f"has the index {index['IndexName']} {'without all' if every else 'with other'} attributes"
    for name in there:
        yield f"has the index {name}, which the configuration does not name"


def _expiry_drift(attribute: str | None, ttl: Mapping[str, Any] | None) -> Iterator[str]:
    if attribute is None or ttl is None:
        return
    if ttl.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING") or ttl.get("AttributeName") != attribute:
        yield f"does not expire tombstones by {attribute}"


def _billing_drift(table: TableSpec, found: dict[str, Any]) -> Iterator[str]:
    if table.billing is None:
        return
    if billing_of(found) is not table.billing:
        yield f"is billed {_BILLED[billing_of(found)]} and not {_BILLED[table.billing]}"
    elif table.billing is Billing.PROVISIONED:
        yield from _units_drift("has", table, found)
        for index in found.get("GlobalSecondaryIndexes", []):
            yield from _units_drift(f"has the index {index['IndexName']} with", table, index)


def _units_drift(text: str, table: TableSpec, found: dict[str, Any]) -> Iterator[str]:
    there = capacity_of(found)
    for name, wanted in units(table).items():
        if there[name] != wanted:
            yield f"{text} {there[name]} {_UNITS[name]} units and not {wanted}"


def _option_drift(table: TableSpec, found: FoundTable) -> Iterator[str]:
    protected = bool((found.description or {}).get("DeletionProtectionEnabled"))
    if table.deletion_protection not in (None, protected):
        yield f"is {'protected' if protected else 'not protected'} against deletion"
    if table.stream and stream_of(found.description or {}) is None:
        view = view_of(found.description or {})
        yield f"has a stream of {view} and not of both images" if view else "has no stream"
    if found.recovery not in (None, table.point_in_time_recovery):
        yield f"{'has' if found.recovery else 'lacks'} point-in-time recovery"
    tags = found.tags
    for name, value in table.tags if tags is not None else ():
        if tags is not None and tags.get(name) != value:
            yield f"has the tag {name} with another value" if name in tags else f"lacks the tag {name}"
