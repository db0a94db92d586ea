"""Aggregation pipelines over plain documents. Each stage is a function from documents to documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document, order_key, sort_documents
from shadow.model.version import Document
from shadow.mongoql.expressions.chance import chance_in_filter
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.match.filters import compile_filter
from shadow.mongoql.pipeline.buckets import compile_bucket, compile_bucket_auto, compile_sample
from shadow.mongoql.pipeline.gaps import compile_densify, compile_fill
from shadow.mongoql.pipeline.graphs import compile_graph_lookup
from shadow.mongoql.pipeline.groups import compile_group, compile_sort_by_count
from shadow.mongoql.pipeline.joins import compile_lookup, compile_union, compile_unwind
from shadow.mongoql.pipeline.outputs import check_place, check_stages, is_output
from shadow.mongoql.pipeline.projections import compile_adding, compile_stage, compile_unset
from shadow.mongoql.pipeline.redaction import compile_redact
from shadow.mongoql.pipeline.windows import compile_windows
from shadow.mongoql.values.failures import described, failure, write_failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated
from shadow.mongoql.values.references import as_stored, in_order
from shadow.mongoql.values.stages import NOTHING_GIVEN, Compiled, Lookup, Stage, Variables, no_lookup
from shadow.mongoql.values.support import Family, require

__all__ = ["Pipeline", "compile_pipeline", "compile_update_pipeline"]


class Pipeline:
    """A compiled pipeline.

    `leading_match`: the filter of the first stages, which a store may apply itself; None if there is none.
    `collections`: the collections that `$lookup` reads.
    """

    __slots__ = ("_stages", "collections", "leading_match")

    def __init__(self, stages: Sequence[Compiled], leading_match: Document | None) -> None:
        self._stages = [stage for stage, _ in stages]
        self.collections: frozenset[str] = frozenset().union(*[names for _, names in stages])
        self.leading_match = leading_match

    def run(self, documents: Iterable[Document], lookup: Lookup | None = None) -> list[Document]:
        """The pipeline's result for `documents`, which are not changed. `lookup` returns another collection's documents
        by name. Groups have the order of first occurrence."""
        found = lookup or no_lookup
        made = self.steps(map(in_order, documents), lambda name: map(in_order, found(name)))
        return [as_stored(each) for each in made]

    def steps(self, documents: Iterable[Document], lookup: Lookup | None = None) -> list[Document]:
        """See `run`; what the driver reads as a DBRef may be a plain document."""
        current = list(documents)
        for stage in self._stages:
            current = stage(current, lookup or no_lookup)
        return current


def compile_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> Pipeline:
    """Compiles a canonical pipeline. Raises OperationFailure with the server's code, and UnsupportedOperation."""
    return _compiled_pipeline(pipeline, NOTHING_GIVEN)


def _compiled_pipeline(pipeline: Sequence[Mapping[str, Any]], given: Variables) -> Pipeline:
    """`given`: the variables that the stages may read. Their values may change between runs, but not their names."""
    if any(map(is_output, pipeline)):
        check_stages(pipeline)
        check_place(pipeline)
    compiled = [(stage, _compile(stage, given)) for stage in pipeline]
    # Of two consecutive sorts the server keeps the later one, without the errors of the earlier.
    following = [*pipeline[1:], {}]
    stages = [made for (stage, made), after in zip(compiled, following, strict=False) if not _resorted(stage, after)]
    return Pipeline(stages, _leading_match(pipeline))


def _resorted(stage: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return "$sort" in stage and "$sort" in after


def _leading_match(pipeline: Sequence[Mapping[str, Any]]) -> Document | None:
    filters = []
    for stage in pipeline:
        # What is drawn must be drawn once, not by the store and again by the stage.
        if "$match" not in stage or chance_in_filter(stage["$match"]):
            break
        filters.append(stage["$match"])
    if not filters:
        return None
    return dict(filters[0]) if len(filters) == 1 else {"$and": filters}


def compile_update_pipeline(stages: Sequence[Mapping[str, Any]]) -> Callable[[Document], Document]:
    """The pipeline form of an update, for one document."""
    for stage in stages:
        name = next(iter(stage), "")
        if name not in ("$addFields", "$set", "$project", "$unset", "$replaceRoot", "$replaceWith"):
            if not is_output(stage):
                require(Family.STAGE, name)
            raise write_failure(72, f"{name} is not allowed to be used within an update")
    pipeline = compile_pipeline(stages)
    return lambda document: pipeline.steps([document])[0]


def _compile(stage: Any, given: Variables) -> Compiled:
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise failure(40323, "A pipeline stage specification object must contain exactly one field.")
    ((name, spec),) = stage.items()
    require(Family.STAGE, name)
    if name in _NESTED:
        return _NESTED[name](spec, given)
    return _STAGES[name](spec, given), frozenset()


def _each(change: Callable[[Document], Document]) -> Stage:
    return lambda documents, lookup: [change(document) for document in documents]


# -- stages -------------------------------------------------------------------------------------------------------


def _match(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(15959, "the match filter must be an expression in an object")
    matches = compile_filter(spec, given=given).matches
    return lambda documents, lookup: [d for d in documents if matches(d)]


def _sort(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(15973, "the $sort key specification must be an object")
    if not spec:
        raise failure(15976, "$sort stage must have at least one sort key")
    sort = [(path, _direction(path, direction)) for path, direction in spec.items()]
    return lambda documents, lookup: sort_documents(documents, sort)


def _direction(path: str, value: Any) -> int:
    value = as_document(value)
    if type(value) is dict:
        if "$meta" in value:
            raise UnsupportedOperation("$meta", "it needs a text index")
        raise failure(17312, "$meta is the only expression supported by $sort right now")
    if not is_number(value):
        raise failure(15974, f"Illegal key in $sort specification: {path}")
    if truncated(value) not in (1, -1) or order_key(truncated(value)) != order_key(value):
        raise failure(15975, "$sort key ordering must be 1 (for ascending) or -1 (for descending)")
    checked_path(path)
    return truncated(value) or 1


def _count_of(name: str, spec: Any, least: int, code: int) -> int:
    whole = truncated(spec)
    if whole is None or order_key(whole) != order_key(spec):
        raise failure(code, f"invalid argument to {name} stage: expected a whole number")
    if whole < 0:
        raise failure(code, f"invalid argument to {name} stage: expected a non-negative number")
    if whole < least:
        raise failure(15958, "the limit must be positive")
    return whole


def _limit(spec: Any, given: Variables) -> Stage:
    count = _count_of("$limit", spec, 1, 5107201)
    return lambda documents, lookup: documents[:count]


def _skip(spec: Any, given: Variables) -> Stage:
    count = _count_of("$skip", spec, 0, 5107200)
    return lambda documents, lookup: documents[count:]


def _replace_root(spec: Any, given: Variables) -> Stage:
    if type(spec) is not dict:
        raise failure(40229, "expected an object as specification for $replaceRoot stage")
    for name in spec:
        if name != "newRoot":
            raise failure(40415, f"BSON field '$replaceRoot.{name}' is an unknown field.")
    if not spec:
        raise failure(40414, "BSON field '$replaceRoot.newRoot' is missing but a required field")
    return _replace_with(spec["newRoot"], given)


def _replace_with(spec: Any, given: Variables) -> Stage:
    evaluate = evaluator(spec, given)

    def change(document: Document) -> Document:
        value = as_document(evaluate(document))
        if type(value) is not dict:
            raise failure(40228, f"'newRoot' expression must evaluate to an object, not {_name(value)}")
        return value

    return _each(change)


def _name(value: Any) -> str:
    return "missing" if value is MISSING else described(value)


def _count(spec: Any, given: Variables) -> Stage:
    if type(spec) is not str:
        raise failure(40156, "the count field must be a non-empty string")
    if not spec:
        raise failure(40157, "the count field must be a non-empty string")
    if spec.startswith("$"):
        raise failure(40158, "the count field cannot be a $-prefixed path")
    if "\0" in spec:
        raise failure(40159, "the count field cannot contain a null byte")
    if "." in spec:
        raise failure(40160, "the count field cannot contain '.'")
    if spec == "_id":
        raise failure(15948, "a group's _id may only be specified once")
    return lambda documents, lookup: [{spec: len(documents)}] if documents else []


def _check_output(name: str) -> None:
    """Checks the name of one field, without dots."""
    if not name:
        raise failure(15998, "FieldPath field names may not be empty strings.")
    if "." in name:
        raise failure(16412, f"FieldPath field names may not contain '.': {name}")
    checked_path(name)


def _facet(spec: Any, given: Variables) -> Compiled:
    if type(spec) is not dict or not spec:
        raise failure(40169, "the $facet specification must be a non-empty object")
    parts: dict[str, list[Compiled]] = {}
    for name, stages in spec.items():
        _check_output(name)
        if type(stages) is not list:
            raise failure(40170, "arguments to $facet must be arrays")
        if not all(isinstance(stage, Mapping) for stage in stages):
            raise failure(40171, "elements of arrays in $facet spec must be non-empty objects")
        if any(map(is_output, stages)):
            check_stages(stages)
            raise failure(40600, "$out and $merge are not allowed to be used within a $facet stage")
        parts[name] = [_compile(stage, given) for stage in stages]
        if any("$facet" in stage for stage in stages):
            raise failure(40600, "$facet is not allowed to be used within a $facet stage")
    pipelines = {name: Pipeline(stages, None) for name, stages in parts.items()}

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        return [{name: pipeline.steps(documents, lookup) for name, pipeline in pipelines.items()}]

    return stage, frozenset().union(*[pipeline.collections for pipeline in pipelines.values()])


_STAGES: Final[dict[str, Callable[[Any, Variables], Stage]]] = {
    "$match": _match,
    "$sort": _sort,
    "$limit": _limit,
    "$skip": _skip,
    "$project": lambda spec, given: _each(compile_stage(spec, given)),
    "$addFields": lambda spec, given: _each(compile_adding(spec, "$addFields", given)),
    "$set": lambda spec, given: _each(compile_adding(spec, "$set", given)),
    "$unset": lambda spec, given: _each(compile_unset(spec)),
    "$unwind": lambda spec, given: compile_unwind(spec),
    "$group": compile_group,
    "$setWindowFields": compile_windows,
    "$densify": compile_densify,
    "$fill": compile_fill,
    "$redact": compile_redact,
    "$bucket": compile_bucket,
    "$bucketAuto": compile_bucket_auto,
    "$sample": compile_sample,
    "$count": _count,
    "$sortByCount": compile_sort_by_count,
    "$replaceRoot": _replace_root,
    "$replaceWith": _replace_with,
}

_NESTED: Final[dict[str, Callable[[Any, Variables], Compiled]]] = {
    "$facet": _facet,
    "$lookup": lambda spec, given: compile_lookup(spec, given, _compiled_pipeline),
    "$graphLookup": compile_graph_lookup,
    "$unionWith": lambda spec, given: compile_union(spec, given, _compiled_pipeline),
}
"""Stages that hold pipelines or read other collections."""
