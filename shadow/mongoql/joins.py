"""`$unwind` and `$lookup`: the stages that turn arrays into documents and documents into arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bson import Int64, Regex

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document
from shadow.model.version import Document
from shadow.mongoql.failures import failure
from shadow.mongoql.fieldpaths import checked_path
from shadow.mongoql.filters import compile_filter
from shadow.mongoql.paths import position
from shadow.mongoql.stages import Lookup, Stage

__all__ = ["compile_lookup", "compile_unwind", "local_values", "with_value"]


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
    value = _plain_value(document, parts)
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


def _plain_value(document: Any, parts: list[str]) -> Any:
    """The value at a path through objects only."""
    for part in parts:
        document = as_document(document)
        if type(document) is not dict:
            return MISSING
        document = document.get(part, MISSING)
    return document


# -- $lookup ------------------------------------------------------------------------------------------------------


def compile_lookup(spec: Any) -> tuple[Stage, frozenset[str]]:
    """`$lookup` by equality of two fields. The forms with `let` and `pipeline` are refused."""
    if type(spec) is not dict:
        raise failure(9, "the $lookup specification must be an object")
    for name in ("let", "pipeline"):
        if name in spec:
            raise UnsupportedOperation(f"$lookup.{name}", "only localField and foreignField are")
    for name, value in spec.items():
        if name not in ("from", "localField", "foreignField", "as"):
            raise failure(9, f"unknown argument to $lookup: {name}")
        if type(value) is dict and name == "from":
            raise UnsupportedOperation("$lookup.from", "of another database")
        if type(value) is not str:
            raise failure(9, f"$lookup argument '{name}' must be a string")
        if name == "from" and (not value or value.startswith(".") or "\0" in value):
            raise failure(73, f"Invalid namespace specified: {value!r}")
    if not {"from", "localField", "foreignField", "as"} <= spec.keys():
        raise failure(9, "$lookup requires from, localField, foreignField and as")
    local, foreign, target = (checked_path(spec[name]) for name in ("localField", "foreignField", "as"))
    source = spec["from"]

    def stage(documents: list[Document], lookup: Lookup) -> list[Document]:
        others = list(lookup(source))
        return [with_value(d, target, _partners(d, local, foreign, others)) for d in documents]

    return stage, frozenset({source})


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
