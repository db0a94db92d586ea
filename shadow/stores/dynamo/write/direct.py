"""Updates in one round trip: one conditional UpdateItem, where it has exactly the meaning of the update.

This covers `$set` of existing top-level fields with the same hint as the new value (so that order and types are
unchanged), and `$inc` of an int32 field by an int32 whose sum is one. Conditions ensure that; if the condition fails,
the general path continues with the item that the failure returns.

The previous version is a condition too, so this is for the secondary only, which gets it with the write. The primary
would have to do without: a request that was delayed on the way, and sent again by the client, would then change the
document a second time when it arrives, with no open intent for that change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shadow.model.operation import Change, Update
from shadow.model.version import Document, Version
from shadow.stores.dynamo.client.limits import LONGEST_NAME_ASKED
from shadow.stores.dynamo.items.expressions import Expression, exactly
from shadow.stores.dynamo.items.values import encode_value, escaped
from shadow.stores.dynamo.query.reads import CollectionTable
from shadow.stores.dynamo.write.changes import names_only_key

__all__ = ["direct_request"]

_INT32_MIN: Final = -(2**31)
_INT32_MAX: Final = 2**31 - 1
_MOST_FIELDS: Final = 30


def direct_request(
    table: CollectionTable, key_text: str, change: Change, op_id: str, pre: Version
) -> dict[str, Any] | None:
    """The UpdateItem that applies a change (already compiled, so known to be valid) to the document under a key, at
    version `pre`; None if no UpdateItem is exact. The response contains the old item."""
    if not isinstance(change, Update) or not isinstance(change.update, dict) or not names_only_key(change.filter):
        return None
    return _of_operators(table, key_text, change.update, op_id, pre)


def _of_operators(
    table: CollectionTable, key_text: str, operators: Mapping[str, Document], op_id: str, pre: Version
) -> dict[str, Any] | None:
    if not set(operators) <= {"$set", "$inc"} or not (pre.born and pre.rev):
        return None
    fields = [(operator, name, value) for operator, operands in operators.items() for name, value in operands.items()]
    if not 0 < len(fields) <= _MOST_FIELDS or not all(_is_free(table, name) for _, name, _ in fields):
        return None
    expression = Expression()
    sets: list[str] = []
    tests = _state_tests(expression, table.spec.reserved, pre)
    for operator, name, value in fields:
        step = (_set if operator == "$set" else _increase)(expression, table.spec.reserved, name, value)
        if step is None:
            return None
        sets.append(step[0])
        tests += step[1]
    rev, last = expression.path(table.spec.reserved, "r"), expression.path(table.spec.reserved, "o")
    sets.append(f"{rev} = {rev} + {expression.value({'N': '1'})}, {last} = {expression.value({'S': op_id})}")
    change, condition = f"SET {', '.join(sets)}", " AND ".join(tests)
    if not expression.fits(change, condition):
        return None
    return {
        "TableName": table.name,
        "Key": {"_id": {"S": key_text}},
        "ReturnValues": "ALL_OLD",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "ReturnConsumedCapacity": "INDEXES",
        **expression.parameters(UpdateExpression=change, ConditionExpression=condition),
    }


def _is_free(table: CollectionTable, path: str) -> bool:
    """Whether a field is a plain attribute: top-level, and not part of a key of the table, an index or a constraint."""
    constrained = {field.partition(".")[0] for unique in table.spec.unique for field in unique.fields}
    indexed = {*table.codec.limits, *table.codec.composites, *(n for each in table.spec.indexes for n in each.fields)}
    expiring = set() if table.spec.expiry is None else {table.spec.expiry.field.partition(".")[0]}
    names = {"", "_id", table.codec.reserved, table.codec.ttl, *indexed, *constrained, *expiring}
    return path[:1] != "$" and "." not in path and path not in names and len(path.encode()) <= LONGEST_NAME_ASKED


def _state_tests(expression: Expression, reserved: str, pre: Version) -> list[str]:
    packed = (expression.path(reserved, part) for part in ("z", "g"))
    return [exactly(expression, reserved, pre), *(f"attribute_not_exists({path})" for path in packed)]


def _set(expression: Expression, reserved: str, name: str, value: Any) -> tuple[str, list[str]] | None:
    attribute, hint = encode_value(value, 1)
    path, hinted = expression.path(name), expression.path(reserved, "h", escaped(name))
    same = f"attribute_not_exists({hinted})" if hint is None else f"{hinted} = {expression.value(hint)}"
    return f"{path} = {expression.value(attribute)}", [f"attribute_exists({path})", same]


def _increase(expression: Expression, reserved: str, name: str, value: Any) -> tuple[str, list[str]] | None:
    if type(value) is not int or not _INT32_MIN <= value <= _INT32_MAX:
        return None
    path, hinted = expression.path(name), expression.path(reserved, "h", escaped(name))
    low = expression.value({"N": str(max(_INT32_MIN, _INT32_MIN - value))})
    high = expression.value({"N": str(min(_INT32_MAX, _INT32_MAX - value))})
    tests = [f"{path} BETWEEN {low} AND {high}", f"attribute_not_exists({hinted})"]
    return f"{path} = {path} + {expression.value({'N': str(value)})}", tests
