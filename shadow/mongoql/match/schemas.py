"""`$jsonSchema` as the server has it: its own dialect of the draft 4, with BSON types.

A schema is compiled to a test of one value. The server makes conditions on paths of it; there is no difference but for
names with dots, which are refused by name here.
"""

from __future__ import annotations

import fractions
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from bson import Regex

from shadow.errors import UnsupportedOperation
from shadow.model.order import as_document, order_key
from shadow.mongoql.values import predicates
from shadow.mongoql.values.failures import described, failure
from shadow.mongoql.values.numbers import decimal_of
from shadow.mongoql.values.regexes import compile_regex

__all__ = ["compile_schema"]

Test: TypeAlias = Callable[[Any], bool]

_JSON_TYPES: Final = {
    "array": "array", "boolean": "bool", "null": "null", "number": "number", "object": "object", "string": "string",
}  # fmt: skip
_NOT_SUPPORTED: Final = frozenset({"$ref", "$schema", "default", "definitions", "format", "id"})
_ENCRYPTION: Final = frozenset({"encrypt", "encryptMetadata"})


def compile_schema(schema: Any) -> Test:
    """The test of a document, or of a value below it.

    Raises OperationFailure with the server's code for an invalid schema, UnsupportedOperation for one whose meaning
    here would not be the server's.
    """
    if type(schema) is not dict:
        raise failure(14, "$jsonSchema must be an object")
    return _schema(schema)


def _schema(schema: Mapping[str, Any]) -> Test:
    for name in schema:
        if name in _NOT_SUPPORTED:
            raise failure(9, f"$jsonSchema keyword '{name}' is not currently supported")
        if name in _ENCRYPTION:
            raise UnsupportedOperation("$jsonSchema", f"with the keyword {name!r}, for encrypted values")
        if name not in _KEYWORDS:
            raise failure(9, f"Unknown $jsonSchema keyword: {name}")
    if "type" in schema and "bsonType" in schema:
        raise failure(9, "Cannot specify both $jsonSchema keywords 'type' and 'bsonType'")
    tests = [made for name, value in schema.items() if (made := _KEYWORDS[name](name, value, schema)) is not None]
    return _all(tests)


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _of_type(kind: type, test: Test) -> Test:
    """The test of values of one Python type; others pass."""
    return lambda value: type(value) is not kind or test(value)


def _of_objects(test: Callable[[dict[str, Any]], bool]) -> Test:
    def over(value: Any) -> bool:
        value = as_document(value)
        return type(value) is not dict or test(value)

    return over


# -- types of operands --------------------------------------------------------------------------------------------


def _wrong(name: str, what: str) -> Exception:
    return failure(14, f"$jsonSchema keyword '{name}' must be {what}")


def _text(name: str, value: Any) -> str:
    if type(value) is not str:
        raise _wrong(name, "a string")
    return value


def _flag(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong(name, "a boolean")
    return value


def _number(name: str, value: Any) -> Any:
    if not predicates.is_number(value):
        raise _wrong(name, "a number")
    return value


def _count(name: str, value: Any) -> int:
    whole = predicates.whole(value, name, code=9)
    if whole < 0:
        raise failure(9, f"Expected a non-negative number in: {name}")
    return whole


def _object(name: str, value: Any) -> dict[str, Any]:
    value = as_document(value)
    if type(value) is not dict:
        raise _wrong(name, "an object")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise _wrong(name, f"an array, but found an element of type {described(value)}")
    return value


def _schemas(name: str, value: Any) -> list[Test]:
    return [_schema(_object(name, each)) for each in _list(name, value)]


def _names(name: str, value: Any) -> list[str]:
    """The names of fields in a list without duplicates."""
    named = _list(name, value)
    if not named:
        raise failure(9, f"$jsonSchema keyword '{name}' cannot be an empty array")
    for each in named:
        if type(each) is not str:
            raise failure(14, f"$jsonSchema keyword '{name}' must be an array of strings")
    if len(set(named)) < len(named):
        raise failure(9, f"$jsonSchema keyword '{name}' array cannot contain duplicate values")
    return [_plain(each) for each in named]


def _plain(name: str) -> str:
    if not name or "." in name:
        raise UnsupportedOperation("$jsonSchema", "with a name that is empty or a path with dots")
    return name


# -- keywords -----------------------------------------------------------------------------------------------------


def _type(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    given = [value] if type(value) is str else value
    if type(given) is not list:
        raise _wrong(name, "either a string or an array of strings")
    if not given:
        raise failure(9, f"$jsonSchema keyword '{name}' must name at least one type")
    for each in given:
        if type(each) is not str:
            raise failure(14, f"$jsonSchema keyword '{name}' array elements must be strings")
    codes: set[int] = set()
    for at, each in enumerate(given):
        if each in given[:at]:
            raise failure(9, f"$jsonSchema keyword '{name}' has duplicate value: {each}")
        codes |= _codes(name, each)
    return lambda value: predicates.type_code(value) in codes


def _codes(name: str, alias: str) -> frozenset[int]:
    if name == "bsonType":
        return predicates.type_codes(alias)
    if alias == "integer":
        raise failure(9, "$jsonSchema type 'integer' is not currently supported.")
    if alias not in _JSON_TYPES:
        raise failure(2, f"Unknown type name alias: {alias}")
    return predicates.type_codes(_JSON_TYPES[alias])


def _bound(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    _number(name, value)
    exclusive = "exclusive" + name.capitalize()
    strict = exclusive in schema and _flag(exclusive, schema[exclusive])
    operator = ("$gt" if name == "minimum" else "$lt") + ("" if strict else "e")
    within = predicates.compare(operator, value)
    return lambda found: not predicates.is_number(found) or within(found)


def _exclusive(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    bound = name.removeprefix("exclusive").lower()
    if bound not in schema:
        raise failure(9, f"$jsonSchema keyword '{bound}' must be a present if {name} is present")


def _multiple(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    divisor = decimal_of(_number(name, value))
    if not divisor.is_nan() and divisor <= 0:
        raise failure(9, f"$jsonSchema keyword '{name}' must have a positive value")
    if not divisor.is_finite():  # which the server refuses in some places of a schema
        raise UnsupportedOperation("$jsonSchema", f"with {name} of a number that is not finite")

    def divides(found: Any) -> bool:
        if not predicates.is_number(found):
            return True
        number = decimal_of(found)
        return number.is_finite() and fractions.Fraction(number) % fractions.Fraction(divisor) == 0

    return divides


def _sized(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    count, kind = _count(name, value), _SIZED[name[3:]]

    def test(found: Any) -> bool:
        found = as_document(found)
        if type(found) is not kind:  # Code is a str too
            return True
        return len(found) >= count if name.startswith("min") else len(found) <= count

    return test


_SIZED: Final[dict[str, Any]] = {"Length": str, "Items": list, "Properties": dict}


def _pattern(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    search = _searching(_text(name, value))
    return _of_type(str, search)


def _searching(pattern: str) -> Test:
    search = compile_regex(Regex(pattern)).search
    return lambda text: search(text) is not None


def _unique(name: str, value: Any, schema: Mapping[str, Any]) -> Test | None:
    if not _flag(name, value):
        return None
    return _of_type(list, lambda found: len(set(map(_unordered, found))) == len(found))


def _unordered(value: Any) -> Any:
    """A key by which values are equal whatever the order of their fields."""
    return order_key(_sorted(value))


def _sorted(value: Any) -> Any:
    value = as_document(value)
    if type(value) is dict:
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if type(value) is list else value


def _enum(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    values = [_unordered(each) for each in _list(name, value)]
    if not values:
        raise failure(9, f"$jsonSchema keyword '{name}' cannot be an empty array")
    allowed = frozenset(values)
    if len(allowed) < len(values):
        raise failure(9, f"$jsonSchema keyword '{name}' array cannot contain duplicate values.")
    return lambda found: _unordered(found) in allowed


def _items(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    if type(value) is not list:
        each = _schema(_object(name, value))
        return _of_type(list, lambda found: all(map(each, found)))
    tests = _schemas(name, value)
    return _of_type(list, lambda found: all(test(each) for test, each in zip(tests, found, strict=False)))


def _additional_items(name: str, value: Any, schema: Mapping[str, Any]) -> Test | None:
    if type(value) is bool:
        test: Test = lambda found: value  # noqa: E731 - a name for one of two
    else:
        test = _schema(_object(name, value))
    if type(schema.get("items")) is not list:
        return None
    first = len(schema["items"])
    return _of_type(list, lambda found: all(map(test, found[first:])))


def _required(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    names = _names(name, value)
    return _of_objects(lambda found: all(each in found for each in names))


def _properties(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    tests = {_plain(each): _schema(_object(name, inner)) for each, inner in _object(name, value).items()}
    return _of_objects(lambda found: all(test(found[each]) for each, test in tests.items() if each in found))


def _pattern_properties(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    tests = [(_searching(each), _schema(_object(name, inner))) for each, inner in _object(name, value).items()]
    return _of_objects(
        lambda found: all(test(inner) for each, inner in found.items() for search, test in tests if search(each))
    )


def _additional_properties(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    if type(value) is bool:
        test: Test = lambda found: value  # noqa: E731 - a name for one of two
    else:
        test = _schema(_object(name, value))
    named = frozenset(_object("properties", schema.get("properties", {})))
    searches = [_searching(each) for each in _object("patternProperties", schema.get("patternProperties", {}))]

    def others(found: Mapping[str, Any]) -> Iterable[Any]:
        return (
            inner for each, inner in found.items() if each not in named and not any(search(each) for search in searches)
        )

    return _of_objects(lambda found: all(map(test, others(found))))


def _dependencies(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    tests = {_plain(each): _dependent(name, inner) for each, inner in _object(name, value).items()}
    return _of_objects(lambda found: all(test(found) for each, test in tests.items() if each in found))


def _dependent(name: str, value: Any) -> Test:
    value = as_document(value)
    if type(value) is dict:
        return _schema(value)
    if type(value) is not list:
        raise failure(14, f"a property in $jsonSchema keyword '{name}' must be either an object or an array")
    names = _names(name, value)
    return lambda found: all(each in found for each in names)


def _several(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    tests = _schemas(name, value)
    if not tests:
        raise failure(2, f"$jsonSchema keyword '{name}' must be a non-empty array")
    if name == "allOf":
        return _all(tests)
    if name == "anyOf":
        return lambda found: any(test(found) for test in tests)
    return lambda found: sum(test(found) for test in tests) == 1


def _not(name: str, value: Any, schema: Mapping[str, Any]) -> Test:
    test = _schema(_object(name, value))
    return lambda found: not test(found)


def _noted(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    if type(value) is not str:
        raise _wrong(name, "of type string")


_KEYWORDS: Final[dict[str, Callable[[str, Any, Mapping[str, Any]], Test | None]]] = {
    **dict.fromkeys(("type", "bsonType"), _type),
    **dict.fromkeys(("minimum", "maximum"), _bound),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _exclusive),
    "multipleOf": _multiple,
    **dict.fromkeys((f"{way}{what}" for way in ("min", "max") for what in _SIZED), _sized),
    "pattern": _pattern,
    "uniqueItems": _unique,
    "enum": _enum,
    "items": _items,
    "additionalItems": _additional_items,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "dependencies": _dependencies,
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _several),
    "not": _not,
    **dict.fromkeys(("title", "description"), _noted),
}
