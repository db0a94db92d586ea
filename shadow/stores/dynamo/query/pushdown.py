"""Conditions that DynamoDB applies itself during a read: filter expressions that let every match through.

One expression has room for about thirty of them. Further conditions of a filter, and values that no item can hold, are
left to the matcher.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bson import ObjectId

from shadow.stores.dynamo.client.limits import ITEM_LIMIT, LONGEST_NAME_ASKED, Budget
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.items.values import attribute_size, encode_value

__all__ = ["Condition", "pushed_text", "pushed_texts"]

_COMPARISONS: Final = {"$gt": ">=", "$gte": ">=", "$lt": "<=", "$lte": "<="}
_EXACT_INTEGER: Final = 2**53
_LEAST_NUMBER: Final = 1e-120
_GREATEST_NUMBER: Final = 1e120
_DEEPEST: Final = 5
_MOST_MISSES: Final = 100
"""Conditions without room after which no more are tried."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One conjunct of a filter: path, operator (`$eq` for a plain value), operand."""

    path: str
    operator: str
    operand: Any


def pushed_texts(
    conditions: Iterable[Condition], expression: Expression, reserved: str, budget: Budget, joint: str
) -> list[str]:
    """`pushed_text` of as many of the conditions as fit, each preceded by `joint`; equalities first, because they leave
    the fewest documents."""
    texts: list[str] = []
    misses = 0
    for one in sorted(conditions, key=lambda one: one.operator != "$eq"):
        text = expression.attempt(budget, partial(_pushed, one, reserved), joint)
        if text:
            texts.append(text)
        elif (misses := misses + 1) == _MOST_MISSES:
            break
    return texts


def _pushed(one: Condition, reserved: str, expression: Expression) -> str:
    return pushed_text(one.path, one.operator, one.operand, expression, reserved)


def pushed_text(path: str, operator: str, operand: Any, expression: Expression, reserved: str) -> str:
    """A filter expression that is true for every document matching the condition; "" if there is no useful one.

    It lets through everything that DynamoDB cannot evaluate: lists on the path (one element may match), values stored
    as BSON (B), and documents whose fields are packed.
    """
    names = path.split(".")
    if len(names) > _DEEPEST or not all(names) or any(len(name.encode()) > LONGEST_NAME_ASKED for name in names):
        return ""
    test = _test(expression.path(*names), operator, operand, expression)
    if not test:
        return ""
    packed = " OR ".join(f"attribute_exists({expression.path(reserved, part)})" for part in ("z", "g"))
    steps = [expression.path(*names[: i + 1]) for i in range(len(names))]
    tags = [expression.value({"S": tag}) for tag in ("L", "B")]
    unjudged = " OR ".join(f"attribute_type({step}, {tag})" for step in steps for tag in tags)
    return f"({test} OR {unjudged} OR {packed})"


def _test(path: str, operator: str, operand: Any, expression: Expression) -> str:
    match operator:
        case "$eq" if operand is None:
            null = expression.value({"S": "NULL"})
            return f"attribute_not_exists({path}) OR attribute_type({path}, {null})"
        case "$eq":
            return _equal(path, operand, expression)
        case "$exists" if not operand:
            return f"attribute_not_exists({path})"
        case "$exists":
            return f"attribute_exists({path})"
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _compared(path, operator, operand, expression)
    return ""


def _equal(path: str, operand: Any, expression: Expression) -> str:
    if (attribute := _comparable(operand)) is not None:
        return f"{path} = {expression.value(attribute)}"
    if (around := _around(operand)) is None:
        return ""
    low, high = (expression.value({"N": text}) for text in around)
    return f"{path} BETWEEN {low} AND {high}"


def _compared(path: str, operator: str, operand: Any, expression: Expression) -> str:
    if isinstance(operand, bool):
        return ""
    sign = _COMPARISONS[operator]
    if (attribute := _comparable(operand)) is None:
        if (around := _around(operand)) is None:
            return ""
        attribute = {"N": around[sign == "<="]}
    test = f"{path} {sign} {expression.value(attribute)}"
    if isinstance(operand, dt.datetime):  # dates outside Python's years are kept as numbers
        return f"{test} OR attribute_type({path}, {expression.value({'S': 'N'})})"
    return test


def _comparable(operand: Any) -> dict[str, Any] | None:
    """The attribute that DynamoDB compares as MongoDB compares the value. Numbers only where every numeric type is
    written in the same form."""
    if type(operand) in (str, bool, ObjectId, dt.datetime):  # exactly these: Code is a str too
        attribute = encode_value(operand)[0]
        return attribute if attribute_size(attribute) <= ITEM_LIMIT else None
    if isinstance(operand, int | float) and float(operand).is_integer() and abs(operand) < _EXACT_INTEGER:
        return {"N": str(int(operand))}
    return None


def _around(operand: Any) -> tuple[str, str] | None:
    """The doubles next to a number, below and above. A double is written by its shortest digits, a decimal or an
    integer by its own, and MongoDB compares the exact values: every written form is between these neighbours."""
    if not isinstance(operand, int | float) or isinstance(operand, bool):
        return None
    number = float(operand)
    if not _LEAST_NUMBER < abs(number) < _GREATEST_NUMBER:  # neither does NaN
        return None
    return repr(math.nextafter(number, -math.inf)), repr(math.nextafter(number, math.inf))
