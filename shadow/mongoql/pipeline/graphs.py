"""`$graphLookup`: the documents of another collection that are reached step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bson import Int64

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document, order_key
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.match.filters import compile_filter
from shadow.mongoql.pipeline.joins import local_values, with_value
from shadow.mongoql.values import numbers
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.stages import Compiled, Lookup, Variables

__all__ = ["compile_graph_lookup"]

_NEEDED: Final = ("from", "as", "startWith", "connectFromField", "connectToField")
_KNOWN: Final = frozenset({*_NEEDED, "maxDepth", "depthField", "restrictSearchWithMatch"})


def compile_graph_lookup(spec: Any, given: Variables) -> Compiled:
    _check(spec)
    target, source = checked_path(spec["as"]), spec["from"]
    start = evaluator(spec["startWith"], given)
    origin = ".".join(checked_path(spec["connectFromField"]))
    link = ".".join(checked_path(spec["connectToField"]))
    depth_field = checked_path(spec["depthField"]) if "depthField" in spec else None
    allowed = compile_filter(spec.get("restrictSearchWithMatch", {}), given=given).matches
    most = truncated(spec["maxDepth"]) if "maxDepth" in spec else None

    def reached(document: Document, others: list[Document]) -> Iterator[Document]:
        """Each document once, with the least number of steps to it."""
        value = start(document)
        values = value if type(value) is list else [value]
        frontier = [each for each in values if each is not MISSING]
        asked: set[Any] = set()
        seen: set[Any] = set()
        depth = 0
        while frontier and (most is None or depth <= most):
            fresh = {key: each for each in frontier if (key := order_key(each)) not in asked}
            asked.update(fresh)
            matches = compile_filter({link: {"$exists": True, "$in": list(fresh.values())}}).matches
            frontier = []
            for other in others:
                key = order_key(other["_id"])
                if key in seen or not matches(other):
                    continue
                seen.add(key)
                frontier += local_values(other, origin)
                yield other if depth_field is None else with_value(other, depth_field, Int64(depth))
            depth += 1

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        others = [each for each in lookup(source) if allowed(each)]
        return [with_value(each, target, list(reached(each, others))) for each in documents]

    return stage, frozenset({source})


def _check(spec: Any) -> None:
    if type(spec) is not dict:
        raise failure(9, f"the $graphLookup stage specification must be an object, but found {described(spec)}")
    for name, value in spec.items():
        value = as_document(value)
        if name == "startWith":
            continue
        if name == "maxDepth":
            _check_depth(value)
        elif name == "restrictSearchWithMatch":
            if type(value) is not dict:
                raise failure(40185, "$graphLookup: restrictSearchWithMatch must be an object")
        elif name not in _KNOWN:
            raise failure(40104, f"Unknown argument to $graphLookup: {name}")
        elif name == "from" and type(value) is dict:
            raise UnsupportedOperation("$graphLookup.from", "of another database")
        elif type(value) is not str:
            raise failure(40103 if name != "from" else 9, f"expected string as argument for {name}")
    if not set(_NEEDED) <= spec.keys():
        raise failure(40105 if "from" in spec else 9, "$graphLookup requires from, as, startWith and both fields")


def _check_depth(value: Any) -> None:
    if not is_number(value):
        raise failure(40100, f"maxDepth requires numeric argument, found: {described(value)}")
    whole = truncated(value)
    if (whole or 0) < 0:
        raise failure(40101, "maxDepth requires a nonnegative argument")
    if whole is None or numbers.decimal_of(value) != whole or whole not in numbers.INT64:
        raise failure(40102, "maxDepth could not be represented as a long long")
