"""The planner: from a filter and a collection's indexes to the cheapest read that is sure to see every match. Pure.

A plan reads a superset. Each document that it yields is matched against the whole filter afterwards, so a plan may
read too much but never too little.

    KeyPlan     the filter fixes `_id` (equality, $in): GetItem or BatchGetItem
    QueryPlan   it fixes the hash attribute of an index, perhaps with a range: one Query for each `KeyRange`
    UnionPlan   an `$or` of which each branch is one of these two
    ScanPlan    anything else, with the conditions that DynamoDB itself can apply

An array field has the text `~array` in an index (see keys.py), so each query includes that text too.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from bson import ObjectId, Regex

from shadow.model.operation import Query
from shadow.model.schema import CollectionSpec, IndexSpec
from shadow.stores.dynamo.client.limits import RANGE_LIMIT
from shadow.stores.dynamo.items import keys
from shadow.stores.dynamo.items.expressions import Expression
from shadow.stores.dynamo.query.pushdown import Condition, pushed_text

__all__ = [
    "Condition",
    "KeyPlan",
    "KeyRange",
    "Plan",
    "QueryPlan",
    "ScanPlan",
    "UnionPlan",
    "conditions",
    "goes_by_index",
    "pinned_text",
    "plan",
    "shape",
    "spans",
    "suggestion",
    "wanted_keys",
]

_MOST_QUERIES: Final = 100
_LAST: Final = "\U0010ffff"
_LAST_OBJECT_ID: Final = "f" * 24
_COMPARISONS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """Read these keys of the table."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """One query of an index: a hash text and, for the range attribute, inclusive bounds (None: open)."""

    hash: str
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """Query the index for these ranges. They may overlap; duplicates count once."""

    index: IndexSpec
    ranges: tuple[KeyRange, ...]


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """Scan the whole table; DynamoDB may drop what fails one of `pushed`, of as many as its limits allow."""

    pushed: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class UnionPlan:
    """Run each of these; a key that several of them return counts once."""

    parts: tuple[KeyPlan | QueryPlan, ...]


Plan: TypeAlias = KeyPlan | QueryPlan | UnionPlan | ScanPlan


def conditions(filter: Mapping[str, Any]) -> Iterator[Condition]:
    """The conjuncts of a filter that are on a path; the matcher handles `$or` and the like."""
    for name, operand in filter.items():
        if name == "$and" and isinstance(operand, Sequence):
            for part in operand:
                yield from conditions(part)
        elif not name.startswith("$"):
            yield from _of_path(name, operand)


def _is_operators(operand: Any) -> bool:
    return isinstance(operand, dict) and next(iter(operand), "").startswith("$") and "$ref" not in operand


def _of_path(path: str, operand: Any) -> Iterator[Condition]:
    if _is_operators(operand):
        for operator, argument in operand.items():
            yield Condition(path, operator, argument)
    else:
        yield Condition(path, "$regex" if isinstance(operand, Regex) else "$eq", operand)


def plan(filter: Mapping[str, Any], spec: CollectionSpec) -> Plan:
    """The plan for a filter that `compile_filter` has accepted."""
    found = tuple(conditions(filter))
    direct = _direct(found, spec)
    if direct is not None:
        return direct
    for branches in _alternatives(filter):
        united = _union(found, branches, spec)
        if united is not None:
            return united
    texts = {"_id", *keys.key_limits(spec.indexes), *(index.hash for index in spec.indexes)}
    return ScanPlan(tuple(one for one in found if one.path.partition(".")[0] not in texts and _is_pushed(one)))


def _keyed(spec: CollectionSpec) -> frozenset[str]:
    """The fields that can serve a read."""
    return frozenset({"_id", *(name for index in spec.indexes for name in index.keys)})


def goes_by_index(chosen: Plan) -> bool:
    """Whether the plan uses an index, which may lag behind its table."""
    if isinstance(chosen, UnionPlan):
        return any(map(goes_by_index, chosen.parts))
    return isinstance(chosen, QueryPlan)


def _is_pushed(one: Condition) -> bool:
    return pushed_text(one.path, one.operator, one.operand, Expression(), "") != ""


def _direct(found: Sequence[Condition], spec: CollectionSpec) -> KeyPlan | QueryPlan | None:
    texts = _fixed(found, "_id")
    if texts is not None:
        return KeyPlan(texts)
    queries = [query for index in spec.indexes if (query := _query(found, index)) is not None]
    return max(queries, key=_precision) if queries else None


def _alternatives(filter: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The branches of each `$or` among the conjuncts."""
    for name, operand in filter.items():
        if name == "$or" and isinstance(operand, list):
            yield operand
        elif name == "$and" and isinstance(operand, list):
            for part in operand:
                yield from _alternatives(part)


def _union(
    found: tuple[Condition, ...], branches: Sequence[Mapping[str, Any]], spec: CollectionSpec
) -> UnionPlan | None:
    """The plan of an `$or` whose branches, each with the conditions around it, all have a key or an index. All keys
    are read together."""
    keyed = _keyed(spec)
    around = tuple(one for one in found if one.path in keyed and len(_values(one) or ()) <= _MOST_QUERIES)
    texts: dict[str, None] = {}
    queries: dict[QueryPlan, None] = {}
    requests = 0
    for branch in branches:
        part = _direct((*conditions(branch), *around), spec)
        if part is None:
            return None
        if isinstance(part, KeyPlan):
            texts.update(dict.fromkeys(part.texts))
        elif part not in queries:
            queries[part] = None
            requests += len(part.ranges)
        if requests > _MOST_QUERIES:
            return None
    return UnionPlan((*([KeyPlan(tuple(texts))] if texts else []), *queries))


def _precision(query: QueryPlan) -> tuple[int, bool, int]:
    narrowed = query.index.range is not None and query.ranges[0] != KeyRange(query.ranges[0].hash)
    return len(query.index.fields), narrowed, -len(query.ranges)


def _values(condition: Condition) -> list[Any] | None:
    """The values of which a field must equal one, or contain one."""
    match condition:
        case Condition(operator="$eq", operand=operand):
            return [operand]
        case Condition(operator="$in", operand=list() as operand) if not any(isinstance(v, Regex) for v in operand):
            return operand
    return None


def _fixed(found: Sequence[Condition], path: str) -> tuple[str, ...] | None:
    """The key texts to which the conditions on `path` restrict a field that is never an array; None if they don't."""
    pinned = [values for one in found if one.path == path and (values := _values(one)) is not None]
    if not pinned:
        return None
    fewest = min(pinned, key=len)
    return tuple(dict.fromkeys(map(keys.key_text, fewest)))


def _query(found: Sequence[Condition], index: IndexSpec) -> QueryPlan | None:
    hashes = _joined(found, index.fields) if index.fields else _texts(found, index.hash, keys.asked_texts)
    if hashes is None:
        return None
    between = spans(found, index.range) if index.range is not None else [(None, None)]
    ranges = tuple(KeyRange(text, low, high) for text in hashes for low, high in between)
    return QueryPlan(index, ranges) if len(ranges) <= _MOST_QUERIES else None


def _joined(found: Sequence[Condition], fields: Sequence[str]) -> list[str] | None:
    """The combined texts of several fields in every match; None if they cannot all be listed."""
    several = [_texts(found, path, _text_in_hash) for path in fields]
    if any(texts is None for texts in several):
        return None
    named = [[text for text in texts or () if text != keys.ARRAY] for texts in several]
    if math.prod(map(len, named)) > _MOST_QUERIES:
        return None
    return [*(keys.joined(texts) for texts in itertools.product(*named)), keys.ARRAY]


def _texts(found: Sequence[Condition], path: str, texts_of: Callable[[Any], tuple[str, ...]]) -> list[str] | None:
    """The texts that an indexed field may have in a match, given the texts of one value; None if they cannot all be
    listed. Null is such a case: the index has no entry for it."""
    for one in found:
        values = _values(one) if one.path == path else None
        if values is not None and None not in values:
            texts = (text for value in values if not isinstance(value, list) for text in texts_of(value))
            return list(dict.fromkeys([*texts, keys.ARRAY]))
    return None


def _text_in_hash(value: Any) -> tuple[str, ...]:
    return (keys.key_text(value),)


def _text_in_range(value: Any) -> tuple[str, ...]:
    return (keys.key_text(value, RANGE_LIMIT),)


def pinned_text(found: Sequence[Condition], path: str) -> str | None:
    """The key text of the one value that a non-array field has in every match; None if there is no such value."""
    texts = _texts(found, path, keys.asked_texts)
    return texts[0] if texts is not None and len(texts) == 2 and texts[0] != keys.ARRAY else None


Span: TypeAlias = tuple[str | None, str | None]


def spans(found: Sequence[Condition], path: str) -> list[Span]:
    """The spans of a range attribute that contain every match; the whole range if the conditions do not limit it."""
    texts = _texts(found, path, _text_in_range)
    if texts is not None:
        return [(text, text) for text in texts]
    bounds = [one for one in found if one.path == path and one.operator in _COMPARISONS]
    if not bounds:
        return [(None, None)]
    # An array matches {$gt: a, $lt: b} by one element for each bound, and has its own span; so all bounds apply to
    # values that are not arrays, and bounds of one kind narrow one span.
    kind = type(bounds[0].operand)
    if kind not in (str, dt.datetime, ObjectId):
        return [(None, None)]  # other types have no order as text, and some have none in Python
    same = [one for one in bounds if type(one.operand) is kind]
    low = max((one.operand for one in same if one.operator.startswith("$gt")), default=None)
    high = min((one.operand for one in same if one.operator.startswith("$lt")), default=None)
    if kind is str:
        return _string_spans(low, high)
    if kind is dt.datetime:
        between = (_date(low, "~date:"), _date(high, f"~date:{_LAST}"))
    else:
        between = (str(low or "0" * 24), str(high or _LAST_OBJECT_ID))
    return [(keys.ARRAY, keys.ARRAY)] if between[0] > between[1] else [between, (keys.ARRAY, keys.ARRAY)]


def _date(bound: dt.datetime | None, otherwise: str) -> str:
    return keys.key_text(bound) if bound is not None else otherwise


def _string_spans(low: str | None, high: str | None) -> list[Span]:
    """Strings represent themselves, or have a "~" prefix if they cannot (as other types have)."""
    escaped = ("~", f"~{_LAST}")
    low = low if low and len(low.encode()) <= RANGE_LIMIT else None
    high = high if high is None or len(high.encode()) <= RANGE_LIMIT else None
    if low is None and high is None:
        return [(None, None)]
    if high == "" or (low is not None and high is not None and low > high):
        return [escaped]
    if high is None and low is not None and low <= "~":
        return [(low, None)]
    return [(low, high), escaped]


# ---- shapes: how scans are counted ----


def shape(query: Query) -> str:
    """The form of a query, without its values: fields, operators and sort."""
    text = _shape_of(query.filter)
    if query.sort:
        text += " sort " + ", ".join(path if direction > 0 else f"-{path}" for path, direction in query.sort)
    return text


def _shape_of(filter: Mapping[str, Any]) -> str:
    return "{" + ", ".join(_clause(name, operand) for name, operand in sorted(filter.items())) + "}"


def _clause(name: str, operand: Any) -> str:
    if name in ("$and", "$or", "$nor") and isinstance(operand, list):
        return f"{name}: [{', '.join(sorted({_shape_of(part) for part in operand}))}]"
    if name.startswith("$"):
        return name
    operators = sorted(one.operator for one in _of_path(name, operand))
    return f"{name}: {' '.join(operators)}"


def suggestion(query: Query) -> str:
    """The index that would avoid the scan, in words; "" if none would."""
    keys_ = wanted_keys(query)
    if keys_ is None:
        return ""
    return f"hash {keys_[0]}" + (f", range {keys_[1]}" if keys_[1] is not None else "")


def wanted_keys(query: Query) -> tuple[str, str | None] | None:
    """The hash field and the range field of the index that would avoid the scan; None if none would."""
    found = list(conditions(query.filter))
    hashes = [one.path for one in found if _values(one) is not None and None not in (_values(one) or ())]
    top = [path for path in dict.fromkeys(hashes) if "." not in path]
    if not top:
        return None
    rest = [one.path for one in found if one.operator in _COMPARISONS] + [path for path, _ in query.sort]
    ranges = [path for path in rest if "." not in path and path != top[0]]
    return top[0], ranges[0] if ranges else None
