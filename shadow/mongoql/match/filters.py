"""What a filter means: parsed once to a frozen tree, compiled once to closures.

The answers are those of the server's match expressions: implicit traversal of arrays, null matches missing, comparison
within a type. What is not exactly right is refused by name (`UnsupportedOperation`); what the server refuses is refused
with its code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from bson import Regex
from bson.codec_options import CodecOptions

from shadow.errors import UnsupportedOperation
from shadow.model.order import as_document, order_key
from shadow.model.values import normalise
from shadow.model.version import Document
from shadow.mongoql.match.filter_parser import PATHLESS, REFERENCE, is_expression, operators_of, parsed
from shadow.mongoql.match.schemas import compile_schema
from shadow.mongoql.match.tree import And, Leaf, Node, Nor, Not, Or
from shadow.mongoql.values import predicates
from shadow.mongoql.values.collation import COLLATED, predicate_of
from shadow.mongoql.values.failures import failure, write_failure
from shadow.mongoql.values.paths import NOWHERE, Predicate, as_mapping, finder, matcher
from shadow.mongoql.values.stages import NOTHING_GIVEN
from shadow.mongoql.values.support import TABLE, Family

__all__ = ["Filter", "compile_filter"]

_BITS: Final = frozenset({"$bitsAllSet", "$bitsAnySet", "$bitsAllClear", "$bitsAnyClear"})


class Filter:
    """A compiled filter. `tree` is what it says; `matches` decides over one document."""

    __slots__ = ("_decide", "matches", "tree")

    def __init__(self, tree: Node, given: Mapping[str, Any]) -> None:
        self.tree = tree
        self.matches: Callable[[Document], bool] = _compiled(tree, given)

    def positional(self, document: Document) -> int | None:
        """The position that `$` stands for in an update of `document`, which must match; None if there is none. Raises
        UnsupportedOperation where that is not known here."""
        self.check_positional()
        return _located(self.tree, document)

    def equalities(self) -> dict[str, Any]:
        """What an upsert takes from the filter: dotted path to value, in the order of the filter.

        Raises WriteError 54 (NotSingleValueField) where a path, or a part of it, is given twice.
        """
        found: dict[str, Any] = {}
        for leaf in _equal_leaves(self.tree):
            if any(_overlap(leaf.path, path) for path in found):
                raise write_failure(54, f"cannot infer query fields to set, path '{leaf.path}' is matched twice")
            found[leaf.path] = leaf.value
        return found

    @property
    def evaluates(self) -> bool:
        """Whether the filter holds an `$expr`, which some places refuse."""
        return any(leaf.operator == "$expr" for leaf in _leaves(self.tree))

    @property
    def has_schema(self) -> bool:
        """Whether the filter holds a `$jsonSchema`."""
        return any(leaf.operator == "$jsonSchema" for leaf in _leaves(self.tree))

    def check_positional(self) -> None:
        """Raises UnsupportedOperation for a filter whose `$` may stand for a position that is not known here."""
        if self.has_schema:
            raise UnsupportedOperation("$jsonSchema", "in a filter that gives `$` its position")

    @property
    def hopeless(self) -> bool:
        """Whether a condition that must hold is one that never does."""
        return _never(self.tree)

    def __repr__(self) -> str:
        return f"Filter({len(list(_leaves(self.tree)))} conditions)"


def compile_filter(
    filter: Mapping[str, Any], *, options: CodecOptions[Any] | None = None, given: Mapping[str, Any] = NOTHING_GIVEN
) -> Filter:
    """Compiles a canonical filter; with `options`, one in the application's types. `given`: the variables that an
    `$expr` may read, by name; their values may change between calls of `matches`.

    Raises OperationFailure with the server's code for what the server refuses, UnsupportedOperation for what has no
    exact meaning here.
    """
    return Filter(parsed(filter if options is None else normalise(filter, options)), given)


# -- compiling ----------------------------------------------------------------------------------------------------


def _compiled(node: Node, given: Mapping[str, Any] = NOTHING_GIVEN) -> Callable[[Any], bool]:
    match node:
        case Leaf(_, "$expr", value):
            return _expression(value, given)
        case Leaf(_, "$jsonSchema", schema):
            return compile_schema(schema)
        case Leaf():
            return _compiled_leaf(node)
        case And(children):
            return _all([_compiled(child, given) for child in _arranged(children)])
        case Or(children):
            return _any([_compiled(child, given) for child in _arranged(children)])
        case Nor(children):
            return _negation(_any([_compiled(child, given) for child in _arranged(children)]))
        case Not(child):
            return _negation(_compiled(child, given))


def _arranged(children: Iterable[Node]) -> list[Node]:
    """`$expr` last, as the server has it: it is what may fail on a document that another condition rules out."""
    return sorted(children, key=lambda child: isinstance(child, Leaf) and child.operator == "$expr")


def _always(document: Any) -> bool:
    return True


def _negation(inner: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda document: not inner(document)


def _all(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    if not tests:
        return _always
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda document: first(document) and second(document)

    def decide(document: Any) -> bool:
        for test in tests:  # noqa: SIM110 - a generator would cost more than the tests themselves
            if not test(document):
                return False
        return True

    return decide


def _any(tests: list[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    if len(tests) == 1:
        return tests[0]

    def decide(document: Any) -> bool:
        for test in tests:  # noqa: SIM110 - as above
            if test(document):
                return True
        return False

    return decide


def _compiled_leaf(leaf: Leaf) -> Callable[[Any], bool]:
    match leaf.operator:
        case "$alwaysTrue":
            return _always
        case "$alwaysFalse":
            return _negation(_always)
        case "$ne" | "$nin":
            return _negation(matcher(leaf.path, _predicate(_positive(leaf))))
        case "$exists" if not leaf.value:
            return _negation(matcher(leaf.path, predicates.exists))
        case "$all":
            return _compiled_all(leaf)
        case "$size" | "$elemMatch":
            return matcher(leaf.path, _predicate(leaf), traverse=False)
        case _:
            return matcher(leaf.path, _predicate(leaf))


def _expression(value: Any, given: Mapping[str, Any]) -> Callable[[Any], bool]:
    from shadow.mongoql.expressions.expressions import evaluator  # expressions stand above filters

    evaluate = evaluator(value, given)
    return lambda document: predicates.truthy(evaluate(document))


def _positive(leaf: Leaf) -> Leaf:
    return Leaf(leaf.path, {"$ne": "$eq", "$nin": "$in"}[leaf.operator], leaf.value)


def _all_leaves(leaf: Leaf) -> list[Leaf]:
    """`$all` as the conditions that it stands for."""
    matches = [type(v) is dict and next(iter(v), "") == "$elemMatch" for v in leaf.value]
    if any(matches):
        if not all(matches):
            raise failure(2, "$all/$elemMatch has to be consistent")
        return [Leaf(leaf.path, "$elemMatch", v["$elemMatch"]) for v in leaf.value]
    if any(is_expression(v) and _is_condition(next(iter(v))) for v in leaf.value):
        raise failure(2, "no $ expressions in $all")
    return [Leaf(leaf.path, "$regex" if type(v) is Regex else "$eq", v) for v in leaf.value]


def _is_condition(name: str) -> bool:
    """Whether it is an operator that belongs under a path, and not just a name with a dollar."""
    return name in TABLE[Family.QUERY] and name not in PATHLESS and name != "$not" and name not in _SHAPES


_SHAPES: Final = frozenset(
    {"$box", "$center", "$centerSphere", "$geometry", "$maxDistance", "$minDistance", "$polygon", "$text", "$meta"}
    | {"$where", "$jsonSchema", "$rand", "$sampleRate", "$natural"}
)
"""Operators of queries that are no conditions of their own."""


def _compiled_all(leaf: Leaf) -> Callable[[Any], bool]:
    tests = [_compiled_leaf(inner) for inner in _all_leaves(leaf)]
    return _all(tests) if tests else _negation(_always)


def _predicate(node: Node) -> Predicate:
    """The condition over one element, without its path: what `$elemMatch` over values asks."""
    match node:
        case And(children):
            return _all([_predicate(child) for child in children])
        case Not(child):
            return _negation(_predicate(child))
        case Leaf():
            return _leaf_predicate(node)
        case _:
            raise AssertionError("no logical operator of its own is under a path")


def _leaf_predicate(leaf: Leaf) -> Predicate:
    operand = leaf.value
    match leaf.operator:
        case "$eq":
            return predicates.equals(operand)
        case "$gt" | "$gte" | "$lt" | "$lte":
            return predicates.compare(leaf.operator, operand)
        case "$in":
            return predicates.member(operand)
        case "$ne" | "$nin":
            return _negation(_leaf_predicate(_positive(leaf)))
        case "$exists":
            return predicates.exists if operand else _negation(predicates.exists)
        case "$type":
            return predicates.has_type(operand)
        case "$regex":
            return predicates.pattern(operand)
        case name if name == COLLATED:
            return predicate_of(operand)  # type: ignore[no-any-return]
        case "$size":
            return predicates.size(operand)
        case "$mod":
            return predicates.modulo(operand)
        case "$elemMatch":
            index = _element_index(operand)
            return lambda value: index(value) is not None
        case "$all":
            tests = [_leaf_predicate(inner) for inner in _all_leaves(leaf)]
            return _all(tests) if tests else _negation(_always)
        case name if name in _BITS:
            return predicates.bits(name, operand)
        case name:
            raise failure(2, f"unknown operator: {name}")


def _element_index(operand: Any) -> Callable[[Any], int | None]:
    """Where in an array the first element stands that `$elemMatch` asks for."""
    operand = as_document(operand)
    if type(operand) is not dict:
        raise failure(2, "$elemMatch needs an Object")
    if _asks_values(operand):
        test = _all([_predicate(node) for node in operators_of("", operand)])
    else:
        test = _over_objects(operand)

    def index(value: Any) -> int | None:
        if type(value) is not list:
            return None
        return next((i for i, element in enumerate(value) if test(element)), None)

    return index


def _asks_values(operand: dict[str, Any]) -> bool:
    """Whether `$elemMatch` has operators for the elements themselves, rather than a filter of their fields."""
    first = next(iter(operand), "")
    return first.startswith("$") and first not in PATHLESS and first not in REFERENCE


def _over_objects(operand: dict[str, Any]) -> Predicate:
    inner = _compiled(parsed(operand, nested=True))

    def test(element: Any) -> bool:
        mapping = as_mapping(element)
        return type(mapping) is dict and inner(mapping)

    return test


# -- positions and equalities -------------------------------------------------------------------------------------

# The server orders the conditions of a filter by kind, then by path; the last one that met an array gives `$` its
# position. Source: the order of `MatchExpression::MatchType` in expression.h.
_ORDER: Final = ("$size", "$eq", "$lte", "$lt", "$gt", "$gte", "$regex", "$mod", "$exists", "$in")


def _leaves(node: Node) -> Iterator[Leaf]:
    match node:
        case Leaf():
            yield node
        case And(children) | Or(children) | Nor(children):
            for child in children:
                yield from _leaves(child)
        case Not(child):
            yield from _leaves(child)


def _conditions(node: Node) -> Iterator[Leaf]:
    """The conditions that must all hold, as the filter says them."""
    match node:
        case Leaf():
            yield node
        case And(children):
            for child in children:
                yield from _conditions(child)
        case Or(children):
            possible = [child for child in children if not _never(child)]
            if len(possible) == 1:
                yield from _conditions(possible[0])
            elif joined := _joined(possible):
                yield joined


def _joined(nodes: list[Node]) -> Leaf | None:
    """Alternatives that are all equalities of one path, as the one `$in` that the server makes of them."""
    leaves = [node for node in nodes if isinstance(node, Leaf) and node.operator == "$eq"]
    if len(leaves) < len(nodes) or len({leaf.path for leaf in leaves}) != 1:
        return None
    return Leaf(leaves[0].path, "$in", [leaf.value for leaf in leaves])


def _never(node: Node) -> bool:
    match node:
        case Leaf(_, "$all", []) | Leaf(_, "$alwaysFalse", _):
            return True
        case And(children):
            return any(_never(child) for child in children)
        case Or(children):
            return all(_never(child) for child in children)
        case _:
            return False


def _conjuncts(node: Node) -> Iterator[Leaf]:
    """`_conditions` with what the server's optimizer folds into them."""
    for leaf in _conditions(node):
        if leaf.operator == "$all":
            yield from _all_leaves(leaf)
        elif leaf.operator == "$in" and len({order_key(v) for v in leaf.value}) == 1:
            yield Leaf(leaf.path, "$regex" if type(leaf.value[0]) is Regex else "$eq", leaf.value[0])
        else:
            yield leaf


def _rank(leaf: Leaf) -> tuple[int, str]:
    if leaf.operator == "$elemMatch":
        return (-1 if _asks_values(leaf.value) else -2, leaf.path)
    return (_ORDER.index(leaf.operator) if leaf.operator in _ORDER else len(_ORDER), leaf.path)


def _located(tree: Node, document: Document) -> int | None:
    placed = [(_rank(leaf), place) for leaf in _conjuncts(tree) if (place := _place(leaf, document)) is not None]
    if not placed:
        return None
    last = max(rank for rank, _ in placed)
    places = {place for rank, place in placed if rank == last}
    if len(places) > 1:
        raise UnsupportedOperation("$", "several conditions of one kind give it different positions")
    return places.pop()


def _place(leaf: Leaf, document: Document) -> int | None:
    """The position in the outermost array at which the condition holds, None if that is in no array."""
    if leaf.operator in ("$ne", "$nin", "$expr", "$alwaysTrue", "$alwaysFalse"):
        return None
    if leaf.operator == "$exists" and not leaf.value:
        return None
    if leaf.operator != "$elemMatch":
        place = finder(leaf.path, _leaf_predicate(leaf), traverse=leaf.operator != "$size")(document)
        return None if place == NOWHERE else place
    inner: list[int | None] = []
    index = _element_index(leaf.value)

    def predicate(value: Any) -> bool:
        inner.append(index(value))
        return inner[-1] is not None

    place = finder(leaf.path, predicate, traverse=False)(document)
    return inner[-1] if place == NOWHERE else place


def _equal_leaves(node: Node) -> Iterator[Leaf]:
    for leaf in _conjuncts(node):
        if leaf.operator == "$eq":
            yield leaf


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(b + ".") or b.startswith(a + ".")
