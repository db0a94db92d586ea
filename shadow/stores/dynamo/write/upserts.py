"""Upserts by filter: of several upserts that find nothing at the same time, in any process, one inserts.

DynamoDB has no command that queries and inserts in one step. An upsert reads the guard of its filter (an item
`~upsert:<digest of the filter>` with a number) before its query, and inserts in one transaction that also increments
that number. An upsert that lost the race finds the guard changed, and queries again. The guard names the document that
was inserted last: an index may not show it yet.
"""

from __future__ import annotations

import time
from typing import Any, Final

from shadow.model.operation import UpsertGuard
from shadow.model.order import key_digest
from shadow.model.version import Document
from shadow.stores.dynamo.items.codec import Item
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.query.reads import CollectionTable

__all__ = ["advance", "guard_key", "guard_of", "last_inserted"]

_LIFETIME: Final = 86_400
"""Seconds after which DynamoDB may remove a guard: longer than any operation lasts and any index lags."""


def guard_key(filter: Document) -> str:
    return f"~upsert:{key_digest(filter)}"


def guard_of(table: CollectionTable, key: str, item: Item | None) -> UpsertGuard:
    """The guard as it was read; a missing item counts as 0."""
    return UpsertGuard(key, 0 if item is None else int(item[table.spec.reserved]["M"]["n"]["N"]))


def last_inserted(table: CollectionTable, item: Item) -> str:
    """The key text of the document that was inserted last."""
    return str(item[table.spec.reserved]["M"]["w"]["S"])


def advance(table: CollectionTable, guard: UpsertGuard, owner: str) -> dict[str, Any]:
    """The transaction's action that increments the guard if it is unchanged since it was read; `owner`: the key text of
    the document that is inserted with it."""
    expression = Expression()
    reserved = table.spec.reserved
    if guard.seen:
        condition = f"{expression.path(reserved, 'n')} = {expression.value({'N': str(guard.seen)})}"
    else:
        condition = f"attribute_not_exists({expression.path('_id')})"
    stamp = {"k": {"S": "upsert"}, "n": {"N": str(guard.seen + 1)}, "w": {"S": owner}}
    item = {
        "_id": {"S": guard.name},
        reserved: {"M": stamp},
        table.codec.ttl: {"N": str(int(time.time()) + _LIFETIME)},
    }
    return {"Put": {"TableName": table.name, "Item": item, **expression.parameters(ConditionExpression=condition)}}
