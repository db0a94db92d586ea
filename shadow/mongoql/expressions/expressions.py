"""Aggregation expressions, the supported subset: compiled to closures over (document, variables).

A missing value is `MISSING`. Functions of evaluated values are in `functions`; this module has the parser, field paths,
and the operators that decide what to evaluate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from shadow.errors import UnsupportedOperation
from shadow.model.order import MISSING, as_document
from shadow.model.values import snapshot
from shadow.model.version import Document
from shadow.mongoql.expressions.chance import compile_rand
from shadow.mongoql.expressions.containers import whole_index
from shadow.mongoql.expressions.conversions import compile_convert
from shadow.mongoql.expressions.date_operators import DATE_OPERATORS
from shadow.mongoql.expressions.functions import FUNCTIONS
from shadow.mongoql.expressions.lists import LIST_OPERATORS
from shadow.mongoql.expressions.named import Compile
from shadow.mongoql.expressions.texts import TEXT_OPERATORS
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.fieldpaths import at_path, checked_path
from shadow.mongoql.values.predicates import truthy
from shadow.mongoql.values.references import is_dollar_name
from shadow.mongoql.values.stages import NOTHING_GIVEN, Variables
from shadow.mongoql.values.support import LITERALS, Family, require

__all__ = ["Expression", "checked_name", "compile_expression", "evaluator", "is_constant"]

Expression: TypeAlias = Callable[[Document, Variables], Any]

_CLOCKED: Final = frozenset({"NOW", "CLUSTER_TIME", "USER_ROLES", "SEARCH_META", "JS_SCOPE", "IS_MR"})


def compile_expression(expr: Any, scope: frozenset[str] = frozenset()) -> Expression:
    """Compiles an expression. `scope` names the variables that are passed beside the document.

    The closure returns a canonical value or `MISSING`. Raises OperationFailure with the server's code, and
    UnsupportedOperation for an operator that is not supported.
    """
    expr = as_document(expr)
    if type(expr) is str and expr.startswith("$"):
        return _reference(expr, scope)
    if type(expr) is dict:
        return _object(expr, scope)
    if type(expr) is list:
        items = [compile_expression(v, scope) for v in expr]
        return lambda doc, names: [None if v is MISSING else v for v in [item(doc, names) for item in items]]
    return lambda doc, names: expr


def evaluator(expr: Any, given: Variables = NOTHING_GIVEN) -> Callable[[Document], Any]:
    """An expression as a function of the document alone. It reads the variables `given` at each call, so their values
    may change in between, but not their names."""
    evaluate = compile_expression(expr, frozenset(given))
    return lambda document: evaluate(document, given)


def _reference(text: str, scope: frozenset[str]) -> Expression:
    if text.startswith("$$"):
        return _variable(text[2:], scope)
    if text == "$":
        raise failure(16872, "'$' by itself is not a valid FieldPath")
    parts = checked_path(text[1:])
    if len(parts) == 1:
        name = parts[0]
        return lambda doc, names: doc.get(name, MISSING)
    return lambda doc, names: at_path(doc, parts)


def _variable(text: str, scope: frozenset[str]) -> Expression:
    name = text.partition(".")[0]
    if not name or not (_letter(name[0]) and all(_letter(c) or c.isdigit() or c == "_" for c in name)):
        raise failure(9, "a variable's name begins with a letter and holds letters, digits and underscores")
    parts = checked_path(text)[1:]
    if name in ("ROOT", "CURRENT") and name not in scope:
        return lambda doc, names: at_path(doc, parts)
    if name == "REMOVE":
        return lambda doc, names: MISSING
    if name in scope:
        return lambda doc, names: at_path(names[name], parts)
    if name in _CLOCKED:
        raise UnsupportedOperation(f"$${name}", "its value differs from run to run")
    raise failure(17276, f"Use of undefined variable: {name}")


def _letter(character: str) -> bool:
    return "a" <= character <= "z" or "A" <= character <= "Z" or ord(character) >= 128


def _object(expr: dict[str, Any], scope: frozenset[str]) -> Expression:
    first = next(iter(expr), "")
    if first.startswith("$"):
        if len(expr) != 1:
            raise failure(15983, "an object representing an expression must have exactly one field")
        return _operator(first, expr[first], scope)
    fields: list[tuple[str, Expression]] = []
    for name, value in expr.items():
        if not name:
            raise failure(15998, "FieldPath field names may not be empty strings.")
        if "." in name or (name.startswith("$") and not is_dollar_name(name)):
            raise failure(16410 if name.startswith("$") else 16412, "FieldPath field names may not contain '.' or '$'")
        fields.append((name, compile_expression(value, scope)))

    def evaluate(doc: Document, names: Variables) -> Any:
        values = [(name, part(doc, names)) for name, part in fields]
        return {name: value for name, value in values if value is not MISSING}

    return evaluate


def _operator(name: str, operand: Any, scope: frozenset[str]) -> Expression:
    require(Family.EXPRESSION, name)
    if name in _SPECIAL:
        return _SPECIAL[name](operand, scope)
    if name in _NAMED:
        return _NAMED[name](operand, lambda expr: compile_expression(expr, scope))
    function = FUNCTIONS[name]
    given = operand if type(operand) is list else [operand]
    if name in ("$min", "$max"):
        given = sorted(given, key=is_constant)  # the server folds constants last, and keeps the first of equals
    arguments = [compile_expression(v, scope) for v in given]
    if not function.least <= len(given) <= function.most:
        raise failure(function.arity, f"Expression {name} takes another number of arguments than {len(given)}")
    call = function.call
    if len(arguments) == 1:
        (only,) = arguments
        return lambda doc, names: call(only(doc, names))
    return lambda doc, names: call(*[argument(doc, names) for argument in arguments])


def is_constant(expr: Any) -> bool:
    """Whether an expression depends on no document."""
    if type(expr) is str:
        return not expr.startswith("$")
    if type(expr) is list:
        return all(map(is_constant, expr))
    if type(expr) is dict:
        return all(name in LITERALS or (name != "$rand" and is_constant(value)) for name, value in expr.items())
    return True


# -- operators that decide what to evaluate -----------------------------------------------------------------------


def _literal(operand: Any, scope: frozenset[str]) -> Expression:
    if type(operand) is dict or type(operand) is list:
        # A copy, for the answer is the application's to change and the compiled form is used again.
        return lambda doc, names: snapshot(operand)
    return lambda doc, names: operand


def _and(operand: Any, scope: frozenset[str]) -> Expression:
    tests = [compile_expression(v, scope) for v in (operand if type(operand) is list else [operand])]
    return lambda doc, names: all(truthy(test(doc, names)) for test in tests)


def _or(operand: Any, scope: frozenset[str]) -> Expression:
    tests = [compile_expression(v, scope) for v in (operand if type(operand) is list else [operand])]
    return lambda doc, names: any(truthy(test(doc, names)) for test in tests)


def _cond(operand: Any, scope: frozenset[str]) -> Expression:
    if type(operand) is dict:
        _fields("$cond", operand, {"if": 17080, "then": 17081, "else": 17082}, 17083)
        operand = [operand["if"], operand["then"], operand["else"]]
    parts = [compile_expression(v, scope) for v in (operand if type(operand) is list else [operand])]
    if len(parts) != 3:
        raise failure(16020, "Expression $cond takes exactly 3 arguments")
    test, then, otherwise = parts
    return lambda doc, names: then(doc, names) if truthy(test(doc, names)) else otherwise(doc, names)


def _fields(
    name: str,
    operand: Any,
    needed: Mapping[str, int],
    unknown: int,
    optional: tuple[str, ...] = (),
    *,
    other: int | None = None,
) -> None:
    """Checks an operand with named fields: a code for each missing one, `unknown` for an unknown one, and `other` for
    an operand that is no object."""
    if type(operand) is not dict:
        raise failure(unknown if other is None else other, f"{name} only supports an object as its argument")
    for field in operand:
        if field not in needed and field not in optional:
            raise failure(unknown, f"Unrecognized parameter to {name}: {field}")
    for field, code in needed.items():
        if field not in operand:
            raise failure(code, f"Missing '{field}' parameter to {name}")


def _if_null(operand: Any, scope: frozenset[str]) -> Expression:
    choices = [compile_expression(v, scope) for v in (operand if type(operand) is list else [operand])]
    if len(choices) < 2:
        raise failure(1257300, "$ifNull needs at least two arguments")

    def evaluate(doc: Document, names: Variables) -> Any:
        value: Any = MISSING
        for choice in choices:
            value = choice(doc, names)
            if value is not MISSING and value is not None:
                return value
        return value

    return evaluate


def _switch(operand: Any, scope: frozenset[str]) -> Expression:
    if type(operand) is not dict:
        raise failure(40060, "$switch requires an object as an argument")
    for field in operand:
        if field not in ("branches", "default"):
            raise failure(40067, f"$switch found an unknown argument: {field}")
    branches = operand.get("branches", [])
    if type(branches) is not list:
        raise failure(40061, "$switch expected an array for 'branches'")
    if not branches:
        raise failure(40068, "$switch requires at least one branch.")
    cases = [_branch(branch, scope) for branch in branches]
    default = compile_expression(operand["default"], scope) if "default" in operand else None

    def evaluate(doc: Document, names: Variables) -> Any:
        for test, then in cases:
            if truthy(test(doc, names)):
                return then(doc, names)
        if default is None:
            raise failure(40066, "$switch could not find a matching branch for an input, and no default was specified.")
        return default(doc, names)

    return evaluate


def _branch(branch: Any, scope: frozenset[str]) -> tuple[Expression, Expression]:
    if type(branch) is not dict:
        raise failure(40062, "$switch expected each branch to be an object")
    for field in branch:
        if field not in ("case", "then"):
            raise failure(40063, f"$switch found an unknown argument to a branch: {field}")
    for field, code in (("case", 40064), ("then", 40065)):
        if field not in branch:
            raise failure(code, f"$switch requires each branch have a '{field}' expression")
    return compile_expression(branch["case"], scope), compile_expression(branch["then"], scope)


def checked_name(name: Any, code: int) -> str:
    """The name of a variable that `$let` and its like bind. Raises with `code` for another type than string."""
    if type(name) is not str:
        raise failure(code, "a variable's name must be a string")
    if not name or not ("a" <= name[0] <= "z" or ord(name[0]) >= 128):
        if name != "CURRENT":
            raise failure(9, "a variable's name must start with a lower-case letter")
        raise UnsupportedOperation("$$CURRENT", "it cannot be bound here")
    if not all(c.isalnum() or c == "_" or ord(c) >= 128 for c in name):
        raise failure(9, "a variable's name holds a character that is not allowed")
    return name


def _filter(operand: Any, scope: frozenset[str]) -> Expression:
    _fields("$filter", operand, {"input": 28648, "cond": 28650}, 28647, ("as", "limit"), other=28646)
    name = checked_name(operand.get("as", "this"), 16866)
    source = compile_expression(operand["input"], scope)
    test = compile_expression(operand["cond"], scope | {name})
    most = compile_expression(operand["limit"], scope) if "limit" in operand else None

    def evaluate(doc: Document, names: Variables) -> Any:
        values = source(doc, names)
        if values is None or values is MISSING:
            return None
        if type(values) is not list:
            raise failure(28651, f"input to $filter must be an array not {described(values)}")
        limit = None if most is None else most(doc, names)
        kept = (v for v in values if truthy(test(doc, {**names, name: v})))
        if limit is None or limit is MISSING:
            return list(kept)
        count = whole_index(limit, 327391, 327391)
        if count <= 0:
            raise failure(327392, "$filter: limit must be greater than 0")
        return list(itertools.islice(kept, count))

    return evaluate


def _map(operand: Any, scope: frozenset[str]) -> Expression:
    _fields("$map", operand, {"input": 16880, "in": 16882}, 16879, ("as",), other=16878)
    name = checked_name(operand.get("as", "this"), 16866)
    source = compile_expression(operand["input"], scope)
    body = compile_expression(operand["in"], scope | {name})

    def evaluate(doc: Document, names: Variables) -> Any:
        values = source(doc, names)
        if values is None or values is MISSING:
            return None
        if type(values) is not list:
            raise failure(16883, f"input to $map must be an array not {described(values)}")
        results = [body(doc, {**names, name: v}) for v in values]
        return [None if v is MISSING else v for v in results]

    return evaluate


def _reduce(operand: Any, scope: frozenset[str]) -> Expression:
    _fields("$reduce", operand, {"input": 40077, "initialValue": 40078, "in": 40079}, 40076, other=40075)
    source = compile_expression(operand["input"], scope)
    initial = compile_expression(operand["initialValue"], scope)
    body = compile_expression(operand["in"], scope | {"this", "value"})

    def evaluate(doc: Document, names: Variables) -> Any:
        values = source(doc, names)
        if values is None or values is MISSING:
            return None
        if type(values) is not list:
            raise failure(40080, f"$reduce requires that 'input' be an array, found: {described(values)}")
        value = initial(doc, names)
        for item in values:
            value = body(doc, {**names, "this": item, "value": value})
        return value

    return evaluate


def _let(operand: Any, scope: frozenset[str]) -> Expression:
    _fields("$let", operand, {"vars": 16876, "in": 16877}, 16875, other=16874)
    if type(operand["vars"]) is not dict:
        raise failure(10065, "invalid parameter: expected an object (vars)")
    bound = {checked_name(n, 16866): compile_expression(v, scope) for n, v in operand["vars"].items()}
    body = compile_expression(operand["in"], scope | bound.keys())
    return lambda doc, names: body(doc, {**names, **{n: part(doc, names) for n, part in bound.items()}})


def _get_field(operand: Any, scope: frozenset[str]) -> Expression:
    name = operand
    source: Any = "$$CURRENT"
    if type(operand) is dict and not next(iter(operand), "").startswith("$"):
        _fields("$getField", operand, {"field": 3041702, "input": 3041703}, 3041701)
        name, source = operand["field"], operand["input"]
    compile_expression(name, scope)
    if type(name) is dict and len(name) == 1 and not LITERALS.isdisjoint(name):
        (name,) = name.values()
    elif type(name) is str and name.startswith("$"):
        raise failure(5654600, "A field path reference is not allowed here. Did you mean {$literal: ...}?")
    elif type(as_document(name)) in (dict, list):
        raise failure(5654601, "$getField requires 'field' to evaluate to a constant")
    if type(name) is not str:
        raise failure(5654602, "$getField requires 'field' to evaluate to a constant of type string")
    of = compile_expression(source, scope)

    def evaluate(doc: Document, names: Variables) -> Any:
        value = as_document(of(doc, names))
        if type(value) is dict:
            return value.get(name, MISSING)
        return None if value is None else MISSING

    return evaluate


_SPECIAL: Final[dict[str, Callable[[Any, frozenset[str]], Expression]]] = {
    "$literal": _literal,
    "$const": _literal,
    "$and": _and,
    "$or": _or,
    "$cond": _cond,
    "$ifNull": _if_null,
    "$switch": _switch,
    "$filter": _filter,
    "$map": _map,
    "$reduce": _reduce,
    "$let": _let,
    "$getField": _get_field,
    "$rand": lambda operand, scope: compile_rand(operand),
}

_NAMED: Final[dict[str, Callable[[Any, Compile], Expression]]] = {
    **DATE_OPERATORS,
    **TEXT_OPERATORS,
    **LIST_OPERATORS,
    "$convert": compile_convert,
}
"""Operators of modules that know no scope: they get the compiler of their arguments."""
