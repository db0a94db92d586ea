"""Projections: inclusion, exclusion, computed fields, `$slice`, `$elemMatch`.

One tree serves `find`, `$project`, `$addFields` and `$unset`. Rules and codes are those of the server's
`projection_parser.cpp` and projection executors.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bson import Decimal128
from pymongo.errors import OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document
from shadow.model.version import Document
from shadow.mongoql.expressions.expressions import evaluator
from shadow.mongoql.match.filters import Filter, compile_filter
from shadow.mongoql.values.failures import failure, unknown_operator
from shadow.mongoql.values.fieldpaths import checked_path
from shadow.mongoql.values.predicates import is_number, truncated, truthy
from shadow.mongoql.values.references import as_stored, in_order, is_dollar_name
from shadow.mongoql.values.stages import NOTHING_GIVEN, Variables
from shadow.mongoql.values.support import TABLE, Family, require

__all__ = [
    "Projection",
    "compile_adding",
    "compile_projection",
    "compile_stage",
    "compile_unset",
    "projection_includes",
]

Reshaping: TypeAlias = Callable[[Document], Document]


class Projection:
    """A compiled projection of `find`. `positional`: the path before a `.$`, which shows the element of an array that
    matched the filter of the query."""

    __slots__ = ("_reshape", "positional")

    def __init__(self, reshape: Reshaping, positional: list[str] | None = None) -> None:
        self._reshape = reshape
        self.positional = positional

    def __call__(self, document: Document, filter: Filter | None = None) -> Document:
        """The projected document, which shares no container that the projection changes with `document`. `filter`:
        that of the query, which `document` matches; needed if there is a `positional`."""
        made = self._reshape(document)
        path = _to_array(made, self.positional) if self.positional is not None else None
        if path is None:
            return made
        if filter is None:
            raise UnsupportedOperation("projection.$", "it needs the filter of a query")
        place = filter.positional(document)
        if place is None:
            raise failure(51246, "positional operator '.$' couldn't find a matching element in the array")
        made = self._reshape(_with_one(document, path, place))
        if not _value_of(made, path):
            raise failure(51247, "positional operator '.$' element mismatch")
        return made

    def check(self, filter: Filter) -> None:
        """Raises OperationFailure 224 for a filter that the server does not combine with a `positional`."""
        if self.positional is not None and filter.evaluates:
            raise failure(224, "$expr is not allowed in this context")
        if self.positional is not None and filter.has_schema:
            raise failure(224, "$jsonSchema is not allowed in this context")


class ProjectionKind(enum.Enum):
    INCLUSION = "inclusion"
    EXCLUSION = "exclusion"
    ADDING = "adding"


@dataclass(slots=True)
class Branch:
    """What happens below one name: `children` by name, or at its end `keep`, `compute` or `cut` (`$slice`). `matched`:
    computed by `$elemMatch`."""

    children: dict[str, Branch] = field(default_factory=dict)
    keep: bool | None = None
    compute: Callable[[Document], Any] | None = None
    cut: Callable[[Any], Any] | None = None
    matched: bool = False

    @property
    def ends(self) -> bool:
        return not self.children

    @property
    def cuts(self) -> bool:
        return self.cut is not None or any(child.cuts for child in self.children.values())

    @property
    def computes(self) -> bool:
        return self.compute is not None or any(child.computes for child in self.children.values())


@dataclass(slots=True)
class Plan:
    """A projection during parsing. `kind` is None until a field decides it."""

    root: Branch = field(default_factory=Branch)
    kind: ProjectionKind | None = None
    id_kept: bool | None = None
    find: bool = True
    positional: list[str] | None = None
    given: Variables = field(default_factory=dict)

    def decide(self, kind: ProjectionKind, path: str) -> None:
        if self.kind is not None and self.kind is not kind:
            code = 31253 if kind is ProjectionKind.INCLUSION else 31254
            raise failure(code, f"Cannot do {kind.value} on field {path} in {self.kind.value} projection")
        self.kind = kind


def compile_projection(projection: Mapping[str, Any] | None) -> Projection:
    """A projection of `find`.

    Raises OperationFailure with the server's codes (31253 / 31254 for mixtures, 31249 / 31250 for collisions, ...), and
    UnsupportedOperation for `$meta`.
    """
    plan = _planned(projection or {}, find=True)
    return Projection(_reshaping(plan), plan.positional)


def compile_stage(spec: Any, given: Variables = NOTHING_GIVEN) -> Reshaping:
    """`$project`. `given`: the variables that its expressions may read."""
    if type(spec) is not dict:
        raise failure(15969, "$project specification must be an object")
    if not spec:
        raise failure(51272, "Invalid $project :: caused by :: projection specification must have at least one field")
    return _reshaping(_planned(spec, find=False, given=given))


def projection_includes(projection: Mapping[str, Any]) -> bool:
    """Whether a projection of `find` names fields to keep, rather than only fields to omit or slice."""
    return _planned(projection, find=True).kind is ProjectionKind.INCLUSION


def _planned(projection: Mapping[str, Any], *, find: bool, given: Variables = NOTHING_GIVEN) -> Plan:
    plan = Plan(find=find, given=given)
    for path, value in projection.items():
        _parse(plan, path, value, ())
    if plan.positional is not None and any(end.matched for end in plan.root.children.values()):
        raise failure(31255, "Cannot specify positional operator and $elemMatch.")
    if plan.kind is None:
        ends = plan.root.children.values()
        matched_only = any(end.matched for end in ends) and not any(end.cuts for end in ends)
        plan.kind = ProjectionKind.INCLUSION if plan.id_kept or matched_only else ProjectionKind.EXCLUSION
    return plan


def _reshaping(plan: Plan) -> Reshaping:
    if "_id" not in plan.root.children and plan.kind is ProjectionKind.INCLUSION:
        plan.root.children = {"_id": Branch(keep=True), **plan.root.children}
    root, including = plan.root, plan.kind is ProjectionKind.INCLUSION
    if not plan.find:
        return lambda document: _run(document, root, including)
    return lambda document: as_stored(_run(in_order(document), root, including))


def compile_adding(spec: Any, name: str = "$addFields", given: Variables = NOTHING_GIVEN) -> Reshaping:
    """`$addFields` and `$set`."""
    if type(spec) is not dict:
        raise failure(40272, f"{name} specification stage must be an object")
    plan = Plan(kind=ProjectionKind.ADDING, find=False, given=given)
    for path, value in spec.items():
        _parse_added(plan, path, value, ())
    return lambda document: _run(document, plan.root, False)


def compile_unset(spec: Any) -> Reshaping:
    """`$unset`: one path or a list of paths."""
    paths = spec if type(spec) is list else [spec]
    if type(spec) not in (str, list):
        raise failure(31002, "$unset specification must be a string or an array")
    if not all(type(path) is str for path in paths):
        raise failure(31120, "$unset specification must be a string or an array containing only string values")
    if not paths:
        raise failure(31119, "$unset specification must be a string or an array with at least one field")
    plan = Plan(kind=ProjectionKind.EXCLUSION, find=False)
    for path in paths:
        if path.endswith(".$"):
            raise failure(31324, "Cannot use positional projection in aggregation projection")
        _place(plan, tuple(checked_path(path)), Branch(keep=False))
    return lambda document: _run(document, plan.root, False)


# -- parsing ------------------------------------------------------------------------------------------------------


def _parse(plan: Plan, path: str, value: Any, above: tuple[str, ...]) -> None:
    if type(value) is dict and not value:
        raise failure(51270, f"An empty sub-projection is not a valid value. Found empty object at path {path}")
    if ".$." in path or path.endswith(".$"):
        path = _positional(plan, path, value, above)
    parts = (*above, *checked_path(path))
    full = ".".join(parts)
    value = as_document(value)  # the server takes a DBRef for a projection of its parts
    if is_number(value) or type(value) is bool:
        _flag(plan, parts, full, truthy(value))
    elif type(value) is dict:
        _parse_object(plan, parts, full, value)
    else:
        _computed(plan, parts, full, value)


def _positional(plan: Plan, path: str, value: Any, above: tuple[str, ...]) -> str:
    """The path before a `.$` at its end."""
    if not plan.find:
        raise failure(31324, "Cannot use positional projection in aggregation projection")
    if ".$." in path:
        raise failure(31394, "As of 4.4, it's illegal to specify positional operator in the middle of a path.")
    plain = path.removesuffix(".$")
    if type(value) is dict:
        raise failure(31271, "positional projection cannot be used with an expression or sub object")
    if not is_number(value) and type(value) is not bool:
        raise failure(31308, "positional projection cannot be used with a literal")
    if not truthy(value):
        raise failure(31395, "positional projection cannot be used with exclusion")
    if plan.positional is not None:
        raise failure(31276, "Cannot specify more than one positional projection per query.")
    if not plain:
        raise failure(5392900, "Projection on field .$ is invalid")
    plan.positional = [*above, *checked_path(plain)]
    return plain


def _flag(plan: Plan, parts: tuple[str, ...], full: str, keep: bool) -> None:
    _place(plan, parts, Branch(keep=keep))
    if full == "_id":
        plan.id_kept = keep
    else:
        plan.decide(ProjectionKind.INCLUSION if keep else ProjectionKind.EXCLUSION, full)


def _parse_object(plan: Plan, parts: tuple[str, ...], full: str, value: dict[str, Any]) -> None:
    first = next(iter(value))
    if not first.startswith("$") or is_dollar_name(first):
        for name, inner in value.items():
            _parse(plan, name, inner, parts)
        return
    if len(value) > 1:
        raise failure(51271 if plan.find else 15983, f"Bad projection specification at '{full}'")
    if plan.find and first in ("$slice", "$elemMatch", "$meta"):
        require(Family.PROJECTION, first)
        _find_operator(plan, parts, full, first, value[first])
        return
    if first == "$elemMatch":
        raise failure(168, "Unrecognized expression '$elemMatch'")
    if first not in TABLE[Family.EXPRESSION]:
        raise unknown_operator(31325, f"Invalid projection :: Unknown expression {first}", first)
    _computed(plan, parts, full, value)


def _find_operator(plan: Plan, parts: tuple[str, ...], full: str, name: str, operand: Any) -> None:
    if name == "$slice":
        _slice(plan, parts, full, operand)
        return
    operand = as_document(operand)
    if type(operand) is not dict:
        raise failure(31274, f"elemMatch: Invalid argument, object required, but got {type(operand).__name__}")
    if len(parts) > 1:
        raise failure(31275, "Cannot use $elemMatch projection on a nested field")
    if "$jsonSchema" in operand:
        raise failure(224, "$jsonSchema is not allowed in this context")
    condition = compile_filter({"x": {"$elemMatch": operand}})

    def first(document: Document) -> Any:
        value = document.get(full, MISSING)
        place = condition.positional({"x": value}) if condition.matches({"x": value}) else None
        return MISSING if place is None else [value[place]]

    _place(plan, parts, Branch(compute=first, matched=True))


def _slice(plan: Plan, parts: tuple[str, ...], full: str, operand: Any) -> None:
    """The `$slice` of `find`; an operand of another form is the expression of the same name."""
    if is_number(operand) or (type(operand) is list and len(operand) == 2 and all(is_number(v) for v in operand)):
        _place(plan, parts, Branch(cut=_cutter(operand)))
        return
    _computed(plan, parts, full, {"$slice": operand})


def _cutter(operand: Any) -> Callable[[Any], Any]:
    """`$slice` of `find`: a count from either end, or [skip, limit]."""
    if type(operand) is list:
        skip, limit = (_clamped(v) for v in operand)
        if limit <= 0:
            raise failure(28724, "$slice limit must be positive")
        return lambda array: array[_start(array, skip) :][:limit]
    count = _clamped(operand)
    return lambda array: array[:count] if count >= 0 else array[count:]


def _start(array: list[Any], skip: int) -> int:
    return skip if skip >= 0 else max(len(array) + skip, 0)


def _clamped(value: Any) -> int:
    whole = truncated(value)
    if whole is None:
        number = value.to_decimal() if type(value) is Decimal128 else value
        whole = 0 if number != number else 2**31 - 1 if number > 0 else -(2**31)
    return max(-(2**31), min(2**31 - 1, whole))


def _computed(plan: Plan, parts: tuple[str, ...], full: str, value: Any) -> None:
    excluding = plan.kind is ProjectionKind.EXCLUSION and full != "_id"
    if excluding and type(value) is dict:
        raise failure(31252, f"Cannot use an expression on field {full} in an exclusion projection")
    branch = Branch(compute=evaluator(value, plan.given))
    _place(plan, parts, branch)
    if excluding:
        raise failure(31310, f"Cannot use an expression on field {full} in an exclusion projection")
    if full != "_id":
        plan.decide(ProjectionKind.INCLUSION, full)
    else:
        plan.decide(ProjectionKind.INCLUSION, full)


def _parse_added(plan: Plan, path: str, value: Any, above: tuple[str, ...]) -> None:
    if above and not path:
        raise failure(40353, "FieldPath must not end with a '.'.")
    if above and "." in path:
        raise failure(40183, f"cannot use dotted field name '{path}' in a sub object")
    parts = (*above, *checked_path(path))
    value = as_document(value)
    if type(value) is dict and not value:
        raise failure(40180, "an empty object is not a valid value")
    if type(value) is dict and len(value) > 1 and any(name.startswith("$") for name in value):
        raise failure(40181, "an expression specification must contain exactly one field")
    if type(value) is dict and value and not next(iter(value)).startswith("$"):
        for name, inner in value.items():
            _parse_added(plan, name, inner, parts)
        return
    branch = Branch(compute=evaluator(value, plan.given))
    try:
        _place(plan, parts, branch)
    except OperationFailure as error:
        raise failure(40176, f"specification contains two conflicting paths, one of them '{path}'") from error


def _place(plan: Plan, parts: tuple[str, ...], leaf: Branch) -> None:
    node = plan.root
    for i, part in enumerate(parts[:-1]):
        node = node.children.setdefault(part, Branch())
        if node.ends and (node.keep is not None or node.compute or node.cut):
            raise failure(31249, f"Path collision at {'.'.join(parts)} remaining portion {'.'.join(parts[i + 1 :])}")
    if parts[-1] in node.children:
        raise failure(31250, f"Path collision at {'.'.join(parts)}")
    node.children[parts[-1]] = leaf


# -- applying -----------------------------------------------------------------------------------------------------


def _run(document: Document, branch: Branch, including: bool) -> Document:
    """First keeps fields, then computes fields from the whole document, like the server's executors."""
    result = _kept(document, branch, including)
    if branch.computes:
        result = _made(result, branch, document)
    return result


def _kept(value: Document, branch: Branch, including: bool) -> Document:
    """`MISSING` reserves the position of a field that will be computed."""
    result: Document = {}
    for name, inner in value.items():
        child = branch.children.get(name)
        kept = _member(inner, child, including)
        if kept is not MISSING or (child is not None and child.children and child.computes):
            result[name] = kept
    return result


def _member(value: Any, child: Branch | None, including: bool) -> Any:
    if child is None or child.compute is not None:
        return MISSING if including else value
    if child.keep is not None:
        return value if child.keep else MISSING
    if child.cut is not None:
        return child.cut(value) if type(value) is list else value
    return _below(value, child, including)


def _below(value: Any, child: Branch, including: bool) -> Any:
    value = as_document(value)
    if type(value) is dict:
        return _kept(value, child, including)
    if type(value) is list:
        parts = [_below(v, child, including) for v in value]
        return parts if child.computes else [v for v in parts if v is not MISSING]
    return MISSING if including else value


def _made(value: Any, child: Branch, root: Document) -> Any:
    """Puts a branch's computed fields over an existing value; a value that is no object becomes one."""
    if child.compute is not None:
        return child.compute(root)
    value = as_document(value)
    if type(value) is list:
        return [_made(v, child, root) for v in value]
    result = dict(value) if type(value) is dict else {}
    for name, inner in child.children.items():
        if inner.computes:
            made = _made(result.get(name, MISSING), inner, root)
            if made is MISSING:
                result.pop(name, None)
            else:
                result[name] = made
    return result


def _to_array(value: Any, parts: list[str]) -> list[str] | None:
    """The path to the first array on the way along `parts`. Like the server, it looks for the rest of the path beside
    a part that is missing or is no object."""
    for i, part in enumerate(parts):
        inner = as_document(value.get(part))
        if type(inner) is list:
            return [part]
        if type(inner) is dict:
            below = _to_array(inner, parts[i + 1 :])
            return None if below is None else [part, *below]
    return None


def _value_of(value: Any, path: list[str]) -> Any:
    for part in path:
        value = as_document(value)[part]
    return value


def _with_one(value: Any, path: list[str], place: int) -> Any:
    """A copy of `value` in which the array at `path` has its element at `place` alone."""
    if not path:
        return value[place : place + 1]
    value = as_document(value)
    return {**value, path[0]: _with_one(value[path[0]], path[1:], place)}
