"""`$unwind`, `$lookup` and `$unionWith`: the stages that turn arrays into documents, and join other collections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from bson import Int64, Regex

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import checked_name, evaluator
from shadow.mongoql.match.filters import compile_filter
from shadow.mongoql.pipeline.outputs import check_stages, is_output
from shadow.mongoql.values.failures import failure
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.paths import position
from shadow.mongoql.values.stages import Compiled, Lookup, Stage, Variables

__all__ = ["compile_lookup", "compile_union", "compile_unwind", "local_values", "plain_value", "with_value"]


class _Inner(Protocol):
    """What a stage needs of a compiled pipeline inside it."""

    collections: frozenset[str]

    def steps(self, documents: Iterable[Document], lookup: Lookup | None = None) -> list[Document]: ...


CompileInner: TypeAlias = Callable[[list[Document], Variables], _Inner]


def with_value(document: Document, parts: list[str], value: Any) -> Document:
    """A copy of `document` with `value` at the path (`MISSING`: removed); the path goes through objects only."""
    result = dict(document)
    name, *rest = parts
    if rest:
        inner = as_document(result.get(name))
        value = with_value(inner if type(inner) is dict else {}, rest, value)
    if value is MISSING:
        result.pop(name, None)
    else:
        result[name] = value
    return result


# -- $unwind ------------------------------------------------------------------------------------------------------


def compile_unwind(spec: Any) -> Stage:
    path, index, preserve = _unwind_options(spec)
    parts = checked_path(path)
    index_parts = checked_path(index) if index is not None else None

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        return [made for document in documents for made in _unwound(document, parts, index_parts, preserve)]

    return stage


def _unwind_options(spec: Any) -> tuple[str, str | None, bool]:
    options = spec if type(spec) is dict else {"path": spec}
    if type(spec) not in (str, dict):
        raise failure(15981, "expected either a string or an object as specification for $unwind stage")
    for name, value in options.items():  # in their order, like the server
        _check_unwind(name, value)
    if "path" not in options:
        raise failure(28812, "no path specified to $unwind stage")
    path = options["path"]
    if not path.startswith("$"):
        raise failure(28818, "path option to $unwind stage should be prefixed with a '$'")
    index, preserve = options.get("includeArrayIndex"), options.get("preserveNullAndEmptyArrays", False)
    return path[1:], index, preserve


def _check_unwind(name: str, value: Any) -> None:
    match name:
        case "path":
            if type(value) is not str:
                raise failure(28808, "expected a string as the path for $unwind stage")
        case "includeArrayIndex":
            if type(value) is not str or not value:
                raise failure(28810, "expected a non-empty string for the includeArrayIndex option to $unwind stage")
            if value.startswith("$"):
                raise failure(28822, "includeArrayIndex option to $unwind stage should not be prefixed with a '$'")
        case "preserveNullAndEmptyArrays":
            if type(value) is not bool:
                raise failure(28809, "expected a boolean for the preserveNullAndEmptyArrays option to $unwind stage")
        case _:
            raise failure(28811, f"unrecognized option to $unwind stage: {name}")


def _unwound(document: Document, parts: list[str], index: list[str] | None, preserve: bool) -> Iterator[Document]:
    value = plain_value(document, parts)
    if type(value) is list and value:
        for i, element in enumerate(value):
            made = with_value(document, parts, element)
            yield with_value(made, index, Int64(i)) if index else made
        return
    if type(value) is list or value is None or value is MISSING:
        if not preserve:
            return
        made = with_value(document, parts, MISSING) if type(value) is list else document
    else:
        made = document
    yield with_value(made, index, None) if index else made


def plain_value(document: Any, parts: list[str]) -> Any:
    """The value at a path through objects only."""
    for part in parts:
        document = as_document(document)
        if type(document) is not dict:
            return MISSING
        document = document.get(part, MISSING)
    return document


# -- $lookup ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Join:
    """A `$lookup`: by equality of two fields, by a pipeline over variables of the document, or by both."""

    source: str
    target: list[str]
    local: list[str] | None
    foreign: list[str] | None
    variables: Mapping[str, Callable[[Document], Any]]
    pipeline: list[Document] | None


def compile_lookup(spec: Any, given: Variables, compile_inner: CompileInner) -> Compiled:
    join = _join(spec, given)
    if join.pipeline is None:
        return lambda documents, lookup: _joined(join, documents, list(lookup(join.source)), None), frozenset(
            {join.source}
        )
    _refuse_writing("$lookup", join.pipeline, 51047)
    names = {*given, *join.variables}
    checked = compile_inner(join.pipeline, dict.fromkeys(names))

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        values: dict[str, Any] = dict.fromkeys(names)
        # Compiled for this run alone, because its variables have other values in each run.
        inner = compile_inner(join.pipeline or [], values)

        def partners(document: Document, found: list[Document]) -> list[Document]:
            values.update(given)
            values.update({name: value(document) for name, value in join.variables.items()})
            return inner.steps(found, lookup)

        return _joined(join, documents, list(lookup(join.source)), partners)

    return stage, checked.collections | {join.source}


def _joined(
    join: _Join,
    documents: list[Document],
    others: list[Document],
    run: Callable[[Document, list[Document]], list[Document]] | None,
) -> list[Document]:
    made = []
    for document in documents:
        found = others
        if join.local is not None and join.foreign is not None:
            found = _partners(document, join.local, join.foreign, others)
        made.append(with_value(document, join.target, found if run is None else run(document, found)))
    return made


def _join(spec: Any, given: Variables) -> _Join:
    if type(spec) is not dict:
        raise failure(9, "the $lookup specification must be an object")
    for name, value in spec.items():
        _check_lookup(name, value)
    fields = [spec.get("localField"), spec.get("foreignField")]
    pipeline = spec.get("pipeline")
    if "from" not in spec:
        if pipeline and type(pipeline[0]) is dict and "$documents" in pipeline[0]:
            raise UnsupportedOperation("$documents", "it is not computed here")
        raise failure(9, "$lookup requires from")
    if not spec.get("as"):
        raise failure(9 if "as" not in spec else 40352, "must specify 'as' field for a $lookup")
    if None in fields and (pipeline is None or fields != [None, None]):
        raise failure(9, "$lookup requires both or neither of localField and foreignField, and a pipeline if neither")
    if pipeline is None and "let" in spec:
        raise failure(9, "$lookup with a 'let' argument must also specify 'pipeline'")
    target = checked_path(spec["as"])
    local, foreign = (None if each is None else checked_path(each) for each in fields)
    variables = {checked_name(n, 16866): evaluator(v, given) for n, v in spec.get("let", {}).items()}
    return _Join(spec["from"], target, local, foreign, variables, pipeline)


def _check_lookup(name: str, value: Any) -> None:
    if name == "pipeline":
        _check_pipeline(value)
    elif name == "let":
        if type(value) is not dict:
            raise failure(9, "$lookup argument 'let' must be an object")
    elif name not in ("from", "localField", "foreignField", "as"):
        raise failure(9, f"unknown argument to $lookup: {name}")
    elif type(value) is dict and name == "from":
        raise UnsupportedOperation("$lookup.from", "of another database")
    elif type(value) is not str:
        raise failure(9, f"$lookup argument '{name}' must be a string")
    elif name == "from":
        _check_namespace(value)


def _check_namespace(name: str) -> None:
    if not name or name.startswith(".") or "\0" in name:
        raise failure(73, f"Invalid namespace specified: {name!r}")


def _check_pipeline(value: Any) -> None:
    if type(value) is not list:
        raise failure(14, "'pipeline' option must be specified as an array")
    for stage in value:
        if type(as_document(stage)) is not dict:
            raise failure(14, "Each element of the 'pipeline' array must be an object")


def _refuse_writing(name: str, pipeline: list[Document], code: int) -> None:
    if any(map(is_output, pipeline)):
        check_stages(pipeline)
        raise failure(code, f"$out and $merge are not allowed within a {name}'s pipeline")


# -- $unionWith ---------------------------------------------------------------------------------------------------


def compile_union(spec: Any, given: Variables, compile_inner: CompileInner) -> Compiled:
    source, pipeline = _union_options(spec)
    _refuse_writing("$unionWith", pipeline, 31441)
    inner = compile_inner(pipeline, given)
    return lambda documents, lookup: [*documents, *inner.steps(lookup(source), lookup)], inner.collections | {source}


def _union_options(spec: Any) -> tuple[str, list[Document]]:
    if type(spec) is str:
        _check_namespace(spec)
        return spec, []
    if type(spec) is not dict:
        raise failure(9, "the $unionWith stage specification must be an object or string")
    for name, value in spec.items():
        if name == "pipeline":
            _check_pipeline(value)
        elif name != "coll":
            raise failure(40415, f"BSON field '$unionWith.{name}' is an unknown field.")
        elif type(value) is not str:
            raise failure(14, "BSON field '$unionWith.coll' is the wrong type, expected type 'string'")
    if "coll" not in spec:
        if "$documents" in next(iter(spec.get("pipeline") or [{}])):
            raise UnsupportedOperation("$documents", "it is not computed here")
        raise failure(9, "$unionWith stage without explicit collection must have a pipeline with $documents")
    _check_namespace(spec["coll"])
    return spec["coll"], spec.get("pipeline", [])


def _partners(document: Document, local: list[str], foreign: list[str], others: list[Document]) -> list[Document]:
    values = list(_values(document, local)) or [None]
    path = ".".join(foreign)
    plain = [v for v in values if type(v) is not Regex]
    clauses: list[Document] = [{path: {"$eq": v}} for v in values if type(v) is Regex]
    if plain:
        clauses.append({path: {"$in": plain}})
    matches: Callable[[Document], bool] = compile_filter({"$or": clauses}).matches
    return [other for other in others if matches(other)]


def local_values(document: Document, path: str) -> Iterator[Any]:
    """The values for which `$lookup` searches if its `localField` is `path`; without any, it searches for null."""
    return _values(document, checked_path(path))


def _values(value: Any, parts: list[str]) -> Iterator[Any]:
    """All values at a path, through arrays on the way (by position where the path has a number), with the elements of a
    final array one by one."""
    value = as_document(value)
    if not parts:
        if type(value) is list:
            yield from value
        elif value is not MISSING:
            yield value
        return
    if type(value) is dict:
        yield from _values(value.get(parts[0], MISSING), parts[1:])
    elif type(value) is list:
        index = position(parts[0])
        if index >= 0:
            yield from _values(value[index], parts[1:]) if index < len(value) else ()
            return
        for element in value:
            if type(as_document(element)) is dict:
                yield from _values(element, parts)
