"""What is drawn by chance: `$rand`, and `$sampleRate`, which the server makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from shadow.model.order import as_document
from shadow.mongoql.values.failures import failure
from shadow.mongoql.values.predicates import is_nan, is_number
from shadow.mongoql.values.support import LITERALS

__all__ = ["chance_in", "chance_in_filter", "compile_rand", "sampled"]

_LOGICAL: Final = frozenset({"$and", "$or", "$nor"})


def compile_rand(operand: Any) -> Callable[[Any, Any], float]:
    """The expression, which draws once for each evaluation."""
    operand = as_document(operand)
    if type(operand) not in (dict, list):
        raise failure(10065, "invalid parameter: expected an object ($rand)")
    if operand:
        raise failure(3040501, "$rand does not currently accept arguments")
    return lambda document, names: random.random()


def sampled(rate: Any) -> dict[str, Any]:
    """The expression of `$sampleRate`."""
    if not is_number(rate):
        raise failure(2, "argument to $sampleRate must be a numeric type")
    if is_nan(rate) or not 0 <= float(str(rate)) <= 1:
        raise failure(2, "numeric argument to $sampleRate must be in [0, 1]")
    return {"$lt": [{"$rand": {}}, rate]}


def chance_in(expression: Any) -> str:
    """The name of an operator in an expression, or in stages, whose value is drawn; "" if there is none."""
    if isinstance(expression, Mapping):
        if "$rand" in expression:
            return "$rand"
        return next(
            (found for name, each in expression.items() if name not in LITERALS and (found := chance_in(each))), ""
        )
    if isinstance(expression, list):
        return next((found for each in expression if (found := chance_in(each))), "")
    return ""


def chance_in_filter(filter: Mapping[str, Any]) -> str:
    """See `chance_in`. Only conditions without a path can be drawn."""
    for name, value in filter.items():
        if name == "$sampleRate":
            return name
        if name == "$expr" and (found := chance_in(value)):
            return found
        if name in _LOGICAL and isinstance(value, list):
            for each in value:
                if isinstance(each, Mapping) and (found := chance_in_filter(each)):
                    return found
    return ""
