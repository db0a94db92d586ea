"""How the DynamoDB store executes each supported operator: the term in the manual's table of operations."""

from __future__ import annotations

import enum
from functools import cache
from typing import Any, Final

from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.mongoql.values.support import Family, Support, SupportEntry
from shadow.stores.dynamo.query.plan import ScanPlan, plan

__all__ = ["How", "how"]


class How(enum.StrEnum):
    NATIVE = "native"
    """DynamoDB evaluates it: a key, an index (`$or`: one for each of its branches), a filter expression; the rest of a
    filter is still checked here."""
    RESIDUAL = "residual"
    """The documents are read and the operator is evaluated here, exactly."""
    COMPUTED = "computed"
    """The new document, or the result, is computed here; a write is conditional on an unchanged document."""
    REFUSED = "refused"
    """Rejected by name, before any store is accessed."""


_SPEC: Final = CollectionSpec("any", (IndexSpec("a-index", "a"),))
_BRANCHES: Final = [{"_id": "k"}, {"a": "v"}]
_OPERANDS: Final[dict[str, Any]] = {"$in": ["v"], "$nin": ["v"], "$exists": True, "$regex": "^v", "$not": {"$eq": "v"}}
"""Operands where a plain string is invalid, or not the best-supported one."""


def how(entry: SupportEntry) -> How:
    if entry.status is Support.REFUSED:
        return How.REFUSED
    if entry.family is Family.QUERY:
        return How.NATIVE if _is_planned(entry.name) else How.RESIDUAL
    # A pipeline's first stage is read like a query.
    return How.NATIVE if (entry.family, entry.name) == (Family.STAGE, "$match") else How.COMPUTED


@cache
def _is_planned(name: str) -> bool:
    """Whether the planner turns an operator into keys, key conditions or filter expressions."""
    if name in ("$and", "$or", "$nor"):
        return _narrows({name: _BRANCHES})
    operand = _OPERANDS.get(name, "v")
    return any(_narrows({field: {name: operand}}) for field in ("a", "plain"))


def _narrows(filter: dict[str, Any]) -> bool:
    chosen = plan(filter, _SPEC)
    return not isinstance(chosen, ScanPlan) or bool(chosen.pushed)
