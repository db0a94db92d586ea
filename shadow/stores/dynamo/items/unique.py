"""Unique constraints: one item for each value that a document holds, changed in the document's own transaction.

A uniqueness item is in the same table under `~unique:<constraint>:<digest of the values>` and names the key of its
owner. It is put on the condition that there is none, or one of the same owner; so two documents can never hold the same
value, and a document may write its own again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError, WriteError

from shadow.model.order import UNDEFINED
from shadow.model.schema import CollectionSpec, UniqueSpec
from shadow.model.stored import Damaged
from shadow.model.uniqueness import held_values
from shadow.model.version import Document
from shadow.mongoql.uniqueness import compared
from shadow.stores.dynamo.client.errors import duplicate_key
from shadow.stores.dynamo.client.limits import MOST_ACTIONS
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.expressions import Expression

__all__ = [
    "UniqueClaim",
    "changed_claims",
    "claims",
    "owner_of",
    "release",
    "take",
    "too_many",
    "violation",
]


@dataclass(frozen=True, slots=True)
class UniqueClaim:
    """One value (or tuple of values) that a document holds under one constraint."""

    constraint: UniqueSpec
    values: tuple[Any, ...]


def claims(spec: CollectionSpec, document: Document | None) -> dict[str, UniqueClaim]:
    """All claims of a document, by the key of their item. For a document that cannot be read completely, only the
    claims that are known."""
    if document is None:
        return {}
    return {
        keys.unique_key(constraint.name, compared(constraint, values)): UniqueClaim(constraint, values)
        for constraint in spec.unique
        if not _is_hidden(constraint, document)
        for values in held_values(constraint, document)
    }


def _is_hidden(constraint: UniqueSpec, document: Document) -> bool:
    """Whether the values under a constraint cannot be read."""
    if not isinstance(document, Damaged):
        return False
    fields = {path.partition(".")[0] for path in constraint.fields}
    return "" in document.faults or not fields.isdisjoint(document.faults)


def too_many(spec: CollectionSpec, document: Document) -> WriteError | None:
    """The error for a document that holds more unique values than one transaction can write with it, or lists that
    a unique index rejects in combination. Only lists produce many claims for one document."""
    roots = {path.partition(".")[0] for constraint in spec.unique for path in constraint.fields}
    if not any(isinstance(document.get(name), list | dict) for name in roots):
        return None
    try:
        count = len(claims(spec, document))
    except WriteError as error:
        return error
    if count < MOST_ACTIONS:
        return None
    text = f"{count} unique values in one document; DynamoDB can hold {MOST_ACTIONS - 1}"
    return WriteError(text, 2, {"index": 0, "code": 2, "errmsg": text})


def changed_claims(
    spec: CollectionSpec, before: Document | None, after: Document | None
) -> tuple[dict[str, UniqueClaim], dict[str, UniqueClaim]]:
    """The claims to take and the claims to release when a document changes."""
    old, new = claims(spec, before), claims(spec, after)
    return (
        {key: claim for key, claim in new.items() if key not in old},
        {key: claim for key, claim in old.items() if key not in new},
    )


def take(table: str, reserved: str, item_key: str, owner: str, before: str | None = None) -> dict[str, Any]:
    """The transaction's action that takes a claim for the document with key text `owner`, or takes it over from the
    document `before`, which must release it in the same transaction."""
    expression = Expression()
    free = f"attribute_not_exists({expression.path('_id')})"
    owners = [_owned(expression, reserved, each) for each in (owner, before) if each]
    condition = " OR ".join((free, *owners))
    item = {"_id": {"S": item_key}, reserved: {"M": {"k": {"S": "unique"}, "w": {"S": owner}}}}
    return {"Put": {"TableName": table, "Item": item, **expression.parameters(ConditionExpression=condition)}}


def release(table: str, reserved: str, item_key: str, owner: str) -> dict[str, Any]:
    """The action that releases a claim; it does not touch a claim of another document."""
    expression = Expression()
    condition = f"attribute_not_exists({expression.path('_id')}) OR {_owned(expression, reserved, owner)}"
    key = {"_id": {"S": item_key}}
    return {"Delete": {"TableName": table, "Key": key, **expression.parameters(ConditionExpression=condition)}}


def _owned(expression: Expression, reserved: str, owner: str) -> str:
    return f"{expression.path(reserved, 'w')} = {expression.value({'S': owner})}"


def owner_of(item: Mapping[str, Any], reserved: str) -> str:
    """The key text of the document that a uniqueness item belongs to."""
    return str(item.get(reserved, {}).get("M", {}).get("w", {}).get("S", ""))


def violation(namespace: str, claim: UniqueClaim) -> DuplicateKeyError:
    fields = claim.constraint.fields
    values = (None if value is UNDEFINED else value for value in claim.values)
    return duplicate_key(
        namespace, claim.constraint.name, dict.fromkeys(fields, 1), dict(zip(fields, values, strict=True))
    )
