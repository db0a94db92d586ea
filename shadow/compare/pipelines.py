"""What a pipeline determines of its answer, and what the server leaves open: derived from the stages, without the
documents.

Documents enter a pipeline in no order that two stores share, and so does what `$lookup` finds. A stage may fix an order
(`$sort`), not need one (`$match`, `$sum`), or depend on it (`$first`, `$push`, `$limit`). `openness` follows that
through the stages: which rows there are, in which order, and what is open inside them (`freedom.OpenShape`). Unknown
stages and operators count as open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from shadow.compare.freedom import ANYTHING, EXACT, Freedom, OpenShape
from shadow.compare.open_expressions import expression, merged, only_path, value_at, with_value
from shadow.compare.open_groups import accumulated, bucket, bucket_auto, group, sort_by_count
from shadow.compare.openness import Openness, Rows, least, settled, touched
from shadow.model.version import Document
from shadow.mongoql.values.paths import position

__all__ = ["Openness", "Rows", "openness", "projected"]


def openness(pipeline: Sequence[Document]) -> Openness:
    """What the answer of `pipeline` determines."""
    state = Openness(single=_names_one(pipeline))
    for stage in pipeline:
        state = _after(state, stage)
    if _loses_elements(pipeline):
        state = replace(state, rows=Rows.OPEN)
    return replace(state, placed=not _reshaped(pipeline))


def projected(projection: Document | None) -> OpenShape:
    """What the expressions of a projection of `find` leave open in the documents."""
    shape = EXACT
    for path, value in _flat(projection or {}):
        if not isinstance(_switch(value), bool):
            shape = with_value(shape, path, expression(value, EXACT))
    return shape


def _after(state: Openness, stage: Document) -> Openness:
    name = next(iter(stage), "")
    return _STAGES.get(name, _unknown)(state, stage.get(name))


_SHAPING: Final = frozenset({"$project", "$addFields", "$set", "$unset", "$replaceRoot", "$replaceWith", "$unwind"})


def _reshaped(pipeline: Sequence[Document]) -> bool:
    """Whether the server may return the fields of the rows in another order: it merges and moves stages that shape
    them, `$lookup` over an existing field has two places for it, and several outputs of `$setWindowFields` come in the
    order of a hash table, another one for each request."""
    names = [next(iter(stage), "") for stage in pipeline]
    several = any(
        len(stage.get(name, {}).get("output", ())) > 1 for stage in pipeline for name in ("$setWindowFields", "$fill")
    )
    return several or "$lookup" in names or "$facet" in names or sum(name in _SHAPING for name in names) > 1


def _loses_elements(pipeline: Sequence[Document]) -> bool:
    """Whether a stage uses a position (`a.0`) before one that needs only some fields of each document: the server
    then reads these fields alone, without the element at the position."""
    by_position = False
    for stage in pipeline:
        if by_position and ("$project" in stage or "$group" in stage):
            return True
        paths = [*stage.get("$sort", ()), str(stage.get("$lookup", {}).get("localField", ""))]
        by_position = by_position or any(position(part) >= 0 for path in paths for part in path.split("."))
    return False


def _names_one(pipeline: Sequence[Document]) -> bool:
    """Whether the first stage matches a single key."""
    first = pipeline[0].get("$match") if pipeline else None
    key = first.get("_id") if isinstance(first, Mapping) else None
    if isinstance(key, Mapping):
        key = key["$eq"] if list(key) == ["$eq"] else None
    return key is not None and not isinstance(key, Mapping | list) and not hasattr(key, "pattern")


def _unknown(state: Openness, spec: Any) -> Openness:
    return Openness(Rows.OPEN, ANYTHING, distinct=False)


# -- stages -------------------------------------------------------------------------------------------------------


def _match(state: Openness, spec: Any) -> Openness:
    state = settled(state)
    if not _filter_is_exact(spec, state.shape):
        return replace(state, rows=Rows.OPEN)
    return replace(state, rows=Rows.OPEN if state.rows is Rows.COUNTED else state.rows)


_ORDER_FREE_CONDITIONS: Final = frozenset(
    {"$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$size", "$elemMatch", "$not"}
)


def _filter_is_exact(spec: Any, shape: OpenShape) -> bool:
    """Whether a filter selects the same rows whatever is open in them."""
    if not isinstance(spec, Mapping):
        return True
    for path, wanted in spec.items():
        if path in ("$and", "$or", "$nor"):
            if not all(_filter_is_exact(each, shape) for each in wanted):
                return False
        elif path == "$expr":
            if not expression(wanted, shape).exact:
                return False
        elif path == "$jsonSchema":
            if not shape.exact:
                return False
        elif path == "$sampleRate":
            return False
        elif not path.startswith("$"):
            opened = value_at(shape, path)
            if opened.exact:
                continue
            if opened.fields or not opened.open <= {Freedom.ORDER, Freedom.EQUALS} or not _plain_condition(wanted):
                return False
    return True


def _plain_condition(wanted: Any) -> bool:
    """Whether a condition tests elements by value, not their order, their types or a whole list."""
    if isinstance(wanted, list):
        return False
    if not isinstance(wanted, Mapping):
        return not hasattr(wanted, "pattern")
    if not next(iter(wanted), "").startswith("$"):
        return True
    if not wanted.keys() <= _ORDER_FREE_CONDITIONS:
        return False
    return all(
        all(not isinstance(each, list) for each in value)
        if name in ("$in", "$nin")
        else _plain_condition(value)
        if name in ("$not", "$elemMatch")
        else not isinstance(value, list)
        for name, value in wanted.items()
    )


def _sort(state: Openness, spec: Any, *, alone: bool = True) -> Openness:
    """`alone`: nothing else is sorted by. Otherwise a list in `_id` counts by its elements, and can tie."""
    state = settled(state)
    sort = tuple((path, -1 if direction < 0 else 1) for path, direction in spec.items())
    shapes = [value_at(state.shape, path) for path, _ in sort]
    allowed = {Freedom.ORDER, Freedom.EQUALS, Freedom.ROUNDING}
    known = all(not each.fields and each.open <= allowed for each in shapes)
    by_key = any(path == "_id" for path, _ in sort) and (state.stored or (alone and len(sort) == 1))
    whole = known and state.rows is Rows.KNOWN and state.distinct and by_key
    return replace(state, whole=whole, sort=sort, seen=known)


def _skip(state: Openness, spec: Any) -> Openness:
    count = int(spec)
    if not count or state.single or state.fixed:
        return state
    if not state.sort:
        return replace(state, rows=least(state.rows, Rows.COUNTED))
    limit = state.limit
    if limit and limit <= count:
        return replace(state, rows=Rows.OPEN)
    return replace(state, skip=state.skip + count, limit=limit - count if limit else 0)


def _limit(state: Openness, spec: Any) -> Openness:
    count = int(spec)
    if state.fixed:
        return replace(state, single=state.single or (count == 1 and state.rows is Rows.KNOWN))
    if not state.sort:
        return replace(state, rows=least(state.rows, Rows.COUNTED))
    return replace(state, limit=min(state.limit or count, count))


def _project(state: Openness, spec: Any) -> Openness:
    plain = {name: _switch(value) for name, value in _flat(spec)}
    others = [value for name, value in plain.items() if name != "_id"] or [plain.get("_id", False)]
    if all(value is False for value in others):
        return _unset(state, [name for name, value in plain.items() if value is False])
    made = EXACT
    plain = {"_id": True, **plain}
    for name, value in plain.items():
        if value is True:
            made = merged(made, only_path(state.shape, name.split(".")))
        elif value is not False:
            made = with_value(made, name, expression(value, state.shape))
    names = [name for name, value in plain.items() if value is True]
    seen = state.seen and all(_covered(path, names) for path, _ in state.sort)
    distinct = state.distinct and "_id" in names
    return replace(state, shape=made, seen=seen, distinct=distinct)


def _flat(spec: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    """The fields of a `$project` or `$addFields`, nested documents as dotted paths."""
    flat: list[tuple[str, Any]] = []
    for name, value in spec.items():
        nested = isinstance(value, Mapping) and value and not next(iter(value)).startswith("$")
        flat += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return flat


def _switch(value: Any) -> Any:
    """True and False for including and excluding a field; an expression as it is."""
    if isinstance(value, bool | int | float):
        return bool(value)
    return bool(value.to_decimal()) if hasattr(value, "to_decimal") else value


def _covered(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _add(state: Openness, spec: Any) -> Openness:
    made = state
    for path, value in _flat(spec):
        made = touched(made, path)
        made = replace(made, shape=with_value(made.shape, path, expression(value, state.shape)))
    return made


def _unset(state: Openness, spec: Any) -> Openness:
    for path in [spec] if isinstance(spec, str) else spec:
        state = touched(state, path)
        state = replace(state, shape=with_value(state.shape, path, EXACT))
    return state


def _replace_root(state: Openness, spec: Any) -> Openness:
    return _replace_with(state, spec["newRoot"])


def _replace_with(state: Openness, spec: Any) -> Openness:
    shape = expression(spec, state.shape)
    same = spec in ("$$ROOT", "$$CURRENT")
    return replace(state, shape=shape, seen=state.seen and (same or not state.sort), distinct=state.distinct and same)


def _unwind(state: Openness, spec: Any) -> Openness:
    state = settled(state)
    options = {"path": spec} if isinstance(spec, str) else spec
    path = options["path"][1:]
    opened = value_at(state.shape, path)
    rows = Rows.OPEN if state.rows is Rows.COUNTED else state.rows
    made = replace(touched(state, path), rows=rows, distinct=False, single=False)
    if Freedom.ANYTHING in opened.open:
        made = replace(made, rows=Rows.OPEN)
    ordered = not opened.open & {Freedom.ORDER, Freedom.PLACE}
    made = replace(
        made,
        whole=state.fixed and ordered,
        shape=with_value(made.shape, path, OpenShape(opened.open & {Freedom.EQUALS}, opened.fields)),
    )
    index = options.get("includeArrayIndex")
    if index:
        made = touched(made, index)
        made = replace(made, shape=with_value(made.shape, index, EXACT if ordered else ANYTHING))
    return made


def _lookup(state: Openness, spec: Any) -> Openness:
    known = all(expression(value, state.shape).exact for value in spec.get("let", {}).values())
    if "localField" in spec:
        local = value_at(state.shape, spec["localField"])
        known = known and not local.fields and local.open <= {Freedom.ORDER, Freedom.EQUALS}
    return _joined(state, spec["as"], _facet_shape(Openness(), spec.get("pipeline", ())) if known else ANYTHING)


def _union(state: Openness, spec: Any) -> Openness:
    first, second = settled(state), Openness()
    for stage in () if isinstance(spec, str) else spec.get("pipeline", ()):
        second = _after(second, stage)
    second = settled(second)
    shape = merged(first.shape, second.shape)
    return Openness(least(first.rows, second.rows), shape, distinct=False, stored=False)


def _joined(state: Openness, path: str, made: OpenShape) -> Openness:
    return replace(touched(state, path), shape=with_value(state.shape, path, made))


# -- the other stages ----------------------------------------------------------------------------------------------


def _sample(state: Openness, spec: Any) -> Openness:
    return replace(
        settled(state), rows=least(state.rows, Rows.COUNTED), whole=False, sort=(), single=int(spec["size"]) == 1
    )


def _redact(state: Openness, spec: Any) -> Openness:
    known = state.shape.exact and expression(spec, EXACT).exact
    rows = state.rows if state.rows is Rows.KNOWN and known else Rows.OPEN
    return replace(settled(state), rows=rows, shape=EXACT if known else ANYTHING, seen=False, distinct=False)


_UNBOUNDED: Final = ["unbounded", "unbounded"]
_COVARIANCES: Final = frozenset({"$covariancePop", "$covarianceSamp"})
"""Over a window that slides these may differ (difference 450)."""
_BY_PLACE: Final = frozenset(
    {
        *("$documentNumber", "$shift", "$derivative", "$integral", "$expMovingAvg", "$locf", "$linearFill"),
        *_COVARIANCES,
    }
)
"""Window functions whose value depends on the place of the document, in each window."""
_ROUNDED_WHERE_IT_SLIDES: Final = frozenset({"$sum", "$avg", "$stdDevPop", "$stdDevSamp"})
"""What leaves the window is taken out again, but not the rounding that it left: every row before counts."""


def _windows(state: Openness, spec: Any) -> Openness:
    """Documents come by partition, and in each in the order of `sortBy`, ties in any order."""
    alone = spec.get("partitionBy") is None
    sort = spec.get("sortBy")
    ordered = _sort(state, sort, alone=alone) if sort else replace(settled(state), whole=False, sort=())
    known = ordered.whole and expression(spec.get("partitionBy"), state.shape).exact
    ordered = replace(ordered, whole=known)
    made = replace(ordered, sort=(), single=state.single)
    for path, output in spec["output"].items():
        made = touched(made, path)
        made = replace(made, shape=with_value(made.shape, path, _windowed(output, ordered)))
    return made


def _windowed(output: Any, ordered: Openness) -> OpenShape:
    ((name, operand),) = ((name, value) for name, value in output.items() if name != "window")
    if name in ("$rank", "$denseRank"):
        return EXACT if ordered.seen and ordered.rows is Rows.KNOWN else ANYTHING
    window = output.get("window", {})
    slides = any(window.get(each, _UNBOUNDED)[0] != "unbounded" for each in ("documents", "range"))
    if slides and name in _COVARIANCES:
        return ANYTHING
    if name in _BY_PLACE or (slides and name in _ROUNDED_WHERE_IT_SLIDES):
        return EXACT if ordered.whole and expression(operand, ordered.shape).exact else ANYTHING
    whole = not window or window.get("documents") == _UNBOUNDED or window.get("range") == _UNBOUNDED
    if not ordered.whole and not (whole and ordered.rows is Rows.KNOWN):
        return ANYTHING
    return accumulated({name: operand}, ordered)


def _densify(state: Openness, spec: Any) -> Openness:
    """Which of equal numbers is added, of which of the equal values of a partition, and the order of partitions, are
    open, and so is, for given bounds, what some partitions get at all (difference 451)."""
    state = settled(state)
    by = spec.get("partitionByFields", ())
    known = all(value_at(state.shape, path).exact for path in (spec["field"], *by))
    lost = bool(by) and isinstance(spec["range"]["bounds"], list)
    rows = state.rows if state.rows is Rows.KNOWN and known and not lost else Rows.OPEN
    shape = state.shape
    for path in (spec["field"], *by):
        shape = with_value(shape, path, OpenShape(frozenset({Freedom.EQUALS})))
    return Openness(rows, shape, distinct=False, stored=False)


def _fill(state: Openness, spec: Any) -> Openness:
    values = {path: each["value"] for path, each in spec["output"].items() if "value" in each}
    methods = {path: {"$locf": f"${path}"} for path, each in spec["output"].items() if "method" in each}
    if methods:
        by = spec.get("partitionBy") or {path: f"${path}" for path in spec.get("partitionByFields", ())}
        state = _windows(state, {"partitionBy": by or None, "sortBy": spec.get("sortBy"), "output": methods})
    return _add(state, {path: {"$ifNull": [f"${path}", value]} for path, value in values.items()})


def _graph(state: Openness, spec: Any) -> Openness:
    known = expression(spec["startWith"], state.shape).exact
    return _joined(state, spec["as"], OpenShape(frozenset({Freedom.ORDER})) if known else ANYTHING)


def _count(state: Openness, spec: Any) -> Openness:
    rows = Rows.OPEN if state.rows is Rows.OPEN else Rows.KNOWN
    return Openness(rows, EXACT, distinct=False, single=True)


def _facet(state: Openness, spec: Any) -> Openness:
    fields = {name: _facet_shape(state, stages) for name, stages in spec.items()}
    return Openness(
        Rows.KNOWN,
        OpenShape(fields={n: each for n, each in fields.items() if not each.exact}),
        distinct=False,
        single=True,
    )


def _facet_shape(state: Openness, stages: Sequence[Document]) -> OpenShape:
    end = settled(state)
    for stage in stages:
        end = _after(end, stage)
    if end.rows is not Rows.KNOWN or (end.cut and not end.fixed):
        return ANYTHING
    if end.fixed:
        return end.shape
    return OpenShape(end.shape.open | {Freedom.PLACE if end.sort else Freedom.ORDER}, end.shape.fields)


_STAGES: Final[dict[str, Callable[[Openness, Any], Openness]]] = {
    "$match": _match,
    "$sort": _sort,
    "$skip": _skip,
    "$limit": _limit,
    "$project": _project,
    "$addFields": _add,
    "$set": _add,
    "$unset": _unset,
    "$replaceRoot": _replace_root,
    "$replaceWith": _replace_with,
    "$unwind": _unwind,
    "$lookup": _lookup,
    "$unionWith": _union,
    "$graphLookup": _graph,
    "$redact": _redact,
    "$setWindowFields": _windows,
    "$densify": _densify,
    "$fill": _fill,
    "$bucket": bucket,
    "$bucketAuto": bucket_auto,
    "$sample": _sample,
    "$group": group,
    "$sortByCount": sort_by_count,
    "$count": _count,
    "$facet": _facet,
}
