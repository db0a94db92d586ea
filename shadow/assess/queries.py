"""Recorded queries by shape, through the real planner. Values go no further than `QueryShape.query`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bson import json_util
from bson.errors import BSONError
from pymongo.errors import OperationFailure

from shadow.assess.measure import TextTally
from shadow.assess.model import Hot, QueryReport, Served
from shadow.compare.diff import Hasher, safe_name
from shadow.errors import UnsupportedOperation
from shadow.model.operation import Query, Sort
from shadow.model.schema import CollectionSpec
from shadow.model.values import normalise
from shadow.mongoql import cached_filter, compile_pipeline
from shadow.stores.dynamo.query.ordering import ordered_plan
from shadow.stores.dynamo.query.plan import (
    KeyPlan,
    Plan,
    QueryPlan,
    ScanPlan,
    UnionPlan,
    plan,
    shape,
    suggestion,
    wanted_keys,
)

__all__ = ["MARK", "QueryShape", "Recorded", "from_lines", "from_profile", "gather", "is_speakable", "reported"]

MARK: Final = "shadow assess"
"""The comment on every query of the assessment, by which its own profiler entries are recognised."""

_MOST_SHAPES: Final = 500


class UnreadableLine(ValueError):
    """A line that is not a recorded query. The text says why, without any of the line."""


class ReadVerb(enum.StrEnum):
    FIND = "find"
    COUNT = "count"
    DISTINCT = "distinct"
    AGGREGATE = "aggregate"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One query as recorded, `count` times."""

    collection: str
    verb: ReadVerb
    query: Query
    pipeline: tuple[Mapping[str, Any], ...] | None = None
    count: int = 1


@dataclass(slots=True)
class QueryShape:
    """Queries that differ only in their values. `query` and `pipeline` are those of one of them."""

    collection: str
    verb: ReadVerb
    text: str
    query: Query
    pipeline: tuple[Mapping[str, Any], ...] | None
    count: int = 0
    asked: dict[str, TextTally] = field(default_factory=dict)
    """The texts of the queried keys, for each access path (`_id`, or the name of an index)."""


# --- sources ---------------------------------------------------------------------------------------


def from_lines(lines: Iterable[str]) -> Iterator[Recorded]:
    """From a file: one JSON object per line, with `collection`, and optionally `filter` (extended JSON), `sort`,
    `limit`, `count` and `pipeline`. Raises ValueError with the number of an invalid line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _from_line(line)
            except (ValueError, TypeError, KeyError, AttributeError, BSONError) as error:
                said = str(error) if isinstance(error, UnreadableLine) else type(error).__name__
                raise ValueError(f"line {number}: not a recorded query ({said})") from None


def _from_line(line: str) -> Recorded:
    raw = json_util.loads(line, json_options=json_util.JSONOptions(tz_aware=False, document_class=dict))
    if not isinstance(raw, dict) or not isinstance(raw.get("collection"), str):
        raise UnreadableLine("it needs a collection")
    unknown = set(raw) - {"collection", "verb", "filter", "sort", "limit", "count", "pipeline"}
    if unknown:
        raise UnreadableLine("it has a key other than collection, verb, filter, sort, limit, count, pipeline")
    count = int(raw.get("count", 1))
    if "pipeline" in raw:
        pipeline = normalise({"": raw["pipeline"]})[""]
        _check(lambda: compile_pipeline(pipeline))
        return _aggregated(raw["collection"], pipeline, count)
    query = Query(normalise(raw.get("filter") or {}), sort=_sort(raw.get("sort")), limit=int(raw.get("limit", 0)))
    _check(lambda: cached_filter(query.filter))
    return Recorded(raw["collection"], ReadVerb(raw.get("verb", ReadVerb.FIND)), query, count=count)


def _check(compile: Callable[[], object]) -> None:
    """A query that MongoDB refuses cannot have been recorded."""
    try:
        compile()
    except UnsupportedOperation:
        return
    except OperationFailure as error:
        raise UnreadableLine(f"MongoDB refuses it with code {error.code}") from None


def _sort(given: Any) -> Sort:
    """From {field: direction}, [[field, direction]], or a field."""
    if not given:
        return ()
    if isinstance(given, str):
        return ((given, 1),)
    pairs = given.items() if isinstance(given, Mapping) else given
    return tuple((str(path), 1 if not isinstance(way, Mapping) and way > 0 else -1) for path, way in pairs)


def from_profile(entries: Iterable[Mapping[str, Any]], database: str) -> Iterator[Recorded]:
    """From documents of `system.profile`, without the assessment's own queries and other operations."""
    for entry in entries:
        command = entry.get("command")
        _, _, collection = str(entry.get("ns", "")).partition(f"{database}.")
        if isinstance(command, Mapping) and collection and not collection.startswith("system."):
            with_own = command.get("comment") == MARK
            recorded = None if with_own else _from_command(collection, str(entry.get("op")), command)
            if recorded is not None:
                yield recorded


def _from_command(collection: str, op: str, command: Mapping[str, Any]) -> Recorded | None:
    match op:
        case "query" if "find" in command:
            query = Query(_filter(command, "filter"), sort=_sort(command.get("sort")), limit=command.get("limit", 0))
            return Recorded(collection, ReadVerb.FIND, query)
        case "update" if "q" in command:
            return Recorded(collection, ReadVerb.UPDATE, Query(_filter(command, "q")))
        case "remove" if "q" in command:
            return Recorded(collection, ReadVerb.DELETE, Query(_filter(command, "q")))
        case "command":
            return _from_other(collection, command)
    return None


def _from_other(collection: str, command: Mapping[str, Any]) -> Recorded | None:
    if "aggregate" in command:
        pipeline = command.get("pipeline", [])
        if any("$collStats" in stage or "$indexStats" in stage for stage in pipeline):
            return None
        return _aggregated(collection, pipeline, 1)
    if "count" in command and command.get("query"):
        return Recorded(collection, ReadVerb.COUNT, Query(_filter(command, "query")))
    if "distinct" in command:
        return Recorded(collection, ReadVerb.DISTINCT, Query(_filter(command, "query")))
    if "findAndModify" in command or "findandmodify" in command:
        verb = ReadVerb.DELETE if command.get("remove") else ReadVerb.UPDATE
        return Recorded(collection, verb, Query(_filter(command, "query"), sort=_sort(command.get("sort")), limit=1))
    return None


def _filter(command: Mapping[str, Any], name: str) -> dict[str, Any]:
    return dict(command.get(name) or {})


def _aggregated(collection: str, pipeline: Sequence[Mapping[str, Any]], count: int) -> Recorded:
    """PyMongo's `count_documents` is an aggregate too, of a recognisable form."""
    names = [next(iter(stage), "") for stage in pipeline]
    leading: list[Any] = []
    for stage in pipeline:
        if "$match" not in stage:
            break
        leading.append(stage["$match"])
    query = Query(leading[0] if len(leading) == 1 else {"$and": leading} if leading else {})
    counts = names == ["$match", "$group"] and pipeline[1]["$group"] == {"_id": 1, "n": {"$sum": 1}}
    if counts:
        return Recorded(collection, ReadVerb.COUNT, query, count=count)
    return Recorded(collection, ReadVerb.AGGREGATE, query, tuple(pipeline), count)


# --- report ---------------------------------------------------------------------------------------


def gather(recorded: Iterable[Recorded]) -> list[QueryShape]:
    """Groups queries by shape, the most frequent first; at most 500 shapes."""
    shapes: dict[tuple[str, str, str], QueryShape] = {}
    for each in recorded:
        text = shape(_named_safely(each.query)) + _stages(each.pipeline)
        key = (each.collection, each.verb.value, text)
        if key not in shapes and len(shapes) >= _MOST_SHAPES:
            continue
        found = shapes.setdefault(key, QueryShape(each.collection, each.verb, text, each.query, each.pipeline))
        found.count += each.count
        for way, text in _keys_asked(each.query):
            found.asked.setdefault(way, TextTally(10_000)).add(text)
    return sorted(shapes.values(), key=lambda one: -one.count)


def _named_safely(query: Query) -> Query:
    """The query with `*` for every name that is data."""
    return replace(
        query, filter=_safe_filter(query.filter), sort=tuple((_safe_path(path), way) for path, way in query.sort)
    )


def _safe_filter(filter: Mapping[str, Any]) -> dict[str, Any]:
    safe: dict[str, Any] = {}
    for name, operand in filter.items():
        if name in ("$and", "$or", "$nor") and isinstance(operand, list):
            safe[name] = [_safe_filter(part) for part in operand if isinstance(part, Mapping)]
        else:
            safe[name if name.startswith("$") else _safe_path(name)] = operand
    return safe


def _safe_path(path: str) -> str:
    return ".".join(part if safe_name(part) or part.isdigit() else "*" for part in path.split("."))


def _stages(pipeline: Sequence[Mapping[str, Any]] | None) -> str:
    names = [next(iter(stage), "?") for stage in pipeline or ()]
    while names and names[0] == "$match":
        names.pop(0)
    return f" | {' '.join(names)}" if names else ""


def _keys_asked(query: Query) -> Iterator[tuple[str, str]]:
    """The single key that a query selects."""
    chosen = plan(query.filter, CollectionSpec("any"))
    if isinstance(chosen, KeyPlan) and len(chosen.texts) == 1:
        yield "_id", chosen.texts[0]


def reported(
    shapes: Iterable[QueryShape], specs: Mapping[str, CollectionSpec], hasher: Hasher
) -> Iterator[tuple[QueryShape, QueryReport]]:
    """How each shape is answered with the indexes of `specs`; shapes of other collections are skipped."""
    for one in shapes:
        spec = specs.get(one.collection)
        if spec is not None:
            served, detail, is_sorted_here = _served(one, spec)
            wanted = suggestion(one.query) if served is Served.SCAN and is_speakable(one.query) else ""
            hottest = tuple(hot for tally in one.asked.values() for hot in _hottest(tally, hasher))
            yield (
                one,
                QueryReport(
                    one.collection,
                    one.verb,
                    one.text,
                    one.count,
                    served,
                    detail,
                    is_sorted_here,
                    wanted,
                    hottest=hottest,
                ),
            )


def is_speakable(query: Query) -> bool:
    """Whether the suggested index has names, rather than data, as its fields."""
    keys = wanted_keys(query)
    return keys is not None and all(safe_name(name) for name in keys if name is not None)


def _hottest(tally: TextTally, hasher: Hasher) -> tuple[Hot, ...]:
    return tally.hottest(hasher, 1) if tally.total >= 20 else ()


def _served(one: QueryShape, spec: CollectionSpec) -> tuple[Served, str, bool]:
    try:
        cached_filter(one.query.filter)
        if one.pipeline is not None:
            compile_pipeline([dict(stage) for stage in one.pipeline])
    except UnsupportedOperation as error:
        return Served.REFUSED, error.name, False
    except OperationFailure as error:
        return Served.REFUSED, f"error {error.code}", False
    chosen = plan(one.query.filter, spec)
    is_sorted_here = bool(one.query.sort) and ordered_plan(one.query, spec) is None
    return (*_way(chosen), is_sorted_here)


def _way(chosen: Plan) -> tuple[Served, str]:
    match chosen:
        case KeyPlan():
            return Served.KEY, "_id"
        case QueryPlan(index=index):
            return Served.INDEX, index.name
        case UnionPlan(parts=parts):
            ways = [_way(part)[1] for part in parts]
            return Served.INDEX, " and ".join(dict.fromkeys(ways))
        case ScanPlan(pushed=pushed):
            return Served.SCAN, "filtered by DynamoDB" if pushed else ""
